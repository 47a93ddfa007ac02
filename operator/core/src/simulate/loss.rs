//! The loss system: a job is placed when it arrives, or lost.

use crate::states::Demand;

use super::trace::{Event, Job, Trace};

/// Who decides on the jobs of a run. Times are in mean lives.
pub trait Placer {
    /// Job `id` arrives: whether it got a place.
    fn arrive(&mut self, now: f64, id: u32, job: Job) -> bool;

    /// Job `id`, which had got one, leaves.
    fn depart(&mut self, now: f64, id: u32, job: Job);

    /// Jobs moved so far.
    fn moves(&self) -> u64 {
        0
    }
}

/// What came of a run, for each demand.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Jobs that arrived.
    pub offered: Vec<u64>,
    /// Jobs that were placed.
    pub accepted: Vec<u64>,
    /// Jobs that were moved.
    pub moves: u64,
}

impl Counts {
    /// Accepted part of what was offered, each job weighing `size` of its demand.
    #[allow(clippy::cast_precision_loss)] // counts of jobs
    pub fn acceptance(&self, size: &[f64]) -> f64 {
        let sum = |of: &[u64]| of.iter().zip(size).map(|(&n, s)| n as f64 * s).sum::<f64>();
        sum(&self.accepted) / sum(&self.offered)
    }

    /// Accepted part of one demand.
    #[allow(clippy::cast_precision_loss)]
    pub fn acceptance_of(&self, demand: Demand) -> f64 {
        self.accepted[demand] as f64 / self.offered[demand] as f64
    }

    /// Moves for each accepted job.
    #[allow(clippy::cast_precision_loss)]
    pub fn moves_per_accepted(&self) -> f64 {
        self.moves as f64 / self.accepted.iter().sum::<u64>() as f64
    }
}

/// Plays `trace` to `placer`; the first `warmup` arrivals are not counted. `watch` hears of every arrival.
pub fn run_watched(
    trace: &Trace,
    demands: usize,
    warmup: usize,
    placer: &mut impl Placer,
    mut watch: impl FnMut(u32, Job, bool),
) -> Counts {
    let mut counts = Counts { offered: vec![0; demands], accepted: vec![0; demands], moves: 0 };
    let mut running = vec![false; trace.jobs.len()];
    let mut moves_before = 0;
    for &(now, event) in &trace.events {
        match event {
            Event::Arrival(id) => {
                let job = trace.jobs[id as usize];
                let accepted = placer.arrive(now, id, job);
                running[id as usize] = accepted;
                watch(id, job, accepted);
                if id as usize >= warmup {
                    counts.offered[job.demand] += 1;
                    counts.accepted[job.demand] += u64::from(accepted);
                } else {
                    moves_before = placer.moves();
                }
            }
            Event::Departure(id) => {
                if running[id as usize] {
                    placer.depart(now, id, trace.jobs[id as usize]);
                }
            }
        }
    }
    counts.moves = placer.moves() - moves_before;
    counts
}

/// The same, unwatched.
pub fn run(trace: &Trace, demands: usize, warmup: usize, placer: &mut impl Placer) -> Counts {
    run_watched(trace, demands, warmup, placer, |_, _, _| ())
}
