//! The listing that needs no privileges: MIG devices by their handles.

use super::fault::{Fault, code};
use super::session::Session;
use crate::devices::{SeenGpu, SeenPartition};

const MIB: u64 = 1 << 20;

impl Session {
    /// Every GPU and MIG device that is visible to this process.
    pub(crate) fn seen(&self) -> Result<Vec<SeenGpu>, Fault> {
        let nvml = self.raw().nvml();
        let count = nvml.device_count().map_err(|error| Fault::of("nvmlDeviceGetCount_v2", error))?;
        (0..count).map(|index| self.seen_gpu(index)).collect()
    }

    fn seen_gpu(&self, index: u32) -> Result<SeenGpu, Fault> {
        let handle = self.raw().gpu(index)?;
        let device = self.raw().device(handle);
        let mut partitions = Vec::new();
        for slot in 0..device.mig_device_count().unwrap_or(0) {
            // Indices can have holes.
            let mig = match device.mig_device_by_index(slot) {
                Ok(mig) => mig,
                Err(error) => match Fault::of("nvmlDeviceGetMigDeviceHandleByIndex", error) {
                    fault if fault.is(code::NOT_FOUND) || fault.is(code::NOT_SUPPORTED) => continue,
                    fault => return Err(fault),
                },
            };
            let (gpu_instance, compute_instance) = self.raw().instance_ids(&mig)?;
            let name = mig.name().map_err(|error| Fault::of("nvmlDeviceGetName", error))?;
            let memory = mig.memory_info().map_err(|error| Fault::of("nvmlDeviceGetMemoryInfo_v2", error))?;
            let placement = self.raw().gi_by_id(handle, gpu_instance).and_then(|gi| self.raw().gi_info(gi));
            partitions.push(SeenPartition {
                uuid: mig.uuid().map_err(|error| Fault::of("nvmlDeviceGetUUID", error))?,
                // The driver names a MIG device `<product> MIG <profile>`.
                profile: name.rsplit_once("MIG ").map_or(name.as_str(), |(_, profile)| profile).to_owned(),
                memory_mib: memory.total / MIB,
                gpu_instance,
                compute_instance,
                placement: placement.ok().map(|info| info.placement),
            });
        }
        Ok(SeenGpu {
            minor: device.minor_number().map_err(|error| Fault::of("nvmlDeviceGetMinorNumber", error))?,
            uuid: device.uuid().map_err(|error| Fault::of("nvmlDeviceGetUUID", error))?,
            product: device.name().map_err(|error| Fault::of("nvmlDeviceGetName", error))?,
            // In MIG mode the whole GPU's memory is told to the privileged only: not inside a container.
            memory_mib: device.memory_info().ok().map(|memory| memory.total / MIB),
            partitions,
        })
    }
}
