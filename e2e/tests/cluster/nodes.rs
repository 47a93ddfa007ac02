//! Hands the lab's virtual nodes to trials, so that each has its own and the
//! numbers it expects are not disturbed by others.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// How many nodes of each sort a trial needs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nodes {
    /// With GPUs in MIG mode.
    pub mig: usize,
    /// With whole GPUs.
    pub whole: usize,
}

/// Nodes nobody uses.
#[derive(Debug)]
pub struct Pool {
    free: Mutex<BTreeSet<usize>>,
    whole_from: usize,
    returned: Notify,
}

/// Nodes that are somebody's until this is dropped.
#[derive(Debug)]
pub struct Lease<'a> {
    pool: &'a Pool,
    /// Their indices in the lab.
    pub nodes: Vec<usize>,
}

impl Pool {
    /// All `count` nodes, of which those from `whole_from` on have whole GPUs.
    pub fn new(count: usize, whole_from: usize) -> Self {
        Self { free: Mutex::new((0..count).collect()), whole_from, returned: Notify::new() }
    }

    fn free(&self) -> MutexGuard<'_, BTreeSet<usize>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there are enough, and takes all of them at once.
    pub async fn take(&self, wanted: Nodes) -> Lease<'_> {
        loop {
            let returned = self.returned.notified();
            tokio::pin!(returned);
            // From here on no return is missed.
            returned.as_mut().enable();
            if let Some(nodes) = self.try_take(wanted) {
                return Lease { pool: self, nodes };
            }
            returned.await;
        }
    }

    fn try_take(&self, wanted: Nodes) -> Option<Vec<usize>> {
        let mut free = self.free();
        let sort = |whole: bool| free.iter().copied().filter(move |node| (*node >= self.whole_from) == whole);
        let mut nodes: Vec<usize> = sort(false).take(wanted.mig).collect();
        nodes.extend(sort(true).take(wanted.whole));
        if nodes.len() < wanted.mig + wanted.whole {
            return None;
        }
        for node in &nodes {
            free.remove(node);
        }
        Some(nodes)
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.pool.free().extend(&self.nodes);
        self.pool.returned.notify_waiters();
    }
}
