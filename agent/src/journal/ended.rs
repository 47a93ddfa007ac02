//! When claims ended: an append-only file, for the ledger to read later.
//! Bounded, so that a node on which nobody reads it does not fill its disk.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

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
    /// The record of an entry that ends at `end`.
    pub fn of(uid: &str, entry: &Entry, end: Timestamp) -> Self {
        Self {
            claim: uid.to_owned(),
            namespace: entry.namespace.clone(),
            name: entry.name.clone(),
            tenant: entry.tenant.clone(),
            workload: entry.workload.clone(),
            units: entry.units,
            start: entry.start,
            end,
        }
    }
}

/// Appends a record, durably; a use of a claim that has one keeps the first. A claim that is allocated
/// again is used again, and is charged from another start.
pub(super) fn append(folder: &Path, ended: &Ended) -> io::Result<()> {
    let path = folder.join("ended.jsonl");
    let records = read(folder)?;
    if records.iter().any(|record| record.claim == ended.claim && record.start == ended.start) {
        return Ok(());
    }
    if records.len() >= 2 * KEPT {
        let kept = &records[records.len() - KEPT..];
        let lines: String = kept.iter().map(line).collect::<io::Result<_>>()?;
        files::replace(&path, lines.as_bytes(), &Unobserved)?;
    }
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    let mut text = line(ended)?;
    // A crash may have left half a line: it is ended first, and skipped by readers.
    if fs::read(&path)?.last().is_some_and(|byte| *byte != b'\n') {
        text.insert(0, '\n');
    }
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    files::sync_folder(folder)
}

/// All records, oldest first; lines that do not parse are skipped.
pub(super) fn read(folder: &Path) -> io::Result<Vec<Ended>> {
    match fs::read(folder.join("ended.jsonl")) {
        // Lossy: a torn line may end within a character.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes)
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn line(ended: &Ended) -> io::Result<String> {
    Ok(serde_json::to_string(ended)? + "\n")
}
