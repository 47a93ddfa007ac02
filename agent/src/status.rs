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
    nothing_to_serve: Mutex<Option<String>>,
}

impl Readiness {
    /// Not ready: nothing has happened yet.
    pub fn new(nvml: Nvml) -> Self {
        let reasons = [
            (Part::Journal, "the journal has not been read yet"),
            (Part::Slices, "no slices have been published yet"),
            (Part::Kubelet, "the kubelet has not registered the plugin yet"),
        ];
        let reasons = Mutex::new(reasons.map(|(part, why)| (part, why.to_owned())).into());
        Self { nvml, reasons, nothing_to_serve: Mutex::default() }
    }

    /// A part is as it should be.
    pub fn ready(&self, part: Part) {
        self.reasons().remove(&part);
    }

    /// A part is not, and why; tells whether that is news.
    pub fn not_ready(&self, part: Part, why: String) -> bool {
        let mut reasons = self.reasons();
        let news = reasons.get(&part) != Some(&why);
        reasons.insert(part, why);
        news
    }

    /// There is nothing to serve here, and why, in which case the agent is ready; or there is.
    pub fn nothing_to_serve(&self, why: Option<String>) {
        *self.nothing_to_serve.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    /// Why there is nothing to serve.
    pub fn why_nothing(&self) -> Option<String> {
        self.nothing_to_serve.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the agent is not ready; empty when it is. Never waits for the driver.
    pub fn why_not(&self) -> Vec<String> {
        if self.why_nothing().is_some() {
            return Vec::new();
        }
        self.nvml.trouble().into_iter().chain(self.reasons().values().cloned()).collect()
    }

    fn reasons(&self) -> MutexGuard<'_, BTreeMap<Part, String>> {
        self.reasons.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
