//! A real node of the lab: kubelet, containerd, runc and CNI as child
//! processes, as root on Linux. Pods run here as they do in production; only
//! the GPUs are emulated, by an NVML library of ours.
//!
//! The node has mount, network and process namespaces of its own
//! ([`namespaces`]). Whatever its containers mount, connect or start is gone
//! with the last of its processes, however that ended; the machine's own
//! mounts, addresses, firewall and kernel settings are never touched. Two
//! things are outside: a `veth` interface `vt-<lab>` with a route to the pods,
//! which the kernel removes with the namespace, and the control groups
//! `vingt-<lab>`, which [`clean`] removes.
//!
//! Everything on disk is below [`Layout::real_node`], which is what the
//! chart's host paths point to:
//!
//! ```text
//! kubelet/        the kubelet's folder: plugins/, plugins_registry/, pods/
//! cdi/            CDI specs, written by the agent, read by containerd
//! state/          the agent's journal
//! gpu/            node.yaml, the GPUs' state and their proc/ tree; also what a
//!                 driver's installation is on other nodes, with
//!                 usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1
//! containerd/     images and containers
//! cni/            network configuration and addresses in use
//! images/         the lab's images
//! ```

mod cgroups;
mod config;
pub mod gpus;
pub mod host;
mod namespaces;
mod network;
mod proxy;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Node, Service};
use kube::{Api, Client};

use crate::build::go::{Component, ensure_built};
use crate::build::rust::Artifacts;
use crate::control_plane::{ControlPlane, watch_over};
use crate::images;
use crate::layout::Layout;
use crate::pki::write_kubeconfig;
use crate::process::{Process, Spec};
use crate::wait::wait_for;
use namespaces::Namespaces;
use network::Network;
use proxy::Proxy;

/// How long the node may take to become ready on a busy machine.
const READY: Duration = Duration::from_secs(120);
/// How long a part may take to end.
const STOP: Duration = Duration::from_secs(10);

/// The programs a node consists of.
#[derive(Debug, Clone)]
pub struct Binaries {
    // Folders.
    kubelet: PathBuf,
    containerd: PathBuf,
    cni: PathBuf,
    // A file.
    busybox: PathBuf,
}

impl Binaries {
    /// Gets them: by apt-get what Debian has, the rest built from source
    /// unless it was before.
    ///
    /// Ask [`host::obstacle`] first.
    pub async fn get() -> Result<Self> {
        host::install_tools().await?;
        Ok(Self {
            kubelet: ensure_built(Component::Kubelet).await?,
            containerd: ensure_built(Component::Containerd).await?,
            cni: ensure_built(Component::Cni).await?,
            busybox: host::busybox()?,
        })
    }
}

/// What a node is to be.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its name in Kubernetes.
    pub name: String,
    /// Number of its GPUs.
    pub gpus: u32,
    /// Whether they are in MIG mode when it starts.
    pub mig: bool,
}

/// A running node.
#[derive(Debug)]
pub struct RealNode {
    name: String,
    layout: Layout,
    binaries: Binaries,
    network: Network,
    kubelet: Process,
    containerd: Process,
    api: Proxy,
    namespaces: Namespaces,
}

