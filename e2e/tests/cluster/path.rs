//! The whole path, from `kubectl apply` to a partition and back to nothing, for
//! every kind of workload.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;
use vingt_crds::{InferenceJob, TrainingJob};
use vingt_e2e::wait_for;

use crate::manifests::{job, pod};
use crate::nodes::Nodes;
use crate::space::{SOON, Space, emulator, gated};
use crate::suite::{Needs, Suite};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    let whole = |id, whole| Needs { nodes: Nodes { mig: 0, whole }, ..Needs::mig(id, 0) };
    vec![
        suite.trial(
            "path: a gang of four, each on its own partition, and nothing is left",
            Needs::mig("gang", 1),
            |s| Box::pin(gang(s)),
        ),
        suite.trial("path: a job that is over frees its partitions", Needs::mig("over", 1), |s| {
            Box::pin(over(s))
        }),
        suite.trial("path: an inference job of three is scaled up and down", Needs::mig("scale", 1), |s| {
            Box::pin(scale(s))
        }),
        suite.trial("path: two workers on eight whole GPUs each", whole("whole", 2), |s| {
            Box::pin(whole_gpus(s))
        }),
        suite.trial(
            "path: memory of 30Gi picks the smallest partition that holds it",
            Needs::mig("memory", 1),
            |s| Box::pin(memory(s)),
        ),
        suite.trial(
            "path: a Deployment that names a claim template and no more",
            Needs::mig("deploy", 1),
            |s| Box::pin(deployment(s)),
        ),
        suite.trial("path: two pods share a claim, charged once", Needs::mig("share", 2), |s| {
            Box::pin(shared(s))
        }),
        suite.trial("path: a bare pod, and pods that claim nothing of vingt's", Needs::mig("bare", 1), |s| {
            Box::pin(bare(s))
        }),
    ]
}

async fn gang(space: &Space<'_>) -> Result<()> {
    space.apply(&job("sweep", 4, "profile: 2g.20gb")).await?;
    let status = space.training_is("sweep", "Running").await?;
    let node = space.node(0)?.name();
    ensure!(status.workers == "4/4" && status.nodes == node, "{} on {}", status.workers, status.nodes);
    ensure!(status.gpu == "2g.20gb" && status.tenant == space.name, "{} of {}", status.gpu, status.tenant);
    ensure!(status.why.is_empty(), "it runs and waits: {}", status.why);

    let held = space.holds(4).await?;
    let planned: BTreeSet<(String, String)> = status
        .assignments
        .iter()
        .flat_map(|worker| worker.devices.iter().map(|device| (worker.node.clone(), device.device.clone())))
        .collect();
    ensure!(planned == held, "planned {planned:?}, held {held:?}");
    space.uses(4 * 16).await?;
    for pod in space.pods().await? {
        let spec = pod.spec.as_ref().context("a pod without spec")?;
        ensure!(spec.priority_class_name.as_deref() == Some("vingt"), "{:?}", spec.priority_class_name);
        ensure!(spec.preemption_policy.as_deref() == Some("Never"), "{:?}", spec.preemption_policy);
        let names = spec.containers[0].env.iter().flatten().map(|variable| variable.name.as_str());
        let names: BTreeSet<&str> = names.collect();
        for name in ["MASTER_ADDR", "MASTER_PORT", "WORLD_SIZE", "RANK"] {
            ensure!(names.contains(name), "{name} is missing: {names:?}");
        }
    }
    let service = space.api::<Service>().get("sweep").await?.spec.unwrap_or_default();
    ensure!(service.cluster_ip.as_deref() == Some("None"), "not headless: {:?}", service.cluster_ip);

    space.delete::<TrainingJob>("sweep").await?;
    wait_for(SOON, "the job and all its pods to be gone", || async {
        let job = space.api::<TrainingJob>().get_opt("sweep").await?;
        Ok((job.is_none() && space.pods().await?.is_empty()).then_some(()))
    })
    .await?;
    space.nodes_are_empty().await?;
    ensure!(space.held().await?.is_empty(), "claims are still held: {:?}", space.held().await?);
    space.uses(0).await
}

