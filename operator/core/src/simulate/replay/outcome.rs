//! What came of a replay: each job's story, the cluster over time, and sums.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::{UnitMs, Units};

/// What came of a replay.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The cluster over time, in order.
    pub points: Vec<Point>,
    /// The jobs of the scenario, in its order.
    pub jobs: Vec<JobOutcome>,
    /// What each tenant's own workloads held.
    pub tenants: BTreeMap<String, TenantOutcome>,
    /// Sums.
    pub summary: Summary,
}

/// The cluster at one time, after what was planned then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Point {
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Units held.
    pub used: Units,
    /// Jobs that wait.
    pub waiting: usize,
    /// Units of all devices of GPUs that are not held.
    pub free: Units,
    /// Those of them on GPUs on which the largest device does not fit: fragments, for who needs it.
    pub fragments: Units,
}

/// How a job fared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobOutcome {
    /// Its key.
    pub key: String,
    /// Its tenant.
    pub tenant: String,
    /// What each of its pods asks for, in words.
    pub profile: String,
    /// What it is charged while it runs; 0 if it never ran.
    pub units: Units,
    /// When it was queued, in milliseconds since 1970.
    pub queued_ms: i64,
    /// When it started for the first time.
    pub started_ms: Option<i64>,
    /// When it ended, having done all it was to do.
    pub ended_ms: Option<i64>,
    /// How long it waited in all, also after it was evicted, in milliseconds.
    pub waited_ms: i64,
    /// How often it was evicted for others' rights.
    pub evictions: u32,
    /// How often it, or one of its pods, was moved for others' shapes.
    pub moves: u32,
    /// Work it lost thereby, in units times milliseconds.
    pub lost: UnitMs,
}

/// What a tenant held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TenantOutcome {
    /// Units times milliseconds held.
    pub held: UnitMs,
    /// Jobs that were queued.
    pub jobs: usize,
    /// Jobs that started.
    pub started: usize,
    /// How long those waited before they started.
    pub wait_ms: Quantiles,
}

/// Mean and quantiles of a time, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quantiles {
    /// The mean.
    pub mean: i64,
    /// Half are below.
    pub p50: i64,
    /// Nine of ten are below.
    pub p90: i64,
    /// 99 of 100 are below.
    pub p99: i64,
    /// The greatest.
    pub max: i64,
}

/// Jobs of one profile.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSummary {
    /// That were queued.
    pub jobs: usize,
    /// That started.
    pub started: usize,
    /// How long those waited before they started.
    pub wait_ms: Quantiles,
}

/// A replay in numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Jobs that were queued.
    pub jobs: usize,
    /// Jobs that started.
    pub started: usize,
    /// Jobs that ended.
    pub ended: usize,
    /// How long jobs waited before they first started.
    pub wait_ms: Quantiles,
    /// By what each pod asks for.
    pub profiles: BTreeMap<String, ProfileSummary>,
    /// Evictions for others' rights.
    pub evictions: u64,
    /// Moves for others' shapes.
    pub moves: u64,
    /// Work lost thereby, in units times milliseconds.
    pub lost: UnitMs,
    /// From the start to the last thing that happened, in milliseconds.
    pub makespan_ms: i64,
    /// Mean share of the cluster's units that were held, from 0 to 1.
    pub utilisation: f64,
    /// Mean share of the free units that were fragments, from 0 to 1, over the points.
    pub fragmentation: f64,
    /// Plans made.
    pub plans: u64,
}

impl Quantiles {
    /// Of `times`, in any order.
    pub fn of(mut times: Vec<i64>) -> Self {
        times.sort_unstable();
        let Some(&max) = times.last() else { return Self::default() };
        let sum: i128 = times.iter().map(|&time| i128::from(time)).sum();
        let mean = i64::try_from(sum / times.len() as i128).unwrap_or(max);
        let at = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        Self { mean, p50: at(50), p90: at(90), p99: at(99), max }
    }
}

impl JobOutcome {
    /// How long it waited before it first started, in milliseconds.
    pub fn first_wait_ms(&self) -> Option<i64> {
        Some(self.started_ms?.saturating_sub(self.queued_ms))
    }
}

/// Sums over jobs; those of time are the engine's.
pub(super) fn summarise(jobs: &[JobOutcome], tenants: &mut BTreeMap<String, TenantOutcome>) -> Summary {
    let mut summary = Summary { jobs: jobs.len(), ..Summary::default() };
    let mut waits = Vec::new();
    let mut by_tenant: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    let mut by_profile: BTreeMap<&str, Vec<i64>> = BTreeMap::new();
    for job in jobs {
        let profile = summary.profiles.entry(job.profile.clone()).or_default();
        let tenant = tenants.entry(job.tenant.clone()).or_default();
        profile.jobs += 1;
        tenant.jobs += 1;
        summary.ended += usize::from(job.ended_ms.is_some());
        summary.evictions += u64::from(job.evictions);
        summary.moves += u64::from(job.moves);
        summary.lost = summary.lost.saturating_add(job.lost);
        if let Some(wait) = job.first_wait_ms() {
            waits.push(wait);
            by_tenant.entry(&job.tenant).or_default().push(wait);
            by_profile.entry(&job.profile).or_default().push(wait);
        }
    }
    summary.started = waits.len();
    summary.wait_ms = Quantiles::of(waits);
    for (name, waits) in by_profile {
        let profile = summary.profiles.entry(name.to_owned()).or_default();
        (profile.started, profile.wait_ms) = (waits.len(), Quantiles::of(waits));
    }
    for (name, waits) in by_tenant {
        let tenant = tenants.entry(name.to_owned()).or_default();
        (tenant.started, tenant.wait_ms) = (waits.len(), Quantiles::of(waits));
    }
    summary
}
