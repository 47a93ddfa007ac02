//! What holds devices, told from exact objects.

use serde_json::{Value, json};
use vingt_core::model::{GpuIndex, Movable};

use super::super::layout::tests::{list, slices};
use super::*;
use crate::world::{Claim, Job, Slice};

const A: &str = "gpu-0-mig-3g40gb-0";
const B: &str = "gpu-0-mig-3g40gb-4";
/// A minute after the jobs here were admitted.
const NOW_MS: i64 = 1_767_225_600_000 + 60_000;
const START_MS: i64 = NOW_MS - 60_000;

fn world() -> World {
    let mut world = World::default();
    list::<Slice>(&mut world, slices("n", 1, 1));
    let class = ask::tests::class("mig.vingt.dev", r#"device.driver == "gpu.vingt.dev""#);
    list::<k8s_openapi::api::resource::v1::DeviceClass>(&mut world, [class]);
    world
}

fn sight<T>(world: &World, asked: &BTreeMap<String, i64>, see: impl FnOnce(Sight<'_>) -> T) -> T {
    let (layout, members) = (Layout::of(&world.slices), Members::of(world));
    see(Sight { world, members: &members, layout: &layout, gpus: &layout.gpus, asked, now_ms: NOW_MS })
}

#[allow(clippy::needless_pass_by_value)] // The cases read better without borrows.
fn gang_of(spec: Value, conditions: Value, annotations: &Value) -> (World, Option<Running>) {
    let mut world = world();
    let assigned = |worker: u32, device: &str| json!({"worker": worker, "node": "n", "devices": [{"request": "gpu", "pool": "n", "device": device}]});
    let mut spec = spec;
    spec["workers"] = json!(2);
    spec["gpu"] = json!({"profile": "3g.40gb"});
    spec["template"] = json!({"spec": {"terminationGracePeriodSeconds": 7, "containers": [{"name": "c"}]}});
    let job = json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "t", "namespace": "p", "uid": "tu", "resourceVersion": "1", "annotations": annotations},
        "spec": spec,
        "status": {"admittedAt": "2026-01-01T00:00:00Z", "conditions": conditions, "assignments": [assigned(0, A), assigned(1, B)]}});
    list::<TrainingJob>(&mut world, [job]);
    let key = Key::new("p", "t");
    let job = world.training_jobs.get(&key).unwrap().clone();
    let running = sight(&world, &BTreeMap::new(), |sight| gang(&key, &job, "prod", sight));
    (world, running)
}

fn condition_since(type_: &str, second: i64) -> Value {
    let since = Timestamp::from_millisecond(START_MS + second * 1000).unwrap();
    json!({"type": type_, "status": "True", "reason": "R", "message": "", "lastTransitionTime": since})
}

#[test]
fn a_gang_is_seen_whole_and_may_be_asked_unless_it_says_otherwise() {
    let (_, running) = gang_of(json!({"activeDeadlineSeconds": 600}), json!([]), &Value::Null);
    let running = running.unwrap();
    let devices: Vec<_> = running.pods.iter().flat_map(|pod| pod.devices.iter().flatten()).collect();
    assert_eq!(
        devices.iter().map(|at| (at.gpu, at.device)).collect::<Vec<_>>(),
        [(GpuIndex(0), 0), (GpuIndex(0), 1)]
    );
    assert_eq!(
        (running.units, running.admitted_ms, running.ends_ms),
        (56, START_MS, Some(START_MS + 600_000))
    );
    assert_eq!((running.grace_ms, running.saved_ms, running.leaves_ms), (7000, None, None));
    assert!(running.evictable);
    assert_eq!(running.movable, Movable::No, "it would lose all that it did");
    let (_, kept) = gang_of(json!({"preemptible": false, "move": "Restart"}), json!([]), &Value::Null);
    let kept = kept.unwrap();
    assert_eq!((kept.evictable, kept.movable), (false, Movable::Restart));
}

#[test]
fn progress_is_saved_at_intervals_unless_the_job_says_when() {
    let spec = || json!({"checkpoint": {"graceSeconds": 90, "intervalSeconds": 20}});
    let ready = || json!([condition_since("PodsReady", 10)]);
    let (_, running) = gang_of(spec(), ready(), &Value::Null);
    let running = running.unwrap();
    assert_eq!(running.saved_ms, Some(START_MS + 50_000), "the second one, after it was ready");
    assert_eq!((running.grace_ms, running.movable), (90_000, Movable::Restart));
    let (_, unready) = gang_of(spec(), json!([]), &Value::Null);
    assert_eq!(unready.unwrap().saved_ms, None);
    let says = |at: &str| json!({"vingt.dev/checkpointed-at": at});
    let (_, said) = gang_of(spec(), ready(), &says("2026-01-01T00:00:33Z"));
    assert_eq!(said.unwrap().saved_ms, Some(START_MS + 33_000));
    for wrong in ["2026-01-01T00:02:00Z", "soon"] {
        let (_, running) = gang_of(spec(), ready(), &says(wrong));
        assert_eq!(running.unwrap().saved_ms, Some(START_MS + 50_000), "{wrong} is no time in the past");
    }
}

