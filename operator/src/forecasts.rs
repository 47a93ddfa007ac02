//! When what waits is likely to start: worked out by the core beside the
//! decisions, now and then, and kept until there is something newer. Nothing
//! is decided by it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use vingt_core::model::{PodShape, Running, Snapshot, Workload};
use vingt_core::simulate::forecast::{Calibration, Effort, Forecast, History, Past, forecast};
use vingt_core::simulate::replay::{Facts, Job};
use vingt_crds::ExpectedStart;

use crate::background;

/// How often, at most.
const EVERY: Duration = Duration::from_secs(15);
/// How many workloads are asked about at a time: those that wait longest.
const MOST: usize = 50;
/// Runs that are over and are remembered, to draw lives from.
const REMEMBERED: usize = 2_000;
/// What differs by less than this part of the time that is left says nothing new.
const NOTICED_PART: i64 = 5;
/// Nor does what differs by less than this, in milliseconds.
const NOTICED_MS: i64 = 30_000;
/// How far is looked, in milliseconds: two weeks.
const HORIZON_MS: i64 = 14 * 24 * 3_600_000;
/// Replays for one forecast.
const DRAWS: usize = 40;
/// What is played in all of them, as plans times what a plan has to look at: a second or two of one core.
const WORK: usize = 4_000_000;

/// What is remembered and known of starts.
#[derive(Debug)]
pub struct Forecasts {
    past: VecDeque<(PodShape, Past)>,
    /// Since when what ended is remembered, in milliseconds since 1970.
    since_ms: Option<i64>,
    /// What ran at the last look, by workload, with what its pods need.
    running: BTreeMap<String, (Running, PodShape)>,
    /// What is told, corrected by how those before fared.
    known: BTreeMap<String, Forecast>,
    calibration: Calibration,
    /// What was worked out last, and for which time, in milliseconds since 1970; and which of it is in `known`.
    found: watch::Sender<(Vec<Forecast>, i64)>,
    known_ms: i64,
    /// Whether one is being worked out, and when the next may begin.
    busy: Arc<()>,
    next: Instant,
}

impl Default for Forecasts {
    fn default() -> Self {
        Self {
            past: VecDeque::new(),
            since_ms: None,
            running: BTreeMap::new(),
            known: BTreeMap::new(),
            calibration: Calibration::default(),
            found: watch::Sender::new((Vec::new(), 0)),
            known_ms: 0,
            busy: Arc::new(()),
            next: Instant::now(),
        }
    }
}

impl Forecasts {
    /// Remembers what has ended since the last look, and has starts worked out if it is time.
    pub fn look(&mut self, snapshot: &Snapshot, now_ms: i64) {
        self.remember(snapshot, now_ms);
        self.calibration.look(snapshot);
        self.learn();
        if snapshot.waiting.is_empty() {
            self.known.clear();
            return;
        }
        if Instant::now() < self.next || Arc::strong_count(&self.busy) > 1 {
            return;
        }
        self.next = Instant::now() + EVERY;
        let mut waiting: Vec<&Workload> = snapshot.waiting.iter().collect();
        waiting.sort_by_key(|workload| (workload.queued_ms, &workload.key));
        let keys: Vec<String> = waiting.into_iter().take(MOST).map(|workload| workload.key.clone()).collect();
        let (snapshot, history) = (snapshot.clone(), self.history(snapshot));
        let (tell, busy) = (self.found.clone(), self.busy.clone());
        background::run("forecast", move || {
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            match forecast(&snapshot, now_ms, &history, &keys, effort(&snapshot)) {
                Ok(plain) => {
                    tell.send_replace((plain, now_ms));
                }
                Err(error) => tracing::debug!(%error, "no start can be foreseen"),
            }
            drop(busy);
        });
    }

    /// What is to be said of one that waits, where `old` is said already.
    pub fn say(&self, workload: &str, old: Option<&ExpectedStart>, now_ms: i64) -> Option<ExpectedStart> {
        let new = self.known.get(workload).and_then(|told| words(told, now_ms));
        match (old, new) {
            (Some(old), Some(new)) if !noticed(old, &new, now_ms) => Some(old.clone()),
            (_, new) => new,
        }
    }

