//! What the agent has begun and not ended, kept on disk so that a crash
//! between any two steps can be finished or rolled back. It records facts; what
//! to do about them is decided in `preparer`.
//!
//! One JSON file, replaced whole with every change: a node holds at most some
//! dozens of claims. A file that cannot be read is never acted upon: it is set
//! aside, and the caller rebuilds from NVML and the claims.

mod ended;
mod entry;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::files;
use crate::steps::Steps;
use crate::target::Target;

pub use ended::Ended;
use ended::Untold;
pub use entry::{Created, DeviceEntry, Entry, State};

const FORMAT: &str = "vingt.dev/agent-journal";
const VERSION: u32 = 1;

/// All entries, by UID of the claim.
pub type Entries = BTreeMap<String, Entry>;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    format: String,
    version: u32,
    #[serde(flatten)]
    boot: Boot,
    claims: Entries,
}

/// What partitions do not outlive. Each part tells only where both have it: a part that cannot be
/// read is no reason to give up what is ours.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    /// The kernel's id of the boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Tells one loading of the driver's kernel module from the next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver_id: Option<String>,
}

impl Boot {
    /// Whether all partitions of `earlier` are gone.
    pub fn ended(&self, earlier: &Self) -> bool {
        let differ = |old: &Option<String>, new: &Option<String>| matches!((old, new), (Some(old), Some(new)) if old != new);
        differ(&earlier.boot_id, &self.boot_id) || differ(&earlier.driver_id, &self.driver_id)
    }
}

/// How the journal was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There was none: first start, or its folder was lost.
    Nothing,
    /// It was read.
    Whole {
        /// It was written before the node's last boot, or before the driver was last loaded.
        rebooted: bool,
    },
    /// It could not be read, and lies now at this path.
    Corrupt(PathBuf),
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another agent holds it.
    #[error("another agent uses the state folder {0}; this one waits for its end")]
    Held(PathBuf),
    /// The file system failed.
    #[error("state folder {folder}: {error}")]
    Io {
        /// The state folder.
        folder: PathBuf,
        /// The system's words.
        error: io::Error,
    },
}

/// The journal of this node.
pub struct Journal {
    folder: PathBuf,
    boot: Boot,
    steps: Arc<dyn Steps>,
    /// Serialises changes; readers are never kept waiting by the disk.
    writing: tokio::sync::Mutex<()>,
    entries: Mutex<Arc<Entries>>,
    untold: Arc<Untold>,
    /// Told when an end is recorded.
    recorded: Notify,
    /// Held, not read: one agent per state folder.
    _lock: File,
}

