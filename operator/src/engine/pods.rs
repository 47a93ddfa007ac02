//! Pods of anybody's controllers: their decision is written to their claims,
//! then their gate comes off.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;
use vingt_core::model::{Admission, Right, Snapshot, Workload};
use vingt_crds::{Basis, DecidedAccount, DecidedDevice, DecisionRecord, TenantClass, TrainingJob, names};

use super::Engine;
use super::api::{Failure, Target, Writer};
use super::bind::{self, BindClaim, OpenGate, Share, Undo};
use super::events::Announcement;
use crate::snapshot::occupancy::{Pending, PendingPod};
use crate::snapshot::pods::{PodBinding, PodNeeds, pod_workload};
use crate::world::{Change, Claim, Delta, Key, Pod};

/// How long a reason stands before only its numbers may change.
const RETELL: Duration = Duration::from_secs(5);
/// How many reasons whose numbers have changed are written in a second, at most.
const RETOLD_PER_SECOND: usize = 100;
/// How long the claims of a new pod may take without a word.
const YOUNG_MS: i64 = 3000;

/// All the writes that carry out what was decided for one pod.
struct PodWrites {
    claims: Vec<BindClaim>,
    shares: Vec<Share>,
    gate: OpenGate,
    pod: Key,
    uid: String,
    workload: String,
}

impl PodWrites {
    async fn run(self, writer: Writer) -> (Vec<Change>, Result<(), Failure>) {
        let mut changes = Vec::new();
        let touched: Vec<Key> = self.claims.iter().map(|claim| claim.key().clone()).collect();
        let result = async {
            bind::write_claims(&writer, self.claims, &mut changes).await?;
            bind::write_shares(&writer, self.shares, &mut changes).await?;
            bind::open_gates(&writer, vec![self.gate], &mut changes).await
        }
        .await;
        let read = changes.len();
        if result.is_err() {
            reread(&writer, &touched, &[self.pod], &mut changes).await;
        }
        if let Err(Failure::Refused(_) | Failure::Invalid(_) | Failure::Unknown(_)) = &result {
            // It will not be let go as it is: what was decided for it is not kept from others.
            let held = changes[read..].iter().any(|change| {
                matches!(change, Change::Pod(Delta::Applied(_, _, pod)) if pod.uid == self.uid && pod.gated())
            });
            let undos = changes[read..]
                .iter()
                .filter_map(|change| Undo::of_change(change, &self.workload, &self.uid, held));
            let undone = bind::undo(&writer, undos.collect(), &mut changes).await;
            tracing::warn!(workload = %self.workload, undone = undone.is_ok(), "what was decided is taken back");
        }
        (changes, result)
    }
}

/// Reads what a failed write may have written or not.
pub(super) async fn reread(writer: &Writer, claims: &[Key], pods: &[Key], changes: &mut Vec<Change>) {
    for claim in claims {
        changes.extend(writer.reread::<Claim>(&Target::object::<ResourceClaim>(claim)).await);
    }
    for pod in pods {
        changes.extend(writer.reread::<Pod>(&Target::object::<core::Pod>(pod)).await);
    }
}

/// A right as the ledger names it.
pub(super) const fn basis(right: &Right) -> Basis {
    match right {
        Right::Ordinary => Basis::Ordinary,
        Right::Claimed => Basis::Claimed,
        Right::Ordered(_) => Basis::Ordered,
    }
}

/// The order that a gang was admitted under.
pub(super) fn order_of(key: &Key, job: &TrainingJob) -> Option<String> {
    let basis = job.status.as_ref().map_or(Basis::Ordinary, |status| status.basis);
    let name = job.spec.order.as_ref().filter(|_| basis == Basis::Ordered)?;
    Some(format!("{}/{name}", key.namespace))
}

impl Engine {
    /// What a tenant is to the sovereign reserves.
    pub(super) fn class_of(&self, tenant: &str) -> TenantClass {
        self.world.tenants.get(&Key::new("", tenant)).map(|tenant| tenant.spec.class).unwrap_or_default()
    }

    /// What the ledger has to know of published devices that are decided for a tenant.
    pub(super) fn account_of(&self, devices: &[DecidedDevice], tenant: &str, basis: Basis) -> DecidedAccount {
        let kinds = devices.iter().filter_map(|device| self.layout.kind(&device.pool, &device.device));
        let node = devices.first().map(|device| device.pool.as_str()).unwrap_or_default();
        DecidedAccount {
            basis,
            profile: profile(&kinds.collect()),
            class: self.class_of(tenant),
            reserve: self.accounts.reserves.of_node(node).map(str::to_owned),
            ordinary_from: None,
        }
    }

