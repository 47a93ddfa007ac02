//! Whether forecasts hold: a replay is stopped at moments, what waits then is
//! asked for, and the answer compared with what came.

use std::collections::BTreeMap;

use super::calibration::SHORT_MS;
use super::{Calibration, Effort, Forecast, History, Past, forecast};
use crate::model::{Plan, Running, Snapshot, Workload};
use crate::simulate::Random;
use crate::simulate::replay::{Job, Observer, ReplayError, Scenario, replay};

/// How to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Moments at which is asked, spread over the arrivals but the first and the last.
    pub moments: usize,
    /// What is asked for at each, drawn from what waits.
    pub each: usize,
    /// How hard each answer is thought about.
    pub effort: Effort,
}

/// A forecast, and what came.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// As it was given.
    pub forecast: Forecast,
    /// p10, p50 and p90 before it was corrected by those before it.
    pub plain_ms: [Option<i64>; 3],
    /// What the waits of late alone would have said for p10, p50 and p90.
    pub usual_ms: [i64; 3],
    /// When it was given.
    pub now_ms: i64,
    /// When it started.
    pub start_ms: i64,
}

/// Plays `scenario`, and asks. The cases come in the order in which they were asked for; what is foreseen in one
/// rests on nothing that came later.
pub fn measure(scenario: &Scenario, asked: Asked) -> Result<Vec<Case>, ReplayError> {
    let jobs: BTreeMap<&str, &Job> =
        scenario.jobs.iter().map(|job| (job.workload.key.as_str(), job)).collect();
    let mut random = Random::new(asked.effort.seed);
    let mut record = Record { jobs, moments: moments(scenario, asked, &mut random), ..Record::default() };
    replay(scenario, &mut record)?;
    let mut cases = Vec::new();
    let mut calibration = Calibration::default();
    let mut known = 0;
    for (number, seen) in (0..).zip(&record.seen) {
        let Seen { snapshot, now_ms, past, starts } = seen;
        for start in &record.starts[known..*starts] {
            calibration.started(&start.key, start.at_ms);
        }
        known = *starts;
        // What starts at this very moment is no question.
        let later = &record.starts[*starts..];
        let start = |key: &str| later.iter().find(|start| start.key == key).map(|start| start.at_ms);
        let waiting = snapshot.waiting.iter().map(|workload| workload.key.as_str());
        let mut keys: Vec<&str> = waiting.filter(|key| start(key) != Some(*now_ms)).collect();
        while keys.len() > asked.each {
            keys.swap_remove(random.below(keys.len()));
        }
        let history = History { past: record.past[..*past].to_vec(), since_ms: Some(scenario.start_ms) };
        let effort = Effort { seed: asked.effort.seed.wrapping_add(number), ..asked.effort };
        let plain = forecast(snapshot, *now_ms, &history, &keys, effort)?;
        let given = calibration.corrected(&plain, *now_ms);
        for (plain, forecast) in plain.iter().zip(given) {
            let Some(start_ms) = start(&plain.key) else { continue };
            let workload = snapshot.waiting.iter().find(|workload| workload.key == plain.key);
            let Some(workload) = workload else { continue };
            let usual_ms = usual(&record.starts[..*starts], workload, *now_ms);
            let plain_ms = [plain.p10_ms, plain.p50_ms, plain.p90_ms];
            cases.push(Case { forecast, plain_ms, usual_ms, now_ms: *now_ms, start_ms });
        }
        calibration.asked(&plain, *now_ms);
    }
    Ok(cases)
}

/// When is asked, the last first.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // counts, times
fn moments(scenario: &Scenario, asked: Asked, random: &mut Random) -> Vec<i64> {
    let mut arrivals: Vec<i64> = scenario.jobs.iter().map(|job| job.workload.queued_ms).collect();
    arrivals.sort_unstable();
    let at = |share: f64| arrivals.get((arrivals.len() as f64 * share) as usize).copied().unwrap_or(0);
    let (from_ms, to_ms) = (at(0.1), at(0.75));
    let moment = |_| from_ms + ((to_ms - from_ms) as f64 * random.unit()) as i64;
    let mut moments: Vec<i64> = (0..asked.moments).map(moment).collect();
    moments.sort_unstable();
    moments.reverse();
    moments
}

/// What the waits of those like it, which waited for longer than it has, say of it.
fn usual(starts: &[Start], workload: &Workload, now_ms: i64) -> [i64; 3] {
    let waited_ms = now_ms.saturating_sub(workload.queued_ms);
    let like = |alike: bool| {
        let longer = starts.iter().filter(|start| start.waited_ms > waited_ms);
        let longer = longer.filter(|start| !alike || start.shape == workload.shape);
        let mut waits: Vec<i64> = longer.map(|start| start.waited_ms - waited_ms).collect();
        waits.sort_unstable();
        waits
    };
    let waits = Some(like(true)).filter(|waits| waits.len() >= 10).unwrap_or_else(|| like(false));
    // Who has waited longest of all is taken to wait as long again.
    let at = |tenth: usize| waits.get(waits.len() * tenth / 10).copied().unwrap_or(waited_ms);
    [1, 5, 9].map(|tenth| now_ms.saturating_add(at(tenth)))
}

