//! Whose turn it is, as time goes by.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::model::{Tenant, Workload};
use crate::testing::{cluster, whole};

const AGING_MS: i64 = 1000;

/// Four GPUs and these tenants: name, parent.
fn snapshot(tenants: &[(&str, Option<&str>)]) -> Snapshot {
    let mut snapshot = cluster(1, &[whole(), whole(), whole(), whole()]);
    snapshot.settings.aging_ms = AGING_MS;
    let tenant = |parent: Option<&str>| Tenant { parent: parent.map(Into::into), ..Tenant::default() };
    snapshot.tenants = tenants.iter().map(|(name, parent)| ((*name).into(), tenant(*parent))).collect();
    snapshot
}

fn queue(snapshot: &mut Snapshot, tenant: &str, priority: i32, queued_ms: i64) {
    let key = snapshot.waiting.len().to_string();
    let workload = Workload { key, tenant: tenant.into(), priority, queued_ms, ..Workload::default() };
    snapshot.waiting.push(workload);
}

fn short(snapshot: &Snapshot, tree: &Tree<'_>) -> Vec<Job> {
    crate::queue::jobs::jobs(snapshot, &vec![0; snapshot.waiting.len()], tree)
}

/// Tenants in their order, if each workload gets `units` of it.
fn turns(snapshot: &Snapshot, units: Option<u64>, now_ms: i64) -> Vec<(String, i64)> {
    let mut tree = Tree::of(snapshot);
    let mut order = Order::of(snapshot, &short(snapshot, &tree), &tree);
    let mut turns = Vec::new();
    while let Some((workload, tenant)) = order.next() {
        tree.give(tenant, units.unwrap_or(0));
        order.pass(&tree, tenant, units.map_or(Passed::By, Passed::Given), now_ms);
        turns.push((tree.name(tenant).to_owned(), snapshot.waiting[workload].queued_ms));
    }
    turns
}

fn names(turns: &[(String, i64)]) -> String {
    turns.iter().map(|(name, _)| name.as_str()).collect()
}

#[test]
fn who_has_and_had_least_by_weight_goes_first() {
    let mut snapshot = snapshot(&[("a", None), ("b", None), ("c", None)]);
    for tenant in ["a", "b", "c"] {
        for queued_ms in 0..4 {
            queue(&mut snapshot, tenant, 0, queued_ms);
        }
    }
    snapshot.tenants.get_mut("c").unwrap().weight = 2;
    // With equal shares, a goes by its name; c may have twice as much.
    assert_eq!(names(&turns(&snapshot, Some(56), 0)), "abccabccabab");
    let day_ms = 24 * 3_600_000;
    snapshot.settings.half_life_ms = day_ms;
    let mut usage = super::super::Usage::default();
    usage.advance(30 * day_ms, 2 * 56, day_ms);
    snapshot.tenants.get_mut("a").unwrap().recent = usage.recent();
    assert_eq!(names(&turns(&snapshot, Some(56), 0)), "bccbccababaa");
}

#[test]
fn what_is_guaranteed_below_counts_above_and_what_is_left_of_it_is_the_tenants_own() {
    let mut snapshot = snapshot(&[("p", None), ("q", Some("p")), ("r", None), ("s", Some("p"))]);
    for (tenant, guaranteed) in [("p", 4), ("q", 1), ("s", 1)] {
        snapshot.tenants.get_mut(tenant).unwrap().guaranteed = guaranteed * 56;
    }
    for tenant in ["p", "q", "r", "s"] {
        for queued_ms in 0..3 {
            queue(&mut snapshot, tenant, 0, queued_ms);
        }
    }
    // p has 2 GPUs for its own; r goes when p, q and s have 4 together.
    assert_eq!(names(&turns(&snapshot, Some(56), 0)), "pqsprrrqspqs");
}

#[test]
fn priority_goes_first_until_the_others_have_waited_as_much_longer() {
    let mut snapshot = snapshot(&[("a", None)]);
    queue(&mut snapshot, "a", 0, 0);
    queue(&mut snapshot, "a", 2, 2 * AGING_MS - 1);
    queue(&mut snapshot, "a", 2, 2 * AGING_MS + 1);
    queue(&mut snapshot, "a", 2, 2 * AGING_MS);
    let queued: Vec<i64> = turns(&snapshot, None, 0).into_iter().map(|(_, queued_ms)| queued_ms).collect();
    assert_eq!(queued, [1999, 0, 2000, 2001]);
}

