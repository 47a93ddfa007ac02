//! Rankings against looking at every GPU, moves against trying every move.

use std::sync::Arc;

use proptest::prelude::*;

use super::greedy::{BestFit, FirstFit, Spread};
use super::*;
use crate::simulate::Random;
use crate::simulate::cards;
use crate::states::set::Bits;
use crate::states::{Card, Cluster, GpuSet, State};

const DEMANDS: usize = 6;
const SIZE: [f64; DEMANDS] = [1.0, 2.0, 2.0, 4.0, 4.0, 8.0];

fn spaces() -> (Arc<Space>, Arc<Space>) {
    let card: &[Card] = &[cards::hopper()];
    (Arc::new(Space::new(card, DEMANDS).unwrap()), Arc::new(Space::unlumped(card, DEMANDS).unwrap()))
}

/// GPUs in states that random arrivals and departures lead to.
fn cluster(space: &Arc<Space>, gpus: usize, seed: u64, fullness: f64) -> Cluster {
    let mut random = Random::new(seed);
    let mut cluster = Cluster::new(space.clone(), &vec![0; gpus]);
    for gpu in 0..gpus {
        for device in 0..space.cards()[0].devices.len() {
            let state = cluster.state(gpu);
            if let Some(next) = space.put(state, device).filter(|_| random.unit() < fullness) {
                cluster.set(gpu, next);
            }
        }
    }
    cluster
}

fn learnt(space: &Arc<Space>) -> Values {
    let features = Features::promises(space, &prior::HORIZONS, &[1.0; DEMANDS]);
    features.values(&prior::CONSTANTS.weights(&features, &[1.0; DEMANDS], &SIZE)).spanning(price::SPAN)
}

/// The cheapest place by looking at every device of every GPU.
fn by_looking(
    policy: &dyn Policy,
    cluster: &Cluster,
    demand: Demand,
    eligible: &GpuSet,
) -> Option<(f64, usize, usize)> {
    let space = cluster.space();
    let mut best: Option<(f64, usize, usize)> = None;
    for gpu in eligible.iter() {
        let state = cluster.state(gpu);
        for device in space.ways(state, demand) {
            let to = space.class(space.put(state, device).unwrap());
            let cost = policy.cost(space, demand, space.class(state), to);
            if best.is_none_or(|(least, _, _)| cost < least - 1e-9) {
                best = Some((cost, gpu, device));
            }
        }
    }
    best
}

#[test]
fn first_fit_takes_the_lowest_gpu_and_the_lowest_start() {
    let (_, states) = spaces();
    let ranking = Ranking::new(&states, &FirstFit);
    let mut cluster = Cluster::new(states.clone(), &[0; 3]);
    let mut place = |demand| {
        let spot = ranking.choose(&cluster, demand).unwrap();
        cluster.set(spot.gpu, spot.after);
        (spot.gpu, cards::hopper().slices_of(spot.device))
    };
    assert_eq!(place(0), (0, 0b1));
    assert_eq!(place(5), (1, 0xff));
    assert_eq!(place(3), (0, 0xf0));
    assert_eq!(place(4), (2, 0x0f));
    assert_eq!(place(2), (0, 0b1100));
}

#[test]
fn the_learnt_values_keep_a_gpu_whole_when_they_can() {
    let (classes, _) = spaces();
    let ranking = Ranking::new(&classes, &learnt(&classes));
    let mut cluster = Cluster::new(classes.clone(), &[0; 4]);
    let mut gpus = Vec::new();
    for _ in 0..7 {
        let spot = ranking.choose(&cluster, 0).unwrap();
        cluster.set(spot.gpu, spot.after);
        gpus.push(spot.gpu);
    }
    assert_eq!(gpus, [0; 7]);
    assert_eq!(ranking.choose(&cluster, 5).unwrap().gpu, 1);
}

#[test]
fn nothing_is_chosen_where_nothing_fits() {
    let (classes, _) = spaces();
    let ranking = Ranking::new(&classes, &learnt(&classes));
    let cluster = cluster(&classes, 20, 3, 1.0);
    for demand in 1..DEMANDS {
        assert_eq!(ranking.choose(&cluster, demand), None);
    }
}

#[test]
fn a_budget_is_kept_and_spent_on_what_brings_most() {
    let mut price = Price::new(0.01);
    let (mut placed, mut moved, mut small) = (0_u32, 0_u32, 0_u32);
    for round in 0..100_000 {
        price.placed();
        placed += 1;
        // Every tenth job could use a move; every fifth of those is a whole GPU.
        let worth = if round % 50 == 0 { 8.0 } else { 1.0 };
        if round % 10 == 0 && price.accepts(worth, 0.0) {
            price.moved();
            moved += 1;
            small += u32::from(worth < 8.0);
        }
    }
    assert!(moved <= placed / 100 + 30, "{moved} of {placed}");
    assert!(moved >= placed / 110, "{moved} of {placed}");
    assert!(small < moved / 10, "{small} of {moved} moves were for small jobs");
    assert!(!Price::new(0.0).accepts(8.0, 0.0));
    assert!(Price::new(1.0).accepts(1.0, 100.0));
}

