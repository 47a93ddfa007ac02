//! The driver's user-space files that a container needs, where this node has them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{CdiConfig, on_host};
use crate::driver_root::{LIBRARY_FOLDERS, resolve};

/// Libraries that CUDA programs load, by the names they load them with.
const LIBRARIES: [&str; 9] = [
    "libcuda.so.1",
    "libcudadebugger.so.1",
    "libnvidia-ml.so.1",
    "libnvidia-nvvm.so.4",
    "libnvidia-opencl.so.1",
    "libnvidia-ptxjitcompiler.so.1",
    "libnvcuvid.so.1",
    "libnvidia-encode.so.1",
    "libnvidia-allocator.so.1",
];

/// Libraries that other libraries load, by names that end in the driver's version.
const VERSIONED: [&str; 1] = ["libnvidia-gpucomp.so"];

const PROGRAMS: [&str; 2] = ["usr/bin/nvidia-smi", "usr/bin/nvidia-debugdump"];

/// Where the images that build on NVIDIA's have their loader look, whatever their distribution.
const FOR_ALL_IMAGES: &str = "/usr/local/nvidia/lib64";

/// Mounts by path in the container; values are paths as the container runtime sees them.
///
/// A library goes where this node has it, which is where an image of the same distribution looks, and
/// where any image with NVIDIA's settings does.
pub(super) fn mounts(config: &CdiConfig) -> BTreeMap<PathBuf, PathBuf> {
    let root = &config.driver_root;
    let mut mounts = BTreeMap::new();
    let mut add = |inner: &Path, also: Option<PathBuf>| {
        let found = resolve(root, inner);
        if let Some(file) = &found {
            let places = std::iter::once(Path::new("/").join(inner)).chain(also);
            mounts.extend(places.map(|place| (place, on_host(config, file))));
        }
        found.is_some()
    };
    let mut add_library = |folder: &str, name: &str| {
        add(&Path::new(folder).join(name), Some(Path::new(FOR_ALL_IMAGES).join(name)))
    };
    for library in LIBRARIES {
        LIBRARY_FOLDERS.iter().any(|folder| add_library(folder, library));
    }
    // Loaded by others under names that end in the driver's version.
    for library in VERSIONED {
        let mut found = LIBRARY_FOLDERS.iter().map(|folder| (folder, versioned(&root.join(folder), library)));
        if let Some((folder, names)) = found.find(|(_, names)| !names.is_empty()) {
            for name in names {
                add_library(folder, &name);
            }
        }
    }
    for program in PROGRAMS {
        add(Path::new(program), None);
    }
    mounts
}

fn versioned(folder: &Path, library: &str) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = names
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.strip_prefix(library).is_some_and(|rest| rest.starts_with('.')))
        .collect();
    names.sort();
    names
}
