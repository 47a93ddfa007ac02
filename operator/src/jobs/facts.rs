//! What is known of a `TrainingJob`, as the facts that the core's lifecycle
//! asks for.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use vingt_core::ClaimState;
use vingt_core::lifecycle::{Failure, GangFacts, JobState, Leaving, Outcome, PodCounts, Restart};
use vingt_core::model::Topology;
use vingt_crds::{Assignment, ConditionType, RestartPolicy, TopologySpec, TrainingJob, TrainingJobStatus};

use super::template::CLAIM;
use crate::snapshot::layout::Layout;
use crate::snapshot::members::Members;
use crate::snapshot::running::checkpointed;
use crate::world::{Claim, Job, Key, Pod, World};

/// The name of a `TrainingJob` as a workload.
pub fn gang_workload(key: &Key) -> String {
    format!("TrainingJob/{}/{}", key.namespace, key.name)
}

/// Where its workers are to be close to one another.
pub fn topology(job: &TrainingJob) -> Option<Topology> {
    let TopologySpec { key, required } = job.spec.topology.as_ref()?;
    Some(Topology { label: key.clone(), required: *required })
}

/// A worker that waits at its gate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatedWorker {
    /// Its pod.
    pub pod: Key,
    /// Its completion index.
    pub index: u32,
    /// Its claim, if it is there and can be written now.
    pub claim: Option<(Key, ClaimState)>,
}

/// Which claims hold what for whom.
#[derive(Debug, Default)]
pub struct Holders {
    /// Claims with devices, by the workload they were decided for.
    by_workload: BTreeMap<String, Vec<Key>>,
    /// Claims by device.
    by_device: BTreeMap<(String, String), Vec<Key>>,
}

impl Holders {
    /// Finds all claims with devices.
    pub fn of(world: &World) -> Self {
        let mut holders = Self::default();
        for (key, claim) in world.claims.iter() {
            let devices = claim.devices();
            if devices.is_empty() {
                continue;
            }
            if let Ok(record) = &claim.decision {
                holders.by_workload.entry(record.workload.clone()).or_default().push(key.clone());
            }
            for device in devices {
                holders.by_device.entry((device.pool, device.device)).or_default().push(key.clone());
            }
        }
        holders
    }

    /// Claims that hold devices for a workload.
    pub fn claims(&self, workload: &str) -> &[Key] {
        self.by_workload.get(workload).map_or(&[], Vec::as_slice)
    }

    /// Whether a claim other than `claim` holds one of the devices of `assignment`.
    fn taken(&self, assignment: &Assignment, claim: &Key) -> bool {
        assignment.devices.iter().any(|device| {
            let holders = self.by_device.get(&(device.pool.clone(), device.device.clone()));
            holders.is_some_and(|holders| holders.iter().any(|holder| holder != claim))
        })
    }
}

/// All that is known of a gang.
#[derive(Clone, Debug, Default)]
pub struct Gang {
    /// What the core asks for.
    pub facts: GangFacts,
    /// Workers that wait at their gate.
    pub gated: Vec<GatedWorker>,
    /// Pods that hold claims of the gang and are no Job's.
    pub abandoned: Vec<Key>,
    /// Workers that are ready or have succeeded.
    pub well: u32,
    /// Nodes of workers that may start, or have started, and are not ready.
    pub unready_nodes: Vec<String>,
    /// When it says that it last saved its progress, in milliseconds since 1970.
    pub saved_ms: Option<i64>,
    /// How a worker failed, if one did.
    pub failure: Option<String>,
    /// Why a worker does not start, in the words of who cannot start it.
    pub stuck: Option<String>,
}

/// What the facts are told from.
#[derive(Clone, Copy)]
pub struct Sight<'a> {
    /// The objects.
    pub world: &'a World,
    /// The pods of the jobs.
    pub members: &'a Members,
    /// Which claims hold what.
    pub holders: &'a Holders,
    /// Where the devices are.
    pub layout: &'a Layout,
    /// The time, in milliseconds since 1970.
    pub now_ms: i64,
}