    /// The one that is likely to start first.
    pub fn first<'a>(&self, workloads: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        let starts = workloads.filter_map(|key| Some((self.known.get(key)?.p50_ms?, key)));
        starts.min().map(|(_, key)| key)
    }

    /// Takes over what was worked out since the last look. It is corrected by what is known of others, and remembered
    /// as it was, to be compared with what comes.
    fn learn(&mut self) {
        if self.found.borrow().1 <= self.known_ms {
            return;
        }
        let (plain, at_ms) = self.found.borrow().clone();
        self.known_ms = at_ms;
        let given = self.calibration.corrected(&plain, at_ms);
        self.known = given.into_iter().map(|told| (told.key.clone(), told)).collect();
        self.calibration.asked(&plain, at_ms);
    }

    fn remember(&mut self, snapshot: &Snapshot, now_ms: i64) {
        self.since_ms.get_or_insert(now_ms);
        let mut gone = std::mem::take(&mut self.running);
        for running in &snapshot.running {
            let old = gone.remove(&running.key);
            let shape = old.map_or_else(|| snapshot.shapes[running.shape].clone(), |(_, shape)| shape);
            self.running.insert(running.key.clone(), (running.clone(), shape));
        }
        for (running, shape) in gone.into_values() {
            self.past.push_back((shape, past(&running, now_ms)));
        }
        let superfluous = self.past.len().saturating_sub(REMEMBERED);
        if self.past.drain(..superfluous).count() > 0 {
            // Before that, not everything is known any more.
            let oldest = self.past.front().map(|(_, past)| past.job.workload.queued_ms);
            self.since_ms = self.since_ms.max(oldest);
        }
    }

    /// What is remembered, as far as its shapes are in the snapshot.
    fn history(&self, snapshot: &Snapshot) -> History {
        let index: BTreeMap<&PodShape, usize> =
            snapshot.shapes.iter().enumerate().map(|(index, shape)| (shape, index)).collect();
        let past = self.past.iter().filter_map(|(shape, past)| {
            let mut past = past.clone();
            past.job.workload.shape = *index.get(shape)?;
            Some(past)
        });
        History { past: past.collect(), since_ms: self.since_ms }
    }
}

fn past(running: &Running, now_ms: i64) -> Past {
    let saved = running.saved_ms.map(|saved_ms| saved_ms.saturating_sub(running.admitted_ms));
    Past {
        job: Job {
            workload: running.as_workload(),
            facts: Facts {
                duration_ms: now_ms.saturating_sub(running.admitted_ms).max(1),
                checkpoint_ms: saved.filter(|saved_ms| *saved_ms > 0),
                grace_ms: running.grace_ms.max(0),
                leaves_after_ms: None,
                evictable: running.evictable,
                movable: running.movable,
            },
        },
        ran_ms: now_ms.saturating_sub(running.admitted_ms).max(0),
        // What was asked to leave did not end by itself.
        ended: running.leaves_ms.is_none(),
    }
}

/// The larger the cluster, the fewer plans.
fn effort(snapshot: &Snapshot) -> Effort {
    let size = snapshot.gpus.len() + snapshot.waiting.len() + snapshot.running.len();
    let plans = u64::try_from(WORK / size.max(1)).unwrap_or(u64::MAX).clamp(200, 4_000);
    Effort { draws: DRAWS, plans, horizon_ms: HORIZON_MS, cycle_ms: 5_000, arrivals: 500, seed: 1 }
}

/// What a forecast says; nothing if it is not even likely to start within the time that was looked at.
fn words(told: &Forecast, now_ms: i64) -> Option<ExpectedStart> {
    let at = |ms: i64| Timestamp::from_second(ms.div_euclid(1000)).ok().map(Time);
    let last = told.p90_ms.unwrap_or_else(|| now_ms.saturating_add(HORIZON_MS));
    let later = if told.p90_ms.is_none() { "; it may well be later" } else { "" };
    Some(ExpectedStart {
        p10: at(told.p10_ms?)?,
        p50: at(told.p50_ms?)?,
        p90: at(last)?,
        basis: format!("{} replays, from {} jobs that have ended{later}", told.draws, told.lives),
    })
}

