//! Facts of a gang, told from exact objects.

use serde_json::{Value, json};
use vingt_core::lifecycle::{GangStep, next_step};

use super::*;
use crate::snapshot::layout::tests::{list, slices};
use crate::world::{Node, Slice};

const A: &str = "gpu-0-mig-3g40gb-0";
const B: &str = "gpu-0-mig-3g40gb-4";

fn controller(kind: &str, name: &str, uid: &str) -> Value {
    json!([{"apiVersion": "x/v1", "kind": kind, "name": name, "uid": uid, "controller": true}])
}

/// The pod of a worker, with its claim `c<index>`.
fn pod(index: u32, gated: bool, status: Value) -> Value {
    let gate_list: Vec<Value> = if gated { vec![json!({"name": "vingt.dev/admission"})] } else { vec![] };
    let mut status = status;
    status["resourceClaimStatuses"] = json!([{"name": "gpu", "resourceClaimName": format!("c{index}")}]);
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": format!("t-{index}"), "namespace": "p", "uid": format!("p{index}"), "resourceVersion": "1",
            "ownerReferences": controller("Job", "t", "j"),
            "annotations": {"batch.kubernetes.io/job-completion-index": index.to_string()}},
        "spec": {"containers": [], "schedulingGates": gate_list, "nodeName": if gated { Value::Null } else { json!("n") },
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t-gpu"}]},
        "status": status})
}

fn claim(index: u32, decided: Option<&str>, allocated: bool) -> Value {
    let devices = decided.map(|device| json!([{"request": "gpu", "pool": "n", "device": device}]));
    let record = devices.as_ref().map(|devices| {
        json!({"version": 1, "claim": format!("c{index}"), "node": "n", "units": 28, "tenant": "t",
            "workload": "TrainingJob/p/t", "start": "2026-01-01T00:00:00Z", "devices": devices})
        .to_string()
    });
    let results = json!([{"driver": "gpu.vingt.dev", "pool": "n", "device": decided, "request": "gpu"}]);
    let status = allocated.then(|| {
        json!({"allocation": {"devices": {"results": results}},
            "reservedFor": [{"resource": "pods", "name": "x", "uid": format!("p{index}")}]})
    });
    json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": format!("c{index}"), "namespace": "p", "uid": format!("c{index}"), "resourceVersion": "1",
            "ownerReferences": controller("Pod", &format!("t-{index}"), &format!("p{index}")),
            "finalizers": if decided.is_some() { vec!["resource.kubernetes.io/delete-protection"] } else { vec![] },
            "annotations": record.map(|record| json!({"vingt.dev/decision": record}))},
        "spec": {}, "status": status})
}

#[allow(clippy::needless_pass_by_value)] // The cases read better without borrows.
fn world(pods: Vec<Value>, claims: Vec<Value>, job_status: Value) -> World {
    let mut world = World::default();
    let assigned = |worker: u32, device: &str| json!({"worker": worker, "node": "n", "devices": [{"request": "gpu", "pool": "n", "device": device}]});
    list::<TrainingJob>(
        &mut world,
        [json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "t", "namespace": "p", "uid": "tu", "resourceVersion": "1", "generation": 1},
        "spec": {"workers": 2, "gpu": {"profile": "3g.40gb"}, "template": {"spec": {"containers": [{"name": "c"}]}}},
        "status": {"admittedAt": "2026-01-01T00:00:00Z", "assignments": [assigned(0, A), assigned(1, B)]}})],
    );
    list::<Job>(
        &mut world,
        [json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "t", "namespace": "p", "uid": "j", "resourceVersion": "1",
            "ownerReferences": controller("TrainingJob", "t", "tu")},
        "spec": {"suspend": false}, "status": job_status})],
    );
    list::<Node>(
        &mut world,
        [json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "resourceVersion": "1"}})],
    );
    list::<Slice>(&mut world, slices("n", 1, 1));
    list::<Pod>(&mut world, pods);
    list::<Claim>(&mut world, claims);
    world
}

