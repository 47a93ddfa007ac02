//! Jobs that are short or long, ten times apart, half of the load each: what
//! it brings to know which.

use std::path::PathBuf;

use serde_json::json;
use vingt_core::learn::brain::Setup;
use vingt_core::learn::{Effort, Played};
use vingt_core::simulate::repack::Repack;
use vingt_core::simulate::{Phase, Player, Trace, cards, run as play};
use vingt_core::states::fit::Fit;

use crate::mixes::{COUNTED, Ground, MIXES, SIZE, SLICES, WHOLE};
use crate::report::{Row, best, gap_closed, print, write};

#[derive(clap::Args)]
pub struct Options {
    /// What is offered, as a share of the slices there are.
    #[arg(long, default_value_t = 1.0)]
    load: f64,
    /// Runs, each with its own stream of jobs.
    #[arg(long, default_value_t = 5)]
    seeds: u64,
    /// Jobs that are counted in each run.
    #[arg(long, default_value_t = 50_000)]
    arrivals: usize,
    /// As many short jobs as long ones, which then hold ten of eleven slices, instead of half of the load each.
    #[arg(long)]
    even_arrivals: bool,
    /// Where to write the measurements.
    #[arg(long)]
    json: Option<PathBuf>,
}

const GPUS: usize = 100;
const WARMUP: usize = 10_000;
const DEMANDS: usize = 12;

pub fn run(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::new()?;
    let card = cards::hopper().repeated(2, SIZE.len());
    let fit = Fit::new(&card, DEMANDS)?;
    let size: Vec<f64> = [SIZE, SIZE].concat();
    // Short jobs come this many times as often as long ones; the mean life is 1.
    let often = if options.even_arrivals { 1.0 } else { 10.0 };
    let short = (often + 1.0) / (often + 10.0);
    let life: Vec<f64> = [[short; 6], [10.0 * short; 6]].concat();
    let mut gained = Vec::new();
    let mut written = Vec::new();
    for (name, share) in MIXES {
        let both: Vec<f64> = share.iter().map(|p| often * p).chain(share).collect();
        let mut rows: Vec<Row> = ground.rules(&share).iter().map(|(name, _)| Row::new(name)).collect();
        let mut ours = [Row::new("default, lives unknown"), Row::new("default, lives known")];
        let mut top = Row::new("perfect repacking");
        for seed in 0..options.seeds {
            let phase =
                Phase { share: both.clone(), life: life.clone(), arrivals: WARMUP + options.arrivals };
            let known = Trace::poisson(seed, &[phase], &size, options.load * SLICES * GPUS as f64, 1.0);
            let mut unknown = known.clone();
            unknown.jobs.iter_mut().for_each(|job| job.demand %= SIZE.len());
            for ((_, table), row) in ground.rules(&share).iter().zip(&mut rows) {
                row.runs.push(play(
                    &unknown,
                    SIZE.len(),
                    WARMUP,
                    &mut Player::new(table, &[0; GPUS], &SIZE, 0.0),
                ));
            }
            let blind = Setup {
                cards: vec![cards::hopper()],
                gpus: vec![0; GPUS],
                worth: SIZE.to_vec(),
                life: vec![0; SIZE.len()],
                moves: 0.0,
                movable: 1.0,
                seed,
            };
            let aware = Setup {
                cards: vec![card.clone()],
                worth: size.clone(),
                life: [[0; 6], [1; 6]].concat(),
                ..blind.clone()
            };
            ours[0].runs.push(play(
                &unknown,
                SIZE.len(),
                WARMUP,
                &mut Played::new(&blind, Some(Effort::ONLINE))?,
            ));
            ours[1].runs.push(play(&known, DEMANDS, WARMUP, &mut Played::new(&aware, Some(Effort::ONLINE))?));
            top.runs.push(play(&known, DEMANDS, WARMUP, &mut Repack::new(&fit, GPUS as u64, DEMANDS)));
        }
        let best = best(&rows[..COUNTED]).clone();
        let whole = rows[..COUNTED].iter().map(|row| row.acceptance_of(WHOLE)).fold(0.0, f64::max);
        println!("{name}, load {}: best rule {}", options.load, best.policy);
        let lines: Vec<_> =
            rows.iter().chain(&ours).chain([&top]).map(|row| print(row, &best, &top, whole)).collect();
        written.push(json!({ "mix": name, "load": options.load, "best_rule": best.policy, "rows": lines }));
        gained.push(gap_closed(&ours[1], &best, &top).mean - gap_closed(&ours[0], &best, &top).mean);
    }
    println!(
        "knowing lives is worth {:.1} points, {gained:.1?}",
        gained.iter().sum::<f64>() / gained.len() as f64
    );
    write(options.json.as_deref(), &json!(written))
}
