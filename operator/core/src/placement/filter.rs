//! Which nodes suit a pod, by what Kubernetes' own scheduler would check again:
//! readiness, taints, node affinity. Devices, CPU and memory are not looked at here.

use std::fmt;

use crate::model::{Node, NodeTerm, Operator, PodShape, Requirement, Taint, Toleration};

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
