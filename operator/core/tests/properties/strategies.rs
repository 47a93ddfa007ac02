//! Random scenarios. Everything is a small number or a list of choices whose
//! first is the plainest, so that a failing case shrinks to one that can be read.

use proptest::prelude::*;
use vingt_core::model::{Movable, PlacementPolicy};

use super::cards::Card;
use super::scenario::{ASKED, JobSpec, NodeSpec, Scenario, SettingsSpec, Step, TenantSpec};

fn card() -> impl Strategy<Value = Card> {
    prop_oneof![
        3 => Just(Card::Whole),
        1 => Just(Card::A30),
        2 => Just(Card::Some),
        4 => Just(Card::H100),
        1 => Just(Card::Either),
    ]
}

fn node() -> impl Strategy<Value = NodeSpec> {
    let cpus = prop_oneof![3 => Just(99_u8), 1 => 0..12_u8];
    let gib = prop_oneof![3 => Just(99_u8), 1 => 0..12_u8];
    (prop::collection::vec(card(), 1..=2), 0..2_u8, cpus, gib, prop::bool::weighted(0.1))
        .prop_map(|(cards, rack, cpus, gib, tainted)| NodeSpec { cards, rack, cpus, gib, tainted })
}

fn tenant() -> impl Strategy<Value = (Option<prop::sample::Index>, u8, Option<u8>, u8)> {
    let guaranteed = prop_oneof![1 => Just(0_u8), 2 => 0..22_u8];
    (
        prop::option::weighted(0.4, any::<prop::sample::Index>()),
        guaranteed,
        prop::option::weighted(0.3, 0..36_u8),
        0..3_u8,
    )
}

fn tenants() -> impl Strategy<Value = Vec<TenantSpec>> {
    prop::collection::vec(tenant(), 1..=4).prop_map(|tenants| {
        let spec =
            |(at, (under, guaranteed, limit, weight)): (usize, (Option<prop::sample::Index>, _, _, _))| {
                let under = under.filter(|_| at > 0).map(|under| under.index(at));
                TenantSpec { under, guaranteed, limit, weight }
            };
        tenants.into_iter().enumerate().map(spec).collect()
    })
}

fn settings() -> impl Strategy<Value = SettingsSpec> {
    let placement = prop::sample::select(vec![
        PlacementPolicy::BestFit,
        PlacementPolicy::FirstFit,
        PlacementPolicy::Learned,
        PlacementPolicy::Fragmentation,
        PlacementPolicy::BlockedWindows,
        PlacementPolicy::Spread,
    ]);
    let on = || prop::bool::weighted(0.7);
    (placement, 0..99_u8, 0..60_u8, 0..12_u8, 0..5_u8, on(), on(), on(), 0..4_u8).prop_map(
        |(
            placement,
            half_life_s,
            aging_s,
            reserve_after_s,
            reservations,
            reclaim,
            preemption,
            defrag,
            moves,
        )| {
            SettingsSpec {
                placement,
                half_life_s,
                aging_s,
                reserve_after_s,
                reservations,
                reclaim,
                preemption,
                defragmentation: defrag,
                moves,
            }
        },
    )
}

pub fn job() -> impl Strategy<Value = JobSpec> {
    let ask = (1..=2_u8, 0..u8::try_from(ASKED.len()).unwrap());
    let asks = prop_oneof![6 => prop::collection::vec(ask.clone(), 1), 1 => prop::collection::vec(ask, 2)];
    let movable =
        prop_oneof![2 => Just(Movable::No), 1 => Just(Movable::Restart), 1 => Just(Movable::Replace)];
    let near = prop_oneof![5 => Just(None), 1 => Just(Some(false)), 1 => Just(Some(true))];
    (
        (0..4_u8, prop_oneof![3 => Just(1_u8), 2 => 1..=4_u8], asks),
        (0..3_u8, 0..3_u8, 0..3_i8),
        (1..20_u8, prop::option::weighted(0.6, 0..6_u8)),
        (0..4_u8, 0..3_u8, 0..5_u8),
        (prop::bool::weighted(0.7), movable),
        (near, prop::bool::weighted(0.2), prop::option::weighted(0.05, 0..4_u8)),
    )
        .prop_map(
            |(
                (tenant, pods, asks),
                (cpus, gib, priority),
                (runs_s, spare_s),
                (grace_s, early_s, saves_s),
                (evictable, movable),
                (near, tolerates, only_node),
            )| JobSpec {
                tenant,
                pods,
                asks,
                cpus,
                gib,
                priority,
                runs_s,
                spare_s,
                grace_s,
                early_s,
                saves_s,
                evictable,
                movable,
                near,
                tolerates,
                only_node,
            },
        )
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..9_u8).prop_map(Step::Pass),
        16 => job().prop_map(Step::Submit),
        1 => (0..8_u8).prop_map(Step::End),
        1 => (0..8_u8).prop_map(Step::Cancel),
        1 => (0..8_u8).prop_map(Step::Withdraw),
        1 => (0..4_u8).prop_map(Step::Fail),
        1 => (0..4_u8).prop_map(Step::Cordon),
        1 => (0..4_u8).prop_map(Step::Return),
        1 => (0..8_u8).prop_map(Step::Block),
        1 => (0..8_u8, 0..30_u8).prop_map(|(gpu, device)| Step::Taint(gpu, device)),
        1 => (0..8_u8, 0..30_u8).prop_map(|(gpu, device)| Step::Foreign(gpu, device)),
        1 => (0..4_u8, prop::option::of(0..36_u8)).prop_map(|(tenant, limit)| Step::Limit(tenant, limit)),
        1 => (0..4_u8, 0..22_u8).prop_map(|(tenant, share)| Step::Guarantee(tenant, share)),
        1 => Just(Step::Restart),
    ]
}

/// Any scenario of a few nodes and up to `steps` steps.
pub fn scenario(steps: usize) -> impl Strategy<Value = Scenario> {
    let nodes = prop::collection::vec(node(), 1..=3);
    (nodes, tenants(), settings(), prop::collection::vec(step(), 1..=steps))
        .prop_map(|(nodes, tenants, settings, steps)| Scenario { nodes, tenants, settings, steps })
}
