//! Which nodes suit a pod, by what Kubernetes' own scheduler would check again:
//! readiness, taints, node affinity, CPU and memory. Devices are not looked at here.

use std::fmt;

use crate::model::{Node, NodeTerm, Operator, PodShape, Requirement, Resources, Taint, Toleration};

/// Taints of this prefix tell of a passing condition of the node, not of its purpose.
const CONDITION_TAINTS: &str = "node.kubernetes.io/";

/// Why a node does not take a pod, or not as many as it has devices for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Objection<'a> {
    /// The pods must go to this node.
    Pinned(&'a str),
    /// No node term matches.
    Selector,
    /// A taint with this key.
    Taint(&'a str),
    /// It takes no pods at present.
    NotReady,
    /// It runs out of this resource.
    Short(&'a str),
}

impl fmt::Display for Objection<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned(node) => write!(f, "not node {node}"),
            Self::Selector => f.write_str("node selector"),
            Self::Taint(key) => write!(f, "taint {key}"),
            Self::NotReady => f.write_str("not ready"),
            Self::Short(resource) => f.write_str(resource),
        }
    }
}

/// Why no pod of this shape may go to `node`, however free it is; `None` if it may.
/// For an `emptied` cluster, nodes are taken to be well.
pub(crate) fn objection<'a>(node: &'a Node, shape: &'a PodShape, emptied: bool) -> Option<Objection<'a>> {
    if let Some(pinned) = shape.pinned.as_ref().filter(|pinned| **pinned != node.name) {
        return Some(Objection::Pinned(pinned));
    }
    if !shape.node_terms.is_empty() && !shape.node_terms.iter().any(|term| term_matches(term, node)) {
        return Some(Objection::Selector);
    }
    let keeps_away = |taint: &&Taint| {
        matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute")
            && !(emptied && taint.key.starts_with(CONDITION_TAINTS))
            && !shape.tolerations.iter().any(|toleration| tolerates(toleration, taint))
    };
    if let Some(taint) = node.taints.iter().find(keeps_away) {
        return Some(Objection::Taint(&taint.key));
    }
    if !emptied && !node.schedulable {
        return Some(Objection::NotReady);
    }
    None
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let agrees = |wanted: &Option<String>, is: &String| wanted.as_ref().is_none_or(|wanted| wanted == is);
    agrees(&toleration.effect, &taint.effect)
        && agrees(&toleration.key, &taint.key)
        && agrees(&toleration.value, &taint.value)
}

/// A term without requirements matches no node, as in Kubernetes.
fn term_matches(term: &NodeTerm, node: &Node) -> bool {
    let labels_match = || term.labels.iter().all(|r| requirement_holds(r, node.labels.get(&r.key)));
    let names_match = || term.names.iter().all(|r| requirement_holds(r, Some(&node.name)));
    !(term.labels.is_empty() && term.names.is_empty()) && labels_match() && names_match()
}

fn requirement_holds(requirement: &Requirement, value: Option<&String>) -> bool {
    let listed = |value: &String| requirement.values.contains(value);
    let compared = |holds: fn(i64, i64) -> bool| match (value, requirement.values.as_slice()) {
        (Some(value), [bound]) => {
            value.parse().is_ok_and(|value| bound.parse().is_ok_and(|bound| holds(value, bound)))
        }
        _ => false,
    };
    match requirement.operator {
        Operator::In => value.is_some_and(listed),
        Operator::NotIn => !value.is_some_and(listed),
        Operator::Exists => value.is_some(),
        Operator::DoesNotExist => value.is_none(),
        Operator::Gt => compared(|value, bound| value > bound),
        Operator::Lt => compared(|value, bound| value < bound),
    }
}

/// How many pods that each need `need` fit into `free`, and what they run out of first.
pub(crate) fn pods_in<'a>(free: &Resources, need: &'a Resources) -> (u64, Objection<'a>) {
    let other = |name: &str| free.other.get(name).copied().unwrap_or(0);
    let amounts = [
        ("cpu", free.cpu_milli, need.cpu_milli),
        ("memory", free.memory_bytes, need.memory_bytes),
        ("pods", free.pods, need.pods.max(1)),
    ];
    let others = need.other.iter().map(|(name, need)| (name.as_str(), other(name), *need));
    let times = amounts.into_iter().chain(others).filter_map(|(name, free, need)| {
        // Kubernetes lets a pod that asks for none of a resource onto a node that is out of it.
        Some((free.checked_div(need)?, name))
    });
    let (times, first) = times.min_by_key(|(times, _)| *times).unwrap_or((u64::MAX, ""));
    (times, Objection::Short(first))
}

/// What is left of `all` once `part` is taken away.
pub(crate) fn less(all: &Resources, part: &Resources) -> Resources {
    let other = |(name, amount): (&String, &u64)| {
        (name.clone(), amount.saturating_sub(part.other.get(name).copied().unwrap_or(0)))
    };
    Resources {
        cpu_milli: all.cpu_milli.saturating_sub(part.cpu_milli),
        memory_bytes: all.memory_bytes.saturating_sub(part.memory_bytes),
        pods: all.pods.saturating_sub(part.pods),
        other: all.other.iter().map(other).collect(),
    }
}

/// What one pod takes of a node: what it asks for, and at least its place among the node's pods.
pub(crate) fn taken_by(shape: &PodShape) -> Resources {
    Resources { pods: shape.resources.pods.max(1), ..shape.resources.clone() }
}
