//! `UsageReports`, as the core keeps them.

use kube::api::DynamicObject;
use vingt_core::ledger::Report;

use super::{Change, Delta, View};

/// A report that is stored.
#[derive(Debug)]
pub struct StoredReport {
    /// Its identity over time.
    pub uid: String,
    /// Its version, for writes that must not hit another one.
    pub version: String,
    /// What it says.
    pub report: Report,
}

impl View for StoredReport {
    fn parse(mut object: DynamicObject) -> Result<Self, serde_json::Error> {
        Ok(Self {
            uid: object.metadata.uid.unwrap_or_default(),
            version: object.metadata.resource_version.unwrap_or_default(),
            report: serde_json::from_value(object.data["spec"].take())?,
        })
    }

    fn change(delta: Delta<Self>) -> Change {
        Change::Report(delta)
    }
}
