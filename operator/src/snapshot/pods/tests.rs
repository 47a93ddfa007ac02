//! Stages of pods, told from exact objects.

use k8s_openapi::api::resource::v1::DeviceClass;
use serde_json::{Value, json};

use super::super::ask::tests::class;
use super::super::layout::tests::list;
use super::*;

#[allow(clippy::needless_pass_by_value)] // The cases read better without borrows.
fn pod(gates: &[&str], claims: Value) -> Value {
    let gates: Vec<Value> = gates.iter().map(|gate| json!({"name": gate})).collect();
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "p", "uid": "px", "resourceVersion": "1"},
        "spec": {"schedulingGates": gates, "containers": [{"name": "c"}], "resourceClaims": claims}})
}

/// A claim of vingt's, and what was decided and allocated for whom.
fn claim(name: &str, decided_for: Option<&str>, allocated_on: Option<&str>, users: &[&str]) -> Value {
    let node = allocated_on.unwrap_or("n");
    let devices = json!([{"request": "gpu", "pool": node, "device": name}]);
    let record = decided_for.map(|workload| {
        json!({"version": 1, "claim": name, "node": node, "units": 8, "tenant": "t", "workload": workload,
            "start": "2026-01-01T00:00:00Z", "devices": devices})
        .to_string()
    });
    let allocation = allocated_on.map(|node| {
        json!({"devices": {"results": [{"driver": "gpu.vingt.dev", "pool": node, "device": name, "request": "gpu"}]}})
    });
    let users: Vec<Value> =
        users.iter().map(|uid| json!({"resource": "pods", "name": uid, "uid": uid})).collect();
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": name, "namespace": "p", "uid": name, "resourceVersion": "1",
            "finalizers": if decided_for.is_some() { vec!["resource.kubernetes.io/delete-protection"] } else { vec![] },
            "annotations": record.map(|record| json!({"vingt.dev/decision": record}))},
        "spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "mig.vingt.dev"}}]}},
        "status": {"allocation": allocation, "reservedFor": users}})
}

