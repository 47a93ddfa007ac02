//! GPUs as their published counters, written down anew from NVIDIA's tables of
//! placements. Nothing of how the planner looks at them.

use vingt_core::model::{Device, Gpu};

const GIB: u64 = 1 << 30;

/// A sort of GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Card {
    /// One device that takes everything.
    Whole,
    /// An A30: four slices.
    A30,
    /// An H100 of which only some profiles are published.
    Some,
    /// An H100 with all of its partitions.
    H100,
    /// An H100 that may still be whole or cut.
    Either,
}

/// The sorts with the words that stand for them in a scenario.
pub const CARDS: [(Card, &str); 5] = [
    (Card::Whole, "whole"),
    (Card::A30, "a30"),
    (Card::Some, "some"),
    (Card::H100, "h100"),
    (Card::Either, "either"),
];

/// Profile, compute slices, memory slices, GiB for each memory slice, media engines, where it may begin.
type Profile = (&'static str, u64, u64, u64, u64, &'static [u64]);

const H100: [Profile; 7] = [
    ("1g.10gb", 1, 1, 10, 0, &[0, 1, 2, 3, 4, 5, 6]),
    ("1g.10gb+me", 1, 1, 10, 1, &[0, 1, 2, 3, 4, 5, 6]),
    ("1g.20gb", 1, 2, 10, 0, &[0, 2, 4, 6]),
    ("2g.20gb", 2, 2, 10, 0, &[0, 2, 4]),
    ("3g.40gb", 3, 4, 10, 0, &[0, 4]),
    ("4g.40gb", 4, 4, 10, 0, &[0]),
    ("7g.80gb", 7, 8, 10, 1, &[0]),
];

const A30: [Profile; 4] = [
    ("1g.6gb", 1, 1, 6, 0, &[0, 1, 2, 3]),
    ("1g.6gb+me", 1, 1, 6, 1, &[0, 1, 2, 3]),
    ("2g.12gb", 2, 2, 6, 0, &[0, 2]),
    ("4g.24gb", 4, 4, 6, 1, &[0]),
];

const SOME: [usize; 4] = [0, 3, 4, 5];

impl Card {
    /// Such a GPU, free.
    pub fn gpu(self) -> Gpu {
        match self {
            Self::A30 => cut(&A30, 4, 4),
            Self::H100 => cut(&H100, 7, 8),
            Self::Some => cut(&SOME.map(|at| H100[at]), 7, 8),
            Self::Whole => {
                let gpu = cut(&[], 7, 8);
                Gpu { devices: vec![everything(&gpu)].into(), ..gpu }
            }
            Self::Either => {
                let mut gpu = cut(&H100, 7, 8);
                let everything = everything(&gpu);
                gpu.devices.push(everything);
                gpu
            }
        }
    }
}

/// Counters: compute slices, MiB of memory, media engines, and each memory slice.
fn cut(profiles: &[Profile], compute: u64, slices: u64) -> Gpu {
    let per_slice = if slices == 4 { 6 } else { 10 };
    let capacity: Vec<u64> =
        [compute, slices * per_slice * 1024, 1].into_iter().chain((0..slices).map(|_| 1)).collect();
    let mut devices = Vec::new();
    for (kind, takes, size, gib, media, starts) in profiles {
        for start in *starts {
            let slice = |at: u64| u64::from(at >= *start && at < start + size);
            // The driver gives a partition somewhat less memory than its slices have.
            let consumes = [*takes, size * gib * 1000, *media].into_iter().chain((0..slices).map(slice));
            devices.push(Device {
                name: format!("{kind}-{start}"),
                kind: (*kind).into(),
                consumes: consumes.collect(),
                units: (56 * takes).div_ceil(compute).max((56 * size).div_ceil(slices)),
                memory_bytes: size * gib * GIB,
                tainted: false,
            });
        }
    }
    Gpu { used: vec![0; capacity.len()], capacity, devices: devices.into(), ..Gpu::default() }
}

fn everything(gpu: &Gpu) -> Device {
    Device {
        name: "whole".into(),
        kind: "gpu".into(),
        consumes: gpu.capacity.clone(),
        units: 56,
        memory_bytes: 80 * GIB,
        tainted: false,
    }
}
