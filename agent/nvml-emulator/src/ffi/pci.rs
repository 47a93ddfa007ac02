//! Where a GPU is on the PCI bus. A MIG device is where its GPU is.

use nvml_wrapper_sys::bindings::{nvmlPciInfo_t, nvmlPciInfoExt_v1_t};

use crate::cards::Architecture;
use crate::code::Code;
use crate::session::Session;

use super::handles::{Device, DeviceHandle};
use super::nvml;
use super::pointers::{Out, struct_version, text_array};

/// The fields that all versions of `nvmlPciInfo_t` have in common; the first two end (with reserved fields) before
/// the long bus id of the third.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct PciInfoStart {
    bus_id: [std::ffi::c_char; 16],
    domain: u32,
    bus: u32,
    device: u32,
    device_id: u32,
    subsystem_id: u32,
}
const _: () = assert!(size_of::<PciInfoStart>() == 36 && size_of::<nvmlPciInfo_t>() == 68);

nvml! {
    fn nvmlDeviceGetPciInfo(device: DeviceHandle, pci: Out<PciInfoStart>) |session| {
        pci.set(start_of(session, device)?)
    }

    fn nvmlDeviceGetPciInfo_v2(device: DeviceHandle, pci: Out<PciInfoStart>) |session| {
        pci.set(start_of(session, device)?)
    }

    fn nvmlDeviceGetPciInfo_v3(device: DeviceHandle, pci: Out<nvmlPciInfo_t>) |session| {
        let start = start_of(session, device)?;
        pci.set(nvmlPciInfo_t {
            busIdLegacy: start.bus_id,
            domain: start.domain,
            bus: start.bus,
            device: start.device,
            pciDeviceId: start.device_id,
            pciSubSystemId: start.subsystem_id,
            busId: text_array(&session.view()?.device(device)?.gpu().pci_bus_id()),
        })
    }

    fn nvmlDeviceGetPciInfoExt(device: DeviceHandle, pci: Out<nvmlPciInfoExt_v1_t>) |session| {
        let version = pci.cast::<u32>().get()?;
        if version != struct_version::<nvmlPciInfoExt_v1_t>(1) {
            return Err(Code::ArgumentVersionMismatch);
        }
        let start = start_of(session, device)?;
        pci.set(nvmlPciInfoExt_v1_t {
            version,
            domain: start.domain,
            bus: start.bus,
            device: start.device,
            pciDeviceId: start.device_id,
            pciSubSystemId: start.subsystem_id,
            baseClass: 3,
            subClass: 2,
            busId: text_array(&session.view()?.device(device)?.gpu().pci_bus_id()),
        })
    }

    fn nvmlDeviceGetMaxPcieLinkGeneration(device: DeviceHandle, generation: Out<u32>) |session| {
        generation.set(link_generation(session, device)?)
    }

    fn nvmlDeviceGetGpuMaxPcieLinkGeneration(device: DeviceHandle, generation: Out<u32>) |session| {
        generation.set(link_generation(session, device)?)
    }

    fn nvmlDeviceGetCurrPcieLinkGeneration(device: DeviceHandle, generation: Out<u32>) |session| {
        generation.set(link_generation(session, device)?)
    }

    fn nvmlDeviceGetMaxPcieLinkWidth(device: DeviceHandle, width: Out<u32>) |session| {
        link_generation(session, device)?;
        width.set(16)
    }

    fn nvmlDeviceGetCurrPcieLinkWidth(device: DeviceHandle, width: Out<u32>) |session| {
        link_generation(session, device)?;
        width.set(16)
    }
}

fn start_of(session: &Session, device: DeviceHandle) -> Result<PciInfoStart, Code> {
    let view = session.view()?;
    let gpu = view.device(device)?.gpu();
    let card = gpu.card()?;
    let (domain, bus, device) = gpu.pci_address();
    Ok(PciInfoStart {
        bus_id: text_array(&format!("{domain:04X}:{bus:02X}:{device:02X}.0")),
        domain,
        bus,
        device,
        device_id: card.pci_device_id,
        subsystem_id: card.pci_subsystem_id,
    })
}

fn link_generation(session: &Session, device: DeviceHandle) -> Result<u32, Code> {
    match session.view()?.device(device)? {
        Device::Mig(..) => Err(Code::NotSupported),
        Device::Gpu(gpu) => Ok(match gpu.card()?.architecture {
            Architecture::Ampere => 4,
            Architecture::Hopper => 5,
        }),
    }
}
