//! Futures of a cluster: what runs and waits with a life drawn for each, and
//! jobs that arrive as they did of late.

use std::collections::{BTreeMap, BTreeSet};

use super::lives::{Drawn, Lives, runs};
use super::{Effort, History};
use crate::model::{Running, Snapshot, Workload};
use crate::simulate::Random;
use crate::simulate::replay::{Facts, Job, Scenario};

/// How keys of jobs begin that are drawn.
pub(super) const DRAWN: &str = "not queued yet/";

/// What a pod of a replacement takes to be ready, in milliseconds: a guess.
const READY_MS: i64 = 30_000;

/// What futures are drawn from.
pub(super) struct Basis<'a> {
    snapshot: &'a Snapshot,
    now_ms: i64,
    /// What runs, and for how long it has.
    running: &'a [(Workload, i64)],
    pub lives: Lives<'a>,
    /// By tenant and shape, as the last of them had it.
    facts: BTreeMap<(&'a str, usize), &'a Facts>,
    /// What was queued since a time, and that time, if it is known.
    recent: Option<(Vec<&'a Workload>, i64)>,
}

/// What runs, with its age in milliseconds.
pub(super) fn as_workloads(snapshot: &Snapshot, now_ms: i64) -> Vec<(Workload, i64)> {
    let age_ms = |running: &Running| now_ms.saturating_sub(running.admitted_ms);
    snapshot.running.iter().map(|running| (running.as_workload(), age_ms(running))).collect()
}

impl<'a> Basis<'a> {
    pub fn of(
        snapshot: &'a Snapshot,
        now_ms: i64,
        history: &'a History,
        running: &'a [(Workload, i64)],
    ) -> Self {
        let alive = running.iter().map(|(workload, age_ms)| (workload, *age_ms, false));
        let lives = Lives::of(runs(&history.past).chain(alive));
        let facts = history.past.iter().map(|past| {
            let Workload { tenant, shape, .. } = &past.job.workload;
            ((tenant.as_str(), *shape), &past.job.facts)
        });
        let queued = |since_ms: i64| {
            let all = history.past.iter().map(|past| &past.job.workload).chain(&snapshot.waiting);
            let all = all.chain(running.iter().map(|(workload, _)| workload));
            let mut keys: BTreeSet<&'a str> = BTreeSet::new();
            let queued: Vec<&'a Workload> = all
                .filter(|queued| queued.queued_ms >= since_ms && keys.insert(queued.key.as_str()))
                .collect();
            (queued, since_ms)
        };
        let recent = history.since_ms.map(queued).filter(|(queued, _)| !queued.is_empty());
        Self { snapshot, now_ms, running, lives, facts: facts.collect(), recent }
    }

    /// One of many futures.
    pub fn scenario(&self, draw: usize, effort: Effort, random: &mut Random) -> Scenario {
        let drawn = self.lives.drawn(random);
        let running =
            self.snapshot.running.iter().zip(self.running).map(|(running, (workload, age_ms))| Facts {
                duration_ms: drawn.left_ms(workload, *age_ms, random),
                checkpoint_ms: self.facts_of(workload).checkpoint_ms,
                grace_ms: running.grace_ms.max(0),
                leaves_after_ms: None,
                evictable: running.evictable,
                movable: running.movable,
            });
        let running = running.collect();
        let waiting = self.snapshot.waiting.iter();
        let mut jobs: Vec<Job> = waiting.map(|waiting| self.job(waiting.clone(), &drawn, random)).collect();
        let horizon_ms = self.now_ms.saturating_add(effort.horizon_ms);
        let until_ms = self.arrive(&mut jobs, draw, horizon_ms, effort.arrivals, &drawn, random);
        Scenario {
            snapshot: Snapshot { waiting: Vec::new(), ..self.snapshot.clone() },
            start_ms: self.now_ms,
            running,
            jobs,
            until_ms: Some(until_ms),
            cycle_ms: effort.cycle_ms,
            sample_ms: i64::MAX,
            ready_ms: READY_MS,
        }
    }

    fn job(&self, workload: Workload, drawn: &Drawn, random: &mut Random) -> Job {
        let duration_ms = drawn.left_ms(&workload, 0, random);
        Job { facts: Facts { duration_ms, ..self.facts_of(&workload) }, workload }
    }

    fn facts_of(&self, workload: &Workload) -> Facts {
        let known = self.facts.get(&(workload.tenant.as_str(), workload.shape));
        known.map_or_else(|| Facts { grace_ms: READY_MS, ..Facts::default() }, |facts| (*facts).clone())
    }

    /// Adds what arrives, and tells until when that is.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // milliseconds and numbers of jobs
    fn arrive(
        &self,
        jobs: &mut Vec<Job>,
        draw: usize,
        horizon_ms: i64,
        most: usize,
        drawn: &Drawn,
        random: &mut Random,
    ) -> i64 {
        let Some((recent, since_ms)) = &self.recent else { return horizon_ms };
        let window_ms = self.now_ms.saturating_sub(*since_ms).max(1) as f64;
        let count = recent.len() as f64;
        // How many came says how many will come, give or take the root of the number.
        let rate = count / window_ms * (1.0 + random.normal() / count.sqrt()).max(0.1);
        let mut at_ms = self.now_ms as f64;
        for number in 0..most {
            at_ms += random.exponential() / rate;
            if at_ms >= horizon_ms as f64 {
                return horizon_ms;
            }
            let like = recent[random.below(recent.len())];
            let workload = Workload {
                key: format!("{DRAWN}{draw}/{number}"),
                queued_ms: at_ms as i64,
                not_before_ms: 0,
                reserved: Vec::new(),
                ..like.clone()
            };
            jobs.push(self.job(workload, drawn, random));
        }
        at_ms as i64
    }
}