/// Whether a forecast says something new.
fn noticed(old: &ExpectedStart, new: &ExpectedStart, now_ms: i64) -> bool {
    let apart = |old: &Time, new: &Time| {
        let (said, found) = (old.0.as_millisecond(), new.0.as_millisecond());
        let left_ms = said.max(found).saturating_sub(now_ms).max(0);
        said.saturating_sub(found).abs() > NOTICED_MS.max(left_ms / NOTICED_PART)
    };
    let past = old.p90.0.as_millisecond() < now_ms;
    past || apart(&old.p50, &new.p50) || apart(&old.p90, &new.p90)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(p10: i64, p50: i64, p90: i64) -> ExpectedStart {
        let at = |second| Time(Timestamp::from_second(second).unwrap());
        ExpectedStart { p10: at(p10), p50: at(p50), p90: at(p90), basis: String::new() }
    }

    #[test]
    fn a_forecast_is_told_again_when_it_says_something_new() {
        let old = start(100, 1000, 5000);
        assert!(!noticed(&old, &start(200, 1100, 5500), 0));
        assert!(noticed(&old, &start(100, 1400, 5000), 0), "much later");
        assert!(noticed(&old, &start(100, 1000, 9000), 0), "less certain");
        assert!(noticed(&old, &start(100, 1100, 5000), 900_000), "soon, a hundred seconds are much");
        assert!(noticed(&start(1, 2, 3), &start(4, 5, 6), 4_000), "it should have started");
    }

    #[test]
    fn what_starts_beyond_the_horizon_is_not_foreseen() {
        let told = Forecast { p10_ms: Some(1000), p50_ms: Some(2000), draws: 9, ..Forecast::default() };
        let words_of = words(&told, 0).unwrap();
        assert_eq!(words_of.p90.0.as_millisecond(), HORIZON_MS);
        assert!(words_of.basis.contains("later"), "{}", words_of.basis);
        assert_eq!(words(&Forecast::default(), 0), None);
    }

    #[test]
    fn forecasts_are_corrected_by_how_those_before_them_fared() {
        let mut forecasts = Forecasts::default();
        let wait = |key: &str| Workload { key: key.into(), ..Workload::default() };
        let mut median = Vec::new();
        for number in 1..200_i64 {
            let (now_ms, key) = (number * 10_000_000, number.to_string());
            let at = |minutes: i64| Some(now_ms + minutes * 60_000);
            let told = Forecast { key, p10_ms: at(5), p50_ms: at(10), p90_ms: at(20), ..Forecast::default() };
            let mut snapshot = Snapshot { waiting: vec![wait(&told.key)], ..Snapshot::default() };
            // As if it had just been worked out; and no other begins.
            forecasts.next = Instant::now() + EVERY;
            forecasts.found.send_replace((vec![told.clone()], now_ms));
            forecasts.look(&snapshot, now_ms);
            median.push(forecasts.known[&told.key].p50_ms.unwrap() - now_ms);
            // All of them start after 30 minutes.
            let admitted_ms = now_ms + 30 * 60_000;
            snapshot.waiting.clear();
            snapshot.shapes.push(PodShape::default());
            snapshot.running.push(Running { key: told.key, admitted_ms, ..Running::default() });
            forecasts.look(&snapshot, admitted_ms);
            assert!(forecasts.known.is_empty(), "nobody waits");
        }
        assert_eq!(median[0], 10 * 60_000);
        assert!(*median.last().unwrap() > 18 * 60_000, "{median:?}");
    }

    #[test]
    fn what_has_ended_is_remembered_with_how_long_it_ran() {
        let mut forecasts = Forecasts::default();
        let running = Running { key: "a".into(), admitted_ms: 1000, ..Running::default() };
        let mut snapshot =
            Snapshot { shapes: vec![PodShape::default()], running: vec![running], ..Snapshot::default() };
        forecasts.look(&snapshot, 2000);
        snapshot.running.clear();
        forecasts.look(&snapshot, 5000);
        let history = forecasts.history(&snapshot);
        assert_eq!((history.past.len(), history.since_ms), (1, Some(2000)));
        assert_eq!((history.past[0].ran_ms, history.past[0].ended), (4000, true));
        snapshot.shapes.clear();
        assert!(forecasts.history(&snapshot).past.is_empty(), "nobody needs the like any more");
    }
}
