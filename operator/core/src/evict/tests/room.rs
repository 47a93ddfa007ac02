//! Who is asked to leave for a workload that finds no room, and what comes of it.

use proptest::prelude::*;

use super::world::{World, asked};
use crate::model::EvictionReason::{Preempted, Reclaimed};
use crate::model::{Running, Snapshot, Tenant, UnitMs};
use crate::placement::{Cluster, Shapes};
use crate::queue::plan;
use crate::testing::{cluster, h100, whole};

#[test]
fn what_is_guaranteed_is_taken_back_from_whom_it_costs_least_and_only_once() {
    let mut world = World::new(cluster(1, &[h100(), h100()]));
    world.now_ms = 1000;
    world.tenant("a", 28);
    world.tenant("b", 28);
    for (key, gpu, place, admitted_ms) in
        [("old", 0, "3g.40gb-0", 0), ("new", 0, "3g.40gb-4", 900), ("saved", 1, "3g.40gb-0", 500)]
    {
        world.job(key, "b", 0, "3g.40gb");
        world.run(key, &[(gpu, place)], admitted_ms);
    }
    world.jobs.get_mut("saved").unwrap().saves_ms = Some(450);
    world.job("small", "b", 9, "4g.40gb");
    world.job("mine", "a", 0, "3g.40gb").grace_ms = 5;
    // Whatever its priority, what another tenant may not be asked for stays.
    world.job("other", "b", 9, "1g.10gb").evictable = false;
    world.run("other", &[(1, "1g.10gb-4")], 999);
    world.wait("mine");

    let before = world.snapshot.clone();
    let plan = world.cycle();
    assert_eq!(asked(&before, &plan), [("saved", "mine", Reclaimed)]);
    assert_eq!(plan.evictions[0].lost, 28 * 50);
    assert_eq!(plan.reservations[0].free_ms, Some(1010));
    assert_eq!(plan.waits[0].reason.to_string(), "needs 1 × 3g.40gb; room is being made: 1 job leaves");
    let before = world.snapshot.clone();
    world.now_ms += 5;
    let plan = world.cycle();
    assert_eq!(asked(&before, &plan), []);
    assert_eq!(plan.reservations[0].free_ms, Some(1010));
    world.pass_to(1010);
    let plan = world.cycle();
    assert_eq!((plan.admissions.len(), plan.evictions.len()), (1, 0));
    assert_eq!(world.running(), ["mine", "new", "old", "other"]);
    // Nobody takes it back, and a is not given more than its guarantee.
    world.job("more", "a", 0, "3g.40gb");
    world.wait("more");
    let plan = world.cycle();
    assert_eq!((plan.admissions.len(), plan.evictions.len()), (0, 0));
}

#[test]
fn two_workloads_do_not_ask_for_the_same_room_nor_twice_for_theirs() {
    let mut world = World::new(cluster(1, &[h100(), h100()]));
    for (key, gpu) in [("one", 0), ("two", 1)] {
        world.job(key, "t", 0, "7g.80gb");
        world.run(key, &[(gpu, "7g.80gb-0")], 0);
    }
    world.now_ms = 10;
    for key in ["x", "y", "z"] {
        world.job(key, "t", 1, "3g.40gb");
        world.wait(key);
    }
    let before = world.snapshot.clone();
    let plan = world.cycle();
    assert_eq!(asked(&before, &plan), [("one", "x", Preempted), ("two", "z", Preempted)], "x and y share");
    assert_eq!(plan.reservations.len(), 3);
    world.pass_to(20);
    assert_eq!(world.cycle().admissions.len(), 3);
}

#[test]
fn a_gang_leaves_as_a_whole_and_counts_as_a_whole() {
    let mut world = World::new(cluster(2, &[h100()]));
    world.job("gang", "t", 0, "3g.40gb").workload.pods = 2;
    world.run("gang", &[(0, "3g.40gb-4"), (1, "3g.40gb-4")], 50);
    world.job("single", "t", 0, "4g.40gb");
    world.run("single", &[(0, "4g.40gb-0")], 20);
    world.job("rest", "t", 5, "4g.40gb");
    world.run("rest", &[(1, "4g.40gb-0")], 0);
    world.now_ms = 100;
    world.job("urgent", "t", 5, "3g.40gb");
    world.wait("urgent");
    let gang = plan(&world.snapshot, 100);
    // 56 units for 50 ms; the other has 32 units and has run for 80 ms.
    world.snapshot.running[0].admitted_ms = 54;
    let single = plan(&world.snapshot, 100);
    assert_eq!(asked(&world.snapshot, &gang), [("single", "urgent", Preempted)]);
    assert_eq!(asked(&world.snapshot, &single), [("single", "urgent", Preempted)]);
    world.snapshot.running[0].admitted_ms = 55;
    let plan = plan(&world.snapshot, 100);
    assert_eq!(asked(&world.snapshot, &plan), [("gang", "urgent", Preempted)]);
    assert_eq!(plan.evictions[0].lost, 56 * 45);
}

