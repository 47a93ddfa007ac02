//! `TrainingJobs`: carries out the steps that the core's lifecycle wants, and
//! writes what their status says.

use std::sync::Arc;

use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use vingt_core::ClaimState;
use vingt_core::lifecycle::{GangStep, JobState, Leaving, next_step};
use vingt_core::model::{Admission, Snapshot, Workload};
use vingt_crds::{Assignment, DecidedDevice, DecisionRecord, TrainingJob};

use super::api::{Failure, Target, Writer};
use super::bind::{self, BindClaim, OpenGate};
use super::events::{Announcement, job_reference};
use super::evict::Beneficiary;
use super::pods::{basis, one, order_of, reread};
use super::queue::remove_finalizer;
use super::{Engine, ensure};
use crate::jobs::facts::{self, Gang, GatedWorker, Holders, Sight, gang_workload};
use crate::jobs::objects::{self, Parent};
use crate::jobs::status::{self, Record};
use crate::jobs::template::claim_template_name;
use crate::snapshot::members::Members;
use crate::snapshot::occupancy::{Pending, PendingPod};
use crate::snapshot::{Picture, Subject};
use crate::tenants::Tenancy;
use crate::world::{Change, GRACE_SECONDS, Job, Key, Owned, ServiceKind, TemplateKind};

/// How long the pods of a Job may take to be made without a word.
const PODS_WITHIN_MS: i64 = 15_000;

/// A `TrainingJob` in one cycle.
pub(super) struct Tracked {
    key: Key,
    job: Arc<TrainingJob>,
    gang: Gang,
    step: GangStep,
    /// What is to be said in its status.
    record: Record,
    /// The plan that was just made for it.
    pending: Option<Pending>,
    /// Who gets its room, if it was just asked to leave for others.
    by: Option<Beneficiary>,
}

impl Tracked {
    /// Its key.
    pub(super) fn key(&self) -> &Key {
        &self.key
    }

    /// Whether its Job runs and has not made all pods after a while.
    fn lacks_pods(&self, now_ms: i64) -> bool {
        self.gang.facts.pods.live < self.gang.facts.workers && self.takes_long(now_ms)
    }

    /// Whether the claims of its pods cannot be written after a while.
    fn lacks_claims(&self, now_ms: i64) -> bool {
        self.gang.facts.pods.claim_missing > 0 && self.takes_long(now_ms)
    }

    fn takes_long(&self, now_ms: i64) -> bool {
        let facts = &self.gang.facts;
        let started_ms = facts.admitted_ms.unwrap_or(now_ms);
        let waits = facts.planned && facts.leaving.is_none() && facts.job == JobState::Running;
        waits && now_ms.saturating_sub(started_ms) > PODS_WITHIN_MS
    }

    /// Takes the plan for it.
    pub(super) fn admit(&mut self, admission: &Admission, workload: &Workload, snapshot: &Snapshot) {
        let mut pending = Pending { tenant: workload.tenant.clone(), pods: vec![] };
        let mut assignments = Vec::with_capacity(admission.pods.len());
        for (worker, placement) in (0..).zip(&admission.pods) {
            let node = &snapshot.nodes[placement.node.0 as usize].name;
            let placed = placement.devices.iter().flatten();
            let placed = placed.map(|at| &snapshot.gpus[at.gpu.0 as usize].devices[usize::from(at.device)]);
            let units = placed.clone().map(|device| device.units).sum();
            let devices: Vec<String> = placed.map(|device| device.name.clone()).collect();
            let decided = |device: &String| DecidedDevice {
                request: "gpu".into(),
                pool: node.clone(),
                device: device.clone(),
            };
            assignments.push(Assignment {
                worker,
                node: node.clone(),
                devices: devices.iter().map(decided).collect(),
                units,
            });
            pending.pods.push(PendingPod {
                pod: None,
                node: node.clone(),
                devices,
                requests: snapshot.shape_of(workload).resources.clone(),
            });
        }
        self.record = Record::Admit(assignments, basis(&admission.right));
        self.pending = Some(pending);
    }