#[test]
fn promises_are_what_a_gpu_holds() {
    let (classes, _) = spaces();
    let features = Features::promises(&classes, &[0.0, 1e9], &[1.0; DEMANDS]);
    let empty = features.of(classes.class(classes.empty(0))).to_vec();
    let now: Vec<f64> = empty[..2 * DEMANDS].to_vec();
    assert_eq!(now, [7.0, 1.0, 4.0, 1.0, 3.0, 1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0]);
    // When everybody has left, every class is the empty one.
    for class in classes.every_class() {
        for (later, promised) in features.of(class)[2 * DEMANDS..].iter().zip(&now) {
            assert!((later - promised).abs() < 1e-6);
        }
    }
}

proptest! {
    #[test]
    fn a_ranking_finds_what_looking_at_every_gpu_finds(seed: u64, gpus in 1_usize..40, fullness in 0.0..1.0, demand in 0..DEMANDS) {
        let (classes, states) = spaces();
        let share = [1.0 / 6.0; DEMANDS];
        let policies: [(&Arc<Space>, Box<dyn Policy>); 6] = [
            (&states, Box::new(FirstFit)),
            (&states, Box::new(BestFit)),
            (&states, Box::new(Spread)),
            (&states, Box::new(Values::fragmentation(&states, &share))),
            (&states, Box::new(Values::blocked_windows(&states))),
            (&classes, Box::new(learnt(&classes))),
        ];
        for (space, policy) in policies {
            let cluster = cluster(space, gpus, seed, fullness);
            let ranking = Ranking::new(space, policy.as_ref());
            let (mut all, mut some) = (GpuSet::new(gpus), GpuSet::new(gpus));
            (0..gpus).for_each(|gpu| all.insert(gpu));
            (0..gpus).filter(|gpu| seed >> (gpu % 64) & 1 == 1).for_each(|gpu| some.insert(gpu));
            let place = |found: Option<Spot>| found.map(|spot| (spot.gpu, spot.device));
            let looked = |among| by_looking(policy.as_ref(), &cluster, demand, among).map(|(_, gpu, device)| (gpu, device));
            let found = ranking.choose(&cluster, demand);
            prop_assert_eq!(place(found), looked(&all));
            prop_assert_eq!(place(ranking.choose_among(&cluster, demand, &some)), looked(&some));
            if let Some(spot) = found {
                prop_assert_eq!(space.put(cluster.state(spot.gpu), spot.device), Some(spot.after));
            }
        }
    }

    #[test]
    fn the_cheapest_move_is_the_cheapest_of_all_moves(seed: u64, gpus in 1_usize..12, demand in 1..DEMANDS, held: u64) {
        let (classes, _) = spaces();
        let values = learnt(&classes);
        let ranking = Ranking::new(&classes, &values);
        let cluster = cluster(&classes, gpus, seed, 0.9);
        prop_assume!(ranking.choose(&cluster, demand).is_none());
        let movable: Vec<u64> = (0..gpus).map(|gpu| held.rotate_left(u32::try_from(gpu * 7).unwrap())).collect();
        let found = moves::cheapest(&cluster, &ranking, &values, demand, &movable);
        let expected = every_move(&cluster, &values, demand, &movable);
        match (found, expected) {
            (None, None) => {}
            (Some(found), Some(expected)) => {
                prop_assert!((found.cost - expected).abs() < 1e-9, "{} against {expected}", found.cost);
                prop_assert!(movable[found.from] >> found.device & 1 == 1);
                // Done in its order, it leads where it says.
                let mut after = cluster.clone();
                after.take(found.from, found.device);
                prop_assert_eq!(classes.put(after.state(found.place.gpu), found.place.device), Some(found.place.after));
                after.set(found.place.gpu, found.place.after);
                prop_assert_eq!(classes.put(after.state(found.to.gpu), found.to.device), Some(found.to.after));
                after.set(found.to.gpu, found.to.after);
                let total = |cluster: &Cluster| (0..gpus).map(|gpu| values.of_class(classes.class(cluster.state(gpu)))).sum::<f64>();
                prop_assert!((total(&cluster) - total(&after) - found.cost).abs() < 1e-6);
            }
            (found, expected) => prop_assert!(false, "{found:?} against {expected:?}"),
        }
    }
}

/// The least drop of the cluster's value over every job that may be lifted, every place for the one that waits
/// on the same GPU, and every place for the one that was lifted.
fn every_move(cluster: &Cluster, values: &Values, demand: Demand, movable: &[u64]) -> Option<f64> {
    let space = cluster.space();
    let value = |state: State| values.of_class(space.class(state));
    let mut best: Option<f64> = None;
    for (gpu, &movable) in movable.iter().enumerate() {
        let before = cluster.state(gpu);
        for device in Bits(movable & space.devices(before)) {
            let lifted = space.take(before, device);
            let kind = space.cards()[0].devices[device].serves.trailing_zeros() as usize;
            // As the policy does: the waiting job takes its best place on that GPU, and only then the other.
            let place = space.ways(lifted, demand).map(|way| space.put(lifted, way).unwrap());
            let Some(placed) = place.max_by(|&a, &b| value(a).total_cmp(&value(b))) else { continue };
            for other in 0..cluster.gpus() {
                let from = if other == gpu { placed } else { cluster.state(other) };
                for way in space.ways(from, kind) {
                    let to = space.put(from, way).unwrap();
                    let cost = value(before) - value(placed) + value(from) - value(to);
                    best = Some(best.map_or(cost, |least: f64| least.min(cost)));
                }
            }
        }
    }
    best
}
