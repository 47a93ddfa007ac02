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

/// Whether the node has a GPU of NVIDIA's, or its driver: without either there is nothing to serve.
pub(crate) fn has_nvidia(proc_root: &Path, sys_root: &Path) -> bool {
    if proc_root.join("driver/nvidia").exists() {
        return true;
    }
    let devices = std::fs::read_dir(sys_root.join("bus/pci/devices")).into_iter().flatten().flatten();
    devices.into_iter().any(|device| {
        let read = |name: &str| std::fs::read_to_string(device.path().join(name)).unwrap_or_default();
        // Display controllers; NVIDIA makes other things too.
        read("vendor").trim() == "0x10de" && read("class").starts_with("0x03")
    })
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_gpu_without_a_driver_and_a_driver_without_pci_are_nvidias_and_nothing_else_is() {
        let root = TempDir::new().unwrap();
        let (proc, sys) = (root.path().join("proc"), root.path().join("sys"));
        let pci = |name: &str, vendor: &str, class: &str| {
            let folder = sys.join("bus/pci/devices").join(name);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("vendor"), format!("{vendor}\n")).unwrap();
            std::fs::write(folder.join("class"), format!("{class}\n")).unwrap();
        };
        assert!(!has_nvidia(&proc, &sys));
        pci("0000:00:01.0", "0x8086", "0x030000");
        pci("0000:00:02.0", "0x10de", "0x040300");
        assert!(!has_nvidia(&proc, &sys));
        std::fs::create_dir_all(proc.join("driver/nvidia")).unwrap();
        assert!(has_nvidia(&proc, &sys));
        std::fs::remove_dir_all(&proc).unwrap();
        pci("0000:00:03.0", "0x10de", "0x030200");
        assert!(has_nvidia(&proc, &sys));
    }

    #[test]
    fn a_boot_is_told_by_the_kernels_id_and_the_drivers_folder() {
        let root = TempDir::new().unwrap();
        let boot = || boot(&root.path().join("proc"), &root.path().join("sys"));
        assert_eq!(boot(), Boot::default());
        let id = root.path().join("proc/sys/kernel/random/boot_id");
        std::fs::create_dir_all(id.parent().unwrap()).unwrap();
        std::fs::write(id, "b1\n").unwrap();
        let module = root.path().join("sys/module/nvidia");
        std::fs::create_dir_all(&module).unwrap();
        let first = boot();
        assert_eq!(first.boot_id.as_deref(), Some("b1"));
        assert!(first.driver_id.is_some() && boot() == first);
        // Another folder, while the first one still has its number.
        std::fs::rename(&module, module.with_extension("old")).unwrap();
        std::fs::create_dir(&module).unwrap();
        assert!(boot().ended(&first));
    }
}
