//! Pods, trimmed: what they ask of nodes, what claims they have, and whether
//! they wait at vingt's gate. Most pods of a cluster are none of vingt's, so a
//! pod is kept small unless it waits.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::DynamicObject;
use serde::Deserialize;
use vingt_core::model::{NodeTerm, Resources, Toleration};
use vingt_crds::names;

use super::node::required_terms;
use super::{Change, Delta, View, node_terms, requests, tolerations};

/// A pod, as far as it matters here.
#[derive(Debug)]
pub struct Pod {
    /// Its identity over time.
    pub uid: String,
    /// Its version, for writes that must not hit another one.
    pub version: String,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When it has gone at the latest, in milliseconds since 1970, if it is being deleted.
    pub leaves_ms: Option<i64>,
    /// How long it may take to go once it is deleted, in milliseconds.
    pub grace_ms: i64,
    /// When it is ended at the latest, in milliseconds since 1970, if it says so.
    pub ends_ms: Option<i64>,
    /// Its priority.
    pub priority: i32,
    /// Whether it has ended, and so holds nothing.
    pub ended: bool,
    /// Whether it ended badly, and in words how.
    pub failure: Option<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// The node it is bound to.
    pub node: Option<String>,
    /// The one node its affinity allows, if it names one.
    pub pinned: Option<String>,
    /// Why kube-scheduler cannot place it, in its words, and since when, in milliseconds since 1970.
    pub unschedulable: Option<(String, i64)>,
    /// The controller that made it.
    pub owner: Option<Owner>,
    /// Its labels and annotations of vingt's domain, its completion index and its deletion cost.
    pub marks: BTreeMap<String, String>,
    /// What it asks of its node.
    pub requests: Resources,
    /// Its claims.
    pub claims: Vec<PodClaim>,
    /// Gates that hold it.
    pub gates: Vec<String>,
    /// What a placement depends on; only of pods that wait at a gate.
    pub scheduling: Option<Box<Scheduling>>,
}

/// The controller of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its identity over time.
    pub uid: String,
}

/// A claim of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodClaim {
    /// What the pod calls it.
    pub name: String,
    /// The `ResourceClaim`; `None` until it is made from its template.
    pub claim: Option<String>,
    /// The template it is made from.
    pub template: Option<String>,
    /// The resource-claim controller found that none is needed.
    pub unneeded: bool,
}

/// A claim that a container uses, by the pod's name for it, and which request of it if not all.
pub type Use = (String, Option<String>);

/// What a placement of a pod depends on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scheduling {
    /// Required node terms, selector included.
    pub node_terms: Vec<NodeTerm>,
    /// The required terms as they are in the pod, to be narrowed.
    pub required: Vec<core::NodeSelectorTerm>,
    /// Its tolerations.
    pub tolerations: Vec<Toleration>,
    /// For each container, the claims it uses, and which request of them if not all.
    pub containers: Vec<(String, Vec<Use>)>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PodBody {
    spec: core::PodSpec,
    status: core::PodStatus,
}

impl Pod {
    /// Whether it waits at vingt's gate.
    pub fn gated(&self) -> bool {
        self.gates.iter().any(|gate| gate == names::GATE)
    }

    /// Whether it waits at vingt's gate and at no other.
    pub fn gated_by_us_alone(&self) -> bool {
        self.gated() && self.gates.len() == 1
    }

    /// Its completion index, if it is of an indexed Job.
    pub fn index(&self) -> Option<u32> {
        self.marks.get(COMPLETION_INDEX)?.parse().ok()
    }

    /// Why it waits, as it says itself.
    pub fn waiting(&self) -> &str {
        self.marks.get(names::WAIT_REASON).map_or("", String::as_str)
    }
}

/// Annotation and label that the Job controller puts on the pods of an indexed Job.
const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// Annotation that says which pods of a `ReplicaSet` go first when it has too many.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// What Kubernetes gives a pod that does not say how long it may take to end.
pub const GRACE_SECONDS: i64 = 30;

