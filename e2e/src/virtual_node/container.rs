//! One container of our own image, run as a process: started, probed,
//! restarted when it ends, stopped with its grace.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use http::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::program::OwnImage;
use super::status::ContainerState;
use crate::process::{Identity, Process, Spec};

/// The longest wait before a container that keeps ending is started again.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long it must have run for the backoff to start over.
const BACKOFF_RESET: Duration = Duration::from_secs(30);

/// A hand on a running program of vingt, for tests.
#[derive(Debug)]
pub struct Control {
    /// Which program it is.
    pub image: OwnImage,
    /// Its node.
    pub node: String,
    /// Its pod, `<namespace>/<name>`.
    pub pod: String,
    /// Where its log is.
    pub log: PathBuf,
    process: Mutex<Option<Identity>>,
    held: watch::Sender<bool>,
    killed: AtomicBool,
}

impl Control {
    /// Of a program that has not started yet.
    pub fn new(image: OwnImage, node: &str, pod: String, log: PathBuf, held: bool) -> Self {
        Self {
            image,
            node: node.to_owned(),
            pod,
            log,
            process: Mutex::default(),
            held: watch::Sender::new(held),
            killed: AtomicBool::new(false),
        }
    }

    /// The process, if it runs.
    pub fn process(&self) -> Option<Identity> {
        let process = self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        process.clone().filter(Identity::is_alive)
    }

    /// `kill -9`. It is started again, at once: a test that kills a program
    /// over and over is no crash loop.
    pub fn kill(&self) {
        if let Some(process) = self.process() {
            self.killed.store(true, Ordering::Relaxed);
            process.kill();
        }
    }

    /// Keeps it from being started again until told otherwise.
    pub fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }

    fn set_process(&self, identity: Option<Identity>) {
        *self.process.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = identity;
    }
}

/// Everything it takes to run a container.
#[derive(Debug)]
pub struct Runner {
    /// Position in the pod's spec.
    pub index: usize,
    /// Unique name for the process record.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// Folder of the process records.
    pub records: PathBuf,
    /// The pod's restart policy.
    pub restart_policy: String,
    /// Time between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// When it is ready.
    pub readiness: Option<HttpProbe>,
    /// When it is to be restarted.
    pub liveness: Option<HttpProbe>,
    /// The hand on it.
    pub control: Arc<Control>,
}

/// A change of a container.
#[derive(Debug)]
pub struct Change {
    /// Position in the pod's spec.
    pub index: usize,
    /// How it is now.
    pub state: ContainerState,
    /// How often it was started again.
    pub restarts: i32,
}

enum Ended {
    Stopped,
    Exited(i32),
}

impl Runner {
    /// Runs until the restart policy says that it is over, or until `stop`.
    pub async fn run(self, changes: mpsc::Sender<Change>, stop: CancellationToken) {
        let mut restarts = 0;
        let mut backoff = Duration::ZERO;
        loop {
            let mut held = self.control.held.subscribe();
            let may_start = held.wait_for(|held| !held);
            if stop.run_until_cancelled(may_start).await.is_none() {
                return;
            }
            let started = Instant::now();
            let since = Timestamp::now();
            let ended = self.run_once(restarts, since, &changes, &stop).await;
            self.control.set_process(None);
            let exit_code = match ended {
                Ok(Ended::Stopped) => return,
                Ok(Ended::Exited(code)) => code,
                Err(error) => {
                    let waiting = ContainerState::Waiting {
                        reason: "CreateContainerError",
                        message: format!("{error:#}"),
                    };
                    self.tell(&changes, waiting, restarts).await;
                    128
                }
            };
            let state = ContainerState::Terminated { exit_code, since };
            let again = match self.restart_policy.as_str() {
                "Never" => false,
                "OnFailure" => exit_code != 0,
                _ => true,
            };
            self.tell(&changes, state, restarts).await;
            if !again {
                return;
            }
            if self.control.killed.swap(false, Ordering::Relaxed) {
                backoff = Duration::ZERO;
            }
            info!("{} ended with {exit_code}; started again in {backoff:?}", self.name);
            if stop.run_until_cancelled(sleep(backoff)).await.is_none() {
                return;
            }
            backoff = if started.elapsed() > BACKOFF_RESET {
                Duration::ZERO
            } else {
                (backoff * 2).clamp(Duration::from_secs(1), BACKOFF_MAX)
            };
            restarts += 1;
        }
    }

