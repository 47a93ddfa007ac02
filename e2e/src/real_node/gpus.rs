//! The emulated GPUs of the node, and what the chart must be told so that
//! containers get theirs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::emulator;
use crate::layout::Layout;

/// Where a driver's libraries are, in its root folder and in containers.
const LIBRARIES: &str =
    if cfg!(target_arch = "aarch64") { "usr/lib/aarch64-linux-gnu" } else { "usr/lib/x86_64-linux-gnu" };

/// Gives the node of this lab `gpus` cards, see [`emulator::install`], unless
/// it has some: they outlive its restarts.
pub fn install(layout: &Layout, library: &Path, node: &str, gpus: u32, mig: bool) -> Result<()> {
    let folder = layout.real_node().join("gpu");
    if folder.exists() {
        return Ok(());
    }
    emulator::install(library, &folder, node, gpus, mig)?;
    // The folder is a driver's root as well, so that the agent finds the
    // library for containers where it is with a real driver.
    let libraries = folder.join(LIBRARIES);
    fs::create_dir_all(&libraries)?;
    fs::hard_link(folder.join(emulator::LIBRARY), libraries.join(emulator::LIBRARY))
        .with_context(|| format!("cannot put the emulator into {}", libraries.display()))
}

/// Values of the chart with which the agent gives containers the emulator's
/// state, without which its library shows no GPU, and has it hide what the
/// container holds no device node of.
pub fn chart_values(layout: &Layout) -> Value {
    let folder = layout.real_node().join("gpu");
    let folder = folder.display();
    json!({"agent": {"extraArgs": [
        format!("--cdi-mount={folder}:{folder}"),
        format!("--cdi-env=VINGT_EMULATOR_ROOT={folder}"),
        "--cdi-env=VINGT_EMULATOR_DEV=/dev",
    ]}})
}
