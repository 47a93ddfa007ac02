//! Facts about the node that are not about its GPUs.

use std::path::Path;

/// The id that the kernel gives each boot; `None` where there is none to read.
pub(crate) fn boot_id(proc_root: &Path) -> Option<String> {
    let text = std::fs::read_to_string(proc_root.join("sys/kernel/random/boot_id")).ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}
