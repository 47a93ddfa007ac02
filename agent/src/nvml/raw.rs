//! The calls to NVML that `nvml-wrapper` has no safe method for, or a wrong
//! one: the only unsafe code of the agent. It translates C to the plain types
//! of [`super::types`] and decides nothing.
//!
//! All calls go through the one library that the wrapper has loaded. Its
//! methods named after the C functions are not used: they panic where a
//! driver lacks the function.

#![allow(unsafe_code, reason = "foreign functions of the NVML library")]

use std::ffi::{CStr, OsStr};

use nvml_wrapper::error::{nvml_sym, nvml_try};
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings as c;

use super::fault::{Fault, code};
use super::types::Placement;

/// The loaded and initialised library.
pub(crate) struct Raw {
    nvml: Nvml,
    library: String,
}

/// A GPU, for as long as the [`Raw`] it came from.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct GpuHandle(c::nvmlDevice_t);

/// A GPU instance.
#[derive(Clone, Copy)]
pub(crate) struct GiHandle(c::nvmlGpuInstance_t);

/// A compute instance.
#[derive(Clone, Copy)]
pub(crate) struct CiHandle(c::nvmlComputeInstance_t);

/// Sizes of a GPU instance profile, and its name where the driver gives one.
pub(crate) struct ProfileInfo {
    pub(crate) id: u32,
    pub(crate) name: Option<String>,
    pub(crate) slices: u32,
    pub(crate) instances: u32,
    pub(crate) multiprocessors: u32,
    pub(crate) copy_engines: u32,
    pub(crate) decoders: u32,
    pub(crate) encoders: u32,
    pub(crate) jpeg_engines: u32,
    pub(crate) ofa_engines: u32,
    pub(crate) memory_mib: u64,
}

/// Sizes of a compute instance profile within one GPU instance.
#[derive(Clone, Copy)]
pub(crate) struct CiProfileInfo {
    pub(crate) id: u32,
    pub(crate) multiprocessors: u32,
}

/// What a GPU instance is.
pub(crate) struct GiInfo {
    pub(crate) id: u32,
    pub(crate) profile_id: u32,
    pub(crate) placement: Placement,
}

/// The only engine profile of compute instances: shared.
const SHARED_ENGINES: u32 = 0;
/// More instances of one kind than any GPU can hold.
const MOST_INSTANCES: usize = 64;

/// Calls a function of the library, by name; a missing function or an error code becomes a [`Fault`].
macro_rules! call {
    ($raw:expr, $name:ident($($argument:expr),* $(,)?)) => {{
        let function = nvml_sym($raw.nvml.lib().$name.as_ref())
            .map_err(|error| Fault::of(stringify!($name), error))?;
        // SAFETY: the handles came from this library and session, which `Raw` keeps open; every
        // pointer is to a live local of the type that the function's signature states, and buffers
        // hold as many elements as the count says, or as many as NVML can have at most.
        let answer = unsafe { function($($argument),*) };
        nvml_try(answer).map_err(|error| Fault::of(stringify!($name), error))
    }};
}

/// Names the functions of a list that the library does not have.
macro_rules! missing {
    ($nvml:expr, $($name:ident)*) => {{
        let mut missing: Vec<&str> = Vec::new();
        $(if $nvml.lib().$name.is_err() { missing.push(stringify!($name)); })*
        missing
    }};
}

impl Raw {
    /// Loads and initialises `library`; fails if it lacks what the agent needs.
    pub(crate) fn open(library: &OsStr) -> Result<Self, Fault> {
        let name = library.to_string_lossy().into_owned();
        let nvml = Nvml::builder().lib_path(library).init().map_err(|error| match error {
            nvml_wrapper::error::NvmlError::LibloadingError(why) => {
                Fault::Library { library: name.clone(), why: why.to_string() }
            }
            nvml_wrapper::error::NvmlError::FailedToLoadSymbol(why) => {
                Fault::TooOld { library: name.clone(), missing: why }
            }
            other => Fault::of("nvmlInit_v2", other),
        })?;
        let missing = missing!(nvml,
            nvmlSystemGetDriverVersion nvmlDeviceGetArchitecture nvmlDeviceGetCudaComputeCapability
            nvmlDeviceGetCount_v2 nvmlDeviceGetHandleByIndex_v2 nvmlDeviceGetUUID nvmlDeviceGetMinorNumber
            nvmlDeviceGetName nvmlDeviceGetMemoryInfo_v2 nvmlDeviceGetMigMode nvmlDeviceSetMigMode
            nvmlDeviceGetComputeRunningProcesses_v3 nvmlDeviceGetGpuInstanceProfileInfo
            nvmlDeviceGetGpuInstancePossiblePlacements_v2 nvmlDeviceCreateGpuInstanceWithPlacement
            nvmlDeviceGetGpuInstances nvmlDeviceGetGpuInstanceById nvmlGpuInstanceGetInfo nvmlGpuInstanceDestroy
            nvmlGpuInstanceGetComputeInstanceProfileInfo nvmlGpuInstanceCreateComputeInstance
            nvmlGpuInstanceGetComputeInstances nvmlComputeInstanceGetInfo_v2 nvmlComputeInstanceDestroy);
        if !missing.is_empty() {
            return Err(Fault::TooOld { library: name, missing: missing.join(", ") });
        }
        Ok(Self { nvml, library: name })
    }

