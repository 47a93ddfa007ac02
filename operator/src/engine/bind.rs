//! The writes that carry a decision out: decision record and allocation of a
//! claim, reservations, and the pod's gate. The order of the writes, and what
//! is undone when one fails, is the core's ([`vingt_core::claims_step`]).

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationConfiguration, DeviceAllocationResult, DeviceClass,
    DeviceRequestAllocationResult, ResourceClaim, ResourceClaimConsumerReference,
};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use vingt_crds::{DecidedDevice, DecisionRecord, names};

use super::api::{Failure, Target, Writer};
use crate::world::{Cache, Change, Claim, Delta, Key, Pod};

/// Writes to claims of one decision at a time.
const AT_ONCE: usize = 16;

/// A claim that is to be written as decided.
#[derive(Clone, Debug)]
pub struct BindClaim {
    key: Key,
    uid: String,
    version: String,
    finalizers: Vec<String>,
    record: DecisionRecord,
    recorded: bool,
    /// Its last use is over and not in the ledger: the record of that would be lost.
    unaccounted: bool,
    /// `None` when it is allocated already.
    allocation: Option<AllocationResult>,
    consumer: ResourceClaimConsumerReference,
}

impl BindClaim {
    /// What is still to be written of `record` to `claim`, for the use of `pod`.
    pub fn new(
        key: &Key,
        claim: &Claim,
        record: DecisionRecord,
        pod: (&Key, &Pod),
        classes: &Cache<DeviceClass>,
    ) -> Self {
        Self {
            key: key.clone(),
            uid: claim.uid.clone(),
            version: claim.version.clone(),
            finalizers: claim.finalizers.clone(),
            recorded: claim.protected() && claim.decision.as_ref() == Ok(&record),
            unaccounted: claim.unaccounted(),
            allocation: claim.allocation.is_none().then(|| allocation(claim, &record, classes)),
            record,
            consumer: consumer(pod.0, &pod.1.uid),
        }
    }

    /// The claim.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The devices decided for it.
    pub fn devices(&self) -> &[DecidedDevice] {
        &self.record.devices
    }
}

/// A reservation of a claim that others use already.
#[derive(Clone, Debug)]
pub struct Share {
    key: Key,
    patch: Option<Value>,
}

impl Share {
    /// Lets `pod` use `claim` as well.
    pub fn new(key: &Key, claim: &Claim, pod: (&Key, &Pod)) -> Self {
        let patch = (!claim.is_reserved_for(&pod.1.uid)).then(|| {
            let mut consumers = claim.reserved_for.clone();
            consumers.push(consumer(pod.0, &pod.1.uid));
            json!({"metadata": {"uid": claim.uid, "resourceVersion": claim.version}, "status": {"reservedFor": consumers}})
        });
        Self { key: key.clone(), patch }
    }
}

/// A pod whose gate comes off.
#[derive(Clone, Debug)]
pub struct OpenGate {
    key: Key,
    patch: Value,
}

impl OpenGate {
    /// Takes the gate off `pod` and pins it to `node`.
    pub fn pinned(key: &Key, pod: &Pod, node: &str) -> Self {
        let required =
            pod.scheduling.as_ref().map(|scheduling| scheduling.required.as_slice()).unwrap_or_default();
        let mut patch = open(pod);
        patch["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": pin(required, node)}}});
        Self { key: key.clone(), patch }
    }

    /// Takes the gate off a pod that is none of vingt's business.
    pub fn free(key: &Key, pod: &Pod) -> Self {
        Self { key: key.clone(), patch: open(pod) }
    }
}

fn open(pod: &Pod) -> Value {
    let gates: Vec<Value> =
        pod.gates.iter().filter(|gate| *gate != names::GATE).map(|gate| json!({"name": gate})).collect();
    let mut metadata = json!({"uid": pod.uid, "resourceVersion": pod.version});
    if !pod.waiting().is_empty() {
        metadata["annotations"] = json!({names::WAIT_REASON: null});
    }
    json!({"metadata": metadata, "spec": {"schedulingGates": gates}})
}

/// The terms, each narrowed to `node`: they are alternatives.
fn pin(required: &[core::NodeSelectorTerm], node: &str) -> Vec<core::NodeSelectorTerm> {
    let name = core::NodeSelectorRequirement {
        key: "metadata.name".to_owned(),
        operator: "In".to_owned(),
        values: Some(vec![node.to_owned()]),
    };
    let mut terms = required.to_vec();
    if terms.is_empty() {
        terms.push(core::NodeSelectorTerm::default());
    }
    // A term that says nothing matches no node, and may not be narrowed.
    for term in terms.iter_mut().filter(|term| !required.contains(term) || !says_nothing(term)) {
        term.match_fields.get_or_insert_default().push(name.clone());
    }
    terms
}

