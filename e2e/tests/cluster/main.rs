//! The end-to-end suite: vingt in a real Kubernetes, on virtual nodes with
//! emulated GPUs. One lab is brought up for all trials and torn down at the
//! end; `cargo test -p vingt-e2e --test cluster <words>` runs some of them.
//!
//! No trial of this file needs root; those that do are in `real_node.rs`.

mod chart;
mod http;
mod policies;
mod suite;

use libtest_mimic::Arguments;

use suite::Suite;

/// More than there are cores: trials wait most of the time.
const AT_ONCE: usize = 6;

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let suite = Suite::new();
    // In this order: those that want the cluster for themselves come before the
    // many that share it.
    let trials = [chart::trials(&suite), policies::trials(&suite)].into_iter().flatten().collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    let stopped = suite.stop();
    if let Err(error) = &stopped {
        eprintln!("the lab could not be stopped: {error:#}");
    }
    if stopped.is_err() && !conclusion.has_failed() {
        std::process::exit(101);
    }
    conclusion.exit();
}
