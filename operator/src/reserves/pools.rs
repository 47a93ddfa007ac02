//! Which nodes a reserve's pool has, and how many GPUs are installed there:
//! what is broken counts, what is out for announced maintenance does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vingt_core::model::{UNITS_PER_GPU, Units};
use vingt_crds::SovereignReserve;

use crate::snapshot::layout::Layout;
use crate::world::{Key, World};

/// How long after the start agents may take to publish what was installed before.
const STARTING_MS: i64 = 600_000;

/// The GPUs of each node, as last published. A node that publishes nothing any more has not lost its GPUs.
#[derive(Debug, Default)]
pub struct Installed {
    gpus: BTreeMap<String, u64>,
    started_ms: Option<i64>,
}

impl Installed {
    /// Takes in what is published now; nodes that are no more are forgotten.
    pub fn look(&mut self, world: &World, layout: &Layout, now_ms: i64) {
        self.started_ms.get_or_insert(now_ms);
        self.gpus.retain(|node, _| world.nodes.get(&Key::new("", node)).is_some());
        let mut published: BTreeMap<&str, u64> = BTreeMap::new();
        for gpu in &layout.gpus {
            if let Some(node) = layout.nodes.get(gpu.node.0 as usize) {
                *published.entry(node).or_default() += 1;
            }
        }
        for (node, gpus) in published {
            let known = self.gpus.entry(node.to_owned()).or_default();
            // A GPU that died is installed until its node is made anew.
            *known = gpus.max(*known);
        }
    }

    fn of(&self, node: &str) -> u64 {
        self.gpus.get(node).copied().unwrap_or(0)
    }
}

/// A reserve with its pool.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The reserve.
    pub reserve: Arc<SovereignReserve>,
    /// Its nodes.
    pub nodes: BTreeSet<String>,
    /// GPUs installed, without those in maintenance.
    pub gpus: u64,
    /// GPUs in maintenance.
    pub out: u64,
    /// Nodes that another reserve has already.
    pub shared: BTreeSet<String>,
}

impl Pool {
    /// Its name.
    pub fn name(&self) -> &str {
        self.reserve.metadata.name.as_deref().unwrap_or_default()
    }

    /// Units installed.
    pub fn units(&self) -> Units {
        self.gpus * UNITS_PER_GPU
    }
}

/// All reserves' pools; no node is in two.
#[derive(Clone, Debug, Default)]
pub struct Pools {
    /// Those that were made first come first.
    pub pools: Vec<Pool>,
    of_node: BTreeMap<String, usize>,
}

impl Pools {
    /// The pools as they are now.
    pub fn of(world: &World, installed: &Installed, now_ms: i64) -> Self {
        let mut reserves: Vec<&Arc<SovereignReserve>> =
            world.reserves.iter().map(|(_, reserve)| reserve).collect();
        let made = |reserve: &SovereignReserve| {
            reserve.metadata.creation_timestamp.as_ref().map(|time| time.0.as_millisecond())
        };
        reserves.sort_by_key(|reserve| (made(reserve), reserve.metadata.name.clone()));
        let mut all = Self::default();
        for reserve in reserves {
            let wanted = &reserve.spec.node_selector.match_labels;
            let matching = world
                .nodes
                .iter()
                .filter(|(_, node)| wanted.iter().all(|(name, value)| node.labels.get(name) == Some(value)));
            let (mut nodes, mut shared) = (BTreeSet::new(), BTreeSet::new());
            for (key, _) in matching {
                if all.of_node.contains_key(&key.name) {
                    shared.insert(key.name.clone());
                } else {
                    all.of_node.insert(key.name.clone(), all.pools.len());
                    nodes.insert(key.name.clone());
                }
            }
            let out: BTreeSet<&String> = in_maintenance(reserve, now_ms).collect();
            let gpus_of = |in_service: bool| -> u64 {
                let counted = nodes.iter().filter(|node| out.contains(node) != in_service);
                counted.map(|node| installed.of(node)).sum()
            };
            let (mut gpus, out_gpus) = (gpus_of(true), gpus_of(false));
            let said = reserve.status.as_ref().map_or(0, |status| status.installed_gpus);
            let starting = installed.started_ms.is_none_or(|started_ms| now_ms < started_ms + STARTING_MS);
            if starting && out.is_empty() && nodes.iter().any(|node| installed.of(node) == 0) {
                gpus = gpus.max(said);
            }
            all.pools.push(Pool { reserve: Arc::clone(reserve), nodes, gpus, out: out_gpus, shared });
        }
        all
    }

    /// The reserve in whose pool a node is.
    pub fn reserve_of(&self, node: &str) -> Option<&str> {
        self.of_node.get(node).and_then(|at| self.pools.get(*at)).map(Pool::name)
    }

