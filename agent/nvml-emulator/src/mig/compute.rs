//! Compute instances: how a GPU instance is cut further, and what the resulting MIG device is called.

use crate::cards::{Card, Profile};
use crate::code::Code;
use crate::state::{ComputeInstance, GpuInstance, State};
use crate::uuid;

/// The profile that a 1g with double memory offers for all of itself (`NVML_COMPUTE_INSTANCE_PROFILE_1_SLICE_REV1`).
const ONE_SLICE_REV1: u32 = 7;

/// A way to cut a GPU instance of a certain profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ComputeProfile {
    /// Profile id; here it is also the `NVML_COMPUTE_INSTANCE_PROFILE_*` number.
    pub id: u32,
    /// Compute slices.
    pub slices: u32,
    pub multiprocessors: u32,
    /// Without "MIG ": `1c.3g.40gb`, or the GPU instance's own name when it takes all of it.
    pub name: String,
    /// First compute slices at which one may start.
    pub starts: Vec<u32>,
}

/// The compute profiles of a GPU instance profile.
pub(crate) fn profiles(card: &Card, of: &Profile) -> Vec<ComputeProfile> {
    let one_slice = card.profiles.iter().map(|profile| profile.multiprocessors).min().unwrap_or(0);
    let cut = |id: u32, slices: u32, starts: &[u32]| {
        let whole = id == of.full_compute_id;
        ComputeProfile {
            id,
            slices,
            multiprocessors: if whole { of.multiprocessors } else { one_slice * slices },
            name: if whole { of.name.clone() } else { format!("{slices}c.{}", of.name) },
            starts: starts.to_vec(),
        }
    };
    let mut profiles = match of.compute_slices {
        1 => vec![cut(0, 1, &[0])],
        2 => vec![cut(0, 1, &[0, 1]), cut(1, 2, &[0])],
        3 => vec![cut(0, 1, &[0, 1, 2]), cut(1, 2, &[0]), cut(2, 3, &[0])],
        4 => vec![cut(0, 1, &[0, 1, 2, 3]), cut(1, 2, &[0, 2]), cut(3, 4, &[0])],
        7 => vec![
            cut(0, 1, &[0, 1, 2, 3, 4, 5, 6]),
            cut(1, 2, &[0, 2, 4]),
            cut(2, 3, &[0, 4]),
            cut(3, 4, &[0]),
            cut(4, 7, &[0]),
        ],
        _ => Vec::new(),
    };
    if of.full_compute_id == ONE_SLICE_REV1 {
        profiles.push(cut(ONE_SLICE_REV1, 1, &[0]));
    }
    profiles
}

/// The compute profile `id` of a GPU instance.
pub(crate) fn profile(card: &'static Card, instance: &GpuInstance, id: u32) -> Result<ComputeProfile, Code> {
    let of = instance.profile(card)?;
    profiles(card, of).into_iter().find(|profile| profile.id == id).ok_or(Code::NotSupported)
}

/// The starts at which a compute instance of the profile could be created now, lowest first.
pub(crate) fn free_starts(
    card: &'static Card,
    instance: &GpuInstance,
    profile: &ComputeProfile,
) -> Result<Vec<u32>, Code> {
    let mut taken = 0_u32;
    for compute in &instance.compute {
        taken |= slices(self::profile(card, instance, compute.profile_id)?.slices, compute.start);
    }
    let free = |start: &u32| taken & slices(profile.slices, *start) == 0;
    Ok(profile.starts.iter().copied().filter(free).collect())
}

/// Creates a compute instance, at `start` or the lowest free one, and returns its serial.
pub(crate) fn create(
    state: &mut State,
    minor: u32,
    gpu_instance: u32,
    profile_id: u32,
    start: Option<u32>,
) -> Result<u32, Code> {
    let serial = state.take_serial();
    let gpu = state.gpu_mut(minor)?;
    let card = gpu.card()?;
    let of = gpu.uuid.clone();
    let instance = gpu
        .instances
        .iter_mut()
        .find(|instance| instance.serial == gpu_instance)
        .ok_or(Code::InvalidArgument)?;
    let profile = profile(card, instance, profile_id)?;
    if start.is_some_and(|start| !profile.starts.contains(&start)) {
        return Err(Code::InvalidArgument);
    }
    let free = free_starts(card, instance, &profile)?;
    let start = match start {
        Some(start) if free.contains(&start) => start,
        Some(_) => return Err(Code::InsufficientResources),
        None => *free.first().ok_or(Code::InsufficientResources)?,
    };
    instance.compute.push(ComputeInstance {
        id: lowest_free(instance.compute.iter().map(|compute| compute.id)),
        serial,
        profile_id,
        start,
        uuid: format!("MIG-{}", uuid::derive(&of, &format!("instance {} at {start}", instance.id))),
    });
    instance.compute.sort_by_key(|compute| compute.id);
    Ok(serial)
}

/// Destroys the compute instance of this serial.
pub(crate) fn destroy(state: &mut State, minor: u32, serial: u32) -> Result<(), Code> {
    let gpu = state.gpu_mut(minor)?;
    let (instance, compute) =
        gpu.mig_devices().find(|(_, compute)| compute.serial == serial).ok_or(Code::InvalidArgument)?;
    let ids = (instance.id, compute.id);
    if gpu.processes.iter().any(|process| process.instance == Some(ids)) {
        return Err(Code::InUse);
    }
    for instance in &mut gpu.instances {
        instance.compute.retain(|compute| compute.serial != serial);
    }
    Ok(())
}

fn slices(size: u32, start: u32) -> u32 {
    ((1 << size) - 1) << start
}

/// The lowest number that is not taken.
fn lowest_free(taken: impl Iterator<Item = u32>) -> u32 {
    let mut taken: Vec<u32> = taken.collect();
    taken.sort_unstable();
    taken.into_iter().fold(0, |free, id| if id == free { free + 1 } else { free })
}
