//! Devices as monitoring sees them, and the answers to callers that get something wrong.

use std::ffi::{CStr, c_char};
use std::{mem, ptr, thread};

use nvml_emulator::Code;
use nvml_wrapper_sys::bindings as sys;

use crate::calls::{create_at, get, gpu, partition};
use crate::node::Node;

const NOT_SUPPORTED: u32 = 3;
const INVALID_ARGUMENT: u32 = 2;
const INSUFFICIENT_SIZE: u32 = 7;
const RESET_REQUIRED: u32 = 16;
const IN_USE: u32 = 19;
const VERSION_MISMATCH: u32 = 25;

#[test]
fn processes_hold_their_partition_and_its_memory() {
    let node = Node::h100s(1, true);
    let library = node.raw();
    let gpu = gpu(&library, 0);
    let (instance, compute, mig) = partition(&library, gpu, (9, 2), (4, 4));
    let (_, _, other) = partition(&library, gpu, (9, 2), (0, 4));
    node.emulator.add_process(0, Some((2, 0)), 4711, 1 << 30).unwrap();
    assert!(
        node.emulator.add_process(0, Some((2, 1)), 4712, 0).is_err(),
        "there is no such compute instance"
    );

    let mut infos =
        [sys::nvmlProcessInfo_v2_t { pid: 0, usedGpuMemory: 0, gpuInstanceId: 0, computeInstanceId: 0 }; 2];
    let mut count = 0;
    // SAFETY: no array is offered.
    let asked =
        unsafe { library.nvmlDeviceGetComputeRunningProcesses_v3(mig, &raw mut count, ptr::null_mut()) };
    assert_eq!((asked, count), (INSUFFICIENT_SIZE, 1));
    for device in [mig, gpu] {
        count = 2;
        // SAFETY: the array has room for two.
        let answer = unsafe {
            library.nvmlDeviceGetComputeRunningProcesses_v3(device, &raw mut count, infos.as_mut_ptr())
        };
        assert_eq!((answer, count), (0, 1));
        assert_eq!((infos[0].pid, infos[0].gpuInstanceId, infos[0].computeInstanceId), (4711, 2, 0));
    }
    count = 2;
    // SAFETY: the array has room for two.
    let answer =
        unsafe { library.nvmlDeviceGetComputeRunningProcesses_v3(other, &raw mut count, infos.as_mut_ptr()) };
    assert_eq!((answer, count), (0, 0));

    // SAFETY: all zeros is a value of it.
    let mut memory: sys::nvmlMemory_v2_t = unsafe { mem::zeroed() };
    // SAFETY: points to a local.
    assert_eq!(unsafe { library.nvmlDeviceGetMemoryInfo_v2(mig, &raw mut memory) }, VERSION_MISMATCH);
    memory.version = 0x0200_0028;
    // SAFETY: points to a local.
    assert_eq!(unsafe { library.nvmlDeviceGetMemoryInfo_v2(mig, &raw mut memory) }, 0);
    assert_eq!((memory.total, memory.used), (40_448 << 20, 1 << 30));
    assert_eq!(memory.total, memory.free + memory.used + memory.reserved);
    let bar1 = get!(library, nvmlDeviceGetBAR1MemoryInfo, mig; sys::nvmlBAR1Memory_t).unwrap();
    assert_eq!(bar1.bar1Total, 64 << 30);

    // SAFETY: handles.
    unsafe {
        assert_eq!(library.nvmlComputeInstanceDestroy(compute), IN_USE);
        assert_eq!(library.nvmlGpuInstanceDestroy(instance), IN_USE);
        node.emulator.remove_process(4711).unwrap();
        assert_eq!(library.nvmlComputeInstanceDestroy(compute), 0);
        assert_eq!(library.nvmlGpuInstanceDestroy(instance), 0);
    }
}

