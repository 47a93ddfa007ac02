//! From what NVML shows to what is published: devices, counters, and what is
//! withheld and why. Pure; nothing is read or written here.
//!
//! Published is only what vingt may hand out: no space of partitions that
//! others made, no GPU that others use or whose MIG mode waits for a reset.

mod counters;
#[cfg(test)]
pub(crate) mod fixtures;
mod slices;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::resource::v1::{
    Counter, CounterSet, Device, DeviceCapacity, DeviceCounterConsumption, DeviceTaint,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use vingt_crds::names;

use crate::nvml::{Gpu, Instance, Inventory, MigMode, Placement, Profile};
use crate::target::{self, Target};
use counters::Amounts;

pub use slices::slices;

/// What a node publishes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pool {
    /// One counter set per GPU.
    pub counter_sets: Vec<CounterSet>,
    /// The devices of each GPU, by its minor number; sorted by name.
    pub devices: BTreeMap<u32, Vec<Device>>,
    /// What is not published, and why.
    pub withheld: Vec<Withheld>,
    /// Partitions that others made.
    pub foreign_partitions: usize,
}

/// A GPU, or a part of one, that is not published.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Withheld {
    /// What, in words: `gpu-3`.
    pub what: String,
    /// A stable word for metrics: `in-use`, `mode-pending`, `foreign-partition`, `unreadable`.
    pub reason: &'static str,
    /// Why, in words.
    pub why: String,
}

/// Makes the pool of a node. `ours` are the targets that the journal knows.
pub fn pool(inventory: &Inventory, ours: &BTreeSet<Target>, allow_mig_mode_switch: bool) -> Pool {
    let mut pool = Pool::default();
    for gpu in &inventory.gpus {
        add_gpu(&mut pool, gpu, ours, allow_mig_mode_switch);
    }
    for unreadable in &inventory.unreadable {
        pool.withheld.push(Withheld {
            what: format!("GPU at index {}", unreadable.index),
            reason: "unreadable",
            why: unreadable.why.clone(),
        });
    }
    pool
}

/// Whether this instance is one that the journal knows.
pub(crate) fn is_ours(gpu: &Gpu, instance: &Instance, ours: &BTreeSet<Target>) -> bool {
    ours.iter().any(|target| {
        matches!(target, Target::Partition { gpu: uuid, profile_id, placement, .. }
            if *uuid == gpu.uuid && *profile_id == instance.profile_id && *placement == instance.placement)
    })
}

fn add_gpu(pool: &mut Pool, gpu: &Gpu, ours: &BTreeSet<Target>, switch: bool) {
    let foreign: Vec<&Instance> =
        gpu.instances.iter().filter(|instance| !is_ours(gpu, instance, ours)).collect();
    pool.foreign_partitions += foreign.len();
    let name = target::gpu_name(gpu.minor);
    let mut withhold = |reason, why| pool.withheld.push(Withheld { what: name.clone(), reason, why });

    if gpu.mig == MigMode::Pending {
        return withhold("mode-pending", "a change of its MIG mode waits for a reset of the GPU".to_owned());
    }
    let ours_whole =
        ours.iter().any(|target| matches!(target, Target::Gpu { gpu: uuid, .. } if *uuid == gpu.uuid));
    if gpu.mig != MigMode::Enabled && gpu.processes > 0 && !ours_whole {
        let why = format!(
            "{} processes use it that vingt did not place; it is published when they end",
            gpu.processes
        );
        return withhold("in-use", why);
    }
    if let Some(first) = foreign.first() {
        let Placement { start, size } = first.placement;
        let why = format!(
            "{} partitions on it were not made by vingt (the first at memory slice {start}, {size} long); \
             their space is not published",
            foreign.len()
        );
        withhold("foreign-partition", why);
    }

    // On Hopper and newer an idle GPU changes its mode within a call, so both forms can be offered.
    let both = switch && gpu.switches_mig_live && !gpu.profiles.is_empty();
    let taken: Vec<Placement> = foreign.iter().map(|instance| instance.placement).collect();
    let total = counters::of_gpu(gpu);
    let left = remaining(&total, gpu, &foreign);

    let mut devices = Vec::new();
    if gpu.mig == MigMode::Enabled || both {
        for profile in &gpu.profiles {
            for at in &profile.placements {
                let mut consumes = counters::of_profile(profile);
                consumes.extend(counters::of_placement(*at));
                if !taken.iter().any(|taken| taken.overlaps(*at)) && fits(&consumes, &left) {
                    devices.push(partition(gpu, profile, *at, &consumes));
                }
            }
        }
    }
    if (gpu.mig != MigMode::Enabled || both) && foreign.is_empty() {
        devices.push(whole(gpu, &total));
    }
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    if devices.is_empty() {
        return;
    }
    pool.counter_sets.push(CounterSet { name: target::gpu_name(gpu.minor), counters: quantities(&left) });
    pool.devices.insert(gpu.minor, devices);
}

