//! The openb trace on partitions: sampled until more has arrived than there
//! is, without departures, and as a loss system of its mix. (Its own lives
//! are longer than it, so that nothing would be in equilibrium.)

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use serde_json::{Value, json};
use vingt_core::learn::brain::Setup;
use vingt_core::learn::{Effort, Played};
use vingt_core::simulate::openb::{Mapping, Task, parse};
use vingt_core::simulate::repack::Repack;
use vingt_core::simulate::stats::Estimate;
use vingt_core::simulate::{Job, Phase, Placer, Player, Random, Table, Trace, cards, run as play};

use crate::mixes::{COUNTED, Ground, SIZE, SLICES, WHOLE};
use crate::report::{Row, best, print, write};

#[derive(clap::Args)]
pub struct Options {
    /// A pod list in openb's columns.
    trace: PathBuf,
    /// GPUs of the fill.
    #[arg(long, default_value_t = 1_000)]
    gpus: usize,
    /// Runs, each with its own sample.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// What arrives in the fill, as a share of what there is.
    #[arg(long, default_value_t = 1.3)]
    until: f64,
    /// Jobs of the loss system (100 GPUs, load 1).
    #[arg(long, default_value_t = 50_000)]
    arrivals: usize,
    /// Only tasks that ask for less than a GPU.
    #[arg(long)]
    shared: bool,
    /// Where to write the measurements.
    #[arg(long)]
    json: Option<PathBuf>,
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

pub fn run(options: &Options) -> anyhow::Result<()> {
    let path = options.trace.display();
    let text = std::fs::read_to_string(&options.trace).with_context(|| format!("read {path}"))?;
    let mut tasks = parse(&text).with_context(|| format!("{path}"))?;
    tasks.retain(|task| !options.shared || task.share < 1.0);
    anyhow::ensure!(!tasks.is_empty(), "{path}: no task asks for less than a GPU");
    let ground = Ground::new()?;
    let mut written = Vec::new();
    for (name, mapping) in [("ceil", Mapping::Ceil), ("nearest", Mapping::Nearest)] {
        // A task of several GPUs is as many jobs of a whole one. The double 1g has no share of its own.
        let sizes: Vec<(f64, f64)> =
            cards::HOPPER.iter().map(|p| (p.compute as f64, p.memory as f64)).collect();
        let demand = |task: &Task| mapping.partition(task.share, &sizes);
        let mut share = [0.0; 6];
        for task in &tasks {
            share[demand(task)] += f64::from(task.gpus);
        }
        println!("{path}, {name}: shares {:.3?}", share.map(|n| n / share.iter().sum::<f64>()));
        written.push(filled(options, &ground, name, &tasks, &share, &demand)?);
        written.push(lived(options, &ground, name, &share)?);
    }
    write(options.json.as_deref(), &json!(written)).context("write the measurements")
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

fn filled(
    options: &Options,
    ground: &Ground,
    name: &str,
    tasks: &[Task],
    share: &[f64],
    demand: &dyn Fn(&Task) -> usize,
) -> anyhow::Result<Value> {
    let rules = ground.rules(share);
    let slices = SLICES * options.gpus as f64;
    let mut held: Vec<(String, Vec<f64>)> =
        rules.iter().map(|(name, _)| ((*name).to_owned(), Vec::new())).collect();
    held.extend(["default", "bound"].map(|name| (name.to_owned(), Vec::new())));
    for seed in 0..options.seeds {
        let mut random = Random::new(seed);
        let (mut jobs, mut arrived) = (Vec::new(), 0.0);
        while arrived < options.until * slices {
            let task = &tasks[random.pick(&vec![1.0; tasks.len()])];
            jobs.extend((0..task.gpus).map(|_| demand(task)));
            arrived += SIZE[demand(task)] * f64::from(task.gpus);
        }
        let gpus = vec![0; options.gpus];
        let mut placers: Vec<Box<dyn Placer>> = Vec::new();
        for (_, table) in &rules {
            placers.push(Box::new(Player::new(table, &gpus, &SIZE, 0.0)));
        }
        placers.push(Box::new(Played::new(&setup(options.gpus, seed), None)?));
        placers.push(Box::new(Repack::new(&ground.fit, options.gpus as u64, SIZE.len())));
        for ((_, of), placer) in held.iter_mut().zip(&mut placers) {
            of.push(fill(&jobs, placer.as_mut(), slices));
        }
    }
    println!(" fill to {:.0} % of {} GPUs, slices held:", 100.0 * options.until, options.gpus);
    let line = |(policy, of): &(String, Vec<f64>)| {
        let estimate = Estimate::of(of);
        println!("  {policy:<20} {:.2} ±{:.2} %", 100.0 * estimate.mean, 100.0 * estimate.half_width);
        json!({ "policy": policy, "held": estimate.mean, "half_width": estimate.half_width })
    };
    let rows: Vec<Value> = held.iter().map(line).collect();
    Ok(json!({ "mapping": name, "experiment": "fill", "gpus": options.gpus, "rows": rows }))
}

fn lived(options: &Options, ground: &Ground, name: &str, share: &[f64]) -> anyhow::Result<Value> {
    const GPUS: usize = 100;
    const WARMUP: usize = 10_000;
    let rules: Vec<(&str, Arc<Table>)> = ground.rules(share);
    let mut rows: Vec<Row> = rules.iter().map(|(name, _)| Row::new(name)).collect();
    let (mut ours, mut top) = (Row::new("default"), Row::new("perfect repacking"));
    for seed in 0..options.seeds {
        let phase = Phase::new(share, WARMUP + options.arrivals);
        let trace = Trace::poisson(1_000 + seed, &[phase], &SIZE, SLICES * GPUS as f64, 1.0);
        for ((_, table), row) in rules.iter().zip(&mut rows) {
            row.runs.push(play(&trace, SIZE.len(), WARMUP, &mut Player::new(table, &[0; GPUS], &SIZE, 0.0)));
        }
        let mut played = Played::new(&setup(GPUS, seed), Some(Effort::ONLINE))?;
        ours.runs.push(play(&trace, SIZE.len(), WARMUP, &mut played));
        top.runs.push(play(
            &trace,
            SIZE.len(),
            WARMUP,
            &mut Repack::new(&ground.fit, GPUS as u64, SIZE.len()),
        ));
    }
    let best = best(&rows[..COUNTED]).clone();
    let whole = rows[..COUNTED].iter().map(|row| row.acceptance_of(WHOLE)).fold(0.0, f64::max);
    println!(" loss system of {GPUS} GPUs with its mix, load 1: best rule {}", best.policy);
    let all = rows.iter().chain([&ours, &top]);
    let lines: Vec<Value> = all.map(|row| print(row, &best, &top, whole)).collect();
    Ok(
        json!({ "mapping": name, "experiment": "loss", "gpus": GPUS, "best_rule": best.policy, "rows": lines }),
    )
}
