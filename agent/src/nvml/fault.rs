//! What can go wrong between the agent and the NVML library, in words an
//! administrator can act on.

use nvml_wrapper::error::NvmlError;
use nvml_wrapper_sys::bindings::nvmlReturn_t;

/// A failed call, or a library that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The library could not be loaded at all.
    #[error(
        "cannot load the NVIDIA library {library}: {why}; install the driver, or say where it is with --driver-root or \
         --nvml-library"
    )]
    Library {
        /// Name or path that was tried.
        library: String,
        /// The loader's words.
        why: String,
    },
    /// The library lacks functions the agent cannot do without.
    #[error("the NVIDIA library {library} is too old: it has no {missing}; install driver 525 or newer")]
    TooOld {
        /// Name or path of the library.
        library: String,
        /// The missing functions, comma separated.
        missing: String,
    },
    /// A function of the library answered with an error.
    #[error("{function} failed: {text} (NVML code {code})")]
    Call {
        /// The C function.
        function: &'static str,
        /// `nvmlReturn_t`.
        code: u32,
        /// The code in words.
        text: String,
    },
    /// NVML reported success, but not what was asked for.
    #[error("{0}")]
    State(String),
    /// The thread that owns the NVML session is gone; the agent must restart.
    #[error("the NVML thread has ended; the agent must be restarted")]
    Stopped,
}

/// Codes the agent reacts to (`nvmlReturn_t`).
pub(crate) mod code {
    pub(crate) const UNINITIALIZED: u32 = 1;
    pub(crate) const INVALID_ARGUMENT: u32 = 2;
    pub(crate) const NOT_SUPPORTED: u32 = 3;
    pub(crate) const NOT_FOUND: u32 = 6;
    pub(crate) const DRIVER_NOT_LOADED: u32 = 9;
    pub(crate) const FUNCTION_NOT_FOUND: u32 = 13;
    pub(crate) const GPU_IS_LOST: u32 = 15;
    pub(crate) const RESET_REQUIRED: u32 = 16;
    pub(crate) const LIBRARY_VERSION_MISMATCH: u32 = 18;
    pub(crate) const IN_USE: u32 = 19;
    pub(crate) const INSUFFICIENT_RESOURCES: u32 = 23;
    pub(crate) const VERSION_MISMATCH: u32 = 25;
    pub(crate) const UNKNOWN: u32 = 999;
}

impl Fault {
    /// From an error of `nvml-wrapper`'s.
    pub(crate) fn of(function: &'static str, error: NvmlError) -> Self {
        let text = match &error {
            // The wrapper has no words for the codes it does not know.
            NvmlError::UnexpectedVariant(code) => words(*code).to_owned(),
            other => other.to_string(),
        };
        let code = match &error {
            NvmlError::FailedToLoadSymbol(_) => code::FUNCTION_NOT_FOUND,
            _ => nvmlReturn_t::from(error),
        };
        Self::Call { function, code, text }
    }

    /// Whether NVML answered with `code`.
    pub(crate) fn is(&self, code: u32) -> bool {
        matches!(self, Self::Call { code: answered, .. } if *answered == code)
    }

    /// Whether it is about one GPU, which may work again, but only in a new session: NVML finds the
    /// GPUs when it is initialised, and one that was reset or replaced since stays lost to it.
    pub(crate) fn loses_gpu(&self) -> bool {
        [code::GPU_IS_LOST, code::RESET_REQUIRED, code::UNKNOWN].iter().any(|code| self.is(*code))
    }

    /// Whether the session itself is unusable, so that it must be opened anew.
    pub(crate) fn ends_session(&self) -> bool {
        [code::UNINITIALIZED, code::DRIVER_NOT_LOADED, code::LIBRARY_VERSION_MISMATCH]
            .iter()
            .any(|code| self.is(*code))
    }
}

fn words(code: u32) -> &'static str {
    match code {
        23 => "insufficient resources",
        24 => "frequency not supported",
        25 => "the structure's version is not supported",
        26 => "deprecated",
        27 => "not ready",
        28 => "no GPU found",
        29 => "invalid state",
        _ => "a code unknown to this version of the agent",
    }
}
