//! From what the API server holds to the core's snapshot: who waits for what,
//! what there is, and what is held. Nothing is decided and nothing written here.

pub mod ask;
pub mod layout;
pub mod members;
pub mod occupancy;
pub mod pods;
pub mod running;
mod selector;

use std::collections::{BTreeMap, BTreeSet};

use vingt_core::model::{Node, PodShape, Running, Snapshot, Workload};
use vingt_crds::names;

use crate::tenants::{self, Tenancy};
use crate::world::{Key, Pod, World};
use layout::Layout;
use members::Members;
use occupancy::{Pending, occupancy};
use pods::{PodNeeds, PodStage, pod_workload};
use running::Holder;

/// A snapshot, and what its parts stand for.
#[derive(Default)]
pub struct Picture {
    /// What the core plans from.
    pub snapshot: Snapshot,
    /// What each of the waiting workloads is.
    pub subjects: Vec<Subject>,
    /// What each of those that hold devices is.
    pub holders: Vec<Holder>,
    /// Gated pods, with how far they are; those to be planned are among the subjects.
    pub stages: BTreeMap<Key, PodStage>,
    /// Where each shape is in the snapshot.
    shapes: BTreeMap<PodShape, usize>,
}

/// A workload that waits.
#[derive(Clone, Debug, PartialEq)]
pub enum Subject {
    /// A pod.
    Pod(Key, PodNeeds),
    /// A `TrainingJob`.
    Gang(Key),
}

/// What is known besides the objects.
pub struct Known<'a> {
    /// Whose namespaces are whose.
    pub tenancy: &'a Tenancy,
    /// The pods of the jobs.
    pub members: &'a Members,
    /// Decisions being written, by workload.
    pub pending: &'a BTreeMap<String, Pending>,
    /// Workloads whose last write failed: they take no part until it is tried again.
    pub paused: BTreeSet<&'a str>,
    /// Nodes that did not work out for the pods of a controller, by its UID.
    pub avoid: BTreeMap<&'a str, &'a BTreeSet<String>>,
}

/// Takes the picture. `layout` lends its GPUs to the snapshot: put
/// them back when the plan is carried out.
pub fn take(world: &World, layout: &mut Layout, known: &Known<'_>) -> Picture {
    layout.refresh(&world.slices);
    layout.tidy();
    let held = occupancy(world, known.tenancy, known.members, known.pending);
    let mut picture = Picture::default();
    let snapshot = &mut picture.snapshot;
    snapshot.nodes = nodes(world, layout, &held);
    snapshot.gpus = std::mem::take(&mut layout.gpus);
    for (gpu, others) in snapshot.gpus.iter_mut().zip(&layout.others) {
        gpu.used.clone_from(others);
        gpu.held = 0;
        gpu.blocked = !layout.complete[gpu.node.0 as usize];
    }
    let used = held.enter(layout, &mut snapshot.gpus, &mut snapshot.nodes);
    snapshot.tenants = tenants::limits(world);
    for (name, tenant) in &mut snapshot.tenants {
        tenant.used = used.get(name).copied().unwrap_or(0);
    }
    for (key, pod) in world.pods.iter().filter(|(_, pod)| pod.gated() && !pod.ended && !pod.deleting) {
        if known.members.gang_of(key).is_some() || known.pending.contains_key(&pod_workload(key)) {
            continue;
        }
        // The worker of a gang is never admitted by itself.
        let stage = match pod.marks.get(names::TRAINING_JOB_LABEL) {
            Some(job) => PodStage::Unmade(format!(
                "it is a worker of TrainingJob {job}, which is gone or has another Job"
            )),
            None => stage(key, pod, world, layout, known, &mut picture),
        };
        picture.stages.insert(key.clone(), stage);
    }
    picture.snapshot.device_sets.clone_from(&layout.sets);
    picture
}

impl Picture {
    /// Adds a workload that waits, whose pods need this.
    pub fn enter(&mut self, subject: Subject, workload: Workload, shape: PodShape) {
        let shape = self.shape(shape);
        self.subjects.push(subject);
        self.snapshot.waiting.push(Workload { shape, ..workload });
    }

    /// Adds something that holds devices, whose pods need this.
    pub fn enter_running(&mut self, holder: Holder, running: Running, shape: PodShape) {
        let shape = self.shape(shape);
        self.holders.push(holder);
        self.snapshot.running.push(Running { shape, ..running });
    }

    /// The number of a shape among those of the snapshot.
    pub fn shape(&mut self, shape: PodShape) -> usize {
        let shapes = &mut self.snapshot.shapes;
        *self.shapes.entry(shape).or_insert_with_key(|shape| {
            shapes.push(shape.clone());
            shapes.len() - 1
        })
    }
}