/// A start, and what it was of.
struct Start {
    key: String,
    shape: usize,
    at_ms: i64,
    waited_ms: i64,
}

/// The cluster at a moment, and how much of what is recorded had happened by then.
struct Seen {
    snapshot: Snapshot,
    now_ms: i64,
    past: usize,
    starts: usize,
}

/// Remembers what an operator would know, and the cluster at the moments.
#[derive(Default)]
struct Record<'a> {
    jobs: BTreeMap<&'a str, &'a Job>,
    /// The next one last.
    moments: Vec<i64>,
    past: Vec<Past>,
    starts: Vec<Start>,
    seen: Vec<Seen>,
}

impl Observer for Record<'_> {
    fn planned(&mut self, snapshot: &Snapshot, now_ms: i64, plan: &Plan) {
        // Where nothing goes on waiting there is nothing to ask: then the question comes later.
        if !plan.waits.is_empty() && self.moments.last().is_some_and(|moment| *moment <= now_ms) {
            self.moments.pop();
            let (past, starts) = (self.past.len(), self.starts.len());
            self.seen.push(Seen { snapshot: snapshot.clone(), now_ms, past, starts });
        }
        for admission in &plan.admissions {
            let Workload { key, shape, queued_ms, .. } = &snapshot.waiting[admission.workload];
            let waited_ms = now_ms.saturating_sub(*queued_ms);
            self.starts.push(Start { key: key.clone(), shape: *shape, at_ms: now_ms, waited_ms });
        }
    }

    fn left(&mut self, running: &Running, now_ms: i64, ended: bool) {
        if let Some(job) = self.jobs.get(running.key.as_str()) {
            let job = (*job).clone();
            self.past.push(Past { job, ran_ms: now_ms - running.admitted_ms, ended });
        }
    }
}

/// How often forecasts held, and how much they said.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Held {
    /// Cases.
    pub cases: usize,
    /// Share of the cases that started before the interval from p10 to p90.
    pub before: f64,
    /// Share of those that started in it.
    pub within: f64,
    /// Share of those that started after it.
    pub after: f64,
    /// Share of those that started before the median.
    pub below_median: f64,
    /// Median of the length of the interval over the time that was waited in the end.
    pub width: f64,
}

impl Held {
    /// The forecasts as they were given.
    pub fn given(cases: &[Case]) -> Self {
        Self::of(cases, |Case { forecast, .. }| [forecast.p10_ms, forecast.p50_ms, forecast.p90_ms])
    }

    /// Those before they were corrected.
    pub fn plain(cases: &[Case]) -> Self {
        Self::of(cases, |case| case.plain_ms)
    }

    /// What the waits of late alone would have said, stretched so that eight of ten cases are within; by how much is
    /// known in hindsight only, which makes it better than it could be.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // milliseconds
    pub fn usual(cases: &[Case]) -> Self {
        let wait = |case: &Case, at_ms: i64| (at_ms - case.now_ms) as f64 + SHORT_MS;
        let stretch = |at: usize, tenth: usize| {
            let over = |case: &Case| wait(case, case.start_ms) / wait(case, case.usual_ms[at]);
            let mut over: Vec<f64> = cases.iter().map(over).collect();
            over.sort_by(f64::total_cmp);
            over.get(cases.len() * tenth / 10).copied().unwrap_or(1.0)
        };
        let by = [stretch(0, 1), stretch(1, 5), stretch(2, 9)];
        Self::of(cases, |case| {
            let at = |at: usize| (wait(case, case.usual_ms[at]) * by[at] - SHORT_MS) as i64;
            [0, 1, 2].map(|index| Some(case.now_ms + at(index)))
        })
    }

    #[allow(clippy::cast_precision_loss)] // times and numbers of cases
    fn of(cases: &[Case], interval: impl Fn(&Case) -> [Option<i64>; 3]) -> Self {
        let share = |holds: &dyn Fn([Option<i64>; 3], i64) -> bool| {
            let count = cases.iter().filter(|case| holds(interval(case), case.start_ms)).count();
            count as f64 / cases.len().max(1) as f64
        };
        // `None` is: later than was looked.
        let before = share(&|[p10, ..], start| p10.is_none_or(|p10| start < p10));
        let after = share(&|[.., p90], start| p90.is_some_and(|p90| start > p90));
        let below_median = share(&|[_, p50, _], start| p50.is_none_or(|p50| start < p50));
        let width = |case: &Case| {
            let [Some(p10), _, Some(p90)] = interval(case) else { return f64::INFINITY };
            (p90 - p10) as f64 / (case.start_ms - case.now_ms).max(1) as f64
        };
        let mut widths: Vec<f64> = cases.iter().map(width).collect();
        widths.sort_by(f64::total_cmp);
        let width = widths.get(widths.len() / 2).copied().unwrap_or(0.0);
        Self { cases: cases.len(), before, within: 1.0 - before - after, after, below_median, width }
    }
}
