//! The node with vingt: a container holds exactly the partition that was
//! decided for it, as long as its pod lives, and no longer.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};
use vingt_e2e::build::go::{Component, ensure_built};
use vingt_e2e::{Lab, LabConfig, images, wait_for};

use crate::kubectl::Kubectl;
use crate::skipped;

const SOON: Duration = Duration::from_secs(90);
/// Partitions by UUID and profile.
type Held = BTreeSet<(String, String)>;
/// Whose pods these are.
const TENANT: &str = "team";

#[tokio::test(flavor = "multi_thread")]
async fn containers_hold_their_partitions_and_no_others() -> Result<()> {
    if skipped("containers_hold_their_partitions_and_no_others") {
        return Ok(());
    }
    let config = LabConfig {
        virtual_nodes: 1,
        real_node: true,
        ..LabConfig::small("t-mig", env!("CARGO_BIN_EXE_lab"))
    };
    let mut lab = Lab::start(config).await?;
    let result = holds(&mut lab).await;
    lab.stop().await?;
    result
}

async fn holds(lab: &mut Lab) -> Result<()> {
    let program = ensure_built(Component::ControlPlane).await?.join("kubectl");
    let kubectl = Kubectl::new(program, lab.kubeconfig());
    let node = lab.real_node().context("the lab has no real node")?.to_owned();
    let ready = || async { ready_agent(&kubectl, &node).await.map(Some) };
    let agent = wait_for(SOON, "the agent on the real node", ready).await?;
    ensure!(on_node(&kubectl, lab, &agent).await?.is_empty(), "there are partitions already");

    kubectl.apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": TENANT}})).await?;
    kubectl
        .apply(&json!({
            "apiVersion": "vingt.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": TENANT},
            "spec": {"namespaces": {"names": [TENANT]}, "guaranteedGPUs": 2},
        }))
        .await?;
    for template in ["mig-1g.10gb", "mig-3g.40gb"] {
        let args = ["get", "resourceclaimtemplate", template, "--namespace", TENANT];
        let made = || async { kubectl.run(&args).await.map(Some) };
        wait_for(SOON, &format!("the claim template {template}"), made).await?;
    }

    // What a container holds.
    let pods = [("small", "mig-1g.10gb", 1), ("other", "mig-1g.10gb", 1), ("big", "mig-3g.40gb", 1)];
    for (name, template, _) in pods {
        kubectl.apply(&claiming(name, template, &node)).await?;
    }
    kubectl.apply(&without_claim(&node)).await?;
    let mut held = BTreeSet::new();
    for (name, template, count) in pods {
        running(&kubectl, name).await?;
        let seen = in_pod(&kubectl, name).await?;
        ensure!(seen.len() == count, "{name} sees {seen:?}");
        for (uuid, profile) in seen {
            ensure!(template == format!("mig-{profile}"), "{name} was given a {profile} for {template}");
            ensure!(held.insert((uuid, profile)), "{name} shares a partition with another pod");
        }
        let nodes =
            kubectl.run(&["exec", "--namespace", TENANT, name, "--", "ls", "/dev/nvidia-caps"]).await?;
        ensure!(nodes.lines().count() == 2, "{name} has the capabilities {nodes}");
    }
    let bare = kubectl.run(&["exec", "--namespace", TENANT, "bare", "--", "ls", "/dev"]).await?;
    ensure!(!bare.contains("nvidia"), "a pod without a claim has the devices {bare}");
    ensure!(on_node(&kubectl, lab, &agent).await? == held, "the node has other partitions than its pods");

    // Pods run on without the kubelet and without the agent.
    lab.real_node_mut().context("the lab has no real node")?.restart_kubelet().await?;
    let published = || async { slices(&kubectl, &node).await };
    wait_for(SOON, "the node's slices after a restart of the kubelet", published).await?;
    kubectl
        .run(&["delete", "pod", &agent, "--namespace", "vingt-system", "--grace-period=0", "--force"])
        .await?;
    let replaced = || async { Ok(Some(ready_agent(&kubectl, &node).await?).filter(|now| *now != agent)) };
    let agent = wait_for(SOON, "another agent", replaced).await?;
    let same = || async { Ok((on_node(&kubectl, lab, &agent).await? == held).then_some(())) };
    wait_for(SOON, "the new agent to see the same partitions", same).await?;
    for (name, ..) in pods {
        running(&kubectl, name).await?;
        let seen = in_pod(&kubectl, name).await?;
        ensure!(seen.is_subset(&held), "{name} sees {seen:?} now");
        let pod = kubectl.json(&["get", "pod", name, "--namespace", TENANT, "--output=json"]).await?;
        ensure!(pod["status"]["containerStatuses"][0]["restartCount"] == 0, "{name} was restarted");
    }

    // And back to nothing.
    kubectl.run(&["delete", "pod", "--all", "--namespace", TENANT, "--wait=true"]).await?;
    let gone = || async { Ok(on_node(&kubectl, lab, &agent).await?.is_empty().then_some(())) };
    wait_for(SOON, "the partitions of deleted pods to be gone", gone).await
}

