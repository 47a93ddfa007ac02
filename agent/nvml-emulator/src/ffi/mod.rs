//! The C functions. Each is declared with [`nvml!`], which gives it its name in the library, counts it as emulated,
//! and runs its body with the open session, the faults that wait for it, and no panic getting out.

mod compute_instances;
mod devices;
mod gpu_instances;
mod handles;
mod identity;
mod memory;
mod mig;
mod pci;
mod pointers;
mod processes;
mod stubs;
mod system;

use std::panic::{self, AssertUnwindSafe};

use crate::code::Code;
use crate::faults;
use crate::session::{self, Session};

/// Declares C functions: `fn name(arguments) |session| { body }`, the body a `Result<(), Code>`.
macro_rules! nvml {
    ($($(#[$meta:meta])* fn $name:ident($($arg:ident: $type:ty),* $(,)?) |$session:pat_param| $body:block)*) => {
        $(
            $(#[$meta])*
            // SAFETY: no other library in the process defines a function of this name, or it is meant to be replaced.
            #[unsafe(no_mangle)]
            extern "C" fn $name($($arg: $type),*) -> u32 {
                $crate::ffi::call(stringify!($name), |$session| $body)
            }
        )*

        /// The functions of this module.
        pub(crate) const NAMES: &[&str] = &[$(stringify!($name)),*];
    };
}
pub(crate) use nvml;

/// The functions that are emulated.
pub(crate) fn emulated() -> impl Iterator<Item = &'static str> {
    [
        compute_instances::NAMES,
        devices::NAMES,
        gpu_instances::NAMES,
        identity::NAMES,
        memory::NAMES,
        mig::NAMES,
        pci::NAMES,
        processes::NAMES,
        system::NAMES,
    ]
    .into_iter()
    .flatten()
    .copied()
    .chain(system::more_names())
}

/// The functions that only answer `NVML_ERROR_NOT_SUPPORTED`.
pub(crate) fn not_emulated() -> impl Iterator<Item = &'static str> {
    stubs::NAMES.iter().copied()
}

/// Runs the body of a C function.
fn call(function: &str, body: impl FnOnce(&Session) -> Result<(), Code>) -> u32 {
    guard(|| {
        let session = session::current()?;
        faults::around(&session.store, function, || body(&session))
    })
}

/// Turns an answer into a return code; a panic becomes `NVML_ERROR_UNKNOWN`.
fn guard(body: impl FnOnce() -> Result<(), Code>) -> u32 {
    match panic::catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => 0,
        Ok(Err(code)) => code.raw(),
        Err(_) => Code::Unknown.raw(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_does_not_cross_into_c() {
        assert_eq!(guard(|| panic!("on purpose, for this test")), Code::Unknown.raw());
    }
}
