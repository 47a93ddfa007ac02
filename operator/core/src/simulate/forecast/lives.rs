//! How long jobs run, from how long others like them did: an estimate that
//! also learns from those that still run or were cut off (Kaplan and Meier
//! 1958), drawn anew for each replay with weights of its own (the Bayesian
//! bootstrap, Rubin 1981), so that little history gives wide answers.

use std::collections::BTreeMap;

use super::Past;
use crate::model::Workload;
use crate::simulate::Random;

/// Ended runs that a class must have to be asked; else a wider one is.
const ENOUGH: usize = 10;

/// What is taken for the age of something that has just begun, where nothing is known of any life.
const YOUNG_MS: i64 = 10 * 60_000;

/// Jobs that are alike, from the most alike to all there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Class<'a> {
    Same(&'a str, usize, u32),
    Gang(usize, u32),
    Shape(usize),
    All,
}

/// Of one class: the runs, the shortest first.
#[derive(Clone, Debug, Default)]
struct Runs {
    runs: Vec<(i64, bool)>,
    ended: usize,
}

/// What is known of the lives of jobs.
#[derive(Clone, Debug)]
pub(super) struct Lives<'a> {
    classes: BTreeMap<Class<'a>, Runs>,
}

/// The same for one replay: each run weighs differently.
pub(super) struct Drawn<'a> {
    classes: BTreeMap<Class<'a>, Curve>,
}

/// The share of a class that lives on, over time.
#[derive(Clone, Debug, Default)]
struct Curve {
    /// At the end of each run that ended: the time, and the share that lives on from there; in order of time.
    steps: Vec<(i64, f64)>,
    /// The longest run.
    last_ms: i64,
    /// Mean time between ends.
    mean_ms: f64,
    /// Whether it comes from enough of them.
    enough: bool,
}

fn classes(workload: &Workload) -> [Class<'_>; 4] {
    let Workload { tenant, shape, pods, .. } = workload;
    [Class::Same(tenant, *shape, *pods), Class::Gang(*shape, *pods), Class::Shape(*shape), Class::All]
}

impl<'a> Lives<'a> {
    /// From runs that ended, or were cut off after the time they ran.
    pub fn of(history: impl Iterator<Item = (&'a Workload, i64, bool)>) -> Self {
        let mut lives = Self { classes: BTreeMap::new() };
        for (workload, ran_ms, ended) in history.filter(|(_, ran_ms, _)| *ran_ms > 0) {
            for class in classes(workload) {
                let runs = lives.classes.entry(class).or_default();
                runs.runs.push((ran_ms, ended));
                runs.ended += usize::from(ended);
            }
        }
        for runs in lives.classes.values_mut() {
            // What was cut off at a time was there to end until then.
            runs.runs.sort_unstable_by_key(|&(ran_ms, ended)| (ran_ms, !ended));
        }
        lives
    }

    /// Ended runs of all classes.
    pub fn ended(&self) -> usize {
        self.classes.get(&Class::All).map_or(0, |runs| runs.ended)
    }

    /// What they come to with the weights of one replay.
    pub fn drawn(&self, random: &mut Random) -> Drawn<'a> {
        let known = self.classes.iter().filter(|(_, runs)| runs.ended > 0);
        Drawn { classes: known.map(|(class, runs)| (*class, Curve::of(runs, random))).collect() }
    }
}

impl Drawn<'_> {
    /// How much longer something runs that has run for `age_ms`; at least 1 ms.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // milliseconds
    pub fn left_ms(&self, workload: &Workload, age_ms: i64, random: &mut Random) -> i64 {
        let age_ms = age_ms.max(0);
        let mut classes = classes(workload).into_iter().filter_map(|class| self.classes.get(&class));
        let class = classes.clone().find(|curve| curve.enough).or_else(|| classes.next_back());
        let left = if let Some(curve) = class {
            curve.left(age_ms, random)
        } else {
            // Nothing is known: as likely in the first half of its life as in the second (Gott 1993).
            let unit = random.unit();
            age_ms.max(YOUNG_MS) as f64 * (1.0 - unit) / unit
        };
        let left = (left as i64).max(1);
        // It has ended at the latest when it said it would.
        workload.runs_ms.map_or(left, |runs_ms| left.min(runs_ms.saturating_sub(age_ms).max(1)))
    }
}

impl Curve {
    #[allow(clippy::cast_precision_loss)] // milliseconds
    fn of(runs: &Runs, random: &mut Random) -> Self {
        let weights: Vec<f64> = runs.runs.iter().map(|_| random.exponential()).collect();
        let mut at_risk: f64 = weights.iter().sum();
        let (mut lives_on, mut ran, mut ended) = (1.0, 0.0, 0.0);
        let mut steps = Vec::with_capacity(runs.ended);
        for (&(ran_ms, has_ended), weight) in runs.runs.iter().zip(&weights) {
            ran += weight * ran_ms as f64;
            if has_ended {
                ended += weight;
                lives_on *= 1.0 - (weight / at_risk).min(1.0);
                steps.push((ran_ms, lives_on));
            }
            at_risk = (at_risk - weight).max(f64::MIN_POSITIVE);
        }
        Self {
            steps,
            last_ms: runs.runs.last().map_or(0, |run| run.0),
            mean_ms: ran / ended,
            enough: runs.ended >= ENOUGH,
        }
    }

    #[allow(clippy::cast_precision_loss)] // milliseconds
    fn left(&self, age_ms: i64, random: &mut Random) -> f64 {
        let past = self.steps.partition_point(|(ran_ms, _)| *ran_ms <= age_ms);
        let now = past.checked_sub(1).map_or(1.0, |last| self.steps[last].1);
        let until = now * random.unit();
        let ahead = &self.steps[past..];
        let next = ahead.partition_point(|(_, lives_on)| *lives_on > until);
        if let Some((ran_ms, _)) = ahead.get(next) {
            return (ran_ms - age_ms) as f64;
        }
        // It outlives all that is known: at the mean rate at which the class ends, but the more slowly the longer it
        // has run already.
        let known_ms = (self.last_ms - age_ms).max(0);
        known_ms as f64 + self.mean_ms.max(age_ms as f64 / 2.0) * random.exponential()
    }
}

/// The runs of `history`, as [`Lives::of`] takes them.
pub(super) fn runs(history: &[Past]) -> impl Iterator<Item = (&Workload, i64, bool)> {
    history.iter().map(|past| (&past.job.workload, past.ran_ms, past.ended))
}