fn staged(pod_value: Value, claims: Vec<Value>) -> PodStage {
    let mut world = World::default();
    list::<DeviceClass>(&mut world, [class("mig.vingt.dev", r#"device.driver == "gpu.vingt.dev""#)]);
    list::<Claim>(&mut world, claims);
    list::<Pod>(&mut world, [pod_value]);
    let key = Key::new("p", "x");
    stage(&key, &world.pods.get(&key).unwrap().clone(), &world)
}

fn named(names: &[&str]) -> Value {
    names.iter().map(|name| json!({"name": name, "resourceClaimName": name})).collect()
}

const GATE: &[&str] = &["vingt.dev/admission"];
const ME: &str = "Pod/p/x";

#[test]
fn a_pod_without_devices_of_vingt_is_free() {
    assert_eq!(staged(pod(GATE, json!([])), vec![]), PodStage::Free);
    let mut foreign = claim("f", None, None, &[]);
    foreign["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"] = json!("other.example.com");
    assert_eq!(staged(pod(GATE, named(&["f"])), vec![foreign]), PodStage::Free);
}

#[test]
fn undecided_claims_are_planned_together() {
    let PodStage::Plan(needs) =
        staged(pod(GATE, named(&["a", "b"])), vec![claim("a", None, None, &[]), claim("b", None, None, &[])])
    else {
        panic!("not planned");
    };
    assert_eq!(needs.claims.len(), 2);
    assert_eq!((needs.shared.len(), needs.node), (0, None));
}

#[test]
fn a_pod_waits_for_its_claims_and_for_other_gates() {
    assert!(matches!(staged(pod(GATE, named(&["a"])), vec![]), PodStage::Unmade(_)));
    let both = &["vingt.dev/admission", "example.com/other"];
    let PodStage::Waits(why) = staged(pod(both, named(&["a"])), vec![claim("a", None, None, &[])]) else {
        panic!("does not wait")
    };
    assert_eq!(why, "other scheduling gates hold the pod: example.com/other");
}

#[test]
fn a_decision_is_carried_on_or_taken_back_never_left_half() {
    let whole = vec![claim("a", Some(ME), Some("n"), &["px"]), claim("b", Some(ME), None, &[])];
    let PodStage::Bind(binding) = staged(pod(GATE, named(&["a", "b"])), whole) else {
        panic!("not carried on")
    };
    assert_eq!((binding.node.as_str(), binding.claims.len()), ("n", 2));

    let half = vec![claim("a", Some(ME), None, &[]), claim("b", None, None, &[])];
    assert_eq!(staged(pod(GATE, named(&["a", "b"])), half), PodStage::RollBack(vec![Key::new("p", "a")]));
}

#[test]
fn a_claim_that_others_use_is_shared_on_its_node() {
    let shared = |users: &[&str]| claim("s", Some("Pod/p/first"), Some("n"), users);
    let PodStage::Plan(needs) = staged(pod(GATE, named(&["s"])), vec![shared(&["other"])]) else {
        panic!("not planned");
    };
    assert_eq!(needs, PodNeeds { claims: vec![], shared: vec![Key::new("p", "s")], node: Some("n".into()) });
    let PodStage::Bind(binding) = staged(pod(GATE, named(&["s"])), vec![shared(&["other", "px"])]) else {
        panic!("not bound");
    };
    assert_eq!(binding, PodBinding { node: "n".into(), claims: vec![], shared: vec![Key::new("p", "s")] });
    let both = vec![shared(&["other"]), claim("a", None, None, &[])];
    let PodStage::Plan(needs) = staged(pod(GATE, named(&["s", "a"])), both) else {
        panic!("not planned");
    };
    assert_eq!((needs.node.as_deref(), needs.claims.len()), (Some("n"), 1), "the rest goes to the same node");
}

#[test]
fn a_pod_that_only_shares_is_planned_for_the_nodes_room() {
    use vingt_core::model::{Node, PodShape, Resources, Snapshot, Tenant, Workload};
    let resources = |cpu_milli| Resources { cpu_milli, pods: 1, ..Resources::default() };
    let planned = |cpu_milli| {
        let shape =
            PodShape { resources: resources(cpu_milli), pinned: Some("n".into()), ..PodShape::default() };
        let allocatable = Resources { pods: 10, ..resources(1000) };
        let snapshot = Snapshot {
            nodes: vec![Node { name: "n".into(), schedulable: true, allocatable, ..Node::default() }],
            tenants: [("t".to_owned(), Tenant::default())].into(),
            waiting: vec![Workload { key: ME.into(), tenant: "t".into(), pods: 1, ..Workload::default() }],
            shapes: vec![shape],
            ..Snapshot::default()
        };
        let plan = vingt_core::plan(&snapshot, 0);
        let node = plan.admissions.first().map(|admission| admission.pods[0].node.0);
        (node, plan.waits.first().map(|wait| wait.reason.to_string()))
    };
    assert_eq!(planned(1000), (Some(0), None));
    let (node, why) = planned(1001);
    assert!(node.is_none() && why.as_ref().is_some_and(|why| why.contains("cpu")), "{why:?}");
}

#[test]
fn a_claim_that_is_somebody_elses_is_waited_for() {
    let others = claim("a", Some("Pod/p/first"), None, &[]);
    let PodStage::Waits(why) = staged(pod(GATE, named(&["a"])), vec![others]) else {
        panic!("does not wait")
    };
    assert_eq!(why, "ResourceClaim a is being allocated for Pod/p/first");
    let PodStage::Waits(why) =
        staged(pod(GATE, named(&["a"])), vec![claim("a", None, Some("n"), &["other"])])
    else {
        panic!("does not wait");
    };
    assert!(why.contains("not by vingt"), "{why}");
}

#[test]
fn claims_on_two_nodes_cannot_be_had_together() {
    let claims =
        vec![claim("a", Some("Pod/p/1"), Some("n"), &["1"]), claim("b", Some("Pod/p/2"), Some("m"), &["2"])];
    let PodStage::Waits(why) = staged(pod(GATE, named(&["a", "b"])), claims) else { panic!("does not wait") };
    assert!(why.contains("different nodes"), "{why}");
}

#[test]
fn a_pod_that_was_never_gated_is_not_served() {
    let found = |gates: &[&str], claim: Value, scheduled: &str| {
        let mut world = World::default();
        list::<DeviceClass>(&mut world, [class("mig.vingt.dev", r#"device.driver == "gpu.vingt.dev""#)]);
        list::<Claim>(&mut world, [claim]);
        let mut pod = pod(gates, named(&["a"]));
        pod["status"] =
            json!({"conditions": [{"type": "PodScheduled", "status": scheduled, "reason": "Unschedulable"}]});
        list::<Pod>(&mut world, [pod]);
        let key = Key::new("p", "x");
        unserved(&key, &world.pods.get(&key).unwrap().clone(), &world)
    };
    let undecided = || claim("a", None, None, &[]);
    assert!(found(&[], undecided(), "False"));
    assert!(!found(GATE, undecided(), "False"), "it waits at the gate");
    assert!(!found(&[], undecided(), "True"), "kube-scheduler does not wait");
    assert!(!found(&[], claim("a", Some(ME), Some("n"), &["px"]), "False"), "it was let go with its device");
    let mut foreign = undecided();
    foreign["spec"]["devices"]["requests"][0]["exactly"]["deviceClassName"] = json!("other.example.com");
    assert!(!found(&[], foreign, "False"), "it is another driver's to serve");
}
