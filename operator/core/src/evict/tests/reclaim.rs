//! By what right: tables over small trees of tenants.

use super::super::reclaim::{Claimant, Rights, Spared};
use crate::model::EvictionReason::{Preempted, Reclaimed};
use crate::model::{EvictionReason, Running, Snapshot, Tenant};
use crate::queue::tree::Tree;

/// Tenants by name: parent, guaranteed, used.
fn tenants(all: &[(&str, Option<&str>, u64, u64)]) -> Snapshot {
    let tenant = |&(name, parent, guaranteed, used): &(&str, Option<&str>, u64, u64)| {
        let parent = parent.map(str::to_owned);
        (name.to_owned(), Tenant { parent, guaranteed, used, ..Tenant::default() })
    };
    Snapshot { tenants: all.iter().map(tenant).collect(), ..Snapshot::default() }
}

fn running(tenant: &str, units: u64) -> Running {
    Running { tenant: tenant.into(), units, evictable: true, ..Running::default() }
}

fn right(snapshot: &Snapshot, tenant: &str, units: u64, running: &Running) -> Option<EvictionReason> {
    let tree = Tree::of(snapshot);
    let rights = Rights::of(snapshot, &tree);
    let by = Claimant { tenant: tree.find(tenant).unwrap(), priority: 5, units, demands: None };
    let right = rights.right(by, running, &tree)?;
    rights.all_may_leave(by, [running], Spared::All, &tree).then_some(right)
}

#[test]
fn who_stays_within_takes_from_who_is_beyond_and_only_what_is_beyond() {
    for (a, b, units, of_b, expected) in [
        ((10, 4), (10, 16), 6, 6, Some(Reclaimed)),
        // It would be beyond its own guarantee.
        ((10, 4), (10, 16), 7, 6, None),
        // The other would be below its guarantee.
        ((10, 4), (10, 16), 6, 7, None),
        // The other is not beyond it.
        ((10, 4), (16, 16), 6, 1, None),
        ((0, 0), (0, 16), 1, 1, None),
        ((10, 0), (0, 16), 10, 16, Some(Reclaimed)),
    ] {
        let snapshot = tenants(&[("a", None, a.0, a.1), ("b", None, b.0, b.1)]);
        assert_eq!(right(&snapshot, "a", units, &running("b", of_b)), expected, "{a:?} {b:?} {units} {of_b}");
    }
}

#[test]
fn within_a_tenant_only_a_lower_priority_leaves() {
    let snapshot = tenants(&[("a", None, 10, 4)]);
    for (priority, expected) in [(4, Some(Preempted)), (5, None), (6, None)] {
        let running = Running { priority, ..running("a", 4) };
        assert_eq!(right(&snapshot, "a", 100, &running), expected, "{priority}");
    }
    // Two steps of priority are worth two times the aging.
    let mut snapshot = snapshot;
    snapshot.settings.aging_ms = 50;
    for (waited_ms, expected) in [(0, Some(Preempted)), (99, Some(Preempted)), (100, None), (900, None)] {
        let running = Running { priority: 3, waited_ms, ..running("a", 4) };
        assert_eq!(right(&snapshot, "a", 100, &running), expected, "waited for {waited_ms} ms");
    }
}

#[test]
fn what_may_not_leave_what_leaves_already_and_what_the_owner_switched_off_stays() {
    let snapshot = tenants(&[("a", None, 10, 0), ("b", None, 0, 16)]);
    let asked = |running: Running| right(&snapshot, "a", 8, &running);
    assert_eq!(asked(running("b", 8)), Some(Reclaimed));
    assert_eq!(asked(Running { evictable: false, ..running("b", 8) }), None);
    assert_eq!(asked(Running { leaves_ms: Some(1), ..running("b", 8) }), None);
    assert_eq!(asked(running("nobody", 8)), None);
    let mut off = snapshot.clone();
    off.settings.reclaim = false;
    assert_eq!(right(&off, "a", 8, &running("b", 8)), None);
    assert_eq!(right(&off, "a", 8, &running("a", 8)), Some(Preempted));
    off.settings.preemption = false;
    assert_eq!(right(&off, "a", 8, &running("a", 8)), None);
}