/// When the gang was admitted: 2026-01-01.
const ADMITTED_MS: i64 = 1_767_225_600_000;
const HOUR_MS: i64 = 3_600_000;

fn gang(world: &World) -> Gang {
    let key = Key::new("p", "t");
    let job = world.training_jobs.get(&key).unwrap();
    let (members, holders) = (Members::of(world), Holders::of(world));
    let layout = Layout::of(&world.slices);
    let now_ms = ADMITTED_MS + HOUR_MS;
    of(&key, job, Sight { world, members: &members, holders: &holders, layout: &layout, now_ms })
}

/// The same gang, with a condition `PodsReady` since a minute after its admission.
fn told_ready(mut world: World, truth: &str) -> World {
    let job = world.training_jobs.get(&Key::new("p", "t")).unwrap();
    let mut job = serde_json::to_value(job.as_ref()).unwrap();
    job["status"]["conditions"] = json!([{"type": "PodsReady", "status": truth, "reason": "x", "message": "",
        "lastTransitionTime": "2026-01-01T00:01:00Z"}]);
    list::<TrainingJob>(&mut world, [job]);
    world
}

#[test]
fn a_gang_that_was_ready_has_its_whole_time_to_be_so_again() {
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let pods = || vec![pod(0, false, ready.clone()), pod(1, false, json!({"phase": "Failed"}))];
    let now_ms = ADMITTED_MS + HOUR_MS;
    let broken = gang(&told_ready(world(pods(), vec![], json!({})), "True"));
    assert_eq!(broken.facts.unready_since_ms, Some(now_ms), "since now");
    assert!(
        matches!(next_step(&broken.facts, now_ms), GangStep::Wait { .. }),
        "its failure is the Job's to tell"
    );
    let since = |truth| gang(&told_ready(world(pods(), vec![], json!({})), truth)).facts.unready_since_ms;
    assert_eq!(since("False"), Some(ADMITTED_MS + 60_000), "since it stopped being so");
    assert_eq!(gang(&world(pods(), vec![], json!({}))).facts.unready_since_ms, Some(ADMITTED_MS));
}

fn counts(live: u32, gated: u32, missing: u32, unwritten: u32, conflicting: u32, present: u32) -> PodCounts {
    PodCounts {
        live,
        gated,
        claim_missing: missing,
        claim_unwritten: unwritten,
        claim_conflicting: conflicting,
        present,
    }
}

#[test]
fn gated_workers_are_counted_by_how_far_their_claims_are() {
    let gated = || vec![pod(0, true, json!({})), pod(1, true, json!({}))];
    let found = gang(&world(gated(), vec![claim(0, None, false)], json!({})));
    assert_eq!(found.facts.pods, counts(2, 2, 1, 1, 0, 2), "one claim is not there yet");
    assert_eq!(
        (found.facts.job, found.facts.planned, found.facts.plan_lost),
        (JobState::Running, true, false)
    );

    let found = gang(&world(gated(), vec![claim(0, Some(A), true), claim(1, Some(B), false)], json!({})));
    assert_eq!(found.facts.pods, counts(2, 2, 0, 1, 0, 2), "one is allocated, one is recorded");
    assert_eq!(found.facts.claims_held, 2);

    let found = gang(&world(gated(), vec![claim(0, Some(B), true), claim(1, None, false)], json!({})));
    assert_eq!(found.facts.pods.claim_conflicting, 1, "another device than planned");
}

#[test]
fn two_pods_for_one_place_wait_until_one_is_left() {
    let mut twin = pod(0, true, json!({}));
    twin["metadata"]["name"] = json!("t-0-twin");
    twin["metadata"]["uid"] = json!("twin");
    let pods = vec![pod(0, true, json!({})), twin, pod(1, true, json!({}))];
    let found = gang(&world(pods, vec![claim(0, None, false), claim(1, None, false)], json!({})));
    assert_eq!(found.facts.pods, counts(3, 3, 2, 1, 0, 3), "neither of the two is written");
}

