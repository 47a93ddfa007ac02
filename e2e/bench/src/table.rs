//! All policies on the mixes, at each load: paired streams, and of each policy
//! the part of the gap from the best simple rule to perfect repacking that it
//! closes.

use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};
use vingt_core::learn::brain::Setup;
use vingt_core::learn::{Effort, Played};
use vingt_core::policy::Values;
use vingt_core::simulate::repack::Repack;
use vingt_core::simulate::{Counts, Phase, Player, Table, Trace, cards, run as play};

use crate::mixes::{Ground, SIZE, SLICES, share};
use crate::placement::Size;
use crate::report::{Baseline, Row};
use crate::work;

/// The default, as it is tried.
struct Variant {
    name: &'static str,
    /// Moves for each placed job: 0 none, 1 no limit.
    moves: f64,
    /// Share of the jobs that may be moved.
    movable: f64,
    learns: bool,
}

const fn variant(name: &'static str, moves: f64, movable: f64) -> Variant {
    Variant { name, moves, movable, learns: true }
}

const VARIANTS: [Variant; 5] = [
    Variant { learns: false, ..variant("default, unlearnt", 0.0, 1.0) },
    variant("default", 0.0, 1.0),
    variant("default, moves ≤ 1 %", 0.01, 1.0),
    variant("default, 1 move, half may", 1.0, 0.5),
    variant("default, 1 move", 1.0, 1.0),
];

/// FGD with as many moves, for comparison.
const GRADIENT: [(&str, f64); 2] = [("FGD, moves ≤ 1 %", 0.01), ("FGD, 1 move", 1.0)];

/// Runs of one stream, in the order of the rows; the last is the ceiling's.
fn stream(
    ground: &Ground,
    share: &[f64],
    load: f64,
    gpus: usize,
    size: Size,
    seed: u64,
) -> Result<Vec<Counts>> {
    let slices = SLICES * gpus as f64;
    let phase = Phase::new(share, size.warmup + size.arrivals);
    let trace = |movable| Trace::poisson(seed, std::slice::from_ref(&phase), &SIZE, load * slices, movable);
    let (all, half) = (trace(1.0), trace(0.5));
    let same = all.jobs.iter().zip(&half.jobs).all(|(a, b)| a.demand == b.demand);
    anyhow::ensure!(same && all.jobs.len() == half.jobs.len(), "the streams of seed {seed} are not paired");
    let cards = vec![0; gpus];
    let mut found = Vec::new();
    for (_, table) in ground.rules(share) {
        found.push(play(&all, SIZE.len(), size.warmup, &mut Player::new(&table, &cards, &SIZE, 0.0)));
    }
    let gradient = Table::of_values(&ground.states, Values::fragmentation(&ground.states, share));
    for (_, moves) in GRADIENT {
        found.push(play(&all, SIZE.len(), size.warmup, &mut Player::new(&gradient, &cards, &SIZE, moves)));
    }
    for variant in VARIANTS {
        let setup = Setup {
            cards: vec![cards::hopper()],
            gpus: cards.clone(),
            worth: SIZE.to_vec(),
            life: vec![0; SIZE.len()],
            moves: variant.moves,
            movable: variant.movable,
            seed,
        };
        let mut played = Played::new(&setup, variant.learns.then_some(Effort::ONLINE))?;
        let trace = if variant.movable < 1.0 { &half } else { &all };
        found.push(play(trace, SIZE.len(), size.warmup, &mut played));
    }
    let mut repack = Repack::new(&ground.fit, gpus as u64, SIZE.len());
    found.push(play(&all, SIZE.len(), size.warmup, &mut repack));
    Ok(found)
}

/// Measures and prints.
pub fn run(ground: &Ground, mixes: &[String], loads: &[f64], gpus: usize, size: Size) -> Result<Value> {
    let mut written = Vec::new();
    let mut means = Vec::new();
    for &load in loads {
        let mut closed = vec![Vec::new(); VARIANTS.len()];
        for name in mixes {
            let share = share(name)?;
            let started = Instant::now();
            let runs = work::all(&format!("{name}, load {load}"), &size.streams(), |&seed| {
                stream(ground, &share, load, gpus, size, seed)
            })?;
            let rules = ground.rules(&share);
            let names = rules.iter().map(|(name, _)| *name).chain(GRADIENT.map(|(name, _)| name));
            let names = names.chain(VARIANTS.iter().map(|variant| variant.name)).chain(["perfect repacking"]);
            let mut rows: Vec<Row> = names.map(Row::new).collect();
            for counts in runs {
                rows.iter_mut().zip(counts).for_each(|(row, counts)| row.runs.push(counts));
            }
            let Some((top, others)) = rows.split_last() else { continue };
            let against = Baseline::of(&others[..rules.len()], top);
            println!(
                "\n{name}, load {load}, {gpus} GPUs, {} × {} jobs: best rule {} ({:.0} s)",
                size.seeds,
                size.arrivals,
                against.best.policy,
                started.elapsed().as_secs_f64()
            );
            let lines = against.print(&rows);
            written.push(json!({ "mix": name, "load": load, "gpus": gpus, "best_rule": against.best.policy, "rows": lines }));
            let ours = &others[others.len() - VARIANTS.len()..];
            closed.iter_mut().zip(ours).for_each(|(all, row)| all.push(against.gap_closed(row).mean));
        }
        for (variant, all) in VARIANTS.iter().zip(closed) {
            let (least, most) = all.iter().fold((f64::MAX, f64::MIN), |(a, b), x| (a.min(*x), b.max(*x)));
            let mean = all.iter().sum::<f64>() / all.len() as f64;
            means.push(json!({ "load": load, "policy": variant.name, "gap_closed_percent": mean, "least": least, "most": most }));
        }
    }
    println!("\ngap closed, mean over the mixes [least..most]");
    for line in &means {
        let number = |key: &str| line[key].as_f64().unwrap_or(f64::NAN);
        println!(
            "  load {:<4} {:<26} {:>6.1} % [{:.1}..{:.1}]",
            number("load"),
            line["policy"].as_str().unwrap_or_default(),
            number("gap_closed_percent"),
            number("least"),
            number("most")
        );
    }
    Ok(json!({ "tables": written, "means": means }))
}