fn nodes(world: &World, layout: &Layout, held: &occupancy::Occupancy) -> Vec<Node> {
    let node = |(name, complete): (&String, &bool)| {
        let Some(node) = world.nodes.get(&Key::new("", name)) else {
            return Node { name: name.clone(), ..Node::default() };
        };
        Node {
            name: name.clone(),
            labels: node.labels.clone(),
            taints: node.taints.clone(),
            schedulable: node.usable && *complete,
            allocatable: node.allocatable.clone(),
            requested: held.requested(name),
        }
    };
    layout.nodes.iter().zip(&layout.complete).map(node).collect()
}

/// How far a gated pod is; one that is to be planned is entered as waiting.
fn stage(
    key: &Key,
    pod: &Pod,
    world: &World,
    layout: &mut Layout,
    known: &Known<'_>,
    picture: &mut Picture,
) -> PodStage {
    let stage = pods::stage(key, pod, world);
    let PodStage::Plan(needs) = &stage else { return stage };
    let Some(tenant) = known.tenancy.tenant(&key.namespace) else {
        return PodStage::Waits(no_tenant(&key.namespace));
    };
    let scheduling = pod.scheduling.as_deref().cloned().unwrap_or_default();
    let requests = pods::refuse_two_partitions(key, pod, &scheduling, &needs.claims, layout)
        .and_then(|()| pods::requests(&needs.claims, layout));
    let requests = match requests {
        Ok(requests) => requests,
        Err(why) => return PodStage::Waits(why),
    };
    if known.paused.contains(pod_workload(key).as_str()) {
        return stage;
    }
    let server = known.members.server_of(key).and_then(|server| world.inference_jobs.get(server));
    let workload = Workload {
        key: pod_workload(key),
        tenant: tenant.to_owned(),
        priority: server.map_or(pod.priority, |server| server.spec.priority),
        queued_ms: pod.created_ms,
        not_before_ms: 0,
        avoid: pod
            .owner
            .as_ref()
            .and_then(|owner| known.avoid.get(owner.uid.as_str()))
            .map_or_else(BTreeSet::new, |nodes| (*nodes).clone()),
        pods: 1,
        lasting: running::lasts(pod, server.map(AsRef::as_ref)),
        grace_ms: pod.grace_ms,
        order: running::order(key, pod, server.map(AsRef::as_ref)),
        ..Workload::default()
    };
    let shape = PodShape {
        resources: pod.requests.clone(),
        node_terms: scheduling.node_terms,
        tolerations: scheduling.tolerations,
        pinned: needs.node.clone(),
        requests,
    };
    picture.enter(Subject::Pod(key.clone(), needs.clone()), workload, shape);
    stage
}

/// Why something in a namespace of no tenant waits.
pub fn no_tenant(namespace: &str) -> String {
    format!(
        "namespace {namespace} belongs to no tenant: a cluster administrator adds it to a Tenant (`kubectl get tenants`)"
    )
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::resource::v1::DeviceClass;
    use serde_json::{Value, json};

    use super::layout::tests::{list, slices};
    use super::*;
    use crate::world::{Claim, Slice};

    /// The stage of a gated pod of a Job that is gone, with these labels.
    fn staged(labels: &Value) -> PodStage {
        let mut world = World::default();
        list::<Slice>(&mut world, slices("n", 1, 1));
        let class = ask::tests::class("mig.vingt.dev", r#"device.driver == "gpu.vingt.dev""#);
        list::<DeviceClass>(&mut world, [class]);
        let requests = json!([{"name": "gpu", "exactly": {"deviceClassName": "mig.vingt.dev"}}]);
        list::<Claim>(
            &mut world,
            [json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
                "metadata": {"name": "c", "namespace": "p", "uid": "c", "resourceVersion": "1"},
                "spec": {"devices": {"requests": requests}}})],
        );
        let owner =
            json!({"apiVersion": "batch/v1", "kind": "Job", "name": "t", "uid": "gone", "controller": true});
        list::<Pod>(
            &mut world,
            [json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "x", "namespace": "p", "uid": "x", "resourceVersion": "1", "labels": labels,
                    "ownerReferences": [owner]},
                "spec": {"containers": [{"name": "c"}], "schedulingGates": [{"name": "vingt.dev/admission"}],
                    "resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}]}})],
        );
        let (tenancy, members, pending) = (Tenancy::default(), Members::of(&world), BTreeMap::new());
        let known = Known {
            tenancy: &tenancy,
            members: &members,
            pending: &pending,
            paused: BTreeSet::new(),
            avoid: BTreeMap::new(),
        };
        let mut picture = take(&world, &mut Layout::default(), &known);
        picture.stages.remove(&Key::new("p", "x")).unwrap()
    }

    #[test]
    fn a_worker_whose_gang_is_gone_is_no_pod_of_its_own() {
        let stage = staged(&json!({"vingt.dev/training-job": "t"}));
        assert!(matches!(stage, PodStage::Unmade(_)), "{stage:?}");
        assert_eq!(staged(&json!({})), PodStage::Waits(no_tenant("p")), "any other pod is on its own");
    }
}
