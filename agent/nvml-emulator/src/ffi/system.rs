//! Initialization, versions, and what belongs to no device.

use std::ffi::{c_char, c_int};
use std::fs;

use crate::code::Code;
use crate::faults;
use crate::session;

use super::pointers::Out;
use super::{guard, nvml};

/// `NVML_INIT_FLAG_NO_GPUS | NVML_INIT_FLAG_NO_ATTACH`: neither changes anything here.
const KNOWN_INIT_FLAGS: u32 = 3;

macro_rules! init {
    ($($name:ident($($arg:ident: $type:ty)?) $check:expr;)*) => {
        $(
            // SAFETY: as for `nvml!`.
            #[unsafe(no_mangle)]
            extern "C" fn $name($($arg: $type)?) -> u32 {
                guard(|| {
                    $check?;
                    let session = session::open()?;
                    // An injected error means that the initialization failed.
                    faults::around(&session.store, stringify!($name), || Ok(())).inspect_err(|_| {
                        let _ = session::close();
                    })
                })
            }
        )*
        const INIT_NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}

init! {
    nvmlInit() Ok(());
    nvmlInit_v2() Ok(());
    nvmlInitWithFlags(flags: u32) if flags & !KNOWN_INIT_FLAGS == 0 { Ok(()) } else { Err(Code::InvalidArgument) };
}

/// Works without initialization, so it is not one of `nvml!`.
// SAFETY: as for `nvml!`.
#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(result: u32) -> *const c_char {
    let text = match result {
        0 => c"Success",
        raw => Code::from_raw(raw).unwrap_or(Code::Unknown).text(),
    };
    text.as_ptr()
}

/// The functions of this module that are not declared with `nvml!`.
pub(crate) fn more_names() -> impl Iterator<Item = &'static str> {
    INIT_NAMES.iter().copied().chain(["nvmlErrorString"])
}

nvml! {
    fn nvmlShutdown() |_| {
        session::close()
    }

    fn nvmlSystemGetDriverVersion(version: Out<c_char>, length: u32) |session| {
        version.set_text(length, &session.view()?.state.driver_version)
    }

    fn nvmlSystemGetNVMLVersion(version: Out<c_char>, length: u32) |session| {
        let state = session.view()?.state;
        version.set_text(length, &format!("{}.{}", state.cuda_version.0, state.driver_version))
    }

    fn nvmlSystemGetCudaDriverVersion(version: Out<c_int>) |session| {
        version.set(cuda_driver_version(session.view()?.state.cuda_version)?)
    }

    fn nvmlSystemGetCudaDriverVersion_v2(version: Out<c_int>) |session| {
        version.set(cuda_driver_version(session.view()?.state.cuda_version)?)
    }

    fn nvmlSystemGetProcessName(pid: u32, name: Out<c_char>, length: u32) |_| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).map_err(|_| Code::NotFound)?;
        let line = String::from_utf8_lossy(&line);
        let program = line.split('\0').next().unwrap_or_default();
        let longest = (length as usize).saturating_sub(1);
        let end = (0..=longest.min(program.len())).rev().find(|&end| program.is_char_boundary(end)).unwrap_or(0);
        name.set_text(length, &program[..end])
    }

    fn nvmlUnitGetCount(count: Out<u32>) |_| {
        count.set(0)
    }

    fn nvmlGetExcludedDeviceCount(count: Out<u32>) |_| {
        count.set(0)
    }
}

/// CUDA's way to write a version as one number: 13.0 is 13000.
fn cuda_driver_version((major, minor): (u32, u32)) -> Result<c_int, Code> {
    c_int::try_from(major * 1000 + minor * 10).map_err(|_| Code::Unknown)
}
