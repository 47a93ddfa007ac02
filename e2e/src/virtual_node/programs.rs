//! Hands on the programs of vingt that run in a lab: to see, kill, and keep
//! them down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::container::Control;
use super::program::OwnImage;
use crate::process::Identity;

/// All programs of vingt on the virtual nodes of a lab.
#[derive(Debug, Default)]
pub struct Programs {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    // By log, which names node, pod and container.
    running: BTreeMap<PathBuf, Arc<Control>>,
    held: BTreeSet<(OwnImage, Option<String>)>,
}

impl Programs {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, control: &Arc<Control>) -> PathBuf {
        self.lock().running.insert(control.log.clone(), control.clone());
        control.log.clone()
    }

    pub(super) fn remove(&self, key: &Path) {
        self.lock().running.remove(key);
    }

    pub(super) fn holds(&self, image: OwnImage, node: &str) -> bool {
        let held = &self.lock().held;
        held.contains(&(image, None)) || held.contains(&(image, Some(node.to_owned())))
    }

    /// Those on one node.
    pub fn on(&self, node: &str) -> Vec<Arc<Control>> {
        let inner = self.lock();
        inner.running.values().filter(|control| control.node == node).cloned().collect()
    }

    /// All that run an image, on one node or on all.
    pub fn program(programs: &Arc<Self>, image: OwnImage, node: Option<&str>) -> Program {
        Program { programs: programs.clone(), image, node: node.map(ToOwned::to_owned) }
    }
}

/// One of vingt's programs: the agent of a node, or the operator's replicas.
#[derive(Debug, Clone)]
pub struct Program {
    programs: Arc<Programs>,
    image: OwnImage,
    node: Option<String>,
}

impl Program {
    /// Its containers, whether they run at this moment or not.
    pub fn containers(&self) -> Vec<Arc<Control>> {
        let inner = self.programs.lock();
        let running = inner.running.values().filter(|control| control.image == self.image);
        running
            .filter(|control| self.node.as_ref().is_none_or(|node| control.node == *node))
            .cloned()
            .collect()
    }

    /// The processes that run at this moment.
    pub fn processes(&self) -> Vec<Identity> {
        self.containers().iter().filter_map(|control| control.process()).collect()
    }

    /// `kill -9`; as any container they are started again.
    pub fn kill(&self) {
        self.containers().iter().for_each(|control| control.kill());
    }

    /// `kill -9`, and not started again until [`Program::release`], not even
    /// in new pods.
    pub fn hold(&self) {
        self.programs.lock().held.insert((self.image, self.node.clone()));
        for control in self.containers() {
            control.hold(true);
            control.kill();
        }
    }

    /// Lets them run again.
    pub fn release(&self) {
        self.programs.lock().held.remove(&(self.image, self.node.clone()));
        self.containers().iter().for_each(|control| control.hold(false));
    }
}
