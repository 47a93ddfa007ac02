//! A mix that changes under way: whether the default stays below the best
//! simple rule, and for how long.

use std::path::PathBuf;

use serde_json::json;
use vingt_core::learn::brain::Setup;
use vingt_core::learn::{Effort, Played};
use vingt_core::simulate::loss::run_watched;
use vingt_core::simulate::stats::Estimate;
use vingt_core::simulate::{Phase, Player, Trace, cards};

use crate::mixes::{COUNTED, Ground, SIZE, SLICES, share};
use crate::report::write;

#[derive(clap::Args)]
pub struct Options {
    /// The mixes, one after the other.
    #[arg(long, value_delimiter = ',', default_value = "uniform,skew-small,openb-near")]
    mixes: Vec<String>,
    /// Jobs of each.
    #[arg(long, default_value_t = 20_000)]
    arrivals: usize,
    /// What is offered, as a share of the slices there are.
    #[arg(long, default_value_t = 1.0)]
    load: f64,
    /// GPUs.
    #[arg(long, default_value_t = 100)]
    gpus: usize,
    /// Runs, each with its own stream of jobs.
    #[arg(long, default_value_t = 20)]
    seeds: u64,
    /// Arrivals that are compared at a time.
    #[arg(long, default_value_t = 500)]
    block: usize,
    /// Where to write the measurements.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// Worth placed in each block of a run.
fn blocks(trace: &Trace, size: usize, play: impl FnOnce(&mut dyn FnMut(u32, bool, f64))) -> Vec<f64> {
    let mut blocks = vec![0.0; trace.jobs.len() / size];
    play(&mut |id, placed, worth| {
        if let Some(block) = blocks.get_mut(id as usize / size).filter(|_| placed) {
            *block += worth;
        }
    });
    blocks
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::new()?;
    let shares = options.mixes.iter().map(|name| share(name)).collect::<anyhow::Result<Vec<_>>>()?;
    let phases: Vec<Phase> = shares.iter().map(|share| Phase::new(share, options.arrivals)).collect();
    let slices = SLICES * f64::from(u32::try_from(options.gpus)?);
    let gpus = vec![0; options.gpus];
    // For every rule, with the true mix of each phase, and last for the default: the runs, each a list of blocks.
    let mut rules: Vec<Vec<Vec<f64>>> = vec![Vec::new(); COUNTED];
    let mut ours: Vec<Vec<f64>> = Vec::new();
    let mut fallen = 0;
    for seed in 0..options.seeds {
        let trace = Trace::poisson(seed, &phases, &SIZE, options.load * slices, 1.0);
        for (rule, runs) in rules.iter_mut().enumerate() {
            runs.push(blocks(&trace, options.block, |count| {
                let first = ground.rules(&shares[0]).swap_remove(rule).1;
                let mut player = Player::new(&first, &gpus, &SIZE, 0.0);
                let mut tables: Vec<_> =
                    shares.iter().map(|share| ground.rules(share).swap_remove(rule).1).rev().collect();
                tables.pop();
                let mut told = Told { player: &mut player, tables, every: options.arrivals };
                run_watched(&trace, SIZE.len(), 0, &mut told, |id, job, placed| {
                    count(id, placed, SIZE[job.demand]);
                });
            }));
        }
        let setup = Setup {
            cards: vec![cards::hopper()],
            gpus: gpus.clone(),
            worth: SIZE.to_vec(),
            life: vec![0; SIZE.len()],
            moves: 0.0,
            movable: 1.0,
            seed,
        };
        let mut played = Played::new(&setup, Some(Effort::ONLINE))?;
        ours.push(blocks(&trace, options.block, |count| {
            run_watched(&trace, SIZE.len(), 0, &mut played, |id, job, placed| {
                count(id, placed, SIZE[job.demand]);
            });
        }));
        fallen += played.fallen_back();
        eprintln!("seed {seed}: {} changes of the mix noticed", played.brain().mix().changes());
    }
    let per_phase = options.arrivals / options.block;
    let mut longest = 0;
    let mut run_now = 0;
    let mut lines = Vec::new();
    for (phase, share) in shares.iter().enumerate() {
        let span = phase * per_phase..(phase + 1) * per_phase;
        let total =
            |runs: &Vec<Vec<f64>>| runs.iter().map(|run| run[span.clone()].iter().sum::<f64>()).sum::<f64>();
        let best = (0..COUNTED).max_by(|&a, &b| total(&rules[a]).total_cmp(&total(&rules[b]))).unwrap_or(0);
        let name = ground.rules(share)[best].0;
        println!(
            "{}: best rule {name}; the default places {:+.2} % of what it does",
            options.mixes[phase],
            100.0 * (total(&ours) / total(&rules[best]) - 1.0)
        );
        for block in span.clone() {
            let differences: Vec<f64> =
                ours.iter().zip(&rules[best]).map(|(ours, best)| ours[block] - best[block]).collect();
            let estimate = Estimate::of(&differences);
            let below = estimate.mean + estimate.half_width < 0.0;
            run_now = if below { run_now + options.block } else { 0 };
            longest = longest.max(run_now);
            lines.push(json!({ "arrival": block * options.block, "slices_over_best_rule": estimate.mean, "half_width": estimate.half_width }));
        }
    }
    println!(
        "longest time below the best rule (95 % interval): {longest} arrivals; {fallen} arrivals decided by a rule"
    );
    write(options.json.as_deref(), &json!({ "longest_below": longest, "blocks": lines }))
}

/// A rule that is told the mix of each phase as it begins.
struct Told<'a> {
    player: &'a mut Player,
    tables: Vec<std::sync::Arc<vingt_core::simulate::Table>>,
    every: usize,
}

impl vingt_core::simulate::Placer for Told<'_> {
    fn arrive(&mut self, now: f64, id: u32, job: vingt_core::simulate::Job) -> bool {
        if id > 0
            && (id as usize).is_multiple_of(self.every)
            && let Some(next) = self.tables.pop()
        {
            self.player.switch(&next);
        }
        self.player.arrive(now, id, job)
    }

    fn depart(&mut self, now: f64, id: u32, job: vingt_core::simulate::Job) {
        self.player.depart(now, id, job);
    }
}
