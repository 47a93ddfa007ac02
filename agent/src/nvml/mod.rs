//! The agent's one NVML session, owned by one thread that runs one call after
//! the other: NVML slows down badly under concurrent calls, and nothing else
//! of the agent (health endpoints least of all) may wait for a slow driver.
//!
//! The session is opened on demand and again after it was lost, so that an
//! agent without a driver stays alive, says why, and recovers.

mod fault;
mod raw;
mod seen;
mod session;
mod types;

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::driver_root;
pub use fault::Fault;
pub(crate) use fault::code;
pub use session::{Inventory, Session};
pub use types::{ComputeInstance, Gpu, Instance, MigMode, Placement, Profile, Unreadable};

type Job = Box<dyn FnOnce(&mut Owner) + Send>;

/// Handle to the thread that owns the session; cheap to clone.
#[derive(Clone)]
pub struct Nvml {
    jobs: mpsc::Sender<Job>,
    state: Arc<Mutex<State>>,
    /// Closed when the thread ends, however it does.
    alive: watch::Receiver<()>,
}

#[derive(Default)]
struct State {
    opened: Option<Result<(), Fault>>,
    busy_since: Option<Instant>,
}

struct Owner {
    library: OsString,
    driver_root: PathBuf,
    session: Option<Session>,
    renewed: Option<Instant>,
    state: Arc<Mutex<State>>,
}

/// How long a session is kept at least that cannot read all GPUs: a GPU may stay broken for long,
/// and a new session costs seconds in which nobody is served.
const RENEWAL: Duration = Duration::from_secs(60);

impl Nvml {
    /// Starts the thread. The library is loaded with the first call.
    ///
    /// `library` is a path, or a name that is looked for under `driver_root` and then wherever the
    /// loader looks; anew each time a session is opened, since the driver may be installed later.
    pub fn start(library: OsString, driver_root: PathBuf) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let state = Arc::new(Mutex::new(State::default()));
        let noted = Arc::clone(&state);
        let (living, alive) = watch::channel(());
        std::thread::Builder::new().name("nvml".to_owned()).spawn(move || {
            let mut owner = Owner { library, driver_root, session: None, renewed: None, state: noted };
            for job in queue {
                job(&mut owner);
            }
            drop(living);
        })?;
        Ok(Self { jobs, state, alive })
    }

    /// Runs `call` with the session, after all calls before it.
    ///
    /// A dropped future does not undo the call: once queued, it is run.
    pub async fn call<T, F>(&self, call: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce(&Session) -> Result<T, Fault> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let job = move |owner: &mut Owner| {
            // The caller may have gone; the call has been made all the same.
            let _ = answer.send(owner.run(call));
        };
        self.jobs.send(Box::new(job)).map_err(|_| Fault::Stopped)?;
        answered.await.map_err(|_| Fault::Stopped)?
    }

    /// Returns when the thread has ended: no call will succeed any more.
    pub async fn stopped(&self) {
        let mut alive = self.alive.clone();
        while alive.changed().await.is_ok() {}
    }

    /// Why NVML cannot be used now; `None` when it can. Never waits for the driver.
    pub fn trouble(&self) -> Option<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = state.busy_since
            && since.elapsed() > Duration::from_secs(60)
        {
            return Some(format!("the NVIDIA driver has not answered for {} s", since.elapsed().as_secs()));
        }
        match &state.opened {
            None => Some("NVML has not been opened yet".to_owned()),
            Some(Err(fault)) => Some(fault.to_string()),
            Some(Ok(())) => None,
        }
    }
}

impl Owner {
    fn run<T>(&mut self, call: impl FnOnce(&Session) -> Result<T, Fault>) -> Result<T, Fault> {
        self.note(|state| state.busy_since = Some(Instant::now()));
        let result = self.session().and_then(call);
        if let Err(fault) = &result
            && fault.ends_session()
        {
            tracing::warn!(%fault, "NVML session lost; it is opened again with the next call");
            self.session = None;
            let fault = fault.clone();
            self.note(|state| state.opened = Some(Err(fault)));
        }
        if self.session.as_ref().is_some_and(Session::is_stale)
            && self.renewed.is_none_or(|last| last.elapsed() >= RENEWAL)
        {
            tracing::info!("a GPU is lost to this NVML session; another is opened with the next call");
            self.session = None;
            self.renewed = Some(Instant::now());
        }
        self.note(|state| state.busy_since = None);
        result
    }

    fn session(&mut self) -> Result<&Session, Fault> {
        if self.session.is_none() {
            let opened = open(&self.library, &self.driver_root);
            let outcome = opened.as_ref().map(|_| ()).map_err(Clone::clone);
            self.note(|state| state.opened = Some(outcome));
            self.session = Some(opened?);
        }
        self.session.as_ref().ok_or(Fault::Stopped)
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn open(library: &OsStr, driver_root: &Path) -> Result<Session, Fault> {
    if library.as_encoded_bytes().contains(&b'/') {
        return Session::open(library);
    }
    match driver_root::library(driver_root, library) {
        Some(file) => Session::open(file.as_os_str()),
        None => Session::open(library).map_err(|fault| match fault {
            Fault::Library { library, why } => {
                let why = format!("it is not in the driver's root {}, and {why}", driver_root.display());
                Fault::Library { library, why }
            }
            other => other,
        }),
    }
}
