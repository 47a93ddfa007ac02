//! What holds devices, as the core sees it: since when, until when, what would
//! be lost if it were asked to leave, and whether it may be. Who is asked is
//! not decided here.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use vingt_core::model::{DeviceIndex, Gpu, Movable, NodeIndex, PodPlacement, Right, Running, Units};
use vingt_crds::{
    Basis, ConditionType, DecisionRecord, InferenceJob, ReplicaMove, TrainingJob, TrainingJobStatus,
    TrainingMove, names,
};

use super::ask::{self, Ask, AskedDevices};
use super::layout::Layout;
use super::members::Members;
use super::occupancy::held_workers;
use super::pods::pod_workload;
use crate::jobs::facts::{condition, gang_workload, topology};
use crate::world::{Claim, GRACE_SECONDS, Key, Pod, World};

/// What is held by something that may be asked to leave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A `TrainingJob`.
    Gang(Key),
    /// A pod.
    Pod(Key),
    /// A claim of nothing that lives any more.
    Claim(Key),
}

/// How long what has ended may take to let go of its devices: its pods' grace, as a rule.
const LETS_GO_WITHIN_MS: i64 = GRACE_SECONDS * 1000;

/// What the facts are told from.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// The objects.
    pub world: &'a World,
    /// The pods of the jobs.
    pub members: &'a Members,
    /// Where the devices are.
    pub layout: &'a Layout,
    /// The GPUs of the layout.
    pub gpus: &'a [Gpu],
    /// What is being asked to leave, by workload, and when it has left at the latest, in milliseconds since 1970.
    pub asked: &'a BTreeMap<String, i64>,
    /// The time, in milliseconds since 1970.
    pub now_ms: i64,
}

/// The gang of `job`, if it has a plan; nothing if a part of what it holds is not published.
pub fn gang(key: &Key, job: &TrainingJob, tenant: &str, sight: Sight<'_>) -> Option<Running> {
    let Sight { world, members, asked, now_ms, .. } = sight;
    let status = job.status.as_ref()?;
    let workload = gang_workload(key);
    let held = held_workers(key, status, world, members);
    let mut placed = Vec::with_capacity(held.len());
    for (assignment, _) in held {
        let names = assignment.devices.iter().map(|device| (device.pool.as_str(), device.device.as_str()));
        placed.push((&*assignment.node, vec![names.collect::<Vec<_>>()]));
    }
    let (pods, units) = places(sight, &placed)?;
    if pods.is_empty() {
        return None;
    }
    let evicted = condition(&status.conditions, ConditionType::Evicted)
        .filter(|condition| condition.status == "True")
        .map(|condition| condition.last_transition_time.0.as_millisecond());
    let ready = condition(&status.conditions, ConditionType::PodsReady)
        .filter(|condition| condition.status == "True")
        .map(|condition| condition.last_transition_time.0.as_millisecond());
    let checkpoint = job.spec.checkpoint.as_ref();
    let grace_ms = grace_of_gang(job);
    let deleted = members.gang(key).filter_map(|(_, pod)| world.pods.get(pod)?.leaves_ms).max();
    let told = job.metadata.deletion_timestamp.is_some() || job.spec.suspend;
    let leaves_ms = evicted
        .map(|since_ms| since_ms.saturating_add(grace_ms))
        .or_else(|| asked.get(&workload).copied())
        .or_else(|| told.then(|| now_ms.saturating_add(grace_ms)))
        .map(|leaves_ms| deleted.unwrap_or(leaves_ms).max(leaves_ms).max(now_ms));
    let first_ms = status.first_admitted_at.as_ref().or(status.admitted_at.as_ref());
    let interval_ms = checkpoint.and_then(|checkpoint| checkpoint.interval_seconds);
    let by_interval = ready.zip(interval_ms).and_then(|(ready_ms, seconds)| {
        let interval_ms = seconds.saturating_mul(1000).max(1);
        let saved = now_ms.saturating_sub(ready_ms) / interval_ms;
        (saved > 0).then(|| ready_ms.saturating_add(saved * interval_ms))
    });
    let may = leaves_ms.is_none();
    Some(Running {
        key: workload,
        tenant: tenant.to_owned(),
        priority: job.spec.priority,
        shape: 0,
        pods,
        units,
        waited_ms: status.waited_seconds.saturating_mul(1000),
        admitted_ms: status.admitted_at.as_ref().map_or(now_ms, |time| time.0.as_millisecond()),
        ends_ms: first_ms
            .zip(job.spec.active_deadline_seconds)
            .map(|(first, seconds)| first.0.as_millisecond().saturating_add(seconds.saturating_mul(1000))),
        saved_ms: checkpointed(key, job, world, members, now_ms).or(by_interval),
        serves: false,
        grace_ms,
        leaves_ms,
        evictable: may && job.spec.preemptible,
        right: right_of_gang(key, status, world, members),
        movable: match job.spec.moves() {
            TrainingMove::Restart if may => Movable::Restart,
            TrainingMove::Restart | TrainingMove::Never => Movable::No,
        },
        topology: topology(job),
    })
}

