//! A kubelet of our own, for nodes that are only played: no root, no
//! containers, thousands of pods. Everything around the pods is real: the Node
//! and its lease, the node's own identity at the API server, the DRA sockets
//! of the agent, the order of prepare, run, unprepare and delete.
//!
//! Pods of vingt itself run as host processes with a token bound to their pod.
//! All others are played: they run at once, and end when told to by their
//! annotations [`RUN_SECONDS`] and [`EXIT_CODE`].

pub mod container;
pub mod program;

mod addresses;
mod claims;
mod config_maps;
mod dra_client;
mod logs;
mod node;
mod plugin;
mod programs;
mod status;
mod watch;
mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use kube::Client;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

pub use addresses::Addresses;
pub use dra_client::PreparedDevice;
pub use programs::{Program, Programs};

use crate::build::rust::Artifacts;
use crate::control_plane::{ControlPlane, client};
use crate::layout::Layout;
use crate::pki::Authority;
use claims::Claims;
use plugin::Plugins;
use program::OwnImage;

/// Pod annotation: after how many seconds a played pod ends.
pub const RUN_SECONDS: &str = "lab.vingt.dev/run-seconds";
/// Pod annotation: with which code a played pod ends, 0 by default.
pub const EXIT_CODE: &str = "lab.vingt.dev/exit-code";

/// A virtual node.
pub struct VirtualNode {
    core: Arc<Core>,
    running: Mutex<Option<Running>>,
}

struct Running {
    stop: CancellationToken,
    tasks: TaskTracker,
    kubelet: Vec<JoinHandle<()>>,
}

/// What all parts of a node share.
pub struct Core {
    name: String,
    address: String,
    client: Client,
    authority: Arc<Authority>,
    server: String,
    operator_server: Option<String>,
    artifacts: Artifacts,
    folder: PathBuf,
    /// A host path below this folder is the same path below `folder`.
    real_folder: PathBuf,
    logs: PathBuf,
    records: PathBuf,
    addresses: Arc<Addresses>,
    plugins: Plugins,
    claims: Claims,
    programs: Arc<Programs>,
}

/// What a lab gives to each of its nodes.
#[derive(Clone)]
pub struct Shared {
    /// Addresses of pods, unique in the lab.
    pub addresses: Arc<Addresses>,
    /// vingt's programs.
    pub artifacts: Artifacts,
    /// Hands on those that run.
    pub programs: Arc<Programs>,
    /// The API server that operators are told, if it is not the real one.
    pub operator_server: Option<String>,
}

impl VirtualNode {
    /// A node that is switched off. Its folder is made.
    pub async fn new(
        layout: &Layout,
        control_plane: &ControlPlane,
        shared: &Shared,
        index: usize,
    ) -> Result<Self> {
        let name = format!("node-{index}");
        let folder = layout.virtual_node(index);
        let logs = layout.logs().join(&name);
        for made in [&folder.join("kubelet/plugins_registry"), &logs] {
            std::fs::create_dir_all(made)?;
        }
        let authority = control_plane.authority();
        let server = control_plane.server().to_owned();
        let user = format!("system:node:{name}");
        let kubeconfig = authority.kubeconfig(&server, &user, Some("system:nodes"))?;
        let core = Core {
            address: shared.addresses.node(index),
            client: client(kubeconfig).await?,
            authority,
            server,
            operator_server: shared.operator_server.clone(),
            artifacts: shared.artifacts.clone(),
            real_folder: layout.real_node(),
            logs,
            records: layout.records(),
            addresses: shared.addresses.clone(),
            plugins: Plugins::new(&name, &folder.join("kubelet")),
            claims: Claims::default(),
            programs: shared.programs.clone(),
            folder,
            name,
        };
        Ok(Self { core: Arc::new(core), running: Mutex::default() })
    }

    /// Switches the node on: it registers and takes pods.
    pub async fn start(&self) -> Result<()> {
        let core = self.core.clone();
        node::register(&core.client, &core.name, &core.address).await?;
        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let beating = core.clone();
        let plugging = core.clone();
        let logging = core.clone();
        let kubelet = vec![
            tokio::spawn(async move {
                node::heartbeats(&beating.client, &beating.name, &beating.address).await;
            }),
            tokio::spawn(async move { plugging.plugins.watch(&plugging.client).await }),
            tokio::spawn(async move {
                let served = logs::serve(&logging.authority, &logging.address, logging.logs.clone());
                if let Err(error) = served.await {
                    warn!("{}: `kubectl logs` will not work: {error:#}", logging.name);
                }
            }),
            tokio::spawn(watch::pods(core, tasks.clone(), stop.clone())),
        ];
        *self.running.lock().await = Some(Running { stop, tasks, kubelet });
        Ok(())
    }

    /// Pulls the plug: no heartbeat, no kubelet, its processes killed. The API
    /// server learns of it only by the silence.
    pub async fn power_off(&self) {
        let Some(running) = self.running.lock().await.take() else { return };
        for control in self.core.programs.on(&self.core.name) {
            control.hold(true);
            control.kill();
        }
        running.stop.cancel();
        running.kubelet.iter().for_each(JoinHandle::abort);
        running.tasks.close();
        running.tasks.wait().await;
    }

    /// What a restart of the kubelet does to drivers: they register again,
    /// the node's slices are deleted, and claims are prepared once more.
    pub async fn restart_kubelet(&self) -> Result<()> {
        self.core.plugins.restart(&self.core.client).await?;
        self.core.claims.prepare_again(&self.core.plugins).await
    }

    /// The node's name.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// The node's folder; a host path `<lab>/real/x` is `x` in it.
    pub fn folder(&self) -> &Path {
        &self.core.folder
    }

    /// The node's agent.
    pub fn agent(&self) -> Program {
        Programs::program(&self.core.programs, OwnImage::Agent, Some(&self.core.name))
    }

    /// The devices that the agent said it prepared for a claim.
    pub async fn prepared(&self, claim_uid: &str) -> Option<Vec<PreparedDevice>> {
        self.core.claims.devices(claim_uid).await
    }
}

impl Core {
    fn pod_folder(&self, uid: &str) -> PathBuf {
        self.folder.join("pods").join(uid)
    }

    /// Where a path of the node's file system is on this machine.
    fn host_path(&self, path: &Path) -> PathBuf {
        if let Ok(below) = path.strip_prefix(&self.real_folder) {
            return self.folder.join(below);
        }
        let below = path.strip_prefix("/").unwrap_or(path);
        self.folder.join("host").join(below)
    }

    fn program(&self, image: OwnImage) -> PathBuf {
        match image {
            OwnImage::Operator => self.artifacts.operator.clone(),
            OwnImage::Agent => self.artifacts.agent.clone(),
        }
    }

    fn server_for(&self, image: OwnImage) -> String {
        let other = self.operator_server.clone().filter(|_| image == OwnImage::Operator);
        other.unwrap_or_else(|| self.server.clone())
    }
}
