//! Handles: what a client holds for a GPU, an instance or a MIG device. They are numbers, never followed: kind, GPU
//! and the serial of the instance, so that the handle of a destroyed instance finds nothing, in any process.
//!
//! Bits 45-46 hold the kind, 40-44 the minor number of the GPU, 32-39 a mark, 0-31 the serial. They look like addresses
//! of user space (clients in Go keep them as pointers) outside of the ranges that Go allocates from.

use std::ffi::c_void;
use std::sync::Arc;

use crate::code::Code;
use crate::session::Session;
use crate::state::{ComputeInstance, Gpu, GpuInstance, State};

const MARK: usize = 0x4e;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gpu,
    GpuInstance,
    ComputeInstance,
    MigDevice,
}

fn pack(kind: Kind, minor: u32, serial: u32) -> *mut c_void {
    let number = (kind as usize) << 45 | (minor as usize & 31) << 40 | MARK << 32 | serial as usize;
    std::ptr::without_provenance_mut(number)
}

fn unpack(handle: *mut c_void, kind: Kind) -> Result<(u32, u32), Code> {
    let number = handle.addr();
    if number >> 45 != kind as usize || number >> 32 & 0xff != MARK {
        return Err(Code::InvalidArgument);
    }
    let minor = u32::try_from(number >> 40 & 31).map_err(|_| Code::Unknown)?;
    let serial = u32::try_from(number & 0xffff_ffff).map_err(|_| Code::Unknown)?;
    Ok((minor, serial))
}

macro_rules! handle {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub(crate) struct $name(*mut c_void);
    };
}

handle! {
    /// `nvmlDevice_t`: a GPU or a MIG device.
    DeviceHandle
}
handle! {
    /// `nvmlGpuInstance_t`.
    GpuInstanceHandle
}
handle! {
    /// `nvmlComputeInstance_t`.
    ComputeInstanceHandle
}

/// What a device handle stands for.
#[derive(Clone, Copy)]
pub(crate) enum Device<'a> {
    Gpu(&'a Gpu),
    Mig(&'a Gpu, &'a GpuInstance, &'a ComputeInstance),
}

impl<'a> Device<'a> {
    /// The GPU, or the GPU of the MIG device.
    pub fn gpu(self) -> &'a Gpu {
        match self {
            Self::Gpu(gpu) | Self::Mig(gpu, _, _) => gpu,
        }
    }
}

impl DeviceHandle {
    pub fn of_gpu(gpu: &Gpu) -> Self {
        Self(pack(Kind::Gpu, gpu.minor, 0))
    }

    pub fn of_mig(gpu: &Gpu, compute: &ComputeInstance) -> Self {
        Self(pack(Kind::MigDevice, gpu.minor, compute.serial))
    }
}

impl GpuInstanceHandle {
    pub fn of(minor: u32, serial: u32) -> Self {
        Self(pack(Kind::GpuInstance, minor, serial))
    }

    /// GPU and serial, whether or not the instance is still there.
    pub fn parts(self) -> Result<(u32, u32), Code> {
        unpack(self.0, Kind::GpuInstance)
    }
}

impl ComputeInstanceHandle {
    pub fn of(minor: u32, serial: u32) -> Self {
        Self(pack(Kind::ComputeInstance, minor, serial))
    }

    /// GPU and serial, whether or not the instance is still there.
    pub fn parts(self) -> Result<(u32, u32), Code> {
        unpack(self.0, Kind::ComputeInstance)
    }
}

/// The state as one call sees it: read once, limited to what the process may see.
pub(crate) struct View<'s> {
    pub session: &'s Session,
    pub state: Arc<State>,
}

impl Session {
    /// The state now, as this process may see it.
    pub fn view(&self) -> Result<View<'_>, Code> {
        let state = self.store.snapshot().map_err(|error| error.code())?;
        Ok(View { session: self, state })
    }
}

impl View<'_> {
    /// The GPUs this process sees; the position is the index.
    pub fn gpus(&self) -> impl Iterator<Item = &Gpu> {
        self.state.gpus.iter().filter(|gpu| self.session.visibility.gpu(gpu))
    }

    /// The GPU instances of a GPU this process sees.
    pub fn instances<'g>(&self, gpu: &'g Gpu) -> impl Iterator<Item = &'g GpuInstance> {
        gpu.instances.iter().filter(|instance| self.session.visibility.gpu_instance(gpu, instance))
    }

    /// The MIG devices of a GPU this process sees; the position is the index. As with the driver it follows from the
    /// ids of the instances, so that it changes when others come and go: a handle or a UUID lasts, an index does not.
    pub fn mig_devices<'g>(
        &self,
        gpu: &'g Gpu,
    ) -> impl Iterator<Item = (&'g GpuInstance, &'g ComputeInstance)> {
        gpu.mig_devices().filter(|(instance, compute)| {
            self.session.visibility.gpu_instance(gpu, instance)
                && self.session.visibility.compute_instance(gpu, instance, compute)
        })
    }

    pub fn device(&self, handle: DeviceHandle) -> Result<Device<'_>, Code> {
        if let Ok(gpu) = self.gpu(handle) {
            return Ok(Device::Gpu(gpu));
        }
        let (minor, serial) = unpack(handle.0, Kind::MigDevice)?;
        let gpu = self.gpu_of(minor)?;
        self.mig_devices(gpu)
            .find(|(_, compute)| compute.serial == serial)
            .map(|(instance, compute)| Device::Mig(gpu, instance, compute))
            .ok_or(Code::InvalidArgument)
    }

    /// The GPU of a handle; a MIG device's is not accepted.
    pub fn gpu(&self, handle: DeviceHandle) -> Result<&Gpu, Code> {
        let (minor, _) = unpack(handle.0, Kind::Gpu)?;
        self.gpu_of(minor)
    }

    pub fn gpu_instance(&self, handle: GpuInstanceHandle) -> Result<(&Gpu, &GpuInstance), Code> {
        let (minor, serial) = handle.parts()?;
        let gpu = self.gpu_of(minor)?;
        let instance = self.instances(gpu).find(|instance| instance.serial == serial);
        Ok((gpu, instance.ok_or(Code::InvalidArgument)?))
    }

    pub fn compute_instance(
        &self,
        handle: ComputeInstanceHandle,
    ) -> Result<(&Gpu, &GpuInstance, &ComputeInstance), Code> {
        let (minor, serial) = handle.parts()?;
        let gpu = self.gpu_of(minor)?;
        let found = self.mig_devices(gpu).find(|(_, compute)| compute.serial == serial);
        let (instance, compute) = found.ok_or(Code::InvalidArgument)?;
        Ok((gpu, instance, compute))
    }

    fn gpu_of(&self, minor: u32) -> Result<&Gpu, Code> {
        self.gpus().find(|gpu| gpu.minor == minor).ok_or(Code::InvalidArgument)
    }
}
