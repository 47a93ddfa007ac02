//! Leader election: one process decides at a time, by a Lease as client-go's
//! leader election uses it.
//!
//! A lease holds for 15 s and is renewed every 2 s. No clock of another machine
//! is trusted: a lease has run out when it was seen unchanged for as long as it
//! holds. A leader gives up 10 s after it *began* the last renewal that
//! succeeded, on its own monotonic clock, whatever hangs: well before anybody
//! else may take over. Who takes over from somebody that did not say farewell
//! waits until requests of the one before have come to their end.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::client::words;

/// How long a lease holds, in seconds.
const HOLDS_S: i32 = 15;
/// How long a leader goes on without having renewed its lease.
const GIVE_UP: Duration = Duration::from_secs(10);
/// How often a leader renews, and a candidate looks.
const EVERY: Duration = Duration::from_secs(2);
/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(4);

/// A place in the election.
pub struct Candidate {
    seat: Seat,
    /// Whether the lease was somebody's, who may still have requests under way.
    succeeded: bool,
}

/// The office: the lease is renewed until it is lost or given back.
pub struct Term {
    leave: oneshot::Sender<()>,
    task: JoinHandle<Lost>,
}

/// Why a leader leads no more, in words; nothing if it gave the lease back.
type Lost = Option<String>;

/// What one candidate knows of the lease.
struct Seat {
    leases: Api<Lease>,
    name: String,
    identity: String,
    /// The version of the lease that was seen last, and when it was seen first.
    seen: Option<(String, Instant)>,
}

/// What an attempt to get or renew the lease came to.
enum Attempt {
    /// It is ours. Whose it was before, if it was not given back.
    Held { before: Option<String> },
    /// It is another one's.
    Others(String),
}

impl Candidate {
    /// Enters the election for the lease `name` in `namespace` as `identity`.
    pub fn enter(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let leases = Api::namespaced(client, namespace);
        let seat = Seat { leases, name: name.to_owned(), identity: identity.to_owned(), seen: None };
        Self { seat, succeeded: false }
    }

    /// Waits until this process leads, and keeps the lease from then on.
    pub async fn won(mut self, request_limit: Duration) -> Term {
        let renewed = loop {
            let began = Instant::now();
            match self.seat.attempt().await {
                Ok(Attempt::Held { before }) => {
                    self.succeeded = before.is_some();
                    break began;
                }
                Ok(Attempt::Others(holder)) => tracing::debug!(%holder, "somebody else leads"),
                Err(error) => tracing::warn!(error = %format!("{error:#}"), "the lease cannot be had; it is tried again"),
            }
            sleep(EVERY).await;
        };
        let (leave, left) = oneshot::channel();
        let term = Term { leave, task: tokio::spawn(keep(self.seat, renewed, left)) };
        if self.succeeded {
            tracing::info!("waiting until requests of the leader before have ended");
            sleep(request_limit).await;
        }
        term
    }
}

impl Term {
    /// Waits until this process leads no more, or cannot tell any more; says why.
    pub async fn lost(&mut self) -> String {
        match (&mut self.task).await {
            Ok(why) => why.unwrap_or_else(|| "it was given back".to_owned()),
            Err(error) => format!("its renewal ended unexpectedly: {error}"),
        }
    }

    /// Gives the lease back, so that the next process need not wait for its end.
    pub async fn leave(self) {
        if self.leave.send(()).is_ok() {
            match self.task.await {
                Ok(None) => tracing::info!("the lease is released"),
                Ok(Some(why)) => tracing::warn!(%why, "the lease was not released; it ends by itself"),
                Err(error) => tracing::warn!(%error, "the lease was not released; it ends by itself"),
            }
        }
    }
}

/// Renews until `left`, or until the lease is lost.
async fn keep(mut seat: Seat, mut renewed: Instant, mut left: oneshot::Receiver<()>) -> Lost {
    loop {
        let deadline = renewed + GIVE_UP;
        tokio::select! {
            _ = &mut left => return seat.give_back().await.err().map(|error| format!("{error:#}")),
            () = sleep(EVERY) => {}
        }
        let began = Instant::now();
        match timeout_at(deadline, seat.attempt()).await {
            Ok(Ok(Attempt::Held { .. })) => renewed = began,
            Ok(Ok(Attempt::Others(holder))) => return Some(format!("{holder} holds the lease")),
            Ok(Err(error)) if Instant::now() < deadline => {
                tracing::warn!(error = %format!("{error:#}"), "the lease was not renewed; it is tried again");
            }
            Ok(Err(_)) | Err(_) => return Some(format!("it could not be renewed for {} s", GIVE_UP.as_secs())),
        }
    }
}

impl Seat {
    /// Takes or renews the lease, if it is free, ours, or has run out.
    async fn attempt(&mut self) -> anyhow::Result<Attempt> {
        let Some(mut lease) = answer("read", self.leases.get_opt(&self.name)).await? else {
            let mut lease = Lease::default();
            lease.metadata.name = Some(self.name.clone());
            lease.spec = Some(self.claimed(&LeaseSpec::default()));
            let made = answer("make", self.leases.create(&PostParams::default(), &lease)).await?;
            self.see(&made);
            return Ok(Attempt::Held { before: None });
        };
        let first_seen = self.see(&lease);
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.clone().filter(|holder| !holder.is_empty());
        if let Some(holder) = holder.as_ref().filter(|holder| **holder != self.identity) {
            let holds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
            let holds = holds.map_or(Duration::from_secs(15), Duration::from_secs);
            if first_seen.elapsed() < holds {
                return Ok(Attempt::Others(holder.clone()));
            }
        }
        lease.spec = Some(self.claimed(&spec));
        // It has the version that was read: of two who try, one fails.
        let held = answer("renew", self.leases.replace(&self.name, &PostParams::default(), &lease)).await?;
        self.see(&held);
        Ok(Attempt::Held { before: holder })
    }

    /// Remembers which version of the lease there is; tells since when it is known.
    fn see(&mut self, lease: &Lease) -> Instant {
        let version = lease.metadata.resource_version.clone().unwrap_or_default();
        match &self.seen {
            Some((known, since)) if *known == version => *since,
            _ => {
                let now = Instant::now();
                self.seen = Some((version, now));
                now
            }
        }
    }

    /// The lease as ours.
    fn claimed(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = Some(MicroTime(Timestamp::now()));
        let ours = before.holder_identity.as_ref() == Some(&self.identity);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(HOLDS_S),
            acquire_time: if ours { before.acquire_time.clone() } else { now.clone() },
            renew_time: now,
            lease_transitions: Some(before.lease_transitions.unwrap_or(0).saturating_add(i32::from(!ours))),
            ..LeaseSpec::default()
        }
    }

    async fn give_back(&self) -> anyhow::Result<()> {
        let mut lease = answer("read", self.leases.get(&self.name)).await?;
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            bail!("somebody else holds it");
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        answer("release", self.leases.replace(&self.name, &PostParams::default(), &lease)).await?;
        Ok(())
    }
}

/// The answer to a request, or why there is none in time.
async fn answer<T>(what: &str, request: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    match timeout(REQUEST, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => bail!("cannot {what} the lease: {}", words(&error)),
        Err(late) => Err(late).with_context(|| format!("cannot {what} the lease")),
    }
}
