//! Jobs that are moved for one that fits by count, but not by shape.

use super::world::{World, asked};
use crate::model::EvictionReason::Moved;
use crate::model::{Movable, Topology};
use crate::testing::{cluster, h100};

/// Small jobs that ran when `large` was queued at 100 ms.
fn world(gpus: usize, small: &[(&str, u32, &str, Movable)], large: &str) -> World {
    let mut world = World::new(cluster(1, &vec![h100(); gpus]));
    world.snapshot.moves_left = 9;
    for (key, gpu, place, movable) in small {
        world.job(key, "t", 0, place.split_once('-').unwrap().0).movable = *movable;
        world.run(key, &[(*gpu, place)], 0);
    }
    world.now_ms = 100;
    world.job("large", "t", 0, large);
    world.wait("large");
    world
}

#[test]
fn a_job_that_alone_blocks_a_place_restarts_elsewhere() {
    let restart = Movable::Restart;
    let mut world =
        world(1, &[("a", 0, "1g.10gb-1", Movable::No), ("b", 0, "1g.10gb-4", restart)], "3g.40gb");
    let before = world.snapshot.clone();
    let plan = world.cycle();
    assert_eq!(asked(&before, &plan), [("b", "large", Moved)]);
    assert_eq!((plan.evictions[0].lost, plan.reservations[0].free_ms), (8 * 100, Some(110)));
    world.pass_to(105);
    assert!(world.cycle().evictions.is_empty());
    world.pass_to(110);
    assert_eq!(world.cycle().admissions.len(), 2);
    assert_eq!(world.running(), ["a", "b", "large"]);
    assert_eq!(world.snapshot.moves_left, 8);
}

#[test]
fn a_replica_is_replaced_where_it_is_in_nobodys_way_while_it_still_runs() {
    let replace = Movable::Replace;
    let mut world = world(1, &[("a", 0, "1g.10gb-1", replace), ("b", 0, "2g.20gb-4", replace)], "3g.40gb");
    let plan = world.cycle();
    // There is no room for another of b, but for one of a.
    assert_eq!((plan.evictions.len(), plan.replacements.len()), (0, 1));
    let moved = &world.snapshot.running[plan.replacements[0].running];
    assert!(moved.key.starts_with('a'), "{}", moved.key);
    let to = plan.replacements[0].to.devices[0][0].device;
    let name = &world.snapshot.gpus[0].devices[usize::from(to)].name;
    assert_eq!((name.as_str(), plan.reservations[0].free_ms), ("gpu-0-1g.10gb-6", None));
    world.pass_to(111);
    assert_eq!(world.cycle().admissions.len(), 1);
    assert_eq!(world.running(), ["a", "b", "large"]);
}

#[test]
fn the_cheapest_is_moved_within_the_budget_if_it_is_worth_it_and_ran_before() {
    let restart = Movable::Restart;
    let small = [("a", 0, "1g.10gb-1", restart), ("b", 0, "1g.10gb-4", restart)];
    let moved = |change: &dyn Fn(&mut World)| {
        let mut world = world(1, &small, "3g.40gb");
        change(&mut world);
        let before = world.snapshot.clone();
        let plan = world.cycle();
        assert_eq!(plan.evictions.len(), plan.reservations.len());
        asked(&before, &plan).iter().map(|(victim, ..)| (*victim).to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(moved(&|_| {}), ["a"]);
    assert_eq!(moved(&|world| world.snapshot.running[1].admitted_ms = 1), ["b"]);
    assert_eq!(moved(&|world| world.snapshot.moves_left = 0), [""; 0]);
    assert_eq!(moved(&|world| world.snapshot.settings.defragmentation = false), [""; 0]);
    let since = |world: &mut World, admitted_ms: i64| {
        world.snapshot.running.iter_mut().for_each(|running| running.admitted_ms = admitted_ms);
    };
    assert_eq!(moved(&|world| since(world, 100)), [""; 0], "they started when the other waited already");
    // 28 units that have waited for two minutes are worth 8 that ran for seven, and no more.
    let ran = |world: &mut World, for_ms: i64| {
        world.pass_to(120_100);
        since(world, 120_100 - for_ms);
    };
    assert_eq!(moved(&|world| ran(world, 420_000)), ["a"]);
    assert_eq!(moved(&|world| ran(world, 420_001)), [""; 0]);
    // It might ask the other to leave as soon as it waits itself.
    assert_eq!(moved(&|world| world.snapshot.running[0].priority = 1), ["b"]);
}

#[test]
fn two_are_moved_where_one_is_not_enough() {
    let restart = Movable::Restart;
    let small = [
        ("a", 0, "1g.10gb-0", restart),
        ("b", 0, "1g.10gb-6", restart),
        ("c", 1, "1g.10gb-1", Movable::No),
        ("d", 1, "1g.10gb-4", restart),
    ];
    let mut world = world(2, &small, "7g.80gb");
    world.snapshot.moves_left = 1;
    assert!(world.cycle().evictions.is_empty());
    world.snapshot.moves_left = 2;
    let before = world.snapshot.clone();
    let plan = world.cycle();
    assert_eq!(asked(&before, &plan), [("a", "large", Moved), ("b", "large", Moved)]);
    world.pass_to(110);
    assert_eq!(world.cycle().admissions.len(), 3);
    assert_eq!(world.running(), ["a", "b", "c", "d", "large"]);
}

#[test]
fn nothing_moves_without_a_place_elsewhere() {
    let small = [("a", 0, "4g.40gb-0", Movable::No), ("b", 0, "1g.10gb-4", Movable::Restart)];
    let mut world = world(1, &small, "3g.40gb");
    assert!(world.cycle().evictions.is_empty());
}

#[test]
fn a_gang_that_has_to_be_on_one_rack_moves_only_to_one() {
    let moved = |racks: [&str; 3]| {
        let mut world = World::new(cluster(3, &[h100()]));
        world.snapshot.moves_left = 1;
        for (node, rack) in world.snapshot.nodes.iter_mut().zip(racks) {
            node.labels.insert("rack".into(), rack.into());
        }
        let pair = world.job("pair", "t", 0, "1g.10gb");
        (pair.workload.pods, pair.movable) = (2, Movable::Restart);
        pair.workload.topology = Some(Topology { label: "rack".into(), required: true });
        world.run("pair", &[(0, "1g.10gb-0"), (0, "1g.10gb-1")], 0);
        // Each leaves room for one pod.
        for (key, gpu) in [("b", 1), ("c", 2)] {
            world.job(key, "t", 0, "4g.40gb");
            world.run(key, &[(gpu, "4g.40gb-0")], 0);
            let key = format!("{key}2");
            world.job(&key, "t", 0, "2g.20gb");
            world.run(&key, &[(gpu, "2g.20gb-4")], 0);
        }
        world.now_ms = 100;
        world.job("large", "t", 0, "7g.80gb");
        world.wait("large");
        world.cycle().evictions.len()
    };
    assert_eq!(moved(["x", "y", "y"]), 1);
    assert_eq!(moved(["x", "x", "y"]), 0, "its pods would be on two");
}