    async fn tell(&self, changes: &mpsc::Sender<Change>, state: ContainerState, restarts: i32) {
        // Nobody listens any more when the pod is being stopped.
        let _ = changes.send(Change { index: self.index, state, restarts }).await;
    }

    async fn run_once(
        &self,
        restarts: i32,
        since: Timestamp,
        changes: &mpsc::Sender<Change>,
        stop: &CancellationToken,
    ) -> Result<Ended> {
        let mut process = Process::start(Spec {
            name: &self.name,
            program: &self.program,
            args: self.args.clone(),
            env: self.env.clone(),
            log: self.control.log.clone(),
            records: &self.records,
        })?;
        self.control.set_process(Some(process.identity().clone()));
        let mut ready = self.readiness.is_none();
        self.tell(changes, ContainerState::Running { since, ready }, restarts).await;
        let mut tick = tokio::time::interval(Duration::from_millis(500));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let started = Instant::now();
        let mut last_liveness = started;
        let mut failures = 0;
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    process.stop(self.grace).await;
                    return Ok(Ended::Stopped);
                }
                code = process.wait() => return Ok(Ended::Exited(code?)),
                _ = tick.tick() => {}
            }
            if let Some(probe) = &self.readiness {
                let now = probe.succeeds().await;
                if now != ready {
                    ready = now;
                    self.tell(changes, ContainerState::Running { since, ready }, restarts).await;
                }
            }
            if let Some(probe) = &self.liveness
                && started.elapsed() >= probe.initial_delay
                && last_liveness.elapsed() >= probe.period
            {
                last_liveness = Instant::now();
                failures = if probe.succeeds().await { 0 } else { failures + 1 };
                if failures >= probe.failure_threshold {
                    info!("{} is not alive by its probe; restarting it", self.name);
                    process.stop(self.grace).await;
                    return Ok(Ended::Exited(137));
                }
            }
        }
    }
}

/// An `httpGet` probe of a container.
#[derive(Debug)]
pub struct HttpProbe {
    uri: Uri,
    timeout: Duration,
    period: Duration,
    initial_delay: Duration,
    failure_threshold: i32,
}

impl HttpProbe {
    /// Reads a probe; other kinds than `httpGet` are taken as succeeding.
    pub fn of(probe: Option<&Probe>, container: &Container, pod_ip: &str) -> Option<Self> {
        let probe = probe?;
        let get = probe.http_get.as_ref()?;
        let port = match &get.port {
            IntOrString::Int(port) => *port,
            IntOrString::String(name) => container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port)?,
        };
        let path = get.path.as_deref().unwrap_or("/").trim_start_matches('/');
        let seconds = |value: Option<i32>, default: u64| {
            Duration::from_secs(value.and_then(|value| value.try_into().ok()).unwrap_or(default))
        };
        Some(Self {
            uri: format!("http://{pod_ip}:{port}/{path}").parse().ok()?,
            timeout: seconds(probe.timeout_seconds, 1),
            period: seconds(probe.period_seconds, 10),
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            failure_threshold: probe.failure_threshold.unwrap_or(3),
        })
    }

    async fn succeeds(&self) -> bool {
        let client: Client<_, String> = Client::builder(TokioExecutor::new()).build_http();
        let answer = tokio::time::timeout(self.timeout, client.get(self.uri.clone())).await;
        matches!(answer, Ok(Ok(answer)) if answer.status().is_success())
    }
}
