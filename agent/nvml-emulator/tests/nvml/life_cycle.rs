//! GPU and compute instances from creation to destruction, with the answers that clients rely on.

use std::ptr;

use nvml_wrapper::enum_wrappers::device::Brand;
use nvml_wrapper_sys::bindings as sys;

use crate::calls::{create_at as create, get, gpu};
use crate::node::Node;

const NOT_SUPPORTED: u32 = 3;
const NOT_FOUND: u32 = 6;
const INVALID_ARGUMENT: u32 = 2;
const IN_USE: u32 = 19;
const INSUFFICIENT_RESOURCES: u32 = 23;
const VERSION_MISMATCH: u32 = 25;

#[test]
fn wrapper_reads_what_the_node_description_says() {
    let node = Node::h100s(2, true);
    let nvml = node.nvml();
    assert_eq!(nvml.device_count().unwrap(), 2);
    assert_eq!(nvml.sys_driver_version().unwrap(), "580.95.05");
    assert_eq!(nvml.sys_cuda_driver_version().unwrap(), 13000);
    assert_eq!(nvml.sys_nvml_version().unwrap(), "13.580.95.05");
    let device = nvml.device_by_index(1).unwrap();
    assert_eq!(device.name().unwrap(), "NVIDIA H100 80GB HBM3");
    assert_eq!(device.brand().unwrap(), Brand::Nvidia);
    assert_eq!(device.minor_number().unwrap(), 1);
    assert_eq!(device.index().unwrap(), 1);
    assert_eq!(device.uuid().unwrap(), node.emulator.occupancy().unwrap()[1].uuid);
    assert_eq!(device.memory_info().unwrap().total, 81_559 << 20);
    assert_eq!(device.pci_info().unwrap().bus_id, "00000000:43:00.0");
    assert_eq!(device.pci_info().unwrap().pci_device_id, 0x2330_10de);
    assert_eq!(device.mig_mode().unwrap().current, 1);
    let same = nvml.device_by_uuid(device.uuid().unwrap()).unwrap();
    assert_eq!(same.index().unwrap(), 1);
    assert_eq!(nvml.device_by_pci_bus_id("0000:43:00.0").unwrap().index().unwrap(), 1);
    assert_eq!(nvml.device_by_pci_bus_id("43:00.0").unwrap().index().unwrap(), 1);
    // The profile number 9 is 1g.20gb; the profile id 9 would be 3g.40gb.
    assert_eq!(device.profile_info(9).unwrap().id, 15);
}

#[test]
fn a_partition_lives_and_dies() {
    let node = Node::h100s(1, true);
    let library = node.raw();
    let gpu = gpu(&library, 0);

    let instance = create(&library, gpu, 9, 4, 4).expect("3g.40gb at 4");
    let info = get!(library, nvmlGpuInstanceGetInfo, instance; sys::nvmlGpuInstanceInfo_t).expect("its info");
    assert_eq!((info.id, info.profileId, info.placement.start, info.placement.size), (2, 9, 4, 4));
    assert_eq!(info.device, gpu);
    assert_eq!(create(&library, gpu, 9, 4, 4).unwrap_err(), INSUFFICIENT_RESOURCES);
    assert_eq!(create(&library, gpu, 14, 4, 2).unwrap_err(), INSUFFICIENT_RESOURCES);
    assert_eq!(create(&library, gpu, 9, 2, 4).unwrap_err(), INVALID_ARGUMENT);
    assert_eq!(create(&library, gpu, 9, 0, 3).unwrap_err(), INVALID_ARGUMENT);
    assert_eq!(create(&library, gpu, 1, 0, 1).unwrap_err(), NOT_SUPPORTED);
    assert_eq!(
        get!(library, nvmlDeviceGetMigDeviceHandleByIndex, gpu, 0; sys::nvmlDevice_t).unwrap_err(),
        NOT_FOUND
    );

    let compute =
        get!(library, nvmlGpuInstanceCreateComputeInstance, instance, 2; sys::nvmlComputeInstance_t)
            .expect("a compute instance");
    let compute_info = get!(library, nvmlComputeInstanceGetInfo_v2, compute; sys::nvmlComputeInstanceInfo_t)
        .expect("its info");
    assert_eq!((compute_info.id, compute_info.profileId, compute_info.placement.size), (0, 2, 3));
    assert_eq!(compute_info.gpuInstance, instance);
    let mig = get!(library, nvmlDeviceGetMigDeviceHandleByIndex, gpu, 0; sys::nvmlDevice_t)
        .expect("the MIG device");
    assert_eq!(compute_info.device, mig);
    assert_eq!(get!(library, nvmlDeviceGetGpuInstanceId, mig; u32), Ok(2));
    assert_eq!(get!(library, nvmlDeviceGetComputeInstanceId, mig; u32), Ok(0));
    assert_eq!(get!(library, nvmlDeviceIsMigDeviceHandle, mig; u32), Ok(1));
    assert_eq!(get!(library, nvmlDeviceIsMigDeviceHandle, gpu; u32), Ok(0));
    assert_eq!(get!(library, nvmlDeviceGetDeviceHandleFromMigDeviceHandle, mig; sys::nvmlDevice_t), Ok(gpu));
    let attributes =
        get!(library, nvmlDeviceGetAttributes_v2, mig; sys::nvmlDeviceAttributes_t).expect("attributes");
    assert_eq!((attributes.multiprocessorCount, attributes.memorySizeMB), (60, 40_448));
    assert_eq!((attributes.gpuInstanceSliceCount, attributes.computeInstanceSliceCount), (3, 3));
    let memory = get!(library, nvmlDeviceGetMemoryInfo, mig; sys::nvmlMemory_t).expect("memory");
    assert_eq!(memory.total, 40_448 << 20);

    // SAFETY: handles only.
    unsafe {
        assert_eq!(library.nvmlGpuInstanceDestroy(instance), IN_USE);
        assert_eq!(library.nvmlComputeInstanceDestroy(compute), 0);
        assert_eq!(library.nvmlComputeInstanceDestroy(compute), INVALID_ARGUMENT);
        assert_eq!(library.nvmlGpuInstanceDestroy(instance), 0);
        assert_eq!(library.nvmlGpuInstanceDestroy(instance), INVALID_ARGUMENT);
    }
    assert_eq!(get!(library, nvmlDeviceIsMigDeviceHandle, mig; u32), Err(INVALID_ARGUMENT));

    // The id is used again, the handle is not.
    let next = create(&library, gpu, 9, 4, 4).expect("the same again");
    assert_eq!(
        get!(library, nvmlGpuInstanceGetInfo, next; sys::nvmlGpuInstanceInfo_t).map(|info| info.id),
        Ok(2)
    );
    assert_eq!(
        get!(library, nvmlGpuInstanceGetInfo, instance; sys::nvmlGpuInstanceInfo_t).map(|info| info.id),
        Err(INVALID_ARGUMENT)
    );
}

