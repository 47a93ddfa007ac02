//! Leader election: one process decides at a time. This is the only file that
//! knows the library.
//!
//! A lease is held for 15 s and renewed 5 s before it ends. A leader looks
//! every 2 s whether it still holds it, and gives up when it could not see so
//! for 10 s: well before anybody else may take it. What it was writing carries
//! versions, and its successor reads everything anew.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

const DURATION_S: u64 = 15;
const RENEW_BEFORE_END_S: u64 = 5;
/// How long a leader goes on without seeing that it leads.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How often it looks.
const LOOK: Duration = Duration::from_secs(2);

/// A place in the election.
pub struct Candidate {
    leases: Api<Lease>,
    name: String,
    identity: String,
    leads: watch::Receiver<bool>,
    task: JoinHandle<kube_lease_manager::Result<LeaseManager>>,
}

impl Candidate {
    /// Enters the election for the lease `name` in `namespace` as `identity`.
    pub async fn enter(client: Client, namespace: &str, name: &str, identity: &str) -> anyhow::Result<Self> {
        let leases = Api::namespaced(client.clone(), namespace);
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
        Ok(Self { leases, name: name.to_owned(), identity: identity.to_owned(), leads, task })
    }

    /// Waits until this process leads.
    pub async fn won(&mut self) -> anyhow::Result<()> {
        self.leads.wait_for(|leads| *leads).await.context("the election ended")?;
        Ok(())
    }

    /// Waits until this process leads no more, or cannot tell any more.
    pub async fn lost(&mut self) {
        let unseen = unseen(&self.leases, &self.name, &self.identity);
        tokio::select! {
            // An election that ended is lost as well.
            _ = self.leads.wait_for(|leads| !*leads) => tracing::error!("somebody else holds the lease"),
            () = unseen => tracing::error!("the lease could not be read or is not ours for {} s", GIVE_UP.as_secs()),
        }
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

/// Ends when `identity` was not seen to hold the lease for too long.
async fn unseen(leases: &Api<Lease>, name: &str, identity: &str) {
    let mut seen = Instant::now();
    while seen.elapsed() < GIVE_UP {
        tokio::time::sleep(LOOK).await;
        let read = tokio::time::timeout(LOOK, leases.get(name)).await;
        if let Ok(Ok(lease)) = read
            && lease.spec.and_then(|spec| spec.holder_identity).as_deref() == Some(identity)
        {
            seen = Instant::now();
        }
    }
}
