//! How long one decision takes, by the number of GPUs. The median of many
//! batches; the clock is read here, not in the library.

use std::hint::black_box;
use std::time::Instant;

use serde_json::{Value, json};
use vingt_core::policy::{Features, prior};
use vingt_core::simulate::{Phase, Player, Random, Table, Trace, run as play};
use vingt_core::states::GpuSet;

use crate::mixes::{Ground, MIXES, SIZE, SLICES};

const GPUS: [usize; 3] = [100, 1_000, 10_000];
/// Decisions in a batch.
const BATCH: usize = 1_000;

/// Measures and prints.
pub fn run(ground: &Ground, quick: bool) -> Value {
    let batches = if quick { 21 } else { 401 };
    let share = MIXES[0].1;
    let features = Features::promises(&ground.classes, &prior::HORIZONS, &[1.0; 6]);
    let values = features.values(&prior::CONSTANTS.weights(&features, &share, &SIZE));
    let table = Table::of_values(&ground.classes, values);
    let mut lines = Vec::new();
    println!("\nlatency, median of {batches} batches of {BATCH}, one thread");
    for gpus in GPUS {
        let slices = SLICES * gpus as f64;
        let filling = Trace::poisson(1, &[Phase::new(&share, gpus * 12)], &SIZE, 0.95 * slices, 1.0);
        let mut player = Player::new(&table, &vec![0; gpus], &SIZE, 0.0);
        play(&filling, SIZE.len(), 0, &mut player);
        let cluster = player.cluster().clone();
        let mut random = Random::new(2);
        let demands: Vec<usize> = (0..BATCH).map(|_| random.pick(&share)).collect();
        let per_decision = |work: &mut dyn FnMut(usize)| {
            let mut times: Vec<f64> = (0..batches)
                .map(|_| {
                    let started = Instant::now();
                    for &demand in &demands {
                        work(demand);
                    }
                    started.elapsed().as_nanos() as f64 / BATCH as f64
                })
                .collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let choose = per_decision(&mut |demand| {
            black_box(table.ranking.choose(&cluster, black_box(demand)));
        });
        // As when half of the GPUs are on nodes that will not do.
        let mut eligible = GpuSet::new(gpus);
        (0..gpus).filter(|gpu| gpu / 8 % 2 == 0).for_each(|gpu| eligible.insert(gpu));
        let among = per_decision(&mut |demand| {
            black_box(table.ranking.choose_among(&cluster, black_box(demand), &eligible));
        });
        // A decision with its consequences: placed, and taken off again.
        let mut cluster = cluster.clone();
        let place = per_decision(&mut |demand| {
            if let Some(spot) = table.ranking.choose(&cluster, black_box(demand)) {
                cluster.set(spot.gpu, spot.after);
                cluster.take(spot.gpu, spot.device);
            }
        });
        println!(
            "  {gpus:>6} GPUs: {choose:.0} ns to decide, {among:.0} ns among half of them, {place:.0} ns to decide, place and take off again"
        );
        lines.push(json!({ "gpus": gpus, "decide_ns": choose, "decide_among_half_ns": among, "place_and_take_ns": place }));
    }
    json!(lines)
}