    /// Starts to carry out a fresh decision on a pod.
    pub(super) fn admit_pod(
        &mut self,
        key: &Key,
        needs: &PodNeeds,
        admission: &Admission,
        workload: &Workload,
        snapshot: &Snapshot,
        now_ms: i64,
    ) {
        let Some(placement) = admission.pods.first() else { return };
        let node = snapshot.nodes[placement.node.0 as usize].name.clone();
        let start = Timestamp::from_millisecond(now_ms).unwrap_or_default();
        let mut placed = placement.devices.iter();
        let mut claims = Vec::new();
        for (claim_key, asked) in &needs.claims {
            let Some(claim) = self.world.claims.get(claim_key) else { return };
            let mut devices = Vec::new();
            let mut units = 0;
            let mut profiles = BTreeSet::new();
            for asked in asked {
                for at in placed.next().into_iter().flatten() {
                    let device = &snapshot.gpus[at.gpu.0 as usize].devices[usize::from(at.device)];
                    units += device.units;
                    profiles.insert(device.kind.as_str());
                    devices.push(DecidedDevice {
                        request: asked.request.clone(),
                        pool: node.clone(),
                        device: device.name.clone(),
                    });
                }
            }
            let record = DecisionRecord {
                version: DecisionRecord::VERSION,
                claim: claim.uid.clone(),
                node: node.clone(),
                devices,
                units,
                tenant: workload.tenant.clone(),
                workload: workload.key.clone(),
                start,
                order: match &admission.right {
                    Right::Ordered(order) => Some(order.clone()),
                    Right::Ordinary | Right::Claimed => None,
                },
                account: DecidedAccount {
                    basis: basis(&admission.right),
                    profile: profile(&profiles),
                    class: self.class_of(&workload.tenant),
                    reserve: self.accounts.reserves.of_node(&node).map(str::to_owned),
                    ..DecidedAccount::default()
                },
            };
            claims.push((claim_key.clone(), record));
        }
        if self.bind_pod(key, &PodBinding { node, claims, shared: needs.shared.clone() }) {
            self.metrics.decisions.with_label_values(&["pod"]).inc();
        }
    }

    /// Starts to write what is missing of a decision on a pod, and to take its
    /// gate off. Returns whether it started.
    pub(super) fn bind_pod(&mut self, key: &Key, binding: &PodBinding) -> bool {
        let workload = pod_workload(key);
        if !self.free(&workload) {
            return false;
        }
        let Some(pod) = self.world.pods.get(key) else { return false };
        let (mut claims, mut shares) = (Vec::new(), Vec::new());
        for (claim_key, record) in &binding.claims {
            let Some(claim) = self.world.claims.get(claim_key) else { return false };
            claims.push(BindClaim::new(claim_key, claim, record.clone(), (key, pod), &self.world.classes));
        }
        for claim_key in &binding.shared {
            let Some(claim) = self.world.claims.get(claim_key) else { return false };
            shares.push(Share::new(claim_key, claim, (key, pod)));
        }
        let devices =
            binding.claims.iter().flat_map(|(_, record)| record.devices.iter().map(|d| d.device.clone()));
        let tenant = binding.claims.first().map(|(_, record)| record.tenant.clone()).unwrap_or_default();
        let decision = Pending {
            tenant,
            pods: vec![PendingPod {
                pod: Some(key.clone()),
                node: binding.node.clone(),
                devices: devices.collect(),
                requests: pod.requests.clone(),
            }],
        };
        let writes = PodWrites {
            claims,
            shares,
            gate: OpenGate::pinned(key, pod, &binding.node),
            pod: key.clone(),
            uid: pod.uid.clone(),
            workload: workload.clone(),
        };
        tracing::info!(pod = %key, node = %binding.node, "admitted");
        let note = format!("devices on node {} are allocated", binding.node);
        let announcement = Announcement::normal(pod_reference(key, pod), "Admitted", "Admit", note);
        self.announce(&workload, announcement);
        self.told.remove(&workload);
        self.start_decision(workload.clone(), vec![workload], decision, |writer| writes.run(writer));
        true
    }

