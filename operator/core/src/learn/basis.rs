//! In which directions weights are tried, and how far in each. Not how they are
//! judged: that is [`super::search`]'s.
//!
//! Promises overlap: what holds a job now holds it soon. Weights tried one by
//! one then mostly change what all places have in common, which decides
//! nothing. Taken together in proportion to how they tell the places of a job
//! apart, each step changes about as many decisions as any other.

use std::sync::Arc;

use crate::policy::Features;
use crate::simulate::{Event, Placer, Player, Table, Trace};
use crate::states::{Class, set::Bits};

use super::search::Problem;

/// Arrivals of which the choices are taken, and those before.
const ARRIVALS: usize = 12_000;
const WARMUP: u32 = 1_500;

/// Every so many of them.
const EVERY: u32 = 7;

/// Places that are compared with the one that is taken, and how much the next counts of the one before.
const PLACES: usize = 8;
const NEXT_COUNTS: f64 = 0.7;

/// Part of a feature's variance that is added to it, so that what differs by hardly anything is not tried in leaps.
const RIDGE: f64 = 0.01;

/// A linear map between weights and points, in which a search steps alike in all directions.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Basis {
    width: usize,
    /// Row by row, zero above the diagonal: a point is the transpose of it times the weights.
    lower: Vec<f64>,
}

impl Basis {
    /// Each weight for itself, by how much its feature differs among classes.
    pub fn of_deviations(features: &Features) -> Self {
        let width = features.width();
        let mut lower = vec![0.0; width * width];
        for (index, deviation) in features.deviations().into_iter().enumerate() {
            lower[index * width + index] = deviation;
        }
        Self { width, lower }
    }

    /// By how features tell apart the places that the jobs of `problem` find under `weights`.
    pub fn of_choices(problem: &Problem, weights: &[f64], seed: u64) -> Self {
        let table = Table::of_values(&problem.space, problem.values(weights));
        let covariance = covariance(problem, &table, &problem.trace(seed, ARRIVALS));
        Self::of(covariance, &problem.features.deviations())
    }

    /// The root of `covariance` (Cholesky). To each variance a part of it is added, or of a hundredth of its feature's
    /// deviation among classes if that is more.
    fn of(covariance: Vec<f64>, deviations: &[f64]) -> Self {
        let width = deviations.len();
        let mut lower = covariance;
        for row in 0..width {
            let variance = lower[row * width + row].max((deviations[row] * 0.01).powi(2));
            lower[row * width + row] += RIDGE * variance;
            for column in 0..=row {
                let before = |i: usize, k: usize| lower[i * width + k];
                let known: f64 = (0..column).map(|k| before(row, k) * before(column, k)).sum();
                let rest = before(row, column) - known;
                lower[row * width + column] = if row == column {
                    rest.max(RIDGE * RIDGE * variance).sqrt()
                } else {
                    rest / before(column, column)
                };
            }
            lower[row * width + row + 1..(row + 1) * width].fill(0.0);
        }
        Self { width, lower }
    }

    /// The point of `weights`.
    pub fn point(&self, weights: &[f64]) -> Vec<f64> {
        let of = |column: usize| {
            let below = column..self.width;
            below.map(|row| self.lower[row * self.width + column] * weights[row]).sum()
        };
        (0..self.width).map(of).collect()
    }

    /// The weights of `point`.
    pub fn weights(&self, point: &[f64]) -> Vec<f64> {
        let mut weights = point.to_vec();
        for row in (0..self.width).rev() {
            for below in row + 1..self.width {
                weights[row] -= self.lower[below * self.width + row] * weights[below];
            }
            weights[row] /= self.lower[row * self.width + row];
        }
        weights
    }
}

