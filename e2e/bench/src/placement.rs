//! `bench placement`: which experiments, how large, and where the measurements
//! are written.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::mixes::{Ground, share};
use crate::{drift, latency, lives, openb, table};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Experiment {
    /// All policies on the mixes, at each load.
    Mixes,
    /// The openb trace, each share of a GPU mapped to a partition in two ways.
    Openb,
    /// Jobs of which it is known whether they are short or long.
    Lives,
    /// A mix that changes under way.
    Drift,
    /// How long a decision takes.
    Latency,
}

const ALL: [Experiment; 5] =
    [Experiment::Mixes, Experiment::Openb, Experiment::Lives, Experiment::Drift, Experiment::Latency];

/// An H100-class geometry; every policy sees the same jobs.
#[derive(Debug, Args)]
pub struct Options {
    /// What to measure; everything by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Experiment>,
    /// A small run that shows that all works; its numbers mean little.
    #[arg(long)]
    quick: bool,
    /// What is offered, as shares of the slices there are.
    #[arg(long, value_delimiter = ',', default_values_t = [0.85, 1.0, 1.2])]
    loads: Vec<f64>,
    /// Mixes of jobs.
    #[arg(long, value_delimiter = ',', default_value = "uniform,skew-small,skew-big,bimodal,openb-near")]
    mixes: Vec<String>,
    /// GPUs of the mixes.
    #[arg(long, default_value_t = 100)]
    gpus: usize,
    /// Runs of each, with a stream of jobs of its own.
    #[arg(long, default_value_t = 10)]
    seeds: u64,
    /// Number of the first stream.
    #[arg(long, default_value_t = 0)]
    first_seed: u64,
    /// Jobs that are counted in each run.
    #[arg(long, default_value_t = 50_000)]
    arrivals: usize,
    /// Folder of the openb trace, with `openb_pod_list_default.csv`.
    #[arg(long, default_value = "../shared/data/openb")]
    traces: PathBuf,
    /// Where the measurements are written.
    #[arg(long, default_value = "target/bench-placement.json")]
    json: PathBuf,
}

/// How large the experiments are.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Runs of each.
    pub seeds: u64,
    /// Number of the first.
    pub first_seed: u64,
    /// Jobs that are counted in each run.
    pub arrivals: usize,
    /// Jobs before those.
    pub warmup: usize,
}

impl Size {
    /// The numbers of the streams.
    pub fn streams(self) -> Vec<u64> {
        (self.first_seed..self.first_seed + self.seeds).collect()
    }
}

impl Options {
    fn size(&self) -> Size {
        let Self { seeds, first_seed, arrivals, .. } = *self;
        if self.quick {
            Size { seeds: seeds.min(2), first_seed, arrivals: arrivals.min(4_000), warmup: 2_000 }
        } else {
            Size { seeds, first_seed, arrivals, warmup: 10_000 }
        }
    }

    fn wants(&self, experiment: Experiment) -> bool {
        self.only.is_empty() || self.only.contains(&experiment)
    }

    fn check(&self) -> Result<()> {
        ensure!(
            self.seeds > 0 && self.arrivals > 0 && self.gpus > 0,
            "--seeds, --arrivals and --gpus: at least 1"
        );
        for load in &self.loads {
            ensure!(
                load.is_finite() && *load > 0.0,
                "--loads {load}: a load is above 0, and 1 is all there is"
            );
        }
        for mix in &self.mixes {
            share(mix).context("--mixes")?;
        }
        Ok(())
    }
}

/// Measures, prints and writes.
pub fn run(options: &Options) -> Result<()> {
    options.check()?;
    // What cannot be read or written is said now, not in an hour.
    let tasks = if options.wants(Experiment::Openb) { Some(openb::read(&options.traces)?) } else { None };
    let part = part_of(&options.json)?;
    let started = Instant::now();
    let (ground, size) = (Ground::new()?, options.size());
    let loads = if options.quick { &[1.0] } else { options.loads.as_slice() };
    let mut measured = serde_json::Map::new();
    for experiment in ALL.into_iter().filter(|experiment| options.wants(*experiment)) {
        let (name, found) = match experiment {
            Experiment::Mixes => ("mixes", table::run(&ground, &options.mixes, loads, options.gpus, size)?),
            Experiment::Openb => ("openb", openb::run(&ground, tasks.as_deref().unwrap_or_default(), size)?),
            Experiment::Lives => ("lives", lives::run(&ground, size)?),
            Experiment::Drift => ("drift", drift::run(&ground, size, options.quick)?),
            Experiment::Latency => ("latency", latency::run(&ground, options.quick)),
        };
        measured.insert(name.to_owned(), found);
    }
    let seconds = started.elapsed().as_secs_f64();
    let value = json!({
        "benchmark": "placement", "version": 1, "quick": options.quick, "seconds": seconds,
        "seeds": size.seeds, "first_seed": size.first_seed, "arrivals": size.arrivals, "warmup": size.warmup,
        "measured": Value::Object(measured),
    });
    write(&part, &options.json, &value)?;
    println!("\n{} written after {seconds:.0} s", options.json.display());
    if options.quick {
        println!("a quick run: it shows that all works, and no more");
    }
    Ok(())
}

/// The file that is written until it is complete; made at once to see that it can be.
fn part_of(path: &Path) -> Result<PathBuf> {
    let part = path.with_extension("json.part");
    let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&part, ""));
    made.with_context(|| format!("--json: cannot write {}", part.display()))?;
    Ok(part)
}

fn write(part: &Path, path: &Path, value: &Value) -> Result<()> {
    std::fs::write(part, serde_json::to_vec_pretty(value)?)
        .and_then(|()| std::fs::rename(part, path))
        .with_context(|| format!("cannot write {}", path.display()))
}
