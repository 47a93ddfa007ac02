//! One lab: a control plane, nodes, and vingt installed by its chart.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};
use tokio::process::Command;
use tracing::info;

use crate::build::go::{Component, ensure_built};
use crate::build::rust;
use crate::cleanup::{Guard, clean};
use crate::control_plane::{Binaries, ControlPlane, client};
use crate::cut_proxy::CutProxy;
use crate::emulator;
use crate::helm::{Helm, Values};
use crate::layout::{LabLock, Layout};
use crate::real_node::{self, NodeConfig, RealNode};
use crate::virtual_node::program::OwnImage;
use crate::virtual_node::{Addresses, Program, Programs, Shared, VirtualNode};

/// What a lab is to have.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools)] // independent switches, named where they are set
pub struct LabConfig {
    /// Name of the lab; labs of different names run side by side.
    pub name: String,
    /// The `lab` program, for the guard that cleans up after a crash. Tests
    /// give `env!("CARGO_BIN_EXE_lab")`.
    pub lab_program: PathBuf,
    /// Number of virtual nodes, `node-0` and so on.
    pub virtual_nodes: usize,
    /// How many of them, the last ones, have their GPUs out of MIG mode.
    pub whole_gpu_nodes: usize,
    /// GPUs of each virtual node.
    pub gpus_per_node: u32,
    /// Whether agents may switch a GPU's MIG mode.
    pub allow_mig_mode_switch: bool,
    /// Replicas of the operator.
    pub operator_replicas: u32,
    /// Whether the operator talks to the API server through a [`CutProxy`].
    pub cut_proxy: bool,
    /// Whether the chart is installed.
    pub install: bool,
    /// Whether there is a real node, `real-0`, with two GPUs: see
    /// [`host::obstacle`](crate::real_node::host::obstacle) for what that needs.
    pub real_node: bool,
    /// More values for the chart, merged over the lab's.
    pub values: serde_json::Value,
}

impl LabConfig {
    /// A small lab for tests: two virtual nodes of two GPUs in MIG mode.
    pub fn small(name: &str, lab_program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.to_owned(),
            lab_program: lab_program.into(),
            virtual_nodes: 2,
            whole_gpu_nodes: 0,
            gpus_per_node: 2,
            allow_mig_mode_switch: false,
            operator_replicas: 1,
            cut_proxy: false,
            install: true,
            real_node: false,
            values: serde_json::Value::Null,
        }
    }
}

/// What a running lab says of itself on disk, for `cargo lab status` and
/// `down`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabState {
    /// The API server.
    pub server: String,
    /// Folder with kubectl.
    pub kubernetes: PathBuf,
    /// Number of virtual nodes.
    pub virtual_nodes: usize,
    /// Whether there is a real node.
    pub real_node: bool,
    /// Whether everything was ready.
    pub ready: bool,
}

/// A running lab. End it with [`Lab::stop`]; if it is only dropped, its guard
/// cleans up when this process ends.
pub struct Lab {
    layout: Layout,
    control_plane: ControlPlane,
    nodes: Vec<VirtualNode>,
    real_node: Option<RealNode>,
    artifacts: rust::Artifacts,
    programs: Arc<Programs>,
    cut_proxy: Option<CutProxy>,
    kubernetes: PathBuf,
    helm: Helm,
    values: Values,
    config: LabConfig,
    guard: Guard,
    lock: LabLock,
}

impl Lab {
    /// Builds what is missing, starts everything, and waits until it is ready.
    pub async fn start(config: LabConfig) -> Result<Self> {
        let lock = Layout::new(&config.name)?.lock()?;
        Self::start_locked(config, lock).await
    }

