//! Compute instances: here profile number and profile id are the same.

use nvml_wrapper_sys::bindings::{
    nvmlComputeInstancePlacement_t, nvmlComputeInstanceProfileInfo_t, nvmlComputeInstanceProfileInfo_v2_t,
    nvmlComputeInstanceProfileInfo_v3_t,
};

use crate::cards::Profile;
use crate::code::Code;
use crate::mig::compute::{self as rules, ComputeProfile};
use crate::session::Session;
use crate::state::{Gpu, GpuInstance};

use super::handles::{ComputeInstanceHandle, DeviceHandle, GpuInstanceHandle};
use super::nvml;
use super::pointers::{In, Out, set_unsized_list, struct_version, text_array};

/// `NVML_COMPUTE_INSTANCE_PROFILE_COUNT` of the newest header.
const PROFILE_COUNT: u32 = 9;
/// `NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED`, the only one.
const SHARED_ENGINES: u32 = 0;

const VERSION_2: u32 = struct_version::<nvmlComputeInstanceProfileInfo_v2_t>(2);
const VERSION_3: u32 = struct_version::<nvmlComputeInstanceProfileInfo_v3_t>(3);
const _: () = assert!(VERSION_2 == 0x0200_0088 && VERSION_3 == 0x0300_008c);

/// `nvmlComputeInstanceInfo_t` as it was first, without the placement.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct ComputeInstanceInfoV1 {
    /// The MIG device that the instance is.
    device: DeviceHandle,
    gpu_instance: GpuInstanceHandle,
    id: u32,
    profile_id: u32,
}

/// `nvmlComputeInstanceInfo_t`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct ComputeInstanceInfo {
    first: ComputeInstanceInfoV1,
    placement: nvmlComputeInstancePlacement_t,
}
const _: () = assert!(size_of::<ComputeInstanceInfo>() == 32);

nvml! {
    fn nvmlGpuInstanceGetComputeInstanceProfileInfo(
        gpu_instance: GpuInstanceHandle,
        profile: u32,
        engine_profile: u32,
        info: Out<nvmlComputeInstanceProfileInfo_t>,
    ) |session| {
        let view = session.view()?;
        let (gpu, instance) = view.gpu_instance(gpu_instance)?;
        let (of, cut) = profiles(gpu, instance, profile, engine_profile)?;
        info.set(nvmlComputeInstanceProfileInfo_t {
            id: cut.id,
            sliceCount: cut.slices,
            instanceCount: max_instances(&cut)?,
            multiprocessorCount: cut.multiprocessors,
            sharedCopyEngineCount: of.copy_engines,
            sharedDecoderCount: of.decoders,
            sharedEncoderCount: of.encoders,
            sharedJpegCount: of.jpeg_engines,
            sharedOfaCount: of.ofa_engines,
        })
    }

    fn nvmlGpuInstanceGetComputeInstanceProfileInfoV(
        gpu_instance: GpuInstanceHandle,
        profile: u32,
        engine_profile: u32,
        info: Out<nvmlComputeInstanceProfileInfo_v2_t>,
    ) |session| {
        let view = session.view()?;
        let (gpu, instance) = view.gpu_instance(gpu_instance)?;
        let (of, cut) = profiles(gpu, instance, profile, engine_profile)?;
        let version = info.cast::<u32>().get()?;
        let first = nvmlComputeInstanceProfileInfo_v2_t {
            version,
            id: cut.id,
            sliceCount: cut.slices,
            instanceCount: max_instances(&cut)?,
            multiprocessorCount: cut.multiprocessors,
            sharedCopyEngineCount: of.copy_engines,
            sharedDecoderCount: of.decoders,
            sharedEncoderCount: of.encoders,
            sharedJpegCount: of.jpeg_engines,
            sharedOfaCount: of.ofa_engines,
            name: text_array(&format!("MIG {}", cut.name)),
        };
        match version {
            VERSION_2 => info.set(first),
            // Version 3 is version 2 with one field more.
            VERSION_3 => info.cast().set(nvmlComputeInstanceProfileInfo_v3_t {
                version,
                id: first.id,
                sliceCount: first.sliceCount,
                instanceCount: first.instanceCount,
                multiprocessorCount: first.multiprocessorCount,
                sharedCopyEngineCount: first.sharedCopyEngineCount,
                sharedDecoderCount: first.sharedDecoderCount,
                sharedEncoderCount: first.sharedEncoderCount,
                sharedJpegCount: first.sharedJpegCount,
                sharedOfaCount: first.sharedOfaCount,
                name: first.name,
                capabilities: 0,
            }),
            _ => Err(Code::ArgumentVersionMismatch),
        }
    }

    fn nvmlGpuInstanceGetComputeInstanceRemainingCapacity(
        gpu_instance: GpuInstanceHandle,
        profile_id: u32,
        count: Out<u32>,
    ) |session| {
        let view = session.view()?;
        let (gpu, instance) = view.gpu_instance(gpu_instance)?;
        session.privileged()?;
        let card = gpu.card()?;
        let profile = rules::profile(card, instance, profile_id)?;
        let free = rules::free_starts(card, instance, &profile)?.len();
        count.set(u32::try_from(free).map_err(|_| Code::Unknown)?)
    }

    fn nvmlGpuInstanceGetComputeInstancePossiblePlacements(
        gpu_instance: GpuInstanceHandle,
        profile_id: u32,
        placements: Out<nvmlComputeInstancePlacement_t>,
        count: Out<u32>,
    ) |session| {
        let view = session.view()?;
        let (gpu, instance) = view.gpu_instance(gpu_instance)?;
        session.privileged()?;
        let profile = rules::profile(gpu.card()?, instance, profile_id)?;
        let size = profile.slices;
        let all: Vec<_> = profile.starts.iter().map(|&start| nvmlComputeInstancePlacement_t { start, size }).collect();
        set_unsized_list(&count, &placements, &all)
    }

    fn nvmlGpuInstanceCreateComputeInstance(
        gpu_instance: GpuInstanceHandle,
        profile_id: u32,
        compute_instance: Out<ComputeInstanceHandle>,
    ) |session| {
        create(session, gpu_instance, profile_id, None, &compute_instance)
    }

    fn nvmlGpuInstanceCreateComputeInstanceWithPlacement(
        gpu_instance: GpuInstanceHandle,
        profile_id: u32,
        placement: In<nvmlComputeInstancePlacement_t>,
        compute_instance: Out<ComputeInstanceHandle>,
    ) |session| {
        create(session, gpu_instance, profile_id, Some(placement.get()?), &compute_instance)
    }

    fn nvmlComputeInstanceDestroy(compute_instance: ComputeInstanceHandle) |session| {
        let (minor, serial) = compute_instance.parts()?;
        session.view()?.compute_instance(compute_instance)?;
        session.configure(|state| rules::destroy(state, minor, serial))
    }

    fn nvmlGpuInstanceGetComputeInstances(
        gpu_instance: GpuInstanceHandle,
        profile_id: u32,
        compute_instances: Out<ComputeInstanceHandle>,
        count: Out<u32>,
    ) |session| {
        let view = session.view()?;
        let (gpu, instance) = view.gpu_instance(gpu_instance)?;
        session.privileged()?;
        rules::profile(gpu.card()?, instance, profile_id)?;
        let of_profile = view
            .mig_devices(gpu)
            .filter(|(of, compute)| of.serial == instance.serial && compute.profile_id == profile_id);
        let handles: Vec<_> =
            of_profile.map(|(_, compute)| ComputeInstanceHandle::of(gpu.minor, compute.serial)).collect();
        set_unsized_list(&count, &compute_instances, &handles)
    }

    fn nvmlGpuInstanceGetComputeInstanceById(
        gpu_instance: GpuInstanceHandle,
        id: u32,
        compute_instance: Out<ComputeInstanceHandle>,
    ) |session| {
        let view = session.view()?;
        let (gpu, instance) = view.gpu_instance(gpu_instance)?;
        session.privileged()?;
        compute_instance.check()?;
        let found = view.mig_devices(gpu).find(|(of, compute)| of.serial == instance.serial && compute.id == id);
        let (_, compute) = found.ok_or(Code::NotFound)?;
        compute_instance.set(ComputeInstanceHandle::of(gpu.minor, compute.serial))
    }

    fn nvmlComputeInstanceGetInfo(
        compute_instance: ComputeInstanceHandle,
        info: Out<ComputeInstanceInfoV1>,
    ) |session| {
        info.set(info_of(session, compute_instance)?.first)
    }

    fn nvmlComputeInstanceGetInfo_v2(
        compute_instance: ComputeInstanceHandle,
        info: Out<ComputeInstanceInfo>,
    ) |session| {
        info.set(info_of(session, compute_instance)?)
    }
}

