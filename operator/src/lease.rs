//! Leader election: one process decides at a time, by a Lease as client-go's
//! leader election uses it.
//!
//! A lease holds for 15 s and is renewed every 2 s. No clock of another machine
//! is trusted: a lease has run out when it was seen unchanged for as long as it
//! holds. A leader gives up 10 s after it *began* the last renewal that
//! succeeded, on its own monotonic clock, whatever hangs: well before anybody
//! else may take over. Who takes over from a leader that did not give the lease
//! back waits before it decides: requests of that one may still be under way.

use std::time::Duration;

use anyhow::{Context as _, bail};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
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

/// How long requests may still land after their process ended: nobody waits for them any more.
const ORPHANED: Duration = Duration::from_secs(2);

/// A place in the election.
pub struct Candidate {
    seat: Seat,
}

/// A term of office: the lease is renewed until it is lost or given back.
pub struct Term {
    leave: oneshot::Sender<()>,
    task: JoinHandle<Lost>,
    before: Before,
}

/// Who held the lease before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Nobody, or somebody that gave it back.
    Nobody,
    /// A process of the same name, which has ended.
    Ourselves,
    /// Another one, which may still be alive.
    Another,
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
    /// It is ours.
    Held(Before),
    /// It is another one's.
    Others(String),
}

impl Candidate {
    /// Enters the election for the lease `name` in `namespace` as `identity`.
    pub fn enter(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let leases = Api::namespaced(client, namespace);
        let seat = Seat { leases, name: name.to_owned(), identity: identity.to_owned(), seen: None };
        Self { seat }
    }

    /// Waits until this process leads, and keeps the lease from then on.
    pub async fn won(mut self) -> Term {
        loop {
            let began = Instant::now();
            match self.seat.attempt().await {
                Ok(Attempt::Held(before)) => {
                    let (leave, left) = oneshot::channel();
                    return Term { leave, task: tokio::spawn(keep(self.seat, began, left)), before };
                }
                Ok(Attempt::Others(holder)) => tracing::debug!(%holder, "somebody else leads"),
                Err(error) => {
                    tracing::warn!(error = %format!("{error:#}"), "the lease cannot be had; it is tried again")
                }
            }
            sleep(EVERY).await;
        }
    }
}

