//! Plays years of a cluster with a sovereign reserve, and prints what was
//! claimed, what was delivered, what lending gains over a share that is set
//! aside, and who had to leave, against leaving newest first.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use clap::Parser;
use vingt_core::reserve::Terms;
use vingt_core::simulate::stats::Estimate;
use vingt_core::simulate::year::{GPU_HOUR, Setup, Summary, Year, compare};

#[derive(Parser)]
struct Options {
    /// GPUs.
    #[arg(long, default_value_t = 20)]
    gpus: u32,
    /// Days.
    #[arg(long, default_value_t = 365)]
    days: u32,
    /// What training asks for on average, in percent of the cluster.
    #[arg(long, default_value_t = Setup::default().training_percent)]
    training_percent: u32,
    /// The reserve's share, in parts per million.
    #[arg(long, default_value_t = 50_000)]
    share_ppm: u32,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Years, each drawn from a seed of its own, and played under each of the rules.
    #[arg(long, default_value_t = 3)]
    seeds: u64,
    /// A file for the days of the first year, as CSV.
    #[arg(long)]
    days_csv: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let setup = Setup {
        gpus: options.gpus,
        days: options.days,
        training_percent: options.training_percent,
        terms: Terms { fraction_ppm: options.share_ppm, ..Setup::default().terms },
        ..Setup::default()
    };
    let begun = Instant::now();
    let mut last = begun;
    let years = compare(&setup, options.seed..options.seed + options.seeds, |setup, year| {
        let Year { summary, .. } = year;
        println!(
            "seed {}, {:?}, {:?}: {:.1} s",
            setup.seed,
            setup.keeping,
            setup.victims,
            last.elapsed().as_secs_f64()
        );
        last = Instant::now();
        print(summary);
    })?;
    if let (Some(path), Some(year)) = (&options.days_csv, years.lent.first()) {
        write_days(&mut File::create(path)?, year)?;
    }
    let percent =
        |estimate: Estimate| format!("{:.2} ± {:.2} %", 100.0 * estimate.mean, 100.0 * estimate.half_width);
    println!("{} years under four rules in {:.1} s", options.seeds, begun.elapsed().as_secs_f64());
    println!("lending over setting aside: utilisation higher by {} of the cluster", percent(years.gain()));
    println!(
        "least lost over newest first: {} fewer evictions for each GPU-hour delivered",
        percent(years.fewer_evictions())
    );
    println!("                              {} less work lost", percent(years.less_lost()));
    Ok(())
}

fn print(summary: &Summary) {
    let hours = |amount: u64| amount / GPU_HOUR;
    println!(
        "  held {:.1} % of {} GPU-hours; {} plans, {} jobs, {} ended, {} GPUs broke",
        100.0 * summary.utilisation(),
        hours(summary.capacity),
        summary.plans,
        summary.jobs,
        summary.ended,
        summary.failures
    );
    println!(
        "  entitled to {} GPU-hours; claimed {}, ordered {}; sovereign in all {}",
        hours(summary.entitled),
        hours(summary.claimed),
        hours(summary.ordered),
        hours(summary.sovereign)
    );
    println!(
        "  account and jobs differ by {} and {} unit-ms; taken beyond the rate {} of {} GPU-hours at most",
        summary.claimed.abs_diff(summary.claimed_by_jobs),
        summary.ordered.abs_diff(summary.ordered_by_jobs),
        hours(summary.most_beyond_rate),
        hours(summary.depth)
    );
    let times = summary.claim_ms;
    println!(
        "  {} claims, {} valid, {} late; from asking to running p50 {} p99 {} max {} ms",
        summary.claims, summary.valid, summary.late, times.p50, times.p99, times.max
    );
    println!(
        "  {} orders, {} accepted, {} countered, {} refused, {} late; {} evictions, {} GPU-hours lost",
        summary.orders,
        summary.accepted,
        summary.countered,
        summary.refused,
        summary.orders_late,
        summary.evictions,
        hours(summary.lost)
    );
}

fn write_days(file: &mut File, year: &Year) -> std::io::Result<()> {
    writeln!(
        file,
        "day_ms,used,claimed,ordered,tokens,entitled,delivered,booked,evictions,waiting,broken,crisis"
    )?;
    for row in &year.rows {
        writeln!(
            file,
            "{},{},{},{},{},{},{},{},{},{},{},{}",
            row.day_ms,
            row.used,
            row.claimed,
            row.ordered,
            row.tokens,
            row.entitled,
            row.delivered,
            row.booked,
            row.evictions,
            row.waiting,
            row.broken,
            u8::from(row.crisis)
        )?;
    }
    Ok(())
}
