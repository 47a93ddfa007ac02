//! Replicas that are moved: one more is started at a place that is kept for it;
//! when it is ready, the chosen one goes. What is under way is in the server's
//! status before anything is done, so that a new leader goes on or undoes it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::time::Instant;
use vingt_core::model::Plan;
use vingt_crds::{InferenceJob, MoveState};

use super::Engine;
use super::api::Target;
use super::events::{Announcement, job_reference};
use super::pods::one;
use super::running::Place;
use crate::jobs::moves::{MoveFacts, MoveStep, READY_WITHIN_MS, next_move};
use crate::jobs::objects::replicas;
use crate::snapshot::Picture;
use crate::snapshot::members::Members;
use crate::snapshot::occupancy::{Pending, PendingPod, newcomer};
use crate::snapshot::pods::pod_workload;
use crate::snapshot::running::Holder;
use crate::world::{DELETION_COST, Key, Pod};

/// How long the replicas of a server stay where they are after a move came to nothing.
const REST: Duration = Duration::from_secs(900);
/// Thousandths of a move.
const ONE_MOVE: u64 = 1000;
/// Moves that may be saved up.
const SAVED_UP: u64 = 10 * ONE_MOVE;

/// What is remembered of moves; losing it costs at most a move too many.
#[derive(Debug)]
pub(super) struct Moves {
    /// Moves that may be made, in thousandths: what starts earns them.
    earned: u64,
    /// Servers that stay where they are for a while.
    resting: BTreeMap<Key, Instant>,
}

impl Default for Moves {
    fn default() -> Self {
        Self { earned: ONE_MOVE, resting: BTreeMap::new() }
    }
}

impl Moves {
    /// Moves that may be made now.
    pub(super) fn left(&self) -> u32 {
        u32::try_from(self.earned / ONE_MOVE).unwrap_or(u32::MAX)
    }

    /// Something started.
    pub(super) fn earn(&mut self, admissions: usize, per_thousand: u32) {
        let earned = u64::try_from(admissions).unwrap_or(u64::MAX).saturating_mul(per_thousand.into());
        self.earned = self.earned.saturating_add(earned).min(SAVED_UP);
    }

    /// Something is moved.
    pub(super) fn spend(&mut self) {
        self.earned = self.earned.saturating_sub(ONE_MOVE);
    }
}

fn state(job: &InferenceJob) -> Option<&MoveState> {
    job.status.as_ref()?.move_.as_ref()
}

impl Engine {
    /// Whether a replica of the server may be moved: all are as they should be, and none is on its way.
    pub(super) fn may_move(&self, key: &Key, job: &InferenceJob) -> bool {
        let rests = self.moves.resting.get(key).is_some_and(|until| *until > Instant::now());
        let wanted = replicas(job);
        let steady = self.world.deployments.get(key).is_some_and(|deployment| {
            deployment.rolled_out && !deployment.deleting && u32::try_from(deployment.replicas) == Ok(wanted)
        });
        let ready = job.status.as_ref().is_some_and(|status| status.ready_replicas >= wanted);
        let stopped = job.spec.suspend || job.metadata.deletion_timestamp.is_some();
        steady && ready && !rests && !stopped && state(job).is_none()
    }

    /// The replicas that are on their way, and when they have gone at the latest.
    pub(super) fn moving(&self, now_ms: i64) -> Vec<(String, i64)> {
        let moving = |(key, job): (&Key, &Arc<InferenceJob>)| {
            let state = state(job)?;
            let pod = Key::new(&key.namespace, &state.pod);
            let grace_ms = self.world.pods.get(&pod).map_or(0, |pod| pod.grace_ms);
            let ready_ms = state.started_at.0.as_millisecond().saturating_add(READY_WITHIN_MS);
            let ready_ms = if state.leaving { now_ms } else { ready_ms.max(now_ms) };
            Some((pod_workload(&pod), ready_ms.saturating_add(grace_ms)))
        };
        self.world.inference_jobs.iter().filter_map(moving).collect()
    }

    /// The places that are kept for new replicas, by workload.
    pub(super) fn move_places(&self, members: &Members) -> BTreeMap<String, Vec<Place>> {
        let place = |(key, job): (&Key, &Arc<InferenceJob>)| {
            let state = state(job).filter(|state| !state.leaving)?;
            let (new, _) = newcomer(key, state, &self.world, members)?;
            let devices = state.devices.iter().map(|device| device.device.clone()).collect();
            Some((pod_workload(new), vec![Place { node: state.node.clone(), devices: vec![devices] }]))
        };
        self.world.inference_jobs.iter().filter_map(place).collect()
    }