impl RealNode {
    /// Starts a node, gives it GPUs and the lab's images, and waits until
    /// Kubernetes calls it ready.
    pub async fn start(
        layout: &Layout,
        binaries: &Binaries,
        artifacts: &Artifacts,
        control_plane: &ControlPlane,
        config: NodeConfig,
    ) -> Result<Self> {
        let NodeConfig { name, gpus, mig } = config;
        clean(layout).await?;
        let root = layout.real_node();
        for folder in ["kubelet", "cdi", "state", "containerd", "cni/net.d", "pod-logs"] {
            fs::create_dir_all(root.join(folder))?;
        }
        gpus::install(layout, &artifacts.emulator, &name, gpus, mig)?;
        let images = images::build(artifacts, &binaries.busybox, &root.join("images"))?;
        let groups = cgroups::create(layout.name(), &controllers_file(&root))?;
        let network = Network::choose(layout.name())?;
        let namespaces = Namespaces::start(layout).await?;
        network.connect(&namespaces, layout.name())?;
        let service = api_service(&control_plane.admin()).await?;
        network::add_address(&namespaces, service)?;
        let server: SocketAddr = control_plane.server().trim_start_matches("https://").parse()?;
        let api = Proxy::start(&namespaces, &[(service, 443).into(), server], server)?;

        write_files(layout, binaries, control_plane, &name, service, network, &groups)?;
        let mut containerd = start_containerd(layout, binaries, &namespaces)?;
        let ctr = Ctr { namespaces: &namespaces, program: binaries.containerd.join("ctr") };
        let answers =
            wait_for(READY, "containerd to answer", || async { ctr.run(&["version"]).await.map(Some) });
        watch_over(&mut [&mut containerd], answers).await?;
        for image in &images {
            ctr.import(image).await?;
        }
        let kubelet = start_kubelet(layout, binaries, &namespaces, &name, network)?;
        let mut node = Self {
            name,
            layout: layout.clone(),
            binaries: binaries.clone(),
            network,
            kubelet,
            containerd,
            api,
            namespaces,
        };
        node.wait_until_ready(&control_plane.admin()).await?;
        Ok(node)
    }

    /// The node's name in Kubernetes.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes an image available to pods.
    pub async fn import(&self, image: &Path) -> Result<()> {
        let program = self.binaries.containerd.join("ctr");
        Ctr { namespaces: &self.namespaces, program }.import(image).await
    }

    /// Fails if a part has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        self.namespaces.check()?;
        self.containerd.check()?;
        self.kubelet.check()
    }

    /// Kills the kubelet as a crash would, and starts it again. Pods run on.
    pub async fn restart_kubelet(&mut self) -> Result<()> {
        let running = namespaces::child_of(&self.kubelet)?;
        running.kill();
        self.kubelet.stop(STOP).await;
        let gone = || async { Ok((!running.is_alive()).then_some(())) };
        wait_for(STOP, "the kubelet to end", gone).await?;
        self.kubelet =
            start_kubelet(&self.layout, &self.binaries, &self.namespaces, &self.name, self.network)?;
        Ok(())
    }

    /// Ends the node with all its pods, as if it lost power.
    pub async fn stop(&mut self) -> Result<()> {
        self.kubelet.stop(STOP).await;
        self.containerd.stop(STOP).await;
        self.api.stop().await;
        self.namespaces.stop(STOP).await;
        clean(&self.layout).await
    }

    async fn wait_until_ready(&mut self, client: &Client) -> Result<()> {
        let nodes: Api<Node> = Api::all(client.clone());
        let (nodes, name) = (&nodes, &self.name);
        let what = format!("the node {name} to be ready");
        let ready = wait_for(READY, &what, || async move {
            let status = nodes.get_opt(name).await?.and_then(|node| node.status);
            let mut conditions = status.and_then(|status| status.conditions).into_iter().flatten();
            Ok(conditions
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
                .then_some(()))
        });
        watch_over(&mut [&mut self.kubelet, &mut self.containerd], ready).await
    }
}

/// Removes what a node of this lab left outside its folder. Its processes must
/// have ended (see [`crate::process::end_recorded`]); may be called at any
/// time after, and again.
pub async fn clean(layout: &Layout) -> Result<()> {
    if host::obstacle().is_some() {
        return Ok(());
    }
    network::remove(layout.name())?;
    cgroups::remove(layout.name(), &controllers_file(&layout.real_node()), STOP).await
}

/// The address under which pods reach the API server.
async fn api_service(client: &Client) -> Result<Ipv4Addr> {
    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let address = wait_for(READY, "the service \"kubernetes\" to exist", || async {
        let service = services.get_opt("kubernetes").await?;
        Ok(service.and_then(|service| service.spec).and_then(|spec| spec.cluster_ip))
    })
    .await?;
    address.parse().with_context(|| format!("the service \"kubernetes\" has the address {address}"))
}

