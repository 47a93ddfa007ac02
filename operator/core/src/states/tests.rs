//! The facts that others measured, and feasibility against a brute force and
//! an integer program.

// Counts of jobs and GPUs.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::collections::BTreeSet;
use std::sync::Arc;

use good_lp::{Expression, ProblemVariables, Solution, SolverModel, default_solver, variable};
use proptest::prelude::*;

use super::fit::Fit;
use super::set::Bits;
use super::*;
use crate::model::{Device, Gpu};
use crate::simulate::Random;
use crate::simulate::cards::{self, A30, HOPPER, MEDIA};

fn state_number(space: &Space) -> impl Iterator<Item = State> + use<> {
    (0..space.states()).map(|state| State(u32::try_from(state).unwrap()))
}

#[test]
fn an_h100_has_the_states_that_its_tables_say() {
    let without: Vec<_> = HOPPER.iter().copied().filter(|profile| profile.name != "1g-double").collect();
    let mut with_media = HOPPER.to_vec();
    with_media.push(MEDIA);
    let maximal = |space: &Space, devices: usize| {
        state_number(space)
            .filter(|&state| (0..devices).all(|device| space.put(state, device).is_none()))
            .count()
    };
    let table = [(without, 298, 19), (HOPPER.to_vec(), 723, 78), (with_media, 2_319, 239)];
    for (profiles, states, configurations) in table {
        let card = cards::card(&profiles, 7, 8);
        let space = Space::new(std::slice::from_ref(&card), profiles.len()).unwrap();
        assert_eq!(space.states(), states);
        assert_eq!(maximal(&space, card.devices.len()), configurations);
    }
    assert_eq!(Space::new(&[cards::hopper()], 6).unwrap().classes(), 100);
}

#[test]
fn states_of_a_class_lead_to_the_same_classes() {
    let space = Space::new(&[cards::hopper()], 6).unwrap();
    for state in state_number(&space) {
        for demand in 0..6 {
            let mut to: Vec<Class> =
                space.ways(state, demand).map(|way| space.class(space.put(state, way).unwrap())).collect();
            to.sort_unstable();
            to.dedup();
            assert_eq!(to, space.targets(space.class(state), demand));
        }
        let representative = space.representative(space.class(state));
        assert_eq!(space.devices(representative).count_ones(), space.devices(state).count_ones());
    }
}

#[test]
fn lives_that_differ_make_classes_that_differ() {
    let card = cards::hopper().repeated(2, 6);
    let life: Vec<u8> = (0..12).map(|demand| demand / 6).collect();
    let blind = Space::new(std::slice::from_ref(&card), 12).unwrap();
    let aware = Space::with_lives(std::slice::from_ref(&card), 12, &life).unwrap();
    assert_eq!(blind.classes(), 100);
    assert_eq!(aware.classes(), 990);
}

#[test]
fn what_cannot_be_listed_is_refused() {
    let nothing = CardDevice { consumes: vec![0], serves: 1 };
    let card = |devices| Card { capacity: vec![1], devices };
    assert_eq!(
        Space::new(&[card(vec![nothing])], 1).unwrap_err(),
        SpaceError::BadDevice { card: 0, device: 0 }
    );
    let one = CardDevice { consumes: vec![1], serves: 1 };
    assert_eq!(
        Space::new(&[card(vec![one.clone(); 65])], 1).unwrap_err(),
        SpaceError::TooManyDevices { card: 0, devices: 65 }
    );
    let many = Card { capacity: vec![40], devices: vec![one; 40] };
    assert!(matches!(Space::new(&[many], 1), Err(SpaceError::TooManyStates { card: 0, .. })));
}

#[test]
fn two_sorts_of_cards_share_one_space() {
    let small = cards::card(&A30, 4, 4);
    let space = Arc::new(Space::new(&[cards::hopper(), small], 6).unwrap());
    let mut cluster = Cluster::new(space.clone(), &[0, 1]);
    assert_eq!(space.card(cluster.state(1)), 1);
    let device = space.ways(cluster.state(1), 2).next().unwrap();
    cluster.set(1, space.put(cluster.state(1), device).unwrap());
    assert!(cluster.members(space.class(space.empty(0))).contains(0));
    assert_eq!(cluster.on(space.clone()).state(1), cluster.state(1));
    cluster.take(1, device);
    assert_eq!(cluster.state(1), space.empty(1));
}

