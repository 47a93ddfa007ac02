//! Plans that are carried out, one after the other, come to rest.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::world::World;
use crate::model::{Movable, Tenant};
use crate::testing::{cluster, h100};

/// Tenants: each may have the first as its parent.
const TENANTS: [&str; 4] = ["a", "b", "c", "t"];
const KINDS: [&str; 5] = ["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "7g.80gb"];

#[derive(Clone, Debug)]
struct Arrival {
    after_ms: i64,
    tenant: usize,
    kind: usize,
    pods: u32,
    priority: i32,
    grace_ms: i64,
    saves_ms: Option<i64>,
    movable: Movable,
}

prop_compose! {
    fn arrival()(
        after_ms in prop_oneof![4 => Just(0), 1 => Just(500_i64)],
        (tenant, kind, pods) in (0..TENANTS.len(), 0..KINDS.len(), prop_oneof![4 => Just(1_u32), 1 => Just(2)]),
        (priority, grace_ms) in (0_i32..3, 0_i64..4),
        saves_ms in prop::option::of(1_i64..20),
        movable in prop::sample::select(vec![Movable::No, Movable::Restart, Movable::Replace]),
    ) -> Arrival {
        let movable = if pods > 1 && movable == Movable::Replace { Movable::Restart } else { movable };
        Arrival { after_ms, tenant, kind, pods, priority, grace_ms, saves_ms, movable }
    }
}

proptest! {
    #[test]
    fn a_fixed_set_of_jobs_comes_to_rest(
        arrivals in prop::collection::vec(arrival(), 1..14),
        guaranteed in prop::collection::vec((0_u64..4, any::<bool>()), TENANTS.len()),
        gpus in 1_usize..4,
    ) {
        let mut world = World::new(cluster(1, &vec![h100(); gpus]));
        world.snapshot.moves_left = 1000;
        world.snapshot.settings.reserve_after_ms = 100;
        for (name, (share, below)) in TENANTS.iter().zip(guaranteed) {
            let parent = (below && *name != "a").then(|| "a".to_owned());
            let tenant = Tenant { parent, guaranteed: share * 28, ..Tenant::default() };
            world.snapshot.tenants.insert((*name).into(), tenant);
        }
        let mut total = 0;
        for (number, arrival) in arrivals.iter().enumerate() {
            let key = format!("j{number:02}");
            world.pass_to(world.now_ms + arrival.after_ms + 1);
            let job = world.job(&key, TENANTS[arrival.tenant], arrival.priority, KINDS[arrival.kind]);
            job.workload.pods = arrival.pods;
            (job.grace_ms, job.saves_ms, job.movable) = (arrival.grace_ms, arrival.saves_ms, arrival.movable);
            world.wait(&key);
            total += settle(&mut world)?;
        }
        // Each arrival starts at most a chain of evictions through all that run.
        let jobs = arrivals.len();
        prop_assert!(total <= jobs * jobs, "{total} evictions of {jobs} jobs");
    }
}

/// Plans until nothing changes any more without a new fact; how many were asked to leave or to move.
fn settle(world: &mut World) -> Result<usize, TestCaseError> {
    let mut by: BTreeSet<(String, String)> = BTreeSet::new();
    let mut quiet = 0;
    for _ in 0..300 {
        let before = world.snapshot.clone();
        let plan = world.cycle();
        let pairs = plan.evictions.iter().map(|eviction| (eviction.by, eviction.running));
        let moves = plan.replacements.iter().map(|replacement| (replacement.by, replacement.running));
        for (waits, runs) in pairs.chain(moves) {
            let pair = (before.waiting[waits].key.clone(), before.running[runs].key.clone());
            prop_assert!(!leads_to(&by, &pair.1, &pair.0), "{} leaves for {}, after {by:?}", pair.1, pair.0);
            prop_assert!(by.insert(pair.clone()), "{pair:?} again");
        }
        quiet = if plan.admissions.is_empty() && plan.evictions.is_empty() && plan.replacements.is_empty() {
            quiet + 1
        } else {
            0
        };
        if quiet > 20 {
            return Ok(by.len());
        }
        world.pass_to(world.now_ms + 1 + 20 * i64::from(quiet > 5));
    }
    Err(TestCaseError::fail(format!("it does not come to rest: {by:?}")))
}

/// Whether `from` had `to` asked to leave, or somebody who had.
fn leads_to(by: &BTreeSet<(String, String)>, from: &str, to: &str) -> bool {
    from == to || by.iter().any(|(who, whom)| who == from && leads_to(by, whom, to))
}
