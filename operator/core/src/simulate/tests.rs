//! The loss system against known results, and the trace readers against what
//! people feed them.

#![allow(clippy::cast_precision_loss)] // small numbers

use std::sync::Arc;

use super::openb::{Mapping, OpenbError, parse};
use super::repack::Repack;
use super::stats::Estimate;
use super::*;
use crate::policy::greedy::{BestFit, FirstFit};
use crate::policy::{Ranking, Values, price};
use crate::states::Space;
use crate::states::fit::Fit;

const SIZE: [f64; 6] = [1.0, 2.0, 2.0, 4.0, 4.0, 8.0];

fn trace(seed: u64, share: &[f64; 6], arrivals: usize, gpus: f64) -> Trace {
    Trace::poisson(seed, &[Phase::new(share, arrivals)], &SIZE, 8.0 * gpus, 1.0)
}

#[test]
fn whole_gpus_alone_are_lost_as_erlang_says() {
    let space = Arc::new(Space::new(&[cards::hopper()], 6).unwrap());
    let table = Table::of_rule(&space, &FirstFit);
    let trace = trace(1, &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 200_000, 20.0);
    let counts = run(&trace, 6, 10_000, &mut Player::new(&table, &[0; 20], &SIZE, 0.0));
    // Erlang B with 20 servers and 20 erlangs.
    let blocking = (1..=20).fold(1.0, |b: f64, n| 20.0 * b / (f64::from(n) + 20.0 * b));
    assert!(
        (1.0 - counts.acceptance(&SIZE) - blocking).abs() < 0.005,
        "{} {blocking}",
        counts.acceptance(&SIZE)
    );
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_another() {
    assert_eq!(trace(3, &[1.0; 6], 500, 10.0), trace(3, &[1.0; 6], 500, 10.0));
    assert_ne!(trace(3, &[1.0; 6], 500, 10.0), trace(4, &[1.0; 6], 500, 10.0));
}

#[test]
fn a_trace_holds_the_load_it_was_asked_for() {
    let long_first =
        Phase { share: vec![1.0; 6], life: vec![5.0, 1.0, 1.0, 1.0, 1.0, 0.2], arrivals: 40_000 };
    let trace = Trace::poisson(5, &[long_first], &SIZE, 400.0, 0.25);
    let last = trace.events[trace.events.len() - 1].0;
    let mut started = vec![0.0; trace.jobs.len()];
    let mut held = 0.0;
    for &(time, event) in &trace.events {
        match event {
            Event::Arrival(id) => started[id as usize] = time,
            Event::Departure(id) => {
                held += SIZE[trace.jobs[id as usize].demand] * (time - started[id as usize]);
            }
        }
    }
    assert!((held / last / 400.0 - 1.0).abs() < 0.05, "{}", held / last);
    let movable = trace.jobs.iter().filter(|job| job.movable).count();
    assert!((9_000..11_000).contains(&movable), "{movable}");
}

#[test]
fn moves_bring_jobs_in_that_would_be_lost_and_repacking_more() {
    let space = Arc::new(Space::unlumped(&[cards::hopper()], 6).unwrap());
    let share = [1.0 / 6.0; 6];
    let table = Table::of_values(&space, Values::fragmentation(&space, &share));
    let trace = trace(7, &share, 20_000, 50.0);
    let play = |moves| run(&trace, 6, 2_000, &mut Player::new(&table, &[0; 50], &SIZE, moves));
    let (none, few, all) = (play(0.0), play(0.01), play(1.0));
    let fit = Fit::new(&cards::hopper(), 6).unwrap();
    let repack = run(&trace, 6, 2_000, &mut Repack::new(&fit, 50, 6));
    let part = |counts: &Counts| counts.acceptance(&SIZE);
    assert_eq!(none.moves, 0);
    assert!(few.moves_per_accepted() <= 0.0105, "{}", few.moves_per_accepted());
    assert!(all.moves_per_accepted() > 0.02);
    assert!(part(&none) < part(&few) && part(&few) < part(&all) && part(&all) < part(&repack));
}

#[test]
fn nothing_is_moved_that_may_not_be() {
    let space = Arc::new(Space::unlumped(&[cards::hopper()], 6).unwrap());
    let table = Table::of_values(&space, Values::fragmentation(&space, &[1.0; 6]));
    let fixed = Trace::poisson(7, &[Phase::new(&[1.0; 6], 5_000)], &SIZE, 400.0, 0.0);
    assert_eq!(run(&fixed, 6, 0, &mut Player::new(&table, &[0; 50], &SIZE, 1.0)).moves, 0);
}

#[test]
fn a_table_may_be_switched_while_jobs_run() {
    let classes = Arc::new(Space::new(&[cards::hopper()], 6).unwrap());
    let states = Arc::new(Space::unlumped(&[cards::hopper()], 6).unwrap());
    let values = Values(vec![0.0; classes.classes()]).spanning(price::SPAN);
    let (one, other) = (Table::of_values(&classes, values), Table::of_rule(&states, &BestFit));
    let trace = trace(11, &[1.0; 6], 4_000, 10.0);
    let mut player = Player::new(&one, &[0; 10], &SIZE, 0.0);
    let mut placed = vec![false; trace.jobs.len()];
    for (step, &(now, event)) in trace.events.iter().enumerate() {
        if step % 100 == 0 {
            player.switch(if step % 200 == 0 { &one } else { &other });
        }
        match event {
            Event::Arrival(id) => placed[id as usize] = player.arrive(now, id, trace.jobs[id as usize]),
            Event::Departure(id) if placed[id as usize] => player.depart(now, id, trace.jobs[id as usize]),
            Event::Departure(_) => {}
        }
    }
    let held = (0..4_000).filter(|&id| player.holds(id)).count();
    let cut: u32 = (0..10).map(|gpu| states.devices(player.cluster().state(gpu)).count_ones()).sum();
    assert_eq!(u32::try_from(held).unwrap(), cut);
    assert_ne!(Ranking::new(&states, &BestFit), Ranking::new(&states, &FirstFit));
}

#[test]
fn intervals_are_students() {
    let estimate = Estimate::of(&[1.0, 2.0, 3.0]);
    assert!((estimate.mean - 2.0).abs() < 1e-12 && (estimate.half_width - 4.303 / 3_f64.sqrt()).abs() < 1e-9);
    assert!(Estimate::of(&[1.0]).half_width.abs() < f64::EPSILON);
}

const HEADER: &str =
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time";

#[test]
fn a_pod_list_is_read_and_what_asks_for_no_gpu_is_not() {
    let text = format!(
        "{HEADER}\na,1,1,1,460,,LS,Running,100,400\nb,1,1,0,0,,LS,Running,0,1\nc,1,1,8,1000,,LS,Pending,,\n"
    );
    let tasks = parse(&text).unwrap();
    assert_eq!(tasks.len(), 2);
    assert_eq!((tasks[0].gpus, tasks[0].share, tasks[0].life_s), (1, 0.46, 300.0));
    assert_eq!((tasks[1].gpus, tasks[1].share, tasks[1].life_s), (8, 1.0, 1.0));
}

#[test]
fn a_bad_pod_list_is_refused_with_its_line_and_field() {
    let table = [
        (
            format!("{HEADER}\na,1,1,1,abc,,LS,Running,0,1"),
            "line 2, field \"gpu_milli\": \"abc\" is not a number",
        ),
        (
            format!("{HEADER}\na,1,1,1,0,,LS,Running,0,1"),
            "line 2, field \"gpu_milli\": \"0\" is not a share of GPUs",
        ),
        (
            format!("{HEADER}\n\na,1,1,-1,0,,LS,Running,0,1"),
            "line 3, field \"num_gpu\": \"-1\" is not a number",
        ),
        ("a,b\n1,2".to_owned(), "line 1: no column \"num_gpu\": it must be one of openb's pod lists"),
        (HEADER.to_owned(), "no task asks for a GPU"),
    ];
    for (text, error) in table {
        assert_eq!(parse(&text).unwrap_err().to_string(), error);
    }
    assert_eq!(parse(""), Err(OpenbError::NoColumn { column: "num_gpu" }));
}

#[test]
fn shares_become_partitions() {
    let sizes: Vec<(f64, f64)> = cards::HOPPER.iter().map(|p| (p.compute as f64, p.memory as f64)).collect();
    let table =
        [(0.12, 0, 0), (0.14, 1, 0), (0.25, 2, 2), (0.26, 3, 2), (0.46, 4, 3), (0.51, 5, 4), (1.0, 5, 5)];
    for (share, ceil, nearest) in table {
        assert_eq!(Mapping::Ceil.partition(share, &sizes), ceil, "{share}");
        assert_eq!(Mapping::Nearest.partition(share, &sizes), nearest, "{share}");
    }
}
