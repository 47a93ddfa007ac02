//! Reasons in words that a user can act on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::geometry::{Fleet, looked_at};
use crate::model::{Gpu, Snapshot, UNITS_PER_GPU, Units, WaitReason, Workload};

/// Units as a number of GPUs with at most two decimals: `0.5`, `3`, `0.14`.
pub fn gpus(units: Units) -> String {
    let hundredths = (u128::from(units) * 100 + u128::from(UNITS_PER_GPU / 2)) / u128::from(UNITS_PER_GPU);
    let (whole, part) = (hundredths / 100, hundredths % 100);
    let text = if part == 0 { whole.to_string() } else { format!("{whole}.{part:02}") };
    if part == 0 { text } else { text.trim_end_matches('0').to_owned() }
}

/// The label of a whole GPU, which people count in words of their own.
const WHOLE: &str = "gpu";

/// A number of devices of one sort: `3g.40gb`, `2 3g.40gb`, `GPU`, `8 GPUs`.
fn devices(count: u32, label: &str) -> String {
    match (count, label) {
        (1, WHOLE) => "GPU".to_owned(),
        (_, WHOLE) => format!("{count} GPUs"),
        (1, _) => label.to_owned(),
        _ => format!("{count} {label}"),
    }
}

/// What a workload asks for: `4 × 3g.40gb`, `2 × 8 GPUs`.
pub(super) fn asked(snapshot: &Snapshot, workload: &Workload) -> String {
    let requests: Vec<_> =
        snapshot.shape_of(workload).requests.iter().filter(|request| request.count > 0).collect();
    let pods = workload.pods;
    match requests.as_slice() {
        [] => format!("{pods} × no device"),
        [one] if pods == 1 && one.count > 1 && one.label == WHOLE => devices(one.count, WHOLE),
        [one] if pods == 1 && one.count > 1 => format!("{} × {}", one.count, one.label),
        [one] => format!("{pods} × {}", devices(one.count, &one.label)),
        several => {
            let counted = |count, label: &str| match label {
                WHOLE if count == 1 => "1 GPU".to_owned(),
                WHOLE => devices(count, WHOLE),
                _ => format!("{count} {label}"),
            };
            let each: Vec<String> = several.iter().map(|r| counted(r.count, &r.label)).collect();
            format!("{pods} × ({})", each.join(" + "))
        }
    }
}

/// The kinds of devices there are, each with how many there can be at most at one time.
pub(super) fn kinds(snapshot: &Snapshot) -> Vec<String> {
    let mut fleet = Fleet::default();
    let mut count: BTreeMap<&str, u64> = BTreeMap::new();
    for gpu in &snapshot.gpus {
        let state = fleet.state_of(gpu, true);
        let kinds: BTreeSet<&str> = looked_at(gpu).map(|device| device.kind.as_str()).collect();
        for kind in kinds {
            let most = fleet.most(state, devices_of(gpu, kind), false);
            *count.entry(kind).or_default() += u64::from(most);
        }
    }
    count.into_iter().map(|(kind, most)| format!("{} ({most})", devices(1, kind))).collect()
}

fn devices_of(gpu: &Gpu, kind: &str) -> u64 {
    looked_at(gpu).zip(0..).filter(|(d, _)| d.kind == kind).fold(0, |mask, (_, bit)| mask | 1 << bit)
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSuchDevice { label, available } => {
                let label = if **label == *WHOLE { "a whole GPU" } else { label };
                if available.is_empty() {
                    return write!(f, "no device here is {label}: there are no devices at all");
                }
                write!(f, "no device here is {label}; there are {}", available.join(", "))
            }
            Self::NeverFits { asked, empty_cluster_fits, pods, turned_away } => {
                write!(
                    f,
                    "needs {asked}; even the empty cluster has room for {empty_cluster_fits} of {pods}"
                )?;
                if turned_away.is_empty() {
                    return Ok(());
                }
                write!(f, "; nodes turned away: {}", counted(turned_away))
            }
            Self::AboveLimit { tenant, needs, limit } => {
                write!(f, "needs {}; tenant {tenant} may hold at most {}", in_gpus(*needs), gpus(*limit))
            }
            Self::Quota { tenant, needs, left, limit } => {
                write!(f, "needs {}; {}", in_gpus(*needs), has_left(tenant, *left, *limit))
            }
            Self::Guarantee { tenant, needs, left, guaranteed } => {
                write!(
                    f,
                    "it may not be stopped for others, and so starts only within what tenant {tenant} is guaranteed: \
                     needs {} GPUs; {} of {} are left. Without preemptible: false it may borrow",
                    gpus(*needs),
                    gpus(*left),
                    gpus(*guaranteed)
                )
            }
            Self::Promised { asked } => {
                write!(
                    f,
                    "needs {asked}; there is room, but what a sovereign reserve promises could not be delivered then. \
                     What may be stopped for others at short notice may go there"
                )
            }
            Self::NoRoom { asked, fit, tenant, left, pods: _ } => {
                f.write_str(&fits_now(asked, *fit, tenant, *left))
            }
            Self::NoNode { asked, fit, tenant, left, turned_away, nodes } => {
                f.write_str(&fits_now(asked, *fit, tenant, *left))?;
                let (nodes, s) = (*nodes, if *nodes == 1 { "" } else { "s" });
                write!(f, "; devices are free on {nodes} node{s}; turned away: {}", counted(turned_away))
            }
            Self::Kept { asked } => {
                write!(f, "needs {asked}; the room that there is is kept for a job that is ahead in line")
            }
            Self::MakingRoom { asked, leaving, until_ms: _ } => {
                let (jobs, leave) = if *leaving == 1 { ("job", "leaves") } else { ("jobs", "leave") };
                write!(f, "needs {asked}; room is being made: {leaving} {jobs} {leave}")
            }
            Self::Reserved { asked, ending, free_ms: _ } => {
                let (jobs, have) = if *ending == 1 { ("job", "has") } else { ("jobs", "have") };
                write!(
                    f,
                    "needs {asked}; a place is kept for it until the {ending} {jobs} there {have} ended"
                )
            }
            Self::Backoff { left_ms } => {
                write!(f, "was withdrawn; is tried again in {} s", left_ms.saturating_add(999) / 1000)
            }
            Self::NoTenant { tenant } if tenant.is_empty() => {
                f.write_str("the namespace belongs to no tenant")
            }
            Self::NoTenant { tenant } => write!(f, "there is no tenant {tenant}"),
        }
    }
}

fn fits_now(asked: &str, fit: u32, tenant: &str, left: Option<(Units, Units)>) -> String {
    let fits = if fit == 1 { "fits" } else { "fit" };
    let left = left.map(|(left, limit)| format!("; {}", has_left(tenant, left, limit)));
    format!("needs {asked}; {fit} {fits} now{}", left.unwrap_or_default())
}

fn has_left(tenant: &str, left: Units, limit: Units) -> String {
    format!("tenant {tenant} has {} of {} left", gpus(left), in_gpus(limit))
}

fn in_gpus(units: Units) -> String {
    format!("{} GPU{}", gpus(units), if units == UNITS_PER_GPU { "" } else { "s" })
}

fn counted(reasons: &BTreeMap<String, u32>) -> String {
    let each: Vec<String> = reasons.iter().map(|(reason, nodes)| format!("{nodes} for {reason}")).collect();
    each.join(", ")
}
