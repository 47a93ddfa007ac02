//! The smallest number of GPUs for any card: the linear bound, its integer
//! part as a start, and a complete search for the rest.

use std::collections::HashSet;

use crate::states::set::Bits;
use crate::states::space::{Space, State};

use super::linear::{Cover, cover, to_f64};

/// The largest numbers of each demand that a card holds at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Configurations(Vec<Vec<u32>>);

impl Configurations {
    /// Of the only card of `space`.
    pub(super) fn of(space: &Space) -> Self {
        let card = &space.cards()[0];
        let mut all: HashSet<Vec<u32>> = HashSet::new();
        for index in 0..space.states() {
            let state = State(u32::try_from(index).unwrap_or(u32::MAX));
            let maximal = (0..card.devices.len()).all(|device| space.put(state, device).is_none());
            if maximal {
                // A device that serves several demands stands for any one of them.
                let mut partial = vec![vec![0; space.demands()]];
                for device in Bits(space.devices(state)) {
                    let serves = card.devices[device].serves;
                    let with = |counts: &Vec<u32>| {
                        let counts = counts.clone();
                        Bits(serves).map(move |demand| {
                            let mut counts = counts.clone();
                            counts[demand] += 1;
                            counts
                        })
                    };
                    let mut next: Vec<Vec<u32>> = partial.iter().flat_map(with).collect();
                    next.sort_unstable();
                    next.dedup();
                    if !next.is_empty() {
                        partial = next;
                    }
                }
                all.extend(partial);
            }
        }
        let mut all: Vec<Vec<u32>> = all.into_iter().collect();
        all.sort_unstable();
        let below = |a: &[u32], b: &[u32]| a != b && a.iter().zip(b).all(|(a, b)| a <= b);
        let best = all.iter().filter(|counts| !all.iter().any(|other| below(counts, other)));
        Self(best.cloned().collect())
    }

    pub(super) fn min_gpus(&self, counts: &[u64]) -> Option<u64> {
        if counts.iter().all(|&count| count == 0) {
            return Some(0);
        }
        let servable = |demand: usize| self.0.iter().any(|configuration| configuration[demand] > 0);
        if (0..counts.len()).any(|demand| counts[demand] > 0 && !servable(demand)) {
            return None;
        }
        let bound = cover(&self.0, counts)?;
        let worth: f64 = counts.iter().zip(&bound.price).map(|(&count, price)| to_f64(count) * price).sum();
        let least = whole((worth - 1e-6).ceil());
        // One GPU for each job is enough.
        (least..=counts.iter().sum())
            .find(|&gpus| self.fit_around(counts, gpus, &bound) || self.fit_all(counts, gpus, &bound))
    }

    /// Whether `gpus` are enough if the integer part of the bound's solution is kept.
    fn fit_around(&self, counts: &[u64], gpus: u64, bound: &Cover) -> bool {
        let mut rest = counts.to_vec();
        let mut left = gpus;
        for (configuration, &times) in self.0.iter().zip(&bound.times) {
            let times = whole((times + 1e-6).floor()).min(left);
            left -= times;
            for (count, &each) in rest.iter_mut().zip(configuration) {
                *count = count.saturating_sub(times * u64::from(each));
            }
        }
        self.fit_all(&rest, left, bound)
    }

    fn fit_all(&self, counts: &[u64], gpus: u64, bound: &Cover) -> bool {
        let mut failed = HashSet::new();
        self.search(counts, gpus, &bound.price, &mut failed)
    }

    fn search(
        &self,
        counts: &[u64],
        gpus: u64,
        price: &[f64],
        failed: &mut HashSet<(u64, Vec<u64>)>,
    ) -> bool {
        let worth: f64 = counts.iter().zip(price).map(|(&count, price)| to_f64(count) * price).sum();
        let dearest = (0..counts.len())
            .filter(|&demand| counts[demand] > 0)
            .max_by(|&a, &b| price[a].total_cmp(&price[b]));
        let Some(dearest) = dearest else { return true };
        if gpus == 0 || worth > to_f64(gpus) + 1e-6 || failed.contains(&(gpus, counts.to_vec())) {
            return false;
        }
        // Some GPU holds one of the dearest demand: each configuration that it could be in.
        let mut tried: Vec<(f64, Vec<u64>)> = self
            .0
            .iter()
            .filter(|configuration| configuration[dearest] > 0)
            .map(|configuration| {
                let rest =
                    counts.iter().zip(configuration).map(|(&n, &each)| n.saturating_sub(u64::from(each)));
                let rest: Vec<u64> = rest.collect();
                (rest.iter().zip(price).map(|(&count, price)| to_f64(count) * price).sum(), rest)
            })
            .collect();
        tried.sort_by(|a, b| a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1)));
        tried.dedup();
        let found = tried.into_iter().any(|(_, rest)| self.search(&rest, gpus - 1, price, failed));
        if !found {
            failed.insert((gpus, counts.to_vec()));
        }
        found
    }
}

/// Bounded by the number of jobs.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value.max(0.0) as u64
}
