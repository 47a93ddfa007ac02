//! The Node object of a virtual node and its heartbeats.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tracing::warn;

use super::logs::PORT;

/// How often the lease is renewed; the kubelet's own default.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How long the controller manager believes in a silent node.
const LEASE_SECONDS: i32 = 40;

/// Makes the Node, or takes over the one that is there, and reports it ready.
pub async fn register(client: &Client, name: &str, address: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let labels = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
        ("node.kubernetes.io/instance-type", "vingt-lab-virtual"),
    ];
    let labels: BTreeMap<String, String> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let node = Node {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..ObjectMeta::default() },
        ..Node::default()
    };
    match nodes.create(&PostParams::default(), &node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {}
        other => drop(other?),
    }
    report(client, name, address).await
}

async fn report(client: &Client, name: &str, address: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let version = client.apiserver_version().await?.git_version;
    let now = Timestamp::now().to_string();
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind, "status": status, "reason": reason, "message": "",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        })
    };
    let room = json!({
        "cpu": "128", "memory": "1Ti", "pods": "250", "ephemeral-storage": "10Ti",
    });
    let status = json!({"status": {
        "capacity": room,
        "allocatable": room,
        "addresses": [
            {"type": "InternalIP", "address": address},
            {"type": "Hostname", "address": name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}},
        "nodeInfo": {
            "machineID": name, "systemUUID": name, "bootID": name,
            "kernelVersion": "virtual", "osImage": "virtual",
            "containerRuntimeVersion": "lab://1", "kubeletVersion": version,
            "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
        },
        "conditions": [
            condition("MemoryPressure", "False", "KubeletHasSufficientMemory"),
            condition("DiskPressure", "False", "KubeletHasNoDiskPressure"),
            condition("PIDPressure", "False", "KubeletHasSufficientPID"),
            condition("Ready", "True", "KubeletReady"),
        ],
    }});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(status)).await?;
    Ok(())
}

/// Sends heartbeats for ever. Stopping them is how a node is lost.
pub async fn heartbeats(client: &Client, name: &str, address: &str) {
    let mut tick = tokio::time::interval(HEARTBEAT);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if let Err(error) = heartbeat(client, name, address).await {
            warn!("{name}: heartbeat failed: {error:#}");
        }
    }
}

async fn heartbeat(client: &Client, name: &str, address: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let now = MicroTime(Timestamp::now());
    if leases.get_opt(name).await?.is_some() {
        let renewal = json!({"spec": {"renewTime": now}});
        leases.patch(name, &PatchParams::default(), &Patch::Merge(renewal)).await?;
    } else {
        let mut lease = Lease::default();
        lease.metadata.name = Some(name.to_owned());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(name.to_owned());
        spec.lease_duration_seconds = Some(LEASE_SECONDS);
        spec.renew_time = Some(now);
        leases.create(&PostParams::default(), &lease).await?;
    }
    // A node that was away is unready until it says otherwise.
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get(name).await?;
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    if !conditions.iter().any(|found| found.type_ == "Ready" && found.status == "True") {
        report(client, name, address).await?;
    }
    Ok(())
}
