//! Counting devices and getting their handles.

use std::ffi::c_char;

use crate::code::Code;
use crate::session::Session;

use super::handles::{Device, DeviceHandle, View};
use super::nvml;
use super::pointers::{In, Out};

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
            Device::Mig(_, _, compute) => index.set(compute.mig_index),
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