impl View for Pod {
    fn parse(object: DynamicObject) -> Result<Self, serde_json::Error> {
        let body: PodBody = serde_json::from_value(object.data)?;
        let (meta, spec, status) = (object.metadata, body.spec, body.status);
        let gates: Vec<String> =
            spec.scheduling_gates.iter().flatten().map(|gate| gate.name.clone()).collect();
        let scheduling = (!gates.is_empty()).then(|| Box::new(scheduling(&spec)));
        let phase = status.phase.as_deref().unwrap_or_default();
        let condition =
            |type_: &str| status.conditions.iter().flatten().find(|condition| condition.type_ == type_);
        Ok(Self {
            version: meta.resource_version.clone().unwrap_or_default(),
            created_ms: meta.creation_timestamp.as_ref().map_or(0, |time| time.0.as_millisecond()),
            deleting: meta.deletion_timestamp.is_some(),
            leaves_ms: meta.deletion_timestamp.as_ref().map(|time| time.0.as_millisecond()),
            grace_ms: spec.termination_grace_period_seconds.unwrap_or(GRACE_SECONDS).saturating_mul(1000),
            ends_ms: status.start_time.as_ref().zip(spec.active_deadline_seconds).map(|(start, seconds)| {
                start.0.as_millisecond().saturating_add(seconds.saturating_mul(1000))
            }),
            priority: spec.priority.unwrap_or(0),
            ended: matches!(phase, "Succeeded" | "Failed"),
            failure: (phase == "Failed").then(|| failure(&status)),
            ready: condition("Ready").is_some_and(|condition| condition.status == "True"),
            pinned: pinned(&spec),
            unschedulable: condition("PodScheduled")
                .filter(|condition| {
                    condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable")
                })
                .map(|condition| {
                    let since =
                        condition.last_transition_time.as_ref().map_or(0, |time| time.0.as_millisecond());
                    (condition.message.clone().unwrap_or_default(), since)
                }),
            owner: owner(&meta),
            requests: requests::of_pod(&spec),
            claims: claims(&spec, &status),
            node: spec.node_name,
            gates,
            scheduling,
            marks: marks(&meta),
            uid: meta.uid.unwrap_or_default(),
        })
    }

    fn change(delta: Delta<Self>) -> Change {
        Change::Pod(delta)
    }
}

/// The controller among the owners of an object.
pub fn owner(meta: &ObjectMeta) -> Option<Owner> {
    let is_controller = |owner: &&OwnerReference| owner.controller == Some(true);
    let owner = meta.owner_references.iter().flatten().find(is_controller)?;
    Some(Owner { kind: owner.kind.clone(), name: owner.name.clone(), uid: owner.uid.clone() })
}

