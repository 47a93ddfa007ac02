//! What is estimated, what is learnt, and what is refused to be believed.

use std::sync::Arc;

use super::brain::{Brain, Setup};
use super::shadow::Shadows;
use super::*;
use crate::policy::greedy::{BestFit, Spread};
use crate::policy::{Features, prior};
use crate::simulate::{Event, Phase, Placer, Player, Table, Trace, cards, run};
use crate::states::Space;

const SIZE: [f64; 6] = [1.0, 2.0, 2.0, 4.0, 4.0, 8.0];
const SMALL: [f64; 6] = [0.30, 0.25, 0.20, 0.10, 0.10, 0.05];
const UNIFORM: [f64; 6] = [1.0 / 6.0; 6];
const QUICK: Effort = Effort { generations: 3, population: 8, arrivals: 4_000 };

fn setup(seed: u64) -> Setup {
    Setup {
        cards: vec![cards::hopper()],
        gpus: vec![0; 30],
        worth: SIZE.to_vec(),
        life: vec![0; 6],
        moves: 0.0,
        movable: 1.0,
        seed,
    }
}

/// Everything is placed; the estimates after the last arrival.
fn watched(trace: &Trace) -> Mix {
    let mut mix = Mix::new(6);
    for &(now, event) in &trace.events {
        match event {
            Event::Arrival(id) => drop(mix.arrived(now, trace.jobs[id as usize].demand, true)),
            Event::Departure(id) => mix.left(now, trace.jobs[id as usize].demand),
        }
    }
    mix
}

#[test]
fn shares_lives_and_load_are_estimated() {
    let phase = Phase { share: SMALL.to_vec(), life: vec![1.0, 1.0, 1.0, 1.0, 1.0, 4.0], arrivals: 30_000 };
    let mix = watched(&Trace::poisson(1, &[phase], &SIZE, 200.0, 1.0));
    for (estimate, truth) in mix.share().iter().zip(SMALL) {
        assert!((estimate - truth).abs() < 0.02, "{estimate} {truth}");
    }
    let life = mix.life().unwrap();
    assert!((life[5] / life[0] - 4.0).abs() < 0.8, "{life:?}");
    assert!((mix.load(&SIZE).unwrap() / 200.0 - 1.0).abs() < 0.1, "{:?}", mix.load(&SIZE));
    assert_eq!(mix.changes(), 0);
}

#[test]
fn a_change_of_the_mix_is_noticed_and_chance_is_not_taken_for_one() {
    let phases = [Phase::new(&UNIFORM, 10_000), Phase::new(&SMALL, 3_000)];
    for seed in 0..5 {
        assert_eq!(
            watched(&Trace::poisson(seed, &phases[..1], &SIZE, 200.0, 1.0)).changes(),
            0,
            "seed {seed}"
        );
        let mix = watched(&Trace::poisson(seed, &phases, &SIZE, 200.0, 1.0));
        assert!(mix.changes() >= 1, "seed {seed}");
        assert!((mix.share()[5] - 0.05).abs() < 0.03, "{:?}", mix.share());
    }
}

#[test]
fn nothing_is_known_before_anything_was_seen() {
    let mix = Mix::new(6);
    assert_eq!(mix.life(), None);
    assert_eq!(mix.load(&SIZE), None);
    assert!(mix.share().iter().all(|share| (share - 1.0 / 6.0).abs() < 1e-9));
}

fn problem() -> Problem {
    let space = Arc::new(Space::new(&[cards::hopper()], 6).unwrap());
    Problem {
        features: Arc::new(Features::promises(&space, &prior::HORIZONS, &[1.0; 6])),
        space,
        cards: vec![0; 30],
        worth: SIZE.to_vec(),
        share: SMALL.to_vec(),
        life: vec![1.0; 6],
        load: 240.0,
        movable: 1.0,
        moves: 0.0,
        lives_known: false,
    }
}

#[test]
fn bad_weights_are_improved() {
    let problem = problem();
    // As if a GPU were the better the less it could still do.
    let bad: Vec<f64> =
        prior::CONSTANTS.weights(&problem.features, &SMALL, &SIZE).iter().map(|weight| -weight).collect();
    let effort = Effort { generations: 10, population: 16, arrivals: 4_000 };
    let better = problem.improve(&bad, effort, 3);
    assert_eq!(better, problem.improve(&bad, effort, 3));
    let trace = problem.trace(99, 20_000);
    let score = |weights: &[f64]| {
        problem.play(&Table::of_values(&problem.space, problem.values(weights)), &trace).acceptance(&SIZE)
    };
    assert!(score(&better) > score(&bad) + 0.05, "{} {}", score(&better), score(&bad));
}

