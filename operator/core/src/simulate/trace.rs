//! Streams of jobs: Poisson arrivals of a mix of demands, exponential lives.
//! One trace is played to every policy, so that they differ in nothing else.

use crate::states::Demand;

use super::random::Random;

/// A job of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// What it asks for.
    pub demand: Demand,
    /// Whether it may be moved while it runs.
    pub movable: bool,
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Job by this number arrives.
    Arrival(u32),
    /// It leaves, if it was placed.
    Departure(u32),
}

/// A stream of jobs in order of time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Trace {
    /// The jobs, in order of arrival.
    pub jobs: Vec<Job>,
    /// What happens and when, in mean lives, in order.
    pub events: Vec<(f64, Event)>,
}

/// A part of a trace in which the mix does not change.
#[derive(Clone, Debug, PartialEq)]
pub struct Phase {
    /// Share of each demand among arrivals; need not sum to 1.
    pub share: Vec<f64>,
    /// Mean life of the jobs of each demand; 1 unless lives differ.
    pub life: Vec<f64>,
    /// Jobs that arrive.
    pub arrivals: usize,
}

impl Phase {
    /// Jobs of a mix whose mean life is 1.
    pub fn new(share: &[f64], arrivals: usize) -> Self {
        Self { share: share.to_vec(), life: vec![1.0; share.len()], arrivals }
    }
}

impl Trace {
    /// Phases one after the other. `load` is what would be held if everything were placed, `size` what a job
    /// of each demand holds, both in slices; `movable` is the share of jobs that may be moved.
    pub fn poisson(seed: u64, phases: &[Phase], size: &[f64], load: f64, movable: f64) -> Self {
        let mut random = Random::new(seed);
        let mut now = 0.0;
        let mut jobs = Vec::new();
        for phase in phases {
            let total: f64 = phase.share.iter().sum();
            let held: f64 = phase.share.iter().zip(size).zip(&phase.life).map(|((p, s), t)| p * s * t).sum();
            let rate = load * total / held;
            for _ in 0..phase.arrivals {
                now += random.exponential() / rate;
                let demand = random.pick(&phase.share);
                let life = phase.life[demand] * random.exponential();
                let movable = random.unit() < movable;
                jobs.push((now, life, Job { demand, movable }));
            }
        }
        Self::of(&jobs)
    }

    /// Jobs with the times at which they arrive and for which they live; it ends with the last arrival.
    pub fn of(jobs: &[(f64, f64, Job)]) -> Self {
        let mut times = Vec::with_capacity(2 * jobs.len());
        for (id, &(arrival, life, _)) in (0..).zip(jobs) {
            times.push((arrival, Event::Arrival(id)));
            times.push((arrival + life, Event::Departure(id)));
        }
        times.sort_by(|a, b| a.0.total_cmp(&b.0));
        let last = times.iter().rposition(|(_, event)| matches!(event, Event::Arrival(_)));
        times.truncate(last.map_or(0, |last| last + 1));
        Self { jobs: jobs.iter().map(|(_, _, job)| *job).collect(), events: times }
    }
}
