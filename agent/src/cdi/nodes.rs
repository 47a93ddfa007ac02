//! Device nodes: which, and with what numbers, as the driver's files in
//! `/proc` and the node's `/dev` say.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
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
        let major = major(&config.proc_root, "nvidia-caps")?;
        let mig = config.proc_root.join(format!("driver/nvidia/capabilities/gpu{minor}/mig/gi{gi}"));
        for access in [mig.join("access"), mig.join(format!("ci{ci}/access"))] {
            let capability = capability(&access)?;
            let path = format!("/dev/nvidia-caps/nvidia-cap{}", capability.minor);
            nodes.push(node(path, major, capability.minor, capability.mode));
        }
    }
    Ok(nodes)
}

/// The nodes that every container with one of our devices needs.
pub(super) fn common(config: &CdiConfig) -> Vec<DeviceNode> {
    let mut nodes = vec![node("/dev/nvidiactl".to_owned(), NVIDIA_MAJOR, CONTROL_MINOR, READ_WRITE)];
    for name in ["nvidia-uvm", "nvidia-uvm-tools"] {
        // Their major number is assigned at boot: taken from the node itself.
        let Ok(found) = fs::metadata(config.driver_root.join("dev").join(name)) else { continue };
        if found.file_type().is_char_device() {
            let device = found.rdev();
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            nodes.push(node(format!("/dev/{name}"), major, minor, READ_WRITE));
        }
    }
    nodes
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
    found.next().ok_or_else(|| {
        format!("{}: no character device {name}; does the driver support MIG?", path.display())
    })
}