/// When a gang says that it saved its progress, in milliseconds since 1970: the last of what it and its pods say.
pub fn checkpointed(
    key: &Key,
    job: &TrainingJob,
    world: &World,
    members: &Members,
    now_ms: i64,
) -> Option<i64> {
    let own = job.metadata.annotations.as_ref().and_then(|all| all.get(names::CHECKPOINTED_AT));
    let pods = members.gang(key).filter_map(|(_, pod)| world.pods.get(pod));
    let of_pods = pods.filter_map(|pod| checkpointed_pod(pod, now_ms)).max();
    own.and_then(|text| parse(text, now_ms)).max(of_pods)
}

fn checkpointed_pod(pod: &Pod, now_ms: i64) -> Option<i64> {
    parse(pod.marks.get(names::CHECKPOINTED_AT)?, now_ms)
}

/// A time that is not in the future.
fn parse(text: &str, now_ms: i64) -> Option<i64> {
    let at: Timestamp = text.trim().parse().ok()?;
    Some(at.as_millisecond()).filter(|at_ms| *at_ms <= now_ms)
}

/// How long the workers of a gang take to leave at the latest, in milliseconds.
pub fn grace_of_gang(job: &TrainingJob) -> i64 {
    let checkpoint = job.spec.checkpoint.as_ref();
    let seconds =
        checkpoint.map_or_else(|| grace(&job.spec.template.0), |checkpoint| checkpoint.grace_seconds);
    seconds.saturating_mul(1000)
}

/// The order that a pod says it runs under.
pub fn order(key: &Key, pod: &Pod, server: Option<&InferenceJob>) -> Option<String> {
    let name = server.map_or_else(|| pod.marks.get(names::ORDER), |server| server.spec.order.as_ref());
    name.map(|name| format!("{}/{name}", key.namespace))
}

fn grace(template: &serde_json::Value) -> i64 {
    let seconds = template.get("spec").and_then(|spec| spec.get("terminationGracePeriodSeconds"));
    seconds.and_then(serde_json::Value::as_i64).unwrap_or(GRACE_SECONDS)
}

/// Whether a pod that was, or is, decided by itself may not be stopped for others.
pub fn lasts(pod: &Pod, server: Option<&InferenceJob>) -> bool {
    let said = pod.marks.get(names::PREEMPTIBLE).map(String::as_str);
    server.map_or(said == Some("false"), |server| !server.spec.preemptible)
}

/// A claim whose workload has ended and that is not deallocated yet: its devices are about to be free.
pub fn claim(key: &Key, claim: &Claim, tenant: &str, sight: Sight<'_>) -> Option<Running> {
    let devices = claim.devices();
    let node = &devices.first()?.pool;
    let names = devices.iter().map(|device| (device.pool.as_str(), device.device.as_str())).collect();
    let (pods, units) = places(sight, &[(node, vec![names])])?;
    Some(Running {
        key: format!("ResourceClaim/{}/{}", key.namespace, key.name),
        tenant: tenant.to_owned(),
        pods,
        units,
        admitted_ms: sight.now_ms,
        leaves_ms: Some(sight.now_ms.saturating_add(LETS_GO_WITHIN_MS)),
        ..Running::default()
    })
}

