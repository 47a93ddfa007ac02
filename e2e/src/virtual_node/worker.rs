//! The life of one pod on a virtual node: claims prepared, containers run or
//! played, status reported, and everything given back at the end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Event, Pod, ServiceAccount};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::addresses::reported;
use super::config_maps;
use super::container::{Change, Control, HttpProbe, Runner};
use super::program::{self, OwnImage, Place};
use super::status::{self, ContainerState, Report};
use super::{Core, EXIT_CODE, RUN_SECONDS};
use crate::pki::write_kubeconfig;

/// How soon something that failed is tried again. (A real kubelet takes up to
/// a minute; tests would only wait longer.)
const RETRY: Duration = Duration::from_secs(1);
/// Life of a pod's token: longer than any lab.
const TOKEN_SECONDS: i64 = 7 * 24 * 3600;

/// What the watch knows of the pod.
pub struct Worker {
    /// The node it is on.
    pub core: Arc<Core>,
    /// The newest version of the pod.
    pub pod: watch::Receiver<Arc<Pod>>,
    /// Fires when the pod is gone from the API.
    pub gone: CancellationToken,
}

impl Worker {
    /// Lives through the pod's life.
    pub async fn live(mut self) {
        let pod = self.newest();
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let count = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
        let own = program::runs_as_processes(&pod);
        let network = pod.spec.as_ref().and_then(|spec| spec.host_network).unwrap_or_default();
        let pod_ip = self.core.addresses.pod(own, network, &self.core.address);
        let mut states = vec![waiting("ContainerCreating", ""); count];
        let mut restarts = vec![0; count];
        let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
        let ended = matches!(phase.as_deref(), Some("Succeeded" | "Failed"));
        if !ended && !self.prepare().await {
            // Asked to end before it could start.
        } else if !ended {
            let finished = if own {
                self.run(&pod_ip, &mut states, &mut restarts).await
            } else {
                self.play(&pod_ip, &mut states, &mut restarts).await
            };
            if !finished {
                // What a program without a handler for SIGTERM exits with.
                let exit_code = if own { 0 } else { 143 };
                states.fill(ContainerState::Terminated { exit_code, since: Timestamp::now() });
            }
            self.report(final_phase(&states), &states, &restarts, &pod_ip).await;
        }
        // Given back until it succeeds, even when the pod is long gone.
        while let Err(error) = self.core.claims.unprepare(&self.core.plugins, &uid).await {
            debug!("{}: {error:#}", self.core.name);
            sleep(RETRY).await;
        }
        self.ending().await;
        self.delete(&uid).await;
        let _ = std::fs::remove_dir_all(self.core.pod_folder(&uid));
    }

    fn newest(&self) -> Arc<Pod> {
        self.pod.borrow().clone()
    }

    /// Waits until the pod is being deleted, or gone.
    async fn ending(&self) {
        let mut pod = self.pod.clone();
        let deleted = pod.wait_for(|pod| pod.metadata.deletion_timestamp.is_some());
        self.gone.run_until_cancelled(deleted).await;
    }

    /// Prepares the claims; false if the pod ends first.
    async fn prepare(&self) -> bool {
        let core = &self.core;
        let prepared = async {
            let mut told = String::new();
            loop {
                let pod = self.newest();
                let Err(error) = core.claims.prepare(&core.client, &core.plugins, &pod).await else {
                    break;
                };
                let error = format!("{error:#}");
                if error != told {
                    self.event("FailedPrepareDynamicResources", &error).await;
                    told = error;
                }
                sleep(RETRY).await;
            }
        };
        tokio::select! {
            () = prepared => true,
            () = self.ending() => false,
        }
    }