async fn over(space: &Space<'_>) -> Result<()> {
    let plain = job("sweep", 4, "profile: 2g.20gb");
    let job = plain.replace(
        "  template:\n",
        "  template:\n    metadata: {annotations: {lab.vingt.dev/run-seconds: \"1\"}}\n",
    );
    ensure_ne(&job, &plain)?;
    space.apply(&job).await?;
    space.training_is("sweep", "Succeeded").await?;
    space.nodes_are_empty().await?;
    space.uses(0).await?;
    // What is over stays to be looked at, and holds nothing.
    ensure!(space.held().await?.is_empty(), "claims are still held: {:?}", space.held().await?);
    let status = space.training("sweep").await?;
    let finished = status.conditions.iter().find(|condition| condition.type_ == "Finished");
    ensure!(finished.is_some_and(|condition| condition.status == "True"), "{:?}", status.conditions);
    Ok(())
}

fn ensure_ne(changed: &str, original: &str) -> Result<()> {
    ensure!(changed != original, "the text to change was not found");
    Ok(())
}

async fn scale(space: &Space<'_>) -> Result<()> {
    space
        .apply(
            "
apiVersion: vingt.dev/v1alpha1
kind: InferenceJob
metadata: {name: chat}
spec:
  replicas: 3
  gpu: {profile: 1g.10gb}
  port: 8000
  template:
    spec:
      nodeSelector: @nodes
      containers: [{name: serve, image: example.invalid/x}]
",
        )
        .await?;
    space.inference_is("chat", "3/3").await?;
    space.holds(3).await?;
    space.uses(3 * 8).await?;
    let service = space.api::<Service>().get("chat").await?.spec.unwrap_or_default();
    let ports = service.ports.unwrap_or_default();
    ensure!(ports.iter().any(|port| port.port == 8000), "the service has {ports:?}");

    for (replicas, units) in [(5, 40), (1, 8)] {
        let jobs = space.api::<InferenceJob>();
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        jobs.patch_scale("chat", &PatchParams::default(), &patch).await?;
        let status = space.inference_is("chat", &format!("{replicas}/{replicas}")).await?;
        wait_for(SOON, "the partitions to follow", || async {
            Ok(space.holds(replicas).await.is_ok().then_some(()))
        })
        .await?;
        space.holds(replicas).await?;
        space.uses(units).await?;
        let scale = jobs.get_scale("chat").await?;
        let selector = scale.status.and_then(|status| status.selector).unwrap_or_default();
        ensure!(selector == status.selector && !selector.is_empty(), "selector {selector:?}");
    }
    space.delete::<InferenceJob>("chat").await?;
    space.nodes_are_empty().await?;
    space.uses(0).await
}

async fn whole_gpus(space: &Space<'_>) -> Result<()> {
    space.apply(&job("pretrain", 2, "count: 8")).await?;
    let status = space.training_is("pretrain", "Running").await?;
    let nodes: BTreeSet<&str> = status.assignments.iter().map(|worker| worker.node.as_str()).collect();
    ensure!(nodes.len() == 2, "not on two nodes: {nodes:?}");
    let held = space.holds(16).await?;
    ensure!(held.iter().all(|(_, device)| !device.contains("mig")), "not whole: {held:?}");
    space.uses(16 * 56).await?;
    for node in space.nodes() {
        ensure!(emulator(node)?.occupancy()?.iter().all(|gpu| !gpu.mig), "a GPU of {} changed", node.name());
    }
    Ok(())
}

async fn memory(space: &Space<'_>) -> Result<()> {
    space.apply(&job("big", 1, "memory: 30Gi")).await?;
    space.apply(&job("small", 1, "memory: 9Gi")).await?;
    space.training_is("big", "Running").await?;
    space.training_is("small", "Running").await?;
    let held = space.holds(2).await?;
    let profiles: BTreeSet<&str> = held.iter().filter_map(|(_, device)| device.split('-').nth(3)).collect();
    ensure!(profiles == BTreeSet::from(["1g10gb", "3g40gb"]), "{held:?}");
    space.uses(28 + 8).await
}