#[test]
fn gpus_of_a_snapshot_are_sorted_into_cards() {
    let gpu = |card: &Card, names: &[&str]| Gpu {
        capacity: card.capacity.clone(),
        devices: card
            .devices
            .iter()
            .map(|device| Device {
                kind: names[device.serves.trailing_zeros() as usize].to_owned(),
                consumes: device.consumes.clone(),
                units: 7 * u64::from(device.serves.trailing_zeros()) + 8,
                ..Device::default()
            })
            .collect(),
        ..Gpu::default()
    };
    let hopper: Vec<&str> = HOPPER.iter().map(|profile| profile.name).collect();
    let (large, small) = (cards::hopper(), cards::card(&A30, 4, 4));
    let gpus = [gpu(&large, &hopper), gpu(&small, &["1g", "2g", "whole"]), gpu(&large, &hopper)];
    let catalog = Catalog::of(&gpus);
    assert_eq!(catalog.card_of, [0, 1, 0]);
    assert_eq!(catalog.kinds, ["1g", "1g-double", "2g", "3g", "4g", "7g", "whole"]);
    assert!((catalog.worth[5] - 43.0 / 7.0).abs() < 1e-12);
    let space = Space::new(&catalog.cards, catalog.kinds.len()).unwrap();
    let state = catalog.state(&space, 2, 1 << 17).unwrap();
    assert_eq!(space.free_slices(state), 0);
    assert_eq!(catalog.state(&space, 2, 1 << 17 | 1), None);
    // The smaller card has no whole-GPU partition of the larger.
    assert!(space.ways(space.empty(1), 5).next().is_none() && space.ways(space.empty(1), 6).next().is_some());
}

/// The counts that one GPU holds: of every state, without looking at how `Fit` does it.
fn counts_of_one(card: &Card, demands: usize) -> BTreeSet<Vec<u64>> {
    let space = Space::unlumped(std::slice::from_ref(card), demands).unwrap();
    let of = |state: State| {
        let mut counts = vec![0; demands];
        for device in Bits(space.devices(state)) {
            counts[card.devices[device].serves.trailing_zeros() as usize] += 1;
        }
        counts
    };
    state_number(&space).map(of).collect()
}

fn sums(a: &BTreeSet<Vec<u64>>, b: &BTreeSet<Vec<u64>>) -> BTreeSet<Vec<u64>> {
    a.iter().flat_map(|x| b.iter().map(|y| x.iter().zip(y).map(|(x, y)| x + y).collect())).collect()
}

/// For every demand up to what three GPUs could hold of each profile alone.
fn agrees_with_brute_force(card: &Card, demands: usize, fit: &Fit) {
    let one = counts_of_one(card, demands);
    let two = sums(&one, &one);
    let three = sums(&two, &one);
    let most: Vec<u64> = (0..demands).map(|d| three.iter().map(|counts| counts[d]).max().unwrap()).collect();
    let mut demand = vec![0; demands];
    loop {
        let expected =
            [&one, &two, &three].iter().position(|set| set.contains(&demand)).map(|n| n as u64 + 1);
        let expected = if demand.iter().all(|&n| n == 0) { Some(0) } else { expected };
        for gpus in 0..=3 {
            let fits = fit.fits(&demand, gpus);
            assert_eq!(fits, expected.is_some_and(|min| min <= gpus), "{demand:?} on {gpus} GPUs");
        }
        let Some(digit) = (0..demands).find(|&d| demand[d] < most[d]) else { return };
        demand[digit] += 1;
        demand[..digit].fill(0);
    }
}

#[test]
fn the_closed_form_agrees_with_brute_force_on_all_demands_of_three_gpus() {
    let fit = Fit::new(&cards::hopper(), 6).unwrap();
    assert!(fit.is_closed_form());
    agrees_with_brute_force(&cards::hopper(), 6, &fit);
}

#[test]
fn the_search_and_the_closed_form_agree_with_brute_force_on_an_a30() {
    let card = cards::card(&A30, 4, 4);
    let fit = Fit::new(&card, 3).unwrap();
    // An A30 is an H100 of pairs, halves and the whole.
    assert!(fit.is_closed_form());
    agrees_with_brute_force(&card, 3, &fit);
    agrees_with_brute_force(&card, 3, &fit.by_search());
}

