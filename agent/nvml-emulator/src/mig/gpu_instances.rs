//! GPU instances: where they fit, what they are called, creating and destroying them.

use crate::cards::{Card, Profile};
use crate::code::Code;
use crate::state::{Gpu, GpuInstance, State};

/// The starts at which an instance of the profile could be created now, lowest first.
pub(crate) fn free_starts(gpu: &Gpu, card: &Card, profile: &Profile) -> Vec<u32> {
    let living = gpu.instances.iter().filter(|instance| instance.profile_id == profile.id).count();
    if living >= profile.max_instances as usize {
        return Vec::new();
    }
    let taken = taken_slices(gpu, card);
    let free = |start: &u32| (*start..*start + profile.memory_slices).all(|slice| taken & (1 << slice) == 0);
    profile.starts.iter().copied().filter(free).collect()
}

/// How many more instances of the profile could be created now.
pub(crate) fn remaining(gpu: &Gpu, card: &Card, profile: &Profile) -> u32 {
    // Starts lie on a grid of the profile's size, so that free ones never exclude each other.
    let living = gpu.instances.iter().filter(|instance| instance.profile_id == profile.id).count();
    let free = free_starts(gpu, card, profile).len();
    let left = (profile.max_instances as usize).saturating_sub(living).min(free);
    u32::try_from(left).unwrap_or(u32::MAX)
}

/// Creates an instance, at `start` or where it leaves the most room, and returns its serial.
pub(crate) fn create(
    state: &mut State,
    minor: u32,
    profile_id: u32,
    start: Option<u32>,
) -> Result<u32, Code> {
    let serial = state.take_serial();
    let gpu = state.gpu_mut(minor)?;
    if !gpu.mig {
        return Err(Code::NotSupported);
    }
    let card = gpu.card()?;
    let profile = card.profile_by_id(profile_id).ok_or(Code::NotSupported)?;
    if start.is_some_and(|start| !profile.starts.contains(&start)) {
        return Err(Code::InvalidArgument);
    }
    let free = free_starts(gpu, card, profile);
    let start = match start {
        Some(start) if free.contains(&start) => start,
        Some(_) => return Err(Code::InsufficientResources),
        // From the end, as hardware does: 1g goes to slice 6, 2g to 4, so that a 4g still fits at 0.
        None => *free.last().ok_or(Code::InsufficientResources)?,
    };
    let instance =
        GpuInstance { id: instance_id(card, profile, start), serial, profile_id, start, compute: Vec::new() };
    gpu.instances.push(instance);
    gpu.instances.sort_by_key(|instance| instance.id);
    Ok(serial)
}

/// Destroys the instance of this serial.
pub(crate) fn destroy(state: &mut State, minor: u32, serial: u32) -> Result<(), Code> {
    let gpu = state.gpu_mut(minor)?;
    let instance = gpu.instance_by_serial(serial).ok_or(Code::InvalidArgument)?;
    let id = instance.id;
    let used = gpu
        .processes
        .iter()
        .any(|process| process.instance.is_some_and(|(gpu_instance, _)| gpu_instance == id));
    if used || !instance.compute.is_empty() {
        return Err(Code::InUse);
    }
    gpu.instances.retain(|instance| instance.serial != serial);
    Ok(())
}

/// The id an instance gets. The driver numbers the possible ranges of memory as a binary tree: the whole GPU is 0,
/// its halves are 1 and 2, the quarters 3 to 6, the eighths 7 to 14. Ids are used again.
fn instance_id(card: &Card, profile: &Profile, start: u32) -> u32 {
    card.memory_slices / profile.memory_slices - 1 + start / profile.memory_slices
}

fn taken_slices(gpu: &Gpu, card: &Card) -> u32 {
    let slices_of = |instance: &GpuInstance| {
        let size = card.profile_by_id(instance.profile_id).map_or(0, |profile| profile.memory_slices);
        ((1 << size) - 1) << instance.start
    };
    gpu.instances.iter().map(slices_of).fold(0, |taken, slices| taken | slices)
}
