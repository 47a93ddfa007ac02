use std::collections::BTreeMap;

use super::filter::{Objection, objection};
use super::room::Room;
use crate::model::{Node, NodeTerm, Operator, PodShape, Requirement, Resources, Taint, Toleration};

fn node() -> Node {
    let labels = [("zone", "b"), ("gpus", "8")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    Node { name: "n1".into(), schedulable: true, labels: labels.into(), ..Node::default() }
}

fn requirement(key: &str, operator: Operator, values: &[&str]) -> Requirement {
    Requirement { key: key.into(), operator, values: values.iter().map(|&value| value.into()).collect() }
}

fn selects(labels: Vec<Requirement>, names: Vec<Requirement>) -> bool {
    let shape = PodShape { node_terms: vec![NodeTerm { labels, names }], ..PodShape::default() };
    objection(&node(), &shape, false).is_none()
}

#[test]
fn labels_are_compared_as_kubernetes_does() {
    use Operator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};
    for (key, operator, values, holds) in [
        ("zone", In, &["a", "b"][..], true),
        ("zone", In, &["a"], false),
        ("zone", In, &[], false),
        ("rack", In, &["a"], false),
        ("zone", NotIn, &["a"], true),
        ("zone", NotIn, &["b"], false),
        ("rack", NotIn, &["a"], true),
        ("zone", Exists, &[], true),
        ("rack", Exists, &[], false),
        ("zone", DoesNotExist, &[], false),
        ("rack", DoesNotExist, &[], true),
        ("gpus", Gt, &["7"], true),
        ("gpus", Gt, &["8"], false),
        ("gpus", Lt, &["9"], true),
        ("gpus", Lt, &["many"], false),
        ("gpus", Gt, &["7", "7"], false),
        ("zone", Gt, &["0"], false),
        ("rack", Lt, &["9"], false),
    ] {
        let selected = selects(vec![requirement(key, operator, values)], vec![]);
        assert_eq!(selected, holds, "{key} {operator:?} {values:?}");
    }
}

#[test]
fn all_requirements_of_one_term_must_hold_and_an_empty_term_selects_nothing() {
    let zone = requirement("zone", Operator::In, &["b"]);
    let name = requirement("metadata.name", Operator::In, &["n1"]);
    let other = requirement("metadata.name", Operator::In, &["n2"]);
    assert!(selects(vec![zone.clone()], vec![name.clone()]));
    assert!(!selects(vec![zone.clone()], vec![other.clone()]));
    assert!(!selects(vec![], vec![]));
    let term = |names| NodeTerm { labels: vec![zone.clone()], names };
    let shape = PodShape { node_terms: vec![term(vec![other]), term(vec![name])], ..PodShape::default() };
    assert_eq!(objection(&node(), &shape, false), None);
}

#[test]
fn taints_keep_away_what_does_not_tolerate_them() {
    let taint = |effect: &str| Taint { key: "team".into(), value: "x".into(), effect: effect.into() };
    let toleration = |key: Option<&str>, value: Option<&str>, effect: Option<&str>| Toleration {
        key: key.map(Into::into),
        value: value.map(Into::into),
        effect: effect.map(Into::into),
    };
    let goes = |effect: &str, tolerations: &[Toleration]| {
        let node = Node { taints: vec![taint(effect)], ..node() };
        let shape = PodShape { tolerations: tolerations.into(), ..PodShape::default() };
        objection(&node, &shape, false).is_none()
    };
    assert!(!goes("NoSchedule", &[]));
    assert!(!goes("NoExecute", &[]));
    assert!(goes("PreferNoSchedule", &[]));
    assert!(goes("NoSchedule", &[toleration(None, None, None)]));
    assert!(goes("NoSchedule", &[toleration(Some("team"), None, None)]));
    assert!(goes("NoSchedule", &[toleration(Some("team"), Some("x"), Some("NoSchedule"))]));
    assert!(!goes("NoSchedule", &[toleration(Some("team"), Some("y"), None)]));
    assert!(!goes("NoSchedule", &[toleration(Some("other"), None, None)]));
    assert!(!goes("NoExecute", &[toleration(Some("team"), None, Some("NoSchedule"))]));
}

#[test]
fn an_emptied_cluster_has_well_nodes_but_keeps_their_purpose() {
    let taint = |key: &str| Taint { key: key.into(), value: String::new(), effect: "NoExecute".into() };
    let sick = Node { schedulable: false, taints: vec![taint("node.kubernetes.io/unreachable")], ..node() };
    let any = PodShape::default();
    assert_eq!(objection(&sick, &any, false), Some(Objection::Taint("node.kubernetes.io/unreachable")));
    assert_eq!(objection(&sick, &any, true), None);
    let kept = Node { taints: vec![taint("team")], ..node() };
    assert_eq!(objection(&kept, &any, true), Some(Objection::Taint("team")));
    let pinned = PodShape { pinned: Some("n2".into()), ..PodShape::default() };
    assert_eq!(objection(&kept, &pinned, true), Some(Objection::Pinned("n2")));
}

#[test]
fn pods_are_counted_by_what_they_run_out_of_first() {
    let resources = |cpu_milli, memory_bytes, pods, storage| Resources {
        cpu_milli,
        memory_bytes,
        pods,
        other: BTreeMap::from([("ephemeral-storage".to_owned(), storage)]),
    };
    let node = Node { allocatable: resources(4000, 64, 5, 30), ..Node::default() };
    let huge =
        Resources { other: BTreeMap::from([("hugepages-1Gi".to_owned(), 1)]), ..resources(1, 1, 1, 1) };
    for (need, fit) in [
        (resources(1000, 8, 1, 0), (4, Objection::Short("cpu"))),
        (resources(500, 32, 1, 0), (2, Objection::Short("memory"))),
        (resources(0, 0, 0, 0), (5, Objection::Short("pods"))),
        (resources(0, 0, 1, 31), (0, Objection::Short("ephemeral-storage"))),
        (huge, (0, Objection::Short("hugepages-1Gi"))),
    ] {
        let shape = PodShape { resources: need, ..PodShape::default() };
        let mut room = Room::new(std::slice::from_ref(&node), &[&shape], false);
        assert_eq!(room.pods(0, 0), fit);
        room.take(0, 0, 9);
        assert_eq!(room.pods(0, 0).0, fit.0.saturating_sub(9));
        room.give(0, 0, 9);
        assert_eq!(room.pods(0, 0), fit);
    }
    // A pod that asks for none of a resource may go to a node that is out of it.
    let full = Node { requested: resources(9000, 1, 1, 0), ..node.clone() };
    let memory = PodShape { resources: resources(0, 21, 1, 0), ..PodShape::default() };
    assert_eq!(Room::new(&[full], &[&memory], false).pods(0, 0), (3, Objection::Short("memory")));
}
