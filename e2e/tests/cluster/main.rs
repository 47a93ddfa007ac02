//! The end-to-end suite: vingt in a real Kubernetes, on virtual nodes with
//! emulated GPUs. One lab is brought up for all trials and torn down at the
//! end; `cargo test -p vingt-e2e --test cluster <words>` runs some of them.
//!
//! No trial of this file needs root; those that do are in `real_node.rs`.

mod agents;
mod audit;
mod bad_input;
mod chart;
mod clients;
mod dump;
mod gangs;
mod geometry;
mod http;
mod ledger;
mod lent;
mod manifests;
mod nodes;
mod operator_crash;
mod path;
mod policies;
mod release;
mod reserves;
mod scheduling;
mod space;
mod suite;
mod tenants;
mod waits;

use libtest_mimic::Arguments;

use suite::Suite;

/// More than there are cores: trials wait most of the time.
const AT_ONCE: usize = 6;

fn main() {
    // Nothing unless RUST_LOG asks for it.
    let filter = std::env::var("RUST_LOG").unwrap_or_else(|_| "off".to_owned());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    let suite = match Suite::new() {
        Ok(suite) => suite,
        Err(error) => {
            eprintln!("the suite cannot start: {error:#}");
            std::process::exit(101);
        }
    };
    // In this order: those that want the cluster for themselves come before the
    // many that share it.
    let trials = [
        chart::trials(&suite),
        operator_crash::trials(&suite),
        scheduling::trials(&suite),
        policies::trials(&suite),
        ledger::trials(&suite),
        lent::trials(&suite),
        reserves::trials(&suite),
        bad_input::trials(&suite),
        gangs::trials(&suite),
        agents::trials(&suite),
        path::trials(&suite),
        waits::trials(&suite),
        tenants::trials(&suite),
        clients::trials(&suite),
        release::trials(&suite),
    ];
    let trials = trials.into_iter().flatten().collect();
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
