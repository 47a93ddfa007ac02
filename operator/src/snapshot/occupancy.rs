//! What is held: devices by claims, by decisions that are being written and by
//! the plans of gangs, and what pods ask of their nodes.

use std::collections::{BTreeMap, BTreeSet};

use vingt_core::model::{DeviceIndex, Gpu, Node, Resources, Units};
use vingt_crds::TrainingJob;

use super::layout::Layout;
use super::members::Members;
use super::pods::pod_workload;
use crate::tenants::Tenancy;
use crate::world::{Claim, Key, Pod, World, requests};

/// A decision whose writes are under way: it holds what it decided until the
/// objects themselves say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The tenant charged.
    pub tenant: String,
    /// Its pods.
    pub pods: Vec<PendingPod>,
}

/// A pod of a [`Pending`] decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingPod {
    /// The pod, if it exists already.
    pub pod: Option<Key>,
    /// Where it goes.
    pub node: String,
    /// Its devices, by name.
    pub devices: Vec<String>,
    /// What it asks of the node.
    pub requests: Resources,
}

/// What is held.
#[derive(Debug, Default)]
pub struct Occupancy {
    /// Who holds a device, by pool and device name.
    devices: BTreeMap<(String, String), Holder>,
    /// What pods ask of a node.
    requested: BTreeMap<String, Resources>,
}

#[derive(Debug)]
struct Holder {
    tenant: String,
    /// Its charge, should the device not be published any more.
    recorded: Units,
}

/// Finds out what is held.
pub fn occupancy(
    world: &World,
    tenancy: &Tenancy,
    members: &Members,
    pending: &BTreeMap<String, Pending>,
) -> Occupancy {
    let mut held = Occupancy::default();
    for (key, claim) in world.claims.iter() {
        held.add_claim(key, claim, tenancy);
    }
    let mut planned: BTreeMap<&Key, &str> = BTreeMap::new();
    for decision in pending.values() {
        for pod in &decision.pods {
            for device in &pod.devices {
                held.add_device(&pod.node, device, &decision.tenant, 0);
            }
            match &pod.pod {
                Some(key) if world.pods.get(key).is_some() => {
                    planned.insert(key, &pod.node);
                }
                _ => held.add_requests(&pod.node, &pod.requests),
            }
        }
    }
    for (key, job) in world.training_jobs.iter() {
        held.add_gang(key, job, world, tenancy, members);
    }
    for (key, pod) in world.pods.iter().filter(|(_, pod)| !pod.ended) {
        let bound = pod.node.as_deref().or(pod.pinned.as_deref()).or_else(|| planned.get(key).copied());
        if let Some(node) = bound {
            held.add_requests(node, &pod.requests);
        } else if let Some((job, index)) = members.gang_of(key) {
            let job = world.training_jobs.get(job);
            let assigned = job.and_then(|job| assigned_node(job, *index));
            if let Some(node) = assigned {
                held.add_requests(node, &pod.requests);
            }
        } else if let Some(node) = decided_node(key, pod, world) {
            held.add_requests(&node, &pod.requests);
        }
    }
    held
}

impl Occupancy {
    fn add_claim(&mut self, key: &Key, claim: &Claim, tenancy: &Tenancy) {
        let devices = claim.devices();
        if devices.is_empty() {
            return;
        }
        let record = claim.decision.as_ref().ok();
        let tenant = record.map(|record| record.tenant.as_str()).or_else(|| tenancy.tenant(&key.namespace));
        let units = record.map_or(0, |record| record.units / devices.len().max(1) as u64);
        for device in devices {
            self.add_device(&device.pool, &device.device, tenant.unwrap_or_default(), units);
        }
    }

