//! The file `state` under the emulator's root: read by everyone, changed under a lock, replaced whole.
//!
//! A writer holds an exclusive `flock` on `lock`, writes `state.new` and renames it over `state`: whoever dies at any
//! point leaves the old state or the new one, and the kernel frees the lock. (It is not synced to the disk: it
//! describes a machine that is gone when the power is.) Readers take no lock; they keep the file they read open, so
//! that its inode number cannot be used again and a changed one means a changed state.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::FlockOperation;
use thiserror::Error;

use crate::code::Code;
use crate::node::{NodeDescription, NodeError};
use crate::proc_tree;
use crate::state::State;

/// Why the state could not be read or changed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file of the root could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The state is not one this version understands.
    #[error("{path} is not a state of this version, remove it to start afresh: {source}")]
    State {
        /// The file.
        path: PathBuf,
        /// Where it went wrong.
        source: serde_json::Error,
    },
    /// The node description is wrong.
    #[error("{path}: {source}")]
    Node {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: NodeError,
    },
    /// The rules of NVML forbid the change.
    #[error("refused: {0:?}")]
    Refused(Code),
}

impl StoreError {
    /// What an NVML function answers for it.
    pub(crate) fn code(&self) -> Code {
        match self {
            Self::Refused(code) => *code,
            Self::Io { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied
                ) =>
            {
                Code::NoPermission
            }
            Self::Io { .. } | Self::State { .. } => Code::Unknown,
            Self::Node { .. } => Code::DriverNotLoaded,
        }
    }
}

impl From<Code> for StoreError {
    fn from(code: Code) -> Self {
        Self::Refused(code)
    }
}

/// The state under one root.
#[derive(Debug)]
pub(crate) struct Store {
    root: PathBuf,
    cached: Mutex<Option<Cached>>,
}

#[derive(Debug)]
struct Cached {
    /// Held open: see the module's documentation.
    _file: File,
    identity: (u64, u64),
    state: Arc<State>,
}

impl Store {
    /// Uses the state under `root`. Where there is only a `node.yaml`, the node boots now.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Self { root: root.to_owned(), cached: Mutex::new(None) };
        if !store.path("state").exists() {
            let _lock = store.lock()?;
            if !store.path("state").exists() {
                let path = store.path("node.yaml");
                let text = fs::read_to_string(&path).map_err(io_at(&path))?;
                let node =
                    NodeDescription::from_yaml(&text).map_err(|source| StoreError::Node { path, source })?;
                store.boot(&node)?;
            }
        }
        store.repair()?;
        Ok(store)
    }

    /// Makes a node under `root` from its description, replacing what was there.
    pub fn create(root: &Path, node: &NodeDescription) -> Result<Self, StoreError> {
        fs::create_dir_all(root).map_err(io_at(root))?;
        let store = Self { root: root.to_owned(), cached: Mutex::new(None) };
        let path = store.path("node.yaml");
        let lock = store.lock()?;
        let text = node.to_yaml().map_err(|source| StoreError::Node { path: path.clone(), source })?;
        store.boot(node)?;
        replace(&path, text.as_bytes())?;
        drop(lock);
        Ok(store)
    }

    /// The state as it is now.
    pub fn snapshot(&self) -> Result<Arc<State>, StoreError> {
        let path = self.path("state");
        let now = fs::metadata(&path).map_err(io_at(&path))?;
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cached) = cached.as_ref()
            && cached.identity == (now.dev(), now.ino())
        {
            return Ok(Arc::clone(&cached.state));
        }
        let fresh = self.read()?;
        let state = Arc::clone(&fresh.state);
        *cached = Some(fresh);
        Ok(state)
    }

    /// Changes the state, alone; an error leaves it as it was. The `proc` tree follows.
    pub fn change<T>(&self, change: impl FnOnce(&mut State) -> Result<T, Code>) -> Result<T, StoreError> {
        // Opened for writing before anything is decided: a process that may not write hears so, whatever it asks for.
        let _lock = self.lock()?;
        let old = self.read()?.state;
        let mut state = (*old).clone();
        let answer = change(&mut state)?;
        if state != *old {
            self.write(&mut state)?;
            if proc_tree::differ(&old, &state) {
                proc_tree::sync_capabilities(&self.root, &state)?;
            }
        }
        Ok(answer)
    }

    fn boot(&self, node: &NodeDescription) -> Result<(), StoreError> {
        let seed = node.seed.clone().unwrap_or_else(|| self.root.display().to_string());
        let mut state = State::new(node, &seed)
            .map_err(|source| StoreError::Node { path: self.path("node.yaml"), source })?;
        self.write(&mut state)?;
        proc_tree::sync(&self.root, &state)
    }

    /// Brings the `proc` tree up to date where a writer died between the state and the tree.
    fn repair(&self) -> Result<(), StoreError> {
        let repaired = self.lock().and_then(|_lock| proc_tree::sync(&self.root, &self.read()?.state));
        match repaired {
            // Whoever may not write need not repair.
            Err(error) if error.code() == Code::NoPermission => Ok(()),
            repaired => repaired,
        }
    }

    fn read(&self) -> Result<Cached, StoreError> {
        let path = self.path("state");
        let mut file = File::open(&path).map_err(io_at(&path))?;
        let metadata = file.metadata().map_err(io_at(&path))?;
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(io_at(&path))?;
        let state = serde_json::from_str(&text).map_err(|source| StoreError::State { path, source })?;
        Ok(Cached { _file: file, identity: (metadata.dev(), metadata.ino()), state: Arc::new(state) })
    }

    fn write(&self, state: &mut State) -> Result<(), StoreError> {
        state.revision += 1;
        let path = self.path("state");
        let text =
            serde_json::to_vec(state).map_err(|source| StoreError::State { path: path.clone(), source })?;
        replace(&path, &text)
    }

    fn lock(&self) -> Result<File, StoreError> {
        let path = self.path("lock");
        let file =
            File::options().write(true).create(true).truncate(false).open(&path).map_err(io_at(&path))?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(file),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io_at(&path)(error.into())),
            }
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }
}

/// Replaces a file whole; the caller holds the lock, so one name for the new one is enough.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), StoreError> {
    let new = path.with_extension("new");
    fs::write(&new, content).map_err(io_at(&new))?;
    fs::rename(&new, path).map_err(io_at(path))
}

pub(crate) fn io_at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Io { path, source }
}