#[test]
fn waiting_moves_a_tenant_ahead_until_it_gets_something() {
    let mut snapshot = snapshot(&[("a", None), ("b", None)]);
    snapshot.tenants.get_mut("b").unwrap().used = 56;
    // A quarter of the cluster is two steps.
    for (waited_ms, expected) in [(2 * AGING_MS - 1, "abb"), (2 * AGING_MS + 1, "bab")] {
        snapshot.waiting.clear();
        queue(&mut snapshot, "b", 0, 0);
        queue(&mut snapshot, "b", 0, 0);
        queue(&mut snapshot, "a", 0, waited_ms);
        assert_eq!(names(&turns(&snapshot, Some(1), waited_ms)), expected);
    }
}

/// A tenant of a random tree, and who is above it: any but those of greater index, or a circle.
fn tree() -> impl Strategy<Value = BTreeMap<String, Tenant>> {
    let tenant = (prop::option::of(0_usize..6), 0_u64..200, 0_u64..400, 0_u64..1 << 40, 0_u32..4);
    prop::collection::vec(tenant, 1..6).prop_map(|tenants| {
        let tenant =
            |(parent, guaranteed, used, recent, weight): (Option<usize>, u64, u64, u64, u32)| Tenant {
                parent: parent.map(|parent| format!("t{parent}")),
                guaranteed,
                used,
                recent,
                weight,
                ..Tenant::default()
            };
        (0..).map(|i| format!("t{i}")).zip(tenants.into_iter().map(tenant)).collect()
    })
}

proptest! {
    /// Whatever others queue up, and whatever is given and taken back, a workload's turn comes: nobody is looked at
    /// before it whose own wait began a full span (24 steps of aging) later, but for higher priorities of its tenant.
    #[test]
    fn every_workload_is_first_in_the_end(
        tenants in tree(),
        mine in (0_usize..6, 0_i32..3),
        others in prop::collection::vec((0_usize..6, 0_i32..3, 0_u8..3), 1..60),
    ) {
        let mut snapshot = snapshot(&[]);
        snapshot.tenants = tenants;
        let count = snapshot.tenants.len();
        let tenant = |at: usize| format!("t{}", at % count);
        let (at, priority) = mine;
        queue(&mut snapshot, &tenant(at), priority, 0);
        let span_ms = 24 * AGING_MS;
        let mut now_ms = 0;
        let mut after = 0;
        // One new workload of every tenant at each step; one starts, and now and then one ends.
        for (at, priority, ends) in others.iter().cycle().take(400) {
            now_ms += AGING_MS;
            for other in 0..count {
                queue(&mut snapshot, &tenant(at + other), *priority, now_ms);
            }
            let tree = Tree::of(&snapshot);
            let (first, _) = Order::of(&snapshot, &short(&snapshot, &tree), &tree).next().unwrap();
            if snapshot.waiting[first].key == "0" {
                break;
            }
            let started = snapshot.waiting.remove(first);
            let of = snapshot.tenants.get_mut(&started.tenant).unwrap();
            of.used = if *ends == 0 { 0 } else { of.used + 56 };
            of.last_admitted_ms = now_ms;
            if now_ms > span_ms + 3 * AGING_MS {
                after += 1;
            }
        }
        // Since then each tenant went first once at most; and as often again, after another span, for each of the two
        // of its own tenant that may be ahead by priority.
        let bound = 3 * (count + 24 + 1);
        prop_assert!(after <= bound, "{after} went first");
    }

    #[test]
    fn everybody_has_one_turn(
        tenants in tree(),
        waiting in prop::collection::vec((0_usize..8, 0_i32..3, 0_i64..5000), 0..30),
        given in prop::option::of(0_u64..100),
    ) {
        let mut snapshot = snapshot(&[]);
        snapshot.tenants = tenants;
        for (at, priority, queued_ms) in waiting {
            queue(&mut snapshot, &format!("t{at}"), priority, queued_ms);
        }
        let mut tree = Tree::of(&snapshot);
        let mut order = Order::of(&snapshot, &short(&snapshot, &tree), &tree);
        let mut seen = Vec::new();
        while let Some((workload, tenant)) = order.next() {
            prop_assert_eq!(&snapshot.waiting[workload].tenant, tree.name(tenant));
            tree.give(tenant, given.unwrap_or(0));
            order.pass(&tree, tenant, given.map_or(Passed::By, Passed::Given), 5000);
            seen.push(workload);
        }
        seen.sort_unstable();
        let known = (0..snapshot.waiting.len()).filter(|i| tree.find(&snapshot.waiting[*i].tenant).is_some());
        prop_assert_eq!(seen, known.collect::<Vec<_>>());
    }
}
