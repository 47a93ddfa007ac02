//! What `nvmlInit` opens and `nvmlShutdown` closes: the store and what this process may see of it. One per process,
//! counted, as NVML counts initializations.

use std::env;
use std::ffi::{CStr, OsStr, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::code::Code;
use crate::store::{Store, StoreError};
use crate::visibility::Visibility;

/// An opened emulator.
#[derive(Debug)]
pub(crate) struct Session {
    pub store: Store,
    pub visibility: Visibility,
}

#[derive(Debug)]
struct Open {
    count: u32,
    session: Option<Arc<Session>>,
}

static OPEN: Mutex<Open> = Mutex::new(Open { count: 0, session: None });

/// Opens the session, or counts one more user of it.
pub(crate) fn open() -> Result<Arc<Session>, Code> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    let session = if let Some(session) = &open.session {
        Arc::clone(session)
    } else {
        let session = Arc::new(first_open().map_err(|error| {
            // NVML has no way to say more than a number; who misconfigured the emulator needs more.
            eprintln!("nvml-emulator: {error}");
            match error {
                StoreError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                    Code::DriverNotLoaded
                }
                error => error.code(),
            }
        })?);
        open.session = Some(Arc::clone(&session));
        session
    };
    open.count += 1;
    Ok(session)
}

/// Counts one user less; the last one closes the session.
pub(crate) fn close() -> Result<(), Code> {
    let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.count = open.count.checked_sub(1).ok_or(Code::Uninitialized)?;
    if open.count == 0 {
        open.session = None;
    }
    Ok(())
}

/// The open session.
pub(crate) fn current() -> Result<Arc<Session>, Code> {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
    open.session.clone().ok_or(Code::Uninitialized)
}

fn first_open() -> Result<Session, StoreError> {
    let root = env::var_os("VINGT_EMULATOR_ROOT").map(PathBuf::from).or_else(own_folder).unwrap_or_default();
    let dev = env::var_os("VINGT_EMULATOR_DEV").map(PathBuf::from);
    Ok(Session { store: Store::open(&root)?, visibility: Visibility::new(dev) })
}

/// The folder this library was loaded from: a copy that lies in an emulator's root needs no environment.
fn own_folder() -> Option<PathBuf> {
    let mut info = libc::Dl_info {
        dli_fname: std::ptr::null(),
        dli_fbase: std::ptr::null_mut(),
        dli_sname: std::ptr::null(),
        dli_saddr: std::ptr::null_mut(),
    };
    let here = own_folder as fn() -> Option<PathBuf> as *const c_void;
    // SAFETY: `here` is an address in this library and `info` is ours to write.
    let found = unsafe { libc::dladdr(here, &raw mut info) };
    if found == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: `dladdr` succeeded, so the name is a C string that lives as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Path::new(OsStr::from_bytes(name.to_bytes())).parent().map(Path::to_owned)
}
