//! Better weights for a mix, by playing it on a small cluster: a cross-entropy
//! search that starts from the weights in use. Some seconds of one core; it
//! is meant to run beside the decisions, not in them.

use std::sync::Arc;

use crate::policy::{Features, Values};
use crate::simulate::{Counts, Phase, Player, Random, Table, Trace, run};
use crate::states::Space;

use super::basis::Basis;

/// What is played.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The states, by classes.
    pub space: Arc<Space>,
    /// What the classes promise.
    pub features: Arc<Features>,
    /// The card of each GPU of the cluster that is played; a hundred stand for thousands.
    pub cards: Vec<usize>,
    /// What a job of each demand holds, and is worth, in slices.
    pub worth: Vec<f64>,
    /// Share of each demand among arrivals, and mean life of its jobs.
    pub share: Vec<f64>,
    /// Mean life of the jobs of each demand.
    pub life: Vec<f64>,
    /// What would be held if everything were placed, in slices.
    pub load: f64,
    /// Share of the jobs that may be moved.
    pub movable: f64,
    /// Moves for each placed job.
    pub moves: f64,
    /// Whether demands differ in how long their jobs live. Promises are then more, and overlap more: weights are
    /// tried together. (Where they do not, this found no more than trying each for itself.)
    pub lives_known: bool,
}

/// How long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// Rounds.
    pub generations: usize,
    /// Candidates in each.
    pub population: usize,
    /// Jobs that each is tried on.
    pub arrivals: usize,
}

impl Effort {
    /// About a second of one core without moves, a few with.
    pub const ONLINE: Self = Self { generations: 12, population: 20, arrivals: 30_000 };
}

/// How far the first candidates are from the start, over all weights, where the start has length 1.
const SPREAD: f64 = 0.5;

/// The same where weights are tried together. (.25 found less, .5 as much within chance.)
const SPREAD_TOGETHER: f64 = 0.8;

/// How far the centre goes towards the best of a round, and how much of its width comes from them.
const PACE: f64 = 0.6;

impl Problem {
    /// A stream of its jobs.
    pub fn trace(&self, seed: u64, arrivals: usize) -> Trace {
        let phase = Phase { share: self.share.clone(), life: self.life.clone(), arrivals };
        Trace::poisson(seed, &[phase], &self.worth, self.load, self.movable)
    }

    /// What `table` makes of `trace`.
    pub fn play(&self, table: &Arc<Table>, trace: &Trace) -> Counts {
        let warmup = (trace.jobs.len() / 10).min(5_000);
        let mut player = Player::new(table, &self.cards, &self.worth, self.moves);
        run(trace, self.space.demands(), warmup, &mut player)
    }

    /// The values that `weights` give.
    pub fn values(&self, weights: &[f64]) -> Values {
        self.features.values(weights)
    }

    /// Weights that place more than `start`, as far as they were found with `effort`.
    #[allow(clippy::cast_precision_loss)] // numbers of features and candidates
    pub fn improve(&self, start: &[f64], effort: Effort, seed: u64) -> Vec<f64> {
        let (basis, spread) = if self.lives_known {
            (Basis::of_choices(self, start, seed), SPREAD_TOGETHER)
        } else {
            (Basis::of_deviations(&self.features), SPREAD)
        };
        let mut random = Random::new(seed);
        let mut centre = basis.point(start);
        let length = centre.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
        for x in &mut centre {
            *x /= length;
        }
        let mut width = vec![spread / (centre.len() as f64).sqrt(); centre.len()];
        for generation in 0..effort.generations {
            let trace = self.trace(seed.wrapping_add(1 + generation as u64), effort.arrivals);
            let mut tried: Vec<(f64, Vec<f64>)> = (0..effort.population)
                .map(|_| {
                    let point: Vec<f64> =
                        centre.iter().zip(&width).map(|(x, width)| x + width * random.normal()).collect();
                    let table = Table::of_values(&self.space, self.values(&basis.weights(&point)));
                    (self.play(&table, &trace).acceptance(&self.worth), point)
                })
                .collect();
            tried.sort_by(|a, b| b.0.total_cmp(&a.0));
            tried.truncate((effort.population / 4).max(1));
            for (index, (x, width)) in centre.iter_mut().zip(&mut width).enumerate() {
                let best = || tried.iter().map(|(_, point)| point[index]);
                let mean = best().sum::<f64>() / tried.len() as f64;
                let variance = best().map(|y| (y - *x).powi(2)).sum::<f64>() / tried.len() as f64;
                *x += PACE * (mean - *x);
                *width = (PACE * variance + (1.0 - PACE) * *width * *width).sqrt();
            }
        }
        basis.weights(&centre)
    }
}