    /// The same with the lab's lock, for those who waited for it: who lets go of it to start may find it taken.
    pub async fn start_locked(config: LabConfig, lock: LabLock) -> Result<Self> {
        let layout = Layout::new(&config.name)?;
        let [etcd, kubernetes, helm] = Component::VIRTUAL;
        let binaries =
            Binaries { etcd: ensure_built(etcd).await?, kubernetes: ensure_built(kubernetes).await? };
        let helm = ensure_built(helm).await?;
        if config.real_node {
            real_node::Binaries::get().await?;
        }
        let artifacts = rust::build().await?;

        clean(&layout).await.context("what an earlier lab left cannot be removed")?;
        layout.create()?;
        let guard = Guard::start(&config.lab_program, &layout)?;
        let started = Instant::now();
        let control_plane = ControlPlane::start(&layout, &binaries).await?;
        info!("control plane ready at {} ({})", control_plane.server(), since(started));

        let values = Values {
            allow_mig_mode_switch: config.allow_mig_mode_switch,
            operator_replicas: config.operator_replicas,
            extra: config.values.clone(),
            real_node: config.real_node,
        };
        let mut lab = Self {
            helm: Helm::new(&helm, &layout),
            layout,
            control_plane,
            nodes: Vec::new(),
            real_node: None,
            artifacts,
            programs: Arc::default(),
            cut_proxy: None,
            kubernetes: binaries.kubernetes,
            values,
            config,
            guard,
            lock,
        };
        lab.write_state(false)?;
        if let Err(error) = lab.populate().await {
            lab.stop().await?;
            return Err(error);
        }
        lab.write_state(true)?;
        Ok(lab)
    }

    async fn populate(&mut self) -> Result<()> {
        let started = Instant::now();
        if self.config.cut_proxy {
            let options = KubeConfigOptions::default();
            let admin = Kubeconfig::read_from(self.layout.kubeconfig())?;
            let mut config = Config::from_custom_kubeconfig(admin, &options).await?;
            // Whoever calls brings a token; the proxy has no rights itself.
            config.auth_info = AuthInfo::default();
            let operator = self.operator();
            self.cut_proxy = Some(CutProxy::start(&config, move || operator.kill()).await?);
        }
        let shared = Shared {
            addresses: Arc::new(Addresses::take()?),
            artifacts: self.artifacts.clone(),
            programs: self.programs.clone(),
            operator_server: self.cut_proxy.as_ref().map(CutProxy::url),
        };
        let whole_from = self.config.virtual_nodes.saturating_sub(self.config.whole_gpu_nodes);
        for index in 0..self.config.virtual_nodes {
            let node = VirtualNode::new(&self.layout, &self.control_plane, &shared, index).await?;
            let folder = node.folder().join("gpu");
            let library = &shared.artifacts.emulator;
            let mig = index < whole_from;
            emulator::install(library, &folder, node.name(), self.config.gpus_per_node, mig)?;
            node.start().await?;
            self.nodes.push(node);
        }
        info!("{} virtual nodes registered ({})", self.nodes.len(), since(started));
        if self.config.real_node {
            let started = Instant::now();
            let binaries = real_node::Binaries::get().await?;
            let config = NodeConfig { name: REAL_NODE.to_owned(), gpus: REAL_NODE_GPUS, mig: true };
            let node = RealNode::start(&self.layout, &binaries, &self.artifacts, &self.control_plane, config)
                .await?;
            self.real_node = Some(node);
            info!("real node registered ({})", since(started));
        }
        if self.config.install {
            self.install().await?;
        }
        Ok(())
    }

    /// Installs the chart, or upgrades it.
    pub async fn install(&self) -> Result<()> {
        let started = Instant::now();
        self.helm.install(&self.layout, &self.values).await?;
        info!("vingt installed by helm ({})", since(started));
        Ok(())
    }

    fn write_state(&self, ready: bool) -> Result<()> {
        let state = LabState {
            server: self.control_plane.server().to_owned(),
            kubernetes: self.kubernetes.clone(),
            virtual_nodes: self.nodes.len(),
            real_node: self.real_node.is_some(),
            ready,
        };
        std::fs::write(self.layout.state(), serde_json::to_vec_pretty(&state)?)?;
        Ok(())
    }