    /// Takes the gate off a pod that has no device of vingt's.
    pub(super) fn free_pod(&mut self, key: &Key) {
        let workload = pod_workload(key);
        if !self.free(&workload) {
            return;
        }
        let Some(pod) = self.world.pods.get(key) else { return };
        let gate = OpenGate::free(key, pod);
        tracing::info!(pod = %key, "released: it has no device of vingt");
        self.start(workload, |writer| async move {
            let mut changes = Vec::new();
            let result = bind::open_gates(&writer, vec![gate], &mut changes).await;
            (changes, result)
        });
    }

    /// Takes back what was decided for a pod in part only.
    pub(super) fn roll_back(&mut self, key: &Key, claims: &[Key]) {
        let workload = pod_workload(key);
        if !self.free(&workload) {
            return;
        }
        let pod_uid = self.world.pods.get(key).map(|pod| pod.uid.as_str()).unwrap_or_default();
        let undo = |claim_key: &Key| {
            let claim = self.world.claims.get(claim_key)?;
            Some(Undo::new(claim_key, claim).unused(claim, pod_uid))
        };
        let undos: Vec<Undo> = claims.iter().filter_map(undo).collect();
        tracing::info!(pod = %key, claims = undos.len(), "a decision that cannot be completed is taken back");
        self.metrics.take_backs.with_label_values(&["incomplete"]).inc();
        let touched = claims.to_vec();
        self.start(workload, |writer| async move {
            let mut changes = Vec::new();
            let result = bind::undo(&writer, undos, &mut changes).await;
            if result.is_err() {
                reread(&writer, &touched, &[], &mut changes).await;
            }
            (changes, result)
        });
    }

    /// Tells on the pod why it waits.
    pub(super) fn explain_pod(&mut self, key: &Key, why: &str) {
        let Some(pod) = self.world.pods.get(key) else { return };
        if pod.waiting() == why {
            return;
        }
        let words = format!("{}/words", pod_workload(key));
        let first = pod.waiting().is_empty();
        if !self.free_for_words(&words) || !self.may_tell(&words, first) {
            return;
        }
        let Some(pod) = self.world.pods.get(key) else { return };
        let patch = json!({"metadata": {"uid": pod.uid, "annotations": {names::WAIT_REASON: why}}});
        if first {
            let announcement =
                Announcement::warning(pod_reference(key, pod), "Waiting", "Wait", why.to_owned());
            self.announce(&words, announcement);
        }
        let target = Target::object::<core::Pod>(key);
        self.start(words, |writer| async move { one(writer.merge::<Pod>(&target, &patch).await) });
    }

    /// Tells on the pod why it waits, unless it is so young that it will wait no more before this is read.
    pub(super) fn explain_pod_later(&mut self, key: &Key, why: &str) {
        let Some(pod) = self.world.pods.get(key) else { return };
        let due_ms = pod.created_ms.saturating_add(YOUNG_MS);
        if due_ms > super::now_ms() {
            self.look_again_at_ms(due_ms);
        } else {
            self.explain_pod(key, why);
        }
    }

    /// Whether to write a reason now. The first one at once; later ones only
    /// now and then, for their numbers change with every decision.
    pub(super) fn may_tell(&mut self, object: &str, first: bool) -> bool {
        let now = Instant::now();
        let told = self.told.get(object).filter(|_| !first);
        if let Some(told) = told {
            let rate = u32::try_from(self.waiting / RETOLD_PER_SECOND).unwrap_or(u32::MAX);
            let again = *told + RETELL.max(Duration::from_secs(1).saturating_mul(rate));
            if again > now {
                self.look_again_at(again);
                return false;
            }
        }
        self.told.insert(object.to_owned(), now);
        true
    }
}

/// The profile that the devices of a claim are charged as.
pub(super) fn profile(profiles: &BTreeSet<&str>) -> String {
    match profiles.first() {
        Some(profile) if profiles.len() == 1 => (*profile).to_owned(),
        _ => "mixed".to_owned(),
    }
}

/// The outcome of a single write.
pub(super) fn one(result: Result<Change, Failure>) -> (Vec<Change>, Result<(), Failure>) {
    match result {
        Ok(change) => (vec![change], Ok(())),
        Err(failure) => (vec![], Err(failure)),
    }
}

/// A pod as events name it.
pub(super) fn pod_reference(key: &Key, pod: &Pod) -> core::ObjectReference {
    core::ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        uid: Some(pod.uid.clone()),
        ..core::ObjectReference::default()
    }
}
