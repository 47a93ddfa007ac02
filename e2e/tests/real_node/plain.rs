//! The node without vingt: pods run on it, and nothing of it is left.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use serde_json::json;
use vingt_e2e::build::go::{Component, ensure_built};
use vingt_e2e::build::rust::{self, Artifacts};
use vingt_e2e::cleanup;
use vingt_e2e::control_plane::{self, ControlPlane};
use vingt_e2e::layout::Layout;
use vingt_e2e::process::end_recorded;
use vingt_e2e::real_node::{self, Binaries, NodeConfig, RealNode};
use vingt_e2e::{images, wait_for};

use crate::kubectl::Kubectl;
use crate::skipped;
use crate::traces::Traces;

const SOON: Duration = Duration::from_secs(60);

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
    cleanup::clean(&layout).await?;
    real_node::clean(&layout).await?;
    layout.create()?;
    let mut control_plane = ControlPlane::start(&layout, &control).await?;
    let result = scenario(&layout, &binaries, &artifacts, &mut control_plane, &kubernetes).await;
    control_plane.stop().await;
    cleanup::clean(&layout).await?;
    result
}

async fn scenario(
    layout: &Layout,
    binaries: &Binaries,
    artifacts: &Artifacts,
    control_plane: &mut ControlPlane,
    kubernetes: &Path,
) -> Result<()> {
    let before = Traces::of(layout)?;
    let config = NodeConfig { name: "real-0".into(), gpus: 2, mig: true };
    let mut node = RealNode::start(layout, binaries, artifacts, control_plane, config).await?;

    let pods: Api<Pod> = Api::namespaced(control_plane.admin(), "default");
    pods.create(&PostParams::default(), &sleeper("plain")?).await?;
    running(&pods, "plain").await?;
    let kubectl = Kubectl::new(kubernetes.join("kubectl"), layout.kubeconfig());
    let command = kubectl.run(&["exec", "plain", "--", "cat", "/proc/1/cmdline"]).await?;
    ensure!(command == "sleep\0infinity\0", "process 1 of the pod is {command:?}");
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
    ensure!(restarts.unwrap_or_default()[0].restart_count == 0, "the pod did not run on");

    pods.delete("plain", &DeleteParams::default()).await?;
    wait_for(SOON, "the pod to be gone", || async {
        Ok(pods.get_opt("plain").await?.is_none().then_some(()))
    })
    .await?;
    pods.create(&PostParams::default(), &sleeper("left")?).await?;
    running(&pods, "left").await?;
    ensure!(Traces::of(layout)? != before, "a running node has no traces: this test is blind");
    node.stop().await?;
    before.compare(&Traces::of(layout)?)?;

    // And once more, with a crash of the lab.
    let config = NodeConfig { name: "real-0".into(), gpus: 2, mig: true };
    let node = RealNode::start(layout, binaries, artifacts, control_plane, config).await?;
    wait_for(SOON, "the pod to run again", || async {
        kubectl.run(&["exec", "left", "--", "true"]).await.map(Some)
    })
    .await?;
    std::mem::forget(node);
    control_plane.stop().await;
    end_recorded(&layout.records(), Duration::from_secs(10)).await;
    real_node::clean(layout).await?;
    before.compare(&Traces::of(layout)?)
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
        let ready = |c: &ContainerStatus| c.ready;
        let all = status.container_statuses.iter().flatten().all(ready);
        Ok((status.phase.as_deref() == Some("Running") && all).then_some(()))
    })
    .await
}
