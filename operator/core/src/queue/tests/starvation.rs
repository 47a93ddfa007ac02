//! Nobody waits for ever, whatever else comes.

use proptest::prelude::*;

use super::world::{Job, World};
use super::*;

/// A step of aging; who has waited 24 of them longer goes first, whatever the shares.
const AGING_MS: i64 = 1;

const RESERVE_AFTER_MS: i64 = 5;

/// The longest that any of the small jobs runs.
const LONGEST_MS: i64 = 6;

/// Priorities are below this.
const PRIORITIES: i32 = 3;

/// When the gang comes.
const GANG_MS: i64 = LONGEST_MS;

/// Until then others may come that go before the gang.
const OVERTAKEN_MS: i64 = GANG_MS + (24 + PRIORITIES as i64) * AGING_MS;

/// When the gang starts at the latest. One small job comes each millisecond; of those that are ahead, each is first at
/// some time, and has started when all has ended that runs then, and then all that runs when its place is free for the
/// units that are missing; at last the gang in the same way.
const BOUND_MS: i64 = OVERTAKEN_MS + RESERVE_AFTER_MS + (OVERTAKEN_MS + 1) * 2 * LONGEST_MS;

/// Small jobs without end, one each millisecond, of two tenants, one of which has a guarantee; and a gang that needs
/// almost everything. Tells when that starts.
fn play(small: &[(i64, bool, i32, bool)], reservations: u32, limit: Option<u64>, pods: u32) -> Option<i64> {
    let mut snapshot = cluster(2, &[whole(), whole()]);
    snapshot.settings.aging_ms = AGING_MS;
    snapshot.settings.reserve_after_ms = RESERVE_AFTER_MS;
    snapshot.settings.reservations = reservations;
    let child = Tenant { parent: Some("p".into()), ..Tenant::default() };
    snapshot.tenants.insert("p".into(), tenant(0, limit, 0));
    snapshot.tenants.insert("t".into(), child.clone());
    snapshot.tenants.insert("u".into(), Tenant { guaranteed: 3 * 56, ..child });
    let gang = job(&mut snapshot, "gang", pods, "gpu");
    let one = job(&mut snapshot, "small", 1, "gpu");
    let mut jobs = vec![Job { workload: gang, comes_ms: GANG_MS, runs_ms: 1 }];
    for (comes_ms, (runs_ms, known, priority, other)) in (0..BOUND_MS).zip(small.iter().cycle()) {
        let key = format!("small-{comes_ms}");
        let tenant = if *other { "u" } else { "t" }.into();
        let known_ms = known.then_some(*runs_ms);
        let workload = Workload { key, tenant, priority: *priority, runs_ms: known_ms, ..one.clone() };
        jobs.push(Job { workload, comes_ms, runs_ms: *runs_ms });
    }
    let mut world = World::new(snapshot);
    world.play_until(BOUND_MS, &jobs);
    world.started_ms.get("gang").copied()
}

#[test]
fn without_places_that_are_kept_a_gang_starves() {
    let small = [(3, true, 0, false), (3, false, 0, true), (4, true, 1, false)];
    assert_eq!(play(&small, 0, None, 4), None);
    assert!(play(&small, 1, None, 4).is_some());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_gang_starts_in_time_whatever_comes(
        small in prop::collection::vec((1..=LONGEST_MS, any::<bool>(), 0..PRIORITIES, any::<bool>()), 1..20),
        limit in prop::option::of(3_u64..5),
        pods in 2_u32..4,
        reservations in 1_u32..3,
    ) {
        let started_ms = play(&small, reservations, limit, pods);
        prop_assert!(started_ms.is_some(), "it has not started by {BOUND_MS}");
    }
}
