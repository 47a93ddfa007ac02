//! Processes with a compute context. Nothing draws here, so the lists of graphics and MPS processes are empty.

use nvml_wrapper_sys::bindings::{nvmlProcessInfo_v1_t, nvmlProcessInfo_v2_t};

use crate::code::Code;
use crate::session::Session;

use super::handles::{Device, DeviceHandle};
use super::nvml;
use super::pointers::{Out, set_list};

/// What stands for "no instance" in `nvmlProcessInfo_t`.
const NO_INSTANCE: u32 = u32::MAX;

nvml! {
    fn nvmlDeviceGetComputeRunningProcesses(
        device: DeviceHandle,
        count: Out<u32>,
        infos: Out<nvmlProcessInfo_v1_t>,
    ) |session| {
        set_list(&count, &infos, &first_version(&processes_of(session, device)?))
    }

    fn nvmlDeviceGetComputeRunningProcesses_v2(
        device: DeviceHandle,
        count: Out<u32>,
        infos: Out<nvmlProcessInfo_v2_t>,
    ) |session| {
        set_list(&count, &infos, &processes_of(session, device)?)
    }

    fn nvmlDeviceGetComputeRunningProcesses_v3(
        device: DeviceHandle,
        count: Out<u32>,
        infos: Out<nvmlProcessInfo_v2_t>,
    ) |session| {
        set_list(&count, &infos, &processes_of(session, device)?)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses(
        device: DeviceHandle,
        count: Out<u32>,
        infos: Out<nvmlProcessInfo_v1_t>,
    ) |session| {
        no_processes(session, device, &count, &infos)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v2(
        device: DeviceHandle,
        count: Out<u32>,
        infos: Out<nvmlProcessInfo_v2_t>,
    ) |session| {
        no_processes(session, device, &count, &infos)
    }

    fn nvmlDeviceGetGraphicsRunningProcesses_v3(
        device: DeviceHandle,
        count: Out<u32>,
        infos: Out<nvmlProcessInfo_v2_t>,
    ) |session| {
        no_processes(session, device, &count, &infos)
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses(
        device: DeviceHandle,
        count: Out<u32>,
        infos: Out<nvmlProcessInfo_v1_t>,
    ) |session| {
        no_processes(session, device, &count, &infos)
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses_v2(
        device: DeviceHandle,
        count: Out<u32>,
        infos: Out<nvmlProcessInfo_v2_t>,
    ) |session| {
        no_processes(session, device, &count, &infos)
    }

    fn nvmlDeviceGetMPSComputeRunningProcesses_v3(
        device: DeviceHandle,
        count: Out<u32>,
        infos: Out<nvmlProcessInfo_v2_t>,
    ) |session| {
        no_processes(session, device, &count, &infos)
    }
}

fn no_processes<T: Copy>(
    session: &Session,
    device: DeviceHandle,
    count: &Out<u32>,
    infos: &Out<T>,
) -> Result<(), Code> {
    session.view()?.device(device)?;
    set_list(count, infos, &[])
}

fn processes_of(session: &Session, device: DeviceHandle) -> Result<Vec<nvmlProcessInfo_v2_t>, Code> {
    let view = session.view()?;
    let device = view.device(device)?;
    let only = match device {
        Device::Gpu(gpu) if gpu.mig && !session.visibility.may_monitor() => return Err(Code::NoPermission),
        Device::Gpu(_) => None,
        Device::Mig(_, instance, compute) => Some((instance.id, compute.id)),
    };
    let here = device.gpu().processes.iter().filter(|process| only.is_none() || process.instance == only);
    Ok(here
        .map(|process| {
            let (gpu_instance, compute_instance) = process.instance.unwrap_or((NO_INSTANCE, NO_INSTANCE));
            nvmlProcessInfo_v2_t {
                pid: process.pid,
                usedGpuMemory: process.memory_bytes,
                gpuInstanceId: gpu_instance,
                computeInstanceId: compute_instance,
            }
        })
        .collect())
}

fn first_version(processes: &[nvmlProcessInfo_v2_t]) -> Vec<nvmlProcessInfo_v1_t> {
    processes
        .iter()
        .map(|process| nvmlProcessInfo_v1_t { pid: process.pid, usedGpuMemory: process.usedGpuMemory })
        .collect()
}
