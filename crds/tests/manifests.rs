//! The committed manifests and API reference are what the types generate.

use std::path::Path;

use vingt_crds::manifests;

/// To update them: `cargo run -p vingt-crds`, then review the diff.
#[test]
fn committed_files_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (path, text) in manifests::files().unwrap() {
        let committed = std::fs::read_to_string(root.join(&path)).unwrap_or_default();
        assert!(committed == text, "{path} is stale: run `cargo run -p vingt-crds`");
    }
}
