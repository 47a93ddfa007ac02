//! Building the parts of the lab: the Kubernetes binaries from their Go
//! modules (`e2e/kube`), vingt's own with cargo.

pub mod go;
pub mod rust;

mod progress;

pub use progress::Progress;

use std::path::{Path, PathBuf};

/// Root of the source tree this program was built from.
pub fn workspace() -> PathBuf {
    let manifest = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().map(PathBuf::from).unwrap_or(manifest)
}

/// Whether a file's name ends in `.<extension>`.
pub(crate) fn has_extension(file: &str, extension: &str) -> bool {
    Path::new(file).extension().is_some_and(|found| found == extension)
}
