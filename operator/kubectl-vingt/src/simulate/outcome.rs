//! What came of playing, in the numbers that are shown.

use std::collections::BTreeMap;

use serde::Serialize;
use vingt_core::model::{PlacementPolicy, UNITS_PER_GPU, Units};
use vingt_core::simulate::replay::{JobOutcome, Outcome};

/// What came of all policies.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// Version of this form.
    pub version: u32,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// GPUs of the cluster.
    pub gpus: usize,
    /// Units of all GPUs.
    pub capacity: Units,
    /// When it starts, in milliseconds since 1970 or since the list of jobs begins.
    pub start_ms: i64,
    /// By policy.
    pub policies: Vec<Result>,
}

/// What came of one policy.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Result {
    /// Its name.
    pub policy: &'static str,
    /// How long jobs waited before they first started; those that never did are not in it.
    pub wait: Waits,
    /// The same by what each pod asks for.
    pub profiles: BTreeMap<String, Waits>,
    /// The rest, and each job.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// How long jobs waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Waits {
    /// Jobs that were queued.
    pub jobs: usize,
    /// Jobs that started.
    pub started: usize,
    /// Mean, in milliseconds.
    pub mean_ms: i64,
    /// Half waited less.
    pub p50_ms: i64,
    /// 19 of 20 waited less.
    pub p95_ms: i64,
}

impl Waits {
    /// Of these jobs.
    pub fn of<'a>(jobs: impl IntoIterator<Item = &'a JobOutcome>) -> Self {
        let mut all = 0;
        let mut waits: Vec<i64> =
            jobs.into_iter().inspect(|_| all += 1).filter_map(JobOutcome::first_wait_ms).collect();
        waits.sort_unstable();
        let at = |percent: usize| {
            waits.get((waits.len() * percent).div_ceil(100).max(1) - 1).copied().unwrap_or(0)
        };
        let sum: i128 = waits.iter().map(|wait| i128::from(*wait)).sum();
        let mean = sum / i128::try_from(waits.len().max(1)).unwrap_or(1);
        Self {
            jobs: all,
            started: waits.len(),
            mean_ms: i64::try_from(mean).unwrap_or(i64::MAX),
            p50_ms: at(50),
            p95_ms: at(95),
        }
    }
}

impl Result {
    /// From the core's account.
    pub fn of(policy: PlacementPolicy, outcome: Outcome) -> Self {
        let mut by_profile: BTreeMap<&str, Vec<&JobOutcome>> = BTreeMap::new();
        for job in &outcome.jobs {
            by_profile.entry(&job.profile).or_default().push(job);
        }
        let profiles = by_profile.into_iter().map(|(name, jobs)| (name.to_owned(), Waits::of(jobs)));
        Self { policy: name(policy), wait: Waits::of(&outcome.jobs), profiles: profiles.collect(), outcome }
    }

    /// Work that was lost, in GPU-hours.
    #[allow(clippy::cast_precision_loss)] // for people to read
    pub fn lost_gpu_hours(&self) -> f64 {
        self.outcome.summary.lost as f64 / (UNITS_PER_GPU as f64 * 3_600_000.0)
    }
}

/// What a policy is called.
pub fn name(policy: PlacementPolicy) -> &'static str {
    match policy {
        PlacementPolicy::Learned => "learned",
        PlacementPolicy::BestFit => "best-fit",
        PlacementPolicy::FirstFit => "first-fit",
        PlacementPolicy::Fragmentation => "fragmentation",
        PlacementPolicy::BlockedWindows => "blocked-windows",
        PlacementPolicy::Spread => "spread",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(wait: Option<i64>) -> JobOutcome {
        JobOutcome { queued_ms: 10, started_ms: wait.map(|wait| 10 + wait), ..JobOutcome::default() }
    }

    #[test]
    fn waits_are_of_those_that_started() {
        let jobs: Vec<JobOutcome> = (1..=20).map(|wait| job(Some(wait))).chain([job(None)]).collect();
        let expected = Waits { jobs: 21, started: 20, mean_ms: 10, p50_ms: 10, p95_ms: 19 };
        assert_eq!(Waits::of(&jobs), expected);
        assert_eq!(Waits::of(&[]), Waits::default());
    }
}