#[test]
fn the_shadows_tell_a_bad_policy_from_a_good_one() {
    let space = Arc::new(Space::unlumped(&[cards::hopper()], 6).unwrap());
    let tables = [Table::of_rule(&space, &Spread), Table::of_rule(&space, &BestFit)];
    let mut shadows = Shadows::new(&tables, &[0; 30], &SIZE, 0.0, 1);
    let mut player = Player::new(&tables[0], &[0; 30], &SIZE, 0.0);
    let trace = Trace::poisson(2, &[Phase::new(&UNIFORM, 4_000)], &SIZE, 240.0, 1.0);
    for &(now, event) in &trace.events {
        match event {
            Event::Arrival(id) => {
                let job = trace.jobs[id as usize];
                let placed = player.arrive(now, id, job);
                shadows.arrived(now, id, job, placed, 1.0);
            }
            Event::Departure(id) if player.holds(id) => {
                player.depart(now, id, trace.jobs[id as usize]);
                shadows.left(now, id, trace.jobs[id as usize]);
            }
            Event::Departure(_) => {}
        }
    }
    assert_eq!(shadows.better_than(0), Some(1));
    assert_eq!(shadows.better_than(1), None);
    assert!(shadows.lead(0, 1) < -3.0);
    shadows.forget();
    assert_eq!(shadows.better_than(0), None);
}

#[test]
fn a_table_that_does_harm_gives_way_to_a_rule_and_comes_back_when_it_is_better() {
    let trace = Trace::poisson(4, &[Phase::new(&UNIFORM, 8_000)], &SIZE, 240.0, 1.0);
    let mut brain = Brain::new(setup(1)).unwrap();
    let mut player = Player::new(brain.table(), &[0; 30], &SIZE, 0.0);
    let mut fell_back_at = None;
    for &(now, event) in &trace.events {
        match event {
            Event::Arrival(id) => {
                let job = trace.jobs[id as usize];
                let placed = player.arrive(now, id, job);
                if let Some(lesson) = brain.arrived(now, id, job, placed) {
                    // A lesson that taught the opposite of what is right.
                    brain.learnt(&lesson.perverted());
                }
                player.switch(&brain.table().clone());
                if brain.fell_back() && fell_back_at.is_none() {
                    fell_back_at = Some(id);
                }
            }
            Event::Departure(id) if player.holds(id) => {
                player.depart(now, id, trace.jobs[id as usize]);
                brain.left(now, id, trace.jobs[id as usize]);
            }
            Event::Departure(_) => {}
        }
    }
    let at = fell_back_at.expect("it never fell back");
    assert!((1_500..3_600).contains(&at), "fell back at {at}");
}

#[test]
fn the_same_seed_makes_the_same_decisions() {
    let trace = Trace::poisson(6, &[Phase::new(&SMALL, 3_000)], &SIZE, 240.0, 1.0);
    let play = || run(&trace, 6, 0, &mut Played::new(&setup(9), Some(QUICK)).unwrap());
    assert_eq!(play(), play());
}

#[test]
fn a_lesson_about_a_mix_that_is_gone_is_not_taken() {
    let phases = [Phase::new(&UNIFORM, 1_600), Phase::new(&SMALL, 1_000)];
    let trace = Trace::poisson(8, &phases, &SIZE, 240.0, 1.0);
    let mut brain = Brain::new(setup(2)).unwrap();
    let mut lesson = None;
    for &(now, event) in &trace.events {
        if let Event::Arrival(id) = event {
            lesson = brain.arrived(now, id, trace.jobs[id as usize], true).or(lesson);
        } else if let Event::Departure(id) = event {
            brain.left(now, id, trace.jobs[id as usize]);
        }
    }
    assert!(brain.mix().changes() > 0);
    let before = brain.table().clone();
    brain.learnt(&lesson.expect("one was due").learn(QUICK));
    assert!(Arc::ptr_eq(&before, brain.table()));
}
