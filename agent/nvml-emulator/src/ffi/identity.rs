//! What a device is: names, numbers and settings. A MIG device has a UUID, a name and an index of its own and shares
//! the rest with its GPU.

use std::ffi::{c_char, c_int};

use nvml_wrapper_sys::bindings as sys;

use crate::cards::{Architecture, Card};
use crate::code::Code;
use crate::mig::compute;
use crate::session::Session;
use crate::state::Gpu;

use super::handles::{Device, DeviceHandle};
use super::nvml;
use super::pointers::Out;

nvml! {
    fn nvmlDeviceGetName(device: DeviceHandle, name: Out<c_char>, length: u32) |session| {
        let view = session.view()?;
        match view.device(device)? {
            Device::Gpu(gpu) => name.set_text(length, &gpu.card()?.product_name),
            Device::Mig(gpu, instance, compute) => {
                let card = gpu.card()?;
                let cut = compute::profile(card, instance, compute.profile_id)?;
                name.set_text(length, &format!("{} MIG {}", card.product_name, cut.name))
            }
        }
    }

    fn nvmlDeviceGetUUID(device: DeviceHandle, uuid: Out<c_char>, length: u32) |session| {
        match session.view()?.device(device)? {
            Device::Gpu(gpu) => uuid.set_text(length, &gpu.uuid),
            Device::Mig(_, _, compute) => uuid.set_text(length, &compute.uuid),
        }
    }

    fn nvmlDeviceGetSerial(device: DeviceHandle, serial: Out<c_char>, length: u32) |session| {
        serial.set_text(length, &session.view()?.device(device)?.gpu().serial)
    }

    fn nvmlDeviceGetMinorNumber(device: DeviceHandle, minor: Out<u32>) |session| {
        minor.set(session.view()?.device(device)?.gpu().minor)
    }

    fn nvmlDeviceGetModuleId(device: DeviceHandle, module_id: Out<u32>) |session| {
        module_id.set(session.view()?.device(device)?.gpu().minor)
    }

    fn nvmlDeviceGetBoardId(device: DeviceHandle, board_id: Out<u32>) |session| {
        let (domain, bus, _) = session.view()?.device(device)?.gpu().pci_address();
        board_id.set(domain << 16 | bus << 8)
    }

    fn nvmlDeviceGetMultiGpuBoard(device: DeviceHandle, multi_gpu: Out<u32>) |session| {
        session.view()?.device(device)?;
        multi_gpu.set(0)
    }

    fn nvmlDeviceGetBrand(device: DeviceHandle, brand: Out<u32>) |session| {
        session.view()?.device(device)?;
        brand.set(sys::nvmlBrandType_enum_NVML_BRAND_NVIDIA)
    }

    fn nvmlDeviceGetArchitecture(device: DeviceHandle, architecture: Out<u32>) |session| {
        architecture.set(match card_of(session, device)?.architecture {
            Architecture::Ampere => sys::NVML_DEVICE_ARCH_AMPERE,
            Architecture::Hopper => sys::NVML_DEVICE_ARCH_HOPPER,
        })
    }

    fn nvmlDeviceGetCudaComputeCapability(device: DeviceHandle, major: Out<c_int>, minor: Out<c_int>) |session| {
        let capability = card_of(session, device)?.compute_capability();
        minor.check()?;
        major.set(capability.0)?;
        minor.set(capability.1)
    }

    fn nvmlDeviceGetNumGpuCores(device: DeviceHandle, cores: Out<u32>) |session| {
        let view = session.view()?;
        let gpu = view.gpu(device).map_err(|_| Code::NotSupported)?;
        let card = gpu.card()?;
        let per_multiprocessor = match card.architecture {
            Architecture::Ampere => 64,
            Architecture::Hopper => 128,
        };
        cores.set(card.multiprocessors * per_multiprocessor)
    }

    fn nvmlDeviceGetMemoryBusWidth(device: DeviceHandle, width: Out<u32>) |session| {
        width.set(card_of(session, device)?.memory_bus_bits)
    }

    fn nvmlDeviceGetVbiosVersion(device: DeviceHandle, version: Out<c_char>, length: u32) |session| {
        version.set_text(length, match card_of(session, device)?.architecture {
            Architecture::Ampere => "92.00.45.00.03",
            Architecture::Hopper => "96.00.89.00.01",
        })
    }

    fn nvmlDeviceGetBusType(device: DeviceHandle, bus: Out<u32>) |session| {
        session.view()?.device(device)?;
        bus.set(sys::NVML_BUS_TYPE_PCIE)
    }

    fn nvmlDeviceGetGspFirmwareVersion(device: DeviceHandle, version: Out<c_char>) |session| {
        let view = session.view()?;
        view.device(device)?;
        // The caller's buffer has NVML_GSP_FIRMWARE_VERSION_BUF_SIZE bytes, as the header demands.
        version.set_text(sys::NVML_GSP_FIRMWARE_VERSION_BUF_SIZE, &view.state.driver_version)
    }

    fn nvmlDeviceGetGspFirmwareMode(device: DeviceHandle, enabled: Out<u32>, default: Out<u32>) |session| {
        session.view()?.device(device)?;
        default.check()?;
        enabled.set(1)?;
        default.set(1)
    }

    fn nvmlDeviceGetIrqNum(device: DeviceHandle, irq: Out<u32>) |session| {
        irq.set(100 + session.view()?.device(device)?.gpu().minor)
    }

    fn nvmlDeviceGetVirtualizationMode(device: DeviceHandle, mode: Out<u32>) |session| {
        session.view()?.device(device)?;
        mode.set(sys::nvmlGpuVirtualizationMode_NVML_GPU_VIRTUALIZATION_MODE_NONE)
    }

    fn nvmlDeviceGetDisplayMode(device: DeviceHandle, mode: Out<u32>) |session| {
        session.view()?.device(device)?;
        mode.set(0)
    }

    fn nvmlDeviceGetDisplayActive(device: DeviceHandle, active: Out<u32>) |session| {
        session.view()?.device(device)?;
        active.set(0)
    }

    fn nvmlDeviceGetPersistenceMode(device: DeviceHandle, mode: Out<u32>) |session| {
        mode.set(u32::from(session.view()?.device(device)?.gpu().persistence))
    }

    fn nvmlDeviceSetPersistenceMode(device: DeviceHandle, mode: u32) |session| {
        let on = switch(mode)?;
        set(session, device, |gpu| gpu.persistence = on)
    }

    fn nvmlDeviceGetEccMode(device: DeviceHandle, current: Out<u32>, pending: Out<u32>) |session| {
        session.view()?.device(device)?;
        pending.check()?;
        current.set(1)?;
        pending.set(1)
    }

    fn nvmlDeviceGetDefaultEccMode(device: DeviceHandle, mode: Out<u32>) |session| {
        session.view()?.device(device)?;
        mode.set(1)
    }

    fn nvmlDeviceGetComputeMode(device: DeviceHandle, mode: Out<u32>) |session| {
        mode.set(session.view()?.device(device)?.gpu().compute_mode)
    }

    fn nvmlDeviceSetComputeMode(device: DeviceHandle, mode: u32) |session| {
        if mode >= sys::nvmlComputeMode_enum_NVML_COMPUTEMODE_COUNT {
            return Err(Code::InvalidArgument);
        }
        set(session, device, |gpu| gpu.compute_mode = mode)
    }

    fn nvmlDeviceGetPowerManagementLimit(device: DeviceHandle, milliwatts: Out<u32>) |session| {
        milliwatts.set(whole_card(session, device)?.max_power_milliwatts)
    }

    fn nvmlDeviceGetPowerManagementDefaultLimit(device: DeviceHandle, milliwatts: Out<u32>) |session| {
        milliwatts.set(whole_card(session, device)?.max_power_milliwatts)
    }

    fn nvmlDeviceGetEnforcedPowerLimit(device: DeviceHandle, milliwatts: Out<u32>) |session| {
        milliwatts.set(whole_card(session, device)?.max_power_milliwatts)
    }

    fn nvmlDeviceGetPowerManagementLimitConstraints(
        device: DeviceHandle,
        min_milliwatts: Out<u32>,
        max_milliwatts: Out<u32>,
    ) |session| {
        let card = whole_card(session, device)?;
        max_milliwatts.check()?;
        min_milliwatts.set(card.min_power_milliwatts)?;
        max_milliwatts.set(card.max_power_milliwatts)
    }

    fn nvmlDeviceGetMaxClockInfo(device: DeviceHandle, clock: u32, mhz: Out<u32>) |session| {
        let card = whole_card(session, device)?;
        mhz.set(match clock {
            sys::nvmlClockType_enum_NVML_CLOCK_GRAPHICS | sys::nvmlClockType_enum_NVML_CLOCK_SM => card.max_sm_clock_mhz,
            sys::nvmlClockType_enum_NVML_CLOCK_MEM => card.max_memory_clock_mhz,
            sys::nvmlClockType_enum_NVML_CLOCK_VIDEO => return Err(Code::NotSupported),
            _ => return Err(Code::InvalidArgument),
        })
    }
}

fn card_of(session: &Session, device: DeviceHandle) -> Result<&'static Card, Code> {
    session.view()?.device(device)?.gpu().card()
}

/// The card of a GPU; what the instances share is not said of one of them.
fn whole_card(session: &Session, device: DeviceHandle) -> Result<&'static Card, Code> {
    match session.view()?.device(device)? {
        Device::Gpu(gpu) => gpu.card(),
        Device::Mig(..) => Err(Code::NotSupported),
    }
}

fn set(session: &Session, device: DeviceHandle, change: impl FnOnce(&mut Gpu)) -> Result<(), Code> {
    let minor = session.view()?.device(device)?.gpu().minor;
    session.configure(|state| {
        change(state.gpu_mut(minor)?);
        Ok(())
    })
}

fn switch(value: u32) -> Result<bool, Code> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Code::InvalidArgument),
    }
}