/// What is known of the gang of `job`.
pub fn of(key: &Key, job: &TrainingJob, sight: Sight<'_>) -> Gang {
    let Sight { world, members, holders, layout, now_ms } = sight;
    let spec = &job.spec;
    let no_status = TrainingJobStatus::default();
    let status = job.status.as_ref().unwrap_or(&no_status);
    let mut gang = Gang::default();
    let mut live = BTreeSet::new();
    let mut places: BTreeMap<u32, u32> = BTreeMap::new();
    for (index, pod_key) in members.gang(key) {
        if let Some(pod) = world.pods.get(pod_key).filter(|pod| !pod.deleting && !pod.ended) {
            live.insert(pod.uid.as_str());
            *places.entry(index).or_default() += 1;
        }
    }
    for (index, pod_key) in members.gang(key) {
        if let Some(pod) = world.pods.get(pod_key) {
            // Two pods for one place: the Job controller removes one, which is waited for.
            let assignment = status.assignments.iter().find(|assignment| assignment.worker == index);
            let alone = places.get(&index).is_none_or(|pods| *pods == 1);
            gang.count(pod_key, pod, world, (index, assignment.filter(|_| alone)), holders);
        }
    }
    // A worker that is done counts, also when its pod was removed since.
    let seen: BTreeSet<u32> = members.gang(key).map(|(index, _)| index).collect();
    let done = own_job(key, job, world).map(|job| job.done.as_slice()).unwrap_or_default();
    let gone = u32::try_from(done.iter().filter(|index| !seen.contains(index)).count()).unwrap_or(u32::MAX);
    gang.well += gone;
    gang.facts.pods.live += gone;
    let claims = holders.claims(&gang_workload(key));
    let stray = |key: &&Key| {
        let owner = world.claims.get(key).and_then(|claim| claim.owner.as_ref());
        owner.is_none_or(|owner| !live.contains(owner.uid.as_str()))
    };
    gang.abandoned = claims.iter().filter_map(|claim| abandoned(claim, world)).collect();
    let planned = !status.assignments.is_empty();
    let evicted =
        condition(&status.conditions, ConditionType::Evicted).filter(|condition| condition.status == "True");
    let admitted_ms = status.admitted_at.as_ref().map(|time| time.0.as_millisecond());
    let all_well = gang.well >= spec.workers;
    gang.facts = GangFacts {
        deleted: job.metadata.deletion_timestamp.is_some(),
        suspend: spec.suspend,
        workers: spec.workers,
        restart: match spec.restart_policy {
            RestartPolicy::OnFailure => Restart::OnFailure,
            RestartPolicy::Never => Restart::Never,
        },
        max_restarts: spec.max_restarts,
        ready_timeout_ms: i64::from(spec.ready_timeout_seconds) * 1000,
        active_deadline_ms: spec.active_deadline_seconds.map(|seconds| seconds.saturating_mul(1000)),
        finished: condition(&status.conditions, ConditionType::Finished)
            .filter(|condition| condition.status == "True")
            .map(|condition| outcome(&condition.reason)),
        restarts: status.restarts,
        planned,
        leaving: evicted.filter(|_| planned).map(|condition| leaving(&condition.reason)),
        admitted_ms,
        first_admitted_ms: status
            .first_admitted_at
            .as_ref()
            .map(|time| time.0.as_millisecond())
            .or(admitted_ms),
        unready_since_ms: (planned && !all_well).then(|| {
            let since = match condition(&status.conditions, ConditionType::PodsReady) {
                // It has just stopped being ready, which is not written yet.
                Some(condition) if condition.status == "True" => now_ms,
                Some(condition) => condition.last_transition_time.0.as_millisecond(),
                None => 0,
            };
            since.max(admitted_ms.unwrap_or(0))
        }),
        job: job_state(key, job, world),
        pods: gang.facts.pods,
        claims_held: u32::try_from(claims.len()).unwrap_or(u32::MAX),
        claims_stray: u32::try_from(claims.iter().filter(stray).count()).unwrap_or(u32::MAX),
        abandoned: u32::try_from(gang.abandoned.len()).unwrap_or(u32::MAX),
        plan_lost: status.assignments.iter().any(|assignment| lost(assignment, world, layout)),
        asked: None,
    };
    gang.saved_ms = checkpointed(key, job, world, members, now_ms);
    gang
}

