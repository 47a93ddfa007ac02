//! NVML's return codes as a Rust type. Success is not one of them: functions here return `Result<_, Code>`.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $raw:literal, $text:literal;)*) => {
        /// An NVML error code (`NVML_ERROR_*`). The numbers are those of `nvml.h`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        #[repr(u32)]
        pub enum Code {
            $($(#[$doc])* $name = $raw,)*
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// What `nvmlErrorString` says for it, ending in NUL so that it can be handed to C.
            pub(crate) const fn text(self) -> &'static std::ffi::CStr {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    /// `nvmlInit` was not called, or `nvmlShutdown` was.
    Uninitialized = 1, c"Uninitialized";
    /// A null pointer, a handle of something that is gone, a placement the profile does not have.
    InvalidArgument = 2, c"Invalid Argument";
    /// The device, its mode, or this library does not do that.
    NotSupported = 3, c"Not Supported";
    /// The state is read-only for this process, or its device nodes do not allow it.
    NoPermission = 4, c"Insufficient Permissions";
    /// Deprecated by NVML: multiple initializations are fine.
    AlreadyInitialized = 5, c"Already Initialized";
    /// Nothing of that index, id or name.
    NotFound = 6, c"Not Found";
    /// The caller's buffer is too small.
    InsufficientSize = 7, c"Insufficient Size";
    /// A power cable is not attached.
    InsufficientPower = 8, c"Insufficient External Power";
    /// There is no node description, or it cannot be read.
    DriverNotLoaded = 9, c"Driver Not Loaded";
    /// The time given is over.
    Timeout = 10, c"Timeout";
    /// The kernel found an interrupt problem.
    IrqIssue = 11, c"Interrupt Request Issue";
    /// The library was not found.
    LibraryNotFound = 12, c"NVML Shared Library Not Found";
    /// The library does not have the function.
    FunctionNotFound = 13, c"Function Not Found";
    /// The infoROM is corrupted.
    CorruptedInforom = 14, c"Corrupted infoROM";
    /// The GPU fell off the bus.
    GpuIsLost = 15, c"GPU is lost";
    /// The GPU must be reset first.
    ResetRequired = 16, c"GPU requires restart";
    /// The operating system blocks the device.
    OperatingSystem = 17, c"The operating system has blocked the request.";
    /// Library and kernel module do not belong together.
    LibRmVersionMismatch = 18, c"RM has detected an NVML/RM version mismatch.";
    /// A process or an instance still uses it.
    InUse = 19, c"In use by another client";
    /// Out of memory.
    Memory = 20, c"Insufficient Memory";
    /// No data (yet).
    NoData = 21, c"No data";
    /// ECC and vGPU exclude each other here.
    VgpuEccNotSupported = 22, c"Operation is not available on the target vGPU when ECC is enabled";
    /// No room: the placement is taken, or the profile's instances are used up.
    InsufficientResources = 23, c"Insufficient Resources";
    /// That frequency does not exist.
    FreqNotSupported = 24, c"Requested frequency is not supported";
    /// The `version` field of a structure is not one this library knows.
    ArgumentVersionMismatch = 25, c"Argument version mismatch";
    /// The function is deprecated.
    Deprecated = 26, c"Deprecated function";
    /// Not ready yet.
    NotReady = 27, c"System is not ready";
    /// No GPU at all.
    GpuNotFound = 28, c"No GPUs found";
    /// The state does not allow it.
    InvalidState = 29, c"The resource is in an invalid state";
    /// That kind of reset does not exist.
    ResetTypeNotSupported = 30, c"Reset type is not supported";
    /// A defect: of the emulator, here.
    Unknown = 999, c"Unknown Error";
}

impl Code {
    /// The number that crosses the C interface.
    pub const fn raw(self) -> u32 {
        self as u32
    }

    /// The code of a number; `None` for 0 (success) and for numbers NVML does not have.
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.raw() == raw)
    }
}