#[test]
fn placements_are_told_without_mig_mode_and_without_an_array() {
    let node = Node::h100s(1, false);
    let library = node.raw();
    let gpu = gpu(&library, 0);
    let mut count = 0;
    // SAFETY: no array is asked for.
    let answer = unsafe {
        library.nvmlDeviceGetGpuInstancePossiblePlacements_v2(gpu, 15, ptr::null_mut(), &raw mut count)
    };
    assert_eq!((answer, count), (0, 4));
    let mut placements = [sys::nvmlGpuInstancePlacement_t { start: 99, size: 99 }; 4];
    count = 0; // output only
    // SAFETY: there is room for the four.
    let answer = unsafe {
        library.nvmlDeviceGetGpuInstancePossiblePlacements_v2(
            gpu,
            15,
            placements.as_mut_ptr(),
            &raw mut count,
        )
    };
    assert_eq!((answer, count), (0, 4));
    assert_eq!(
        placements.map(|placement| (placement.start, placement.size)),
        [(0, 2), (2, 2), (4, 2), (6, 2)]
    );

    assert_eq!(get!(library, nvmlDeviceGetGpuInstanceRemainingCapacity, gpu, 15; u32), Err(NOT_SUPPORTED));
    assert_eq!(create(&library, gpu, 15, 0, 2).unwrap_err(), NOT_SUPPORTED);
    assert_eq!(
        get!(library, nvmlDeviceGetGpuInstanceById, gpu, 0; sys::nvmlGpuInstance_t),
        Err(NOT_SUPPORTED)
    );
    assert_eq!(
        get!(library, nvmlDeviceGetMigDeviceHandleByIndex, gpu, 0; sys::nvmlDevice_t),
        Err(NOT_SUPPORTED)
    );
    assert_eq!(get!(library, nvmlDeviceGetMaxMigDeviceCount, gpu; u32), Ok(0));
}

#[test]
fn the_two_versions_of_the_profile_have_different_layouts() {
    let node = Node::h100s(1, false);
    let library = node.raw();
    let gpu = gpu(&library, 0);
    // SAFETY: all zeros is a value of it.
    let mut info: sys::nvmlGpuInstanceProfileInfo_v2_t = unsafe { std::mem::zeroed() };
    info.version = 0x0200_0098;
    // SAFETY: points to a local.
    assert_eq!(unsafe { library.nvmlDeviceGetGpuInstanceProfileInfoV(gpu, 7, &raw mut info) }, 0);
    assert_eq!((info.id, info.sliceCount, info.ofaCount, info.memorySizeMB), (20, 1, 1, 9984));
    // SAFETY: the library ends the name with NUL.
    assert_eq!(unsafe { std::ffi::CStr::from_ptr(info.name.as_ptr()) }, c"MIG 1g.10gb+me");
    // SAFETY: all zeros is a value of it.
    let mut info: sys::nvmlGpuInstanceProfileInfo_v3_t = unsafe { std::mem::zeroed() };
    info.version = 0x0300_0098;
    // SAFETY: points to a local as large as version 2.
    assert_eq!(
        unsafe { library.nvmlDeviceGetGpuInstanceProfileInfoByIdV(gpu, 9, (&raw mut info).cast()) },
        0
    );
    assert_eq!((info.id, info.sliceCount, info.multiprocessorCount, info.memorySizeMB), (9, 3, 60, 40_448));
    // SAFETY: the library ends the name with NUL.
    assert_eq!(unsafe { std::ffi::CStr::from_ptr(info.name.as_ptr()) }, c"MIG 3g.40gb");
    info.version = 0x0400_0098;
    // SAFETY: as above.
    assert_eq!(
        unsafe { library.nvmlDeviceGetGpuInstanceProfileInfoByIdV(gpu, 9, (&raw mut info).cast()) },
        VERSION_MISMATCH
    );
}
