//! The real node: kubelet, containerd and runc, with emulated GPUs. Needs root
//! on Linux; says loudly that it is skipped without, and CI refuses that.

mod kubectl;
mod partitions;
mod plain;
mod traces;

use std::io::Write;

use vingt_e2e::real_node::host;

/// Whether the tests of this file cannot run here.
fn skipped(test: &str) -> bool {
    let Some(obstacle) = host::obstacle() else { return false };
    // Not by a macro: what those print is hidden when the test succeeds.
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {test}: {obstacle} ***\n");
    assert!(std::env::var_os("CI").is_none(), "{test} must not be skipped in CI: {obstacle}");
    true
}
