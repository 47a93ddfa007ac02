//! What is left over: decisions that nobody needs any more are taken back, and
//! pods that kube-scheduler never places, with their devices if they have any.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use serde_json::json;
use tokio::time::Instant;
use vingt_crds::names;

use super::api::Target;
use super::bind::{self, Undo};
use super::events::Announcement;
use super::pods::{pod_reference, reread};
use super::{Avoided, Engine};
use crate::snapshot::members::Members;
use crate::snapshot::pods::{pod_workload, unserved};
use crate::tenants::Tenancy;
use crate::world::{Claim, Key, Pod};

/// How long kube-scheduler may take to place a pod that it finds unschedulable.
const PLACED_WITHIN_MS: i64 = 300_000;
/// How long a pod that is not at vingt's gate may wait for a device: its
/// namespace may have become a tenant's a moment ago.
const GATED_WITHIN_MS: i64 = 30_000;
/// How long the node on which that happened is avoided for pods of the same controller.
const AVOID: Duration = Duration::from_secs(1800);

impl Engine {
    /// Takes back decisions that no pod can use any more.
    pub(super) fn sweep_claims(&mut self) {
        let pods = self.world.pods.iter().filter(|(_, pod)| !pod.ended);
        let used: BTreeSet<Key> = pods
            .flat_map(|(key, pod)| {
                pod.claims.iter().filter_map(|claim| Some(Key::new(&key.namespace, claim.claim.as_ref()?)))
            })
            .collect();
        let orphans: Vec<(Key, Arc<Claim>)> = self
            .world
            .claims
            .iter()
            .filter(|(key, claim)| self.orphaned(key, claim, &used))
            .map(|(key, claim)| (key.clone(), claim.clone()))
            .collect();
        for (key, claim) in orphans {
            let object = format!("ResourceClaim/{key}");
            if !self.free(&object) {
                continue;
            }
            tracing::info!(claim = %key, "a decision that no pod can use any more is taken back");
            self.metrics.take_backs.with_label_values(&["orphaned"]).inc();
            let undo = Undo::new(&key, &claim);
            self.start(object, |writer| async move {
                let mut changes = Vec::new();
                let result = bind::undo(&writer, vec![undo], &mut changes).await;
                if result.is_err() {
                    reread(&writer, &[key], &[], &mut changes).await;
                }
                (changes, result)
            });
        }
    }

    fn orphaned(&self, key: &Key, claim: &Claim, used: &BTreeSet<Key>) -> bool {
        let Ok(record) = &claim.decision else { return false };
        if claim.deleting
            || self.pending.contains_key(&record.workload)
            || self.busy.contains(&record.workload)
        {
            return false;
        }
        if claim.allocation.is_some() {
            return claim.reserved_for.is_empty() && !used.contains(key);
        }
        // A decision that is half written is completed while its pod still waits for it.
        let Some(pod_name) = record.workload.strip_prefix("Pod/") else { return false };
        let Some((namespace, name)) = pod_name.split_once('/') else { return false };
        let pod = self.world.pods.get(&Key::new(namespace, name));
        let waits = pod.is_some_and(|pod| {
            pod.gated()
                && !pod.ended
                && pod.claims.iter().any(|claim| claim.claim.as_deref() == Some(key.name.as_str()))
        });
        claim.decided().is_some() && !waits
    }

