//! The binary `vingt-agent`: prints its version until it has commands.

fn main() {
    println!("vingt-agent {}", env!("CARGO_PKG_VERSION"));
}