    /// A gang's plan holds its devices until the claims of its workers do.
    fn add_gang(
        &mut self,
        key: &Key,
        job: &TrainingJob,
        world: &World,
        tenancy: &Tenancy,
        members: &Members,
    ) {
        let Some(status) = job.status.as_ref().filter(|status| !status.assignments.is_empty()) else {
            return;
        };
        let tenant = tenancy.tenant(&key.namespace).unwrap_or(&status.tenant);
        let done = world.jobs.get(key).map(|job| job.done.as_slice()).unwrap_or_default();
        let mut live = BTreeSet::new();
        let mut ended: BTreeSet<u32> = done.iter().copied().collect();
        for (index, pod) in members.gang(key) {
            match world.pods.get(pod) {
                Some(pod) if pod.ended => ended.insert(index),
                _ => live.insert(index),
            };
        }
        let mut shape = None;
        let read = || {
            let spec = job.spec.template.parse().ok().and_then(|template| template.spec);
            spec.map(|spec| requests::of_pod(&spec)).unwrap_or_default()
        };
        for assignment in &status.assignments {
            if ended.contains(&assignment.worker) && !live.contains(&assignment.worker) {
                continue;
            }
            for device in &assignment.devices {
                self.add_device(&device.pool, &device.device, tenant, 0);
            }
            if !live.contains(&assignment.worker) {
                self.add_requests(&assignment.node, shape.get_or_insert_with(read));
            }
        }
    }

    fn add_device(&mut self, pool: &str, device: &str, tenant: &str, recorded: Units) {
        let entry = self.devices.entry((pool.to_owned(), device.to_owned()));
        entry.or_insert_with(|| Holder { tenant: tenant.to_owned(), recorded });
    }

    fn add_requests(&mut self, node: &str, requests: &Resources) {
        requests::accumulate(self.requested.entry(node.to_owned()).or_default(), requests);
    }

    /// What the pods on a node ask of it.
    pub fn requested(&self, node: &str) -> Resources {
        self.requested.get(node).cloned().unwrap_or_default()
    }

    /// Enters what is held into the GPUs and returns what each tenant holds. A
    /// held device that is not published blocks its node: what it really
    /// occupies is not known.
    pub fn enter(&self, layout: &Layout, gpus: &mut [Gpu], nodes: &mut [Node]) -> BTreeMap<String, Units> {
        let mut used: BTreeMap<String, Units> = BTreeMap::new();
        for ((pool, name), holder) in &self.devices {
            let at = layout.find(pool, name);
            let units = if let Some(at) = at {
                take(gpus, at)
            } else {
                if let Some(node) = layout.node_index.get(pool) {
                    nodes[node.0 as usize].schedulable = false;
                    gpus.iter_mut().filter(|gpu| gpu.node == *node).for_each(|gpu| gpu.blocked = true);
                }
                holder.recorded
            };
            *used.entry(holder.tenant.clone()).or_default() += units;
        }
        used
    }
}

/// Counts a device as used; returns its charge.
fn take(gpus: &mut [Gpu], at: DeviceIndex) -> Units {
    let Some(gpu) = gpus.get_mut(at.gpu.0 as usize) else { return 0 };
    let Some(device) = gpu.devices.get(usize::from(at.device)) else { return 0 };
    for (used, consumed) in gpu.used.iter_mut().zip(&device.consumes) {
        *used = used.saturating_add(*consumed);
    }
    device.units
}

/// Where the plan of a gang puts a worker.
fn assigned_node(job: &TrainingJob, worker: u32) -> Option<&str> {
    let status = job.status.as_ref()?;
    status
        .assignments
        .iter()
        .find(|assignment| assignment.worker == worker)
        .map(|assignment| assignment.node.as_str())
}

/// Where claims that were decided for this pod put it.
fn decided_node(key: &Key, pod: &Pod, world: &World) -> Option<String> {
    let claims = pod
        .claims
        .iter()
        .filter_map(|claim| world.claims.get(&Key::new(&key.namespace, claim.claim.as_ref()?)));
    let for_it = |claim: &&std::sync::Arc<Claim>| {
        let decided = claim.decided().is_some_and(|record| record.workload == pod_workload(key));
        decided || claim.is_reserved_for(&pod.uid)
    };
    claims.filter(for_it).find_map(|claim| claim.devices().first().map(|device| device.pool.clone()))
}
