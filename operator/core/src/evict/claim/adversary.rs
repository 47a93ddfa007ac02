//! Somebody who tries to fill the cluster so that what is promised can't be had:
//! whatever it asks for, and in which order, every valid claim starts within the
//! grace.

use proptest::prelude::*;

use crate::evict::tests::world::World;
use crate::model::{Class, NodeIndex, Reserve, ReservedShape, Tenant};
use crate::testing::{add_node, h100, job};

const KINDS: [&str; 6] = ["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];
const GRACE_MS: i64 = 10;

/// A step of the adversary.
#[derive(Clone, Debug)]
enum Step {
    /// A job comes: of which kind, whether it may be stopped, how long it takes to leave, how long it runs.
    Comes { kind: usize, lasting: bool, grace_ms: i64, runs_ms: Option<i64>, owns: bool },
    /// One of those that run ends.
    Ends(prop::sample::Index),
    /// Time passes.
    Passes(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let comes = (0..KINDS.len(), any::<bool>(), 0..2 * GRACE_MS, prop::option::of(1..50_i64), any::<bool>());
    let step = prop_oneof![
        6 => comes.prop_map(|(kind, lasting, grace_ms, runs_ms, owns)| {
            Step::Comes { kind, lasting, grace_ms, runs_ms, owns }
        }),
        2 => any::<prop::sample::Index>().prop_map(Step::Ends),
        1 => (1..30_i64).prop_map(Step::Passes),
    ];
    prop::collection::vec(step, 0..40)
}

/// Some nodes with some H100s each, and what is promised there; no more than fits.
fn promises() -> impl Strategy<Value = (Vec<usize>, Vec<usize>)> {
    let nodes = prop::collection::vec(1..=2_usize, 1..=2);
    (nodes, prop::collection::vec(0..KINDS.len(), 1..=4))
}

fn world(nodes: &[usize], promised: &[usize]) -> World {
    let mut snapshot = crate::model::Snapshot::default();
    for gpus in nodes {
        add_node(&mut snapshot, &vec![h100(); *gpus]);
    }
    let mut shape =
        |kind: &usize| ReservedShape { shape: job(&mut snapshot, "shape", 1, KINDS[*kind]).shape, count: 1 };
    let shapes = promised.iter().map(&mut shape).collect();
    snapshot.reserves.push(Reserve {
        nodes: (0..).take(nodes.len()).map(NodeIndex).collect(),
        classes: [Class::Sovereign].into(),
        shapes,
        grace_ms: GRACE_MS,
        tokens: u64::MAX,
        least_claim_ms: 1,
        ..Reserve::default()
    });
    let mut world = World::new(snapshot);
    world.tenant("rich", 1_000_000);
    world.tenant("poor", 0);
    world.snapshot.tenants.insert("state".into(), Tenant { class: Class::Sovereign, ..Tenant::default() });
    world
}

fn take(world: &mut World, number: usize, step: &Step) {
    match step {
        Step::Comes { kind, lasting, grace_ms, runs_ms, owns } => {
            let key = format!("job-{number:02}");
            let tenant = if *owns { "rich" } else { "poor" };
            let job = world.job(&key, tenant, 0, KINDS[*kind]);
            (job.workload.lasting, job.evictable) = (*lasting, !lasting);
            (job.workload.grace_ms, job.grace_ms) = (*grace_ms, *grace_ms);
            job.workload.runs_ms = *runs_ms;
            world.wait(&key);
        }
        Step::Ends(which) if !world.snapshot.running.is_empty() => {
            let at = which.index(world.snapshot.running.len());
            if world.snapshot.running[at].leaves_ms.is_none() {
                world.end(at);
            }
        }
        Step::Ends(_) => {}
        Step::Passes(ms) => world.pass_to(world.now_ms + ms),
    }
    world.cycle();
}

/// Whether more is promised than an empty cluster can deliver.
fn beyond(world: &World) -> bool {
    let shapes = crate::placement::Shapes::of(&world.snapshot);
    !crate::reserve::guard::Guard::of(&world.snapshot, &shapes, 0).missing().is_empty()
}

proptest! {
    #[test]
    fn no_valid_claim_is_missed((nodes, promised) in promises(), steps in steps()) {
        let mut world = world(&nodes, &promised);
        prop_assume!(!beyond(&world));
        for (number, step) in steps.iter().enumerate() {
            take(&mut world, number, step);
        }
        let claims: Vec<String> = (0..promised.len()).map(|at| format!("claim-{at}")).collect();
        for (key, kind) in claims.iter().zip(&promised) {
            world.job(key, "state", 0, KINDS[*kind]);
            world.wait(key);
        }
        world.cycle();
        world.pass_to(world.now_ms + GRACE_MS);
        world.cycle();
        let running = world.running();
        for claim in &claims {
            prop_assert!(running.contains(&claim.as_str()), "{claim} of {promised:?} waits; there run {running:?}");
        }
    }
}