async fn deployment(space: &Space<'_>) -> Result<()> {
    space
        .apply(
            "
apiVersion: apps/v1
kind: Deployment
metadata: {name: embedder}
spec:
  replicas: 2
  selector: {matchLabels: {app: embedder}}
  template:
    metadata: {labels: {app: embedder}}
    spec:
      nodeSelector: @nodes
      resourceClaims: [{name: gpu, resourceClaimTemplateName: mig-1g.10gb}]
      containers: [{name: serve, image: example.invalid/x, resources: {claims: [{name: gpu}]}}]
",
        )
        .await?;
    let deployments = space.api::<Deployment>();
    wait_for(SOON, "the Deployment to be ready", || async {
        let status = deployments.get("embedder").await?.status.unwrap_or_default();
        Ok((status.ready_replicas == Some(2)).then_some(()))
    })
    .await?;
    space.holds(2).await?;
    // A pod that goes is replaced, on a partition of its own again.
    let first = space.pods().await?.pop().and_then(|pod| pod.metadata.name).context("no pod")?;
    space.delete::<Pod>(&first).await?;
    wait_for(SOON, "the deleted pod to be replaced", || async {
        let pods = space.pods().await?;
        let names: BTreeSet<_> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        let status = deployments.get("embedder").await?.status.unwrap_or_default();
        let replaced = names.len() == 2 && !names.contains(first.as_str());
        Ok((replaced && status.ready_replicas == Some(2)).then_some(()))
    })
    .await?;
    space.holds(2).await?;
    space.uses(16).await
}

async fn shared(space: &Space<'_>) -> Result<()> {
    space
        .apply(
            "
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: ours}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: mig-3g.40gb.vingt.dev}}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: first}
spec:
  nodeSelector: @nodes
  resourceClaims: [{name: gpu, resourceClaimName: ours}]
  containers: [{name: c, image: example.invalid/x, resources: {claims: [{name: gpu}]}}]
",
        )
        .await?;
    let first = space.pod_is("first", "Running").await?;
    space
        .apply(
            "
apiVersion: v1
kind: Pod
metadata: {name: second}
spec:
  nodeSelector: @nodes
  resourceClaims: [{name: gpu, resourceClaimName: ours}]
  containers: [{name: c, image: example.invalid/x, resources: {claims: [{name: gpu}]}}]
",
        )
        .await?;
    let second = space.pod_is("second", "Running").await?;
    let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
    ensure!(node(&first) == node(&second), "on {:?} and {:?}", node(&first), node(&second));
    let held = space.holds(1).await?;
    space.uses(28).await?;
    // The one that stays keeps it.
    space.delete::<Pod>("first").await?;
    wait_for(SOON, "the first pod to be gone", || async {
        Ok(space.api::<Pod>().get_opt("first").await?.is_none().then_some(()))
    })
    .await?;
    ensure!(space.holds(1).await? == held, "the partition changed under the second pod");
    space.pod_is("second", "Running").await?;
    space.delete::<Pod>("second").await?;
    space.nodes_are_empty().await?;
    space.uses(0).await
}

async fn bare(space: &Space<'_>) -> Result<()> {
    space.apply(&pod("notebook", "mig-1g.20gb")).await?;
    space
        .apply(
            "
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec:
  nodeSelector: @nodes
  containers: [{name: c, image: example.invalid/x}]
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: nic}
spec: {spec: {devices: {requests: [{name: nic, exactly: {deviceClassName: nic.example.invalid}}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  nodeSelector: @nodes
  resourceClaims: [{name: nic, resourceClaimTemplateName: nic}]
  containers: [{name: c, image: example.invalid/x, resources: {claims: [{name: nic}]}}]
",
        )
        .await?;
    space.pod_is("notebook", "Running").await?;
    space.pod_is("plain", "Running").await?;
    space.holds(1).await?;
    space.uses(14).await?;
    // A claim of another driver is kube-scheduler's business: the gate comes
    // off, and it is kube-scheduler that finds no such device.
    wait_for(SOON, "the pod with another driver's claim to be let go", || async {
        Ok((!gated(&space.api::<Pod>().get("other").await?)).then_some(()))
    })
    .await
}
