//! Device nodes: which, and with what numbers, as the driver's files in
//! `/proc` say; the node's own `/dev` may be incomplete.

use std::fs;
use std::path::Path;

use super::{CdiConfig, CdiDevice, DeviceNode, node};

/// Major number of `/dev/nvidia*`, assigned for good.
const NVIDIA_MAJOR: u32 = 195;
/// Minor number of `/dev/nvidiactl`.
const CONTROL_MINOR: u32 = 255;
const READ_WRITE: u32 = 0o666;

/// The nodes that make one device.
pub(super) fn of_device(config: &CdiConfig, device: &CdiDevice) -> Result<Vec<DeviceNode>, String> {
    let minor = device.minor;
    let mut nodes = vec![node(format!("/dev/nvidia{minor}"), NVIDIA_MAJOR, minor, READ_WRITE)];
    if let Some((gi, ci)) = device.partition {
        let major = major(&config.proc_root, "nvidia-caps")
            .map_err(|why| format!("{why}; does the driver support MIG?"))?;
        let mig = config.proc_root.join(format!("driver/nvidia/capabilities/gpu{minor}/mig/gi{gi}"));
        for access in [mig.join("access"), mig.join(format!("ci{ci}/access"))] {
            let capability = capability(&access)?;
            let path = format!("/dev/nvidia-caps/nvidia-cap{}", capability.minor);
            nodes.push(node(path, major, capability.minor, capability.mode));
        }
    }
    Ok(nodes)
}

/// The nodes that every container with one of our devices needs. Without `nvidia-uvm` no CUDA program
/// starts, so a container is better not started either.
pub(super) fn common(config: &CdiConfig) -> Result<Vec<DeviceNode>, String> {
    let major = major(&config.proc_root, "nvidia-uvm")
        .map_err(|why| format!("{why}: nvidia-uvm is not loaded: run nvidia-modprobe -u -c0"))?;
    Ok(vec![
        node("/dev/nvidiactl".to_owned(), NVIDIA_MAJOR, CONTROL_MINOR, READ_WRITE),
        node("/dev/nvidia-uvm".to_owned(), major, 0, READ_WRITE),
        node("/dev/nvidia-uvm-tools".to_owned(), major, 1, READ_WRITE),
    ])
}

struct Capability {
    minor: u32,
    mode: u32,
}

/// Reads a capability's `access` file: `DeviceFileMinor: 3`, `DeviceFileMode: 292`, a line each.
fn capability(access: &Path) -> Result<Capability, String> {
    let text = fs::read_to_string(access).map_err(|error| {
        format!("{}: {error}; is the driver's /proc visible to the agent?", access.display())
    })?;
    let field = |name: &str| {
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.trim_start_matches(':').trim().parse().ok());
        value.ok_or_else(|| format!("{}: no {name} in it", access.display()))
    };
    Ok(Capability { minor: field("DeviceFileMinor")?, mode: field("DeviceFileMode")? })
}

/// Major number of a character device by its name in `/proc/devices`.
fn major(proc_root: &Path, name: &str) -> Result<u32, String> {
    let path = proc_root.join("devices");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let characters = text.lines().take_while(|line| !line.starts_with("Block devices"));
    let mut found = characters.filter_map(|line| {
        let (number, device) = line.trim().split_once(' ')?;
        (device.trim() == name).then(|| number.parse().ok())?
    });
    found.next().ok_or_else(|| format!("{}: no character device {name}", path.display()))
}
