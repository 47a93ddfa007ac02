//! What `cargo lab bench` measures, in the release profile: a program of its
//! own, so that nothing of the lab is built for it. It needs no cluster.

// Counts of jobs, slices and nanoseconds are far below 2^53.
#![allow(clippy::cast_precision_loss)]

mod drift;
mod latency;
mod lives;
mod mixes;
mod openb;
mod placement;
mod prior;
mod report;
mod table;
mod work;

use clap::{Parser, Subcommand};

/// Benchmarks that need no cluster.
#[derive(Parser)]
#[command(name = "cargo lab bench", bin_name = "cargo lab bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Placement policies against one another and against perfect repacking, on the same streams of jobs.
    Placement(placement::Options),
    /// Search the constants of the values that need no learning, on random mixes.
    Prior(prior::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Placement(options) => placement::run(&options),
        What::Prior(options) => prior::run(&options),
    }
}
