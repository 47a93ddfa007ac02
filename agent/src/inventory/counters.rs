//! How much of each resource a GPU has to give, so that every set of
//! partitions that the hardware can hold also fits the published counters.

use std::collections::BTreeMap;

use vingt_crds::names::device as names;

use crate::nvml::{Gpu, Placement, Profile};

/// Amounts by counter name; memory in bytes.
pub(super) type Amounts = BTreeMap<String, u64>;

const MIB: u64 = 1 << 20;

/// The counters other than memory slices, as counter and as capacity: a counter's name is a DNS
/// label, a capacity's a C identifier.
pub(super) const RESOURCES: [(&str, &str); 8] = [
    (names::MEMORY, names::MEMORY),
    (names::COMPUTE_SLICES, "computeSlices"),
    ("multiprocessors", "multiprocessors"),
    ("copy-engines", "copyEngines"),
    ("decoders", "decoders"),
    ("encoders", "encoders"),
    ("jpeg-engines", "jpegEngines"),
    ("ofa-engines", "ofaEngines"),
];

/// Amounts in the order of [`RESOURCES`].
type Row = [u64; RESOURCES.len()];

fn row(profile: &Profile) -> Row {
    [
        profile.memory_mib * MIB,
        profile.compute_slices.into(),
        profile.multiprocessors.into(),
        profile.copy_engines.into(),
        profile.decoders.into(),
        profile.encoders.into(),
        profile.jpeg_engines.into(),
        profile.ofa_engines.into(),
    ]
}

fn named(row: Row) -> Amounts {
    RESOURCES.iter().zip(row).map(|((counter, _), amount)| ((*counter).to_owned(), amount)).collect()
}

/// What a partition of this profile takes, its memory slices excepted.
pub(super) fn of_profile(profile: &Profile) -> Amounts {
    named(row(profile))
}

/// The memory slices of a placement, one counter each.
pub(super) fn of_placement(placement: Placement) -> Amounts {
    (placement.start..placement.start + placement.size)
        .map(|slice| (format!("{}{slice}", names::MEMORY_SLICE_PREFIX), 1))
        .collect()
}

/// All that a GPU has.
///
/// Engines and memory: the most that one profile has, or that a set of partitions placed side by
/// side adds up to, whichever is more (where the profiles round their memory up, the sum is).
pub(super) fn of_gpu(gpu: &Gpu) -> Amounts {
    if gpu.profiles.is_empty() {
        // No geometry: one indivisible piece.
        return [
            (names::MEMORY.to_owned(), gpu.memory_mib * MIB),
            (names::COMPUTE_SLICES.to_owned(), 1),
            (format!("{}0", names::MEMORY_SLICE_PREFIX), 1),
        ]
        .into();
    }
    let compute = gpu.profiles.iter().map(|profile| profile.compute_slices).max().unwrap_or(1);
    let rows: Vec<(&Profile, Row)> = gpu.profiles.iter().map(|profile| (profile, row(profile))).collect();
    let mut most = Row::default();
    for (_, row) in &rows {
        raise(&mut most, row);
    }
    fill(&rows, 0, compute, &mut vec![0; rows.len()], Row::default(), &mut most);
    let mut amounts = named(most);
    amounts.insert(names::COMPUTE_SLICES.to_owned(), compute.into());
    amounts.extend(of_placement(Placement { start: 0, size: memory_slices(gpu) }));
    amounts
}

/// Memory slices of the GPU.
fn memory_slices(gpu: &Gpu) -> u32 {
    let placements = gpu.profiles.iter().flat_map(|profile| &profile.placements);
    placements.map(|placement| placement.start + placement.size).max().unwrap_or(1)
}

fn raise(most: &mut Row, row: &Row) {
    for (most, amount) in most.iter_mut().zip(row) {
        *most = (*most).max(*amount);
    }
}

/// Raises `most` to what the sets of partitions from memory slice `from` on add up to, when
/// `sum` is taken already.
fn fill(rows: &[(&Profile, Row)], from: u32, compute: u32, counted: &mut [u32], sum: Row, most: &mut Row) {
    raise(most, &sum);
    for (index, (profile, row)) in rows.iter().enumerate() {
        if counted[index] >= profile.max_instances || profile.compute_slices > compute {
            continue;
        }
        counted[index] += 1;
        let mut with = sum;
        for (sum, amount) in with.iter_mut().zip(row) {
            *sum += amount;
        }
        for placement in profile.placements.iter().filter(|placement| placement.start >= from) {
            let next = placement.start + placement.size;
            fill(rows, next, compute - profile.compute_slices, counted, with, most);
        }
        counted[index] -= 1;
    }
}