    /// Asks it to leave for another workload, unless something else is to be done with it first.
    pub(super) fn ask(&mut self, reason: Leaving, by: Beneficiary, now_ms: i64) {
        self.gang.facts.asked = Some(reason);
        let step = next_step(&self.gang.facts, now_ms);
        if step == (GangStep::Withdraw { reason, avoid: false }) {
            self.step = step;
            self.by = Some(by);
        }
    }
}

impl Engine {
    /// Finds out how far every gang is; those in the queue are entered into the picture.
    pub(super) fn track_gangs(
        &mut self,
        picture: &mut Picture,
        tenancy: &Tenancy,
        members: &Members,
        now_ms: i64,
    ) -> Vec<Tracked> {
        let holders = Holders::of(&self.world);
        let jobs: Vec<_> =
            self.world.training_jobs.iter().map(|(key, job)| (key.clone(), job.clone())).collect();
        let mut tracked = Vec::with_capacity(jobs.len());
        for (key, job) in jobs {
            if self.pending.contains_key(&gang_workload(&key)) {
                continue;
            }
            let (world, layout) = (&self.world, &self.layout);
            let sight = Sight { world, members, holders: &holders, layout, now_ms };
            let gang = facts::of(&key, &job, sight);
            let step = next_step(&gang.facts, now_ms);
            let mut it = Tracked { key, job, gang, step, record: Record::Nothing, pending: None, by: None };
            let workload = gang_workload(&it.key);
            let paused = self.paused(&workload) || self.paused(&format!("{workload}/status"));
            if it.step == GangStep::Queue && !paused {
                it.record = match self.queue(&it.key, &it.job, tenancy, now_ms) {
                    Ok(Some((workload, shape))) => {
                        picture.enter(Subject::Gang(it.key.clone()), workload, shape);
                        Record::Nothing
                    }
                    Ok(None) => Record::Nothing,
                    Err(record) => record,
                };
            }
            tracked.push(it);
        }
        picture.snapshot.device_sets.clone_from(&self.layout.sets);
        tracked
    }

    /// Carries out what follows for one gang.
    pub(super) fn follow_gang(
        &mut self,
        mut it: Tracked,
        waits: Option<&String>,
        tenancy: &Tenancy,
        now_ms: i64,
    ) {
        match it.step {
            GangStep::Queue => {
                if let (Record::Nothing, Some(why)) = (&it.record, waits) {
                    it.record = Record::Waits(why.clone());
                } else if it.record == Record::Nothing {
                    return; // It is being checked.
                }
            }
            GangStep::Withdraw { reason, avoid } => {
                let avoid = if avoid { it.gang.unready_nodes.clone() } else { vec![] };
                let by = it.by.as_ref().map(|by| by.workload.clone());
                it.record = Record::Withdraw { reason, avoid, by };
            }
            GangStep::Restart => it.record = Record::Restart,
            GangStep::ClearPlan => it.record = Record::Clear,
            GangStep::Finish(outcome) => it.record = Record::Finish(outcome),
            GangStep::Wait { until_ms } => {
                if let Some(until) = until_ms {
                    self.look_again_at_ms(until);
                }
            }
            GangStep::CreateJob
            | GangStep::Resume
            | GangStep::Bind
            | GangStep::Ungate
            | GangStep::Suspend
            | GangStep::DeleteJob
            | GangStep::DeleteAbandoned
            | GangStep::Release => self.act(&it),
        }
        if it.gang.stuck.is_none() {
            let refusal = self.refusals.get(&gang_workload(&it.key));
            it.gang.stuck = refusal.map(|failure| failure.words().to_owned());
        }
        if it.gang.stuck.is_none() && it.lacks_pods(now_ms) {
            let job = &it.key.name;
            it.gang.stuck =
                Some(format!("its pods are not being made: `kubectl describe job {job}` says why"));
        }
        if it.gang.stuck.is_none() && it.lacks_claims(now_ms) {
            let missing = it.gang.facts.pods.claim_missing;
            it.gang.stuck = Some(format!(
                "the ResourceClaims of {missing} workers are not made yet, or their devices are not free yet"
            ));
        }
        if it.step != GangStep::Release {
            self.tell_gang(it, tenancy, now_ms);
        }
    }

