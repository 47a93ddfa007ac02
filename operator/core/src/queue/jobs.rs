//! What a cycle asks of every waiting workload, next to each other: there are many, most wait on, and the rest of what
//! is known of them is not needed for that. What is decided is not here.

use super::tree::Tree;
use crate::model::Snapshot;

/// A waiting workload in short.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    pub queued_ms: i64,
    pub not_before_ms: i64,
    pub priority: i32,
    /// As in [`crate::placement::Shapes`].
    pub shape: u32,
    pub pods: u32,
    /// As in [`Tree`]; [`Job::tenant`] tells.
    tenant: u32,
    pub lasting: bool,
    /// Whether a place was kept for it.
    pub kept: bool,
    /// Whether it may go anywhere and its end is not known: shape and number of pods say all.
    pub plain: bool,
}

const NO_TENANT: u32 = u32::MAX;

impl Job {
    /// Its tenant, if that is known.
    pub fn tenant(&self) -> Option<usize> {
        (self.tenant != NO_TENANT).then_some(self.tenant as usize)
    }

    pub fn shape(&self) -> usize {
        self.shape as usize
    }
}

/// All that wait, by index into the snapshot's waiting; of each, `shape_of` has the shape.
pub(super) fn jobs(snapshot: &Snapshot, shape_of: &[usize], tree: &Tree<'_>) -> Vec<Job> {
    let short = |(index, workload): (usize, &crate::model::Workload)| Job {
        queued_ms: workload.queued_ms,
        not_before_ms: workload.not_before_ms,
        priority: workload.priority,
        shape: u32::try_from(shape_of[index]).unwrap_or(u32::MAX),
        pods: workload.pods,
        tenant: tree.of_waiting(index).and_then(|tenant| u32::try_from(tenant).ok()).unwrap_or(NO_TENANT),
        lasting: workload.lasting,
        kept: !workload.reserved.is_empty(),
        plain: workload.topology.is_none() && workload.avoid.is_empty() && workload.runs_ms.is_none(),
    };
    snapshot.waiting.iter().enumerate().map(short).collect()
}
