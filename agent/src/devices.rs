//! `vingt-agent devices`: what NVML shows to whoever runs it. Inside a
//! container it is the proof of what the container holds. It asks nothing that
//! needs privileges, so placements are shown only where the driver tells them.

use std::ffi::OsStr;
use std::fmt::Write;

use serde::Serialize;

use crate::nvml::{Fault, Placement, Session};

/// A GPU as it is seen from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenGpu {
    /// Minor number.
    pub minor: u32,
    /// UUID.
    pub uuid: String,
    /// Product name.
    pub product: String,
    /// Memory of the whole GPU, in MiB, where the driver tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
    /// The partitions that are visible.
    pub partitions: Vec<SeenPartition>,
}

/// A partition as it is seen from here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SeenPartition {
    /// UUID of the MIG device.
    pub uuid: String,
    /// Profile, such as `1g.10gb`.
    pub profile: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Id of the GPU instance.
    pub gpu_instance: u32,
    /// Id of the compute instance.
    pub compute_instance: u32,
    /// Where it lies, in memory slices, where the driver tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<Placement>,
}

/// Opens `library` and lists what it shows.
pub fn seen(library: &OsStr) -> Result<Vec<SeenGpu>, Fault> {
    Session::open(library)?.seen()
}

/// As columns: a line per GPU, and under it one per partition.
pub fn table(gpus: &[SeenGpu]) -> String {
    let mut text = String::new();
    let mut line = |columns: [&str; 5]| {
        let [device, profile, memory, placement, uuid] = columns;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{device:<34}{profile:<14}{memory:>10}  {placement:<10}{uuid}");
    };
    line(["DEVICE", "PROFILE", "MEMORY", "PLACEMENT", "UUID"]);
    for gpu in gpus {
        let memory = gpu.memory_mib.map(|mib| format!("{mib} MiB")).unwrap_or_default();
        line([&format!("gpu-{} {}", gpu.minor, gpu.product), "", &memory, "", &gpu.uuid]);
        for partition in &gpu.partitions {
            let memory = format!("{} MiB", partition.memory_mib);
            let placement =
                partition.placement.map(|at| format!("{}+{}", at.start, at.size)).unwrap_or_default();
            let device = format!("  gi{} ci{}", partition.gpu_instance, partition.compute_instance);
            line([&device, &partition.profile, &memory, &placement, &partition.uuid]);
        }
    }
    if gpus.is_empty() {
        text.push_str("(no GPU is visible)\n");
    }
    text
}