impl Gang {
    fn count(
        &mut self,
        key: &Key,
        pod: &Pod,
        world: &World,
        (index, assignment): (u32, Option<&Assignment>),
        holders: &Holders,
    ) {
        let pods: &mut PodCounts = &mut self.facts.pods;
        let gated = pod.gated();
        if !pod.ended {
            pods.present += 1;
        }
        if let Some(failure) = &pod.failure {
            self.failure.get_or_insert_with(|| format!("worker {index}: {failure}"));
            return;
        }
        if pod.deleting {
            return;
        }
        pods.live += 1;
        if let Some((message, _)) = &pod.unschedulable
            && !gated
            && pod.node.is_none()
        {
            self.stuck = Some(format!("kube-scheduler cannot place worker {index}: {message}"));
        }
        if pod.ended || pod.ready {
            self.well += 1;
        } else if !gated {
            // One that kube-scheduler refuses is on no node; the plan says where it was to go.
            let node = pod.node.as_ref().or(assignment.map(|assignment| &assignment.node));
            if let Some(node) = node.filter(|node| !self.unready_nodes.contains(node)) {
                self.unready_nodes.push(node.clone());
            }
        }
        if !gated {
            return;
        }
        pods.gated += 1;
        let claim = assignment.and_then(|assignment| worker_claim(key, pod, world, assignment, holders));
        match claim.as_ref().map(|(_, state)| state) {
            None => pods.claim_missing += 1,
            Some(ClaimState::Undecided | ClaimState::Recorded) => pods.claim_unwritten += 1,
            Some(ClaimState::Other) => pods.claim_conflicting += 1,
            Some(ClaimState::Allocated) => {}
        }
        if !pod.gated_by_us_alone() {
            self.stuck =
                Some(format!("other scheduling gates hold worker {index}: {}", pod.gates.join(", ")));
        }
        self.gated.push(GatedWorker { pod: key.clone(), index, claim });
    }
}

/// The claim of a gated worker and how far it is; none while it cannot be written yet.
fn worker_claim(
    key: &Key,
    pod: &Pod,
    world: &World,
    assignment: &Assignment,
    holders: &Holders,
) -> Option<(Key, ClaimState)> {
    if !pod.gated_by_us_alone() {
        return None;
    }
    let name = pod.claims.iter().find(|claim| claim.name == CLAIM)?.claim.as_ref()?;
    let claim_key = Key::new(&key.namespace, name);
    let claim = world.claims.get(&claim_key).filter(|claim| !claim.deleting)?;
    // A claim of that name that was not made for this pod is none of its own.
    if claim.owner.as_ref().is_none_or(|owner| owner.uid != pod.uid) {
        return None;
    }
    let state = claim_state(claim, assignment, pod);
    // The worker before may still be leaving the device.
    if matches!(state, ClaimState::Undecided | ClaimState::Recorded) && holders.taken(assignment, &claim_key)
    {
        return None;
    }
    Some((claim_key, state))
}

fn claim_state(claim: &Claim, assignment: &Assignment, pod: &Pod) -> ClaimState {
    let as_planned = claim.decision.as_ref().is_ok_and(|record| record.devices == assignment.devices);
    if claim.allocation.is_some() {
        let ours = as_planned && claim.allocated() == assignment.devices && claim.is_reserved_for(&pod.uid);
        return if ours { ClaimState::Allocated } else { ClaimState::Other };
    }
    match claim.decided() {
        Some(_) if as_planned => ClaimState::Recorded,
        Some(_) => ClaimState::Other,
        None => ClaimState::Undecided,
    }
}