    /// The pool of a reserve.
    pub fn get(&self, reserve: &str) -> Option<&Pool> {
        self.pools.iter().find(|pool| pool.name() == reserve)
    }
}

/// The nodes that are out for announced maintenance at a time.
pub fn in_maintenance(reserve: &SovereignReserve, at_ms: i64) -> impl Iterator<Item = &String> {
    let during = reserve.spec.maintenance.iter().filter(move |maintenance| {
        (maintenance.from.0.as_millisecond()..maintenance.until.0.as_millisecond()).contains(&at_ms)
    });
    during.flat_map(|maintenance| &maintenance.nodes)
}

#[cfg(test)]
pub mod tests {
    use k8s_openapi::jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::layout::tests::{list, slices};
    use crate::world::{Node, Slice};

    fn node(name: &str, zone: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "resourceVersion": "1", "labels": {"zone": zone}}})
    }

    fn reserve(name: &str, zone: Option<&str>, made: &str, more: &Value) -> Value {
        let labels = zone.map_or(json!({}), |zone| json!({"zone": zone}));
        let mut reserve = json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "SovereignReserve",
            "metadata": {"name": name, "resourceVersion": "1", "creationTimestamp": made},
            "spec": {"nodeSelector": {"matchLabels": labels}, "instantClaim": {"shapes": [{"gpus": 1, "count": 1}]}}});
        for (field, value) in more.as_object().unwrap() {
            reserve["spec"][field] = value.clone();
        }
        reserve
    }

    /// The pool of all of these nodes with so many GPUs each.
    pub fn pool_of(nodes: &[(&str, u32)]) -> (Pool, Layout) {
        let mut world = World::default();
        list::<Node>(&mut world, nodes.iter().map(|(name, _)| node(name, "x")));
        list::<Slice>(&mut world, nodes.iter().flat_map(|(name, gpus)| slices(name, *gpus, 1)));
        list::<SovereignReserve>(&mut world, [reserve("r", None, "2026-01-01T00:00:00Z", &json!({}))]);
        let layout = Layout::of(&world.slices);
        let mut installed = Installed::default();
        installed.look(&world, &layout, 0);
        (Pools::of(&world, &installed, 0).pools.remove(0), layout)
    }

    #[test]
    fn a_pool_is_what_its_selector_matches_and_nobody_else_has() {
        let mut world = World::default();
        list::<Node>(&mut world, [node("a", "x"), node("b", "x"), node("c", "y")]);
        list::<Slice>(&mut world, [slices("a", 2, 1), slices("b", 3, 1), slices("c", 4, 1)].concat());
        list::<SovereignReserve>(
            &mut world,
            [
                reserve("all", None, "2026-01-02T00:00:00Z", &json!({})),
                reserve(
                    "x",
                    Some("x"),
                    "2026-01-01T00:00:00Z",
                    &json!({"maintenance": [
                {"from": "2026-05-01T00:00:00Z", "until": "2026-05-02T00:00:00Z", "nodes": ["b"], "reason": "r"}]}),
                ),
            ],
        );
        let layout = Layout::of(&world.slices);
        let mut installed = Installed::default();
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_millisecond();
        installed.look(&world, &layout, at("2026-04-01T00:00:00Z"));
        let pools = Pools::of(&world, &installed, at("2026-04-01T00:00:00Z"));
        let seen: Vec<_> =
            pools.pools.iter().map(|pool| (pool.name(), pool.gpus, pool.out, pool.shared.len())).collect();
        assert_eq!(seen, [("x", 5, 0, 0), ("all", 4, 0, 2)], "who was there first keeps its nodes");
        assert_eq!(
            (pools.reserve_of("b"), pools.reserve_of("c"), pools.reserve_of("d")),
            (Some("x"), Some("all"), None)
        );
        let during = Pools::of(&world, &installed, at("2026-05-01T12:00:00Z"));
        assert_eq!((during.pools[0].gpus, during.pools[0].out), (2, 3), "announced maintenance is out");
        // An agent that is away takes no GPU with it; a node that is no more does.
        list::<Slice>(&mut world, slices("c", 4, 1));
        installed.look(&world, &Layout::of(&world.slices), at("2026-04-02T00:00:00Z"));
        assert_eq!(Pools::of(&world, &installed, at("2026-04-02T00:00:00Z")).pools[0].gpus, 5);
        list::<Node>(&mut world, [node("a", "x"), node("c", "y")]);
        installed.look(&world, &Layout::of(&world.slices), at("2026-04-03T00:00:00Z"));
        assert_eq!(Pools::of(&world, &installed, at("2026-04-03T00:00:00Z")).pools[0].gpus, 2);
    }
}