/// What foreign partitions leave of a GPU.
///
/// Compute and memory slices stay whole, being what the share of a GPU is reckoned from: a partition
/// costs the same whoever is beside it. They cannot be overdrawn, for nothing is published on the
/// memory slices of others, and the placements that are left need no more compute than is left.
fn remaining(total: &Amounts, gpu: &Gpu, foreign: &[&Instance]) -> Amounts {
    let mut left = total.clone();
    for instance in foreign {
        let mut taken = gpu.profile(instance.profile_id).map(counters::of_profile).unwrap_or_default();
        taken.remove(names::device::COMPUTE_SLICES);
        for (name, amount) in taken {
            if let Some(left) = left.get_mut(&name) {
                *left = left.saturating_sub(amount);
            }
        }
    }
    left
}

fn fits(consumes: &Amounts, left: &Amounts) -> bool {
    consumes.iter().all(|(name, amount)| left.get(name).is_some_and(|left| amount <= left))
}

fn partition(gpu: &Gpu, profile: &Profile, at: Placement, consumes: &Amounts) -> Device {
    let mut attributes = slices::common_attributes(gpu);
    attributes.extend([
        slices::string(names::device::TYPE, "mig"),
        slices::string(names::device::PARENT_UUID, &gpu.uuid),
        slices::string(names::device::PROFILE, &profile.name),
        slices::int(names::device::PLACEMENT_START, at.start),
        slices::int(names::device::PLACEMENT_SIZE, at.size),
    ]);
    device(target::partition_name(gpu.minor, profile, at), gpu, attributes, capacity(consumes), consumes)
}

fn whole(gpu: &Gpu, total: &Amounts) -> Device {
    let mut attributes = slices::common_attributes(gpu);
    attributes
        .extend([slices::string(names::device::TYPE, "gpu"), slices::string(names::device::UUID, &gpu.uuid)]);
    let mut own = total.clone();
    own.insert(names::device::MEMORY.to_owned(), gpu.memory_mib << 20);
    device(target::gpu_name(gpu.minor), gpu, attributes, capacity(&own), total)
}

fn device(
    name: String,
    gpu: &Gpu,
    attributes: slices::Attributes,
    capacity: BTreeMap<String, DeviceCapacity>,
    consumes: &Amounts,
) -> Device {
    Device {
        name,
        attributes: Some(attributes),
        capacity: Some(capacity),
        consumes_counters: Some(vec![DeviceCounterConsumption {
            counter_set: target::gpu_name(gpu.minor),
            counters: quantities(consumes),
            ..Default::default()
        }]),
        taints: Some(vec![DeviceTaint {
            key: names::FENCE_TAINT.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Default::default()
        }]),
        ..Default::default()
    }
}

fn capacity(amounts: &Amounts) -> BTreeMap<String, DeviceCapacity> {
    let named =
        counters::RESOURCES.iter().filter_map(|(counter, capacity)| Some((capacity, amounts.get(*counter)?)));
    named
        .map(|(name, amount)| {
            let value = quantity(name, *amount);
            ((*name).to_owned(), DeviceCapacity { value, ..Default::default() })
        })
        .collect()
}

fn quantities(amounts: &Amounts) -> BTreeMap<String, Counter> {
    amounts.iter().map(|(name, amount)| (name.clone(), Counter { value: quantity(name, *amount) })).collect()
}

/// As the API server would write it, so that what is read back compares equal.
fn quantity(name: &str, amount: u64) -> Quantity {
    let (base, suffixes) = if name == names::device::MEMORY {
        (1024, ["", "Ki", "Mi", "Gi", "Ti"])
    } else {
        (1000, ["", "k", "M", "G", "T"])
    };
    let (mut amount, mut suffix) = (amount, 0);
    while amount > 0 && amount.is_multiple_of(base) && suffix + 1 < suffixes.len() {
        amount /= base;
        suffix += 1;
    }
    Quantity(format!("{amount}{}", suffixes[suffix]))
}
