//! What is asked to leave for others. Whom it concerns is the core's decision;
//! here it is recorded, with who gets the room, before anything is deleted, and
//! told on both sides.

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use vingt_core::lifecycle::Leaving;
use vingt_core::model::{EvictionReason, Plan};
use vingt_crds::InferenceJob;

use super::Engine;
use super::accounts::Cost;
use super::api::Target;
use super::cycle::find;
use super::events::{Announcement, job_reference};
use super::gangs::Tracked;
use super::pods::pod_reference;
use crate::jobs::facts::leaving_reason;
use crate::snapshot::members::Members;
use crate::snapshot::pods::pod_workload;
use crate::snapshot::running::Holder;
use crate::snapshot::{Picture, Subject};
use crate::world::{Key, Pod};

/// Who gets the room.
#[derive(Clone, Debug)]
pub(super) struct Beneficiary {
    /// As `Kind/namespace/name`.
    pub workload: String,
    /// As events name it.
    pub about: core::ObjectReference,
    /// What is counted of a reserve, if it is for a claim.
    pub cost: Option<Cost>,
}

impl Engine {
    /// Carries out what the plan says of leaving.
    pub(super) fn evict(
        &mut self,
        picture: &Picture,
        plan: &Plan,
        members: &Members,
        gangs: &mut [Tracked],
        now_ms: i64,
    ) {
        for eviction in &plan.evictions {
            let (Some(holder), Some(mut by)) =
                (picture.holders.get(eviction.running), self.beneficiary(picture, eviction.by))
            else {
                continue;
            };
            by.cost = self.cost_of_claim(eviction, &by.workload, &picture.snapshot, now_ms);
            let reason = match eviction.reason {
                EvictionReason::Reclaimed => Leaving::Reclaimed,
                EvictionReason::Preempted => Leaving::Preempted,
                EvictionReason::Claimed => Leaving::Claimed,
                EvictionReason::Moved => Leaving::Moved,
            };
            match holder {
                Holder::Gang(key) => {
                    if let Some(gang) = find(gangs, key) {
                        gang.ask(reason, by, now_ms);
                    }
                }
                Holder::Pod(key) => self.evict_pod(key, reason, &by, members, now_ms),
                // It leaves by itself, and the core knows.
                Holder::Claim(_) => {}
            }
        }
    }

    /// Who a waiting workload is.
    pub(super) fn beneficiary(&self, picture: &Picture, waiting: usize) -> Option<Beneficiary> {
        let workload = picture.snapshot.waiting.get(waiting)?.key.clone();
        let about = match picture.subjects.get(waiting)? {
            Subject::Pod(key, _) => pod_reference(key, self.world.pods.get(key)?),
            Subject::Gang(key) => {
                job_reference("TrainingJob", key, &self.world.training_jobs.get(key)?.metadata)
            }
        };
        Some(Beneficiary { workload, about, cost: None })
    }

    /// Counts one that was asked to leave; a move is paid for.
    pub(super) fn count_eviction(&mut self, reason: Leaving, by: Option<&Beneficiary>) {
        self.metrics.evictions.with_label_values(&[leaving_reason(reason)]).inc();
        if reason == Leaving::Moved {
            self.moves.spend();
        }
        if let Some(cost) = by.and_then(|by| by.cost.as_ref()) {
            self.count_cost(cost);
        }
    }

    /// Deletes a pod for another workload. The condition that it gets before says for whom and why, and keeps its
    /// controller from counting a failure; of a server's replica it is in the server's status as well.
    fn evict_pod(&mut self, key: &Key, reason: Leaving, by: &Beneficiary, members: &Members, now_ms: i64) {
        let Some(pod) = self.world.pods.get(key).cloned().filter(|pod| !pod.deleting) else { return };
        let workload = pod_workload(key);
        let server = members.server_of(key).cloned();
        let status = server.as_ref().map(|server| format!("InferenceJob/{server}/status"));
        let mut objects = vec![workload.clone()];
        objects.extend(status);
        if !objects.clone().iter().all(|object| self.free(object)) {
            return;
        }
        let word = leaving_reason(reason);
        let why = format!("evicted for {}: {reason}", by.workload);
        let record = server.as_ref().and_then(|server| {
            let job = self.world.inference_jobs.get(server)?;
            let mut evictions =
                job.status.as_ref().and_then(|status| status.evictions.clone()).unwrap_or_default();
            evictions.count = evictions.count.saturating_add(1);
            let at = Timestamp::from_millisecond(now_ms).unwrap_or_default();
            let last = json!({"at": at, "reason": word, "by": by.workload, "pod": key.name});
            let meta = json!({"uid": job.metadata.uid, "resourceVersion": job.metadata.resource_version});
            let body =
                json!({"metadata": meta, "status": {"evictions": {"count": evictions.count, "last": last}}});
            Some((Target::status::<InferenceJob>(server).settled(), body))
        });
        tracing::info!(pod = %key, by = %by.workload, reason = word, "evicted");
        self.count_eviction(reason, Some(by));
        self.remember_asked(&workload, now_ms.saturating_add(pod.grace_ms));
        let note = format!("{workload} leaves: {why}");
        self.announce(
            &workload,
            Announcement::warning(pod_reference(key, &pod), "Evicted", "Evict", why.clone()),
        );
        self.announce(&workload, Announcement::normal(by.about.clone(), "MakingRoom", "Evict", note));
        let disrupted = json!({
            "metadata": {"uid": pod.uid},
            "status": {"conditions": [
                {"type": "DisruptionTarget", "status": "True", "reason": word, "message": why},
            ]},
        });
        let (target, condition) = (Target::object::<core::Pod>(key), Target::status::<core::Pod>(key));
        self.start_all(objects, |writer| async move {
            let mut changes = Vec::new();
            let result = async {
                if let Some((target, body)) = record {
                    changes.push(writer.merge::<InferenceJob>(&target, &body).await?);
                }
                changes.push(writer.strategic::<Pod>(&condition, &disrupted).await?);
                writer.delete(&target, &pod.uid).await
            }
            .await;
            (changes, result)
        });
    }
}