    /// Starts the writes of a step that is more than a word in the status.
    fn act(&mut self, it: &Tracked) {
        let workload = gang_workload(&it.key);
        if !self.free(&workload) {
            return;
        }
        let (key, job) = (it.key.clone(), it.job.clone());
        let target = Target::object::<batch::Job>(&key);
        let current = self.world.jobs.get(&key).map(|job| job.uid.clone()).unwrap_or_default();
        match it.step {
            GangStep::CreateJob => {
                self.start(workload, |writer| async move { create(&writer, &key, &job).await });
            }
            GangStep::Resume => {
                self.start(workload, |writer| async move { resume(&writer, &key, &job, &current).await });
            }
            GangStep::Suspend => {
                let patch = suspend(&current, true);
                self.start(workload, |writer| async move { one(writer.merge::<Job>(&target, &patch).await) });
            }
            GangStep::DeleteJob => {
                self.start(
                    workload,
                    |writer| async move { (vec![], writer.delete(&target, &current).await) },
                );
            }
            GangStep::DeleteAbandoned => self.delete_abandoned(it, workload),
            GangStep::Bind => self.bind_gang(it, workload),
            GangStep::Ungate => self.open_gang(it, workload),
            GangStep::Release => {
                let patch = remove_finalizer(&job);
                let target = Target::object::<TrainingJob>(&key);
                self.start(workload, |writer| async move {
                    one(writer.merge::<TrainingJob>(&target, &patch).await)
                });
            }
            _ => {}
        }
    }

    fn delete_abandoned(&mut self, it: &Tracked, workload: String) {
        let uid = |key: &Key| Some((key.clone(), self.world.pods.get(key)?.uid.clone()));
        let pods: Vec<(Key, String)> = it.gang.abandoned.iter().filter_map(uid).collect();
        tracing::info!(job = %it.key, pods = pods.len(), "workers that their Job left behind are deleted");
        self.start(workload, |writer| async move {
            for (key, uid) in &pods {
                if let Err(failure) = writer.delete(&Target::object::<core::Pod>(key), uid).await {
                    return (vec![], Err(failure));
                }
            }
            (vec![], Ok(()))
        });
    }

    fn bind_gang(&mut self, it: &Tracked, workload: String) {
        let Some(status) = &it.job.status else { return };
        // Each claim is charged from its own record on: a worker may have been made anew.
        let now = Timestamp::from_millisecond(super::now_ms()).unwrap_or_default();
        let mut claims = Vec::new();
        for GatedWorker { pod: pod_key, index, claim } in &it.gang.gated {
            let Some((claim_key, ClaimState::Undecided | ClaimState::Recorded)) = claim else { continue };
            let (Some(pod), Some(claim)) = (self.world.pods.get(pod_key), self.world.claims.get(claim_key))
            else {
                return;
            };
            let Some(assignment) = status.assignments.iter().find(|assignment| assignment.worker == *index)
            else {
                return;
            };
            let record = DecisionRecord {
                version: DecisionRecord::VERSION,
                claim: claim.uid.clone(),
                node: assignment.node.clone(),
                devices: assignment.devices.clone(),
                units: assignment.units,
                tenant: status.tenant.clone(),
                workload: workload.clone(),
                start: now,
                order: order_of(&it.key, &it.job),
                account: self.account_of(&assignment.devices, &status.tenant, status.basis),
            };
            let known = claim.decided().filter(|known| known.decides_as(&record));
            let record = known.cloned().unwrap_or(record);
            claims.push(BindClaim::new(claim_key, claim, record, (pod_key, pod), &self.world.classes));
        }
        let touched: Vec<Key> = claims.iter().map(|claim| claim.key().clone()).collect();
        let others = self.world.claims.iter().filter(|(key, _)| !touched.contains(key));
        let held = others.flat_map(|(_, claim)| claim.devices());
        let planned = claims.iter().flat_map(|claim| claim.devices().to_vec());
        if let Some(gpu) = self.layout.overfull(planned, held) {
            // It never should be: the plan holds its devices. The gang is withdrawn when its time is over.
            tracing::error!(job = %it.key, %gpu, "the plan overlaps what others hold and is not carried out");
            return;
        }
        tracing::info!(job = %it.key, claims = claims.len(), "the claims of the gang are written");
        self.start(workload, |writer| async move {
            let mut changes = Vec::new();
            let result = bind::write_claims(&writer, claims, &mut changes).await;
            if result.is_err() {
                reread(&writer, &touched, &[], &mut changes).await;
            }
            (changes, result)
        });
    }

