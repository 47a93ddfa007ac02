//! Facts about the node that are not about its GPUs.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::journal::Boot;

/// This boot of the node, and this loading of the driver.
pub(crate) fn boot(proc_root: &Path, sys_root: &Path) -> Boot {
    Boot { boot_id: boot_id(proc_root), driver_id: driver_id(sys_root) }
}

/// Tells one loading of the driver's kernel module from the next; `None` where none is loaded.
///
/// The module's folder in sysfs has one inode number as long as the module is loaded, and the kernel
/// hands these numbers out in a circle. (Those of `/proc` are used again at once, and the times of
/// both only say when they were last looked at.)
fn driver_id(sys_root: &Path) -> Option<String> {
    let folder = std::fs::metadata(sys_root.join("module/nvidia")).ok()?;
    Some(folder.ino().to_string())
}

/// The id that the kernel gives each boot; `None` where there is none to read.
fn boot_id(proc_root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(proc_root.join("sys/kernel/random/boot_id")).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}
