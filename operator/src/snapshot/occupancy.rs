//! What is held: devices by claims, by decisions that are being written and by
//! the plans of gangs, and what pods ask of their nodes.

use std::collections::{BTreeMap, BTreeSet};

use vingt_core::model::{DeviceIndex, Gpu, Node, Resources, Units};
use vingt_crds::{Assignment, MoveState, TrainingJob, TrainingJobStatus};

use super::layout::Layout;
use super::members::Members;
use super::pods::{PodStage, pod_workload, stage};
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
    for (key, job) in world.inference_jobs.iter() {
        let state = job.status.as_ref().and_then(|status| status.move_.as_ref());
        if let Some(state) = state.filter(|state| !state.leaving) {
            held.add_kept_place(key, state, world, tenancy, members);
        }
    }
    for (key, job) in world.training_jobs.iter() {
        held.add_gang(key, job, world, tenancy, members);
    }
    for (key, pod) in world.pods.iter().filter(|(_, pod)| !pod.ended) {
        let bound = let_go(pod).or_else(|| planned.get(key).copied());
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
        let mut shape = None;
        let read = || {
            let spec = job.spec.template.parse().ok().and_then(|template| template.spec);
            spec.map(|spec| requests::of_pod(&spec)).unwrap_or_default()
        };
        for (assignment, live) in held_workers(key, status, world, members) {
            let units = assignment.units / assignment.devices.len().max(1) as u64;
            for device in &assignment.devices {
                self.add_device(&device.pool, &device.device, tenant, units);
            }
            if !live {
                self.add_requests(&assignment.node, shape.get_or_insert_with(read));
            }
        }
    }

    /// The place of a replica that is to come in another's stead is held until it is there and planned, or has it.
    fn add_kept_place(
        &mut self,
        key: &Key,
        state: &MoveState,
        world: &World,
        tenancy: &Tenancy,
        members: &Members,
    ) {
        let planned = newcomer(key, state, world, members)
            .is_some_and(|(key, pod)| !pod.gated() || matches!(stage(key, pod, world), PodStage::Plan(_)));
        let old = world.pods.get(&Key::new(&key.namespace, &state.pod));
        let (false, Some(old)) = (planned, old) else { return };
        let tenant = tenancy.tenant(&key.namespace).unwrap_or_default();
        for device in &state.devices {
            self.add_device(&device.pool, &device.device, tenant, 0);
        }
        self.add_requests(&state.node, &old.requests);
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
    gpu.held |= 1_u64.checked_shl(at.device.into()).unwrap_or(0);
    device.units
}

/// The replica that was made in the stead of one that moves, once it is there.
pub fn newcomer<'a>(
    server: &Key,
    state: &MoveState,
    world: &'a World,
    members: &'a Members,
) -> Option<(&'a Key, &'a Pod)> {
    // Times of creation are whole seconds.
    let since_ms = state.started_at.0.as_second().saturating_mul(1000);
    let pods = members.replicas(server).iter().filter_map(|key| Some((key, &**world.pods.get(key)?)));
    let new = pods.filter(|(key, pod)| {
        pod.created_ms >= since_ms && key.name != state.pod && !pod.deleting && !pod.ended
    });
    new.max_by_key(|(key, pod)| (pod.created_ms, *key))
}

