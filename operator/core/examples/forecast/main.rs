//! Measures on drawn traces how long a replay takes, and whether forecasts of
//! starts hold: the share of jobs that started within the interval said to
//! hold eight of ten, and how wide it was, beside what the waits of late alone
//! would have said, stretched in hindsight until that held eight of ten, too.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use clap::Parser;
use vingt_core::simulate::forecast::{Asked, Case, Effort, Held, measure};
use vingt_core::simulate::jobs::scenario;
use vingt_core::simulate::replay::replay;
use vingt_core::simulate::sample::{Sample, draw};

#[derive(Parser)]
struct Options {
    /// GPUs, about.
    #[arg(long, default_value_t = 8)]
    gpus: u32,
    /// Jobs of each trace.
    #[arg(long, default_value_t = 160)]
    jobs: usize,
    /// Units asked for over those there are.
    #[arg(long, num_args = 1.., default_values_t = [0.85, 1.0, 1.2])]
    loads: Vec<f64>,
    /// Shares of the jobs that declare how long they run at most.
    #[arg(long, num_args = 1.., default_values_t = [0.0, 0.8])]
    declared: Vec<f64>,
    /// The first seed.
    #[arg(long, default_value_t = 200)]
    seed: u64,
    /// Traces of each kind.
    #[arg(long, default_value_t = 2)]
    seeds: u64,
    /// Moments of each trace at which is asked; 0 only replays.
    #[arg(long, default_value_t = 14)]
    moments: usize,
    /// Jobs asked for at each.
    #[arg(long, default_value_t = 4)]
    each: usize,
    /// Replays for each answer.
    #[arg(long, default_value_t = 19)]
    draws: usize,
    /// Plans for each answer at most.
    #[arg(long, default_value_t = 500)]
    plans: u64,
    /// Time between two plans in the replays of an answer, in milliseconds.
    #[arg(long, default_value_t = 5_000)]
    cycle_ms: i64,
    /// A file for all cases, as CSV; times count from the asking, in milliseconds.
    #[arg(long)]
    cases: Option<std::path::PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut file = options.cases.as_ref().map(File::create).transpose()?;
    let mut all = Vec::new();
    println!(
        "{:24} {:>5}  {:^25}  {:^25}  {:^25}",
        "", "", "given", "before corrections", "waits of late, stretched"
    );
    let part = format!("{:>5} {:>6} {:>5} {:>6}", "below", "within", "above", "width");
    println!("{:24} {:>5}  {part}  {part}  {part}  {:>6}", "", "cases", "took");
    for sample in [Sample::Mig, Sample::Gangs, Sample::Tenants] {
        for load in &options.loads {
            for declared in &options.declared {
                let began = Instant::now();
                let mut cases = Vec::new();
                for seed in options.seed..options.seed + options.seeds {
                    let found = trace(&options, sample, *load, *declared, seed)?;
                    for case in &found {
                        if let Some(file) = &mut file {
                            writeln!(file, "{sample:?},{load},{declared},{seed},{}", row(case))?;
                        }
                    }
                    cases.extend(found);
                }
                line(&format!("{sample:?} {load} {declared}"), &cases, began);
                all.extend(cases);
            }
        }
    }
    line("all", &all, Instant::now());
    Ok(())
}

fn trace(
    options: &Options,
    sample: Sample,
    load: f64,
    declared: f64,
    seed: u64,
) -> anyhow::Result<Vec<Case>> {
    let (snapshot, mut streams) = sample.on(options.gpus);
    for stream in &mut streams {
        stream.declared = declared;
    }
    let jobs = draw(&snapshot, &streams, load, options.jobs, seed);
    let scenario = scenario(snapshot, &jobs)?;
    if options.moments == 0 {
        let began = Instant::now();
        let summary = replay(&scenario, &mut ())?.summary;
        println!("{sample:?} {load} {declared}: replayed in {:.2?}: {summary:?}", began.elapsed());
        return Ok(Vec::new());
    }
    let Options { moments, each, draws, plans, cycle_ms, .. } = *options;
    let effort = Effort { draws, plans, cycle_ms, seed, ..Effort::default() };
    Ok(measure(&scenario, Asked { moments, each, effort })?)
}

fn row(case: &Case) -> String {
    let Case { forecast, plain_ms, usual_ms, now_ms, start_ms } = case;
    let time = |ms: Option<i64>| ms.map(|ms| (ms - now_ms).to_string()).unwrap_or_default();
    let given = [forecast.p10_ms, forecast.p50_ms, forecast.p90_ms].map(time).join(",");
    let (plain, usual) = (plain_ms.map(time).join(","), usual_ms.map(|ms| time(Some(ms))).join(","));
    format!("{},{now_ms},{},{given},{plain},{usual}", forecast.key, start_ms - now_ms)
}

fn line(name: &str, cases: &[Case], began: Instant) {
    let part = |held: Held| {
        let [before, within, after] = [held.before, held.within, held.after].map(|share| 100.0 * share);
        format!("{before:5.1} {within:6.1} {after:5.1} {:6.2}", held.width)
    };
    let parts = [Held::given(cases), Held::plain(cases), Held::usual(cases)].map(part).join("  ");
    println!("{name:24} {:5}  {parts}  {:5.0?}", cases.len(), began.elapsed());
}