impl Journal {
    /// Opens the journal in `folder`, in this boot.
    pub fn open(folder: &Path, boot: Boot, steps: Arc<dyn Steps>) -> Result<(Self, Found), JournalError> {
        let failed = |error| JournalError::Io { folder: folder.to_owned(), error };
        fs::create_dir_all(folder).map_err(failed)?;
        let lock = File::create(folder.join("lock")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(JournalError::Held(folder.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let (entries, found) = match read(&folder.join("journal.json")) {
            Ok(Some(document)) => {
                let rebooted = boot.ended(&document.boot);
                (document.claims, Found::Whole { rebooted })
            }
            Ok(None) => (Entries::new(), Found::Nothing),
            Err(ReadError::Io(error)) => return Err(failed(error)),
            Err(ReadError::Content(why)) => {
                let aside = set_aside(folder).map_err(failed)?;
                tracing::error!(
                    why,
                    path = %aside.display(),
                    "the journal cannot be read; it was set aside, nothing is destroyed, and it is rebuilt from \
                     the partitions and claims of this node"
                );
                (Entries::new(), Found::Corrupt(aside))
            }
        };
        let journal = Self {
            folder: folder.to_owned(),
            boot,
            steps,
            writing: tokio::sync::Mutex::default(),
            entries: Mutex::new(Arc::new(entries)),
            untold: Arc::new(Untold::open(folder).map_err(failed)?),
            recorded: Notify::new(),
            _lock: lock,
        };
        Ok((journal, found))
    }

    /// All entries as they are on disk.
    pub fn entries(&self) -> Arc<Entries> {
        Arc::clone(&self.entries.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The entry of a claim.
    pub fn entry(&self, uid: &str) -> Option<Entry> {
        self.entries().get(uid).cloned()
    }

    /// Everything that may exist of vingt's: whole GPUs of claims, and partitions that are made or
    /// about to be.
    pub fn targets(&self) -> BTreeSet<Target> {
        let entries = self.entries();
        let exists = |device: &&DeviceEntry| {
            matches!(device.target, Target::Gpu { .. })
                || !matches!(device.created, Created::Nothing | Created::Lost)
        };
        let devices = entries.values().flat_map(|entry| &entry.devices).filter(exists);
        devices.map(|device| device.target.clone()).collect()
    }

    /// Applies `change` and writes it; nothing happens if `change` or the disk refuses.
    pub async fn change<T, E>(&self, change: impl FnOnce(&mut Entries) -> Result<T, E>) -> Result<T, E>
    where
        E: From<io::Error>,
    {
        let _writing = self.writing.lock().await;
        let mut entries = Entries::clone(&self.entries());
        let result = change(&mut entries)?;
        let document = Document {
            format: FORMAT.to_owned(),
            version: VERSION,
            boot: self.boot.clone(),
            claims: entries,
        };
        let text = serde_json::to_vec_pretty(&document).map_err(io::Error::other)?;
        let path = self.folder.join("journal.json");
        let steps = Arc::clone(&self.steps);
        blocking(move || files::replace(&path, &text, steps.as_ref())).await?;
        *self.entries.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(document.claims);
        Ok(result)
    }

    /// Changes one entry, if it is there.
    pub async fn change_entry(&self, uid: &str, change: impl FnOnce(&mut Entry)) -> io::Result<()> {
        self.change(|entries| {
            if let Some(entry) = entries.get_mut(uid) {
                change(entry);
            }
            Ok(())
        })
        .await
    }

    /// Keeps the record of an ended claim, and forgets its entry.
    pub async fn end(&self, uid: &str, ended: Ended) -> io::Result<()> {
        self.record_end(ended).await?;
        self.steps.reached("end recorded, entry not yet forgotten");
        self.forget(uid).await
    }

    /// Keeps the record of an end.
    pub async fn record_end(&self, ended: Ended) -> io::Result<()> {
        {
            let _writing = self.writing.lock().await;
            let untold = Arc::clone(&self.untold);
            blocking(move || untold.add(ended)).await?;
        }
        self.recorded.notify_one();
        Ok(())
    }

    /// Drops the record of an end: it is told, or the use goes on.
    pub async fn drop_end(&self, uid: &str, start: Timestamp) -> io::Result<()> {
        if !self.untold.has(uid, start) {
            return Ok(());
        }
        let _writing = self.writing.lock().await;
        let (untold, uid) = (Arc::clone(&self.untold), uid.to_owned());
        blocking(move || untold.remove(&uid, start)).await
    }

    /// Waits until an end is recorded; one that was since the last call counts.
    pub async fn end_recorded(&self) {
        self.recorded.notified().await;
    }

    /// Forgets the entry of a claim.
    pub async fn forget(&self, uid: &str) -> io::Result<()> {
        self.change(|entries| {
            entries.remove(uid);
            Ok(())
        })
        .await
    }

    /// The ends that are not told yet, oldest first.
    pub fn untold(&self) -> Vec<Ended> {
        self.untold.records()
    }
}

async fn blocking(write: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<()> {
    tokio::task::spawn_blocking(write).await.map_err(io::Error::other)?
}

enum ReadError {
    Io(io::Error),
    Content(String),
}

fn read(path: &Path) -> Result<Option<Document>, ReadError> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ReadError::Io(error)),
    };
    let document: Document =
        serde_json::from_slice(&text).map_err(|error| ReadError::Content(error.to_string()))?;
    if document.format != FORMAT || document.version != VERSION {
        let Document { format, version, .. } = document;
        return Err(ReadError::Content(format!(
            "format {format} version {version} is not known to this agent"
        )));
    }
    Ok(Some(document))
}

fn set_aside(folder: &Path) -> io::Result<PathBuf> {
    // Beyond that many, the last is replaced: somebody has not looked for long.
    let free = (0..100).map(|n| folder.join(format!("journal.json.corrupt-{n}"))).find(|path| !path.exists());
    let aside = free.unwrap_or_else(|| folder.join("journal.json.corrupt"));
    fs::rename(folder.join("journal.json"), &aside)?;
    files::sync_folder(folder)?;
    Ok(aside)
}