#[test]
fn a_gang_that_was_borrowed_in_part_is_taken_back_if_nothing_else_can_be() {
    let mut world = World::new(cluster(2, &[h100()]));
    for (tenant, guaranteed) in [("a", 28), ("b", 28), ("c", 0)] {
        world.tenant(tenant, guaranteed);
    }
    world.job("gang", "b", 0, "3g.40gb").workload.pods = 3;
    world.run("gang", &[(0, "3g.40gb-0"), (0, "3g.40gb-4"), (1, "3g.40gb-0")], 90);
    world.job("single", "c", 0, "3g.40gb");
    world.run("single", &[(1, "3g.40gb-4")], 0);
    world.now_ms = 100;
    world.job("mine", "a", 0, "3g.40gb");
    world.wait("mine");
    let spares_the_guarantee = plan(&world.snapshot, 100);
    assert_eq!(
        asked(&world.snapshot, &spares_the_guarantee),
        [("single", "mine", Reclaimed)],
        "it loses more"
    );
    world.snapshot.running[1].evictable = false;
    let before = world.snapshot.clone();
    assert_eq!(asked(&before, &world.cycle()), [("gang", "mine", Reclaimed)]);
    world.pass_to(110);
    assert_eq!(world.cycle().admissions.len(), 1);
    for now_ms in 111..120 {
        world.pass_to(now_ms);
        let plan = world.cycle();
        assert_eq!((plan.admissions.len(), plan.evictions.len()), (0, 0), "it would be beyond its guarantee");
    }
    // Were all of it within its guarantee, it would stay.
    let mut before = before;
    before.tenants.get_mut("b").unwrap().guaranteed = 84;
    assert_eq!(asked(&before, &plan(&before, 100)), []);
}

#[test]
fn who_lacks_units_under_a_limit_asks_those_who_hold_them() {
    let mut world = World::new(cluster(3, &[h100()]));
    world.tenant("t", 0);
    world.snapshot.tenants.get_mut("t").unwrap().limit = Some(56);
    for (key, gpu, admitted_ms) in [("old", 0, 10), ("new", 1, 90)] {
        world.job(key, "t", 0, "3g.40gb");
        world.run(key, &[(gpu, "3g.40gb-0")], admitted_ms);
    }
    world.now_ms = 100;
    world.job("equal", "t", 0, "3g.40gb");
    world.wait("equal");
    assert!(world.cycle().evictions.is_empty());
    world.job("urgent", "t", 1, "3g.40gb");
    world.wait("urgent");
    let before = world.snapshot.clone();
    let plan = world.cycle();
    assert_eq!(asked(&before, &plan), [("new", "urgent", Preempted)], "though there is room beside it");
    assert_eq!(plan.waits[0].reason.to_string(), "needs 1 × 3g.40gb; room is being made: 1 job leaves");
    world.pass_to(105);
    assert!(world.cycle().evictions.is_empty());
    world.pass_to(110);
    assert_eq!(world.cycle().admissions.len(), 1);
    assert_eq!(world.running(), ["old", "urgent"]);
    assert!(world.cycle().evictions.is_empty());
}

#[test]
fn what_is_guaranteed_is_taken_back_under_the_limit_of_the_parent_too() {
    let mut world = World::new(cluster(2, &[h100()]));
    for (tenant, guaranteed, limit) in [("p", 0, Some(56)), ("p1", 28, None), ("p2", 28, None)] {
        let parent = (tenant != "p").then(|| "p".to_owned());
        let tenant = (tenant.to_owned(), Tenant { parent, guaranteed, limit, ..Tenant::default() });
        world.snapshot.tenants.extend([tenant]);
    }
    for (key, place) in [("one", "3g.40gb-0"), ("two", "3g.40gb-4")] {
        world.job(key, "p2", 0, "3g.40gb");
        world.run(key, &[(0, place)], 0);
    }
    world.now_ms = 100;
    world.job("mine", "p1", 0, "3g.40gb");
    world.wait("mine");
    let before = world.snapshot.clone();
    assert_eq!(asked(&before, &world.cycle()), [("one", "mine", Reclaimed)]);
    world.pass_to(110);
    assert_eq!(world.cycle().admissions.len(), 1);
    assert!(world.cycle().evictions.is_empty());
}