fn says_nothing(term: &core::NodeSelectorTerm) -> bool {
    let none = |list: &Option<Vec<core::NodeSelectorRequirement>>| list.as_ref().is_none_or(Vec::is_empty);
    none(&term.match_expressions) && none(&term.match_fields)
}

fn consumer(key: &Key, uid: &str) -> ResourceClaimConsumerReference {
    ResourceClaimConsumerReference {
        api_group: None,
        name: key.name.clone(),
        resource: "pods".to_owned(),
        uid: uid.to_owned(),
    }
}

/// The allocation of what `record` decided, with everything that the stock
/// allocator copies from class and claim.
pub fn allocation(claim: &Claim, record: &DecisionRecord, classes: &Cache<DeviceClass>) -> AllocationResult {
    let devices = claim.spec.devices.clone().unwrap_or_default();
    let requests = devices.requests.unwrap_or_default();
    let request = |name: &str| {
        requests.iter().find(|request| request.name == name).and_then(|request| request.exactly.as_ref())
    };
    let result = |decided: &vingt_crds::DecidedDevice| DeviceRequestAllocationResult {
        driver: names::DRIVER.to_owned(),
        pool: decided.pool.clone(),
        device: decided.device.clone(),
        request: decided.request.clone(),
        tolerations: request(&decided.request).and_then(|request| request.tolerations.clone()),
        ..DeviceRequestAllocationResult::default()
    };
    let mut config = Vec::new();
    for request in &requests {
        let class = request
            .exactly
            .as_ref()
            .and_then(|exactly| classes.get(&Key::new("", &exactly.device_class_name)));
        let of_class = class.and_then(|class| class.spec.as_ref()?.config.clone());
        config.extend(of_class.into_iter().flatten().map(|config| DeviceAllocationConfiguration {
            opaque: config.opaque,
            requests: Some(vec![request.name.clone()]),
            source: "FromClass".to_owned(),
        }));
    }
    config.extend(devices.config.into_iter().flatten().map(|config| DeviceAllocationConfiguration {
        opaque: config.opaque,
        requests: config.requests,
        source: "FromClaim".to_owned(),
    }));
    AllocationResult {
        allocation_timestamp: None,
        devices: Some(DeviceAllocationResult {
            config: (!config.is_empty()).then_some(config),
            results: Some(record.devices.iter().map(result).collect()),
        }),
        node_selector: Some(core::NodeSelector { node_selector_terms: pin(&[], &record.node) }),
    }
}

/// Writes the claims of one decision: all records, then all allocations. What
/// was written is in `changes`, also when something fails.
pub async fn write_claims(
    writer: &Writer,
    claims: Vec<BindClaim>,
    changes: &mut Vec<Change>,
) -> Result<(), Failure> {
    let recorded = all(claims.into_iter().map(|claim| record(writer, claim))).await;
    let mut claims = Vec::with_capacity(recorded.len());
    let mut failed = None;
    for result in recorded {
        match result {
            Ok((claim, change)) => {
                changes.extend(change);
                claims.push(claim);
            }
            Err(failure) => failed = Some(failure),
        }
    }
    if let Some(failure) = failed {
        return Err(failure);
    }
    let allocated = all(claims.into_iter().map(|claim| allocate(writer, claim))).await;
    keep(allocated.into_iter().filter_map(Result::transpose), changes)
}

/// Runs all to their end: one that is dropped half way may be written or not.
async fn all<T>(writes: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    stream::iter(writes).buffer_unordered(AT_ONCE).collect().await
}

/// Keeps what was written; fails if anything did.
fn keep(
    results: impl Iterator<Item = Result<Change, Failure>>,
    changes: &mut Vec<Change>,
) -> Result<(), Failure> {
    let mut failed = Ok(());
    for result in results {
        match result {
            Ok(change) => changes.push(change),
            Err(failure) => failed = Err(failure),
        }
    }
    failed
}

async fn record(writer: &Writer, mut claim: BindClaim) -> Result<(BindClaim, Option<Change>), Failure> {
    if claim.recorded {
        return Ok((claim, None));
    }
    if claim.unaccounted {
        return Err(Failure::Stale);
    }
    let patch = record_patch(&claim);
    let change =
        writer.merge::<Claim>(&Target::object::<ResourceClaim>(&claim.key).settled(), &patch).await?;
    if let Change::Claim(Delta::Applied(_, version, _)) = &change {
        claim.version = version.to_string();
    }
    Ok((claim, Some(change)))
}