/// A pod that was decided by itself and holds devices, and what it needs; nothing if it holds none, or something that
/// is not known.
pub fn pod(
    key: &Key,
    pod: &Pod,
    server: Option<&InferenceJob>,
    sight: Sight<'_>,
) -> Option<(Running, Vec<AskedDevices>)> {
    let Sight { world, asked, now_ms, .. } = sight;
    let workload = pod_workload(key);
    let mut placed: Vec<Vec<(String, String)>> = Vec::new();
    let mut wishes = Vec::new();
    let (mut record, mut shared) = (None, false);
    for name in pod.claims.iter().filter_map(|claim| claim.claim.as_ref()) {
        let claim = world.claims.get(&Key::new(&key.namespace, name))?;
        let devices = claim.devices();
        if devices.is_empty() {
            continue;
        }
        let decision = claim.decision.as_ref().ok()?;
        shared |= decision.workload != workload || claim.reserved_for.len() > 1;
        if decision.workload != workload {
            continue;
        }
        let Ask::Devices(asks) = ask::of_claim(&claim.spec, &world.classes) else { return None };
        for wish in asks {
            let of_request = devices.iter().filter(|device| device.request == wish.request);
            placed.push(of_request.map(|device| (device.pool.clone(), device.device.clone())).collect());
            wishes.push(wish);
        }
        record = Some(decision);
    }
    let record = record?;
    let borrowed: Vec<Vec<(&str, &str)>> = placed
        .iter()
        .map(|devices| devices.iter().map(|(pool, device)| (pool.as_str(), device.as_str())).collect())
        .collect();
    let (pods, units) = places(sight, &[(&record.node, borrowed)])?;
    let leaves_ms = pod
        .leaves_ms
        .or_else(|| pod.ended.then_some(now_ms))
        .or_else(|| asked.get(&workload).copied())
        .map(|leaves_ms| leaves_ms.max(now_ms));
    let said = pod.marks.get(names::PREEMPTIBLE).map(String::as_str);
    let evictable = match server {
        Some(server) => server.spec.preemptible,
        // Nobody makes a pod again that has no controller.
        None => said.map_or(pod.owner.is_some(), |said| said == "true"),
    };
    let may = leaves_ms.is_none() && !shared;
    let replaceable = server.is_some_and(|server| server.spec.move_ == ReplicaMove::Replace) && pod.ready;
    let running = Running {
        key: workload,
        tenant: record.tenant.clone(),
        priority: server.map_or(pod.priority, |server| server.spec.priority),
        shape: 0,
        pods,
        units,
        waited_ms: record.start.as_millisecond().saturating_sub(pod.created_ms).max(0),
        admitted_ms: record.start.as_millisecond(),
        ends_ms: pod.ends_ms,
        saved_ms: checkpointed_pod(pod, now_ms),
        serves: server.is_some(),
        grace_ms: pod.grace_ms,
        leaves_ms,
        evictable: may && evictable,
        movable: if may && replaceable { Movable::Replace } else { Movable::No },
        topology: None,
        right: right_of(record),
    };
    Some((running, wishes))
}

/// For each pod its node and, by request, its devices as pool and name.
type Named<'a> = (&'a str, Vec<Vec<(&'a str, &'a str)>>);

/// Where that is in the layout, and what it is charged; nothing if something of it is not published.
fn places(sight: Sight<'_>, pods: &[Named<'_>]) -> Option<(Vec<PodPlacement>, Units)> {
    let mut units = 0;
    let mut find = |(pool, name): &(&str, &str)| -> Option<DeviceIndex> {
        let at = sight.layout.find(pool, name)?;
        units += sight.gpus.get(at.gpu.0 as usize)?.devices.get(usize::from(at.device))?.units;
        Some(at)
    };
    let mut placements = Vec::with_capacity(pods.len());
    for (node, requests) in pods {
        let node: NodeIndex = *sight.layout.node_index.get(*node)?;
        let devices = requests
            .iter()
            .map(|devices| devices.iter().map(&mut find).collect::<Option<Vec<_>>>())
            .collect::<Option<Vec<_>>>()?;
        placements.push(PodPlacement { node, devices });
    }
    Some((placements, units))
}

/// By what right a gang holds its devices: its claims say it, and until they are written its status.
fn right_of_gang(key: &Key, status: &TrainingJobStatus, world: &World, members: &Members) -> Right {
    let pods = members.gang(key).filter_map(|(_, pod)| Some((pod, world.pods.get(pod)?)));
    let names = pods.flat_map(|(pod, of)| {
        of.claims.iter().filter_map(|claim| Some(Key::new(&pod.namespace, claim.claim.as_ref()?)))
    });
    let mut records = names.filter_map(|name| world.claims.get(&name)?.decision.as_ref().ok());
    records.next().map_or_else(
        || if status.basis == Basis::Claimed { Right::Claimed } else { Right::Ordinary },
        right_of,
    )
}

/// By what right a claim was decided.
fn right_of(record: &DecisionRecord) -> Right {
    if record.account.ordinary_from.is_some() {
        return Right::Ordinary;
    }
    match (record.account.basis, &record.order) {
        (Basis::Claimed, _) => Right::Claimed,
        (Basis::Ordered, Some(order)) => Right::Ordered(order.clone()),
        (Basis::Ordered | Basis::Ordinary, _) => Right::Ordinary,
    }
}

#[cfg(test)]
mod tests;