    fn open_gang(&mut self, it: &Tracked, workload: String) {
        let Some(status) = &it.job.status else { return };
        let mut gates = Vec::new();
        let mut touched = Vec::new();
        for worker in &it.gang.gated {
            let Some(pod) = self.world.pods.get(&worker.pod) else { return };
            let Some(assignment) =
                status.assignments.iter().find(|assignment| assignment.worker == worker.index)
            else {
                return;
            };
            gates.push(OpenGate::pinned(&worker.pod, pod, &assignment.node));
            touched.push(worker.pod.clone());
        }
        tracing::info!(job = %it.key, pods = gates.len(), "the gang starts");
        self.start(workload, |writer| async move {
            let mut changes = Vec::new();
            let result = bind::open_gates(&writer, gates, &mut changes).await;
            if result.is_err() {
                reread(&writer, &[], &touched, &mut changes).await;
            }
            (changes, result)
        });
    }

    /// Writes the status if it says something new.
    fn tell_gang(&mut self, it: Tracked, tenancy: &Tenancy, now_ms: i64) {
        let now = Timestamp::from_millisecond(now_ms).unwrap_or_default();
        let old = it.job.status.clone().unwrap_or_default();
        let mut new = status::next(&it.job, &it.gang, tenancy.tenant(&it.key.namespace), &it.record, now);
        if new.waiting_since.is_some() {
            let workload = gang_workload(&it.key);
            new.expected_start = self.forecasts.say(&workload, old.expected_start.as_ref(), now_ms);
        }
        if Some(&new) == it.job.status.as_ref() {
            return;
        }
        let workload = gang_workload(&it.key);
        let object = format!("{workload}/status");
        // What makes a plan, or lets go of it, is not written beside anything that follows from a plan.
        let alone = matches!(it.record, Record::Admit(..) | Record::Finish(_) | Record::Clear);
        let free =
            if alone { self.free(&object) && self.free(&workload) } else { self.free_for_words(&object) };
        if !free {
            return;
        }
        let only_words = matches!(it.record, Record::Waits(_)) && old.state == new.state;
        if only_words && !self.may_tell(&workload, false) {
            return;
        }
        self.announce_gang(&it, &object, &old, &new);
        if let Some(by) = &it.by {
            let grace_ms =
                it.job.spec.checkpoint.as_ref().map_or(GRACE_SECONDS, |it| it.grace_seconds) * 1000;
            self.remember_asked(&workload, now_ms.saturating_add(grace_ms));
            let note = format!("TrainingJob/{} leaves: {}", it.key, new.why);
            self.announce(&object, Announcement::normal(by.about.clone(), "MakingRoom", "Evict", note));
        }
        let body = json!({
            "apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {
                "name": it.key.name, "namespace": it.key.namespace,
                "uid": it.job.metadata.uid, "resourceVersion": it.job.metadata.resource_version,
            },
            "status": new,
        });
        let target = Target::status::<TrainingJob>(&it.key).settled();
        let write = |writer: Writer| async move {
            let result = writer.apply::<TrainingJob>(&target, &body).await;
            let mut changes = Vec::new();
            if result.is_err() {
                let object = Target::object::<TrainingJob>(&target.key);
                changes.extend(writer.reread::<TrainingJob>(&object).await);
            }
            let (change, result) = one(result);
            changes.extend(change);
            (changes, result)
        };
        let objects = if alone { vec![object, workload.clone()] } else { vec![object] };
        match it.pending {
            Some(pending) => self.start_decision(workload, objects, pending, write),
            None => self.start_all(objects, write),
        }
    }

    fn announce_gang(
        &mut self,
        it: &Tracked,
        object: &str,
        old: &vingt_crds::TrainingJobStatus,
        new: &vingt_crds::TrainingJobStatus,
    ) {
        match &it.record {
            Record::Admit(..) => self.metrics.decisions.with_label_values(&["TrainingJob"]).inc(),
            Record::Withdraw { reason, by: Some(_), .. } => self.count_eviction(*reason, it.by.as_ref()),
            Record::Withdraw { reason, .. } => {
                self.metrics.take_backs.with_label_values(&[facts::leaving_reason(*reason)]).inc();
            }
            Record::Restart => self.metrics.take_backs.with_label_values(&["Restart"]).inc(),
            _ => {}
        }
        if old.state == new.state {
            return;
        }
        tracing::info!(job = %it.key, from = %old.state, to = %new.state, why = %new.why, nodes = %new.nodes, "state");
        let about = job_reference("TrainingJob", &it.key, &it.job.metadata);
        let note = match (new.why.as_str(), new.nodes.as_str()) {
            ("", "") => new.state.clone(),
            ("", nodes) => format!("{} of {} on {nodes}", new.workers, new.gpu),
            (why, _) => why.to_owned(),
        };
        let reason = if it.by.is_some() { "Evicted" } else { new.state.as_str() };
        let announcement = if matches!(new.state.as_str(), "Starting" | "Running" | "Succeeded" | "Suspended")
        {
            Announcement::normal(about, reason, "Reconcile", note)
        } else {
            Announcement::warning(about, reason, "Reconcile", note)
        };
        self.announce(object, announcement);
    }
}

