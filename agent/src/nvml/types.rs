//! What the agent knows of a GPU, as read from NVML: plain data, no calls.

use serde::{Deserialize, Serialize};

/// Where a partition lies, in memory slices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Placement {
    /// First memory slice.
    pub start: u32,
    /// Number of memory slices.
    pub size: u32,
}

impl Placement {
    /// Whether the two share a memory slice.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.start + other.size && other.start < self.start + self.size
    }
}

/// A MIG profile of one GPU, with the sizes its driver states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Profile {
    /// GPU instance profile id (19, 20, 15, …), which is not the profile enumeration.
    pub id: u32,
    /// The driver's name, such as `1g.10gb+me`.
    pub name: String,
    /// Compute slices.
    pub compute_slices: u32,
    /// How many fit on an empty GPU.
    pub max_instances: u32,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Copy engines.
    pub copy_engines: u32,
    /// Video decoders.
    pub decoders: u32,
    /// Video encoders.
    pub encoders: u32,
    /// JPEG engines.
    pub jpeg_engines: u32,
    /// Optical flow accelerators.
    pub ofa_engines: u32,
    /// Where the driver can place it.
    pub placements: Vec<Placement>,
}

/// A compute instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComputeInstance {
    /// Its id within the GPU instance.
    pub id: u32,
    /// UUID of the MIG device that it makes.
    pub uuid: String,
}

/// A GPU instance that exists now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Its id on the GPU; ids of destroyed instances are used again.
    pub id: u32,
    /// GPU instance profile id.
    pub profile_id: u32,
    /// Where it lies.
    pub placement: Placement,
    /// Its compute instances.
    pub compute: Vec<ComputeInstance>,
}

/// The MIG mode of a GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum MigMode {
    /// The GPU has no MIG.
    Unsupported,
    /// Off, now and after the next reset.
    Disabled,
    /// On, now and after the next reset.
    Enabled,
    /// A change waits for a reset of the GPU.
    Pending,
}

/// One GPU and all that is on it now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gpu {
    /// Minor number: `/dev/nvidia<minor>`.
    pub minor: u32,
    /// The driver's UUID of the GPU.
    pub uuid: String,
    /// Product name.
    pub product: String,
    /// Architecture, lower case.
    pub architecture: String,
    /// Whether the MIG mode can be changed without a reset (Hopper and newer).
    pub switches_mig_live: bool,
    /// Brand.
    pub brand: String,
    /// Compute capability, such as `9.0`.
    pub compute_capability: String,
    /// Driver version.
    pub driver_version: String,
    /// Memory of the whole GPU, in MiB.
    pub memory_mib: u64,
    /// MIG mode.
    pub mig: MigMode,
    /// MIG profiles; empty when the driver names none.
    pub profiles: Vec<Profile>,
    /// GPU instances that exist.
    pub instances: Vec<Instance>,
    /// Compute processes on the GPU, its partitions included.
    pub processes: u32,
}

impl Gpu {
    /// The profile with this GPU instance profile id.
    pub fn profile(&self, id: u32) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.id == id)
    }
}

/// A GPU that could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unreadable {
    /// NVML's index of the GPU.
    pub index: u32,
    /// Why.
    pub why: String,
}