fn marks(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let both = meta.labels.iter().flatten().chain(meta.annotations.iter().flatten());
    let ours = both.filter(|(key, _)| {
        key.starts_with("vingt.dev/") || [COMPLETION_INDEX, DELETION_COST].contains(&key.as_str())
    });
    ours.map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn claims(spec: &core::PodSpec, status: &core::PodStatus) -> Vec<PodClaim> {
    let made =
        |name: &str| status.resource_claim_statuses.iter().flatten().find(|status| status.name == name);
    let claim = |claim: &core::PodResourceClaim| {
        let status = made(&claim.name);
        PodClaim {
            name: claim.name.clone(),
            claim: claim.resource_claim_name.clone().or_else(|| status?.resource_claim_name.clone()),
            template: claim.resource_claim_template_name.clone(),
            unneeded: claim.resource_claim_name.is_none()
                && status.is_some_and(|s| s.resource_claim_name.is_none()),
        }
    };
    spec.resource_claims.iter().flatten().map(claim).collect()
}

fn scheduling(spec: &core::PodSpec) -> Scheduling {
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let uses = |container: &core::Container| {
        let claims = container.resources.iter().filter_map(|resources| resources.claims.as_ref()).flatten();
        let claims = claims.map(|claim| (claim.name.clone(), claim.request.clone()));
        (container.name.clone(), claims.collect())
    };
    Scheduling {
        node_terms: node_terms(spec),
        required: required_terms(spec).to_vec(),
        tolerations: tolerations(spec),
        containers: containers.map(uses).collect(),
    }
}

/// The node that every required term names, if they all name one and the same.
fn pinned(spec: &core::PodSpec) -> Option<String> {
    let named = |term: &core::NodeSelectorTerm| {
        let fields = term.match_fields.iter().flatten();
        fields.filter(|field| field.key == "metadata.name" && field.operator == "In").find_map(|field| {
            match field.values.as_deref() {
                Some([node]) => Some(node.clone()),
                _ => None,
            }
        })
    };
    let mut nodes = required_terms(spec).iter().map(named);
    let first = nodes.next()??;
    nodes.all(|node| node.as_deref() == Some(first.as_str())).then_some(first)
}

fn failure(status: &core::PodStatus) -> String {
    let ended = status.container_statuses.iter().flatten().find_map(|container| {
        let state = container.state.as_ref()?.terminated.as_ref()?;
        (state.exit_code != 0)
            .then(|| format!("container {} exited with code {}", container.name, state.exit_code))
    });
    let said = || status.message.clone().or_else(|| status.reason.clone());
    ended.or_else(said).unwrap_or_else(|| "the pod failed".to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(value: serde_json::Value) -> Pod {
        Pod::parse(serde_json::from_value(value).unwrap()).unwrap()
    }

    #[test]
    fn a_gated_pod_keeps_what_its_placement_depends_on() {
        let pod = pod(json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "labels": {"app": "x", "vingt.dev/training-job": "t"},
                "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "ju", "controller": true}],
                "annotations": {"batch.kubernetes.io/job-completion-index": "3"}},
            "spec": {
                "schedulingGates": [{"name": "vingt.dev/admission"}],
                "priority": 5,
                "containers": [{"name": "c", "resources": {"claims": [{"name": "gpu"}, {"name": "more", "request": "r"}]}}],
                "resourceClaims": [
                    {"name": "gpu", "resourceClaimTemplateName": "t"},
                    {"name": "more", "resourceClaimName": "shared"},
                    {"name": "none", "resourceClaimTemplateName": "t"},
                    {"name": "later", "resourceClaimTemplateName": "t"},
                ]},
            "status": {"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "p-gpu-abc"}, {"name": "none"}]},
        }));
        assert!(pod.gated_by_us_alone());
        assert_eq!((pod.index(), pod.owner.as_ref().map(|o| o.name.as_str())), (Some(3), Some("j")));
        let claims: Vec<_> = pod.claims.iter().map(|c| (c.claim.as_deref(), c.unneeded)).collect();
        assert_eq!(
            claims,
            [(Some("p-gpu-abc"), false), (Some("shared"), false), (None, true), (None, false)]
        );
        assert_eq!((pod.priority, pod.grace_ms, pod.leaves_ms), (5, 30_000, None));
        let scheduling = pod.scheduling.unwrap();
        let uses = vec![("gpu".to_owned(), None), ("more".to_owned(), Some("r".to_owned()))];
        assert_eq!(scheduling.containers, [("c".to_owned(), uses)]);
        assert!(!pod.marks.contains_key("app"), "what is not vingt's is not kept");
    }

    #[test]
    fn a_pod_is_pinned_if_every_term_names_the_same_node() {
        let term = |nodes: &[&str]| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": nodes}]});
        let with = |terms: Vec<serde_json::Value>| {
            let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
            pod(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"},
                "spec": {"containers": [], "affinity": affinity}}))
            .pinned
        };
        assert_eq!(with(vec![term(&["a"]), term(&["a"])]), Some("a".into()));
        assert_eq!(with(vec![term(&["a"]), term(&["b"])]), None);
        assert_eq!(with(vec![term(&["a"]), json!({"matchExpressions": []})]), None);
        assert_eq!(with(vec![term(&["a", "b"])]), None);
        assert_eq!(with(vec![]), None);
    }
}