/// Makes the Job, and what its pods need.
async fn create(writer: &Writer, key: &Key, job: &TrainingJob) -> (Vec<Change>, Result<(), Failure>) {
    let mut changes = Vec::new();
    let result = async {
        let uid = prepare(writer, key, job, &mut changes).await?;
        let object = objects::job(job).map_err(Failure::Refused)?;
        changes.push(ensure::<Job>(writer, &Target::object::<batch::Job>(key), &object, &uid).await?);
        Ok(())
    }
    .await;
    (changes, result)
}

/// Has the Job make its pods; what they need is made again if it was deleted.
async fn resume(
    writer: &Writer,
    key: &Key,
    job: &TrainingJob,
    current: &str,
) -> (Vec<Change>, Result<(), Failure>) {
    let mut changes = Vec::new();
    let result = async {
        prepare(writer, key, job, &mut changes).await?;
        let target = Target::object::<batch::Job>(key);
        changes.push(writer.merge::<Job>(&target, &suspend(current, false)).await?);
        Ok(())
    }
    .await;
    (changes, result)
}

fn suspend(uid: &str, suspend: bool) -> Value {
    json!({"metadata": {"uid": uid}, "spec": {"suspend": suspend}})
}

/// Makes what the pods need, unless it is there; returns the UID of the owner.
async fn prepare(
    writer: &Writer,
    key: &Key,
    job: &TrainingJob,
    changes: &mut Vec<Change>,
) -> Result<String, Failure> {
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let parent = Parent::training(job);
    let template_key = Key::new(&key.namespace, &claim_template_name(&key.name));
    let target = Target::object::<ResourceClaimTemplate>(&template_key);
    let template = parent.claim_template(&job.spec.gpu);
    changes.push(ensure::<Owned<TemplateKind>>(writer, &target, &template, &uid).await?);
    let target = Target::object::<core::Service>(key);
    changes.push(ensure::<Owned<ServiceKind>>(writer, &target, &parent.service(None), &uid).await?);
    Ok(uid)
}

#[cfg(test)]
pub(super) mod tests;
