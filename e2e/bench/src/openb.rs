//! The openb trace on partitions: sampled until more has arrived than there
//! is, without departures, and as a loss system of its mix. (Its own lives
//! are longer than it, so that nothing would be in equilibrium.)

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use vingt_core::learn::brain::Setup;
use vingt_core::learn::{Effort, Played};
use vingt_core::simulate::openb::{Mapping, Task, parse};
use vingt_core::simulate::repack::Repack;
use vingt_core::simulate::stats::Estimate;
use vingt_core::simulate::{Counts, Job, Phase, Placer, Player, Random, Trace, cards, run as play};

use crate::mixes::{Ground, SIZE, SLICES};
use crate::placement::Size;
use crate::report::{Baseline, Row};
use crate::work;

/// GPUs of the fill.
const FILLED: usize = 1_000;
/// What arrives in the fill, as a share of what there is.
const UNTIL: f64 = 1.3;
/// GPUs of the loss system.
const GPUS: usize = 100;

/// The tasks of the trace in this folder.
pub fn read(folder: &Path) -> Result<Vec<Task>> {
    let path = folder.join("openb_pod_list_default.csv");
    let shown = path.display();
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("--traces: cannot read {shown}; `--only` measures without it"))?;
    parse(&text).with_context(|| format!("{shown}"))
}

/// A fill: the slices that are held when everything has arrived, as a share of all.
fn fill(jobs: &[usize], placer: &mut dyn Placer, slices: f64) -> f64 {
    let mut held = 0.0;
    for (id, &demand) in (0..).zip(jobs) {
        if placer.arrive(0.0, id, Job { demand, movable: true }) {
            held += SIZE[demand];
        }
    }
    held / slices
}

/// Measures and prints.
pub fn run(ground: &Ground, tasks: &[Task], size: Size) -> Result<Value> {
    let mut written = Vec::new();
    for (name, mapping) in [("ceil", Mapping::Ceil), ("nearest", Mapping::Nearest)] {
        // A task of several GPUs is as many jobs of a whole one. The double 1g has no share of its own.
        let sizes: Vec<(f64, f64)> =
            cards::HOPPER.iter().map(|p| (p.compute as f64, p.memory as f64)).collect();
        let demand = |task: &Task| mapping.partition(task.share, &sizes);
        let mut share = [0.0; 6];
        for task in tasks {
            share[demand(task)] += f64::from(task.gpus);
        }
        println!("\nopenb, {name}: shares {:.3?}", share.map(|n| n / share.iter().sum::<f64>()));
        written.push(filled(
            ground,
            name,
            &tasks.iter().map(|task| (demand(task), task.gpus)).collect::<Vec<_>>(),
            &share,
            size,
        )?);
        written.push(lived(ground, name, &share, size)?);
    }
    Ok(json!(written))
}

fn setup(gpus: usize, seed: u64) -> Setup {
    Setup {
        cards: vec![cards::hopper()],
        gpus: vec![0; gpus],
        worth: SIZE.to_vec(),
        life: vec![0; SIZE.len()],
        moves: 0.0,
        movable: 1.0,
        seed,
    }
}

/// Tasks, as demand and number of GPUs, drawn until more has arrived than there is.
fn filled(ground: &Ground, name: &str, tasks: &[(usize, u32)], share: &[f64], size: Size) -> Result<Value> {
    let rules = ground.rules(share);
    let slices = SLICES * FILLED as f64;
    let even = vec![1.0; tasks.len()];
    let runs = work::all(&format!("openb, {name}, fill"), &size.streams(), |&seed| {
        let mut random = Random::new(seed);
        let (mut jobs, mut arrived) = (Vec::new(), 0.0);
        while arrived < UNTIL * slices {
            let (demand, gpus) = tasks[random.pick(&even)];
            jobs.extend((0..gpus).map(|_| demand));
            arrived += SIZE[demand] * f64::from(gpus);
        }
        let gpus = vec![0; FILLED];
        let mut held = Vec::new();
        for (_, table) in &rules {
            held.push(fill(&jobs, &mut Player::new(table, &gpus, &SIZE, 0.0), slices));
        }
        held.push(fill(&jobs, &mut Played::new(&setup(FILLED, seed), None)?, slices));
        held.push(fill(&jobs, &mut Repack::new(&ground.fit, FILLED as u64, SIZE.len()), slices));
        Ok(held)
    })?;
    println!(" fill to {:.0} % of {FILLED} GPUs, slices held:", 100.0 * UNTIL);
    let names = rules.iter().map(|(name, _)| *name).chain(["default", "bound"]);
    let line = |(at, policy): (usize, &str)| {
        let estimate = Estimate::of(&runs.iter().map(|run| run[at]).collect::<Vec<_>>());
        println!("  {policy:<26} {:.2} ±{:.2} %", 100.0 * estimate.mean, 100.0 * estimate.half_width);
        json!({ "policy": policy, "held": estimate.mean, "half_width": estimate.half_width })
    };
    let rows: Vec<Value> = names.enumerate().map(line).collect();
    Ok(json!({ "mapping": name, "experiment": "fill", "gpus": FILLED, "rows": rows }))
}

fn lived(ground: &Ground, name: &str, share: &[f64], size: Size) -> Result<Value> {
    let rules = ground.rules(share);
    let runs = work::all(&format!("openb, {name}, loss system"), &size.streams(), |&seed| {
        let phase = Phase::new(share, size.warmup + size.arrivals);
        let trace = Trace::poisson(1_000 + seed, &[phase], &SIZE, SLICES * GPUS as f64, 1.0);
        let mut found: Vec<Counts> = Vec::new();
        for (_, table) in &rules {
            found.push(play(
                &trace,
                SIZE.len(),
                size.warmup,
                &mut Player::new(table, &[0; GPUS], &SIZE, 0.0),
            ));
        }
        let mut played = Played::new(&setup(GPUS, seed), Some(Effort::ONLINE))?;
        found.push(play(&trace, SIZE.len(), size.warmup, &mut played));
        let mut repack = Repack::new(&ground.fit, GPUS as u64, SIZE.len());
        found.push(play(&trace, SIZE.len(), size.warmup, &mut repack));
        Ok(found)
    })?;
    let names = rules.iter().map(|(name, _)| *name).chain(["default", "perfect repacking"]);
    let mut rows: Vec<Row> = names.map(Row::new).collect();
    for counts in runs {
        rows.iter_mut().zip(counts).for_each(|(row, counts)| row.runs.push(counts));
    }
    let top = rows.last().cloned().unwrap_or_default();
    let against = Baseline::of(&rows[..rules.len()], &top);
    println!(" loss system of {GPUS} GPUs with its mix, load 1: best rule {}", against.best.policy);
    let lines = against.print(&rows);
    Ok(
        json!({ "mapping": name, "experiment": "loss", "gpus": GPUS, "best_rule": against.best.policy, "rows": lines }),
    )
}
