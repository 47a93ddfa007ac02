//! Claims on a full cluster: who leaves, in which order, and who never does.

use crate::evict::tests::world::{World, asked};
use crate::model::EvictionReason::Claimed;
use crate::model::{Class, NodeIndex, Reserve, ReservedShape, Right, Tenant};
use crate::testing::{cluster, h100, job};

/// One node with some H100s, a reserve that promises one `3g.40gb`, a tenant `state` that draws on it, and tenants `a`,
/// guaranteed so much, and `b`.
fn world(gpus: usize, guaranteed: u64) -> World {
    let mut snapshot = cluster(1, &vec![h100(); gpus]);
    let shape = job(&mut snapshot, "shape", 1, "3g.40gb").shape;
    snapshot.reserves.push(Reserve {
        nodes: vec![NodeIndex(0)],
        classes: [Class::Sme, Class::Sovereign, Class::Security].into(),
        shapes: vec![ReservedShape { shape, count: 1 }],
        grace_ms: 10,
        tokens: 1_000_000,
        least_claim_ms: 1000,
        ..Reserve::default()
    });
    let mut world = World::new(snapshot);
    world.tenant("a", guaranteed);
    world.tenant("b", 0);
    for (name, class) in [("state", Class::Sovereign), ("army", Class::Security), ("firm", Class::Sme)] {
        world.snapshot.tenants.insert(name.into(), Tenant { class, ..Tenant::default() });
    }
    world
}

#[test]
fn who_borrows_leaves_before_who_is_within_its_guarantee_though_it_loses_more() {
    let mut world = world(1, 28);
    world.job("within", "a", 0, "3g.40gb");
    world.job("borrows", "b", 0, "3g.40gb");
    world.job("claim", "state", 0, "3g.40gb");
    world.run("within", &[(0, "3g.40gb-0")], 90);
    world.run("borrows", &[(0, "3g.40gb-4")], 0);
    world.pass_to(100);
    world.wait("claim");
    let before = world.snapshot.clone();
    let plan = world.cycle();
    assert_eq!(asked(&before, &plan), [("borrows", "claim", Claimed)]);
    world.pass_to(110);
    world.cycle();
    assert_eq!(world.running(), ["claim", "within"]);
    assert_eq!(world.right("claim"), Right::Claimed);
    // What it took by right is not taken back, and it is not asked to move.
    world.wait("borrows");
    world.pass_to(120);
    assert!(world.cycle().evictions.is_empty());
}

#[test]
fn only_a_higher_class_takes_what_is_held_by_right() {
    for (second, leaves) in [("army", true), ("state", false), ("firm", false)] {
        let mut world = world(1, 0);
        world.snapshot.reserves[0].shapes[0].count = 2;
        for key in ["x", "y"] {
            world.job(key, "state", 0, "3g.40gb");
        }
        world.job("claim", second, 0, "3g.40gb");
        world.run("x", &[(0, "3g.40gb-0")], 0);
        world.run("y", &[(0, "3g.40gb-4")], 0);
        world.snapshot.running.iter_mut().for_each(|running| running.right = Right::Claimed);
        // More is promised than the two hold, so that the claim is valid.
        world.snapshot.reserves[0].shapes[0].count = 3;
        world.pass_to(100);
        world.wait("claim");
        let plan = world.cycle();
        assert_eq!(!plan.evictions.is_empty(), leaves, "{second}");
    }
}

#[test]
fn who_could_not_be_asked_is_asked_again() {
    let mut world = world(1, 0);
    world.snapshot.reserves[0].shapes[0].count = 2;
    for (key, tenant) in [("x", "b"), ("y", "b"), ("claim", "state")] {
        world.job(key, tenant, 0, "3g.40gb");
    }
    world.jobs.get_mut("claim").unwrap().workload.pods = 2;
    world.run("x", &[(0, "3g.40gb-0")], 0);
    world.run("y", &[(0, "3g.40gb-4")], 0);
    world.pass_to(100);
    world.wait("claim");
    let before = world.snapshot.clone();
    assert_eq!(asked(&before, &world.cycle()), [("x", "claim", Claimed), ("y", "claim", Claimed)]);
    // One was just starting, say, and goes on.
    let at = world.snapshot.running.iter().position(|running| running.key == "y").unwrap();
    world.snapshot.running[at].leaves_ms = None;
    let before = world.snapshot.clone();
    assert_eq!(asked(&before, &world.cycle()), [("y", "claim", Claimed)]);
    world.pass_to(110);
    assert!(world.cycle().evictions.is_empty());
    assert_eq!(world.running(), ["claim"]);
    assert_eq!(world.right("claim"), Right::Claimed);
}

