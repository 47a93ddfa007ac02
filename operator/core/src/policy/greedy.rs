//! The simple rules: the baselines of every benchmark, and the guards of what
//! is learnt. They tell apart states that behave alike, and so belong on
//! [`Space::unlumped`].

use crate::states::{Class, Demand, Space, State};

use super::{Policy, Values};

/// The lowest GPU, and there the lowest place: what kube-scheduler does with published slices.
#[derive(Clone, Copy, Debug, Default)]
pub struct FirstFit;

impl Policy for FirstFit {
    fn cost(&self, _: &Space, _: Demand, _: Class, _: Class) -> f64 {
        0.0
    }
}

/// The GPU with the fewest free slices.
#[derive(Clone, Copy, Debug, Default)]
pub struct BestFit;

impl Policy for BestFit {
    fn cost(&self, space: &Space, _: Demand, from: Class, _: Class) -> f64 {
        f64::from(space.free_slices(space.representative(from)))
    }
}

/// The GPU with the most free slices, for owners who want load, heat or failures apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spread;

impl Policy for Spread {
    fn cost(&self, space: &Space, _: Demand, from: Class, _: Class) -> f64 {
        -f64::from(space.free_slices(space.representative(from)))
    }
}

impl Values {
    /// Fragmentation gradient descent (FGD, USENIX ATC 2023) brought to partitions: what a state lacks is the
    /// free slices that a job of the mix could not use, on average over the mix.
    ///
    /// `share` is the share of each demand among arrivals.
    pub fn fragmentation(space: &Space, share: &[f64]) -> Self {
        Self::of(space, |space, state| {
            let free = free(space, state);
            let lost: f64 = share
                .iter()
                .enumerate()
                .map(|(demand, share)| {
                    let covered = windows(space, state, demand).filter(|window| window & !free == 0);
                    let covered = covered.fold(0, |all, window| all | window);
                    share * f64::from((free & !covered).count_ones())
                })
                .sum();
            -lost
        })
    }

    /// Like the minimum fragmentation increment (MFI) of papers on MIG, as far as it is described in public: the
    /// sizes of the windows that something blocks, of those demands that fit by the number of free slices.
    pub fn blocked_windows(space: &Space) -> Self {
        Self::of(space, |space, state| {
            let free = free(space, state);
            let blocked: u32 = (0..space.demands())
                .flat_map(|demand| windows(space, state, demand))
                .filter(|window| window.count_ones() <= free.count_ones())
                .filter(|window| window & !free != 0)
                .map(u64::count_ones)
                .sum();
            -f64::from(blocked)
        })
    }

    fn of(space: &Space, value: impl Fn(&Space, State) -> f64) -> Self {
        Self(space.every_class().map(|class| value(space, space.representative(class))).collect())
    }
}

fn free(space: &Space, state: State) -> u64 {
    space.cards()[space.card(state)].slices() & !space.used_slices(state)
}

/// The slices of every device of the card that would do for `demand`, whether or not it fits now.
fn windows(space: &Space, state: State, demand: Demand) -> impl Iterator<Item = u64> + '_ {
    let card = &space.cards()[space.card(state)];
    let devices = card.devices.iter().enumerate().filter(move |(_, device)| device.serves >> demand & 1 == 1);
    devices.map(|(device, _)| card.slices_of(device))
}
