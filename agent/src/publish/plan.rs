//! What to write so that the API server shows the pool: a pure comparison of
//! what is there with what should be.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{ResourceSlice, ResourceSliceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use crate::inventory::{Pool, slices};

/// Slices by name.
pub(super) type Slices = BTreeMap<String, ResourceSlice>;

/// What was sent, and what the API server made of it: it may fill in fields that this version of
/// the agent does not know, which must not look like a change.
#[derive(Default)]
pub(super) struct Written {
    specs: BTreeMap<String, (ResourceSliceSpec, ResourceSliceSpec)>,
    generation: i64,
}

impl Written {
    pub(super) fn note(&mut self, sent: &ResourceSlice, returned: &ResourceSlice) {
        let name = sent.metadata.name.clone().unwrap_or_default();
        self.generation = self.generation.max(sent.spec.pool.generation);
        self.specs.insert(name, (sent.spec.clone(), returned.spec.clone()));
    }

    fn is(&self, name: &str, wanted: &ResourceSliceSpec, there: &ResourceSliceSpec) -> bool {
        self.specs.get(name).is_some_and(|(sent, returned)| sent == wanted && returned == there)
    }
}

/// Slices to apply and names of slices to delete.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) apply: Vec<ResourceSlice>,
    pub(super) delete: Vec<String>,
}

/// Compares. Whatever differs moves the whole pool to its next generation, as the API demands.
pub(super) fn plan(
    there: &Slices,
    written: &Written,
    pool: &Pool,
    node: &str,
    owner: &OwnerReference,
) -> Plan {
    let generation =
        there.values().map(|slice| slice.spec.pool.generation).max().unwrap_or(0).max(written.generation);
    let wanted = slices(pool, node, owner, generation);
    let names: Vec<&str> = wanted.iter().filter_map(|slice| slice.metadata.name.as_deref()).collect();
    let delete: Vec<String> = there.keys().filter(|name| !names.contains(&name.as_str())).cloned().collect();
    let current = |slice: &ResourceSlice| {
        let name = slice.metadata.name.as_deref().unwrap_or_default();
        there.get(name).is_some_and(|there| {
            written.is(name, &slice.spec, &there.spec) || normal(&there.spec) == normal(&slice.spec)
        })
    };
    if delete.is_empty() && wanted.iter().all(current) {
        return Plan::default();
    }
    Plan { apply: slices(pool, node, owner, generation + 1), delete }
}

/// Without what the API server fills in.
fn normal(spec: &ResourceSliceSpec) -> ResourceSliceSpec {
    let mut spec = spec.clone();
    for taint in spec.devices.iter_mut().flatten().flat_map(|device| device.taints.iter_mut().flatten()) {
        taint.time_added = None;
    }
    spec
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::inventory::{fixtures::h100, pool};
    use crate::nvml::Inventory;

    fn node_pool(gpus: u32) -> Pool {
        let inventory = Inventory { gpus: (0..gpus).map(h100).collect(), unreadable: Vec::new() };
        pool(&inventory, &BTreeSet::new(), false)
    }

    fn planned(there: &Slices, written: &Written, pool: &Pool) -> Plan {
        let owner =
            OwnerReference { kind: "Node".into(), name: "n".into(), uid: "u".into(), ..Default::default() };
        plan(there, written, pool, "n", &owner)
    }

    /// As the API server would have it after the plan.
    fn applied(there: &Slices, plan: Plan) -> Slices {
        let mut there = there.clone();
        for mut slice in plan.apply {
            for taint in slice.spec.devices.iter_mut().flatten().flat_map(|d| d.taints.iter_mut().flatten()) {
                taint.time_added = Some(Time(Timestamp::UNIX_EPOCH));
            }
            there.insert(slice.metadata.name.clone().unwrap(), slice);
        }
        for name in plan.delete {
            there.remove(&name);
        }
        there
    }

    fn generations(slices: &Slices) -> Vec<(i64, i64)> {
        let mut all: Vec<_> =
            slices.values().map(|s| (s.spec.pool.generation, s.spec.pool.resource_slice_count)).collect();
        all.dedup();
        all
    }

    #[test]
    fn the_first_publication_is_whole_and_the_second_writes_nothing() {
        let none = Slices::new();
        let there = applied(&none, planned(&none, &Written::default(), &node_pool(2)));
        assert_eq!(there.len(), 3);
        assert_eq!(generations(&there), [(1, 3)]);
        // Also after a restart, which remembers nothing.
        assert_eq!(planned(&there, &Written::default(), &node_pool(2)), Plan::default());
    }

    #[test]
    fn any_change_moves_all_slices_to_one_new_generation_and_removes_what_is_left_over() {
        let none = Slices::new();
        let there = applied(&none, planned(&none, &Written::default(), &node_pool(2)));
        let plan = planned(&there, &Written::default(), &node_pool(1));
        assert_eq!(plan.delete, ["n-gpu.vingt.dev-gpu-1"]);
        let there = applied(&there, plan);
        assert_eq!(generations(&there), [(2, 2)]);
    }

    #[test]
    fn deleted_slices_come_back_in_a_generation_that_was_never_used() {
        let none = Slices::new();
        let mut written = Written::default();
        let first = planned(&none, &written, &node_pool(2));
        for slice in &first.apply {
            written.note(slice, slice);
        }
        let again = planned(&none, &written, &node_pool(2));
        assert_eq!(generations(&applied(&none, again)), [(2, 3)]);
    }

    #[test]
    fn fields_that_the_api_server_fills_in_are_no_change() {
        let none = Slices::new();
        let mut written = Written::default();
        let mut there = Slices::new();
        for sent in planned(&none, &written, &node_pool(1)).apply {
            let mut returned = sent.clone();
            returned.spec.all_nodes = Some(false);
            written.note(&sent, &returned);
            there.insert(sent.metadata.name.clone().unwrap(), returned);
        }
        assert_eq!(planned(&there, &written, &node_pool(1)), Plan::default());
        // Without that memory it is one.
        assert_ne!(planned(&there, &Written::default(), &node_pool(1)), Plan::default());
    }
}
