//! Measures on drawn traces how long a replay takes, and whether forecasts of
//! starts hold: the share of jobs that started within the interval said to
//! hold eight of ten.

#![allow(clippy::cast_precision_loss)] // counts and times

use std::time::Instant;

use clap::Parser;
use vingt_core::simulate::forecast::{Asked, Effort, Measured, measure};
use vingt_core::simulate::jobs::scenario;
use vingt_core::simulate::replay::replay;
use vingt_core::simulate::sample::{Sample, draw};

#[derive(Parser)]
struct Options {
    /// GPUs, about.
    #[arg(long, default_value_t = 32)]
    gpus: u32,
    /// Jobs of each trace.
    #[arg(long, default_value_t = 1000)]
    jobs: usize,
    /// Units asked for over those there are, for partitions, for gangs, and for tenants.
    #[arg(long, num_args = 3, default_values_t = [1.05, 0.8, 1.05])]
    loads: Vec<f64>,
    /// Traces of each kind.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// Moments of each trace at which is asked; 0 only replays.
    #[arg(long, default_value_t = 20)]
    moments: usize,
    /// Jobs asked for at each.
    #[arg(long, default_value_t = 3)]
    each: usize,
    /// Replays for each answer.
    #[arg(long, default_value_t = 100)]
    draws: usize,
    /// Plans for each answer at most.
    #[arg(long, default_value_t = 50_000)]
    plans: u64,
    /// Time between two plans in the replays of an answer, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    cycle_ms: i64,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    for (sample, load) in [Sample::Mig, Sample::Gangs, Sample::Tenants].into_iter().zip(&options.loads) {
        let mut sum = Measured::default();
        let began = Instant::now();
        for seed in 0..options.seeds {
            let (snapshot, streams) = sample.on(options.gpus);
            let jobs = draw(&snapshot, &streams, *load, options.jobs, seed);
            let scenario = scenario(snapshot, &jobs)?;
            if options.moments == 0 || seed == 0 {
                let began = Instant::now();
                let summary = replay(&scenario, &mut ())?.summary;
                println!("{sample:?}: replayed in {:.2?}: {summary:?}", began.elapsed());
            }
            if options.moments > 0 {
                let effort = Effort {
                    draws: options.draws,
                    plans: options.plans,
                    cycle_ms: options.cycle_ms,
                    seed,
                    ..Effort::default()
                };
                let asked = Asked { moments: options.moments, each: options.each, effort };
                sum = sum.with(measure(&scenario, asked)?);
            }
        }
        let waits: Vec<f64> =
            sum.cases.iter().map(|(_, now, start)| (start - now) as f64 / 60_000.0).collect();
        println!(
            "{sample:?}: {} cases, within {:.1} %, before {:.1} %, after {:.1} %, below median {:.1} %, \
             sharpness {:.2}, mean wait {:.0} min, {:.1?}",
            sum.cases.len(),
            100.0 * sum.within,
            100.0 * sum.before,
            100.0 * sum.after,
            100.0 * sum.below_median,
            sum.sharpness,
            waits.iter().sum::<f64>() / waits.len().max(1) as f64,
            began.elapsed()
        );
    }
    Ok(())
}