fn write_files(
    layout: &Layout,
    binaries: &Binaries,
    control_plane: &ControlPlane,
    name: &str,
    service: Ipv4Addr,
    network: Network,
    groups: &str,
) -> Result<()> {
    let root = layout.real_node();
    let authority = control_plane.authority();
    let user = format!("system:node:{name}");
    let server = format!("https://{service}:443");
    let kubeconfig = authority.kubeconfig(&server, &user, Some("system:nodes"))?;
    write_kubeconfig(&kubeconfig_file(&root), &kubeconfig)?;
    let address = network.node().to_string();
    let (certificate, key) = authority.server(&format!("kubelet-{name}"), &[&address, name])?;
    let kubelet = config::Kubelet {
        root: &root,
        groups,
        address: &address,
        client_ca: &authority.ca_file(),
        certificate: &certificate,
        key: &key,
    };
    fs::write(kubelet_file(&root), serde_json::to_vec_pretty(&kubelet.render())?)?;
    fs::write(containerd_file(&root), config::containerd(&root, &binaries.cni)?)?;
    let cni = config::cni(&root, &network.pods());
    fs::write(root.join("cni/net.d/10-vingt.conflist"), serde_json::to_vec_pretty(&cni)?)?;
    // No name server: nothing here may ask the machine's.
    fs::write(root.join("resolv.conf"), "")?;
    Ok(())
}

fn controllers_file(root: &Path) -> PathBuf {
    root.join("controllers")
}

fn kubeconfig_file(root: &Path) -> PathBuf {
    root.join("kubelet.kubeconfig")
}

fn kubelet_file(root: &Path) -> PathBuf {
    root.join("kubelet.json")
}

fn containerd_file(root: &Path) -> PathBuf {
    root.join("containerd.toml")
}

fn start_containerd(layout: &Layout, binaries: &Binaries, namespaces: &Namespaces) -> Result<Process> {
    let config = containerd_file(&layout.real_node());
    let args = vec![format!("--config={}", config.display())];
    start(layout, namespaces, "containerd", &binaries.containerd, args)
}

fn start_kubelet(
    layout: &Layout,
    binaries: &Binaries,
    namespaces: &Namespaces,
    name: &str,
    network: Network,
) -> Result<Process> {
    let root = layout.real_node();
    let args = vec![
        format!("--config={}", kubelet_file(&root).display()),
        format!("--kubeconfig={}", kubeconfig_file(&root).display()),
        format!("--root-dir={}", root.join("kubelet").display()),
        format!("--hostname-override={name}"),
        format!("--node-ip={}", network.node()),
        "--v=1".to_owned(),
    ];
    start(layout, namespaces, "kubelet", &binaries.kubelet, args)
}

fn start(
    layout: &Layout,
    namespaces: &Namespaces,
    name: &str,
    folder: &Path,
    args: Vec<String>,
) -> Result<Process> {
    // containerd starts its shim by name.
    let path = std::env::var("PATH").unwrap_or_default();
    Process::start(Spec {
        name,
        program: Path::new("nsenter"),
        args: namespaces.enter(&folder.join(name), args),
        env: vec![("PATH".to_owned(), format!("{}:{path}", folder.display()))],
        log: layout.logs().join(format!("{name}.log")),
        records: &layout.records(),
    })
}

/// containerd's own client.
struct Ctr<'a> {
    namespaces: &'a Namespaces,
    program: PathBuf,
}

impl Ctr<'_> {
    async fn import(&self, image: &Path) -> Result<()> {
        let path = image.to_string_lossy();
        self.run(&["images", "import", &path]).await.with_context(|| format!("cannot import {path}"))
    }

    async fn run(&self, args: &[&str]) -> Result<()> {
        let args = ["--namespace=k8s.io"].iter().chain(args).map(ToString::to_string).collect();
        let mut command = tokio::process::Command::new("nsenter");
        command.args(self.namespaces.enter(&self.program, args)).kill_on_drop(true);
        let output = command.output().await.context("cannot run nsenter")?;
        ensure!(output.status.success(), "ctr: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }
}
