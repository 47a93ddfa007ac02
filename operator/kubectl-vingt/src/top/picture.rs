//! What there is and who holds it, from the published slices, the claims and
//! their decision records. Geometry is read from the counters that devices
//! consume; nothing is drawn here.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::resource::v1::{Device, ResourceClaim, ResourceSlice};
use serde::Serialize;
use vingt_core::model::{UNITS_PER_GPU, Units};
use vingt_core::{Counter, charge};
use vingt_crds::{DecisionRecord, Tenant as TenantObject, names};

use crate::words::natural;

/// Everything at one moment.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Picture {
    /// The nodes that publish GPUs.
    pub nodes: Vec<Node>,
    /// The tenants, by name.
    pub tenants: Vec<Tenant>,
    /// What could not be seen, or is not as it should be.
    pub notes: Vec<String>,
}

/// A node.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Whether all slices of its newest generation are there; nothing is placed on it otherwise.
    pub complete: bool,
    /// Its GPUs.
    pub gpus: Vec<Gpu>,
}

/// A GPU.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Name of its counter set (`gpu-0`).
    pub name: String,
    /// Its UUID.
    pub uuid: String,
    /// Its product name.
    pub product: String,
    /// Memory slices it has.
    pub slices: u32,
    /// Whether it may be given out: one of its devices has no taint but the fence.
    pub healthy: bool,
    /// What is held of it, by first slice.
    pub held: Vec<Held>,
}

/// A device that is held.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Held {
    /// Its name in the slice.
    pub device: String,
    /// Its MIG profile, or `gpu`.
    pub profile: String,
    /// First memory slice.
    pub first: u32,
    /// Memory slices.
    pub slices: u32,
    /// What is charged for it; 56 are one GPU.
    pub units: Units,
    /// Who is charged; empty if nobody of vingt decided it.
    pub tenant: String,
    /// What it was decided for, as `Kind/namespace/name`; else the claim.
    pub workload: String,
    /// When it was decided.
    pub since: Option<String>,
}

/// A tenant.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub held_units: Units,
    /// GPUs it is guaranteed, as its spec says.
    #[serde(rename = "guaranteedGPUs")]
    pub guaranteed: Option<String>,
    /// GPUs it may hold, as its spec says.
    #[serde(rename = "limitGPUs")]
    pub limit: Option<String>,
    /// Jobs and pods that wait.
    pub waiting: u32,
}

impl Gpu {
    /// Slices of which nothing is held.
    pub fn free(&self) -> u32 {
        self.slices.saturating_sub(self.held.iter().map(|held| held.slices).sum())
    }
}

impl Node {
    /// Whether nothing is held.
    pub fn idle(&self) -> bool {
        self.gpus.iter().all(|gpu| gpu.held.is_empty())
    }
}

