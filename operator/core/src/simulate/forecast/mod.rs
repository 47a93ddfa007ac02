//! When what waits is likely to start. The planner of the cluster is played
//! forward from now many times, each time with other lives drawn for what runs
//! and waits, and with other jobs arriving, as they did of late; the starts
//! that come of it are the answer.
//!
//! Not known to it, and so not in its intervals: a load or jobs unlike those
//! of the past, nodes that fail, tenants whose settings change.

mod calibration;
mod future;
mod lives;
mod measure;

#[cfg(test)]
mod tests;

pub use calibration::Calibration;
pub use measure::{Asked, Case, Held, measure};

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::future::{Basis, DRAWN, as_workloads};
use super::Random;
use super::replay::{Job, Observer, ReplayError, Scenario, replay};
use crate::model::{Plan, Running, Snapshot, Workload};

/// A job of the past, or a part of one between two evictions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Past {
    /// What it was; its shape is one of the snapshot's. The duration in its facts is not looked at.
    pub job: Job,
    /// How long it ran, in milliseconds; 0 if it never did.
    pub ran_ms: i64,
    /// Whether it ended by itself; else it was cut off, or still runs.
    pub ended: bool,
}

/// What happened before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// Runs that are over. What runs and waits now is in the snapshot.
    pub past: Vec<Past>,
    /// Since when everything that was queued is in `past` or in the snapshot, in milliseconds since 1970;
    /// `None` if that is not known, and then nothing is taken to arrive any more.
    pub since_ms: Option<i64>,
}

/// How hard to think. The time it takes grows with draws and plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Replays.
    pub draws: usize,
    /// Plans made in all of them; when they are used up no further replay is begun.
    pub plans: u64,
    /// How far to look, in milliseconds.
    pub horizon_ms: i64,
    /// Time between two plans in the replays, in milliseconds.
    pub cycle_ms: i64,
    /// Jobs that arrive in a replay at most; it ends with the last.
    pub arrivals: usize,
    /// For other draws.
    pub seed: u64,
}

impl Default for Effort {
    fn default() -> Self {
        Self {
            draws: 100,
            plans: 50_000,
            horizon_ms: 14 * 24 * 3_600_000,
            cycle_ms: 1_000,
            arrivals: 3_000,
            seed: 1,
        }
    }
}

/// When one workload is likely to start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Forecast {
    /// Its key.
    pub key: String,
    /// In one of ten cases it starts before this, in milliseconds since 1970. `None` is: later than was looked.
    pub p10_ms: Option<i64>,
    /// In half of the cases.
    pub p50_ms: Option<i64>,
    /// In nine of ten cases.
    pub p90_ms: Option<i64>,
    /// Whose end it waited for, the most often first, with the share of the replays; at most five.
    pub frees: Vec<(String, f64)>,
    /// Replays that it comes from.
    pub draws: usize,
    /// Ended runs that lives were drawn from; with few of them expect little.
    pub lives: usize,
}

/// When the waiting workloads with these keys are likely to start. Keys of what does not wait are left out.
pub fn forecast(
    snapshot: &Snapshot,
    now_ms: i64,
    history: &History,
    keys: &[&str],
    effort: Effort,
) -> Result<Vec<Forecast>, ReplayError> {
    let asked: BTreeSet<&str> = keys.iter().copied().collect();
    let asked: Vec<&Workload> =
        snapshot.waiting.iter().filter(|workload| asked.contains(workload.key.as_str())).collect();
    let running = as_workloads(snapshot, now_ms);
    let basis = Basis::of(snapshot, now_ms, history, &running);
    let mut random = Random::new(effort.seed);
    let mut stories: BTreeMap<&str, Story> =
        asked.iter().map(|workload| (workload.key.as_str(), Story::default())).collect();
    let (mut draws, mut plans) = (0, 0);
    while draws < effort.draws && plans < effort.plans && !asked.is_empty() {
        let scenario = basis.scenario(draws, effort, &mut random);
        let mut watch = Watch { waits: stories.keys().copied().collect(), ..Watch::default() };
        plans += replay(&scenario, &mut watch)?.summary.plans;
        draws += 1;
        for (key, (start_ms, freed_by)) in watch.started {
            let Some(story) = stories.get_mut(key.as_str()) else { continue };
            story.starts.push(start_ms);
            if let Some(freed_by) = freed_by {
                *story.freed_by.entry(freed_by).or_default() += 1;
            }
        }
    }
    let told = stories.into_iter().map(|(key, story)| story.told(key, draws, basis.lives.ended()));
    Ok(told.collect())
}

/// A scenario of the cluster as it is: what runs and waits goes on as others like it did, in one of many ways.
pub fn likely(snapshot: &Snapshot, now_ms: i64, history: &History, effort: Effort) -> Scenario {
    let running = as_workloads(snapshot, now_ms);
    Basis::of(snapshot, now_ms, history, &running).scenario(0, effort, &mut Random::new(effort.seed))
}

/// What came of one workload in all replays.
#[derive(Debug, Default)]
struct Story {
    starts: Vec<i64>,
    freed_by: BTreeMap<String, u32>,
}

impl Story {
    #[allow(clippy::cast_precision_loss)] // numbers of replays
    fn told(mut self, key: &str, draws: usize, lives: usize) -> Forecast {
        self.starts.sort_unstable();
        // The k-th of n starts has, with one more to come, a share of k / (n + 1) below it.
        let at = |rank: usize| rank.checked_sub(1).and_then(|rank| self.starts.get(rank)).copied();
        let mut frees: Vec<(String, f64)> = self
            .freed_by
            .into_iter()
            .map(|(key, count)| (key, f64::from(count) / draws.max(1) as f64))
            .collect();
        frees.sort_by(|a, b| b.1.total_cmp(&a.1));
        frees.truncate(5);
        Forecast {
            key: key.to_owned(),
            p10_ms: at(((draws + 1) / 10).max(1)),
            p50_ms: at((draws + 1).div_ceil(2)),
            p90_ms: at(((draws + 1) * 9).div_ceil(10)),
            frees,
            draws,
            lives,
        }
    }
}

/// Waits for the asked to start.
#[derive(Debug, Default)]
struct Watch<'a> {
    waits: BTreeSet<&'a str>,
    started: BTreeMap<String, (i64, Option<String>)>,
    /// What left since the last plan: its key and the GPUs.
    left: Vec<(String, BTreeSet<u32>)>,
}

impl Observer for Watch<'_> {
    fn planned(&mut self, snapshot: &Snapshot, now_ms: i64, plan: &Plan) {
        for admission in &plan.admissions {
            let Some(workload) = snapshot.waiting.get(admission.workload) else { continue };
            if !self.waits.remove(workload.key.as_str()) {
                continue;
            }
            let gpus = gpus(&admission.pods);
            let there = self.left.iter().rev().find(|(_, freed)| !freed.is_disjoint(&gpus));
            let freed_by = there.or_else(|| self.left.last()).map(|(key, _)| key.clone());
            let freed_by = freed_by.filter(|key| !key.starts_with(DRAWN));
            self.started.insert(workload.key.clone(), (now_ms, freed_by));
        }
        self.left.clear();
    }

    fn left(&mut self, running: &Running, _: i64, _: bool) {
        self.left.push((running.key.clone(), gpus(&running.pods)));
    }

    fn enough(&self) -> bool {
        self.waits.is_empty()
    }
}

fn gpus(pods: &[crate::model::PodPlacement]) -> BTreeSet<u32> {
    pods.iter().flat_map(|pod| pod.devices.iter().flatten()).map(|device| device.gpu.0).collect()
}