    /// Plays containers that are not ours: they run at once, and end as their
    /// annotations say. True if they ended by themselves.
    async fn play(&mut self, pod_ip: &str, states: &mut [ContainerState], restarts: &mut [i32]) -> bool {
        let pod = self.newest();
        let annotation = |name: &str| {
            let found = pod.metadata.annotations.as_ref()?.get(name)?;
            found.parse::<i32>().ok()
        };
        let seconds = annotation(RUN_SECONDS).and_then(|seconds| u64::try_from(seconds).ok());
        let exit_code = annotation(EXIT_CODE).unwrap_or(0);
        loop {
            let since = Timestamp::now();
            states.fill(ContainerState::Running { since, ready: true });
            self.report("Running", states, restarts, pod_ip).await;
            let over = async {
                match seconds {
                    Some(seconds) => sleep(Duration::from_secs(seconds)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = over => {}
                () = self.ending() => return false,
            }
            states.fill(ContainerState::Terminated { exit_code, since });
            if !restarts_again(&pod, exit_code) {
                return true;
            }
            self.report("Running", states, restarts, pod_ip).await;
            for count in restarts.iter_mut() {
                *count += 1;
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = self.ending() => return false,
            }
        }
    }

    /// Runs containers of our own images as processes. True if they ended by
    /// themselves.
    async fn run(&mut self, pod_ip: &str, states: &mut [ContainerState], restarts: &mut [i32]) -> bool {
        let runners = loop {
            match self.runners(pod_ip).await {
                Ok(runners) => break runners,
                Err(error) => {
                    states.fill(waiting("CreateContainerConfigError", &format!("{error:#}")));
                    self.report("Pending", states, restarts, pod_ip).await;
                }
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = self.ending() => return false,
            }
        };
        let stop = CancellationToken::new();
        // When the node's power goes, this is dropped at any await.
        let _stop_runners = stop.clone().drop_guard();
        let (sender, mut changes) = mpsc::channel(16);
        let tasks = TaskTracker::new();
        let pod = self.newest();
        let folder = self.core.pod_folder(pod.metadata.uid.as_deref().unwrap_or_default());
        let follow = config_maps::follow(self.core.client.clone(), (*pod).clone(), folder, stop.clone());
        tasks.spawn(follow);
        let mut controls = Vec::new();
        for runner in runners {
            controls.push(self.core.programs.add(&runner.control));
            tasks.spawn(runner.run(sender.clone(), stop.clone()));
        }
        drop(sender);
        tasks.close();
        let finished = loop {
            tokio::select! {
                change = changes.recv() => {
                    // All containers have ended for good.
                    let Some(Change { index, state, restarts: count }) = change else {
                        break true;
                    };
                    states[index] = state;
                    restarts[index] = count;
                    self.report("Running", states, restarts, pod_ip).await;
                }
                () = self.ending() => break false,
            }
        };
        stop.cancel();
        drop(changes);
        tasks.wait().await;
        for control in controls {
            self.core.programs.remove(&control);
        }
        finished
    }

    async fn runners(&self, pod_ip: &str) -> Result<Vec<Runner>> {
        let pod = self.newest();
        let spec = pod.spec.as_ref().context("the pod has no spec")?;
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let (namespace, name) = names(&pod);
        let folder = self.core.pod_folder(uid);
        std::fs::create_dir_all(&folder)?;
        config_maps::write(&self.core.client, &pod, &folder).await?;
        let mut runners = Vec::new();
        for (index, container) in spec.containers.iter().enumerate() {
            let place = Place {
                pod_ip,
                host_ip: &self.core.address,
                pod_folder: &folder,
                node_folder: (&self.core.real_folder, &self.core.folder),
                host_path: &|path| self.core.host_path(Path::new(path)),
            };
            let invocation = program::invocation(&pod, container, &place)?;
            for folder in &invocation.folders {
                // A host path may be a file, which is there or not.
                let _ = std::fs::create_dir_all(folder);
            }
            let kubeconfig = self.kubeconfig(&folder, invocation.image).await?;
            let mut env: Vec<(String, String)> = invocation.env.into_iter().collect();
            env.push(("KUBECONFIG".to_owned(), kubeconfig.display().to_string()));
            let log = self.core.logs.join(format!("{name}_{}.log", container.name));
            let pod_name = format!("{namespace}/{name}");
            let held = self.core.programs.holds(invocation.image, &self.core.name);
            let control = Control::new(invocation.image, &self.core.name, pod_name, log, held);
            runners.push(Runner {
                index,
                name: format!("{name}_{}", container.name),
                program: self.core.program(invocation.image),
                args: invocation.args,
                env,
                records: self.core.records.clone(),
                restart_policy: spec.restart_policy.clone().unwrap_or_default(),
                grace: Duration::from_secs(
                    spec.termination_grace_period_seconds
                        .and_then(|seconds| seconds.try_into().ok())
                        .unwrap_or(30),
                ),
                readiness: HttpProbe::of(container.readiness_probe.as_ref(), container, pod_ip),
                liveness: HttpProbe::of(container.liveness_probe.as_ref(), container, pod_ip),
                control: Arc::new(control),
            });
        }
        Ok(runners)
    }

    /// A kubeconfig with a token of the pod's service account, bound to the
    /// pod as the kubelet's projected tokens are.
    async fn kubeconfig(&self, folder: &Path, image: OwnImage) -> Result<PathBuf> {
        let pod = self.newest();
        let (namespace, name) = names(&pod);
        let spec = pod.spec.as_ref();
        let account = spec.and_then(|spec| spec.service_account_name.as_deref());
        let account = account.unwrap_or("default");
        let accounts: Api<ServiceAccount> = Api::namespaced(self.core.client.clone(), &namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(TOKEN_SECONDS),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(name),
                    uid: pod.metadata.uid.clone(),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
        let token = answer.status.and_then(|status| status.token);
        let token = token.context("the API server gave no token")?;
        let path = folder.join("kubeconfig");
        let server = self.core.server_for(image);
        write_kubeconfig(&path, &self.core.authority.token_kubeconfig(&server, account, &token))?;
        Ok(path)
    }

    async fn report(
        &self,
        phase: &'static str,
        containers: &[ContainerState],
        restarts: &[i32],
        pod_ip: &str,
    ) {
        let report = Report {
            phase,
            containers,
            restarts,
            pod_ip: &reported(pod_ip),
            host_ip: &reported(&self.core.address),
        };
        let pod = self.newest();
        while let Err(error) = status::write(&self.core.client, &pod, &report).await {
            warn!("{}: cannot write a pod's status: {error:#}", self.core.name);
            if self.gone.run_until_cancelled(sleep(RETRY)).await.is_none() {
                return;
            }
        }
    }

    async fn event(&self, reason: &str, message: &str) {
        let pod = self.newest();
        let (namespace, name) = names(&pod);
        let events: Api<Event> = Api::namespaced(self.core.client.clone(), &namespace);
        let now = Timestamp::now();
        let event = serde_json::from_value(serde_json::json!({
            "metadata": {"generateName": format!("{name}.")},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace,
                               "name": name, "uid": pod.metadata.uid},
            "type": "Warning", "reason": reason, "message": message,
            "source": {"component": "kubelet", "host": self.core.name},
            "firstTimestamp": now.to_string(), "lastTimestamp": now.to_string(), "count": 1,
        }));
        // An event that cannot be written is no reason to stop.
        if let Ok(event) = event
            && let Err(error) = events.create(&PostParams::default(), &event).await
        {
            debug!("{}: cannot write an event: {error:#}", self.core.name);
        }
    }

    /// Takes the pod out of the API, now that nothing of it is left.
    async fn delete(&self, uid: &str) {
        let (namespace, name) = names(&self.newest());
        let pods: Api<Pod> = Api::namespaced(self.core.client.clone(), &namespace);
        let preconditions = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let now = DeleteParams::default().grace_period(0).preconditions(preconditions);
        while !self.gone.is_cancelled() {
            match pods.delete(&name, &now).await {
                Ok(_) => return,
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {
                    return;
                }
                Err(error) => warn!("{}: cannot delete a pod: {error:#}", self.core.name),
            }
            sleep(RETRY).await;
        }
    }
}

fn names(pod: &Pod) -> (String, String) {
    let name = pod.metadata.name.clone().unwrap_or_default();
    (pod.metadata.namespace.clone().unwrap_or_default(), name)
}

fn waiting(reason: &'static str, message: &str) -> ContainerState {
    ContainerState::Waiting { reason, message: message.to_owned() }
}

fn restarts_again(pod: &Pod, exit_code: i32) -> bool {
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref());
    match policy {
        Some("Never") => false,
        Some("OnFailure") => exit_code != 0,
        _ => true,
    }
}

fn final_phase(states: &[ContainerState]) -> &'static str {
    let clean = |state: &ContainerState| matches!(state, ContainerState::Terminated { exit_code: 0, .. });
    if states.iter().all(clean) { "Succeeded" } else { "Failed" }
}
