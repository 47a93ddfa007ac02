//! What a pod asks of its node, by Kubernetes' rules: containers run together,
//! init containers one after the other, sidecars from their turn on; then the
//! pod's own resources, then the overhead of its runtime class.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use vingt_core::model::Resources;

use crate::quantity::Amount;

type List = BTreeMap<String, Amount>;

/// What a pod of this spec asks for. An amount that does not parse counts as
/// nothing: the API server accepts none.
pub fn of_pod(spec: &PodSpec) -> Resources {
    let mut running = List::new();
    for container in &spec.containers {
        add(&mut running, &of_container(container));
    }
    let mut starting = List::new();
    let mut sidecars = List::new();
    for container in spec.init_containers.iter().flatten() {
        let mut asked = of_container(container);
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut running, &asked);
            add(&mut sidecars, &asked);
            asked.clone_from(&sidecars);
        } else {
            add(&mut asked, &sidecars);
        }
        raise(&mut starting, &asked);
    }
    raise(&mut running, &starting);
    // The pod's own request replaces the sum, resource by resource.
    if let Some(resources) = &spec.resources {
        running.extend(of_requirements(resources));
    }
    add(&mut running, &amounts(spec.overhead.as_ref()));
    to_resources(&running)
}

/// What a node offers.
pub fn of_allocatable(list: Option<&BTreeMap<String, Quantity>>) -> Resources {
    let amounts = amounts(list);
    let mut resources = to_resources(&amounts);
    resources.pods = amounts.get("pods").map_or(0, |amount| amount.units());
    resources
}

/// Adds `more` to `sum`.
pub fn accumulate(sum: &mut Resources, more: &Resources) {
    sum.cpu_milli = sum.cpu_milli.saturating_add(more.cpu_milli);
    sum.memory_bytes = sum.memory_bytes.saturating_add(more.memory_bytes);
    sum.pods = sum.pods.saturating_add(more.pods);
    for (name, amount) in &more.other {
        let held = sum.other.entry(name.clone()).or_default();
        *held = held.saturating_add(*amount);
    }
}

fn of_container(container: &Container) -> List {
    container.resources.as_ref().map(of_requirements).unwrap_or_default()
}

/// Requests; what has only a limit is asked for in that amount, as the API server defaults it.
fn of_requirements(resources: &ResourceRequirements) -> List {
    let mut list = amounts(resources.limits.as_ref());
    list.extend(amounts(resources.requests.as_ref()));
    list
}

fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> List {
    let parsed = list
        .into_iter()
        .flatten()
        .filter_map(|(name, quantity)| Some((name.clone(), Amount::parse(&quantity.0).ok()?)));
    parsed.collect()
}

fn add(sum: &mut List, more: &List) {
    for (name, amount) in more {
        let held = sum.entry(name.clone()).or_default();
        *held = held.plus(*amount);
    }
}

fn raise(most: &mut List, other: &List) {
    for (name, amount) in other {
        let held = most.entry(name.clone()).or_default();
        *held = (*held).max(*amount);
    }
}

fn to_resources(list: &List) -> Resources {
    let mut resources = Resources { pods: 1, ..Resources::default() };
    for (name, amount) in list {
        match name.as_str() {
            "cpu" => resources.cpu_milli = amount.milli(),
            "memory" => resources.memory_bytes = amount.units(),
            "pods" => {}
            _ if amount.signum() == 0 => {}
            _ => {
                resources.other.insert(name.clone(), amount.units());
            }
        }
    }
    resources
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(spec: serde_json::Value) -> (u64, u64, Vec<(String, u64)>) {
        let resources = of_pod(&serde_json::from_value(spec).unwrap());
        assert_eq!(resources.pods, 1);
        (resources.cpu_milli, resources.memory_bytes, resources.other.into_iter().collect())
    }

    #[test]
    fn containers_add_up_and_limits_stand_in_for_requests() {
        let spec = json!({"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "1Ki"}, "limits": {"cpu": "2"}}},
            {"name": "b", "resources": {"limits": {"cpu": "0.5", "ephemeral-storage": "1G"}}},
            {"name": "c"},
        ]});
        assert_eq!(of(spec), (600, 1024, vec![("ephemeral-storage".into(), 1_000_000_000)]));
    }

    #[test]
    fn init_containers_count_one_at_a_time_with_the_sidecars_before_them() {
        let cpu = |name: &str, cpu: &str, policy: Option<&str>| json!({"name": name, "restartPolicy": policy, "resources": {"requests": {"cpu": cpu}}});
        let spec = json!({
            "initContainers": [cpu("i1", "1", None), cpu("s1", "200m", Some("Always")), cpu("i2", "3", None)],
            "containers": [cpu("a", "500m", None)],
        });
        assert_eq!(of(spec).0, 3200, "the second init container runs beside the sidecar");
        let spec = json!({
            "initContainers": [cpu("s1", "200m", Some("Always")), cpu("s2", "300m", Some("Always"))],
            "containers": [cpu("a", "500m", None)],
        });
        assert_eq!(of(spec).0, 1000, "sidecars stay beside the containers");
    }

    #[test]
    fn the_pods_own_resources_replace_the_sum_and_overhead_comes_on_top() {
        let spec = json!({
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "4", "memory": "1Gi"}}}],
            "resources": {"requests": {"cpu": "1"}},
            "overhead": {"cpu": "250m", "memory": "64Mi"},
        });
        assert_eq!(of(spec), (1250, (1024 + 64) << 20, vec![]));
    }
}
