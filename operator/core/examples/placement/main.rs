//! The benchmark of placement: policies against one another and against
//! perfect repacking, on the same streams of jobs. Prints tables, and writes
//! what it measured as JSON where it is told to.

// Counts of jobs, slices and nanoseconds are far below 2^53.
#![allow(clippy::cast_precision_loss)]

mod drift;
mod latency;
mod lives;
mod mixes;
mod openb;
mod prior;
mod report;
mod table;

use clap::{Parser, Subcommand};

/// Placement policies, measured on an H100-class geometry.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// All policies on the five mixes, as parts of the gap from the best simple rule to perfect repacking.
    Table(table::Options),
    /// A mix that changes under way.
    Drift(drift::Options),
    /// Jobs of which it is known whether they are short or long.
    Lives(lives::Options),
    /// The openb trace, mapped to partitions.
    Openb(openb::Options),
    /// How long a decision takes.
    Latency(latency::Options),
    /// Searches the constants of the values that need no learning.
    Prior(prior::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().what {
        What::Table(options) => table::run(&options),
        What::Drift(options) => drift::run(&options),
        What::Lives(options) => lives::run(&options),
        What::Openb(options) => openb::run(&options),
        What::Latency(options) => latency::run(&options),
        What::Prior(options) => prior::run(&options),
    }
}