#[test]
fn the_first_version_of_the_process_list_has_smaller_entries() {
    type FirstVersion =
        unsafe extern "C" fn(sys::nvmlDevice_t, *mut u32, *mut sys::nvmlProcessInfo_v1_t) -> u32;
    let node = Node::h100s(1, false);
    let library = node.raw();
    let gpu = gpu(&library, 0);
    node.emulator.add_process(0, None, 1, 10).unwrap();
    node.emulator.add_process(0, None, 2, 20).unwrap();
    // SAFETY: the library stays loaded as long as `library`, which is open too.
    let raw = unsafe { libloading::Library::new(node.library()) }.unwrap();
    // SAFETY: this is the function's type.
    let function = unsafe { raw.get::<FirstVersion>(b"nvmlDeviceGetComputeRunningProcesses") }.unwrap();
    let mut infos = [sys::nvmlProcessInfo_v1_t { pid: 0, usedGpuMemory: 0 }; 2];
    let mut count = 2;
    // SAFETY: the array has room for two.
    assert_eq!(unsafe { function(gpu, &raw mut count, infos.as_mut_ptr()) }, 0);
    assert_eq!(infos.map(|info| (info.pid, info.usedGpuMemory)), [(1, 10), (2, 20)]);
}

#[test]
fn a_compute_instance_that_takes_a_part_is_named_by_it() {
    let node = Node::h100s(1, true);
    let nvml = node.nvml();
    let device = nvml.device_by_index(0).unwrap();
    let library = nvml.lib();
    // SAFETY: the device lives as long as this function.
    let gpu = unsafe { device.handle() };
    let (instance, _, _) = partition(library, gpu, (9, 0), (4, 4));
    let second = get!(library, nvmlGpuInstanceCreateComputeInstance, instance, 1; sys::nvmlComputeInstance_t);
    assert_eq!(second, Err(Code::InsufficientResources.raw()), "2c only starts at 0");
    for _ in 0..2 {
        get!(library, nvmlGpuInstanceCreateComputeInstance, instance, 0; sys::nvmlComputeInstance_t).unwrap();
    }
    for index in 0..3 {
        let mig = device.mig_device_by_index(index).unwrap();
        assert_eq!(mig.name().unwrap(), "NVIDIA H100 80GB HBM3 MIG 1c.3g.40gb");
        assert_eq!(mig.index().unwrap(), index);
        assert_eq!(mig.attributes().unwrap().multiprocessor_count, 16);
        assert_eq!(nvml.device_by_uuid(mig.uuid().unwrap()).unwrap().index().unwrap(), index);
    }
    assert!(device.mig_device_by_index(3).is_err());
    assert!(matches!(device.mig_device_by_index(7), Err(nvml_wrapper::error::NvmlError::InvalidArg)));
    assert_eq!(device.mig_device_count().unwrap(), 7);
    assert_eq!(get!(library, nvmlGpuInstanceGetComputeInstanceRemainingCapacity, instance, 0; u32), Ok(0));
    // SAFETY: a handle.
    assert_eq!(unsafe { library.nvmlGpuInstanceDestroy(instance) }, IN_USE);
}

#[test]
fn mig_mode_changes_at_once_on_hopper_and_by_a_reset_on_ampere() {
    let node = Node::h100s(1, false);
    let nvml = node.nvml();
    let device = nvml.device_by_index(0).unwrap();
    node.emulator.add_process(0, None, 7, 0).unwrap();
    assert_eq!(device.set_mig_mode(true).unwrap(), IN_USE);
    assert_eq!((device.mig_mode().unwrap().current, device.mig_mode().unwrap().pending), (0, 1));
    node.emulator.remove_process(7).unwrap();
    assert_eq!(device.set_mig_mode(true).unwrap(), 0);
    assert_eq!((device.mig_mode().unwrap().current, device.mig_mode().unwrap().pending), (1, 1));

    let node = Node::new(&nvml_emulator::NodeDescription::of("a100-40gb", 1, false));
    let nvml = node.nvml();
    let device = nvml.device_by_index(0).unwrap();
    assert_eq!(device.set_mig_mode(true).unwrap(), RESET_REQUIRED);
    assert_eq!(device.mig_mode().unwrap().current, 0);
    node.emulator.reset_gpu(0).unwrap();
    assert_eq!(device.mig_mode().unwrap().current, 1);
}

