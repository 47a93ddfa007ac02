//! MIG mode, and MIG devices as devices.

use nvml_wrapper_sys::bindings::nvmlDeviceAttributes_t;

use crate::code::Code;
use crate::mig::{compute, mode};
use crate::session::Session;

use super::handles::{Device, DeviceHandle};
use super::nvml;
use super::pointers::Out;

/// Most MIG devices a GPU can have.
const MAX_MIG_DEVICES: u32 = 7;

nvml! {
    fn nvmlDeviceGetMigMode(device: DeviceHandle, current: Out<u32>, pending: Out<u32>) |session| {
        let view = session.view()?;
        let gpu = view.gpu(device)?;
        current.check()?;
        pending.set(u32::from(gpu.mig_pending))?;
        current.set(u32::from(gpu.mig))
    }

    fn nvmlDeviceSetMigMode(device: DeviceHandle, mode: u32, activation_status: Out<u32>) |session| {
        let minor = session.view()?.gpu(device)?.minor;
        activation_status.check()?;
        let enable = match mode {
            0 => false,
            1 => true,
            _ => return Err(Code::InvalidArgument),
        };
        let activation = session.configure(|state| mode::set(state.gpu_mut(minor)?, enable))?;
        activation_status.set(activation.err().map_or(0, Code::raw))
    }

    fn nvmlDeviceIsMigDeviceHandle(device: DeviceHandle, is_mig_device: Out<u32>) |session| {
        let is_mig = matches!(session.view()?.device(device)?, Device::Mig(..));
        is_mig_device.set(u32::from(is_mig))
    }

    fn nvmlDeviceGetGpuInstanceId(device: DeviceHandle, id: Out<u32>) |session| {
        match session.view()?.device(device)? {
            Device::Mig(_, instance, _) => id.set(instance.id),
            Device::Gpu(_) => Err(Code::InvalidArgument),
        }
    }

    fn nvmlDeviceGetComputeInstanceId(device: DeviceHandle, id: Out<u32>) |session| {
        match session.view()?.device(device)? {
            Device::Mig(_, _, compute) => id.set(compute.id),
            Device::Gpu(_) => Err(Code::InvalidArgument),
        }
    }

    fn nvmlDeviceGetMaxMigDeviceCount(device: DeviceHandle, count: Out<u32>) |session| {
        let view = session.view()?;
        let gpu = view.gpu(device)?;
        count.set(if gpu.mig { MAX_MIG_DEVICES } else { 0 })
    }

    fn nvmlDeviceGetMigDeviceHandleByIndex(device: DeviceHandle, index: u32, mig_device: Out<DeviceHandle>) |session| {
        let view = session.view()?;
        let gpu = view.gpu(device)?;
        mig_device.check()?;
        if !gpu.mig {
            return Err(Code::NotSupported);
        }
        if index >= MAX_MIG_DEVICES {
            return Err(Code::InvalidArgument);
        }
        let (_, compute) = view.mig_devices(gpu).nth(index as usize).ok_or(Code::NotFound)?;
        mig_device.set(DeviceHandle::of_mig(gpu, compute))
    }

    fn nvmlDeviceGetDeviceHandleFromMigDeviceHandle(mig_device: DeviceHandle, device: Out<DeviceHandle>) |session| {
        match session.view()?.device(mig_device)? {
            Device::Mig(gpu, _, _) => device.set(DeviceHandle::of_gpu(gpu)),
            Device::Gpu(_) => Err(Code::InvalidArgument),
        }
    }

    fn nvmlDeviceGetAttributes(device: DeviceHandle, attributes: Out<nvmlDeviceAttributes_t>) |session| {
        attributes.set(attributes_of(session, device)?)
    }

    fn nvmlDeviceGetAttributes_v2(device: DeviceHandle, attributes: Out<nvmlDeviceAttributes_t>) |session| {
        attributes.set(attributes_of(session, device)?)
    }
}

fn attributes_of(session: &Session, device: DeviceHandle) -> Result<nvmlDeviceAttributes_t, Code> {
    let view = session.view()?;
    let Device::Mig(gpu, instance, compute) = view.device(device)? else {
        return Err(Code::NotSupported);
    };
    let card = gpu.card()?;
    let of = instance.profile(card)?;
    let cut = compute::profile(card, instance, compute.profile_id)?;
    Ok(nvmlDeviceAttributes_t {
        multiprocessorCount: cut.multiprocessors,
        sharedCopyEngineCount: of.copy_engines,
        sharedDecoderCount: of.decoders,
        sharedEncoderCount: of.encoders,
        sharedJpegCount: of.jpeg_engines,
        sharedOfaCount: of.ofa_engines,
        gpuInstanceSliceCount: of.compute_slices,
        computeInstanceSliceCount: cut.slices,
        memorySizeMB: of.memory_mib,
    })
}
