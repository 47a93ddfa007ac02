//! Memory: total, what processes use, what the driver keeps.

use nvml_wrapper_sys::bindings::{nvmlBAR1Memory_t, nvmlMemory_t, nvmlMemory_v2_t};

use crate::code::Code;
use crate::session::Session;

use super::handles::{Device, DeviceHandle};
use super::nvml;
use super::pointers::{Out, struct_version};

const VERSION_2: u32 = struct_version::<nvmlMemory_v2_t>(2);
const _: () = assert!(VERSION_2 == 0x0200_0028);

const MIB: u64 = 1 << 20;

nvml! {
    fn nvmlDeviceGetMemoryInfo(device: DeviceHandle, memory: Out<nvmlMemory_t>) |session| {
        let all = memory_of(session, device)?;
        // The first version counts what is reserved as used.
        memory.set(nvmlMemory_t { total: all.total, free: all.free, used: all.total - all.free })
    }

    fn nvmlDeviceGetMemoryInfo_v2(device: DeviceHandle, memory: Out<nvmlMemory_v2_t>) |session| {
        let version = memory.cast::<u32>().get()?;
        if version != VERSION_2 {
            return Err(Code::ArgumentVersionMismatch);
        }
        memory.set(nvmlMemory_v2_t { version, ..memory_of(session, device)? })
    }

    fn nvmlDeviceGetBAR1MemoryInfo(device: DeviceHandle, memory: Out<nvmlBAR1Memory_t>) |session| {
        let view = session.view()?;
        let device = view.device(device)?;
        let card = device.gpu().card()?;
        // The window covers all memory; a GPU instance has its share of it.
        let window = card.total_memory_mib.next_power_of_two() * MIB;
        let total = match device {
            Device::Gpu(_) => window,
            Device::Mig(_, instance, _) => {
                let slices = instance.profile(card)?.memory_slices;
                window * u64::from(slices) / u64::from(card.memory_slices)
            }
        };
        let used = MIB;
        memory.set(nvmlBAR1Memory_t { bar1Total: total, bar1Free: total - used, bar1Used: used })
    }
}

fn memory_of(session: &Session, device: DeviceHandle) -> Result<nvmlMemory_v2_t, Code> {
    let view = session.view()?;
    let (total_mib, reserved_mib, used) = match view.device(device)? {
        Device::Gpu(gpu) => {
            if gpu.mig && !session.visibility.may_monitor() {
                return Err(Code::NoPermission);
            }
            let card = gpu.card()?;
            let used: u64 = gpu.processes.iter().map(|process| process.memory_bytes).sum();
            (card.total_memory_mib, card.reserved_memory_mib, used)
        }
        // Memory belongs to the GPU instance; its compute instances share it.
        Device::Mig(gpu, instance, _) => {
            let here = gpu
                .processes
                .iter()
                .filter(|process| process.instance.is_some_and(|(id, _)| id == instance.id));
            (instance.profile(gpu.card()?)?.memory_mib, 0, here.map(|process| process.memory_bytes).sum())
        }
    };
    let (total, reserved) = (total_mib * MIB, reserved_mib * MIB);
    let used = used.min(total - reserved);
    Ok(nvmlMemory_v2_t { version: VERSION_2, total, reserved, free: total - reserved - used, used })
}
