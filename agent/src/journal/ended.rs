//! Ends of claims that are still to be told: one file, kept until the API
//! server has them. Bounded, so that a node that cannot tell for long does not
//! fill its disk.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::files;
use crate::steps::Unobserved;

/// Records kept when the file is cut.
const KEPT: usize = 4096;

/// A claim whose devices are free again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// UID of the claim.
    pub claim: String,
    /// Its namespace and name.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Tenant charged.
    pub tenant: String,
    /// Job or pod.
    pub workload: String,
    /// Units charged; 56 are one GPU.
    pub units: u64,
    /// When the charge began.
    pub start: Timestamp,
    /// When its last device was free.
    pub end: Timestamp,
}

impl Ended {
    /// The record of an entry that ends at `end`, to the millisecond: that is what is charged by.
    pub fn of(uid: &str, entry: &Entry, end: Timestamp) -> Self {
        Self {
            claim: uid.to_owned(),
            namespace: entry.namespace.clone(),
            name: entry.name.clone(),
            tenant: entry.tenant.clone(),
            workload: entry.workload.clone(),
            units: entry.units,
            start: entry.start,
            end: Timestamp::from_millisecond(end.as_millisecond()).unwrap_or(end),
        }
    }

    /// Whether both are of one use of one claim. A claim that is allocated again is used again, and is
    /// charged from another start.
    fn same_use(&self, claim: &str, start: Timestamp) -> bool {
        self.claim == claim && self.start == start
    }
}

/// The ends that are not told yet, in memory as on disk.
pub(super) struct Untold {
    path: PathBuf,
    records: Mutex<Vec<Ended>>,
}

impl Untold {
    /// Reads the file; lines that do not parse are skipped.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        let path = folder.join("ended.jsonl");
        let records = match fs::read(&path) {
            // Lossy: a torn line may end within a character.
            Ok(bytes) => String::from_utf8_lossy(&bytes)
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok())
                .collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, records: Mutex::new(records) })
    }

    /// All of them, oldest first.
    pub(super) fn records(&self) -> Vec<Ended> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a record, durably; a use that has one keeps the first. Not to be called twice at once.
    pub(super) fn add(&self, ended: Ended) -> io::Result<()> {
        let mut records = self.records();
        if records.iter().any(|record| record.same_use(&ended.claim, ended.start)) {
            return Ok(());
        }
        if records.len() >= 2 * KEPT {
            tracing::error!(KEPT, "ends of claims are not told for so long that the oldest are dropped");
            records.drain(..records.len() - KEPT);
            self.rewrite(&records)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let mut text = line(&ended)?;
        // A crash may have left half a line: it is ended first, and skipped by readers.
        if fs::read(&self.path)?.last().is_some_and(|byte| *byte != b'\n') {
            text.insert(0, '\n');
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        if let Some(folder) = self.path.parent() {
            files::sync_folder(folder)?;
        }
        records.push(ended);
        self.keep(records);
        Ok(())
    }

    /// Drops the record of a use, if there is one. Not to be called twice at once.
    pub(super) fn remove(&self, claim: &str, start: Timestamp) -> io::Result<()> {
        let mut records = self.records();
        let before = records.len();
        records.retain(|record| !record.same_use(claim, start));
        if records.len() == before {
            return Ok(());
        }
        self.rewrite(&records)?;
        self.keep(records);
        Ok(())
    }

    /// Whether a use has a record.
    pub(super) fn has(&self, claim: &str, start: Timestamp) -> bool {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.iter().any(|record| record.same_use(claim, start))
    }

    fn keep(&self, records: Vec<Ended>) {
        *self.records.lock().unwrap_or_else(PoisonError::into_inner) = records;
    }

    fn rewrite(&self, records: &[Ended]) -> io::Result<()> {
        let lines: String = records.iter().map(line).collect::<io::Result<_>>()?;
        files::replace(&self.path, lines.as_bytes(), &Unobserved)
    }
}

fn line(ended: &Ended) -> io::Result<String> {
    Ok(serde_json::to_string(ended)? + "\n")
}
