//! The other side of the emulator, for tests and labs: making a node, injecting faults, playing processes, and
//! looking at what is where without asking NVML.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::faults::{Action, Fault, Moment};
use crate::mig::mode;
use crate::node::NodeDescription;
use crate::state::Process;
use crate::store::{Store, StoreError};

/// The emulator under one root.
#[derive(Debug)]
pub struct Emulator {
    store: Store,
}

/// What is on one GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Occupancy {
    /// Minor number of the GPU.
    pub minor: u32,
    /// Its UUID.
    pub uuid: String,
    /// Whether it is in MIG mode.
    pub mig: bool,
    /// Its GPU instances, by id; those without a compute instance too.
    pub partitions: Vec<Partition>,
    /// The processes on it.
    pub processes: Vec<Process>,
}

/// A GPU instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// GPU instance id; used again after the instance is gone.
    pub id: u32,
    /// Never used again on this node.
    pub serial: u32,
    /// Name of the profile, e.g. `1g.10gb`.
    pub profile: String,
    /// GPU instance profile id, e.g. 19.
    pub profile_id: u32,
    /// First memory slice.
    pub start: u32,
    /// Number of memory slices.
    pub size: u32,
    /// UUIDs of the MIG devices in it, one per compute instance. The same for all that are ever made in one place.
    pub uuids: Vec<String>,
}

/// The shared library that cargo built with `program`, a test or a binary of the same target folder.
pub fn library_built_with(program: &Path) -> Option<PathBuf> {
    let folder = program.parent()?;
    // Cargo builds into `deps`; what lies above is a copy that only some commands bring up to date.
    let candidates = [folder.join("deps"), folder.to_owned()];
    candidates.into_iter().map(|folder| folder.join("libnvml_emulator.so")).find(|library| library.exists())
}

impl Emulator {
    /// Makes a node under `root`, replacing what was there: after this it has just booted.
    pub fn init(root: &Path, node: &NodeDescription) -> Result<Self, StoreError> {
        Ok(Self { store: Store::create(root, node)? })
    }

    /// Uses the node under `root`; boots it if there is only a `node.yaml`.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        Ok(Self { store: Store::open(root)? })
    }

    /// Lets the `nth` call (from now on, 1 is the next one) of `function` fail. The function is the exact C name the
    /// client calls, e.g. `nvmlDeviceCreateGpuInstanceWithPlacement`, or [`ANY`](crate::ANY).
    pub fn inject(&self, function: &str, nth: u64, action: Action, moment: Moment) -> Result<(), StoreError> {
        let fault =
            Fault { function: function.to_owned(), remaining: nth.max(1), action, moment, fired_in: None };
        self.store.change(|state| {
            state.faults.push(fault);
            Ok(())
        })
    }

    /// The faults injected since the last [`Self::clear_faults`], fired ones too.
    pub fn faults(&self) -> Result<Vec<Fault>, StoreError> {
        Ok(self.store.snapshot()?.faults.clone())
    }

    /// Takes all faults back.
    pub fn clear_faults(&self) -> Result<(), StoreError> {
        self.store.change(|state| {
            state.faults.clear();
            Ok(())
        })
    }

    /// Puts a process on a GPU (`instance` is `None`) or on a MIG device (GPU and compute instance id).
    pub fn add_process(
        &self,
        minor: u32,
        instance: Option<(u32, u32)>,
        pid: u32,
        memory_bytes: u64,
    ) -> Result<(), StoreError> {
        self.store.change(|state| {
            let gpu = state.gpu_mut(minor)?;
            let exists = match instance {
                None => !gpu.mig,
                Some(ids) => gpu.mig_devices().any(|(instance, compute)| (instance.id, compute.id) == ids),
            };
            if !exists {
                return Err(crate::Code::NotFound);
            }
            gpu.processes.push(Process { pid, memory_bytes, instance });
            Ok(())
        })
    }

    /// Takes a process off all GPUs.
    pub fn remove_process(&self, pid: u32) -> Result<(), StoreError> {
        self.store.change(|state| {
            for gpu in &mut state.gpus {
                gpu.processes.retain(|process| process.pid != pid);
            }
            Ok(())
        })
    }

    /// Resets an idle GPU, so that a pending MIG mode becomes the mode (an A100 needs this).
    pub fn reset_gpu(&self, minor: u32) -> Result<(), StoreError> {
        self.store.change(|state| mode::reset(state.gpu_mut(minor)?))
    }

    /// What is on every GPU, by minor number.
    pub fn occupancy(&self) -> Result<Vec<Occupancy>, StoreError> {
        let state = self.store.snapshot()?;
        let mut all = Vec::new();
        for gpu in &state.gpus {
            let card = gpu.card()?;
            let mut partitions = Vec::new();
            for instance in &gpu.instances {
                let profile = instance.profile(card)?;
                partitions.push(Partition {
                    id: instance.id,
                    serial: instance.serial,
                    profile: profile.name.clone(),
                    profile_id: profile.id,
                    start: instance.start,
                    size: profile.memory_slices,
                    uuids: instance.compute.iter().map(|compute| compute.uuid.clone()).collect(),
                });
            }
            all.push(Occupancy {
                minor: gpu.minor,
                uuid: gpu.uuid.clone(),
                mig: gpu.mig,
                partitions,
                processes: gpu.processes.clone(),
            });
        }
        Ok(all)
    }
}