    /// Records the moves that the plan wants.
    pub(super) fn begin_moves(&mut self, picture: &Picture, plan: &Plan, members: &Members, now_ms: i64) {
        for replacement in &plan.replacements {
            let Some(Holder::Pod(key)) = picture.holders.get(replacement.running) else { continue };
            let Some(server) = members.server_of(key).cloned() else { continue };
            let (Some(pod), Some(job), Some(by)) = (
                self.world.pods.get(key).cloned(),
                self.world.inference_jobs.get(&server).cloned(),
                self.beneficiary(picture, replacement.by),
            ) else {
                continue;
            };
            let object = format!("InferenceJob/{server}/status");
            let workload = format!("Move/{server}");
            if !self.may_move(&server, &job) || !self.free(&object) || self.moves.left() == 0 {
                continue;
            }
            let Place { node, devices } = Place::of(&replacement.to, &picture.snapshot);
            let devices: Vec<String> = devices.into_iter().flatten().collect();
            let decided = |device: &String| json!({"request": "gpu", "pool": node, "device": device});
            let started_at = Timestamp::from_millisecond(now_ms).unwrap_or_default();
            let body = patch(
                &job,
                &json!({
                    "pod": key.name, "podUid": pod.uid, "by": by.workload, "startedAt": started_at, "node": node,
                    "devices": devices.iter().map(decided).collect::<Vec<_>>(), "leaving": false,
                }),
            );
            tracing::info!(pod = %key, by = %by.workload, %node, "a replica is moved");
            self.moves.spend();
            self.metrics.moves.with_label_values(&["started"]).inc();
            let until_ms = now_ms.saturating_add(READY_WITHIN_MS);
            self.remember_asked(&pod_workload(key), until_ms);
            let why =
                format!("replica {} gets another in its stead on {node}, for {}", key.name, by.workload);
            let about = job_reference("InferenceJob", &server, &job.metadata);
            self.announce(&object, Announcement::normal(about, "Moving", "Move", why.clone()));
            self.announce(&object, Announcement::normal(by.about, "MakingRoom", "Move", why));
            let requests = pod.requests.clone();
            let tenant = picture.snapshot.running[replacement.running].tenant.clone();
            let pending = Pending { tenant, pods: vec![PendingPod { pod: None, node, devices, requests }] };
            let target = Target::status::<InferenceJob>(&server).settled();
            self.start_decision(workload, vec![object], pending, |writer| async move {
                one(writer.merge::<InferenceJob>(&target, &body).await)
            });
        }
    }

    /// Carries moves on.
    pub(super) fn follow_moves(&mut self, members: &Members, now_ms: i64) {
        let now = Instant::now();
        self.moves.resting.retain(|_, until| *until > now);
        let jobs = self.world.inference_jobs.iter().filter(|(_, job)| state(job).is_some());
        let jobs: Vec<_> = jobs.map(|(key, job)| (key.clone(), job.clone())).collect();
        for (key, job) in jobs {
            let Some(state) = state(&job) else { continue };
            let old_key = Key::new(&key.namespace, &state.pod);
            let old = self.world.pods.get(&old_key).filter(|pod| pod.uid == state.pod_uid && !pod.deleting);
            let ready = members.replicas(&key).iter().filter(|pod| **pod != old_key);
            let ready =
                ready.filter_map(|pod| self.world.pods.get(pod)).filter(|pod| pod.ready && !pod.deleting);
            let facts = MoveFacts {
                stopped: job.spec.suspend || job.metadata.deletion_timestamp.is_some(),
                started_ms: state.started_at.0.as_millisecond(),
                leaving: state.leaving,
                there: old.is_some_and(|pod| !pod.ended),
                marked: old.is_some_and(|pod| pod.marks.contains_key(DELETION_COST)),
                wanted: replicas(&job),
                others_ready: u32::try_from(ready.count()).unwrap_or(u32::MAX),
            };
            let old = old.cloned();
            let step = next_move(&facts, now_ms);
            self.carry_move_on(&key, &job, (&old_key, old.as_deref()), step);
        }
    }

    fn carry_move_on(
        &mut self,
        key: &Key,
        job: &Arc<InferenceJob>,
        (old_key, old): (&Key, Option<&Pod>),
        step: MoveStep,
    ) {
        let object = format!("InferenceJob/{key}/status");
        let workload = pod_workload(old_key);
        let mark = |cost: Value| {
            old.map(|pod| json!({"metadata": {"uid": pod.uid, "annotations": {DELETION_COST: cost}}}))
        };
        let target = Target::status::<InferenceJob>(key).settled();
        let pod_target = Target::object::<core::Pod>(old_key);
        match step {
            MoveStep::Wait { until_ms } => self.look_again_at_ms(until_ms),
            MoveStep::Mark => {
                let Some(patch) = mark(json!("-1000")).filter(|_| self.free(&workload)) else { return };
                self.start(
                    workload,
                    |writer| async move { one(writer.merge::<Pod>(&pod_target, &patch).await) },
                );
            }
            MoveStep::Leave => {
                if self.free(&object) {
                    let body = patch(job, &json!({"leaving": true}));
                    self.start(object, |writer| async move {
                        one(writer.merge::<InferenceJob>(&target, &body).await)
                    });
                }
            }
            MoveStep::End { moved } => {
                if !self.free(&object) || !self.free(&workload) {
                    return;
                }
                let outcome = if moved { "done" } else { "undone" };
                tracing::info!(server = %key, pod = %old_key, outcome, "a move has ended");
                self.metrics.moves.with_label_values(&[outcome]).inc();
                if !moved {
                    self.moves.resting.insert(key.clone(), Instant::now() + REST);
                    let about = job_reference("InferenceJob", key, &job.metadata);
                    let why = format!(
                        "replica {} stays where it is: no other was ready in its stead",
                        old_key.name
                    );
                    self.announce(&object, Announcement::warning(about, "NotMoved", "Move", why));
                }
                let marked = old.is_some_and(|pod| pod.marks.contains_key(DELETION_COST));
                let unmark = mark(Value::Null).filter(|_| marked);
                let body = patch(job, &Value::Null);
                self.start_all(vec![object, workload], |writer| async move {
                    let mut changes = Vec::new();
                    let result = async {
                        if let Some(patch) = unmark {
                            changes.push(writer.merge::<Pod>(&pod_target, &patch).await?);
                        }
                        changes.push(writer.merge::<InferenceJob>(&target, &body).await?);
                        Ok(())
                    }
                    .await;
                    (changes, result)
                });
            }
        }
    }
}

/// What is recorded of a move, as a merge patch that fails if the server has changed.
fn patch(job: &InferenceJob, state: &Value) -> Value {
    let meta = json!({"uid": job.metadata.uid, "resourceVersion": job.metadata.resource_version});
    json!({"metadata": meta, "status": {"move": state}})
}