    /// Takes back pods that were let go and that kube-scheduler does not place:
    /// those of a controller are deleted, and it makes new ones; of the others it
    /// is told.
    pub(super) fn take_back_stuck_pods(&mut self, members: &Members, now_ms: i64) {
        let stuck = |(key, pod): (&Key, &Arc<Pod>)| {
            let waits =
                !pod.gated() && !pod.ended && !pod.deleting && pod.node.is_none() && pod.pinned.is_some();
            let (message, _) =
                pod.unschedulable.as_ref().filter(|_| waits && members.gang_of(key).is_none())?;
            let decided = pod.claims.iter().any(|claim| {
                let claim = claim.claim.as_ref().map(|claim| Key::new(&key.namespace, claim));
                claim.and_then(|key| self.world.claims.get(&key)).is_some_and(|claim| claim.decision.is_ok())
            });
            decided.then(|| (key.clone(), pod.clone(), message.clone()))
        };
        let stuck: Vec<_> = self.world.pods.iter().filter_map(stuck).collect();
        // The time counts from when it was first seen so: its claims may be older than the pod.
        let old = std::mem::take(&mut self.stuck_since);
        for (_, pod, _) in &stuck {
            self.stuck_since.insert(pod.uid.clone(), old.get(&pod.uid).copied().unwrap_or(now_ms));
        }
        for (key, pod, message) in stuck {
            let since_ms = self.stuck_since.get(&pod.uid).copied().unwrap_or(now_ms);
            let due_ms = since_ms.saturating_add(PLACED_WITHIN_MS);
            if due_ms > now_ms {
                self.look_again_at_ms(due_ms);
                continue;
            }
            let why = format!("kube-scheduler does not place the pod: {message}");
            let Some(owner) = &pod.owner else {
                self.explain_pod(&key, &format!("{why}; delete it and make it again to try another node"));
                continue;
            };
            if !self.free(&pod_workload(&key)) {
                continue;
            }
            let avoided = self
                .avoid
                .entry(owner.uid.clone())
                .or_insert_with(|| Avoided { nodes: BTreeSet::new(), until: Instant::now() });
            avoided.nodes.extend(pod.pinned.clone());
            avoided.until = Instant::now() + AVOID;
            self.give_up_pod(&key, &pod, "NotPlaced", why);
        }
    }

    /// Pods that were made before their namespace was a tenant's never came to
    /// vingt's gate, and nobody else gives them devices: those of a controller are
    /// deleted, and it makes new ones; of the others it is told.
    pub(super) fn replace_unserved_pods(&mut self, tenancy: &Tenancy, members: &Members, now_ms: i64) {
        let unserved = |(key, pod): (&Key, &Arc<Pod>)| {
            let (_, since_ms) = pod.unschedulable.as_ref()?;
            let tenant = tenancy.tenant(&key.namespace)?;
            let namespace = self.world.namespaces.get(&Key::new("", &key.namespace))?;
            let labelled = namespace.labels.get(names::TENANT_LABEL).is_some_and(|label| label == tenant);
            let ours = labelled && members.gang_of(key).is_none() && unserved(key, pod, &self.world);
            let since_ms = pod.created_ms.max(*since_ms);
            ours.then(|| (key.clone(), pod.clone(), tenant.to_owned(), since_ms))
        };
        let unserved: Vec<_> = self.world.pods.iter().filter_map(unserved).collect();
        for (key, pod, tenant, since_ms) in unserved {
            let due_ms = since_ms.saturating_add(GATED_WITHIN_MS);
            if due_ms > now_ms {
                self.look_again_at_ms(due_ms);
                continue;
            }
            let why =
                format!("the pod was made before its namespace was tenant {tenant}'s, and gets no device");
            if pod.owner.is_none() {
                self.explain_pod(&key, &format!("{why}: delete it and make it again"));
            } else if self.free(&pod_workload(&key)) {
                self.give_up_pod(&key, &pod, "NotGated", why);
            }
        }
    }

    /// Deletes a pod that cannot start, which must be free; its controller makes a new one.
    fn give_up_pod(&mut self, key: &Key, pod: &Pod, reason: &str, why: String) {
        let workload = pod_workload(key);
        let node = pod.pinned.as_deref().unwrap_or_default();
        tracing::info!(pod = %key, %node, %why, "taken back");
        self.metrics.take_backs.with_label_values(&[reason]).inc();
        let disrupted = json!({
            "metadata": {"uid": pod.uid},
            "status": {"conditions": [
                {"type": "DisruptionTarget", "status": "True", "reason": "DevicesTakenBack", "message": why},
            ]},
        });
        let announcement = Announcement::warning(pod_reference(key, pod), "TakenBack", "TakeBack", why);
        self.announce(&workload, announcement);
        let target = Target::object::<core::Pod>(key);
        let status = Target::status::<core::Pod>(key);
        let uid = pod.uid.clone();
        self.start(workload, |writer| async move {
            let result = async {
                let change = writer.strategic::<Pod>(&status, &disrupted).await?;
                writer.delete(&target, &uid).await?;
                Ok(change)
            };
            super::pods::one(result.await)
        });
    }
}
