//! The real node: kubelet, containerd and runc, with emulated GPUs. Needs root
//! on Linux; says loudly that it is skipped without, and CI refuses that.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use tokio::process::Command;
use vingt_e2e::build::go::{Component, ensure_built};
use vingt_e2e::build::rust;
use vingt_e2e::control_plane::{self, ControlPlane};
use vingt_e2e::layout::Layout;
use vingt_e2e::process::end_recorded;
use vingt_e2e::real_node::{self, Binaries, NodeConfig, RealNode, host};
use vingt_e2e::{images, wait_for};

const SOON: Duration = Duration::from_secs(60);

/// Whether the tests of this file cannot run here.
fn skipped(test: &str) -> bool {
    let Some(obstacle) = host::obstacle() else { return false };
    eprintln!("\n*** SKIPPED: {test}: {obstacle} ***\n");
    assert!(std::env::var_os("CI").is_none(), "{test} must not be skipped in CI: {obstacle}");
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_run_and_nothing_is_left() -> Result<()> {
    if skipped("pods_run_and_nothing_is_left") {
        return Ok(());
    }
    let layout = Layout::new("t-real")?;
    let _lock = layout.lock()?;
    let binaries = Binaries::get().await?;
    let kubernetes = ensure_built(Component::ControlPlane).await?;
    let control = control_plane::Binaries {
        etcd: ensure_built(Component::Etcd).await?,
        kubernetes: kubernetes.clone(),
    };
    let artifacts = rust::build().await?;
    vingt_e2e::cleanup::clean(&layout).await?;
    real_node::clean(&layout).await?;
    layout.create()?;

    let mut control_plane = ControlPlane::start(&layout, &control).await?;
    let before = Traces::of(&layout)?;
    let config = NodeConfig { name: "real-0".into(), gpus: 2, mig: true };
    let mut node = RealNode::start(&layout, &binaries, &artifacts, &control_plane, config).await?;

    let pods: Api<Pod> = Api::namespaced(control_plane.admin(), "default");
    pods.create(&PostParams::default(), &sleeper("plain")?).await?;
    running(&pods, "plain").await?;
    let kubectl = Kubectl { program: kubernetes.join("kubectl"), kubeconfig: layout.kubeconfig() };
    assert_eq!(kubectl.run(&["exec", "plain", "--", "cat", "/proc/1/cmdline"]).await?, "sleep\0infinity\0");
    let logs = || async {
        let text = kubectl.run(&["logs", "plain"]).await?;
        Ok(text.contains("the API server answers").then_some(()))
    };
    wait_for(SOON, "the pod to reach the API server", logs).await?;

    node.restart_kubelet().await?;
    wait_for(SOON, "the restarted kubelet to serve exec", || async {
        kubectl.run(&["exec", "plain", "--", "true"]).await.map(Some)
    })
    .await?;
    let restarts = pods.get("plain").await?.status.and_then(|status| status.container_statuses);
    assert_eq!(restarts.unwrap_or_default()[0].restart_count, 0, "the pod did not run on");

    pods.delete("plain", &DeleteParams::default()).await?;
    wait_for(SOON, "the pod to be gone", || async {
        Ok(pods.get_opt("plain").await?.is_none().then_some(()))
    })
    .await?;
    pods.create(&PostParams::default(), &sleeper("left")?).await?;
    running(&pods, "left").await?;
    assert_ne!(Traces::of(&layout)?, before, "a running node leaves traces, or this test sees none");
    node.stop().await?;
    assert_eq!(Traces::of(&layout)?, before);

    // And once more, for a crash: what is dropped here ends without notice.
    let config = NodeConfig { name: "real-0".into(), gpus: 2, mig: true };
    let node = RealNode::start(&layout, &binaries, &artifacts, &control_plane, config).await?;
    running(&pods, "left").await?;
    std::mem::forget(node);
    control_plane.stop().await;
    end_recorded(&layout.records(), Duration::from_secs(10)).await;
    real_node::clean(&layout).await?;
    assert_eq!(Traces::of(&layout)?, before);
    vingt_e2e::cleanup::clean(&layout).await
}

/// A pod that runs until it is deleted.
fn sleeper(name: &str) -> Result<Pod> {
    let script = "nc -w 5 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null \
                  && echo the API server answers; exec sleep infinity";
    let pod = json!({
        "metadata": {"name": name},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": images::reference("workload"),
                "imagePullPolicy": "Never",
                "args": ["-c", script],
            }],
        },
    });
    Ok(serde_json::from_value(pod)?)
}

async fn running(pods: &Api<Pod>, name: &str) -> Result<()> {
    wait_for(SOON, &format!("the pod {name} to run"), || async {
        let status = pods.get(name).await?.status.unwrap_or_default();
        let ready = |c: &k8s_openapi::api::core::v1::ContainerStatus| c.ready;
        let all = status.container_statuses.iter().flatten().all(ready);
        Ok((status.phase.as_deref() == Some("Running") && all).then_some(()))
    })
    .await
}

struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    async fn run(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run kubectl")?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`kubectl {}` failed: {}", args.join(" "), errors.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Everything of this machine that a node could leave changed.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    mounts: Vec<String>,
    interfaces: Vec<String>,
    routes: Vec<String>,
    groups: Vec<String>,
    processes: Vec<String>,
    settings: Vec<String>,
}

impl Traces {
    fn of(layout: &Layout) -> Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let mut groups = Vec::new();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.chain(std::fs::read_dir("/sys/fs")?) {
            let group = hierarchy?.path().join(format!("vingt-{}", layout.name()));
            if group.exists() {
                groups.push(group.display().to_string());
            }
        }
        let mut processes = Vec::new();
        for process in std::fs::read_dir("/proc")? {
            let command = read(&process?.path().join("cmdline").to_string_lossy());
            if command.contains(&layout.real_node().display().to_string()) {
                processes.push(command);
            }
        }
        let settings = [
            "vm/overcommit_memory",
            "vm/panic_on_oom",
            "kernel/panic",
            "kernel/panic_on_oops",
            "kernel/keys/root_maxkeys",
            "kernel/keys/root_maxbytes",
            "net/ipv4/ip_forward",
        ];
        let settings = settings.map(|name| format!("{name}={}", read(&format!("/proc/sys/{name}")).trim()));
        let mut interfaces: Vec<String> = std::fs::read_dir("/sys/class/net")?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            // Other labs may come and go.
            .filter(|name| *name == format!("vt-{}", layout.name()) || !name.starts_with("vt-"))
            .collect();
        interfaces.sort();
        let routes = lines(read("/proc/net/route"));
        let routes =
            routes.into_iter().filter(|line| interfaces.iter().any(|name| line.starts_with(name.as_str())));
        Ok(Self {
            mounts: lines(read("/proc/self/mounts")),
            routes: routes.collect(),
            interfaces,
            groups,
            processes,
            settings: settings.to_vec(),
        })
    }
}