#[test]
fn a_large_gang_is_given_the_cheapest_nodes() {
    let mut world = World::new(cluster(6, &[whole(), whole()]));
    world.now_ms = 100;
    for gpu in 0..12 {
        let key = format!("{gpu:02}");
        world.job(&key, "t", 0, "gpu");
        // Nodes 1 and 4 cost least, though the cheapest single jobs are on others.
        let admitted_ms = match gpu {
            2 | 3 | 8 | 9 => 60,
            0 | 4 | 6 => 90,
            _ => 10,
        };
        world.run(&key, &[(gpu, "whole")], admitted_ms);
    }
    let two = crate::testing::request(&mut world.snapshot, 2, "gpu");
    world.job("gang", "t", 1, "gpu").workload.pods = 2;
    let shape = world.jobs["gang"].workload.shape;
    world.snapshot.shapes[shape].requests = vec![two];
    world.wait("gang");
    let plan = plan(&world.snapshot, 100);
    let mut victims: Vec<&str> = asked(&world.snapshot, &plan).iter().map(|(victim, ..)| *victim).collect();
    victims.sort_unstable();
    assert_eq!(victims, ["02", "03", "08", "09"]);
}

#[derive(Clone, Debug)]
struct Case {
    /// Of the jobs: device among those free, when admitted, priority, gang with the one before.
    held: Vec<(prop::sample::Index, i64, i32, bool)>,
    wanted: (&'static str, u32),
}

fn case() -> impl Strategy<Value = Case> {
    let job = (any::<prop::sample::Index>(), 0_i64..20, 0_i32..3, prop::bool::weighted(0.2));
    let kinds = prop::sample::select(vec!["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"]);
    (prop::collection::vec(job, 1..10), kinds, 1_u32..3)
        .prop_map(|(held, kind, pods)| Case { held, wanted: (kind, pods) })
}

const NOW: i64 = 30;

/// Jobs on two nodes with a GPU each, and one that waits.
fn world(case: &Case) -> World {
    let mut world = World::new(cluster(2, &[h100()]));
    for (number, (device, admitted_ms, priority, joins)) in case.held.iter().enumerate() {
        let fits = |gpu: &crate::model::Gpu, device: &crate::model::Device| {
            device
                .consumes
                .iter()
                .zip(&gpu.used)
                .zip(&gpu.capacity)
                .all(|((more, used), all)| used + more <= *all)
        };
        let mut free = Vec::new();
        for (index, gpu) in (0_u32..).zip(&world.snapshot.gpus) {
            let fitting =
                gpu.devices.iter().filter(|device| fits(gpu, device) && !device.kind.ends_with("me"));
            free.extend(fitting.map(|device| (index, device.name.clone(), device.kind.clone())));
        }
        if free.is_empty() {
            break;
        }
        let (gpu, name, kind) = free[device.index(free.len())].clone();
        let key = format!("j{number}");
        world.job(&key, "t", *priority, &kind);
        world.run(&key, &[(gpu, &name)], *admitted_ms);
        if *joins && world.snapshot.running.len() > 1 {
            let Running { pods, units, .. } = world.snapshot.running.pop().unwrap();
            let gang = world.snapshot.running.last_mut().unwrap();
            gang.pods.extend(pods);
            gang.units += units;
        }
    }
    let (kind, pods) = case.wanted;
    world.now_ms = NOW;
    world.job("waits", "t", 2, kind).workload.pods = pods;
    world.wait("waits");
    world
}

fn lost(running: &Running) -> UnitMs {
    running.units * u64::try_from(NOW - running.admitted_ms).unwrap()
}

/// Whether the workload fits into the cluster without these.
fn fits_without(snapshot: &Snapshot, gone: u32) -> bool {
    let shapes = Shapes::of(snapshot);
    let mut cluster = Cluster::new(snapshot, &shapes, false);
    (0..snapshot.running.len()).filter(|at| gone >> at & 1 == 1).for_each(|at| cluster.release(at));
    cluster.place_workload(shapes.shape_of[0], &snapshot.waiting[0]).is_some()
}

proptest! {
    #[test]
    fn the_least_work_is_lost_that_can_be(case in case()) {
        let world = world(&case);
        let snapshot = &world.snapshot;
        let plan = plan(snapshot, NOW);
        let may = |set: u32| {
            (0..snapshot.running.len()).all(|at| set >> at & 1 == 0 || snapshot.running[at].priority < 2)
        };
        let of = |set: u32| -> UnitMs {
            (0..snapshot.running.len()).filter(|at| set >> at & 1 == 1).map(|at| lost(&snapshot.running[at])).sum()
        };
        let sets = (0..1_u32 << snapshot.running.len()).filter(|set| may(*set) && fits_without(snapshot, *set));
        let least = sets.map(|set| (of(set), set.count_ones())).min();
        let asked = plan.evictions.iter().map(|eviction| eviction.lost).sum::<UnitMs>();
        let count = u32::try_from(plan.evictions.len()).unwrap();
        match least {
            Some((0, 0)) => prop_assert_eq!(plan.admissions.len(), 1),
            Some(least) => {
                prop_assert_eq!((asked, count), least);
                prop_assert_eq!(plan.reservations.len(), 1);
            }
            None => prop_assert_eq!((count, plan.reservations.len()), (0, 0)),
        }
    }
}
