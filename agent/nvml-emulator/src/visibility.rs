//! What a process can see and do, by the device nodes in its `/dev`: with the real driver these are the
//! permission. `VINGT_EMULATOR_DEV` names the folder to look in; without it everything is allowed.

use std::path::PathBuf;

use crate::proc_tree::{CONFIG_MINOR, MONITOR_MINOR, compute_instance_minor, gpu_instance_minor};
use crate::state::{ComputeInstance, Gpu, GpuInstance};

/// The device nodes of the process.
#[derive(Debug)]
pub(crate) struct Visibility {
    dev: Option<PathBuf>,
}

impl Visibility {
    pub fn new(dev: Option<PathBuf>) -> Self {
        Self { dev }
    }

    pub fn gpu(&self, gpu: &Gpu) -> bool {
        self.node(&format!("nvidia{}", gpu.minor))
    }

    pub fn gpu_instance(&self, gpu: &Gpu, instance: &GpuInstance) -> bool {
        self.may_monitor() || self.cap(gpu_instance_minor(gpu.minor, instance.id))
    }

    pub fn compute_instance(&self, gpu: &Gpu, instance: &GpuInstance, compute: &ComputeInstance) -> bool {
        self.may_monitor() || self.cap(compute_instance_minor(gpu.minor, instance.id, compute.id))
    }

    /// May change MIG mode and instances, and ask where they are.
    pub fn may_configure(&self) -> bool {
        self.cap(CONFIG_MINOR)
    }

    /// May see all instances of a GPU, and the sum over them.
    pub fn may_monitor(&self) -> bool {
        self.may_configure() || self.cap(MONITOR_MINOR)
    }

    fn cap(&self, minor: u32) -> bool {
        self.node(&format!("nvidia-caps/nvidia-cap{minor}"))
    }

    fn node(&self, name: &str) -> bool {
        self.dev.as_ref().is_none_or(|dev| dev.join(name).exists())
    }
}
