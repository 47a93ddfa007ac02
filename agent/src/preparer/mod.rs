//! Makes claims ready for their pods and takes them back: the one place where
//! journal, NVML and CDI specs are changed together.
//!
//! Each claim is worked on by one task at a time, which no dropped call
//! cancels: the kubelet gives up after 45 s, calls again, and joins the task
//! that is still at it. Which device a claim gets was decided by the operator;
//! here it is only checked.

mod lost;
mod prepare;
mod recover;
mod sweep;
mod tell;
#[cfg(test)]
mod tests;
mod unprepare;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use vingt_crds::DecidedDevice;

use crate::cdi::Cdi;
use crate::claims::{ClaimSource, Unavailable};
use crate::journal::Journal;
use crate::metrics::{Metrics, Operation};
use crate::nvml::{Fault, Nvml};
use crate::steps::Steps;
pub use sweep::Sweep;

/// A claim as the kubelet names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClaimRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID; names are used again, UIDs are not.
    pub uid: String,
}

impl std::fmt::Display for ClaimRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} ({})", self.namespace, self.name, self.uid)
    }
}

/// A device that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The device as it was decided.
    pub decided: DecidedDevice,
    /// CDI id that makes the container runtime give it to a container.
    pub cdi_id: String,
}

/// Why a claim was not prepared or unprepared.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One stable word, for metrics.
    pub reason: &'static str,
    /// In words, for the kubelet's event on the pod.
    pub message: String,
}

impl Refusal {
    fn new(reason: &'static str, message: impl std::fmt::Display) -> Self {
        Self { reason, message: message.to_string() }
    }
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Self::new("journal", format_args!("the journal cannot be written: {error}"))
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::new("nvml", fault)
    }
}

impl From<Unavailable> for Refusal {
    fn from(error: Unavailable) -> Self {
        Self::new("api-server", error)
    }
}

impl From<crate::cdi::CdiError> for Refusal {
    fn from(error: crate::cdi::CdiError) -> Self {
        Self::new("cdi", error)
    }
}

/// What a [`Preparer`] works with.
pub struct Parts {
    /// Name of this node.
    pub node: String,
    /// The NVML session.
    pub nvml: Nvml,
    /// The journal.
    pub journal: Journal,
    /// Where claims are read.
    pub claims: Arc<dyn ClaimSource>,
    /// Writer of CDI specs.
    pub cdi: Cdi,
    /// Whether MIG mode may be switched, on idle GPUs that can do it live.
    pub allow_mig_mode_switch: bool,
    /// Told of each step.
    pub steps: Arc<dyn Steps>,
    /// Metrics of the agent.
    pub metrics: Arc<Metrics>,
}

/// Prepares and unprepares claims; cheap to clone.
#[derive(Clone)]
pub struct Preparer {
    inner: Arc<Inner>,
}

struct Inner {
    parts: Parts,
    /// Something was taken back: whoever waits for a placement looks again.
    freed: Notify,
    work: Mutex<BTreeMap<(Operation, String), Work>>,
    locks: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

type Answer = Result<Vec<Ready>, Refusal>;

struct Work {
    answer: Shared<BoxFuture<'static, Answer>>,
    cancel: CancellationToken,
}

impl Preparer {
    /// A preparer of these parts. Call [`Self::recover`] before anything else.
    pub fn new(parts: Parts) -> Self {
        let inner = Inner { parts, freed: Notify::new(), work: Mutex::default(), locks: Mutex::default() };
        Self { inner: Arc::new(inner) }
    }

    /// Makes a claim ready; answers at once for one that is.
    pub async fn prepare(&self, claim: ClaimRef) -> Result<Vec<Ready>, Refusal> {
        self.submit(Operation::Prepare, claim).await
    }

    /// Takes a claim back; nothing of it is left when this succeeds.
    pub async fn unprepare(&self, claim: ClaimRef) -> Result<(), Refusal> {
        self.submit(Operation::Unprepare, claim).await.map(|_| ())
    }

    /// The journal, to tell what is vingt's from what is not.
    pub fn journal(&self) -> &Journal {
        &self.inner.parts.journal
    }

    async fn submit(&self, operation: Operation, claim: ClaimRef) -> Answer {
        let key = (operation, claim.uid.clone());
        let answer = {
            let mut work = locked(&self.inner.work);
            if operation == Operation::Unprepare
                && let Some(prepare) = work.get(&(Operation::Prepare, claim.uid.clone()))
            {
                prepare.cancel.cancel();
            }
            work.entry(key).or_insert_with_key(|key| self.start(key.clone(), claim)).answer.clone()
        };
        answer.await
    }

    fn start(&self, key: (Operation, String), claim: ClaimRef) -> Work {
        let cancel = CancellationToken::new();
        let inner = Arc::clone(&self.inner);
        let cancelled = cancel.clone();
        let task = tokio::spawn(async move {
            let operation = key.0;
            let done = Done { inner, key };
            let inner = &done.inner;
            let lock = inner.lock_of(&claim.uid);
            let _alone = lock.lock().await;
            let began = Instant::now();
            let answer = match operation {
                Operation::Prepare => inner.prepare(&claim, &cancelled).await,
                Operation::Unprepare => inner.unprepare(&claim).await.map(|()| Vec::new()),
            };
            let failed = answer.as_ref().err();
            inner.parts.metrics.claim(operation, began.elapsed(), failed.map(|refusal| refusal.reason));
            match failed {
                None => tracing::info!(%claim, ?operation, took = ?began.elapsed(), "done"),
                Some(refusal) => {
                    tracing::warn!(%claim, ?operation, reason = refusal.reason, %refusal, "not done");
                }
            }
            answer
        });
        let ended =
            |error| Err(Refusal::new("internal", format_args!("the agent's task ended early: {error}")));
        let answer = task.map(move |ended_with| ended_with.unwrap_or_else(ended)).boxed().shared();
        Work { answer, cancel }
    }
}

/// Takes a task off the table when it ends, however it ends.
struct Done {
    inner: Arc<Inner>,
    key: (Operation, String),
}

impl Drop for Done {
    fn drop(&mut self) {
        locked(&self.inner.work).remove(&self.key);
        locked(&self.inner.locks).retain(|_, lock| Arc::strong_count(lock) > 1);
    }
}

impl Inner {
    /// Held while a claim is worked on.
    fn lock_of(&self, uid: &str) -> Arc<tokio::sync::Mutex<()>> {
        Arc::clone(locked(&self.locks).entry(uid.to_owned()).or_default())
    }

    fn reached(&self, step: &'static str) {
        self.parts.steps.reached(step);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