    /// The wrapper's own session, for what it covers well.
    pub(crate) fn nvml(&self) -> &Nvml {
        &self.nvml
    }

    /// Name or path of the library.
    pub(crate) fn library(&self) -> &str {
        &self.library
    }

    /// The GPU at NVML's index.
    pub(crate) fn gpu(&self, index: u32) -> Result<GpuHandle, Fault> {
        let device = self
            .nvml
            .device_by_index(index)
            .map_err(|error| Fault::of("nvmlDeviceGetHandleByIndex_v2", error))?;
        // SAFETY: the handle is kept no longer than the session, and is only used with it.
        Ok(GpuHandle(unsafe { device.handle() }))
    }

    /// The wrapper's view of a GPU.
    pub(crate) fn device(&self, gpu: GpuHandle) -> Device<'_> {
        // SAFETY: the handle came from `gpu` of this session.
        unsafe { Device::new(gpu.0, &self.nvml) }
    }

    /// A profile by its enumeration; `None` where this GPU or driver has no such profile.
    pub(crate) fn profile(&self, gpu: GpuHandle, profile: u32) -> Result<Option<ProfileInfo>, Fault> {
        let answer = self.profile_v3(gpu, profile).or_else(|fault| {
            if !(fault.is(code::FUNCTION_NOT_FOUND)
                || fault.is(code::VERSION_MISMATCH)
                || fault.is(code::INVALID_ARGUMENT))
            {
                return Err(fault);
            }
            self.profile_v2(gpu, profile).or_else(|fault| {
                if fault.is(code::FUNCTION_NOT_FOUND) || fault.is(code::VERSION_MISMATCH) {
                    self.profile_v1(gpu, profile)
                } else {
                    Err(fault)
                }
            })
        });
        match answer {
            Ok(info) => Ok(Some(info)),
            Err(fault) if fault.is(code::NOT_SUPPORTED) || fault.is(code::INVALID_ARGUMENT) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    fn profile_v3(&self, gpu: GpuHandle, profile: u32) -> Result<ProfileInfo, Fault> {
        // SAFETY: all-zero is a value of this plain C structure.
        let mut info: c::nvmlGpuInstanceProfileInfo_v3_st = unsafe { std::mem::zeroed() };
        info.version = version::<c::nvmlGpuInstanceProfileInfo_v3_st>(3);
        // The function takes one pointer for all versions, told apart by the version field; both are of one size.
        let pointer = std::ptr::from_mut(&mut info).cast::<c::nvmlGpuInstanceProfileInfo_v2_t>();
        call!(self, nvmlDeviceGetGpuInstanceProfileInfoV(gpu.0, profile, pointer))?;
        Ok(ProfileInfo {
            id: info.id,
            name: text(&info.name),
            slices: info.sliceCount,
            instances: info.instanceCount,
            multiprocessors: info.multiprocessorCount,
            copy_engines: info.copyEngineCount,
            decoders: info.decoderCount,
            encoders: info.encoderCount,
            jpeg_engines: info.jpegCount,
            ofa_engines: info.ofaCount,
            memory_mib: info.memorySizeMB,
        })
    }

    fn profile_v2(&self, gpu: GpuHandle, profile: u32) -> Result<ProfileInfo, Fault> {
        // SAFETY: all-zero is a value of this plain C structure.
        let mut info: c::nvmlGpuInstanceProfileInfo_v2_st = unsafe { std::mem::zeroed() };
        info.version = version::<c::nvmlGpuInstanceProfileInfo_v2_st>(2);
        call!(self, nvmlDeviceGetGpuInstanceProfileInfoV(gpu.0, profile, &raw mut info))?;
        Ok(ProfileInfo {
            id: info.id,
            name: text(&info.name),
            slices: info.sliceCount,
            instances: info.instanceCount,
            multiprocessors: info.multiprocessorCount,
            copy_engines: info.copyEngineCount,
            decoders: info.decoderCount,
            encoders: info.encoderCount,
            jpeg_engines: info.jpegCount,
            ofa_engines: info.ofaCount,
            memory_mib: info.memorySizeMB,
        })
    }

    fn profile_v1(&self, gpu: GpuHandle, profile: u32) -> Result<ProfileInfo, Fault> {
        // SAFETY: all-zero is a value of this plain C structure.
        let mut info: c::nvmlGpuInstanceProfileInfo_st = unsafe { std::mem::zeroed() };
        call!(self, nvmlDeviceGetGpuInstanceProfileInfo(gpu.0, profile, &raw mut info))?;
        Ok(ProfileInfo {
            id: info.id,
            name: None,
            slices: info.sliceCount,
            instances: info.instanceCount,
            multiprocessors: info.multiprocessorCount,
            copy_engines: info.copyEngineCount,
            decoders: info.decoderCount,
            encoders: info.encoderCount,
            jpeg_engines: info.jpegCount,
            ofa_engines: info.ofaCount,
            memory_mib: info.memorySizeMB,
        })
    }

    /// Where a profile (by id) can be placed on an empty GPU.
    pub(crate) fn placements(&self, gpu: GpuHandle, profile_id: u32) -> Result<Vec<Placement>, Fault> {
        // The first call only counts: a null array is how NVML is asked for that.
        let mut count = 0;
        call!(
            self,
            nvmlDeviceGetGpuInstancePossiblePlacements_v2(
                gpu.0,
                profile_id,
                std::ptr::null_mut(),
                &raw mut count
            )
        )?;
        let mut found = vec![c::nvmlGpuInstancePlacement_t { start: 0, size: 0 }; count as usize];
        call!(
            self,
            nvmlDeviceGetGpuInstancePossiblePlacements_v2(
                gpu.0,
                profile_id,
                found.as_mut_ptr(),
                &raw mut count
            )
        )?;
        found.truncate(count as usize);
        Ok(found.iter().map(|found| Placement { start: found.start, size: found.size }).collect())
    }

    /// The GPU instances of a profile (by id).
    pub(crate) fn gpu_instances(&self, gpu: GpuHandle, profile_id: u32) -> Result<Vec<GiHandle>, Fault> {
        let mut found = [std::ptr::null_mut(); MOST_INSTANCES];
        let mut count = 0;
        call!(self, nvmlDeviceGetGpuInstances(gpu.0, profile_id, found.as_mut_ptr(), &raw mut count))?;
        Ok(found.iter().take(count as usize).map(|handle| GiHandle(*handle)).collect())
    }

    /// What a GPU instance is.
    pub(crate) fn gi_info(&self, gi: GiHandle) -> Result<GiInfo, Fault> {
        // SAFETY: all-zero is a value of this plain C structure.
        let mut info: c::nvmlGpuInstanceInfo_t = unsafe { std::mem::zeroed() };
        call!(self, nvmlGpuInstanceGetInfo(gi.0, &raw mut info))?;
        Ok(GiInfo {
            id: info.id,
            profile_id: info.profileId,
            placement: Placement { start: info.placement.start, size: info.placement.size },
        })
    }

    /// The GPU instance with this id.
    pub(crate) fn gi_by_id(&self, gpu: GpuHandle, id: u32) -> Result<GiHandle, Fault> {
        let mut gi = std::ptr::null_mut();
        call!(self, nvmlDeviceGetGpuInstanceById(gpu.0, id, &raw mut gi))?;
        Ok(GiHandle(gi))
    }

    /// Creates a GPU instance at a placement.
    pub(crate) fn create_gi(
        &self,
        gpu: GpuHandle,
        profile_id: u32,
        at: Placement,
    ) -> Result<GiHandle, Fault> {
        let placement = c::nvmlGpuInstancePlacement_t { start: at.start, size: at.size };
        let mut gi = std::ptr::null_mut();
        call!(
            self,
            nvmlDeviceCreateGpuInstanceWithPlacement(gpu.0, profile_id, &raw const placement, &raw mut gi)
        )?;
        Ok(GiHandle(gi))
    }

    /// Destroys a GPU instance that has no compute instance.
    pub(crate) fn destroy_gi(&self, gi: GiHandle) -> Result<(), Fault> {
        call!(self, nvmlGpuInstanceDestroy(gi.0))
    }

    /// A compute instance profile by its enumeration; `None` where the GPU instance has no such profile.
    pub(crate) fn ci_profile(&self, gi: GiHandle, profile: u32) -> Result<Option<CiProfileInfo>, Fault> {
        // SAFETY: all-zero is a value of this plain C structure.
        let mut info: c::nvmlComputeInstanceProfileInfo_t = unsafe { std::mem::zeroed() };
        match call!(
            self,
            nvmlGpuInstanceGetComputeInstanceProfileInfo(gi.0, profile, SHARED_ENGINES, &raw mut info)
        ) {
            Ok(()) => Ok(Some(CiProfileInfo { id: info.id, multiprocessors: info.multiprocessorCount })),
            Err(fault) if fault.is(code::NOT_SUPPORTED) || fault.is(code::INVALID_ARGUMENT) => Ok(None),
            Err(fault) => Err(fault),
        }
    }

    /// The compute instances of a profile (by id).
    pub(crate) fn compute_instances(&self, gi: GiHandle, profile_id: u32) -> Result<Vec<CiHandle>, Fault> {
        let mut found = [std::ptr::null_mut(); MOST_INSTANCES];
        let mut count = 0;
        call!(
            self,
            nvmlGpuInstanceGetComputeInstances(gi.0, profile_id, found.as_mut_ptr(), &raw mut count)
        )?;
        Ok(found.iter().take(count as usize).map(|handle| CiHandle(*handle)).collect())
    }

    /// Id of a compute instance, and UUID of the MIG device that it makes.
    pub(crate) fn ci_info(&self, ci: CiHandle) -> Result<(u32, String), Fault> {
        // SAFETY: all-zero is a value of this plain C structure.
        let mut info: c::nvmlComputeInstanceInfo_t = unsafe { std::mem::zeroed() };
        call!(self, nvmlComputeInstanceGetInfo_v2(ci.0, &raw mut info))?;
        let device = self.device(GpuHandle(info.device));
        let uuid = device.uuid().map_err(|error| Fault::of("nvmlDeviceGetUUID", error))?;
        Ok((info.id, uuid))
    }

    /// Creates a compute instance.
    pub(crate) fn create_ci(&self, gi: GiHandle, profile_id: u32) -> Result<CiHandle, Fault> {
        let mut ci = std::ptr::null_mut();
        call!(self, nvmlGpuInstanceCreateComputeInstance(gi.0, profile_id, &raw mut ci))?;
        Ok(CiHandle(ci))
    }

    /// Destroys a compute instance that no process uses.
    pub(crate) fn destroy_ci(&self, ci: CiHandle) -> Result<(), Fault> {
        call!(self, nvmlComputeInstanceDestroy(ci.0))
    }

    /// Ids of the GPU instance and the compute instance behind a MIG device.
    pub(crate) fn instance_ids(&self, mig: &Device<'_>) -> Result<(u32, u32), Fault> {
        // SAFETY: used only in the two calls below, while `mig` lives.
        let handle = unsafe { mig.handle() };
        let (mut gi, mut ci) = (0, 0);
        call!(self, nvmlDeviceGetGpuInstanceId(handle, &raw mut gi))?;
        call!(self, nvmlDeviceGetComputeInstanceId(handle, &raw mut ci))?;
        Ok((gi, ci))
    }
}

/// `NVML_STRUCT_VERSION`: size and version in one field.
fn version<T>(version: u32) -> u32 {
    u32::try_from(std::mem::size_of::<T>()).unwrap_or(0) | version << 24
}

/// A name in a fixed C buffer; `None` when empty, unterminated or not UTF-8.
fn text(buffer: &[std::os::raw::c_char]) -> Option<String> {
    let bytes: Vec<u8> = buffer.iter().map(|byte| byte.cast_unsigned()).collect();
    let text = CStr::from_bytes_until_nul(&bytes).ok()?.to_str().ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    /// A library that lacks a function is told at once, not in the middle of a claim.
    #[test]
    fn every_function_without_a_substitute_is_required() {
        const SOURCES: [&str; 2] = [include_str!("raw.rs"), include_str!("session.rs")];
        // Has an older one to fall back on; and what only the listing in containers asks for.
        const OPTIONAL: [&str; 4] = [
            "nvmlDeviceGetGpuInstanceProfileInfoV",
            "nvmlDeviceGetGpuInstanceId",
            "nvmlDeviceGetComputeInstanceId",
            "nvmlDeviceGetBrand",
        ];
        let (_, list) = SOURCES[0].split_once("missing!(nvml,").unwrap();
        let (list, _) = list.split_once(");").unwrap();
        let required: Vec<&str> = list.split_whitespace().collect();
        assert!(required.len() > 20, "{required:?}");
        let code = SOURCES.map(|source| source.split("#[cfg(test)]").next().unwrap()).concat();
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let called = code.match_indices("nvml").filter(|(at, _)| !code[..*at].ends_with(letter));
        let called = called.map(|(at, _)| code[at..].split(|c| !letter(c)).next().unwrap());
        for name in called {
            let function = ["Device", "System", "GpuInstance", "ComputeInstance"]
                .iter()
                .any(|kind| name.strip_prefix("nvml").is_some_and(|rest| rest.starts_with(kind)))
                && !name.ends_with("_t")
                && !name.ends_with("_st");
            let there = required.contains(&name) || OPTIONAL.contains(&name);
            assert!(!function || there, "{name} is called and not required");
        }
    }
}