#[test]
fn a_job_of_another_name_brings_no_workers() {
    let mut world = world(vec![pod(0, true, json!({}))], vec![], json!({}));
    list::<Job>(
        &mut world,
        [json!({"apiVersion": "batch/v1", "kind": "Job",
        "metadata": {"name": "forged", "namespace": "p", "uid": "j", "resourceVersion": "1",
            "ownerReferences": controller("TrainingJob", "t", "tu")}})],
    );
    assert_eq!(gang(&world).facts.pods, PodCounts::default());
}

#[test]
fn a_claim_made_for_another_pod_is_not_the_workers() {
    let mut other = claim(0, None, false);
    other["metadata"]["ownerReferences"] = controller("Pod", "x", "somebody");
    let found = gang(&world(vec![pod(0, true, json!({}))], vec![other], json!({})));
    assert_eq!(found.facts.pods, counts(1, 1, 1, 0, 0, 1));
}

#[test]
fn ready_and_done_workers_are_well_and_failed_ones_say_how() {
    let ready = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
    let found = gang(&world(
        vec![pod(0, false, ready.clone()), pod(1, false, json!({"phase": "Running"}))],
        vec![],
        json!({}),
    ));
    assert_eq!((found.well, &found.unready_nodes[..]), (1, &["n".to_owned()][..]));
    assert!(found.facts.unready_since_ms.is_some());

    let found = gang(&world(vec![pod(0, false, ready)], vec![], json!({"completedIndexes": "1"})));
    assert_eq!(
        (found.well, found.facts.pods.live, found.facts.unready_since_ms),
        (2, 2, None),
        "its pod was removed"
    );

    let ended = json!({"phase": "Failed", "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "state": {"terminated": {"exitCode": 3}}}]});
    let failed =
        json!({"conditions": [{"type": "FailureTarget", "status": "True", "reason": "PodFailurePolicy"}]});
    let found = gang(&world(vec![pod(1, false, ended)], vec![claim(1, Some(B), true)], failed));
    assert_eq!(found.failure.as_deref(), Some("worker 1: container c exited with code 3"));
    assert_eq!((found.facts.job, found.facts.claims_stray), (JobState::Failed, 1));
}

#[test]
fn a_plan_is_lost_with_its_node_or_a_device_but_not_with_an_agents_restart() {
    let mut lost_node = world(vec![], vec![], json!({}));
    list::<Node>(&mut lost_node, []);
    assert!(gang(&lost_node).facts.plan_lost);

    let mut restarting = world(vec![], vec![], json!({}));
    list::<Slice>(&mut restarting, []);
    assert!(!gang(&restarting).facts.plan_lost, "no slices say nothing");
    list::<Slice>(&mut restarting, slices("n", 1, 2).into_iter().take(1));
    assert!(!gang(&restarting).facts.plan_lost, "nor does half a pool");
    let mut other = slices("n", 1, 3);
    other[1]["spec"]["devices"].as_array_mut().unwrap().truncate(1);
    list::<Slice>(&mut restarting, other);
    assert!(gang(&restarting).facts.plan_lost, "a whole pool without the device does");
}

#[test]
fn workers_that_are_no_jobs_and_hold_claims_are_to_go() {
    let running = || json!({"phase": "Running"});
    let mut alone = pod(0, false, running());
    alone["metadata"]["ownerReferences"] = json!([]);
    let claims = || vec![claim(0, Some(A), true), claim(1, Some(B), true)];
    let left = gang(&world(vec![alone.clone(), pod(1, false, running())], claims(), json!({})));
    assert_eq!(left.abandoned, [Key::new("p", "t-0")], "the other one has its Job");
    assert_eq!(next_step(&left.facts, ADMITTED_MS), GangStep::DeleteAbandoned);
    let nothing_held = vec![claim(0, None, false), claim(1, Some(B), true)];
    let bare = gang(&world(vec![alone.clone(), pod(1, false, running())], nothing_held, json!({})));
    assert_eq!(bare.facts.abandoned, 0, "a pod that holds nothing of the gang's is left alone");
    alone["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(gang(&world(vec![alone], claims(), json!({}))).facts.abandoned, 0, "it leaves already");
}