/// How the features of other places differ from those of the place that is taken, on average over the choices of
/// `trace` under `table`.
fn covariance(problem: &Problem, table: &Arc<Table>, trace: &Trace) -> Vec<f64> {
    let width = problem.features.width();
    let mut sums = vec![0.0; width * width];
    let mut total = 0.0;
    let mut player = Player::new(table, &problem.cards, &problem.worth, 0.0);
    for &(now, event) in &trace.events {
        match event {
            Event::Arrival(id) => {
                let job = trace.jobs[id as usize];
                if id >= WARMUP && id.is_multiple_of(EVERY) {
                    let mut counts = 1.0;
                    for difference in differences(problem, table, &player, job.demand) {
                        add(&mut sums, &difference, counts);
                        total += counts;
                        counts *= NEXT_COUNTS;
                    }
                }
                player.arrive(now, id, job);
            }
            Event::Departure(id) => player.depart(now, id, trace.jobs[id as usize]),
        }
    }
    if total > 0.0 {
        for sum in &mut sums {
            *sum /= total;
        }
    }
    sums
}

/// Of the best places that `demand` finds, how the features of each would change, less how they would at the best.
fn differences(problem: &Problem, table: &Table, player: &Player, demand: usize) -> Vec<Vec<f64>> {
    let mut places: Vec<(f64, Class, Class)> = Vec::new();
    for (word, &bits) in player.cluster().present_classes().iter().enumerate() {
        for bit in Bits(bits) {
            let from = Class(u16::try_from(word << 6 | bit).unwrap_or(u16::MAX));
            let targets = problem.space.targets(from, demand).iter();
            places
                .extend(targets.map(|&to| (table.ranking.price(&problem.space, demand, from, to), from, to)));
        }
    }
    places.sort_by(|a, b| a.0.total_cmp(&b.0));
    let change = |&(_, from, to): &(f64, Class, Class)| {
        let (from, to) = (problem.features.of(from), problem.features.of(to));
        to.iter().zip(from).map(|(to, from)| to - from).collect::<Vec<f64>>()
    };
    let Some((best, others)) = places.split_first() else { return Vec::new() };
    let best = change(best);
    let less = |other| change(other).iter().zip(&best).map(|(a, b)| a - b).collect();
    others.iter().take(PLACES).map(less).collect()
}

/// Adds the products of all pairs of `difference`, each `times`.
fn add(sums: &mut [f64], difference: &[f64], times: f64) {
    for (row, x) in sums.chunks_mut(difference.len().max(1)).zip(difference) {
        if *x != 0.0 {
            row.iter_mut().zip(difference).for_each(|(sum, y)| *sum += times * x * y);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COVARIANCE: [f64; 9] = [4.0, 2.0, 0.4, 2.0, 2.0, 0.2, 0.4, 0.2, 0.5];

    #[test]
    fn weights_and_points_are_one_to_one() {
        let basis = Basis::of(COVARIANCE.to_vec(), &[1.0; 3]);
        let weights = [0.3, -2.0, 5.0];
        let back = basis.weights(&basis.point(&weights));
        assert!(back.iter().zip(&weights).all(|(a, b)| (a - b).abs() < 1e-9), "{back:?}");
    }

    #[test]
    fn a_step_in_any_direction_tells_places_apart_as_much_as_in_another() {
        let basis = Basis::of(COVARIANCE.to_vec(), &[1.0; 3]);
        for direction in [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.6, -0.8, 0.0]] {
            let w = basis.weights(&direction);
            let cost = |i: usize| (0..3).map(|j| w[i] * COVARIANCE[3 * i + j] * w[j]).sum::<f64>();
            let variance: f64 = (0..3).map(cost).sum();
            assert!((0.95..=1.0).contains(&variance), "{direction:?}: {variance}");
        }
    }

    #[test]
    fn a_feature_that_decides_nothing_is_not_tried_in_leaps() {
        let basis = Basis::of(vec![1.0, 0.0, 0.0, 0.0], &[1.0, 1.0]);
        let weights = basis.weights(&[0.0, 1.0]);
        assert!(weights[1].is_finite() && weights[1] <= 1e3 + 1e-6, "{weights:?}");
    }
}