    /// Ends everything and removes the lab's folder.
    pub async fn stop(mut self) -> Result<()> {
        for node in &self.nodes {
            node.power_off().await;
        }
        let real = match &mut self.real_node {
            Some(node) => node.stop().await,
            None => Ok(()),
        };
        self.control_plane.stop().await;
        let result = clean(&self.layout).await;
        drop(self.guard);
        drop(self.lock);
        result.and(real)
    }

    /// Fails if a part of the control plane or of the real node has ended.
    pub fn check(&mut self) -> Result<()> {
        self.control_plane.check()?;
        self.real_node.as_mut().map_or(Ok(()), RealNode::check)
    }

    /// A client with all rights.
    pub fn admin(&self) -> Client {
        self.control_plane.admin()
    }

    /// A client for a user of a group, by certificate. It has the rights that
    /// role bindings give it, and no others.
    pub async fn client_of(&self, user: &str, group: Option<&str>) -> Result<Client> {
        let authority = self.control_plane.authority();
        client(authority.kubeconfig(self.control_plane.server(), user, group)?).await
    }

    /// The virtual nodes; each can be switched off and on.
    pub fn nodes(&self) -> &[VirtualNode] {
        &self.nodes
    }

    /// The operator, all replicas.
    pub fn operator(&self) -> Program {
        Programs::program(&self.programs, OwnImage::Operator, None)
    }

    /// The proxy in front of the operator, if the lab was made with one.
    pub fn cut_proxy(&self) -> Option<&CutProxy> {
        self.cut_proxy.as_ref()
    }

    /// Helm, pointed at this lab.
    pub fn helm(&self) -> &Helm {
        &self.helm
    }

    /// Runs the kubectl of the lab's version as administrator; its output if it
    /// succeeds.
    pub async fn kubectl(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(self.kubernetes.join("kubectl"));
        command.args(args).env("KUBECONFIG", self.kubeconfig());
        output(command).await
    }

    /// Runs `kubectl vingt` as the administrator.
    pub async fn plugin(&self, args: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.artifacts.plugin);
        command.args(args).env("KUBECONFIG", self.kubeconfig());
        output(command).await
    }

    /// What NVML shows on a virtual node, as `vingt-agent devices` prints it.
    pub async fn nvml_view(&self, node: &VirtualNode) -> Result<serde_json::Value> {
        let folder = node.folder().join("gpu");
        let mut command = Command::new(&self.artifacts.agent);
        command
            .args(["devices", "--output", "json", "--nvml-library"])
            .arg(folder.join(emulator::LIBRARY))
            .env("VINGT_EMULATOR_ROOT", &folder);
        Ok(serde_json::from_str(&output(command).await?)?)
    }

    /// The real node's name, if there is one.
    pub fn real_node(&self) -> Option<&str> {
        self.real_node.as_ref().map(RealNode::name)
    }

    /// The real node, to restart its kubelet.
    pub fn real_node_mut(&mut self) -> Option<&mut RealNode> {
        self.real_node.as_mut()
    }

    /// Folder of the Kubernetes programs, kubectl among them.
    pub fn kubernetes(&self) -> &Path {
        &self.kubernetes
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.layout.kubeconfig()
    }

    /// The lab's folder; logs are in `logs/` below it.
    pub fn folder(&self) -> &Path {
        self.layout.root()
    }
}

/// Name of the real node.
const REAL_NODE: &str = "real-0";
/// Its GPUs.
const REAL_NODE_GPUS: u32 = 2;

async fn output(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let output = output.with_context(|| format!("cannot run {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?} failed ({}): {}", output.status, said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Seconds since, for messages.
fn since(start: Instant) -> String {
    format!("{:.1} s", start.elapsed().as_secs_f64())
}

/// How long `stop` may take from outside, see `cargo lab down`.
pub const STOP_DEADLINE: Duration = Duration::from_secs(90);
