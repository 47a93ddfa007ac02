//! Short forms of the raw calls that the tests make often.

use nvml_wrapper_sys::bindings as sys;
use nvml_wrapper_sys::bindings::NvmlLib;

/// A call with one result: `Ok` with it, or the code.
macro_rules! get {
    ($library:expr, $function:ident, $($argument:expr),* ; $type:ty) => {{
        // SAFETY: all zeros is a value of every structure of NVML, handles included.
        let mut value: $type = unsafe { std::mem::zeroed() };
        // SAFETY: `value` outlives the call; the other arguments are numbers, handles or pointers to locals.
        match unsafe { $library.$function($($argument,)* &raw mut value) } {
            0 => Ok(value),
            code => Err(code),
        }
    }};
}
pub(crate) use get;

/// The GPU of an index.
pub fn gpu(library: &NvmlLib, index: u32) -> sys::nvmlDevice_t {
    get!(library, nvmlDeviceGetHandleByIndex_v2, index; sys::nvmlDevice_t).expect("the GPU")
}

/// Creates a GPU instance at a placement.
pub fn create_at(
    library: &NvmlLib,
    gpu: sys::nvmlDevice_t,
    profile: u32,
    start: u32,
    size: u32,
) -> Result<sys::nvmlGpuInstance_t, u32> {
    let placement = sys::nvmlGpuInstancePlacement_t { start, size };
    get!(library, nvmlDeviceCreateGpuInstanceWithPlacement, gpu, profile, &raw const placement; sys::nvmlGpuInstance_t)
}

/// Creates a GPU instance with one compute instance that takes all of it, and returns the MIG device too.
pub fn partition(
    library: &NvmlLib,
    gpu: sys::nvmlDevice_t,
    (profile, compute_profile): (u32, u32),
    (start, size): (u32, u32),
) -> (sys::nvmlGpuInstance_t, sys::nvmlComputeInstance_t, sys::nvmlDevice_t) {
    let instance = create_at(library, gpu, profile, start, size).expect("a GPU instance");
    let compute =
        get!(library, nvmlGpuInstanceCreateComputeInstance, instance, compute_profile; sys::nvmlComputeInstance_t)
            .expect("a compute instance");
    let info =
        get!(library, nvmlComputeInstanceGetInfo_v2, compute; sys::nvmlComputeInstanceInfo_t).expect("info");
    (instance, compute, info.device)
}

/// The UUID of a device.
pub fn uuid(library: &NvmlLib, device: sys::nvmlDevice_t) -> Result<String, u32> {
    let mut text = [0_u8; 96];
    // SAFETY: the buffer is as long as said.
    match unsafe { library.nvmlDeviceGetUUID(device, text.as_mut_ptr().cast(), 96) } {
        0 => {
            Ok(std::ffi::CStr::from_bytes_until_nul(&text).expect("NUL").to_str().expect("UTF-8").to_owned())
        }
        code => Err(code),
    }
}
