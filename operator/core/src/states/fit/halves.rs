//! The closed form for cards like an H100: seven compute and eight memory
//! slices, where a GPU without a whole-GPU job is a left half (slices 0-3) and
//! a right half (4-6, with 7 as a spare) that do not influence one another.

use crate::states::set::Bits;
use crate::states::space::{Space, State};

/// Which demand is which of the six sorts of partitions of the closed form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Halves {
    sort: Vec<usize>,
}

const ONE: usize = 0;
const ONE_DOUBLE: usize = 1;
const TWO: usize = 2;
const THREE: usize = 3;
const FOUR: usize = 4;
const WHOLE: usize = 5;

/// The slices of each placement of each sort.
const WINDOWS: [&[u64]; 6] = [
    &[0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40],
    &[0x03, 0x0c, 0x30, 0xc0],
    &[0x03, 0x0c, 0x30],
    &[0x0f, 0xf0],
    &[0x0f],
    &[0xff],
];

impl Halves {
    /// The closed form for the only card of `space`, if its devices exclude one another exactly as those windows
    /// do: whatever the names and the counters are.
    pub(super) fn recognise(space: &Space) -> Option<Self> {
        let card = &space.cards()[0];
        if card.devices.iter().any(|device| device.serves.count_ones() != 1) {
            return None;
        }
        let of_demand = |demand: usize| {
            let mut devices: Vec<usize> = (0..card.devices.len())
                .filter(|&device| card.devices[device].serves == 1 << demand)
                .collect();
            devices.sort_by_key(|&device| card.slices_of(device));
            devices
        };
        let devices: Vec<Vec<usize>> = (0..space.demands()).map(of_demand).collect();
        // A sort is told by its number of placements, except for the two that have one.
        let whole = |devices: &[usize]| {
            let alone = space.put(space.empty(0), devices[0]);
            alone.is_some_and(|state| (0..card.devices.len()).all(|other| space.put(state, other).is_none()))
        };
        let sort_of = |devices: &Vec<usize>| match devices.len() {
            7 => Some(ONE),
            4 => Some(ONE_DOUBLE),
            3 => Some(TWO),
            2 => Some(THREE),
            1 if whole(devices) => Some(WHOLE),
            1 => Some(FOUR),
            _ => None,
        };
        let sort: Vec<usize> = devices.iter().map(sort_of).collect::<Option<_>>()?;
        let mut window = vec![0; card.devices.len()];
        for (devices, &sort) in devices.iter().zip(&sort) {
            for (&device, &slices) in devices.iter().zip(WINDOWS[sort]) {
                window[device] = slices;
            }
        }
        let agrees = |index: usize| {
            let state = State(u32::try_from(index).unwrap_or(u32::MAX));
            let used = Bits(space.devices(state)).fold(0, |used, device| used | window[device]);
            (0..window.len())
                .filter(|&device| space.devices(state) >> device & 1 == 0)
                .all(|device| space.put(state, device).is_some() == (used & window[device] == 0))
        };
        (0..space.states()).all(agrees).then_some(Self { sort })
    }

    fn sorted(&self, counts: &[u64]) -> [u64; 6] {
        let mut sorted = [0; 6];
        for (&sort, &count) in self.sort.iter().zip(counts) {
            sorted[sort] += count;
        }
        sorted
    }

    pub(super) fn fits(&self, counts: &[u64], gpus: u64) -> bool {
        fits(&self.sorted(counts), gpus)
    }

    pub(super) fn min_gpus(&self, counts: &[u64]) -> u64 {
        let counts = self.sorted(counts);
        // One GPU for each job is enough, and more GPUs never hurt.
        let (mut low, mut high) = (0, counts.iter().sum());
        while low < high {
            let middle = low + (high - low) / 2;
            if fits(&counts, middle) {
                high = middle;
            } else {
                low = middle + 1;
            }
        }
        low
    }
}

/// Large jobs first, each into the half that is worth least to the others: a 3g into a right half, a double 1g
/// into the last pair of a right half, where a 2g cannot go.
fn fits(counts: &[u64; 6], gpus: u64) -> bool {
    let Some(halves) = gpus.checked_sub(counts[WHOLE]) else { return false };
    let three_right = counts[THREE].min(halves);
    let Some(left) = halves.checked_sub(counts[FOUR] + counts[THREE] - three_right) else { return false };
    let right = halves - three_right;
    // Pairs of slices that hold two 1g, and last pairs of right halves that hold one.
    let (full, weak) = (2 * left + right, right);
    let Some(full) = full.checked_sub(counts[TWO]) else { return false };
    let double_weak = counts[ONE_DOUBLE].min(weak);
    let Some(full) = full.checked_sub(counts[ONE_DOUBLE] - double_weak) else { return false };
    counts[ONE] <= weak - double_weak + 2 * full
}
