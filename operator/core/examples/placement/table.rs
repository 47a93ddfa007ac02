//! All policies on the five mixes.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use serde_json::json;
use vingt_core::learn::brain::Setup;
use vingt_core::learn::{Effort, Played};
use vingt_core::policy::Values;
use vingt_core::simulate::repack::Repack;
use vingt_core::simulate::{Phase, Player, Table, Trace, cards, run as play};

use crate::mixes::{COUNTED, Ground, SIZE, SLICES, WHOLE, names, share};
use crate::report::{Row, best, gap_closed, print, write};

#[derive(clap::Args)]
pub struct Options {
    /// What is offered, as a share of the slices there are.
    #[arg(long, default_value_t = 1.0)]
    load: f64,
    /// GPUs.
    #[arg(long, default_value_t = 100)]
    gpus: usize,
    /// Runs, each with its own stream of jobs.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Number of the first of them.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Jobs that are counted in each run.
    #[arg(long, default_value_t = 50_000)]
    arrivals: usize,
    /// Jobs before those.
    #[arg(long, default_value_t = 10_000)]
    warmup: usize,
    /// Share of jobs that may be moved.
    #[arg(long, default_value_t = 1.0)]
    movable: f64,
    /// Mixes; all by default.
    #[arg(long, value_delimiter = ',')]
    mixes: Vec<String>,
    /// Moves for each placed job that the default is tried with: 0 none, 1 no limit.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    moves: Vec<f64>,
    /// Also the default without learning.
    #[arg(long)]
    unlearnt: bool,
    /// Where to write the measurements.
    #[arg(long)]
    json: Option<PathBuf>,
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::new()?;
    let chosen: Vec<String> = if options.mixes.is_empty() {
        names().iter().map(ToString::to_string).collect()
    } else {
        options.mixes.clone()
    };
    let mut variants: Vec<(String, f64, Option<Effort>)> = Vec::new();
    for &moves in &options.moves {
        let name = match moves {
            0.0 => "default".to_owned(),
            1.0.. => "default, 1 move".to_owned(),
            share => format!("default, moves ≤ {share}"),
        };
        if options.unlearnt {
            variants.push((format!("{name}, unlearnt"), moves, None));
        }
        variants.push((name, moves, Some(Effort::ONLINE)));
    }
    let mut sums = vec![Vec::new(); variants.len()];
    let mut written = Vec::new();
    for name in &chosen {
        let share = share(name)?;
        let rules = ground.rules(&share);
        let started = Instant::now();
        let mut rows: Vec<Row> = rules.iter().map(|(name, _)| Row::new(name)).collect();
        let mut ours: Vec<Row> = variants.iter().map(|(name, _, _)| Row::new(name)).collect();
        let mut with_moves: Vec<(f64, Row)> = Vec::new();
        for &moves in options.moves.iter().filter(|moves| **moves > 0.0) {
            with_moves.push((moves, Row::new(&format!("FGD, moves ≤ {moves}"))));
        }
        let gradient = Table::of_values(&ground.states, Values::fragmentation(&ground.states, &share));
        let mut top = Row::new("perfect repacking");
        let mut fallen = 0;
        let gpus = vec![0; options.gpus];
        let slices = SLICES * f64::from(u32::try_from(options.gpus)?);
        for seed in options.first_seed..options.first_seed + options.seeds {
            let phase = Phase::new(&share, options.warmup + options.arrivals);
            let trace = Trace::poisson(seed, &[phase], &SIZE, options.load * slices, options.movable);
            for ((_, table), row) in rules.iter().zip(&mut rows) {
                row.runs.push(play(
                    &trace,
                    SIZE.len(),
                    options.warmup,
                    &mut Player::new(table, &gpus, &SIZE, 0.0),
                ));
            }
            for (moves, row) in &mut with_moves {
                let mut player = Player::new(&gradient, &gpus, &SIZE, *moves);
                row.runs.push(play(&trace, SIZE.len(), options.warmup, &mut player));
            }
            for ((_, moves, effort), row) in variants.iter().zip(&mut ours) {
                let setup = Setup {
                    cards: vec![cards::hopper()],
                    gpus: gpus.clone(),
                    worth: SIZE.to_vec(),
                    life: vec![0; SIZE.len()],
                    moves: *moves,
                    movable: options.movable,
                    seed,
                };
                let mut played = Played::new(&setup, *effort)?;
                row.runs.push(play(&trace, SIZE.len(), options.warmup, &mut played));
                fallen += played.fallen_back();
            }
            let mut repack = Repack::new(&ground.fit, u64::try_from(options.gpus)?, SIZE.len());
            top.runs.push(play(&trace, SIZE.len(), options.warmup, &mut repack));
        }
        let best = best(&rows[..COUNTED]).clone();
        let whole = rows[..COUNTED].iter().map(|row| row.acceptance_of(WHOLE)).fold(0.0, f64::max);
        println!(
            "{name}, load {}, {} GPUs: best rule {}, 7g {whole:.3} at best; {} arrivals decided by a rule; {:.1} s",
            options.load,
            options.gpus,
            best.policy,
            fallen,
            started.elapsed().as_secs_f64()
        );
        let all = rows.iter().chain(with_moves.iter().map(|(_, row)| row)).chain(&ours).chain([&top]);
        let lines: Vec<_> = all.map(|row| print(row, &best, &top, whole)).collect();
        written.push(json!({ "mix": name, "load": options.load, "gpus": options.gpus, "best_rule": best.policy, "rows": lines }));
        for (sum, row) in sums.iter_mut().zip(&ours) {
            sum.push(gap_closed(row, &best, &top).mean);
        }
    }
    println!("mean over the mixes [least..most]");
    for ((name, _, _), sum) in variants.iter().zip(&sums) {
        let count = f64::from(u32::try_from(sum.len())?);
        let (least, most) = sum.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
        println!("  {name:<22} {:.1} [{least:.1}..{most:.1}] %", sum.iter().sum::<f64>() / count);
    }
    write(options.json.as_deref(), &json!(written)).context("write the measurements")
}
