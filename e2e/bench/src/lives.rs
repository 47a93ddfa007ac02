//! Jobs that are short or long, ten times apart, half of the load each: what
//! it brings to know which.

use anyhow::Result;
use serde_json::{Value, json};
use vingt_core::learn::brain::Setup;
use vingt_core::learn::{Effort, Played};
use vingt_core::simulate::repack::Repack;
use vingt_core::simulate::stats::Estimate;
use vingt_core::simulate::{Counts, Phase, Player, Trace, cards, run as play};
use vingt_core::states::Card;
use vingt_core::states::fit::Fit;

use crate::mixes::{Ground, MIXES, SIZE, SLICES};
use crate::placement::Size;
use crate::report::{Baseline, Row};
use crate::work;

const GPUS: usize = 100;
const DEMANDS: usize = 12;
/// Short jobs come this many times as often as long ones, so that each sort is half of the load.
const OFTEN: f64 = 10.0;

/// The card with each device once for short jobs and once for long ones.
struct Doubled {
    card: Card,
    fit: Fit,
    worth: Vec<f64>,
}

impl Doubled {
    fn new() -> Result<Self> {
        let card = cards::hopper().repeated(2, SIZE.len());
        let fit = Fit::new(&card, DEMANDS)?;
        Ok(Self { card, fit, worth: [SIZE, SIZE].concat() })
    }

    /// Runs of one stream: the rules, the default without and with the knowledge, the ceiling.
    fn stream(&self, ground: &Ground, share: &[f64], size: Size, seed: u64) -> Result<Vec<Counts>> {
        let both: Vec<f64> = share.iter().map(|p| OFTEN * p).chain(share.iter().copied()).collect();
        // The mean life is 1.
        let short = (OFTEN + 1.0) / (OFTEN + 10.0);
        let life: Vec<f64> = [[short; 6], [10.0 * short; 6]].concat();
        let phase = Phase { share: both, life, arrivals: size.warmup + size.arrivals };
        let known = Trace::poisson(seed, &[phase], &self.worth, SLICES * GPUS as f64, 1.0);
        let mut unknown = known.clone();
        unknown.jobs.iter_mut().for_each(|job| job.demand %= SIZE.len());
        let mut found = Vec::new();
        for (_, table) in ground.rules(share) {
            let mut player = Player::new(&table, &[0; GPUS], &SIZE, 0.0);
            found.push(play(&unknown, SIZE.len(), size.warmup, &mut player));
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
            cards: vec![self.card.clone()],
            worth: self.worth.clone(),
            life: [[0; 6], [1; 6]].concat(),
            ..blind.clone()
        };
        let mut player = Played::new(&blind, Some(Effort::ONLINE))?;
        found.push(play(&unknown, SIZE.len(), size.warmup, &mut player));
        let mut player = Played::new(&aware, Some(Effort::ONLINE))?;
        found.push(play(&known, DEMANDS, size.warmup, &mut player));
        found.push(play(&known, DEMANDS, size.warmup, &mut Repack::new(&self.fit, GPUS as u64, DEMANDS)));
        Ok(found)
    }
}

/// Measures and prints.
pub fn run(ground: &Ground, size: Size) -> Result<Value> {
    let doubled = Doubled::new()?;
    let mut gained: Vec<Vec<f64>> = Vec::new();
    let mut means = Vec::new();
    let mut written = Vec::new();
    for (name, share) in MIXES {
        let runs = work::all(&format!("{name}, short and long"), &size.streams(), |&seed| {
            doubled.stream(ground, &share, size, seed)
        })?;
        let rules = ground.rules(&share);
        let names = rules.iter().map(|(name, _)| *name);
        let names = names.chain(["default, lives unknown", "default, lives known", "perfect repacking"]);
        let mut rows: Vec<Row> = names.map(Row::new).collect();
        for counts in runs {
            rows.iter_mut().zip(counts).for_each(|(row, counts)| row.runs.push(counts));
        }
        let [.., blind, aware, top] = &rows[..] else { continue };
        let against = Baseline::of(&rows[..rules.len()], top);
        println!("\n{name}, half of the load ten times as short, load 1: best rule {}", against.best.policy);
        let lines = against.print(&rows);
        let samples = against.lead(aware, blind);
        let gain = Estimate::of(&samples);
        println!("  knowing lives is worth {:.1} ± {:.1} points", gain.mean, gain.half_width);
        means.push(gain.mean);
        gained.push(samples);
        written.push(json!({
            "mix": name, "best_rule": against.best.policy, "rows": lines,
            "points_gained": gain.mean, "points_gained_half_width": gain.half_width,
        }));
    }
    // Streams of one number are alike over the mixes: what counts as independent is the mean over the mixes.
    let seeds = gained.first().map_or(0, Vec::len);
    let over_mixes = |seed: usize| Estimate::of(&gained.iter().map(|of| of[seed]).collect::<Vec<_>>()).mean;
    let all = Estimate::of(&(0..seeds).map(over_mixes).collect::<Vec<_>>());
    println!(
        "\nknowing lives is worth {:.1} ± {:.1} points of the gap, on the mixes {means:.1?}",
        all.mean, all.half_width
    );
    Ok(json!({
        "tables": written, "points_gained": means,
        "points_gained_mean": all.mean, "points_gained_half_width": all.half_width,
    }))
}
