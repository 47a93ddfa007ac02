//! What a tenant is charged for a device: the share of the GPU that it denies
//! to others. The counters are known by name here, and only here.

use crate::model::{UNITS_PER_GPU, Units};

const COMPUTE_SLICES: &str = "compute-slices";
const MEMORY_SLICE_PREFIX: &str = "memory-slice-";

/// One counter of a GPU, and what a device takes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter<'a> {
    /// Its name in the counter set (`compute-slices`, `memory-slice-3`, ...).
    pub name: &'a str,
    /// What the GPU has of it.
    pub capacity: u64,
    /// What the device takes of it.
    pub consumes: u64,
}

/// Units of a device: its share of the compute slices or of the memory slices
/// of its GPU, whichever is larger, rounded up. A device of a GPU that has
/// neither counter, or that takes nothing of them, is charged as a whole GPU.
pub fn charge<'a>(counters: impl IntoIterator<Item = Counter<'a>>) -> Units {
    let mut compute = (0_u64, 0_u64);
    let mut memory = (0_u64, 0_u64);
    for counter in counters {
        let kind = if counter.name == COMPUTE_SLICES {
            &mut compute
        } else if counter.name.starts_with(MEMORY_SLICE_PREFIX) {
            &mut memory
        } else {
            continue;
        };
        kind.0 = kind.0.saturating_add(counter.consumes.min(counter.capacity));
        kind.1 = kind.1.saturating_add(counter.capacity);
    }
    match share(compute).max(share(memory)) {
        0 => UNITS_PER_GPU,
        units => units,
    }
}

fn share((taken, all): (u64, u64)) -> Units {
    if all == 0 {
        return 0;
    }
    let units = (u128::from(taken) * u128::from(UNITS_PER_GPU)).div_ceil(u128::from(all));
    u64::try_from(units).unwrap_or(UNITS_PER_GPU)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn charged(compute: u64, memory: std::ops::Range<u64>, slices: (u64, u64)) -> Units {
        let names: Vec<String> = (0..slices.1).map(|i| format!("memory-slice-{i}")).collect();
        let of_memory = names.iter().zip(0..).map(|(name, i)| Counter {
            name,
            capacity: 1,
            consumes: u64::from(memory.contains(&i)),
        });
        let of_compute = Counter { name: "compute-slices", capacity: slices.0, consumes: compute };
        let other = Counter { name: "copy-engines", capacity: 8, consumes: 8 };
        charge(of_memory.chain([of_compute, other]))
    }

    #[test]
    fn a_device_is_charged_its_dominant_share() {
        let h100 = (7, 8);
        assert_eq!(charged(1, 3..4, h100), 8, "1g.10gb");
        assert_eq!(charged(1, 6..8, h100), 14, "1g.20gb");
        assert_eq!(charged(2, 2..4, h100), 16, "2g.20gb");
        assert_eq!(charged(3, 4..8, h100), 28, "3g.40gb");
        assert_eq!(charged(4, 0..4, h100), 32, "4g.40gb");
        assert_eq!(charged(7, 0..8, h100), 56, "7g.80gb");
        assert_eq!(charged(1, 0..1, (4, 4)), 14, "1g.6gb of an A30");
    }

    #[test]
    fn shares_are_rounded_up() {
        assert_eq!(charged(1, 0..1, (6, 6)), 10);
    }

    #[test]
    fn without_slices_it_is_a_whole_gpu() {
        assert_eq!(charge([Counter { name: "memory", capacity: 100, consumes: 10 }]), 56);
        assert_eq!(charge([]), 56);
        assert_eq!(charged(0, 0..0, (7, 8)), 56);
    }
}
