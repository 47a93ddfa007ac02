//! What the tests share: a root with a node in it, and the built library loaded from there.

use std::fs;
use std::path::{Path, PathBuf};

use nvml_emulator::{Emulator, NodeDescription, library_built_with};
use nvml_wrapper::Nvml;
use nvml_wrapper_sys::bindings::NvmlLib;
use tempfile::TempDir;

pub const H100: &str = "h100-sxm5-80gb";

/// A node in a folder of its own, with a copy of the library: a copy in the root needs no environment, so that many
/// nodes fit into one process.
pub struct Node {
    pub folder: TempDir,
    pub emulator: Emulator,
}

impl Node {
    pub fn new(description: &NodeDescription) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let emulator = Emulator::init(folder.path(), description).expect("a node");
        fs::copy(built_library(), folder.path().join("libnvidia-ml.so.1")).expect("a copy of the library");
        Self { folder, emulator }
    }

    pub fn h100s(count: u32, mig: bool) -> Self {
        Self::new(&NodeDescription::of(H100, count, mig))
    }

    pub fn root(&self) -> &Path {
        self.folder.path()
    }

    pub fn library(&self) -> PathBuf {
        self.root().join("libnvidia-ml.so.1")
    }

    /// The library through `nvml-wrapper`.
    pub fn nvml(&self) -> Nvml {
        Nvml::builder().lib_path(self.library().as_os_str()).init().expect("NVML initializes")
    }

    /// The library's C functions, initialized.
    pub fn raw(&self) -> NvmlLib {
        raw(self.root())
    }
}

/// The C functions of the library that lies in a node's root, initialized.
pub fn raw(root: &Path) -> NvmlLib {
    // SAFETY: the library is ours and runs nothing when it is loaded.
    let library = unsafe { NvmlLib::new(root.join("libnvidia-ml.so.1")) }.expect("the library loads");
    // SAFETY: takes no arguments.
    assert_eq!(unsafe { library.nvmlInit_v2() }, 0);
    library
}

fn built_library() -> PathBuf {
    let program = std::env::current_exe().expect("the test program's path");
    library_built_with(&program).expect("the library that cargo builds with the tests")
}