impl Term {
    /// How long requests of the leader before may still be under way, of which each takes `limit` at most.
    pub fn settling(&self, limit: Duration) -> Duration {
        match self.before {
            Before::Nobody => Duration::ZERO,
            Before::Ourselves => ORPHANED,
            Before::Another => limit,
        }
    }

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
            Ok(Ok(Attempt::Held(_))) => renewed = began,
            Ok(Ok(Attempt::Others(holder))) => return Some(format!("{holder} holds the lease")),
            Ok(Err(error)) if Instant::now() < deadline => {
                tracing::warn!(error = %format!("{error:#}"), "the lease was not renewed; it is tried again");
            }
            Ok(Err(_)) | Err(_) => {
                return Some(format!("it could not be renewed for {} s", GIVE_UP.as_secs()));
            }
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
            return Ok(Attempt::Held(Before::Nobody));
        };
        let first_seen = self.see(&lease);
        let spec = lease.spec.take().unwrap_or_default();
        let holder = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty());
        let before = match holder {
            None => Before::Nobody,
            Some(holder) if holder == self.identity => Before::Ourselves,
            Some(holder) => {
                let holds = spec.lease_duration_seconds.unwrap_or(HOLDS_S);
                if first_seen.elapsed() < Duration::from_secs(u64::try_from(holds).unwrap_or(0)) {
                    return Ok(Attempt::Others(holder.to_owned()));
                }
                Before::Another
            }
        };
        let held = self.write("renew", &lease, json!(self.claimed(&spec))).await?;
        self.see(&held);
        Ok(Attempt::Held(before))
    }

    /// Writes to the version that was read: of two who try, one fails.
    async fn write(&self, what: &str, lease: &Lease, spec: Value) -> anyhow::Result<Lease> {
        let patch = json!({"metadata": {"resourceVersion": lease.metadata.resource_version}, "spec": spec});
        answer(what, self.leases.patch(&self.name, &PatchParams::default(), &Patch::Merge(&patch))).await
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
        let lease = answer("read", self.leases.get(&self.name)).await?;
        if lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()) != Some(&self.identity) {
            bail!("somebody else holds it");
        }
        self.write("release", &lease, json!({"holderIdentity": null, "leaseDurationSeconds": 1})).await?;
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Method, Request, Response};
    use kube::client::Body;

    use super::*;

    /// An API server that has one lease.
    #[derive(Clone, Default)]
    struct Server(Arc<Mutex<State>>);

    #[derive(Default)]
    struct State {
        lease: Option<Value>,
        version: u64,
        /// It takes requests and never answers.
        mute: bool,
    }

    impl Server {
        fn candidate(&self, identity: &str) -> Candidate {
            let server = self.clone();
            let service = tower::service_fn(move |request| server.clone().answer(request));
            Candidate::enter(Client::new(service, "n"), "n", "l", identity)
        }

        async fn answer(self, request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
            let method = request.method().clone();
            let body = request.into_body().collect_bytes().await.unwrap();
            if self.0.lock().unwrap().mute {
                std::future::pending::<()>().await;
            }
            let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
            let mut state = self.0.lock().unwrap();
            let there = state.lease.clone();
            let (code, answer) = match (method, there) {
                (Method::GET, Some(lease)) => (200, lease),
                (Method::POST, None) => (201, sent.clone()),
                (Method::PATCH, Some(lease)) => {
                    if sent["metadata"]["resourceVersion"] != lease["metadata"]["resourceVersion"] {
                        (409, status(409))
                    } else {
                        let mut lease = lease;
                        for (key, value) in sent["spec"].as_object().unwrap() {
                            lease["spec"][key] = value.clone();
                        }
                        (200, lease)
                    }
                }
                (Method::POST, Some(_)) => (409, status(409)),
                _ => (404, status(404)),
            };
            let mut answer = answer;
            if code < 300 && request_writes(&sent) {
                state.version += 1;
                answer["metadata"]["resourceVersion"] = json!(state.version.to_string());
                state.lease = Some(answer.clone());
            }
            Ok(Response::builder().status(code).body(Body::from(answer.to_string().into_bytes())).unwrap())
        }

        fn holder(&self) -> Value {
            self.0
                .lock()
                .unwrap()
                .lease
                .as_ref()
                .map_or(Value::Null, |lease| lease["spec"]["holderIdentity"].clone())
        }
    }

    fn request_writes(sent: &Value) -> bool {
        !sent.is_null()
    }

    fn status(code: u16) -> Value {
        json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": if code == 404 { "NotFound" } else { "Conflict" }, "message": "no", "code": code})
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_gets_no_answer_gives_up_before_anybody_takes_over() {
        let server = Server::default();
        let mut first = server.candidate("first").won().await;
        assert_eq!((server.holder(), first.settling(GIVE_UP)), (json!("first"), Duration::ZERO));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!first.task.is_finished(), "it renews");

        server.0.lock().unwrap().mute = true;
        let mute = Instant::now();
        let why = first.lost().await;
        assert!(mute.elapsed() <= GIVE_UP, "{why} after {:?}", mute.elapsed());

        server.0.lock().unwrap().mute = false;
        let before = Instant::now();
        let second = server.candidate("second").won().await;
        assert!(before.elapsed() >= Duration::from_secs(15), "it has to see for itself that it ran out");
        assert_eq!((server.holder(), second.settling(GIVE_UP)), (json!("second"), GIVE_UP));
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_is_given_back_is_taken_at_once() {
        let server = Server::default();
        let first = server.candidate("first").won().await;
        let second = tokio::spawn(server.candidate("second").won());
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!(server.holder(), json!("first"), "a lease that is renewed does not run out");
        first.leave().await;
        let before = Instant::now();
        let second = second.await.unwrap();
        assert!(before.elapsed() <= EVERY);
        assert_eq!((server.holder(), second.settling(GIVE_UP)), (json!("second"), Duration::ZERO));
        second.leave().await;
        assert_eq!(server.holder(), Value::Null);
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_sees_that_another_one_leads() {
        let server = Server::default();
        let mut first = server.candidate("first").won().await;
        {
            let mut state = server.0.lock().unwrap();
            let lease = state.lease.as_mut().unwrap();
            lease["spec"]["holderIdentity"] = json!("thief");
            lease["metadata"]["resourceVersion"] = json!("99");
        }
        let why = first.lost().await;
        assert!(why.contains("thief"), "{why}");
    }
}
