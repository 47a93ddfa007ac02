//! Whether the agent can serve its node, part by part, and in words why not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::nvml::Nvml;

/// A part of the agent that must have succeeded before the node can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The journal is open and what it held is settled.
    Journal,
    /// The slices are published.
    Slices,
    /// The kubelet knows the plugin.
    Kubelet,
}

/// The parts' states.
pub struct Readiness {
    nvml: Nvml,
    reasons: Mutex<BTreeMap<Part, String>>,
}

impl Readiness {
    /// Not ready: nothing has happened yet.
    pub fn new(nvml: Nvml) -> Self {
        let reasons = [
            (Part::Journal, "the journal has not been read yet"),
            (Part::Slices, "no slices have been published yet"),
            (Part::Kubelet, "the kubelet has not registered the plugin yet"),
        ];
        Self { nvml, reasons: Mutex::new(reasons.map(|(part, why)| (part, why.to_owned())).into()) }
    }

    /// A part is as it should be.
    pub fn ready(&self, part: Part) {
        self.reasons().remove(&part);
    }

    /// A part is not, and why.
    pub fn not_ready(&self, part: Part, why: String) {
        self.reasons().insert(part, why);
    }

    /// Why the agent is not ready; empty when it is. Never waits for the driver.
    pub fn why_not(&self) -> Vec<String> {
        self.nvml.trouble().into_iter().chain(self.reasons().values().cloned()).collect()
    }

    fn reasons(&self) -> MutexGuard<'_, BTreeMap<Part, String>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