impl Picture {
    /// Of what the API server holds.
    pub fn of(slices: &[ResourceSlice], claims: &[ResourceClaim], tenants: &[TenantObject]) -> Self {
        let mut picture = Self::default();
        let mut published = BTreeMap::new();
        for (pool, slices) in pools(slices) {
            picture.nodes.push(node(&pool, &slices, &mut published));
        }
        picture.nodes.sort_by(|a, b| natural(&a.name, &b.name));
        let places: BTreeMap<_, _> = picture
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(node, at)| {
                at.gpus
                    .iter()
                    .enumerate()
                    .map(move |(gpu, of)| ((at.name.clone(), of.name.clone()), (node, gpu)))
            })
            .collect();
        let mut missing = BTreeSet::new();
        for claim in claims {
            for (pool, device, held) in held(claim) {
                let found = published.get(&(pool.clone(), device.clone()));
                let at = found.and_then(|found| places.get(&(pool.clone(), found.gpu.clone())));
                let (Some(found), Some(&(node, gpu))) = (found, at) else {
                    missing.insert(format!("{pool}/{device}, held by {}, is not published", held.workload));
                    continue;
                };
                let held = Held {
                    device,
                    profile: found.profile.clone(),
                    first: found.mask.trailing_zeros(),
                    slices: found.mask.count_ones(),
                    units: found.units,
                    ..held
                };
                picture.nodes[node].gpus[gpu].held.push(held);
            }
        }
        picture.notes.extend(missing);
        for gpu in picture.nodes.iter_mut().flat_map(|node| &mut node.gpus) {
            gpu.held.sort_by(|a, b| (a.first, &a.device).cmp(&(b.first, &b.device)));
            // A claim that several pods share is one; two claims for one device are shown as they are.
        }
        picture.tenants = picture.add_up(tenants);
        picture
    }

    /// What each tenant holds, with what its object says.
    fn add_up(&self, objects: &[TenantObject]) -> Vec<Tenant> {
        let mut tenants: BTreeMap<String, Tenant> = BTreeMap::new();
        for object in objects {
            let name = object.metadata.name.clone().unwrap_or_default();
            let tenant = Tenant {
                name: name.clone(),
                guaranteed: object.spec.guaranteed_gpus.as_ref().map(|quantity| quantity.0.clone()),
                limit: object.spec.limit_gpus.as_ref().map(|quantity| quantity.0.clone()),
                waiting: object.status.as_ref().map_or(0, |status| status.waiting),
                ..Tenant::default()
            };
            tenants.insert(name, tenant);
        }
        for held in self.nodes.iter().flat_map(|node| &node.gpus).flat_map(|gpu| &gpu.held) {
            let tenant = tenants.entry(held.tenant.clone()).or_default();
            tenant.name.clone_from(&held.tenant);
            tenant.held_units += held.units;
        }
        tenants.into_values().collect()
    }
}

/// A device as its slice describes it.
struct Published {
    gpu: String,
    profile: String,
    /// Memory slices it takes.
    mask: u64,
    units: Units,
}

/// The slices of vingt's driver, by pool.
fn pools(slices: &[ResourceSlice]) -> BTreeMap<String, Vec<&ResourceSlice>> {
    let mut pools: BTreeMap<String, Vec<&ResourceSlice>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.spec.driver == names::DRIVER) {
        pools.entry(slice.spec.pool.name.clone()).or_default().push(slice);
    }
    for slices in pools.values_mut() {
        let newest = slices.iter().map(|slice| slice.spec.pool.generation).max();
        slices.retain(|slice| Some(slice.spec.pool.generation) == newest);
    }
    pools
}

fn node(
    pool: &str,
    slices: &[&ResourceSlice],
    published: &mut BTreeMap<(String, String), Published>,
) -> Node {
    let there = i64::try_from(slices.len()).unwrap_or(i64::MAX);
    let complete = slices.iter().all(|slice| slice.spec.pool.resource_slice_count == there);
    let sets = slices.iter().flat_map(|slice| slice.spec.shared_counters.iter().flatten());
    let sets: BTreeMap<&str, BTreeMap<&str, u64>> = sets
        .map(|set| {
            let counters =
                set.counters.iter().map(|(name, counter)| (name.as_str(), number(&counter.value.0)));
            (set.name.as_str(), counters.collect())
        })
        .collect();
    let of_memory =
        |counters: &BTreeMap<&str, u64>| counters.keys().filter_map(|name| slice_of(name)).count();
    let mut gpus: BTreeMap<&str, Gpu> = sets
        .iter()
        .map(|(name, counters)| {
            let slices = u32::try_from(of_memory(counters)).unwrap_or(u32::MAX).max(1);
            (*name, Gpu { name: (*name).to_owned(), slices, ..Gpu::default() })
        })
        .collect();
    for device in slices.iter().flat_map(|slice| slice.spec.devices.iter().flatten()) {
        let Some((set, gpu)) = set_of(device).and_then(|set| Some((set, gpus.get_mut(set)?))) else {
            continue;
        };
        let whole = text(device, names::device::TYPE) == Some("gpu");
        let uuid = text(device, if whole { names::device::UUID } else { names::device::PARENT_UUID });
        gpu.uuid = uuid.unwrap_or(&gpu.uuid).to_owned();
        gpu.product = text(device, names::device::PRODUCT_NAME).unwrap_or(&gpu.product).to_owned();
        gpu.healthy |= device.taints.iter().flatten().all(|taint| taint.key == names::FENCE_TAINT);
        published.insert((pool.to_owned(), device.name.clone()), describe(device, set, gpu.slices, &sets));
    }
    let mut gpus: Vec<Gpu> = gpus.into_values().collect();
    gpus.sort_by(|a, b| natural(&a.name, &b.name));
    Node { name: pool.to_owned(), complete, gpus }
}