fn record_patch(claim: &BindClaim) -> Value {
    let mut finalizers = claim.finalizers.clone();
    for ours in [names::CLAIM_FINALIZER, names::LEDGER_FINALIZER] {
        if !finalizers.iter().any(|finalizer| finalizer == ours) {
            finalizers.push(ours.to_owned());
        }
    }
    json!({"metadata": {
        "uid": claim.uid,
        "resourceVersion": claim.version,
        "finalizers": finalizers,
        "annotations": {names::DECISION: claim.record.to_json()},
    }})
}

async fn allocate(writer: &Writer, claim: BindClaim) -> Result<Option<Change>, Failure> {
    let Some(allocation) = &claim.allocation else { return Ok(None) };
    let patch = json!({
        "metadata": {"uid": claim.uid, "resourceVersion": claim.version},
        "status": {"allocation": allocation, "reservedFor": [claim.consumer]},
    });
    writer.merge::<Claim>(&Target::status::<ResourceClaim>(&claim.key).settled(), &patch).await.map(Some)
}

/// Adds reservations.
pub async fn write_shares(
    writer: &Writer,
    shares: Vec<Share>,
    changes: &mut Vec<Change>,
) -> Result<(), Failure> {
    for share in shares {
        if let Some(patch) = share.patch {
            changes.push(
                writer.merge::<Claim>(&Target::status::<ResourceClaim>(&share.key).settled(), &patch).await?,
            );
        }
    }
    Ok(())
}

/// Takes gates off.
pub async fn open_gates(
    writer: &Writer,
    gates: Vec<OpenGate>,
    changes: &mut Vec<Change>,
) -> Result<(), Failure> {
    let open = |gate: OpenGate| async move {
        writer.merge::<Pod>(&Target::object::<core::Pod>(&gate.key), &gate.patch).await
    };
    keep(all(gates.into_iter().map(open)).await.into_iter(), changes)
}

/// A decision on a claim that is taken back.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own about the claim")]
pub struct Undo {
    key: Key,
    uid: String,
    version: String,
    finalizers: Vec<String>,
    allocated: bool,
    ledgered: bool,
    /// When its use ended, if that is known already.
    ended: bool,
    /// No pod can have used it: the use ends when it is taken back.
    unused: bool,
}

impl Undo {
    /// What is to be taken back of a decision for `workload`, of which nobody but the pod makes use, and not
    /// the pod either if it is still `held` at the gate.
    pub fn of_change(change: &Change, workload: &str, pod_uid: &str, held: bool) -> Option<Self> {
        let Change::Claim(Delta::Applied(key, _, claim)) = change else { return None };
        let ours = claim.decision.as_ref().is_ok_and(|record| record.workload == workload);
        let alone = claim.reserved_for.iter().all(|consumer| consumer.uid == pod_uid);
        (ours && alone && claim.protected()).then(|| Self { unused: held, ..Self::new(key, claim) })
    }

    /// Takes back what was decided for `claim`.
    pub fn new(key: &Key, claim: &Claim) -> Self {
        Self {
            key: key.clone(),
            uid: claim.uid.clone(),
            version: claim.version.clone(),
            finalizers: claim.finalizers.clone(),
            allocated: claim.allocation.is_some(),
            ledgered: claim.ledgered(),
            ended: claim.ended_ms.is_some(),
            unused: false,
        }
    }

    /// Says that the pod, which is the only one it is for, was not let go.
    #[must_use]
    pub fn unused(self, claim: &Claim, pod_uid: &str) -> Self {
        let alone = claim.reserved_for.iter().all(|consumer| consumer.uid == pod_uid);
        Self { unused: alone, ..self }
    }
}

