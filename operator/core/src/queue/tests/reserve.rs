//! Places that are kept, and what goes beside and before them.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::{Job, World};
use super::*;
use crate::model::{DeviceIndex, GpuIndex, NodeIndex, PodPlacement, Running};

const MINUTE_MS: i64 = 60_000;

/// Lets something of tenant `t` run on these GPUs, with their device of this name, until then.
fn run(snapshot: &mut Snapshot, key: &str, gpus: &[usize], device: &str, ends_ms: Option<i64>) {
    let mut running = Running { key: key.into(), tenant: "t".into(), ends_ms, ..Running::default() };
    for gpu in gpus {
        let of = &snapshot.gpus[*gpu];
        let at = of.devices.iter().position(|d| d.name.ends_with(device)).unwrap();
        let index =
            DeviceIndex { gpu: GpuIndex(u32::try_from(*gpu).unwrap()), device: u8::try_from(at).unwrap() };
        running.units += of.devices[at].units;
        running.pods.push(PodPlacement { node: of.node, devices: vec![vec![index]] });
        hold(snapshot, *gpu, device);
    }
    let kind = snapshot.gpus[gpus[0]].devices.iter().find(|d| d.name.ends_with(device)).unwrap().kind.clone();
    running.shape = job(snapshot, "", 1, &kind).shape;
    snapshot.tenants.get_mut("t").unwrap().used += running.units;
    snapshot.running.push(running);
}

/// A node of four GPUs of which three are held, until 30, 20 and some time; and a gang of two that has waited long.
fn gang_waits() -> Snapshot {
    let mut snapshot = cluster(1, &[whole(), whole(), whole(), whole()]);
    snapshot.settings.reserve_after_ms = 0;
    run(&mut snapshot, "late", &[0], "whole", Some(30 * MINUTE_MS));
    run(&mut snapshot, "soon", &[1], "whole", Some(20 * MINUTE_MS));
    run(&mut snapshot, "unknown", &[2], "whole", None);
    let gang = job(&mut snapshot, "gang", 2, "gpu");
    with(snapshot, gang)
}

fn small(snapshot: &mut Snapshot, key: &str, runs_ms: Option<i64>) {
    let small = job(snapshot, key, 1, "gpu");
    snapshot.waiting.push(Workload { queued_ms: 1, runs_ms, ..small });
}

fn gpus_of(pods: &[PodPlacement]) -> Vec<u32> {
    pods.iter().flat_map(|pod| pod.devices.iter().flatten()).map(|device| device.gpu.0).collect()
}

fn waits(snapshot: &Snapshot, plan: &Plan) -> Vec<String> {
    plan.waits.iter().map(|w| format!("{}: {}", snapshot.waiting[w.workload].key, w.reason)).collect()
}

#[test]
fn the_first_in_line_keeps_the_place_that_is_free_soonest() {
    let mut snapshot = gang_waits();
    small(&mut snapshot, "small", None);
    let decided = plan(&snapshot, 0);
    assert_eq!(decided.admissions, []);
    let reservation = &decided.reservations[0];
    assert_eq!((reservation.workload, reservation.free_ms), (0, Some(20 * MINUTE_MS)));
    assert_eq!(gpus_of(&reservation.pods), [1, 3]);
    let kept = "small: needs 1 × GPU; the room that there is is kept for a job that is ahead in line";
    let waiting = "gang: needs 2 × GPU; a place is kept for it until the 1 job there has ended";
    assert_eq!(waits(&snapshot, &decided), [waiting, kept]);

    // It is kept, though others would be free sooner now.
    snapshot.waiting[0].reserved.clone_from(&reservation.pods);
    snapshot.running[0].ends_ms = Some(MINUTE_MS);
    snapshot.settings.reservations = 0;
    assert_eq!(plan(&snapshot, 0).reservations, decided.reservations);

    // It starts there, or wherever it fits sooner.
    let mut there = snapshot.clone();
    let soon = there.running.remove(1);
    there.gpus[1] = Gpu { used: vec![0; there.gpus[1].used.len()], held: 0, ..there.gpus[1].clone() };
    let decided = plan(&there, 1);
    assert_eq!((soon.key.as_str(), started(&there, &decided)), ("soon", vec!["gang"]));
    assert_eq!((gpus_of(&decided.admissions[0].pods), decided.reservations.len()), (vec![1, 3], 0));
    let mut elsewhere = snapshot.clone();
    elsewhere.running.remove(0);
    elsewhere.gpus[0] = there.gpus[1].clone();
    let decided = plan(&elsewhere, 1);
    assert_eq!(started(&elsewhere, &decided), ["gang"]);
    assert_eq!((gpus_of(&decided.admissions[0].pods), decided.reservations.len()), (vec![0, 3], 0));
}

