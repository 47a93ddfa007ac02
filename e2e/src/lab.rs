//! One lab: a control plane, nodes, and vingt installed by its chart.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::{Deserialize, Serialize};
use tracing::info;

use crate::build::go::{Component, ensure_built};
use crate::build::rust;
use crate::cleanup::{Guard, clean};
use crate::control_plane::{Binaries, ControlPlane, client};
use crate::cut_proxy::CutProxy;
use crate::emulator;
use crate::helm::{Helm, Values};
use crate::layout::{LabLock, Layout};
use crate::process::Identity;
use crate::virtual_node::program::OwnImage;
use crate::virtual_node::{Addresses, Program, Programs, Shared, VirtualNode};

/// What a lab is to have.
#[derive(Debug, Clone)]
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
            values: serde_json::Value::Null,
        }
    }
}

/// What a running lab says of itself on disk, for `cargo lab status` and
/// `down`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LabState {
    /// The process that runs the lab.
    pub owner: Identity,
    /// The API server.
    pub server: String,
    /// Folder with kubectl.
    pub kubernetes: PathBuf,
    /// Number of virtual nodes.
    pub virtual_nodes: usize,
    /// Whether everything was ready.
    pub ready: bool,
}

/// A running lab. End it with [`Lab::stop`]; if it is only dropped, its guard
/// cleans up when this process ends.
pub struct Lab {
    layout: Layout,
    control_plane: ControlPlane,
    nodes: Vec<VirtualNode>,
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
        let layout = Layout::new(&config.name)?;
        let lock = layout.lock()?;
        let [etcd, kubernetes, helm] = Component::VIRTUAL;
        let binaries =
            Binaries { etcd: ensure_built(etcd).await?, kubernetes: ensure_built(kubernetes).await? };
        let helm = ensure_built(helm).await?;
        let artifacts = rust::build().await?;

        clean(&layout).await.context("what an earlier lab left cannot be removed")?;
        layout.create()?;
        let guard = Guard::start(&config.lab_program, &layout)?;
        let started = Instant::now();
        let control_plane = ControlPlane::start(&layout, &binaries).await?;
        info!("control plane ready at {} ({})", control_plane.server(), since(started));

        let port = control_plane.server().rsplit(':').next().and_then(|port| port.parse().ok());
        let values = Values {
            allow_mig_mode_switch: config.allow_mig_mode_switch,
            operator_replicas: config.operator_replicas,
            api_server_port: port.context("the API server has no port")?,
            extra: config.values.clone(),
        };
        let mut lab = Self {
            helm: Helm::new(&helm, &layout),
            layout,
            control_plane,
            nodes: Vec::new(),
            programs: Arc::default(),
            cut_proxy: None,
            kubernetes: binaries.kubernetes,
            values,
            config,
            guard,
            lock,
        };
        lab.write_state(false)?;
        if let Err(error) = lab.populate(artifacts).await {
            lab.stop().await?;
            return Err(error);
        }
        lab.write_state(true)?;
        Ok(lab)
    }

    async fn populate(&mut self, artifacts: rust::Artifacts) -> Result<()> {
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
            artifacts,
            programs: self.programs.clone(),
            operator_server: self.cut_proxy.as_ref().map(CutProxy::url),
        };
        let whole_from = self.config.virtual_nodes.saturating_sub(self.config.whole_gpu_nodes);
        for index in 0..self.config.virtual_nodes {
            let mut node = VirtualNode::new(&self.layout, &self.control_plane, &shared, index).await?;
            let folder = node.folder().join("gpu");
            let library = &shared.artifacts.emulator;
            let mig = index < whole_from;
            emulator::install(library, &folder, node.name(), self.config.gpus_per_node, mig)?;
            node.start().await?;
            self.nodes.push(node);
        }
        info!("{} virtual nodes registered ({})", self.nodes.len(), since(started));
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
        let own = i32::try_from(std::process::id())?;
        let state = LabState {
            owner: Identity::of(own)?,
            server: self.control_plane.server().to_owned(),
            kubernetes: self.kubernetes.clone(),
            virtual_nodes: self.nodes.len(),
            ready,
        };
        std::fs::write(self.layout.state(), serde_json::to_vec_pretty(&state)?)?;
        Ok(())
    }

    /// Ends everything and removes the lab's folder.
    pub async fn stop(mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.power_off().await;
        }
        self.control_plane.stop().await;
        let result = clean(&self.layout).await;
        drop(self.guard);
        drop(self.lock);
        result
    }

    /// Fails if a part of the control plane has ended.
    pub fn check(&mut self) -> Result<()> {
        self.control_plane.check()
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

    /// The virtual nodes.
    pub fn nodes(&self) -> &[VirtualNode] {
        &self.nodes
    }

    /// A virtual node, to switch it off and on.
    pub fn node_mut(&mut self, index: usize) -> Option<&mut VirtualNode> {
        self.nodes.get_mut(index)
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

    /// The kubectl of the lab's version.
    pub fn kubectl(&self) -> PathBuf {
        self.kubernetes.join("kubectl")
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

/// Seconds since, for messages.
fn since(start: Instant) -> String {
    format!("{:.1} s", start.elapsed().as_secs_f64())
}

/// How long `stop` may take from outside, see `cargo lab down`.
pub const STOP_DEADLINE: Duration = Duration::from_secs(90);
