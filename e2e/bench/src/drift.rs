//! A mix that changes under way: whether the default stays below the best
//! simple rule, and for how long.

use anyhow::Result;
use serde_json::{Value, json};
use vingt_core::learn::brain::Setup;
use vingt_core::learn::{Effort, Played};
use vingt_core::simulate::loss::run_watched;
use vingt_core::simulate::stats::Estimate;
use vingt_core::simulate::{Job, Phase, Placer, Player, Table, Trace, cards};

use crate::mixes::{COUNTED, Ground, SIZE, SLICES, share};
use crate::placement::Size;
use crate::work;

/// The mixes, one after the other.
const MIXES: [&str; 3] = ["uniform", "skew-small", "openb-near"];
const GPUS: usize = 100;
/// Arrivals that are compared at a time.
const BLOCK: usize = 500;
/// Differences between blocks are small: more runs than elsewhere.
const RUNS_PER_SEED: u64 = 2;

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

/// What came of one stream: the blocks of each rule and of the default, and the arrivals that a rule decided.
struct Stream {
    rules: Vec<Vec<f64>>,
    ours: Vec<f64>,
    fallen: u64,
}

fn stream(ground: &Ground, shares: &[[f64; 6]], arrivals: usize, seed: u64) -> Result<Stream> {
    let phases: Vec<Phase> = shares.iter().map(|share| Phase::new(share, arrivals)).collect();
    let trace = Trace::poisson(seed, &phases, &SIZE, SLICES * GPUS as f64, 1.0);
    let gpus = vec![0; GPUS];
    let rule = |rule: usize| {
        blocks(&trace, BLOCK, |count| {
            let of = |share: &[f64; 6]| ground.rules(share).swap_remove(rule).1;
            let mut player = Player::new(&of(&shares[0]), &gpus, &SIZE, 0.0);
            let tables = shares[1..].iter().map(of).rev().collect();
            let mut told = Told { player: &mut player, tables, every: arrivals };
            run_watched(&trace, SIZE.len(), 0, &mut told, |id, job, placed| {
                count(id, placed, SIZE[job.demand]);
            });
        })
    };
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
    let ours = blocks(&trace, BLOCK, |count| {
        run_watched(&trace, SIZE.len(), 0, &mut played, |id, job, placed| {
            count(id, placed, SIZE[job.demand]);
        });
    });
    Ok(Stream { rules: (0..COUNTED).map(rule).collect(), ours, fallen: played.fallen_back() })
}

/// Measures and prints.
pub fn run(ground: &Ground, size: Size, quick: bool) -> Result<Value> {
    let arrivals = if quick { 4_000 } else { 20_000 };
    let shares = MIXES.iter().map(|name| share(name)).collect::<Result<Vec<_>>>()?;
    let seeds: Vec<u64> = (0..size.seeds * RUNS_PER_SEED).map(|run| size.first_seed + run).collect();
    let runs = work::all("a mix that changes", &seeds, |&seed| stream(ground, &shares, arrivals, seed))?;
    // For every rule, with the true mix of each phase, and for the default: the runs, each a list of blocks.
    let rules: Vec<Vec<Vec<f64>>> =
        (0..COUNTED).map(|rule| runs.iter().map(|run| run.rules[rule].clone()).collect()).collect();
    let ours: Vec<Vec<f64>> = runs.iter().map(|run| run.ours.clone()).collect();
    let fallen: u64 = runs.iter().map(|run| run.fallen).sum();
    println!("\na mix that changes every {arrivals} jobs, load 1, {GPUS} GPUs, {} runs", seeds.len());
    let per_phase = arrivals / BLOCK;
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
            "  {}: best rule {name}; the default places {:+.2} % of what it does",
            MIXES[phase],
            100.0 * (total(&ours) / total(&rules[best]) - 1.0)
        );
        for block in span.clone() {
            let differences: Vec<f64> =
                ours.iter().zip(&rules[best]).map(|(ours, best)| ours[block] - best[block]).collect();
            let estimate = Estimate::of(&differences);
            let below = estimate.mean + estimate.half_width < 0.0;
            run_now = if below { run_now + BLOCK } else { 0 };
            longest = longest.max(run_now);
            lines.push(json!({ "arrival": block * BLOCK, "slices_over_best_rule": estimate.mean, "half_width": estimate.half_width }));
        }
    }
    println!(
        "  longest time below the best rule (95 % interval): {longest} arrivals; {fallen} arrivals decided by a rule"
    );
    Ok(
        json!({ "mixes": MIXES, "arrivals_each": arrivals, "runs": seeds.len(), "longest_below": longest, "blocks": lines }),
    )
}

/// A rule that is told the mix of each phase as it begins.
struct Told<'a> {
    player: &'a mut Player,
    tables: Vec<std::sync::Arc<Table>>,
    every: usize,
}

impl Placer for Told<'_> {
    fn arrive(&mut self, now: f64, id: u32, job: Job) -> bool {
        if id > 0
            && (id as usize).is_multiple_of(self.every)
            && let Some(next) = self.tables.pop()
        {
            self.player.switch(&next);
        }
        self.player.arrive(now, id, job)
    }

    fn depart(&mut self, now: f64, id: u32, job: Job) {
        self.player.depart(now, id, job);
    }
}