/// A pod that claims one device by a ready-made template.
fn claiming(name: &str, template: &str, node: &str) -> Value {
    let mut pod = pod(name, node);
    pod["spec"]["containers"][0]["resources"] = json!({"claims": [{"name": "gpu"}]});
    pod["spec"]["resourceClaims"] = json!([{"name": "gpu", "resourceClaimTemplateName": template}]);
    pod
}

fn without_claim(node: &str) -> Value {
    pod("bare", node)
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": TENANT},
        "spec": {
            "nodeSelector": {"kubernetes.io/hostname": node},
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "main",
                "image": images::reference("workload"),
                "imagePullPolicy": "Never",
                "args": ["-c", "exec sleep 86400"],
            }],
        },
    })
}

async fn running(kubectl: &Kubectl, name: &str) -> Result<()> {
    let check = || async {
        let pod = kubectl.json(&["get", "pod", name, "--namespace", TENANT, "--output=json"]).await?;
        let status = &pod["status"];
        let ready = status["containerStatuses"][0]["ready"] == true;
        ensure!(status["phase"] == "Running" && ready, "its status is {status}");
        Ok(Some(()))
    };
    wait_for(SOON, &format!("the pod {name} to run"), check).await
}

/// The ready agent's pod on a node.
async fn ready_agent(kubectl: &Kubectl, node: &str) -> Result<String> {
    let on_node = format!("--field-selector=spec.nodeName={node}");
    let args = ["get", "pods", "--namespace", "vingt-system", &on_node, "--output=json"];
    let pods = kubectl.json(&args).await?;
    let ready = |pod: &&Value| pod["status"]["containerStatuses"][0]["ready"] == true;
    let found = pods["items"].as_array().into_iter().flatten().find(ready);
    let name = found.and_then(|pod| pod["metadata"]["name"].as_str());
    name.map(str::to_owned)
        .with_context(|| format!("no agent is ready on {node}: {}", pods["items"][0]["status"]))
}

async fn in_pod(kubectl: &Kubectl, pod: &str) -> Result<Held> {
    seen(kubectl, TENANT, pod, "libnvidia-ml.so.1").await
}

async fn on_node(kubectl: &Kubectl, lab: &Lab, agent: &str) -> Result<Held> {
    let library = lab.folder().join("real/gpu/libnvidia-ml.so.1");
    seen(kubectl, "vingt-system", agent, &library.display().to_string()).await
}

/// UUIDs and profiles of the partitions that a container sees.
///
/// In the agent's container the library is where the driver is, not where
/// programs look for it.
async fn seen(kubectl: &Kubectl, namespace: &str, pod: &str, library: &str) -> Result<Held> {
    #[derive(Deserialize)]
    struct Gpu {
        partitions: Vec<Partition>,
    }
    #[derive(Deserialize)]
    struct Partition {
        uuid: String,
        profile: String,
    }
    let library = format!("--nvml-library={library}");
    let args = [
        "exec",
        "--namespace",
        namespace,
        pod,
        "--",
        "/usr/bin/vingt-agent",
        "devices",
        "--output=json",
        &library,
    ];
    let gpus: Vec<Gpu> = serde_json::from_value(kubectl.json(&args).await?)?;
    let partitions = gpus.into_iter().flat_map(|gpu| gpu.partitions);
    Ok(partitions.map(|partition| (partition.uuid, partition.profile)).collect())
}

/// Whether all slices of a node's newest pool are there.
async fn slices(kubectl: &Kubectl, node: &str) -> Result<Option<()>> {
    let all = kubectl.json(&["get", "resourceslices", "--output=json"]).await?;
    let all = all["items"].as_array().cloned().unwrap_or_default();
    let pools: Vec<&Value> = all
        .iter()
        .filter(|slice| slice["spec"]["nodeName"] == *node)
        .map(|slice| &slice["spec"]["pool"])
        .collect();
    let newest = pools.iter().map(|pool| pool["generation"].as_u64()).max().flatten();
    let newest: Vec<&&Value> = pools.iter().filter(|pool| pool["generation"].as_u64() == newest).collect();
    let wanted = newest.first().and_then(|pool| pool["resourceSliceCount"].as_u64());
    Ok((wanted.is_some() && wanted == u64::try_from(newest.len()).ok()).then_some(()))
}
