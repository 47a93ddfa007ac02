//! Nodes and namespaces, and how node selectors, affinity and tolerations are
//! put into the core's words.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1 as core;
use kube::api::DynamicObject;
use serde::Deserialize;
use vingt_core::model::{NodeTerm, Operator, Requirement, Resources, Taint, Toleration};

use super::{Change, Delta, View, requests};

/// A node, as far as it matters here.
#[derive(Debug)]
pub struct Node {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints that keep pods away.
    pub taints: Vec<Taint>,
    /// Ready and not cordoned.
    pub usable: bool,
    /// Since when nothing is heard of it, in milliseconds since 1970, if so.
    pub lost_ms: Option<i64>,
    /// What it offers.
    pub allocatable: Resources,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct NodeBody {
    spec: core::NodeSpec,
    status: core::NodeStatus,
}

impl View for Node {
    fn parse(object: DynamicObject) -> Result<Self, serde_json::Error> {
        let body: NodeBody = serde_json::from_value(object.data)?;
        let ready = body.status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
        let lost = ready.filter(|ready| ready.status == "Unknown");
        let lost_ms =
            lost.and_then(|ready| ready.last_transition_time.as_ref()).map(|at| at.0.as_millisecond());
        let ready = ready.is_some_and(|ready| ready.status == "True");
        let keeping = |taint: &core::Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
        let taints = body.spec.taints.into_iter().flatten().filter(keeping).map(|taint| Taint {
            key: taint.key,
            value: taint.value.unwrap_or_default(),
            effect: taint.effect,
        });
        Ok(Self {
            labels: object.metadata.labels.unwrap_or_default(),
            taints: taints.collect(),
            lost_ms,
            usable: ready && !body.spec.unschedulable.unwrap_or(false),
            allocatable: requests::of_allocatable(body.status.allocatable.as_ref()),
        })
    }

    fn change(delta: Delta<Self>) -> Change {
        Change::Node(delta)
    }
}

/// A namespace.
#[derive(Debug)]
pub struct Namespace {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it is being deleted.
    pub terminating: bool,
}

impl View for Namespace {
    fn parse(object: DynamicObject) -> Result<Self, serde_json::Error> {
        Ok(Self {
            terminating: object.metadata.deletion_timestamp.is_some(),
            labels: object.metadata.labels.unwrap_or_default(),
        })
    }

    fn change(delta: Delta<Self>) -> Change {
        Change::Namespace(delta)
    }
}

/// A pod's node selector and required affinity as one list of terms, of which
/// one must match; empty means any node.
pub fn node_terms(spec: &core::PodSpec) -> Vec<NodeTerm> {
    let selector: Vec<Requirement> = spec
        .node_selector
        .iter()
        .flatten()
        .map(|(key, value)| Requirement {
            key: key.clone(),
            operator: Operator::In,
            values: vec![value.clone()],
        })
        .collect();
    let required = required_terms(spec);
    if required.is_empty() {
        return if selector.is_empty() { vec![] } else { vec![NodeTerm { labels: selector, names: vec![] }] };
    }
    let term = |term: &core::NodeSelectorTerm| {
        let requirements = |list: &Option<Vec<core::NodeSelectorRequirement>>| -> Vec<Requirement> {
            list.iter().flatten().map(requirement).collect()
        };
        let mut labels = requirements(&term.match_expressions);
        let names = requirements(&term.match_fields);
        // A term without any requirement matches no node.
        if labels.is_empty() && names.is_empty() {
            labels.push(Requirement { key: String::new(), operator: Operator::In, values: vec![] });
        }
        labels.extend(selector.iter().cloned());
        NodeTerm { labels, names }
    };
    required.iter().map(term).collect()
}

/// The required node affinity terms of a pod.
pub fn required_terms(spec: &core::PodSpec) -> &[core::NodeSelectorTerm] {
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required =
        affinity.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    required.map_or(&[], |required| &required.node_selector_terms)
}

fn requirement(requirement: &core::NodeSelectorRequirement) -> Requirement {
    let (operator, values) = match requirement.operator.as_str() {
        "In" => (Operator::In, requirement.values.clone()),
        "NotIn" => (Operator::NotIn, requirement.values.clone()),
        "Exists" => (Operator::Exists, None),
        "DoesNotExist" => (Operator::DoesNotExist, None),
        "Gt" => (Operator::Gt, requirement.values.clone()),
        "Lt" => (Operator::Lt, requirement.values.clone()),
        // The API server accepts no other; were there one, no node would match.
        _ => (Operator::In, None),
    };
    Requirement { key: requirement.key.clone(), operator, values: values.unwrap_or_default() }
}

/// A pod's tolerations.
pub fn tolerations(spec: &core::PodSpec) -> Vec<Toleration> {
    let toleration = |toleration: &core::Toleration| {
        let value = match toleration.operator.as_deref() {
            Some("Exists") => None,
            _ => Some(toleration.value.clone().unwrap_or_default()),
        };
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Toleration { key: given(&toleration.key), value, effect: given(&toleration.effect) }
    };
    spec.tolerations.iter().flatten().map(toleration).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_selector_is_part_of_every_term() {
        let spec: core::PodSpec = serde_json::from_value(json!({
            "containers": [],
            "nodeSelector": {"zone": "a"},
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]},
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
                {},
            ]}}},
        }))
        .unwrap();
        let zone = Requirement { key: "zone".into(), operator: Operator::In, values: vec!["a".into()] };
        let gpu = Requirement { key: "gpu".into(), operator: Operator::Exists, values: vec![] };
        let name =
            Requirement { key: "metadata.name".into(), operator: Operator::In, values: vec!["n".into()] };
        let never = Requirement { key: String::new(), operator: Operator::In, values: vec![] };
        assert_eq!(
            node_terms(&spec),
            [
                NodeTerm { labels: vec![gpu, zone.clone()], names: vec![] },
                NodeTerm { labels: vec![zone.clone()], names: vec![name] },
                NodeTerm { labels: vec![never, zone], names: vec![] },
            ]
        );
    }

    #[test]
    fn tolerations_leave_out_what_matches_everything() {
        let spec: core::PodSpec = serde_json::from_value(json!({"containers": [], "tolerations": [
            {"operator": "Exists"},
            {"key": "a", "value": "b", "effect": "NoSchedule"},
            {"key": "a"},
        ]}))
        .unwrap();
        let toleration = |key: Option<&str>, value: Option<&str>, effect: Option<&str>| Toleration {
            key: key.map(str::to_owned),
            value: value.map(str::to_owned),
            effect: effect.map(str::to_owned),
        };
        assert_eq!(
            tolerations(&spec),
            [
                toleration(None, None, None),
                toleration(Some("a"), Some("b"), Some("NoSchedule")),
                toleration(Some("a"), Some(""), None),
            ]
        );
    }
}