#[test]
fn nobody_gets_a_place_kept_before_its_time_or_beyond_the_number() {
    let mut snapshot = gang_waits();
    snapshot.settings.reserve_after_ms = 1;
    assert_eq!(plan(&snapshot, 0).reservations, []);
    assert_eq!(plan(&snapshot, 1).reservations.len(), 1);
    let second = job(&mut snapshot, "second", 2, "gpu");
    snapshot.waiting.push(second);
    assert_eq!(plan(&snapshot, 1).reservations.len(), 2);
    snapshot.settings.reservations = 1;
    assert_eq!(plan(&snapshot, 1).reservations.len(), 1);
}

#[test]
fn one_that_has_ended_in_time_goes_before() {
    for (runs_ms, starts) in [(None, false), (Some(20 * MINUTE_MS), true), (Some(20 * MINUTE_MS + 1), false)]
    {
        let mut snapshot = gang_waits();
        small(&mut snapshot, "small", runs_ms);
        let decided = plan(&snapshot, 0);
        assert_eq!(started(&snapshot, &decided), if starts { vec!["small"] } else { vec![] }, "{runs_ms:?}");
        assert_eq!(decided.reservations.len(), 1);
    }
    // Without a known time, nobody.
    let mut snapshot = gang_waits();
    for running in &mut snapshot.running {
        running.ends_ms = None;
    }
    small(&mut snapshot, "small", Some(1));
    let decided = plan(&snapshot, 0);
    assert_eq!((decided.admissions.len(), decided.reservations[0].free_ms), (0, None));
}

#[test]
fn what_leaves_anyway_is_waited_for_at_once() {
    let mut snapshot = gang_waits();
    snapshot.settings.reserve_after_ms = i64::MAX;
    snapshot.settings.reservations = 0;
    snapshot.running[0].leaves_ms = Some(5000);
    small(&mut snapshot, "small", None);
    let decided = plan(&snapshot, 0);
    assert_eq!(gpus_of(&decided.reservations[0].pods), [0, 3]);
    let until = WaitReason::MakingRoom { asked: "2 × GPU".into(), leaving: 1, until_ms: 5000 };
    assert_eq!(decided.waits[0].reason, until);
    assert!(matches!(decided.waits[1].reason, WaitReason::Kept { .. }));
}

#[test]
fn a_place_that_can_not_be_any_more_is_given_up() {
    let mut snapshot = gang_waits();
    let at = |gpu| PodPlacement {
        node: NodeIndex(0),
        devices: vec![vec![DeviceIndex { gpu: GpuIndex(gpu), device: 0 }]],
    };
    small(&mut snapshot, "small", None);
    snapshot.settings.reservations = 0;
    let starts = |reserved: Vec<PodPlacement>, snapshot: &Snapshot| {
        let mut snapshot = snapshot.clone();
        snapshot.waiting[0].reserved = reserved;
        !plan(&snapshot, 0).admissions.is_empty()
    };
    assert!(!starts(vec![at(1), at(3)], &snapshot), "it is possible");
    assert!(starts(vec![at(3)], &snapshot), "a pod less");
    assert!(starts(vec![at(3), at(3)], &snapshot), "twice the same");
    assert!(starts(vec![at(3), at(9)], &snapshot), "no such GPU");
    // Held by somebody who is not known to end.
    let unknown = Snapshot { running: snapshot.running[..1].to_vec(), ..snapshot.clone() };
    assert!(starts(vec![at(1), at(3)], &unknown));
    snapshot.waiting[0].not_before_ms = 1;
    assert!(starts(vec![at(1), at(3)], &snapshot), "it is to wait");
    snapshot.waiting[0].not_before_ms = 0;
    snapshot.tenants.get_mut("t").unwrap().limit = Some(4 * 56);
    assert!(!starts(vec![at(1), at(3)], &snapshot), "its units are kept as well");
    let mut cordoned = snapshot.clone();
    cordoned.nodes[0].schedulable = false;
    assert_eq!(plan(&cordoned, 0).reservations, []);
}

