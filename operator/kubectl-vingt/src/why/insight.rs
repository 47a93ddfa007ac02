//! What the status does not say: what would let a job start at once. It is
//! found by trying, with the operator's own snapshot and planner.

use vingt_core::Snapshot;
use vingt_core::model::{UNITS_PER_GPU, Units};

use crate::live::Recorded;
use crate::whatif;
use crate::words::{count, gpus};

/// Numbers of GPUs of which it is tried whether they would do.
const MORE: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// How many of what runs is taken out, one at a time, to see whether that would do.
const TRIED: usize = 48;

/// How many of those are named.
const NAMED: usize = 3;

/// What would let the first workload start at once that waits and whose key is `key` or, if that ends with `-`,
/// begins with it; each by itself. None if there is no such workload.
pub fn of(recorded: &Recorded, key: &str) -> Option<Vec<String>> {
    let Recorded { now_ms, snapshot } = recorded;
    let wanted = |known: &str| known == key || (key.ends_with('-') && known.starts_with(key));
    let key = snapshot.waiting.iter().map(|workload| workload.key.as_str()).find(|known| wanted(known))?;
    Some(helps(snapshot, *now_ms, key))
}

/// Whether the workload starts if the snapshot is changed so.
type With<'a> = dyn Fn(&dyn Fn(&mut Snapshot)) -> bool + 'a;

/// Whether it is placed by the next plan.
fn starts(snapshot: &Snapshot, now_ms: i64, key: &str) -> bool {
    let plan = vingt_core::plan(snapshot, now_ms);
    plan.admissions.iter().any(|admission| snapshot.waiting[admission.workload].key == key)
}

fn helps(snapshot: &Snapshot, now_ms: i64, key: &str) -> Vec<String> {
    if starts(snapshot, now_ms, key) {
        return vec!["nothing is in its way any more: it starts with the next decision".to_owned()];
    }
    let mut helps = Vec::new();
    let with = |change: &dyn Fn(&mut Snapshot)| {
        let mut changed = snapshot.clone();
        change(&mut changed);
        starts(&changed, now_ms, key)
    };
    helps.extend(a_higher_limit(snapshot, key, &with));
    let mut running: Vec<usize> = (0..snapshot.running.len()).collect();
    running.sort_by_key(|index| (snapshot.running[*index].units, &snapshot.running[*index].key));
    let enough = |index: &usize| with(&|changed| whatif::remove_running(changed, *index));
    for index in running.into_iter().take(TRIED).filter(enough).take(NAMED) {
        let running = &snapshot.running[index];
        let leaves = if running.leaves_ms.is_some() { ", which has been asked to leave" } else { "" };
        helps.push(format!("the end of {} ({}){leaves}", running.key, gpus_held(running.units)));
    }
    // Without a node there is nothing to add.
    let enough = |more: &&u32| with(&|changed| drop(whatif::add_gpus(changed, **more)));
    helps.extend(MORE.iter().find(enough).map(|more| format!("{} more", count(*more as usize, "GPU"))));
    helps
}

/// Which limit is in its way, if that alone is.
fn a_higher_limit(snapshot: &Snapshot, key: &str, with: &With<'_>) -> Option<String> {
    let workload = snapshot.waiting.iter().find(|workload| workload.key == key)?;
    let mut path: Vec<(&str, Units)> = Vec::new();
    let mut at = Some(workload.tenant.as_str());
    while let Some((name, tenant)) = at.and_then(|name| Some((name, snapshot.tenants.get(name)?))) {
        // A tenant above itself counts as having none above.
        if path.iter().any(|(known, _)| *known == name) || path.len() > snapshot.tenants.len() {
            break;
        }
        path.push((name, tenant.limit.unwrap_or(Units::MAX)));
        at = tenant.parent.as_deref();
    }
    let (name, limit) = path.into_iter().filter(|(_, limit)| *limit != Units::MAX).find(|(name, _)| {
        with(&|changed| {
            if let Some(tenant) = changed.tenants.get_mut(*name) {
                tenant.limit = None;
            }
        })
    })?;
    Some(format!("a higher limit of tenant {name}, which is {}", gpus_held(limit)))
}

fn gpus_held(units: Units) -> String {
    format!("{} {}", gpus(units), if units == UNITS_PER_GPU { "GPU" } else { "GPUs" })
}

#[cfg(test)]
mod tests {
    use vingt_core::model::{DeviceIndex, GpuIndex, NodeIndex, PodPlacement, Resources, Running, Workload};
    use vingt_core::simulate::fleet::{Sort, fleet, shape};

    use super::*;

    /// Two GPUs, of which `held` are held by jobs of a GPU each; one waits that wants two.
    fn recorded(held: u32) -> Recorded {
        let mut snapshot = fleet(1, 2, Sort::H100);
        let one = shape(&mut snapshot, 1, "gpu", &Resources::default()).unwrap();
        let two = shape(&mut snapshot, 2, "gpu", &Resources::default()).unwrap();
        for gpu in 0..held {
            let device = DeviceIndex { gpu: GpuIndex(gpu), device: 0 };
            let at = &mut snapshot.gpus[gpu as usize];
            at.held = 1;
            at.used.clone_from(&at.capacity);
            snapshot.nodes[0].requested.pods += 1;
            snapshot.tenants.get_mut("default").unwrap().used += 56;
            snapshot.running.push(Running {
                key: format!("Pod/p/r-{gpu}"),
                tenant: "default".into(),
                shape: one,
                pods: vec![PodPlacement { node: NodeIndex(0), devices: vec![vec![device]] }],
                units: 56,
                ends_ms: Some(60_000),
                ..Running::default()
            });
        }
        let key = "Pod/p/w-1".to_owned();
        snapshot.waiting.push(Workload {
            key,
            tenant: "default".into(),
            pods: 1,
            shape: two,
            ..Workload::default()
        });
        Recorded { now_ms: 1000, snapshot }
    }

    #[test]
    fn what_would_let_it_start_is_found_by_trying() {
        let insight = of(&recorded(1), "Pod/p/w-1").unwrap();
        assert_eq!(insight, ["the end of Pod/p/r-0 (1 GPU)", "2 GPUs more"]);
        let both = of(&recorded(2), "Pod/p/w-").unwrap();
        assert_eq!(both, ["2 GPUs more"], "one end is not enough");
        assert_eq!(of(&recorded(1), "Pod/p/w"), None);
    }

    #[test]
    fn a_limit_in_the_way_is_named() {
        let mut recorded = recorded(0);
        recorded.snapshot.tenants.get_mut("default").unwrap().limit = Some(56);
        assert_eq!(of(&recorded, "Pod/p/w-1").unwrap(), ["a higher limit of tenant default, which is 1 GPU"]);
    }

    #[test]
    fn what_starts_needs_no_help() {
        let helps = of(&recorded(0), "Pod/p/w-1").unwrap();
        assert_eq!(helps, ["nothing is in its way any more: it starts with the next decision"]);
    }
}
