//! What the status does not say: what would let a job start at once, and when
//! it is likely to start. Both are found by trying, with the operator's own
//! snapshot and planner.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use vingt_core::Snapshot;
use vingt_core::model::{UNITS_PER_GPU, Units};
use vingt_core::simulate::forecast::{Effort, Forecast, History, forecast};

use super::story::Expected;
use crate::live::Recorded;
use crate::whatif;
use crate::words::{count, gpus};

/// Numbers of GPUs of which it is tried whether they would do.
const MORE: [u32; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// How many of what runs is taken out, one at a time, to see whether that would do.
const TRIED: usize = 48;

/// How many of those are named.
const NAMED: usize = 3;

/// How long the future is played, about.
const PATIENCE: Duration = Duration::from_secs(4);

/// How often at most.
const DRAWS: usize = 100;

/// What is found out about a workload.
#[derive(Debug, Default, PartialEq)]
pub struct Insight {
    /// What would let it start at once, each by itself.
    pub helps: Vec<String>,
    /// When it is likely to start.
    pub starts: Option<Expected>,
}

/// About the first workload that waits whose key is `key` or, if that ends with `-`, begins with it; when it
/// `starts` is worked out if that is asked for. None if there is no such workload.
pub fn of(recorded: &Recorded, key: &str, starts: bool) -> Option<Insight> {
    let Recorded { now_ms, snapshot } = recorded;
    let wanted = |known: &str| known == key || (key.ends_with('-') && known.starts_with(key));
    let key = snapshot.waiting.iter().map(|workload| workload.key.as_str()).find(|known| wanted(known))?;
    let helps = helps(snapshot, *now_ms, key);
    Some(Insight { helps, starts: starts.then(|| foreseen(snapshot, *now_ms, key)).flatten() })
}

/// When it starts, over many futures of the cluster.
fn foreseen(snapshot: &Snapshot, now_ms: i64, key: &str) -> Option<Expected> {
    let began = Instant::now();
    let _ = vingt_core::plan(snapshot, now_ms);
    let plans = PATIENCE.as_micros() / began.elapsed().as_micros().max(1);
    let plans = u64::try_from(plans).unwrap_or(u64::MAX).clamp(100, 50_000);
    let effort = Effort { draws: DRAWS, plans, ..Effort::default() };
    // What cannot be played is no reason to say nothing else.
    let all = forecast(snapshot, now_ms, &History::default(), &[key], effort).ok()?;
    all.iter().find(|forecast| forecast.key == key).and_then(expected)
}

fn expected(forecast: &Forecast) -> Option<Expected> {
    let time = |ms: Option<i64>| Timestamp::from_millisecond(ms?).ok();
    let frees =
        forecast.frees.first().map(|(key, _)| format!(", most often when {key} ends")).unwrap_or_default();
    Some(Expected {
        p10: time(forecast.p10_ms)?,
        p50: time(forecast.p50_ms)?,
        p90: time(forecast.p90_ms)?,
        basis: format!("{} ways in which it may go on, with nothing new queued{frees}", forecast.draws),
    })
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
        let insight = of(&recorded(1), "Pod/p/w-1", true).unwrap();
        assert_eq!(insight.helps, ["the end of Pod/p/r-0 (1 GPU)", "2 GPUs more"]);
        let starts = insight.starts.expect("the end of what runs is known");
        assert!(starts.p90.as_millisecond() <= 62_000, "{starts:?}");
        assert!(starts.basis.ends_with(", most often when Pod/p/r-0 ends"), "{starts:?}");
        let both = of(&recorded(2), "Pod/p/w-", false).unwrap();
        assert_eq!(both.starts, None, "not asked for");
        assert_eq!(both.helps, ["2 GPUs more"], "one end is not enough");
        assert_eq!(of(&recorded(1), "Pod/p/w", false), None);
    }

    #[test]
    fn a_limit_in_the_way_is_named() {
        let mut recorded = recorded(0);
        recorded.snapshot.tenants.get_mut("default").unwrap().limit = Some(56);
        assert_eq!(
            of(&recorded, "Pod/p/w-1", false).unwrap().helps,
            ["a higher limit of tenant default, which is 1 GPU"]
        );
    }

    #[test]
    fn what_starts_needs_no_help() {
        let helps = of(&recorded(0), "Pod/p/w-1", false).unwrap().helps;
        assert_eq!(helps, ["nothing is in its way any more: it starts with the next decision"]);
    }
}
