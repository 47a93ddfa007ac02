//! Building the parts of the lab: the Kubernetes binaries from their Go
//! modules (`e2e/kube`), vingt's own with cargo.

pub mod go;
pub mod rust;

mod progress;

pub use progress::Progress;

use std::path::PathBuf;

/// Root of the source tree this program was built from.
pub fn workspace() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}
