//! What a class of states promises: for each demand, how many of it a GPU
//! holds now and after some time in which jobs leave and none come. These are
//! the same for all states of a class, and know nothing of any card.

use crate::states::set::Bits;
use crate::states::{Class, Demand, Space, State};

use super::Values;

/// Numbers that describe each class.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    width: usize,
    rows: Vec<f64>,
    demands: Vec<Demand>,
    stands_for: Vec<Demand>,
}

impl Features {
    /// For each horizon, in mean lives, and each demand, the expected number of jobs of the demand that a GPU
    /// holds when the horizon has passed and nothing came, and the probability that it holds one. Demands that
    /// fit equally everywhere are one. `life` is the mean life of the jobs of each demand.
    pub fn promises(space: &Space, horizons: &[f64], life: &[f64]) -> Self {
        let all = space.demands();
        let room = room(space);
        let of = |demand: usize| room.iter().skip(demand).step_by(all.max(1));
        let alike = |a: usize, b: usize| of(a).eq(of(b));
        let stands_for: Vec<Demand> = (0..all)
            .map(|demand| (0..demand).find(|&first| alike(first, demand)).unwrap_or(demand))
            .collect();
        let demands: Vec<Demand> = (0..all).filter(|&demand| stands_for[demand] == demand).collect();
        let width = 2 * demands.len() * horizons.len();
        let mut rows = vec![0.0; width * space.classes()];
        for class in space.every_class() {
            let row = &mut rows[usize::from(class.0) * width..][..width];
            for (cells, &horizon) in row.chunks_mut(2 * demands.len()).zip(horizons) {
                after(space, space.representative(class), horizon, life, &mut |state, probability| {
                    for (pair, &demand) in cells.chunks_mut(2).zip(&demands) {
                        let count = room[state.0 as usize * all + demand];
                        pair[0] += probability * f64::from(count);
                        pair[1] += probability * f64::from(u8::from(count > 0));
                    }
                });
            }
        }
        Self { width, rows, demands, stands_for }
    }

    /// Number of features: for each horizon, for each of [`Self::demands`], two.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The demands that differ.
    pub fn demands(&self) -> &[Demand] {
        &self.demands
    }

    /// The demand among those that fits where `demand` does.
    pub fn stands_for(&self, demand: Demand) -> Demand {
        self.stands_for[demand]
    }

    /// The weighted sum of the features of every class.
    pub fn values(&self, weights: &[f64]) -> Values {
        let sum = |row: &[f64]| row.iter().zip(weights).map(|(x, w)| x * w).sum();
        Values(self.rows.chunks(self.width.max(1)).map(sum).collect())
    }

    /// The standard deviation of each feature over the classes, which makes weights comparable; never 0.
    #[allow(clippy::cast_precision_loss)] // numbers of classes
    pub fn deviations(&self) -> Vec<f64> {
        let count = (self.rows.len() / self.width.max(1)).max(1) as f64;
        (0..self.width)
            .map(|column| {
                let cells = || self.rows.iter().skip(column).step_by(self.width);
                let mean = cells().sum::<f64>() / count;
                (cells().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt().max(1e-9)
            })
            .collect()
    }

    /// The features of `class`.
    pub fn of(&self, class: Class) -> &[f64] {
        &self.rows[usize::from(class.0) * self.width..][..self.width]
    }
}

/// For each state and demand how many of it a GPU holds at most in addition.
fn room(space: &Space) -> Vec<u8> {
    let demands = space.demands();
    let mut room = vec![0_u8; space.states() * demands];
    // A state comes after those that have fewer devices.
    for index in (0..space.states()).rev() {
        let state = State(u32::try_from(index).unwrap_or(u32::MAX));
        for (device, sort) in space.cards()[space.card(state)].devices.iter().enumerate() {
            let Some(next) = space.put(state, device) else { continue };
            for demand in Bits(sort.serves) {
                let with = 1 + room[next.0 as usize * demands + demand];
                let most = &mut room[index * demands + demand];
                *most = with.max(*most);
            }
        }
    }
    room
}

/// Calls `visit` with each state that a GPU in `state` may be in when `horizon` has passed and nothing came, and
/// with its probability.
fn after(space: &Space, state: State, horizon: f64, life: &[f64], visit: &mut dyn FnMut(State, f64)) {
    let card = &space.cards()[space.card(state)];
    let jobs: Vec<(usize, f64)> = Bits(space.devices(state))
        .map(|device| {
            let demand: Option<Demand> = Bits(card.devices[device].serves).next();
            let life = demand.and_then(|demand| life.get(demand)).copied().unwrap_or(1.0);
            (device, (-horizon / life).exp())
        })
        .collect();
    leave(space, state, &jobs, 1.0, visit);
}

fn leave(space: &Space, state: State, jobs: &[(usize, f64)], p: f64, visit: &mut dyn FnMut(State, f64)) {
    if p <= 0.0 {
        return;
    }
    let Some((&(device, stays), rest)) = jobs.split_first() else { return visit(state, p) };
    leave(space, state, rest, p * stays, visit);
    leave(space, space.take(state, device), rest, p * (1.0 - stays), visit);
}
