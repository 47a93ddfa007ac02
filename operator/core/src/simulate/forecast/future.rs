//! Futures of a cluster: what runs and waits with a life drawn for each, and
//! jobs that arrive as they did of late.

use std::collections::{BTreeMap, BTreeSet};

use super::lives::{Drawn, Lives};
use super::{Effort, History, Past};
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
    /// Of what was cut off: what it had saved by then, in milliseconds of its life.
    saved: BTreeMap<&'a str, i64>,
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
        let mut saved: BTreeMap<&str, i64> = BTreeMap::new();
        // What was cut off goes on from where it was saved: its parts are one life.
        let mut parts: BTreeMap<&str, (&Workload, i64, bool)> = BTreeMap::new();
        for Past { job, ran_ms, ended } in &history.past {
            let key = job.workload.key.as_str();
            let before_ms = saved.get(key).copied().unwrap_or(0);
            parts.insert(key, (&job.workload, before_ms.saturating_add(*ran_ms), *ended));
            let every_ms = job.facts.checkpoint_ms.filter(|every_ms| *every_ms > 0 && !ended);
            let saved_ms = every_ms.map_or(0, |every_ms| ran_ms / every_ms * every_ms);
            saved.insert(key, before_ms.saturating_add(saved_ms));
        }
        for (workload, age_ms) in running {
            let key = workload.key.as_str();
            let before_ms = saved.get(key).copied().unwrap_or(0);
            parts.insert(key, (workload, before_ms.saturating_add(*age_ms), false));
        }
        let lives = Lives::of(parts.into_values());
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
        Self { snapshot, now_ms, running, lives, saved, facts: facts.collect(), recent }
    }

    /// One of many futures.
    pub fn scenario(&self, draw: usize, effort: Effort, random: &mut Random) -> Scenario {
        let drawn = self.lives.drawn(random);
        let running =
            self.snapshot.running.iter().zip(self.running).map(|(running, (workload, age_ms))| Facts {
                duration_ms: drawn.left_ms(workload, self.lived_ms(workload, *age_ms), random),
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
        let duration_ms = drawn.left_ms(&workload, self.lived_ms(&workload, 0), random);
        Job { facts: Facts { duration_ms, ..self.facts_of(&workload) }, workload }
    }

    /// How long it has run, with what it had saved before it was cut off.
    fn lived_ms(&self, workload: &Workload, age_ms: i64) -> i64 {
        self.saved.get(workload.key.as_str()).copied().unwrap_or(0).saturating_add(age_ms)
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
        // How many came, and of which sort, says how many will come, give or take: each weighs differently.
        let mut sum = 0.0;
        let weigh = |_| {
            sum += random.exponential();
            sum
        };
        let weights: Vec<f64> = recent.iter().map(weigh).collect();
        let rate = sum / window_ms;
        let mut at_ms = self.now_ms as f64;
        for number in 0..most {
            at_ms += random.exponential() / rate;
            if at_ms >= horizon_ms as f64 {
                return horizon_ms;
            }
            let picked = random.unit() * sum;
            let like = recent[weights.partition_point(|until| *until <= picked).min(recent.len() - 1)];
            // Of what ran it is known only that it was not to be stopped. Where nobody counts that, it does not bind.
            let counted = self.snapshot.tenants.get(&like.tenant).is_some_and(|tenant| tenant.lasting > 0);
            let workload = Workload {
                key: format!("{DRAWN}{draw}/{number}"),
                queued_ms: at_ms as i64,
                not_before_ms: 0,
                reserved: Vec::new(),
                lasting: like.lasting && counted,
                ..like.clone()
            };
            jobs.push(self.job(workload, drawn, random));
        }
        at_ms as i64
    }
}
