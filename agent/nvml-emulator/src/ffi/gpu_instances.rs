//! GPU instances: profiles (asked for by number), and everything else (asked for by profile id).

use nvml_wrapper_sys::bindings::{
    nvmlGpuInstancePlacement_t, nvmlGpuInstanceProfileInfo_t, nvmlGpuInstanceProfileInfo_v2_t,
    nvmlGpuInstanceProfileInfo_v3_t,
};

use crate::cards::{Card, Profile};
use crate::code::Code;
use crate::mig::gpu_instances as rules;
use crate::session::Session;
use crate::state::{Gpu, State};

use super::handles::{DeviceHandle, GpuInstanceHandle};
use super::nvml;
use super::pointers::{In, Out, set_unsized_list, struct_version, text_array};

/// `NVML_GPU_INSTANCE_PROFILE_COUNT` of the newest header; the numbers below it are profiles somewhere.
const PROFILE_COUNT: u32 = 18;

const VERSION_2: u32 = struct_version::<nvmlGpuInstanceProfileInfo_v2_t>(2);
const VERSION_3: u32 = struct_version::<nvmlGpuInstanceProfileInfo_v3_t>(3);
const _: () = assert!(VERSION_2 == 0x0200_0098 && VERSION_3 == 0x0300_0098);

/// `nvmlGpuInstanceInfo_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct GpuInstanceInfo {
    device: DeviceHandle,
    id: u32,
    profile_id: u32,
    placement: nvmlGpuInstancePlacement_t,
}
const _: () = assert!(size_of::<GpuInstanceInfo>() == 24);

nvml! {
    fn nvmlDeviceGetGpuInstanceProfileInfo(
        device: DeviceHandle,
        profile: u32,
        info: Out<nvmlGpuInstanceProfileInfo_t>,
    ) |session| {
        let view = session.view()?;
        info.set(info_v1(by_number(view.gpu(device)?, profile)?))
    }

    fn nvmlDeviceGetGpuInstanceProfileInfoV(
        device: DeviceHandle,
        profile: u32,
        info: Out<nvmlGpuInstanceProfileInfo_v2_t>,
    ) |session| {
        let view = session.view()?;
        set_versioned(&info, by_number(view.gpu(device)?, profile)?)
    }

    fn nvmlDeviceGetGpuInstanceProfileInfoByIdV(
        device: DeviceHandle,
        profile_id: u32,
        info: Out<nvmlGpuInstanceProfileInfo_v2_t>,
    ) |session| {
        let view = session.view()?;
        let (_, profile) = by_id(view.gpu(device)?, profile_id)?;
        set_versioned(&info, profile)
    }

    fn nvmlDeviceGetGpuInstancePossiblePlacements(
        device: DeviceHandle,
        profile_id: u32,
        placements: Out<nvmlGpuInstancePlacement_t>,
        count: Out<u32>,
    ) |session| {
        set_placements(session, device, profile_id, &placements, &count)
    }

    fn nvmlDeviceGetGpuInstancePossiblePlacements_v2(
        device: DeviceHandle,
        profile_id: u32,
        placements: Out<nvmlGpuInstancePlacement_t>,
        count: Out<u32>,
    ) |session| {
        set_placements(session, device, profile_id, &placements, &count)
    }

    fn nvmlDeviceGetGpuInstanceRemainingCapacity(device: DeviceHandle, profile_id: u32, count: Out<u32>) |session| {
        let view = session.view()?;
        let gpu = in_mig_mode(view.gpu(device)?)?;
        session.privileged()?;
        let (card, profile) = by_id(gpu, profile_id)?;
        count.set(rules::remaining(gpu, card, profile))
    }

    fn nvmlDeviceCreateGpuInstance(
        device: DeviceHandle,
        profile_id: u32,
        gpu_instance: Out<GpuInstanceHandle>,
    ) |session| {
        create(session, device, profile_id, None, &gpu_instance)
    }

    fn nvmlDeviceCreateGpuInstanceWithPlacement(
        device: DeviceHandle,
        profile_id: u32,
        placement: In<nvmlGpuInstancePlacement_t>,
        gpu_instance: Out<GpuInstanceHandle>,
    ) |session| {
        create(session, device, profile_id, Some(placement.get()?), &gpu_instance)
    }

    fn nvmlGpuInstanceDestroy(gpu_instance: GpuInstanceHandle) |session| {
        let (minor, serial) = gpu_instance.parts()?;
        session.view()?.gpu_instance(gpu_instance)?;
        session.configure(|state| rules::destroy(state, minor, serial))
    }

    fn nvmlDeviceGetGpuInstances(
        device: DeviceHandle,
        profile_id: u32,
        gpu_instances: Out<GpuInstanceHandle>,
        count: Out<u32>,
    ) |session| {
        let view = session.view()?;
        let gpu = in_mig_mode(view.gpu(device)?)?;
        session.privileged()?;
        by_id(gpu, profile_id)?;
        let of_profile = view.instances(gpu).filter(|instance| instance.profile_id == profile_id);
        let handles: Vec<_> = of_profile.map(|instance| GpuInstanceHandle::of(gpu.minor, instance.serial)).collect();
        set_unsized_list(&count, &gpu_instances, &handles)
    }

    fn nvmlDeviceGetGpuInstanceById(device: DeviceHandle, id: u32, gpu_instance: Out<GpuInstanceHandle>) |session| {
        let view = session.view()?;
        let gpu = in_mig_mode(view.gpu(device)?)?;
        session.privileged()?;
        gpu_instance.check()?;
        let instance = view.instances(gpu).find(|instance| instance.id == id).ok_or(Code::NotFound)?;
        gpu_instance.set(GpuInstanceHandle::of(gpu.minor, instance.serial))
    }

    fn nvmlGpuInstanceGetInfo(gpu_instance: GpuInstanceHandle, info: Out<GpuInstanceInfo>) |session| {
        let view = session.view()?;
        let (gpu, instance) = view.gpu_instance(gpu_instance)?;
        let profile = instance.profile(gpu.card()?)?;
        info.set(GpuInstanceInfo {
            device: DeviceHandle::of_gpu(gpu),
            id: instance.id,
            profile_id: instance.profile_id,
            placement: nvmlGpuInstancePlacement_t { start: instance.start, size: profile.memory_slices },
        })
    }
}

