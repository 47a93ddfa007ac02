//! Whether forecasts hold: a replay is stopped at moments, what waits then is
//! asked for, and the answer compared with what came.

use std::collections::BTreeMap;

use super::{Effort, Forecast, History, Past, forecast};
use crate::model::{Plan, Running, Snapshot};
use crate::simulate::Random;
use crate::simulate::replay::{Job, Observer, ReplayError, Scenario, replay};

/// How to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Moments at which is asked, spread over the middle of the arrivals.
    pub moments: usize,
    /// What is asked for at each, drawn from what waits.
    pub each: usize,
    /// How hard each answer is thought about.
    pub effort: Effort,
}

/// How forecasts held.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Measured {
    /// Each answer with the time of asking and what came.
    pub cases: Vec<(Forecast, i64, i64)>,
    /// Share of the cases that started before the interval from p10 to p90.
    pub before: f64,
    /// Share of those that started in it.
    pub within: f64,
    /// Share of those that started after it.
    pub after: f64,
    /// Share of those that started before the median.
    pub below_median: f64,
    /// Median of the length of the interval over the time that was still to be waited at the median, where both
    /// are known.
    pub sharpness: f64,
}

/// Plays `scenario`, and asks.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts, times
pub fn measure(scenario: &Scenario, asked: Asked) -> Result<Measured, ReplayError> {
    let jobs: BTreeMap<&str, &Job> =
        scenario.jobs.iter().map(|job| (job.workload.key.as_str(), job)).collect();
    let mut arrivals: Vec<i64> = scenario.jobs.iter().map(|job| job.workload.queued_ms).collect();
    arrivals.sort_unstable();
    let at = |share: f64| arrivals.get((arrivals.len() as f64 * share) as usize).copied().unwrap_or(0);
    let (from_ms, to_ms) = (at(0.3), at(0.75));
    let mut random = Random::new(asked.effort.seed);
    let mut moments: Vec<i64> =
        (0..asked.moments).map(|_| from_ms + ((to_ms - from_ms) as f64 * random.unit()) as i64).collect();
    moments.sort_unstable();
    moments.reverse();
    let mut record = Record { jobs, moments, ..Record::default() };
    replay(scenario, &mut record)?;
    let mut measured = Measured::default();
    for (number, (snapshot, now_ms, known)) in record.seen.iter().enumerate() {
        // What starts at this very moment is no question.
        let starts =
            |key: &str| record.started.get(key).and_then(|starts| starts.iter().find(|at| *at >= now_ms));
        let waiting = snapshot.waiting.iter().map(|workload| workload.key.as_str());
        let mut keys: Vec<&str> = waiting.filter(|key| starts(key) != Some(now_ms)).collect();
        while keys.len() > asked.each {
            keys.swap_remove(random.below(keys.len()));
        }
        let history = History { past: record.past[..*known].to_vec(), since_ms: Some(scenario.start_ms) };
        let effort = Effort { seed: asked.effort.seed.wrapping_add(number as u64), ..asked.effort };
        for forecast in forecast(snapshot, *now_ms, &history, &keys, effort)? {
            if let Some(start) = starts(&forecast.key).copied() {
                measured.cases.push((forecast, *now_ms, start));
            }
        }
    }
    measured.sum();
    Ok(measured)
}

impl Measured {
    /// The cases of both.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.cases.extend(other.cases);
        self.sum();
        self
    }

    #[allow(clippy::cast_precision_loss)] // times and numbers of cases
    fn sum(&mut self) {
        let share = |holds: &dyn Fn(&Forecast, i64) -> bool| {
            let count = self.cases.iter().filter(|(forecast, _, start)| holds(forecast, *start)).count();
            count as f64 / self.cases.len().max(1) as f64
        };
        self.before = share(&|forecast, start| forecast.p10_ms.is_none_or(|p10| start < p10));
        self.after = share(&|forecast, start| forecast.p90_ms.is_some_and(|p90| start > p90));
        self.within = 1.0 - self.before - self.after;
        self.below_median = share(&|forecast, start| forecast.p50_ms.is_none_or(|p50| start < p50));
        let relative = |(forecast, now_ms, _): &(Forecast, i64, i64)| {
            let (p10, p50, p90) = (forecast.p10_ms?, forecast.p50_ms?, forecast.p90_ms?);
            Some((p90 - p10) as f64 / (p50 - now_ms).max(1) as f64)
        };
        let mut lengths: Vec<f64> = self.cases.iter().filter_map(relative).collect();
        lengths.sort_by(f64::total_cmp);
        self.sharpness = lengths.get(lengths.len() / 2).copied().unwrap_or(0.0);
    }
}

/// Remembers what an operator would know, and the cluster at the moments.
#[derive(Default)]
struct Record<'a> {
    jobs: BTreeMap<&'a str, &'a Job>,
    /// The next one last.
    moments: Vec<i64>,
    past: Vec<Past>,
    /// The cluster, the time, and how much of the past was known.
    seen: Vec<(Snapshot, i64, usize)>,
    started: BTreeMap<String, Vec<i64>>,
}

impl Observer for Record<'_> {
    fn planned(&mut self, snapshot: &Snapshot, now_ms: i64, plan: &Plan) {
        for admission in &plan.admissions {
            let key = snapshot.waiting[admission.workload].key.clone();
            self.started.entry(key).or_default().push(now_ms);
        }
        // Where nothing goes on waiting there is nothing to ask: then the question comes later.
        if plan.waits.is_empty() || self.moments.last().is_none_or(|moment| *moment > now_ms) {
            return;
        }
        self.moments.pop();
        self.seen.push((snapshot.clone(), now_ms, self.past.len()));
    }

    fn left(&mut self, running: &Running, now_ms: i64, ended: bool) {
        if let Some(job) = self.jobs.get(running.key.as_str()) {
            let job = (*job).clone();
            self.past.push(Past { job, ran_ms: now_ms - running.admitted_ms, ended });
        }
    }
}