/// The smallest number of GPUs by an integer program over everything that one GPU can hold.
fn by_integer_program(configurations: &[Vec<u64>], demand: &[u64]) -> u64 {
    let mut variables = ProblemVariables::new();
    let times: Vec<_> = configurations.iter().map(|_| variables.add(variable().integer().min(0))).collect();
    // The number of GPUs as a variable of its own: rounding it up is most of the proof.
    let total = variables.add(variable().integer().min(0));
    let all: Expression = times.iter().sum();
    let mut model = variables.minimise(total).using(default_solver).with((all - total).eq(0.0));
    for (d, &needed) in demand.iter().enumerate() {
        let covered: Expression = times.iter().zip(configurations).map(|(&t, c)| t * c[d] as f64).sum();
        model = model.with(covered.geq(needed as f64));
    }
    let solution = model.solve().unwrap();
    times.iter().map(|&t| solution.value(t).round() as u64).sum()
}

fn maximal(card: &Card, demands: usize) -> Vec<Vec<u64>> {
    let one = counts_of_one(card, demands);
    let below = |a: &Vec<u64>, b: &Vec<u64>| a != b && a.iter().zip(b).all(|(a, b)| a <= b);
    one.iter().filter(|a| !one.iter().any(|b| below(a, b))).cloned().collect()
}

fn random_demand(random: &mut Random, demands: usize, most: f64) -> Vec<u64> {
    // Often without some of the profiles: the corners are where a closed form goes wrong.
    (0..demands).map(|_| if random.unit() < 0.3 { 0 } else { (random.unit() * most) as u64 }).collect()
}

#[test]
fn feasibility_agrees_with_an_integer_program() {
    let cases: usize = std::env::var("VINGT_FIT_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000);
    let mut random = Random::new(20);
    let mut with_media = HOPPER.to_vec();
    with_media.push(MEDIA);
    let table = [(HOPPER.to_vec(), 40.0, cases), (with_media, 12.0, cases / 10)];
    for (profiles, most, cases) in table {
        let demands = profiles.len();
        let card = cards::card(&profiles, 7, 8);
        let configurations = maximal(&card, demands);
        let fit = Fit::new(&card, demands).unwrap();
        assert_eq!(fit.is_closed_form(), demands == HOPPER.len());
        let search = fit.clone().by_search();
        for _ in 0..cases {
            let demand = random_demand(&mut random, demands, most);
            let expected = by_integer_program(&configurations, &demand);
            assert_eq!(fit.min_gpus(&demand), Some(expected), "{demand:?}");
            assert_eq!(search.min_gpus(&demand), Some(expected), "{demand:?} by search");
        }
    }
}

#[test]
fn what_no_card_offers_never_fits() {
    let card = cards::card(&A30, 4, 4);
    let fit = Fit::new(&card, 5).unwrap();
    assert_eq!(fit.min_gpus(&[1, 0, 0, 0, 1]), None);
    assert_eq!(fit.min_gpus(&[4, 2, 1, 0, 0]), Some(3));
    assert_eq!(fit.min_gpus(&[0, 0, 0, 0, 0]), Some(0));
    assert!(!fit.fits(&[0, 0, 0, 1, 0], 1_000));
}

proptest! {
    #[test]
    fn a_set_holds_what_was_put_in(bound in 1_usize..5_000, steps in prop::collection::vec((any::<u16>(), any::<bool>()), 0..200)) {
        let mut set = GpuSet::new(bound);
        let mut model = BTreeSet::new();
        for (number, put) in steps {
            let member = usize::from(number) % bound;
            if put { set.insert(member); model.insert(member); } else { set.remove(member); model.remove(&member); }
            prop_assert_eq!(set.first(), model.first().copied());
            prop_assert_eq!(set.is_empty(), model.is_empty());
        }
        prop_assert_eq!(set.iter().collect::<Vec<_>>(), model.iter().copied().collect::<Vec<_>>());
        prop_assert_eq!(set.len(), model.len());
    }

    #[test]
    fn devices_that_are_cut_never_take_more_than_there_is(steps in prop::collection::vec((any::<u8>(), any::<bool>()), 0..60)) {
        let card = cards::hopper();
        let space = Space::new(std::slice::from_ref(&card), 6).unwrap();
        let mut state = space.empty(0);
        for (number, put) in steps {
            let device = usize::from(number) % card.devices.len();
            let cut = space.devices(state) >> device & 1 == 1;
            if put {
                state = space.put(state, device).unwrap_or(state);
            } else if cut {
                state = space.take(state, device);
            }
            for (counter, &have) in card.capacity.iter().enumerate() {
                let taken: u64 = Bits(space.devices(state)).map(|device| card.devices[device].consumes[counter]).sum();
                prop_assert!(taken <= have);
            }
            prop_assert_eq!(space.state(0, space.devices(state)), Some(state));
        }
    }
}
