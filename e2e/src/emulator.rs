//! Gives a node its emulated GPUs: a folder with the library and a
//! description, where the agent of the node finds both, and their driver loaded.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The card all nodes of the lab have.
const CARD: &str = "h100-sxm5-80gb";
/// The name every client of NVML loads.
pub const LIBRARY: &str = "libnvidia-ml.so.1";

/// Describes `gpus` cards in `folder` and puts the library beside it.
///
/// The library is copied, so that the folder can be mounted into containers.
/// `seed` makes the UUIDs of the node its own.
pub fn install(library: &Path, folder: &Path, seed: &str, gpus: u32, mig: bool) -> Result<()> {
    fs::create_dir_all(folder)?;
    let description = serde_json::json!({
        "seed": seed,
        "gpus": [{"card": CARD, "count": gpus, "mig": mig}],
    });
    fs::write(folder.join("node.yaml"), serde_yaml::to_string(&description)?)?;
    let target = folder.join(LIBRARY);
    // Copying onto a hard link of the library would empty it.
    let _ = fs::remove_file(&target);
    // A copy costs a few megabytes a node; a hard link costs nothing.
    fs::hard_link(library, &target)
        .or_else(|_| fs::copy(library, &target).map(drop))
        .with_context(|| format!("cannot put the emulator into {}", folder.display()))?;
    // A machine with GPUs has its driver loaded when the agent starts; without, the agent takes it for one that has none.
    nvml_emulator::Emulator::open(folder)
        .with_context(|| format!("the emulated GPUs in {} do not start", folder.display()))?;
    Ok(())
}
