//! The committed CRD manifests are what the types generate.

use std::path::Path;

use vingt_crds::manifests;

/// To update them: `cargo run -p vingt-crds`, then review the diff.
#[test]
fn committed_manifests_are_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in manifests::FOLDERS {
        for (name, text) in manifests::files().unwrap() {
            let path = root.join(folder).join(name);
            let committed = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(committed == text, "{} is stale: run `cargo run -p vingt-crds`", path.display());
        }
    }
}
