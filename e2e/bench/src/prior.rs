//! Searches the constants of the values that need no learning, on random
//! mixes, and shows what they do on the five of the benchmark.

use std::sync::Arc;

use vingt_core::policy::Features;
use vingt_core::policy::prior::{CONSTANTS, Constants, HORIZONS};
use vingt_core::simulate::repack::Repack;
use vingt_core::simulate::{Phase, Player, Random, Table, Trace, run as play};

use crate::mixes::{COUNTED, Ground, MIXES, SIZE, SLICES};

#[derive(clap::Args)]
pub struct Options {
    /// Rounds of the search.
    #[arg(long, default_value_t = 20)]
    generations: usize,
    /// Candidates in each.
    #[arg(long, default_value_t = 20)]
    population: usize,
    /// Random mixes.
    #[arg(long, default_value_t = 24)]
    mixes: u64,
    /// For all that is drawn at random.
    #[arg(long, default_value_t = 99)]
    seed: u64,
}

const GPUS: usize = 100;
const WARMUP: usize = 2_000;

struct Case {
    share: Vec<f64>,
    trace: Trace,
    best: f64,
    top: f64,
}

impl Case {
    fn new(ground: &Ground, share: &[f64], seed: u64) -> Self {
        let trace = Trace::poisson(seed, &[Phase::new(share, 50_000)], &SIZE, SLICES * GPUS as f64, 1.0);
        let rules = ground.rules(share);
        let best = rules[..COUNTED].iter().map(|(_, table)| accepted(&trace, table)).fold(0.0, f64::max);
        let mut repack = Repack::new(&ground.fit, GPUS as u64, SIZE.len());
        let top = play(&trace, SIZE.len(), WARMUP, &mut repack).acceptance(&SIZE);
        Self { share: share.to_vec(), trace, best, top }
    }

    /// Part of the gap that is closed, in percent.
    fn closed(&self, ground: &Ground, features: &Features, point: &[f64]) -> f64 {
        let weights = constants(point).weights(features, &self.share, &SIZE);
        let table = Table::of_values(&ground.classes, features.values(&weights));
        100.0 * (accepted(&self.trace, &table) - self.best) / (self.top - self.best)
    }
}

fn accepted(trace: &Trace, table: &Arc<Table>) -> f64 {
    let mut player = Player::new(table, &[0; GPUS], &SIZE, 0.0);
    play(trace, SIZE.len(), WARMUP, &mut player).acceptance(&SIZE)
}

fn constants(point: &[f64]) -> Constants {
    let pair = |at: usize| [point[at], point[at + 1]];
    let [.., late] = CONSTANTS.weight;
    Constants { weight: [pair(0), pair(2), pair(4), late], share_power: pair(6), worth_power: pair(8) }
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let ground = Ground::new()?;
    let features = Features::promises(&ground.classes, &HORIZONS, &[1.0; 6]);
    let mut random = Random::new(options.seed);
    let train: Vec<Case> = (0..options.mixes)
        .map(|index| {
            let power = if index % 2 == 0 { 1.0 } else { 0.5 };
            let share: Vec<f64> = (0..SIZE.len()).map(|_| random.exponential().powf(power)).collect();
            Case::new(&ground, &share, 5_000 + 10 * index)
        })
        .collect();
    let tests: Vec<Case> = MIXES.iter().map(|(_, share)| Case::new(&ground, share, 1)).collect();
    let show = |name: &str, point: &[f64]| {
        let closed: Vec<f64> = tests.iter().map(|case| case.closed(&ground, &features, point)).collect();
        println!("{name}: {closed:.1?} on the benchmark's mixes; {point:.3?}");
    };
    let [a, b, c, _] = CONSTANTS.weight;
    show("in use", &[a, b, c, CONSTANTS.share_power, CONSTANTS.worth_power].concat());
    let mut centre = vec![0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 1.0];
    let mut width = vec![0.4; centre.len()];
    for generation in 0..options.generations {
        let mut tried: Vec<(f64, Vec<f64>)> = (0..options.population)
            .map(|_| {
                let point: Vec<f64> =
                    centre.iter().zip(&width).map(|(x, w)| x + w * random.normal()).collect();
                // A mix that goes badly wrong is no reason to give up all the others.
                let closed = train.iter().map(|case| case.closed(&ground, &features, &point).max(-100.0));
                (closed.sum::<f64>() / train.len() as f64, point)
            })
            .collect();
        tried.sort_by(|a, b| b.0.total_cmp(&a.0));
        tried.truncate((options.population / 4).max(1));
        for (index, (x, width)) in centre.iter_mut().zip(&mut width).enumerate() {
            let best = || tried.iter().map(|(_, point)| point[index]);
            let mean = best().sum::<f64>() / tried.len() as f64;
            let variance = best().map(|y| (y - *x).powi(2)).sum::<f64>() / tried.len() as f64;
            *x += 0.7 * (mean - *x);
            *width = (0.6 * variance + 0.4 * *width * *width).sqrt();
        }
        show(&format!("round {generation}, best {:.1} %", tried[0].0), &centre);
    }
    Ok(())
}