/// The pod that a claim was made for, if it lives and is nobody's. A Job's pod is nobody's once the
/// Job was deleted without it, and never before: its owner is written together with the pod.
fn abandoned(claim: &Key, world: &World) -> Option<Key> {
    let owner = world.claims.get(claim)?.owner.as_ref()?;
    let key = Key::new(&claim.namespace, &owner.name);
    let pod = world.pods.get(&key)?;
    let lives = !pod.ended && !pod.deleting && pod.uid == owner.uid;
    (lives && pod.owner.is_none()).then_some(key)
}

/// The Job that was made for it.
fn own_job<'a>(key: &Key, training: &TrainingJob, world: &'a World) -> Option<&'a Job> {
    let uid = training.metadata.uid.as_deref();
    let job = world.jobs.get(key)?;
    (job.owner.as_ref().map(|owner| owner.uid.as_str()) == uid).then_some(job.as_ref())
}

fn job_state(key: &Key, training: &TrainingJob, world: &World) -> JobState {
    let Some(job) = own_job(key, training, world) else { return JobState::None };
    match &job.ended {
        _ if job.deleting => JobState::Deleting,
        Some((reason, _)) if reason.is_empty() => JobState::Succeeded,
        Some(_) => JobState::Failed,
        None if job.suspended => JobState::Suspended,
        None => JobState::Running,
    }
}

/// Whether the node of a worker, or a device of it, is gone. A pool that is not
/// complete says nothing: its agent may be restarting.
fn lost(assignment: &Assignment, world: &World, layout: &Layout) -> bool {
    if world.nodes.get(&Key::new("", &assignment.node)).is_none() {
        return true;
    }
    let Some(node) = layout.node_index.get(&assignment.node) else { return false };
    layout.complete[node.0 as usize]
        && assignment.devices.iter().any(|device| layout.find(&device.pool, &device.device).is_none())
}

/// The condition of that type.
pub fn condition(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|condition| condition.type_ == type_.as_str())
}

/// Reasons of the condition Evicted.
pub fn leaving_reason(leaving: Leaving) -> &'static str {
    match leaving {
        Leaving::NotReady => "NotReady",
        Leaving::PlanLost => "PlanLost",
        Leaving::ClaimTaken => "ClaimTaken",
        Leaving::Suspended => "Suspended",
        Leaving::Restart => "Restart",
        Leaving::Reclaimed => "Reclaimed",
        Leaving::Preempted => "Preempted",
        Leaving::Claimed => "Claimed",
        Leaving::Moved => "Moved",
    }
}

fn leaving(reason: &str) -> Leaving {
    let own =
        [Leaving::NotReady, Leaving::PlanLost, Leaving::ClaimTaken, Leaving::Suspended, Leaving::Restart];
    let for_others = [Leaving::Reclaimed, Leaving::Preempted, Leaving::Claimed, Leaving::Moved];
    own.into_iter()
        .chain(for_others)
        .find(|leaving| leaving_reason(*leaving) == reason)
        .unwrap_or(Leaving::NotReady)
}

/// Reasons of the condition Finished.
pub fn outcome_reason(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "Succeeded",
        Outcome::Failed(Failure::WorkerFailed) => "WorkerFailed",
        Outcome::Failed(Failure::DeadlineExceeded) => "DeadlineExceeded",
    }
}

fn outcome(reason: &str) -> Outcome {
    let failures = [Failure::WorkerFailed, Failure::DeadlineExceeded].map(Outcome::Failed);
    let all = [Outcome::Succeeded].into_iter().chain(failures);
    all.into_iter()
        .find(|outcome| outcome_reason(*outcome) == reason)
        .unwrap_or(Outcome::Failed(Failure::WorkerFailed))
}

#[cfg(test)]
mod tests;