/// The counter set that a device consumes from: its GPU.
fn set_of(device: &Device) -> Option<&str> {
    device.consumes_counters.iter().flatten().map(|consumed| consumed.counter_set.as_str()).next()
}

fn describe(
    device: &Device,
    set: &str,
    slices: u32,
    sets: &BTreeMap<&str, BTreeMap<&str, u64>>,
) -> Published {
    let consumed = device.consumes_counters.iter().flatten().flat_map(|consumed| &consumed.counters);
    let consumed: BTreeMap<&str, u64> =
        consumed.map(|(name, counter)| (name.as_str(), number(&counter.value.0))).collect();
    let takes = consumed.iter().filter(|(_, amount)| **amount > 0);
    let mask = takes.filter_map(|(name, _)| slice_of(name)).fold(0_u64, |mask, slice| mask | 1 << slice);
    let all = u64::MAX >> (64 - slices.clamp(1, 64));
    let counters = sets.get(set).into_iter().flatten();
    let units = charge(counters.map(|(name, capacity)| Counter {
        name,
        capacity: *capacity,
        consumes: consumed.get(name).copied().unwrap_or(0),
    }));
    Published {
        gpu: set.to_owned(),
        profile: text(device, names::device::PROFILE).unwrap_or("gpu").to_owned(),
        // A GPU without slices is one slice.
        mask: if mask & all == 0 { all } else { mask & all },
        units: units.min(UNITS_PER_GPU),
    }
}

/// The number of a counter of one memory slice.
fn slice_of(counter: &str) -> Option<u32> {
    counter.strip_prefix(names::device::MEMORY_SLICE_PREFIX)?.parse().ok().filter(|slice| *slice < 64)
}

/// A counter's value; those looked at are small whole numbers.
fn number(quantity: &str) -> u64 {
    quantity.parse().unwrap_or(u64::from(!quantity.is_empty()))
}

fn text<'a>(device: &'a Device, name: &str) -> Option<&'a str> {
    device.attributes.as_ref()?.get(name)?.string.as_deref()
}

/// What a claim holds: pool, device, and who holds it.
fn held(claim: &ResourceClaim) -> Vec<(String, String, Held)> {
    let record = DecisionRecord::of(claim).ok();
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let devices: Vec<(String, String)> = if let Some(allocation) = allocation {
        let results = allocation.devices.iter().flat_map(|devices| devices.results.iter().flatten());
        let ours = results.filter(|result| result.driver == names::DRIVER);
        ours.map(|result| (result.pool.clone(), result.device.clone())).collect()
    } else {
        // Decided, and being written; once its finalizer is gone the record is void.
        let meta = &claim.metadata;
        let protected = meta.finalizers.iter().flatten().any(|finalizer| finalizer == names::CLAIM_FINALIZER);
        let live = record.as_ref().filter(|_| protected && meta.deletion_timestamp.is_none());
        let devices = live.iter().flat_map(|record| &record.devices);
        devices.map(|device| (device.pool.clone(), device.device.clone())).collect()
    };
    let held = |(pool, device)| {
        let meta = &claim.metadata;
        let name = |part: &Option<String>| part.clone().unwrap_or_default();
        let claim = format!("ResourceClaim/{}/{}", name(&meta.namespace), name(&meta.name));
        let held = Held {
            tenant: record.as_ref().map(|record| record.tenant.clone()).unwrap_or_default(),
            workload: record.as_ref().map_or(claim, |record| record.workload.clone()),
            since: record.as_ref().map(|record| record.start.to_string()),
            ..Held::default()
        };
        (pool, device, held)
    };
    devices.into_iter().map(held).collect()
}

#[cfg(test)]
pub(super) mod tests;