#[test]
fn it_is_judged_where_the_two_branches_meet() {
    let tree = |x: (u64, u64), x1: (u64, u64), x2: (u64, u64), y1: (u64, u64), y2: (u64, u64)| {
        tenants(&[
            ("x", None, x.0, x.1),
            ("x1", Some("x"), x1.0, x1.1),
            ("x2", Some("x"), x2.0, x2.1),
            ("y", None, 8, 0),
            ("y1", Some("y"), y1.0, y1.1),
            ("y2", Some("y"), y2.0, y2.1),
        ])
    };
    let snapshot = tree((10, 0), (9, 4), (0, 0), (4, 4), (0, 8));
    assert_eq!(right(&snapshot, "x1", 5, &running("y2", 4)), Some(Reclaimed));
    assert_eq!(right(&snapshot, "x1", 6, &running("y2", 4)), None, "x1 would be beyond, though not x");
    assert_eq!(right(&snapshot, "x1", 5, &running("y1", 1)), None, "y is beyond, but not y1");
    assert_eq!(right(&snapshot, "x1", 5, &running("y2", 5)), None, "y would be below");
    let snapshot = tree((10, 6), (9, 4), (0, 0), (4, 4), (0, 8));
    assert_eq!(right(&snapshot, "x1", 1, &running("y2", 4)), None, "x would be beyond, though not x1");
    // Within x, only what its own branches are guaranteed counts.
    let snapshot = tree((10, 0), (4, 0), (2, 9), (0, 0), (0, 0));
    assert_eq!(right(&snapshot, "x1", 4, &running("x2", 4)), Some(Reclaimed));
    assert_eq!(right(&snapshot, "x1", 5, &running("x2", 4)), None);
    assert_eq!(right(&snapshot, "x2", 1, &running("x1", 0)), None);
    // What x itself holds is a branch of its own, and not to be had from below.
    let snapshot = tree((10, 8), (4, 0), (0, 2), (0, 0), (0, 0));
    assert_eq!(right(&snapshot, "x1", 4, &running("x", 2)), None);
    assert_eq!(right(&snapshot, "x", 1, &running("x2", 2)), None, "6 are guaranteed to its own");
    let snapshot = tree((10, 5), (4, 0), (0, 2), (0, 0), (0, 0));
    assert_eq!(right(&snapshot, "x", 1, &running("x2", 2)), Some(Reclaimed));
    assert_eq!(right(&snapshot, "x", 2, &running("x2", 2)), None);
}

#[test]
fn what_leaves_already_is_held_no_more_and_what_is_kept_is_promised() {
    let mut snapshot = tenants(&[("a", None, 10, 4), ("b", None, 10, 16)]);
    snapshot.running.push(Running { leaves_ms: Some(9), ..running("b", 4) });
    let tree = Tree::of(&snapshot);
    let mut rights = Rights::of(&snapshot, &tree);
    let by = Claimant { tenant: 0, priority: 0, units: 6, demands: None };
    let may = |units: &[u64], spared| {
        let victims: Vec<Running> = units.iter().map(|units| running("b", *units)).collect();
        rights.all_may_leave(by, &victims, spared, &tree)
    };
    assert!(may(&[2], Spared::All) && !may(&[3], Spared::All));
    assert!(!may(&[1, 2], Spared::All), "counted together");
    // The last may take b below its guarantee: only it is not within it as a whole.
    assert!(may(&[9], Spared::UntilTheLast) && may(&[9, 1], Spared::UntilTheLast));
    assert!(!may(&[2, 1, 1], Spared::UntilTheLast) && !may(&[2, 2], Spared::UntilTheLast));
    rights.leaves(&running("b", 2), &tree);
    assert_eq!(rights.right(by, &running("b", 1), &tree), None, "b is down to its guarantee");

    let mut tree = Tree::of(&snapshot);
    let rights = Rights::of(&snapshot, &tree);
    assert_eq!(rights.right(by, &running("b", 1), &tree), Some(Reclaimed));
    tree.keep(0, 1);
    assert_eq!(rights.right(by, &running("b", 1), &tree), None, "7 of 6 that are left");

    let others = |x: u64| tenants(&[("x", None, 4, x), ("x1", Some("x"), 2, 9), ("y", None, 9, 0)]);
    assert_eq!(right(&others(3), "y", 1, &running("x", 1)), Some(Reclaimed));
    assert_eq!(right(&others(2), "y", 1, &running("x", 1)), None, "2 are guaranteed to its own");
}
