//! How long decisions take, beside the budgets and beside best fit and first
//! fit in the same run: `cargo bench -p vingt-core`. The figures are in
//! `decisions.json` in the target directory, too. What the decisions are worth is measured by
//! `cargo lab bench placement`.

// Counts are far below 2^53, and a benchmark that cannot set up its world may say so by stopping.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used
)]

mod report;
mod world;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion};
use vingt_core::model::{NodeTerm, Operator, PlacementPolicy, Requirement, Snapshot, Taint, Toleration};
use vingt_core::policy::Scorer;
use vingt_core::{Places, Seat, plan_with, with_places};

/// Decisions that are timed together: a clock costs as much as one.
const BATCH: u64 = 64;

fn main() -> anyhow::Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    placements(&mut criterion);
    constrained(&mut criterion);
    cycles(&mut criterion);
    criterion.final_summary();
    report::write()
}

fn scorer(snapshot: &Snapshot, policy: PlacementPolicy) -> Scorer {
    let mut settings = snapshot.settings.clone();
    settings.placement = policy;
    Scorer::new(&Snapshot { gpus: vec![snapshot.gpus[0].clone()], settings, ..Snapshot::default() })
}

/// One pod of one partition, on a cluster that is 70 % full and stays so.
fn placements(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("placement");
    group.sample_size(30).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    for (gpus, policy) in [
        (1_000, PlacementPolicy::Learned),
        (10_000, PlacementPolicy::Learned),
        (10_000, PlacementPolicy::BestFit),
        (10_000, PlacementPolicy::FirstFit),
    ] {
        let snapshot = world::cluster(gpus, 0.7, 1);
        let scorer = scorer(&snapshot, policy);
        // Partitions with the least CPU: no node is short of anything.
        let shapes: Vec<usize> = (0..4).map(|kind| 3 * kind).collect();
        with_places(&snapshot, &scorer, |places| {
            group.bench_function(BenchmarkId::new(format!("{policy:?}"), gpus), |bencher| {
                bencher.iter_custom(|rounds| timed(places, &shapes, rounds, false));
            });
        });
    }
    group.finish();
}

/// The time that `rounds` placements take; what was placed leaves untimed.
fn timed(places: &mut Places<'_, '_>, shapes: &[usize], rounds: u64, anew: bool) -> Duration {
    let mut passed = Duration::ZERO;
    let mut seats: Vec<Option<Seat>> = Vec::with_capacity(usize::try_from(BATCH).unwrap_or_default());
    let mut done = 0;
    while done < rounds {
        let batch = BATCH.min(rounds - done);
        let start = Instant::now();
        for round in done..done + batch {
            let shape = shapes[usize::try_from(round).unwrap_or_default() % shapes.len()];
            seats.push(if anew { places.place_anew(shape, 1) } else { places.place(shape, 1) });
        }
        passed += start.elapsed();
        done += batch;
        for seat in seats.drain(..).rev() {
            places.leave(seat.expect("the cluster has room for a batch"));
        }
    }
    passed
}

/// One pod whose nodes are few: two zones of three, a taint to be tolerated, and most nodes out of CPU or memory.
fn constrained(criterion: &mut Criterion) {
    let mut snapshot = world::cluster(10_000, 0.7, 1);
    for (at, node) in snapshot.nodes.iter_mut().enumerate() {
        let taint = |key: &str| Taint { key: key.into(), value: String::new(), effect: "NoSchedule".into() };
        node.taints.push(taint(if at % 4 == 0 { "others" } else { "team" }));
        match at % 5 {
            0 | 1 => node.requested.cpu_milli = node.allocatable.cpu_milli,
            2 | 3 => node.requested.memory_bytes = node.allocatable.memory_bytes,
            _ => {}
        }
    }
    let zones =
        Requirement { key: "zone".into(), operator: Operator::In, values: vec!["0".into(), "1".into()] };
    for shape in &mut snapshot.shapes {
        shape.node_terms.push(NodeTerm { labels: vec![zones.clone()], names: Vec::new() });
        shape.tolerations.push(Toleration { key: Some("team".into()), value: None, effect: None });
    }
    let scorer = scorer(&snapshot, PlacementPolicy::Learned);
    let shapes: Vec<usize> = (0..4).map(|kind| 3 * kind).collect();
    let mut group = criterion.benchmark_group("constrained");
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    with_places(&snapshot, &scorer, |places| {
        for (name, anew) in [("next", false), ("first", true)] {
            group.bench_function(BenchmarkId::new(name, snapshot.nodes.len()), |bencher| {
                bencher.iter_custom(|rounds| timed(places, &shapes, rounds, anew));
            });
        }
    });
    group.finish();
}

/// Whole cycles.
fn cycles(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cycle");
    group.sample_size(10).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(4));
    for (name, gpus, full, jobs) in [
        ("free", 10_000, 0.0, 100_000),
        ("busy", 10_000, 0.85, 100_000),
        ("unplaceable", 1_000, 1.0, 10_000),
        ("unplaceable-large", 10_000, 1.0, 10_000),
    ] {
        let mut snapshot = world::cluster(gpus, full, 1);
        world::wait(&mut snapshot, jobs, 1_000, 2);
        let scorer = scorer(&snapshot, PlacementPolicy::Learned);
        group.bench_function(BenchmarkId::new(name, jobs), |bencher| {
            bencher.iter(|| plan_with(&snapshot, &scorer, 4_000_000));
        });
    }
    group.finish();
}