fn create(
    session: &Session,
    gpu_instance: GpuInstanceHandle,
    profile_id: u32,
    placement: Option<nvmlComputeInstancePlacement_t>,
    created: &Out<ComputeInstanceHandle>,
) -> Result<(), Code> {
    let view = session.view()?;
    let (gpu, instance) = view.gpu_instance(gpu_instance)?;
    created.check()?;
    let profile = rules::profile(gpu.card()?, instance, profile_id)?;
    if placement.is_some_and(|placement| placement.size != profile.slices) {
        return Err(Code::InvalidArgument);
    }
    let start = placement.map(|placement| placement.start);
    let serial =
        session.configure(|state| rules::create(state, gpu.minor, instance.serial, profile_id, start))?;
    created.set(ComputeInstanceHandle::of(gpu.minor, serial))
}

fn info_of(session: &Session, handle: ComputeInstanceHandle) -> Result<ComputeInstanceInfo, Code> {
    let view = session.view()?;
    let (gpu, instance, compute) = view.compute_instance(handle)?;
    let profile = rules::profile(gpu.card()?, instance, compute.profile_id)?;
    Ok(ComputeInstanceInfo {
        first: ComputeInstanceInfoV1 {
            device: DeviceHandle::of_mig(gpu, compute),
            gpu_instance: GpuInstanceHandle::of(gpu.minor, instance.serial),
            id: compute.id,
            profile_id: compute.profile_id,
        },
        placement: nvmlComputeInstancePlacement_t { start: compute.start, size: profile.slices },
    })
}

fn profiles(
    gpu: &Gpu,
    instance: &GpuInstance,
    number: u32,
    engine_profile: u32,
) -> Result<(&'static Profile, ComputeProfile), Code> {
    if number >= PROFILE_COUNT || engine_profile != SHARED_ENGINES {
        return Err(Code::InvalidArgument);
    }
    let card = gpu.card()?;
    Ok((instance.profile(card)?, rules::profile(card, instance, number)?))
}

fn max_instances(profile: &ComputeProfile) -> Result<u32, Code> {
    u32::try_from(profile.starts.len()).map_err(|_| Code::Unknown)
}