/// Takes decisions back: allocation first, then record and finalizer. What is charged keeps its record until
/// the ledger has it; without the finalizer that holds devices it is void.
pub async fn undo(writer: &Writer, claims: Vec<Undo>, changes: &mut Vec<Change>) -> Result<(), Failure> {
    for mut claim in claims {
        if claim.allocated {
            let patch = json!({
                "metadata": {"uid": claim.uid, "resourceVersion": claim.version},
                "status": {"allocation": null, "reservedFor": null},
            });
            let change =
                writer.merge::<Claim>(&Target::status::<ResourceClaim>(&claim.key).settled(), &patch).await?;
            if let Change::Claim(Delta::Applied(_, version, _)) = &change {
                claim.version = version.to_string();
            }
            changes.push(change);
        }
        let finalizers: Vec<_> =
            claim.finalizers.iter().filter(|finalizer| *finalizer != names::CLAIM_FINALIZER).collect();
        let now = Timestamp::now();
        let annotations = match &claim {
            Undo { ledgered: false, .. } => json!({names::DECISION: null}),
            Undo { unused: true, ended: false, .. } => json!({names::ENDED: format!("{now:.3}")}),
            Undo { .. } => json!({}),
        };
        let patch = json!({"metadata": {
            "uid": claim.uid,
            "resourceVersion": claim.version,
            "finalizers": finalizers,
            "annotations": annotations,
        }});
        changes.push(
            writer.merge::<Claim>(&Target::object::<ResourceClaim>(&claim.key).settled(), &patch).await?,
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::resource::v1::DeviceClass;

    use super::*;
    use crate::snapshot::layout::tests::list;
    use crate::world::World;

    fn world() -> World {
        let mut world = World::default();
        list::<DeviceClass>(
            &mut world,
            [json!({"apiVersion": "resource.k8s.io/v1", "kind": "DeviceClass",
            "metadata": {"name": "mig.vingt.dev", "resourceVersion": "1"},
            "spec": {"config": [{"opaque": {"driver": "gpu.vingt.dev", "parameters": {"of": "class"}}}]}})],
        );
        list::<Claim>(
            &mut world,
            [json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "c", "namespace": "p", "uid": "cu", "resourceVersion": "5", "finalizers": ["example.com/kept"]},
            "spec": {"devices": {
                "requests": [{"name": "gpu", "exactly": {"deviceClassName": "mig.vingt.dev",
                    "tolerations": [{"key": "gpu.vingt.dev/xid", "operator": "Exists", "effect": "NoExecute"}]}}],
                "config": [{"requests": ["gpu"], "opaque": {"driver": "gpu.vingt.dev", "parameters": {"of": "claim"}}}]}}})],
        );
        list::<Pod>(
            &mut world,
            [json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "x", "namespace": "p", "uid": "px", "resourceVersion": "9", "annotations": {"vingt.dev/waiting": "why"}},
            "spec": {"containers": [], "schedulingGates": [{"name": "vingt.dev/admission"}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "a", "operator": "Exists"}]},
                    {"matchExpressions": [{"key": "b", "operator": "Exists"}]}]}}}}})],
        );
        world
    }

    fn record() -> DecisionRecord {
        serde_json::from_value(json!({"version": 1, "claim": "cu", "node": "n", "units": 28, "tenant": "t", "workload": "Pod/p/x",
            "start": "2026-01-01T00:00:00Z", "devices": [{"request": "gpu", "pool": "n", "device": "d"}]}))
        .unwrap()
    }

    #[test]
    fn the_record_is_written_with_the_version_it_was_decided_on() {
        let world = world();
        let (key, pod) = (Key::new("p", "c"), Key::new("p", "x"));
        let claim = world.claims.get(&key).unwrap();
        let bind =
            BindClaim::new(&key, claim, record(), (&pod, world.pods.get(&pod).unwrap()), &world.classes);
        assert_eq!(
            record_patch(&bind),
            json!({"metadata": {"uid": "cu", "resourceVersion": "5",
                "finalizers": ["example.com/kept", "resource.kubernetes.io/delete-protection", "vingt.dev/ledger"],
                "annotations": {"vingt.dev/decision": record().to_json()}}})
        );
        assert_eq!(bind.consumer, consumer(&pod, "px"));
        assert!(!bind.recorded && bind.allocation.is_some());
    }

    #[test]
    fn an_allocation_has_what_the_stock_allocator_would_copy() {
        let world = world();
        let claim = world.claims.get(&Key::new("p", "c")).unwrap();
        let allocation = serde_json::to_value(allocation(claim, &record(), &world.classes)).unwrap();
        assert_eq!(
            allocation,
            json!({
                "devices": {
                    "results": [{"driver": "gpu.vingt.dev", "pool": "n", "device": "d", "request": "gpu",
                        "tolerations": [{"key": "gpu.vingt.dev/xid", "operator": "Exists", "effect": "NoExecute"}]}],
                    "config": [
                        {"source": "FromClass", "requests": ["gpu"], "opaque": {"driver": "gpu.vingt.dev", "parameters": {"of": "class"}}},
                        {"source": "FromClaim", "requests": ["gpu"], "opaque": {"driver": "gpu.vingt.dev", "parameters": {"of": "claim"}}},
                    ],
                },
                "nodeSelector": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
                ]},
            })
        );
    }

    #[test]
    fn the_gate_comes_off_with_every_term_pinned() {
        let world = world();
        let key = Key::new("p", "x");
        let node = json!([{"key": "metadata.name", "operator": "In", "values": ["n"]}]);
        assert_eq!(
            OpenGate::pinned(&key, world.pods.get(&key).unwrap(), "n").patch,
            json!({
                "metadata": {"uid": "px", "resourceVersion": "9", "annotations": {"vingt.dev/waiting": null}},
                "spec": {
                    "schedulingGates": [],
                    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "a", "operator": "Exists"}], "matchFields": node},
                        {"matchExpressions": [{"key": "b", "operator": "Exists"}], "matchFields": node},
                    ]}}},
                },
            })
        );
    }
}