#[test]
fn without_tokens_it_is_an_ordinary_tenant() {
    let mut world = world(1, 0);
    world.snapshot.reserves[0].tokens = 27_999;
    for (key, tenant) in [("x", "b"), ("y", "b"), ("claim", "state")] {
        world.job(key, tenant, 0, "3g.40gb");
    }
    world.run("x", &[(0, "3g.40gb-0")], 0);
    world.run("y", &[(0, "3g.40gb-4")], 0);
    world.pass_to(100);
    world.wait("claim");
    assert!(world.cycle().evictions.is_empty(), "28 units need 28,000 for a second");
    world.snapshot.reserves[0].tokens = 28_000;
    assert_eq!(world.cycle().evictions.len(), 1);
}

#[test]
fn lasting_work_stays_out_of_what_is_promised() {
    let mut world = world(1, 56);
    let lasting = world.job("lasting", "a", 0, "4g.40gb");
    lasting.workload.lasting = true;
    lasting.evictable = false;
    world.job("lent", "b", 0, "3g.40gb");
    world.job("claim", "state", 0, "3g.40gb");
    let more = world.job("more", "a", 0, "1g.10gb");
    more.workload.lasting = true;
    for key in ["lasting", "more", "lent"] {
        world.wait(key);
    }
    let plan = world.cycle();
    assert_eq!(world.running(), ["lasting", "lent"], "a 3g fits beside a 4g, and is lent");
    let reason = &plan.waits[0].reason;
    assert!(matches!(reason, crate::model::WaitReason::Promised { .. }), "{reason:?}");
    world.wait("claim");
    world.pass_to(20);
    assert_eq!(world.cycle().evictions.len(), 1);
    world.pass_to(30);
    world.cycle();
    assert_eq!(world.running(), ["claim", "lasting"]);
}

/// Three H100s, held by `old`, `young` and `other`, one whole GPU promised, and `gang`, which waits and for which the
/// last two are kept.
fn kept() -> World {
    let mut world = world(3, 112);
    world.snapshot.reserves[0].shapes[0].shape = job(&mut world.snapshot, "whole", 1, "7g.80gb").shape;
    for (key, tenant) in [("old", "b"), ("young", "b"), ("other", "b"), ("gang", "a"), ("claim", "state")] {
        world.job(key, tenant, 0, "7g.80gb");
    }
    world.jobs.get_mut("gang").unwrap().workload.pods = 2;
    world.run("old", &[(0, "7g.80gb-0")], 0);
    world.run("young", &[(1, "7g.80gb-0")], 90);
    world.run("other", &[(2, "7g.80gb-0")], 50);
    let both = world.snapshot.running[1..].iter().flat_map(|running| running.pods.clone()).collect();
    world.pass_to(100);
    world.wait("gang");
    world.snapshot.waiting[0].reserved = both;
    world
}

#[test]
fn nobody_leaves_where_a_free_place_is_only_kept_for_work_without_a_right() {
    let mut world = kept();
    world.end(1);
    world.wait("claim");
    let plan = world.cycle();
    let claimed = plan.evictions.iter().filter(|eviction| eviction.reason == Claimed).count();
    assert_eq!((claimed, world.running()), (0, vec!["claim", "old", "other"]));
    assert_eq!(world.right("claim"), Right::Claimed);
}

#[test]
fn nobody_leaves_where_a_place_is_free_that_one_ahead_in_line_would_get_in_the_same_cycle() {
    let mut world = kept();
    world.end(1);
    world.snapshot.waiting.clear();
    world.job("ahead", "a", 9, "7g.80gb");
    world.wait("ahead");
    world.wait("claim");
    let plan = world.cycle();
    let claimed = plan.evictions.iter().filter(|eviction| eviction.reason == Claimed).count();
    assert_eq!((claimed, world.running()), (0, vec!["claim", "old", "other"]));
}

#[test]
fn the_least_is_lost_also_where_places_are_kept_for_work_without_a_right() {
    let mut world = kept();
    world.wait("claim");
    let before = world.snapshot.clone();
    let plan = world.cycle();
    assert!(asked(&before, &plan).contains(&("young", "claim", Claimed)));
}

#[test]
fn of_a_server_only_its_restart_is_lost_however_long_it_has_served() {
    const HOUR_MS: i64 = 3_600_000;
    for (ran_ms, leaves) in [(HOUR_MS, "server"), (60_000, "trains")] {
        let mut world = kept();
        world.snapshot.waiting.clear();
        (world.snapshot.running[0].key, world.snapshot.running[0].serves) = ("server".into(), true);
        world.snapshot.running[1].key = "trains".into();
        world.jobs.insert("server".into(), world.jobs["old"].clone());
        world.jobs.insert("trains".into(), world.jobs["young"].clone());
        world.pass_to(world.snapshot.running[1].admitted_ms + ran_ms);
        world.wait("claim");
        let before = world.snapshot.clone();
        let plan = world.cycle();
        assert_eq!(asked(&before, &plan), [(leaves, "claim", Claimed)]);
        let lost_ms = if leaves == "server" { 120_000 + 10 } else { 60_000 };
        assert_eq!(plan.evictions[0].lost, 56 * lost_ms);
    }
}