/// The workers of a gang that hold what is planned for them, and whether their pod is there and counts on its node by
/// itself. One that is done holds nothing.
pub fn held_workers<'a>(
    key: &Key,
    status: &'a TrainingJobStatus,
    world: &World,
    members: &Members,
) -> Vec<(&'a Assignment, bool)> {
    let done = world.jobs.get(key).map(|job| job.done.as_slice()).unwrap_or_default();
    let mut live = BTreeSet::new();
    let mut ended: BTreeSet<u32> = done.iter().copied().collect();
    for (index, pod) in members.gang(key) {
        match world.pods.get(pod) {
            // A worker that failed is made again, for the same device.
            Some(pod) if pod.ended && pod.failure.is_none() => ended.insert(index),
            Some(pod) if pod.ended => continue,
            _ => live.insert(index),
        };
    }
    let assignments = status.assignments.iter().map(|it| (it, live.contains(&it.worker)));
    assignments.filter(|(it, live)| *live || !ended.contains(&it.worker)).collect()
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

/// The node that a pod is bound to, or that it may go to and no other. What its
/// affinity says while it is gated is a wish, not a place.
fn let_go(pod: &Pod) -> Option<&str> {
    pod.node.as_deref().or(pod.pinned.as_deref().filter(|_| !pod.gated()))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::layout::tests::{list, slices};
    use super::*;
    use crate::world::{Job, Slice};

    const A: &str = "gpu-0-mig-3g40gb-0";
    const B: &str = "gpu-0-mig-3g40gb-4";

    fn record(workload: &str, device: &str) -> String {
        json!({"version": 1, "claim": "u", "node": "n", "units": 28, "tenant": "prod", "workload": workload,
            "start": "2026-01-01T00:00:00Z", "devices": [{"request": "gpu", "pool": "n", "device": device}]})
        .to_string()
    }

    #[allow(clippy::needless_pass_by_value)] // The cases read better without borrows.
    fn claim(name: &str, decision: Option<String>, protected: bool, device: Option<&str>) -> Value {
        let finalizers: &[&str] = if protected { &["resource.kubernetes.io/delete-protection"] } else { &[] };
        let allocation = device.map(|device| {
            json!({"devices": {"results": [{"driver": "gpu.vingt.dev", "pool": "n", "device": device, "request": "gpu"}]}})
        });
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": "p", "uid": "u", "resourceVersion": "1", "finalizers": finalizers,
                "annotations": {"vingt.dev/decision": decision}},
            "spec": {}, "status": {"allocation": allocation}})
    }

    fn gang(devices: &[&str]) -> Value {
        let assignments: Vec<Value> = (0..)
            .zip(devices)
            .map(|(worker, device)| json!({"worker": worker, "node": "n", "units": 28, "devices": [{"request": "gpu", "pool": "n", "device": device}]}))
            .collect();
        json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {"name": "t", "namespace": "p", "uid": "t1", "resourceVersion": "1"},
            "spec": {"workers": 2, "gpu": {"profile": "3g.40gb"},
                "template": {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}]}}},
            "status": {"tenant": "prod", "assignments": assignments}})
    }

    /// Units used by tenant, counters used of the GPU, whether it is blocked, and the node's CPU.
    fn held(
        world: &mut World,
        pending: &BTreeMap<String, Pending>,
    ) -> (BTreeMap<String, u64>, u64, bool, u64) {
        list::<Slice>(world, slices("n", 1, 1));
        let layout = Layout::of(&world.slices);
        let mut gpus = layout.gpus.clone();
        let mut nodes = vec![Node { name: "n".into(), ..Node::default() }];
        let held = occupancy(world, &Tenancy::default(), &Members::of(world), pending);
        let used = held.enter(&layout, &mut gpus, &mut nodes);
        (used, gpus[0].used.iter().sum(), gpus[0].blocked, held.requested("n").cpu_milli)
    }

    fn of_claims(claims: Vec<Value>) -> (BTreeMap<String, u64>, u64, bool) {
        let mut world = World::default();
        list::<Claim>(&mut world, claims);
        let (used, counters, blocked, _) = held(&mut world, &BTreeMap::new());
        (used, counters, blocked)
    }

    #[test]
    fn an_allocation_holds_and_so_does_a_decision_that_is_being_written() {
        let charged = |units| BTreeMap::from([("prod".to_owned(), units)]);
        let pod = "Pod/p/x";
        assert_eq!(of_claims(vec![claim("a", Some(record(pod, A)), true, Some(A))]), (charged(28), 7, false));
        assert_eq!(of_claims(vec![claim("a", Some(record(pod, A)), true, None)]), (charged(28), 7, false));
        let left = of_claims(vec![claim("a", Some(record(pod, A)), false, None)]);
        assert_eq!(left, (BTreeMap::new(), 0, false), "what a deallocated claim still says is void");
    }

    #[test]
    fn a_held_device_that_is_not_published_blocks_its_node() {
        let gone = "gpu-7";
        let (used, _, blocked) = of_claims(vec![claim("a", Some(record("Pod/p/x", gone)), true, Some(gone))]);
        assert_eq!((used.get("prod"), blocked), (Some(&28), true), "charged by its record");
        let mut world = World::default();
        list::<TrainingJob>(&mut world, [self::gang(&[gone])]);
        let (used, _, blocked, _) = held(&mut world, &BTreeMap::new());
        assert_eq!((used.get("prod"), blocked), (Some(&28), true), "charged by its plan");
    }

    #[test]
    fn the_plan_of_a_gang_holds_until_its_claims_do_and_no_longer_than_its_workers() {
        let mut world = World::default();
        list::<TrainingJob>(&mut world, [gang(&[A, B])]);
        let none = BTreeMap::new();
        assert_eq!(held(&mut world, &none), (BTreeMap::from([("prod".into(), 56)]), 14, false, 2000));
        // Its own claim for the same device counts once.
        list::<Claim>(&mut world, [claim("a", Some(record("TrainingJob/p/t", A)), true, Some(A))]);
        assert_eq!(held(&mut world, &none).0["prod"], 56);
        // A worker that is done holds nothing.
        list::<Claim>(&mut world, []);
        list::<Job>(
            &mut world,
            [json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "t", "namespace": "p", "uid": "j", "resourceVersion": "1", "ownerReferences":
                [{"apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob", "name": "t", "uid": "t1", "controller": true}]},
            "spec": {"suspend": false}, "status": {"completedIndexes": "0"}})],
        );
        assert_eq!(held(&mut world, &none), (BTreeMap::from([("prod".into(), 28)]), 7, false, 1000));
    }

    #[test]
    fn the_device_of_a_worker_that_failed_is_kept_for_the_next_one() {
        let mut world = World::default();
        list::<TrainingJob>(&mut world, [gang(&[A, B])]);
        list::<Job>(
            &mut world,
            [json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "t", "namespace": "p", "uid": "j", "resourceVersion": "1", "ownerReferences":
                [{"apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob", "name": "t", "uid": "t1", "controller": true}]}})],
        );
        let ended = |phase: &str| {
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "t-0", "namespace": "p", "resourceVersion": "1",
                    "annotations": {"batch.kubernetes.io/job-completion-index": "0"},
                    "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "t", "uid": "j", "controller": true}]},
                "spec": {"containers": []}, "status": {"phase": phase}})
        };
        list::<Pod>(&mut world, [ended("Failed")]);
        assert_eq!(held(&mut world, &BTreeMap::new()).0["prod"], 56);
        list::<Pod>(&mut world, [ended("Succeeded")]);
        assert_eq!(held(&mut world, &BTreeMap::new()).0["prod"], 28);
    }

    #[test]
    fn a_decision_under_way_holds_devices_and_room() {
        let pending = Pending {
            tenant: "prod".into(),
            pods: vec![PendingPod {
                pod: None,
                node: "n".into(),
                devices: vec![A.into()],
                requests: Resources { cpu_milli: 250, pods: 1, ..Resources::default() },
            }],
        };
        let pending = BTreeMap::from([("Pod/p/x".to_owned(), pending)]);
        assert_eq!(
            held(&mut World::default(), &pending),
            (BTreeMap::from([("prod".into(), 28)]), 7, false, 250)
        );
    }

    #[test]
    fn a_pod_counts_on_the_node_it_goes_to_not_on_the_one_it_wishes_for() {
        let pod = |name: &str, gated: bool, ended: bool| {
            let gates: Vec<Value> = if gated { vec![json!({"name": "vingt.dev/admission"})] } else { vec![] };
            let terms =
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]}]);
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "p", "resourceVersion": "1"},
                "spec": {"schedulingGates": gates, "containers": [{"name": "c", "resources": {"requests": {"cpu": "1"}}}],
                    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}},
                "status": {"phase": if ended { "Succeeded" } else { "Pending" }}})
        };
        let mut world = World::default();
        list::<Pod>(
            &mut world,
            [pod("pinned", false, false), pod("gated", true, false), pod("ended", false, true)],
        );
        assert_eq!(held(&mut world, &BTreeMap::new()).3, 1000);
    }
}