#[test]
fn servers_are_not_waited_for() {
    let mut snapshot = gang_waits();
    snapshot.running[0].movable = crate::model::Movable::Replace;
    snapshot.running[0].ends_ms = None;
    snapshot.running[1].ends_ms = None;
    assert_eq!(gpus_of(&plan(&snapshot, 0).reservations[0].pods), [1, 3]);
    snapshot.waiting[0].pods = 4;
    assert_eq!(plan(&snapshot, 0).reservations, []);
}

#[test]
fn small_partitions_go_beside_a_place_that_is_kept_and_not_on_it() {
    let mut snapshot = cluster(1, &[h100()]);
    snapshot.settings.reserve_after_ms = 0;
    run(&mut snapshot, "a", &[0], "3g.40gb-4", None);
    run(&mut snapshot, "b", &[0], "1g.10gb-0", Some(9));
    let half = job(&mut snapshot, "half", 1, "4g.40gb");
    snapshot.waiting.push(half);
    for key in ["one", "two"] {
        let one = job(&mut snapshot, key, 1, "1g.10gb");
        snapshot.waiting.push(Workload { queued_ms: 1, ..one });
    }
    let decided = plan(&snapshot, 0);
    assert_eq!((decided.admissions.len(), decided.reservations[0].free_ms), (0, Some(9)));
    snapshot.shapes[snapshot.waiting[0].shape].requests[0] = request(&mut snapshot, 1, "2g.20gb");
    let device = snapshot.gpus[0].devices.iter().position(|d| d.name.ends_with("2g.20gb-0")).unwrap();
    let device = DeviceIndex { gpu: GpuIndex(0), device: u8::try_from(device).unwrap() };
    snapshot.waiting[0].reserved = vec![PodPlacement { node: NodeIndex(0), devices: vec![vec![device]] }];
    let decided = plan(&snapshot, 0);
    // It fits elsewhere at once, and its old place is kept until the next time.
    assert_eq!(started(&snapshot, &decided), ["half"]);
}

#[test]
fn units_are_kept_for_the_first_in_line_under_a_limit() {
    let mut snapshot = cluster(2, &[whole(), whole()]);
    snapshot.settings.reserve_after_ms = 0;
    let parent = Tenant { limit: Some(2 * 56), ..Tenant::default() };
    snapshot.tenants.insert("p".into(), parent);
    for name in ["t", "u"] {
        snapshot.tenants.insert(name.into(), Tenant { parent: Some("p".into()), ..Tenant::default() });
    }
    run(&mut snapshot, "a", &[0], "whole", Some(1000));
    let gang = job(&mut snapshot, "gang", 2, "gpu");
    snapshot.waiting.push(gang);
    let one = job(&mut snapshot, "one", 1, "gpu");
    snapshot.waiting.push(Workload { tenant: "u".into(), queued_ms: 1 << 40, ..one });
    for (runs_ms, starts) in [(None, false), (Some(1000), true), (Some(1001), false)] {
        snapshot.waiting[1].runs_ms = runs_ms;
        let decided = plan(&snapshot, 0);
        let others = if starts { vec!["one"] } else { vec![] };
        assert_eq!(started(&snapshot, &decided), others, "{runs_ms:?}");
        let left = if starts { 0 } else { 56 };
        let quota = WaitReason::Quota { tenant: "p".into(), needs: 112, left, limit: 112 };
        assert_eq!(decided.waits[0].reason, quota);
        if !starts {
            assert_eq!(decided.waits[1].reason, WaitReason::Kept { asked: "1 × GPU".into() });
        }
    }
    snapshot.settings.reserve_after_ms = 1;
    snapshot.waiting[1].runs_ms = None;
    assert_eq!(started(&snapshot, &plan(&snapshot, 0)), ["one"]);
}

