//! Leader election: one process decides at a time. This is the only file that
//! knows the library.
//!
//! A lease is held for 15 s and renewed 5 s before it ends. A process that
//! loses it ends: what it was writing carries versions, and its successor reads
//! everything anew.

use anyhow::Context as _;
use kube::Client;
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const DURATION_S: u64 = 15;
const RENEW_BEFORE_END_S: u64 = 5;

/// A place in the election.
pub struct Candidate {
    leads: watch::Receiver<bool>,
    task: JoinHandle<kube_lease_manager::Result<LeaseManager>>,
}

impl Candidate {
    /// Enters the election for the lease `name` in `namespace` as `identity`.
    pub async fn enter(client: Client, namespace: &str, name: &str, identity: &str) -> anyhow::Result<Self> {
        let manager = LeaseManagerBuilder::new(client, name)
            .with_namespace(namespace)
            .with_identity(identity)
            .with_field_manager(format!("{}-lease", vingt_crds::names::OPERATOR))
            .with_duration(DURATION_S)
            .with_grace(RENEW_BEFORE_END_S)
            .build()
            .await
            .with_context(|| format!("lease {namespace}/{name}"))?;
        let (leads, task) = manager.watch().await;
        Ok(Self { leads, task })
    }

    /// Waits until this process leads.
    pub async fn won(&mut self) -> anyhow::Result<()> {
        self.leads.wait_for(|leads| *leads).await.context("the election ended")?;
        Ok(())
    }

    /// Waits until this process leads no more.
    pub async fn lost(&mut self) {
        // An election that ended is lost as well.
        let _ = self.leads.wait_for(|leads| !*leads).await;
    }

    /// Gives the lease back, so that the next process need not wait for its end.
    pub async fn leave(self) {
        drop(self.leads);
        match self.task.await {
            Ok(Ok(_)) => tracing::info!("the lease is released"),
            Ok(Err(error)) => tracing::warn!(%error, "the lease was not released; it ends by itself"),
            Err(error) => tracing::warn!(%error, "the election ended unexpectedly"),
        }
    }
}
