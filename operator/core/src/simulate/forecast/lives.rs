//! How long jobs run, from how long others like them did: an estimate that
//! also learns from those that still run or were cut off (Kaplan and Meier
//! 1958), drawn anew for each replay with weights of its own (the Bayesian
//! bootstrap, Rubin 1981), so that little history gives wide answers. Where a
//! job declares how long it runs at most, it is the share of that which is
//! drawn, from the shares that others took.

use std::collections::BTreeMap;

use crate::model::Workload;
use crate::simulate::Random;

/// Ended runs that a class must have to be asked; else a wider one is.
const ENOUGH: usize = 10;

/// What is taken for the age of something that has just begun, where nothing is known of any life.
const YOUNG_MS: i64 = 10 * 60_000;

/// What a declared time is divided into.
const PARTS: f64 = 1e6;

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
    /// In milliseconds.
    lives: Classes<'a, Runs>,
    /// Of those that declared how long they run: in [`PARTS`] of it.
    shares: Classes<'a, Runs>,
}

/// The same for one replay: each run weighs differently.
pub(super) struct Drawn<'a> {
    lives: Classes<'a, Curve>,
    shares: Classes<'a, Curve>,
}

type Classes<'a, T> = BTreeMap<Class<'a>, T>;

/// The share of a class that lives on, over time.
#[derive(Clone, Debug, Default)]
struct Curve {
    /// At the end of each run that ended: the time, and the share that lives on from there; in order of time.
    steps: Vec<(i64, f64)>,
    /// The longest run.
    last: i64,
    /// Mean time between ends of those that run longer than two of three.
    tail: f64,
    /// Whether it comes from enough of them.
    enough: bool,
}

fn classes(workload: &Workload) -> [Class<'_>; 4] {
    let Workload { tenant, shape, pods, .. } = workload;
    [Class::Same(tenant, *shape, *pods), Class::Gang(*shape, *pods), Class::Shape(*shape), Class::All]
}

/// What part of its declared time something takes that runs for `ran_ms`.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // milliseconds, and parts of a million
fn share(workload: &Workload, ran_ms: i64) -> Option<i64> {
    let runs_ms = workload.runs_ms.filter(|runs_ms| *runs_ms > 0)?;
    Some((ran_ms as f64 / runs_ms as f64 * PARTS) as i64)
}

impl<'a> Lives<'a> {
    /// From runs that ended, or were cut off after the time they ran.
    pub fn of(history: impl Iterator<Item = (&'a Workload, i64, bool)>) -> Self {
        let (mut lives, mut shares) = (Classes::new(), Classes::new());
        for (workload, ran_ms, ended) in history.filter(|(_, ran_ms, _)| *ran_ms > 0) {
            enter(&mut lives, workload, ran_ms, ended);
            if let Some(share) = share(workload, ran_ms) {
                enter(&mut shares, workload, share, ended);
            }
        }
        // What was cut off at a time was there to end until then.
        for runs in lives.values_mut().chain(shares.values_mut()) {
            runs.runs.sort_unstable_by_key(|&(ran, ended)| (ran, !ended));
        }
        Self { lives, shares }
    }

    /// Ended runs of all classes.
    pub fn ended(&self) -> usize {
        self.lives.get(&Class::All).map_or(0, |runs| runs.ended)
    }

    /// What they come to with the weights of one replay.
    pub fn drawn(&self, random: &mut Random) -> Drawn<'a> {
        let mut curves = |classes: &Classes<'a, Runs>| {
            let known = classes.iter().filter(|(_, runs)| runs.ended > 0);
            known.map(|(class, runs)| (*class, Curve::of(runs, random))).collect()
        };
        Drawn { lives: curves(&self.lives), shares: curves(&self.shares) }
    }
}

fn enter<'a>(classes_of: &mut Classes<'a, Runs>, workload: &'a Workload, ran: i64, ended: bool) {
    for class in classes(workload) {
        let runs = classes_of.entry(class).or_default();
        runs.runs.push((ran, ended));
        runs.ended += usize::from(ended);
    }
}

impl Drawn<'_> {
    /// How much longer something runs that has run for `age_ms`; at least 1 ms.
    #[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)] // milliseconds
    pub fn left_ms(&self, workload: &Workload, age_ms: i64, random: &mut Random) -> i64 {
        let age_ms = age_ms.max(0);
        let declared = share(workload, age_ms).zip(find(&self.shares, workload, true));
        let left = if let Some((age, curve)) = declared {
            curve.left(age, random) * workload.runs_ms.unwrap_or(0) as f64 / PARTS
        } else if let Some(curve) = find(&self.lives, workload, false) {
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

/// Of the classes that have enough the one of those most alike; if none has, the widest, unless it `must`.
fn find<'a>(curves: &'a Classes<'_, Curve>, workload: &'a Workload, must: bool) -> Option<&'a Curve> {
    let mut all = classes(workload).into_iter().filter_map(|class| curves.get(&class));
    all.clone().find(|curve| curve.enough).or_else(|| all.next_back().filter(|_| !must))
}

impl Curve {
    #[allow(clippy::cast_precision_loss)] // milliseconds
    fn of(runs: &Runs, random: &mut Random) -> Self {
        // One more than was seen outlives them all: of so many the longest is not the longest there can be.
        let beyond = random.exponential();
        let weights: Vec<f64> = runs.runs.iter().map(|_| random.exponential()).collect();
        let mut at_risk: f64 = weights.iter().sum::<f64>() + beyond;
        let mut lives_on = 1.0;
        let mut steps = Vec::with_capacity(runs.ended);
        for (&(ran, ended), weight) in runs.runs.iter().zip(&weights) {
            if ended {
                lives_on *= 1.0 - weight / at_risk;
                steps.push((ran, lives_on));
            }
            at_risk -= weight;
        }
        // How fast those end that run longer than two of three.
        let from = steps.get(steps.len() * 2 / 3).map_or(0, |step| step.0);
        let (mut time, mut ends) = (0.0, 0.0);
        for (&(ran, ended), weight) in runs.runs.iter().zip(&weights).filter(|((ran, _), _)| *ran >= from) {
            time += weight * (ran - from) as f64;
            ends += if ended { *weight } else { 0.0 };
        }
        Self {
            last: runs.runs.last().map_or(0, |run| run.0),
            tail: time / ends,
            enough: runs.ended >= ENOUGH,
            steps,
        }
    }

    #[allow(clippy::cast_precision_loss)] // milliseconds
    fn left(&self, age: i64, random: &mut Random) -> f64 {
        let past = self.steps.partition_point(|(ran, _)| *ran <= age);
        let now = past.checked_sub(1).map_or(1.0, |last| self.steps[last].1);
        let until = now * random.unit();
        let ahead = &self.steps[past..];
        let next = ahead.partition_point(|(_, lives_on)| *lives_on > until);
        if let Some((ran, _)) = ahead.get(next) {
            return (ran - age) as f64;
        }
        // It outlives all that is known, by so much more as the longer ones do, but the more the longer it has run
        // beyond them.
        let known = (self.last - age).max(0) as f64;
        let beyond = (age - self.last).max(0) as f64;
        known + self.tail.max(beyond) * random.exponential()
    }
}