/// A job: kind of device, pods, CPUs, when it comes, how long it runs and whether it says so, priority, whose it is.
type Drawn = (usize, u32, u64, i64, i64, bool, i32, bool);

fn jobs() -> impl Strategy<Value = Vec<Drawn>> {
    let job = (
        0_usize..4,
        1_u32..4,
        0_u64..4,
        0_i64..40,
        1_i64..30,
        prop::bool::weighted(0.8),
        0_i32..3,
        any::<bool>(),
    );
    prop::collection::vec(job, 1..25)
}

fn small_cluster() -> impl Strategy<Value = Snapshot> {
    let card = prop_oneof![2 => Just(whole()), 1 => Just(h100()), 1 => Just(either())];
    let nodes = prop::collection::vec((prop::collection::vec(card, 1..4), 3_u64..12), 1..4);
    let settings = (0_i64..8, 0_u32..4, prop::option::of(1_u64..8), prop::option::of(1_u64..8));
    (nodes, settings).prop_map(|(nodes, (reserve_after_ms, reservations, limit, limit_above))| {
        let mut snapshot = Snapshot::default();
        for (gpus, cpus) in nodes {
            crate::testing::add_node(&mut snapshot, &gpus);
            snapshot.nodes.last_mut().unwrap().allocatable.cpu_milli = cpus * 1000;
        }
        let parent = Some("p".to_owned());
        let child = Tenant { parent, ..tenant(0, limit, 0) };
        snapshot.tenants = BTreeMap::from([
            ("p".into(), tenant(0, limit_above, 0)),
            ("t".into(), child.clone()),
            ("u".into(), Tenant { limit: None, ..child }),
        ]);
        snapshot.settings.reserve_after_ms = reserve_after_ms;
        snapshot.settings.reservations = reservations;
        snapshot.settings.aging_ms = 10;
        snapshot
    })
}

proptest! {
    /// What is promised once is kept: nobody who is put beside a place that is kept, or on it for a while, delays
    /// the one that it is kept for. And everything that can run has run in the end.
    #[test]
    fn one_with_a_place_starts_when_it_was_promised_or_before(
        mut snapshot in small_cluster(),
        jobs in jobs(),
    ) {
        let kinds = ["gpu", "1g.10gb", "3g.40gb", "2g.20gb"];
        let mut coming = Vec::new();
        for (index, (kind, pods, cpus, comes_ms, runs_ms, known, priority, other)) in jobs.into_iter().enumerate() {
            let mut workload = job(&mut snapshot, &format!("j{index}"), pods, kinds[kind]);
            snapshot.shapes[workload.shape].resources.cpu_milli = cpus * 1000;
            workload.priority = priority;
            workload.runs_ms = known.then_some(runs_ms);
            workload.tenant = if other { "u" } else { "t" }.into();
            coming.push(Job { workload, comes_ms, runs_ms });
        }
        let mut world = World::new(snapshot);
        world.play(&coming);
        for (key, promised_ms) in &world.promised_ms {
            let started_ms = world.started_ms.get(key);
            prop_assert!(started_ms.is_some_and(|at| at <= promised_ms), "{key}: {started_ms:?} after {promised_ms}\n{}", world.log);
        }
        for (key, reason) in &world.reasons {
            let never = matches!(
                reason,
                WaitReason::NeverFits { .. } | WaitReason::NoSuchDevice { .. } | WaitReason::AboveLimit { .. }
            );
            prop_assert!(never, "{key} has never started: {reason}\n{}", world.log);
        }
    }
}