#[test]
fn a_gang_that_was_asked_is_leaving_and_cannot_be_asked_again() {
    let (_, running) = gang_of(
        json!({"checkpoint": {"graceSeconds": 90, "intervalSeconds": 1}}),
        json!([condition_since("Evicted", 55)]),
        &Value::Null,
    );
    let running = running.unwrap();
    assert_eq!(running.leaves_ms, Some(START_MS + 55_000 + 90_000));
    assert_eq!((running.evictable, running.movable), (false, Movable::No));
    let (world, _) = gang_of(json!({}), json!([]), &Value::Null);
    let key = Key::new("p", "t");
    let job = world.training_jobs.get(&key).unwrap().clone();
    let asked = BTreeMap::from([("TrainingJob/p/t".to_owned(), NOW_MS + 5)]);
    let running = sight(&world, &asked, |sight| gang(&key, &job, "prod", sight)).unwrap();
    assert_eq!(running.leaves_ms, Some(NOW_MS + 5), "the word is on its way");
}

#[test]
fn a_worker_that_is_done_holds_nothing() {
    let (mut world, _) = gang_of(json!({}), json!([]), &Value::Null);
    list::<Job>(
        &mut world,
        [json!({"apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "t", "namespace": "p", "uid": "j", "resourceVersion": "1"},
            "spec": {"suspend": false}, "status": {"completedIndexes": "0"}})],
    );
    let key = Key::new("p", "t");
    let job = world.training_jobs.get(&key).unwrap().clone();
    let running = sight(&world, &BTreeMap::new(), |sight| gang(&key, &job, "prod", sight)).unwrap();
    assert_eq!((running.pods.len(), running.units), (1, 28));
}

fn pod_of(owner: &Value, annotations: &Value, shared: bool, server: Option<Value>) -> Option<Running> {
    let mut world = world();
    let record = json!({"version": 1, "claim": "c", "node": "n", "units": 28, "tenant": "prod", "workload": "Pod/p/x",
        "start": "2026-01-01T00:00:00Z", "devices": [{"request": "gpu", "pool": "n", "device": A}]});
    let mut users = vec![json!({"resource": "pods", "name": "x", "uid": "x"})];
    users.extend(shared.then(|| json!({"resource": "pods", "name": "y", "uid": "y"})));
    list::<Claim>(
        &mut world,
        [json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "c", "namespace": "p", "uid": "c", "resourceVersion": "1",
                "annotations": {"vingt.dev/decision": record.to_string()}},
            "spec": {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": "mig.vingt.dev"}}]}},
            "status": {"reservedFor": users, "allocation": {"devices": {"results":
                [{"driver": "gpu.vingt.dev", "pool": "n", "device": A, "request": "gpu"}]}}}})],
    );
    list::<Pod>(
        &mut world,
        [json!({"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "x", "namespace": "p", "uid": "x", "resourceVersion": "1", "ownerReferences": owner, "annotations": annotations},
            "spec": {"containers": [], "nodeName": "n", "priority": 3, "terminationGracePeriodSeconds": 5,
                "resourceClaims": [{"name": "gpu", "resourceClaimName": "c"}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}})],
    );
    let server = server.map(|spec| -> InferenceJob {
        serde_json::from_value(json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "InferenceJob", "metadata": {"name": "s"}, "spec": spec})).unwrap()
    });
    let key = Key::new("p", "x");
    let found = world.pods.get(&key).unwrap().clone();
    sight(&world, &BTreeMap::new(), |sight| pod(&key, &found, server.as_ref(), sight)).map(
        |(running, wishes)| {
            assert_eq!(wishes.len(), 1);
            running
        },
    )
}

#[test]
fn a_pod_is_asked_if_somebody_makes_it_again() {
    let owner = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "s-1", "uid": "r", "controller": true}]);
    let made_again = pod_of(&owner, &Value::Null, false, None).unwrap();
    assert_eq!(
        (made_again.priority, made_again.units, made_again.grace_ms, made_again.admitted_ms),
        (3, 28, 5000, START_MS)
    );
    assert_eq!((made_again.evictable, made_again.movable), (true, Movable::No));
    let said = |said: &str| json!({"vingt.dev/preemptible": said});
    assert!(!pod_of(&owner, &said("false"), false, None).unwrap().evictable);
    assert!(!pod_of(&json!([]), &Value::Null, false, None).unwrap().evictable, "nobody makes it again");
    assert!(pod_of(&json!([]), &said("true"), false, None).unwrap().evictable);
    assert!(!pod_of(&owner, &Value::Null, true, None).unwrap().evictable, "others use its devices");
    let server = |spec: Value| {
        let mut all = json!({"priority": 9, "gpu": {"profile": "3g.40gb"}, "template": {"spec": {"containers": [{"name": "c"}]}}});
        all.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        pod_of(&owner, &Value::Null, false, Some(all)).unwrap()
    };
    let replica = server(json!({}));
    assert_eq!((replica.priority, replica.evictable, replica.movable), (9, true, Movable::Replace));
    assert!(replica.serves, "it loses its restart only");
    let still = server(json!({"preemptible": false, "move": "Never"}));
    assert_eq!((still.evictable, still.movable), (false, Movable::No));
}