impl Session {
    /// What the header marks with "Requires privileged user": in a container this is the right to change MIG.
    pub(super) fn privileged(&self) -> Result<(), Code> {
        if self.visibility.may_configure() { Ok(()) } else { Err(Code::NoPermission) }
    }

    /// Changes instances or modes, if this process has the right to.
    pub(super) fn configure<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Code>) -> Result<T, Code> {
        self.privileged()?;
        self.store.change(change).map_err(|error| error.code())
    }
}

fn create(
    session: &Session,
    device: DeviceHandle,
    profile_id: u32,
    placement: Option<nvmlGpuInstancePlacement_t>,
    created: &Out<GpuInstanceHandle>,
) -> Result<(), Code> {
    let view = session.view()?;
    let gpu = in_mig_mode(view.gpu(device)?)?;
    created.check()?;
    let (_, profile) = by_id(gpu, profile_id)?;
    if placement.is_some_and(|placement| placement.size != profile.memory_slices) {
        return Err(Code::InvalidArgument);
    }
    let start = placement.map(|placement| placement.start);
    let serial = session.configure(|state| rules::create(state, gpu.minor, profile_id, start))?;
    created.set(GpuInstanceHandle::of(gpu.minor, serial))
}

fn set_placements(
    session: &Session,
    device: DeviceHandle,
    profile_id: u32,
    placements: &Out<nvmlGpuInstancePlacement_t>,
    count: &Out<u32>,
) -> Result<(), Code> {
    let view = session.view()?;
    // What the profile allows on an empty GPU: also without MIG mode, also where it is taken now.
    let (_, profile) = by_id(view.gpu(device)?, profile_id)?;
    session.privileged()?;
    let size = profile.memory_slices;
    let all: Vec<_> =
        profile.starts.iter().map(|&start| nvmlGpuInstancePlacement_t { start, size }).collect();
    set_unsized_list(count, placements, &all)
}

fn in_mig_mode(gpu: &Gpu) -> Result<&Gpu, Code> {
    if gpu.mig { Ok(gpu) } else { Err(Code::NotSupported) }
}

fn by_number(gpu: &Gpu, number: u32) -> Result<&'static Profile, Code> {
    if number >= PROFILE_COUNT {
        return Err(Code::InvalidArgument);
    }
    gpu.card()?.profile_by_number(number).ok_or(Code::NotSupported)
}

fn by_id(gpu: &Gpu, id: u32) -> Result<(&'static Card, &'static Profile), Code> {
    let card = gpu.card()?;
    Ok((card, card.profile_by_id(id).ok_or(Code::NotSupported)?))
}

fn info_v1(profile: &Profile) -> nvmlGpuInstanceProfileInfo_t {
    nvmlGpuInstanceProfileInfo_t {
        id: profile.id,
        isP2pSupported: 0,
        sliceCount: profile.compute_slices,
        instanceCount: profile.max_instances,
        multiprocessorCount: profile.multiprocessors,
        copyEngineCount: profile.copy_engines,
        decoderCount: profile.decoders,
        encoderCount: profile.encoders,
        jpegCount: profile.jpeg_engines,
        ofaCount: profile.ofa_engines,
        memorySizeMB: profile.memory_mib,
    }
}

/// Version 3 is as large as version 2, but without `isP2pSupported`, so that all that follows lies elsewhere.
fn set_versioned(info: &Out<nvmlGpuInstanceProfileInfo_v2_t>, profile: &Profile) -> Result<(), Code> {
    let name = text_array(&format!("MIG {}", profile.name));
    let version = info.cast::<u32>().get()?;
    match version {
        VERSION_2 => info.set(nvmlGpuInstanceProfileInfo_v2_t {
            version,
            id: profile.id,
            isP2pSupported: 0,
            sliceCount: profile.compute_slices,
            instanceCount: profile.max_instances,
            multiprocessorCount: profile.multiprocessors,
            copyEngineCount: profile.copy_engines,
            decoderCount: profile.decoders,
            encoderCount: profile.encoders,
            jpegCount: profile.jpeg_engines,
            ofaCount: profile.ofa_engines,
            memorySizeMB: profile.memory_mib,
            name,
        }),
        VERSION_3 => info.cast().set(nvmlGpuInstanceProfileInfo_v3_t {
            version,
            id: profile.id,
            sliceCount: profile.compute_slices,
            instanceCount: profile.max_instances,
            multiprocessorCount: profile.multiprocessors,
            copyEngineCount: profile.copy_engines,
            decoderCount: profile.decoders,
            encoderCount: profile.encoders,
            jpegCount: profile.jpeg_engines,
            ofaCount: profile.ofa_engines,
            memorySizeMB: profile.memory_mib,
            name,
            capabilities: 0,
        }),
        _ => Err(Code::ArgumentVersionMismatch),
    }
}