#[test]
fn null_pointers_and_foreign_handles_are_invalid_arguments() {
    let node = Node::h100s(1, true);
    let library = node.raw();
    let gpu = gpu(&library, 0);
    let (instance, compute, mig) = partition(&library, gpu, (19, 0), (0, 1));
    // SAFETY: null pointers and wrong handles are what is tried; none is followed.
    unsafe {
        assert_eq!(library.nvmlDeviceGetCount_v2(ptr::null_mut()), INVALID_ARGUMENT);
        assert_eq!(library.nvmlDeviceGetHandleByUUID(ptr::null(), ptr::null_mut()), INVALID_ARGUMENT);
        assert_eq!(library.nvmlDeviceGetName(gpu, ptr::null_mut(), 64), INVALID_ARGUMENT);
        assert_eq!(library.nvmlDeviceCreateGpuInstance(gpu, 19, ptr::null_mut()), INVALID_ARGUMENT);
        assert_eq!(library.nvmlDeviceSetMigMode(gpu, 0, ptr::null_mut()), INVALID_ARGUMENT);
        assert_eq!(library.nvmlGpuInstanceDestroy(ptr::null_mut()), INVALID_ARGUMENT);
        assert_eq!(library.nvmlGpuInstanceDestroy(compute.cast()), INVALID_ARGUMENT);
        assert_eq!(library.nvmlComputeInstanceDestroy(instance.cast()), INVALID_ARGUMENT);
        assert_eq!(library.nvmlGpuInstanceGetInfo(gpu.cast(), ptr::null_mut()), INVALID_ARGUMENT);
        let wild = ptr::without_provenance_mut(0x7fff_1234_5678);
        assert_eq!(library.nvmlDeviceGetUUID(wild, ptr::null_mut(), 0), INVALID_ARGUMENT);
        let mut name = [0 as c_char; 8];
        assert_eq!(library.nvmlDeviceGetName(gpu, name.as_mut_ptr(), 8), INSUFFICIENT_SIZE);
    }
    assert_eq!(node.emulator.occupancy().unwrap()[0].partitions.len(), 1, "nothing was made on the way");
    // A MIG device is not a GPU.
    assert_eq!(create_at(&library, mig, 19, 1, 1), Err(INVALID_ARGUMENT));
    assert_eq!(
        get!(library, nvmlDeviceGetAttributes_v2, gpu; sys::nvmlDeviceAttributes_t).map(|_| ()),
        Err(NOT_SUPPORTED)
    );
    assert_eq!(
        get!(library, nvmlDeviceGetUtilizationRates, gpu; sys::nvmlUtilization_t).map(|_| ()),
        Err(NOT_SUPPORTED)
    );
}

#[test]
fn nothing_works_before_initialization_but_error_strings() {
    let node = Node::h100s(1, true);
    let library = node.raw();
    let mut count = 0;
    // SAFETY: points to a local; the strings are constants of the library.
    unsafe {
        assert_eq!(library.nvmlInit_v2(), 0);
        assert_eq!(library.nvmlShutdown(), 0);
        assert_eq!(library.nvmlDeviceGetCount_v2(&raw mut count), 0, "initializations are counted");
        assert_eq!(library.nvmlShutdown(), 0);
        assert_eq!(library.nvmlDeviceGetCount_v2(&raw mut count), Code::Uninitialized.raw());
        assert_eq!(library.nvmlShutdown(), Code::Uninitialized.raw());
        assert_eq!(CStr::from_ptr(library.nvmlErrorString(0)), c"Success");
        assert_eq!(CStr::from_ptr(library.nvmlErrorString(23)), c"Insufficient Resources");
        assert_eq!(CStr::from_ptr(library.nvmlErrorString(12345)), c"Unknown Error");
    }
}

#[test]
fn threads_use_the_library_at_once() {
    let node = Node::h100s(8, true);
    thread::scope(|scope| {
        for index in 0..8 {
            let node = &node;
            scope.spawn(move || {
                let library = node.raw();
                let gpu = gpu(&library, index);
                for _ in 0..20 {
                    let (instance, compute, _) = partition(&library, gpu, (14, 1), (2, 2));
                    // SAFETY: handles.
                    unsafe {
                        assert_eq!(library.nvmlComputeInstanceDestroy(compute), 0);
                        assert_eq!(library.nvmlGpuInstanceDestroy(instance), 0);
                    }
                }
            });
        }
    });
    assert!(node.emulator.occupancy().unwrap().iter().all(|gpu| gpu.partitions.is_empty()));
}
