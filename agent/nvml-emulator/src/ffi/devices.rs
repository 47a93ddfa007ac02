//! Counting devices and getting their handles.

use std::ffi::{CStr, c_char};

use nvml_wrapper_sys::bindings as sys;

use crate::code::Code;
use crate::session::Session;

use super::handles::{Device, DeviceHandle, View};
use super::nvml;
use super::pointers::{In, Out, struct_version};

/// `nvmlUUID_v1_t` with the text member of its union, the largest one.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct UuidV1 {
    version: u32,
    kind: u32,
    text: [u8; 41],
}
const UUID_VERSION_1: u32 = struct_version::<UuidV1>(1);
const _: () = assert!(size_of::<UuidV1>() == size_of::<sys::nvmlUUID_v1_t>());

nvml! {
    fn nvmlDeviceGetCount(count: Out<u32>) |session| {
        set_count(session, &count)
    }

    fn nvmlDeviceGetCount_v2(count: Out<u32>) |session| {
        set_count(session, &count)
    }

    fn nvmlDeviceGetHandleByIndex(index: u32, device: Out<DeviceHandle>) |session| {
        by_index(session, index, &device)
    }

    fn nvmlDeviceGetHandleByIndex_v2(index: u32, device: Out<DeviceHandle>) |session| {
        by_index(session, index, &device)
    }

    fn nvmlDeviceGetHandleByUUID(uuid: In<c_char>, device: Out<DeviceHandle>) |session| {
        device.set(by_uuid(&session.view()?, uuid.text()?)?)
    }

    fn nvmlDeviceGetHandleByUUIDV(uuid: In<UuidV1>, device: Out<DeviceHandle>) |session| {
        let uuid = uuid.get()?;
        if uuid.version != UUID_VERSION_1 {
            return Err(Code::ArgumentVersionMismatch);
        }
        match uuid.kind {
            sys::nvmlUUIDType_t_NVML_UUID_TYPE_ASCII => {
                let text = CStr::from_bytes_until_nul(&uuid.text).map_err(|_| Code::InvalidArgument)?;
                let text = text.to_str().map_err(|_| Code::InvalidArgument)?;
                device.set(by_uuid(&session.view()?, text)?)
            }
            sys::nvmlUUIDType_t_NVML_UUID_TYPE_BINARY => Err(Code::NotSupported),
            _ => Err(Code::InvalidArgument),
        }
    }

    fn nvmlDeviceGetHandleBySerial(serial: In<c_char>, device: Out<DeviceHandle>) |session| {
        let view = session.view()?;
        let serial = serial.text()?;
        let gpu = view.gpus().find(|gpu| gpu.serial == serial).ok_or(Code::NotFound)?;
        device.set(DeviceHandle::of_gpu(gpu))
    }

    fn nvmlDeviceGetHandleByPciBusId(bus_id: In<c_char>, device: Out<DeviceHandle>) |session| {
        device.set(by_pci_bus_id(&session.view()?, bus_id.text()?)?)
    }

    fn nvmlDeviceGetHandleByPciBusId_v2(bus_id: In<c_char>, device: Out<DeviceHandle>) |session| {
        device.set(by_pci_bus_id(&session.view()?, bus_id.text()?)?)
    }

    fn nvmlDeviceGetIndex(device: DeviceHandle, index: Out<u32>) |session| {
        let view = session.view()?;
        match view.device(device)? {
            Device::Gpu(gpu) => {
                let at = view.gpus().position(|other| other.minor == gpu.minor).ok_or(Code::InvalidArgument)?;
                index.set(u32::try_from(at).map_err(|_| Code::Unknown)?)
            }
            Device::Mig(gpu, _, compute) => {
                let at = view.mig_devices(gpu).position(|(_, other)| other.serial == compute.serial);
                index.set(u32::try_from(at.ok_or(Code::InvalidArgument)?).map_err(|_| Code::Unknown)?)
            }
        }
    }
}

fn set_count(session: &Session, count: &Out<u32>) -> Result<(), Code> {
    count.set(u32::try_from(session.view()?.gpus().count()).map_err(|_| Code::Unknown)?)
}

fn by_index(session: &Session, index: u32, device: &Out<DeviceHandle>) -> Result<(), Code> {
    let view = session.view()?;
    let gpu = view.gpus().nth(index as usize).ok_or(Code::InvalidArgument)?;
    device.set(DeviceHandle::of_gpu(gpu))
}

/// GPU-… and MIG-…, and the form MIG devices had before R470: MIG-GPU-…/gi/ci.
fn by_uuid(view: &View<'_>, uuid: &str) -> Result<DeviceHandle, Code> {
    for gpu in view.gpus() {
        if gpu.uuid == uuid {
            return Ok(DeviceHandle::of_gpu(gpu));
        }
        for (instance, compute) in view.mig_devices(gpu) {
            if compute.uuid == uuid || uuid == format!("MIG-{}/{}/{}", gpu.uuid, instance.id, compute.id) {
                return Ok(DeviceHandle::of_mig(gpu, compute));
            }
        }
    }
    Err(Code::NotFound)
}

/// `domain:bus:device.function` in hexadecimal; domain and function may be left out.
fn by_pci_bus_id(view: &View<'_>, bus_id: &str) -> Result<DeviceHandle, Code> {
    let address = bus_id.split_once('.').map_or(bus_id, |(address, _)| address);
    let mut parts = Vec::new();
    for part in address.split(':') {
        parts.push(u32::from_str_radix(part, 16).map_err(|_| Code::InvalidArgument)?);
    }
    let wanted = match parts[..] {
        [domain, bus, device] => (domain, bus, device),
        [bus, device] => (0, bus, device),
        _ => return Err(Code::InvalidArgument),
    };
    let gpu = view.gpus().find(|gpu| gpu.pci_address() == wanted).ok_or(Code::NotFound)?;
    Ok(DeviceHandle::of_gpu(gpu))
}
