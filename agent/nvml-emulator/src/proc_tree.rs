//! The part of `/proc` that the NVIDIA kernel module would show, kept under `proc/` of the emulator's root: the MIG
//! capabilities with their device minors, and the tables that name devices. Always rebuilt from the state, so that
//! it can be repaired at any time; never read back.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::state::{MAX_GPUS, State};
use crate::store::{StoreError, io_at, replace};

/// Device major of the capability nodes.
const CAPS_MAJOR: u32 = 236;
/// GPU instance ids go from 0 to 14, compute instance ids from 0 to 7.
const GPU_INSTANCES: u32 = 15;
const COMPUTE_INSTANCES: u32 = 8;

/// Device minor of the right to change MIG: `mig/config`.
pub(crate) const CONFIG_MINOR: u32 = 1;
/// Device minor of the right to see all of a GPU in MIG mode: `mig/monitor`.
pub(crate) const MONITOR_MINOR: u32 = 2;

/// Device minor of a GPU instance.
pub(crate) fn gpu_instance_minor(gpu: u32, instance: u32) -> u32 {
    3 + (gpu * GPU_INSTANCES + instance) * (COMPUTE_INSTANCES + 1)
}

/// Device minor of a compute instance.
pub(crate) fn compute_instance_minor(gpu: u32, instance: u32, compute: u32) -> u32 {
    gpu_instance_minor(gpu, instance) + 1 + compute
}

/// Whether the trees of the two states differ.
pub(crate) fn differ(old: &State, new: &State) -> bool {
    capabilities(old) != capabilities(new)
}

/// Makes the tree what the state says. The caller holds the lock.
pub(crate) fn sync(root: &Path, state: &State) -> Result<(), StoreError> {
    let proc = root.join("proc");
    let driver = proc.join("driver/nvidia");
    put(&proc.join("devices"), &devices())?;
    put(&proc.join("driver/nvidia-caps/mig-minors"), &mig_minors())?;
    put(&driver.join("version"), &version(state))?;
    for gpu in &state.gpus {
        let card = gpu.card()?;
        let folder = gpu.pci_bus_id().to_lowercase().replacen("0000", "", 1);
        let text = format!(
            "Model: \t\t {}\nIRQ:   \t\t {}\nGPU UUID: \t {}\nBus Type: \t PCIe\nBus Location: \t {folder}\nDevice Minor: \t {}\n",
            card.product_name,
            100 + gpu.minor,
            gpu.uuid,
            gpu.minor,
        );
        put(&driver.join("gpus").join(folder).join("information"), &text)?;
    }

    sync_capabilities(root, state)
}

/// The part of [`sync`] that changes while the node runs.
pub(crate) fn sync_capabilities(root: &Path, state: &State) -> Result<(), StoreError> {
    let wanted = capabilities(state);
    let caps = root.join("proc/driver/nvidia/capabilities");
    for (path, minor) in &wanted {
        let owner_only = path.starts_with("mig/");
        put(&caps.join(path), &access(*minor, owner_only))?;
    }
    let mut present: BTreeSet<&str> = BTreeSet::new();
    for path in wanted.keys() {
        present.insert(path);
        present.extend(path.match_indices('/').map(|(at, _)| &path[..at]));
    }
    for gpu in &state.gpus {
        let mig = format!("gpu{}/mig", gpu.minor);
        fs::create_dir_all(caps.join(&mig)).map_err(io_at(&caps.join(&mig)))?;
        prune(&caps, &mig, &present)?;
    }
    Ok(())
}

/// The capability files by their path under `capabilities`, with their device minors.
fn capabilities(state: &State) -> BTreeMap<String, u32> {
    let mut files =
        BTreeMap::from([("mig/config".to_owned(), CONFIG_MINOR), ("mig/monitor".to_owned(), MONITOR_MINOR)]);
    for gpu in &state.gpus {
        for instance in &gpu.instances {
            let folder = format!("gpu{}/mig/gi{}", gpu.minor, instance.id);
            files.insert(format!("{folder}/access"), gpu_instance_minor(gpu.minor, instance.id));
            for compute in &instance.compute {
                files.insert(
                    format!("{folder}/ci{}/access", compute.id),
                    compute_instance_minor(gpu.minor, instance.id, compute.id),
                );
            }
        }
    }
    files
}

/// Removes what is below `parent` and not to be there, halves of files included.
fn prune(caps: &Path, parent: &str, present: &BTreeSet<&str>) -> Result<(), StoreError> {
    let folder = caps.join(parent);
    for entry in fs::read_dir(&folder).map_err(io_at(&folder))? {
        let entry = entry.map_err(io_at(&folder))?;
        let is_folder = entry.file_type().map_err(io_at(&folder))?.is_dir();
        let path = format!("{parent}/{}", entry.file_name().to_string_lossy());
        match (present.contains(path.as_str()), is_folder) {
            (true, true) => prune(caps, &path, present)?,
            (true, false) => {}
            (false, true) => fs::remove_dir_all(entry.path()).map_err(io_at(&entry.path()))?,
            (false, false) => fs::remove_file(entry.path()).map_err(io_at(&entry.path()))?,
        }
    }
    Ok(())
}

/// Writes a file, with its folders, unless it already says so.
fn put(path: &Path, content: &str) -> Result<(), StoreError> {
    match fs::read(path) {
        Ok(present) if present == content.as_bytes() => return Ok(()),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent).map_err(io_at(parent))?;
            }
        }
        Err(error) => return Err(io_at(path)(error)),
    }
    replace(path, content.as_bytes())
}

/// Modes as the kernel module prints them, in decimal: 256 is 0400, 292 is 0444.
fn access(minor: u32, owner_only: bool) -> String {
    let mode = if owner_only { 0o400 } else { 0o444 };
    format!("DeviceFileMinor: {minor}\nDeviceFileMode: {mode}\nDeviceFileModify: 1\n")
}

fn devices() -> String {
    format!(
        "Character devices:\n  1 mem\n  5 /dev/tty\n195 nvidia\n195 nvidia-modeset\n195 nvidiactl\n{CAPS_MAJOR} nvidia-caps\n\
         237 nvidia-nvswitch\n238 nvidia-nvlink\n510 nvidia-uvm\n\nBlock devices:\n259 blkext\n"
    )
}

fn version(state: &State) -> String {
    format!(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  emulated\nGCC version:  none\n",
        state.driver_version
    )
}

fn mig_minors() -> String {
    let mut text = format!("config {CONFIG_MINOR}\nmonitor {MONITOR_MINOR}\n");
    for gpu in 0..MAX_GPUS {
        for instance in 0..GPU_INSTANCES {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "gpu{gpu}/gi{instance}/access {}", gpu_instance_minor(gpu, instance));
            for compute in 0..COMPUTE_INSTANCES {
                let minor = compute_instance_minor(gpu, instance, compute);
                let _ = writeln!(text, "gpu{gpu}/gi{instance}/ci{compute}/access {minor}");
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minors_are_numbered_as_the_kernel_module_does() {
        let text = mig_minors();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(&lines[..4], ["config 1", "monitor 2", "gpu0/gi0/access 3", "gpu0/gi0/ci0/access 4"]);
        assert!(lines.contains(&"gpu0/gi1/access 12"));
        assert!(lines.contains(&"gpu1/gi0/access 138"));
        let minors: BTreeSet<&str> = lines.iter().filter_map(|line| line.rsplit(' ').next()).collect();
        assert_eq!(minors.len(), lines.len(), "a minor is used twice");
    }
}
