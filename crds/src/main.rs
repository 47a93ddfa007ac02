//! Writes the CRD manifests: `cargo run -p vingt-crds`.

use std::path::Path;

use vingt_crds::manifests;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in manifests::FOLDERS {
        let folder = root.join(folder);
        std::fs::create_dir_all(&folder)?;
        for (name, text) in manifests::files()? {
            std::fs::write(folder.join(name), text)?;
        }
    }
    Ok(())
}
