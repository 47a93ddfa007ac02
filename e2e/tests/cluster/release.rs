//! The release as a whole: what the auditor saw during all trials, the chart's
//! own test, an operator that is down, an upgrade, and an uninstall that leaves
//! nothing behind.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::{Api, ResourceExt};
use libtest_mimic::Trial;
use vingt_crds::{InferenceJob, Tenant, TrainingJob, names};
use vingt_e2e::helm::NAMESPACE;
use vingt_e2e::{Lab, wait_for};

use crate::audit::Auditor;
use crate::dump;
use crate::manifests::{job, pod};
use crate::space::{SOON, Space, gated};
use crate::suite::Suite;

/// Trials that want the lab for themselves, after all others.
pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.alone("audit: nothing was ever held twice, leaked or charged wrongly", |_, auditor| {
            Box::pin(verdict(auditor))
        }),
        suite.alone(
            "release: with the operator down, others' pods start and running ones run on",
            |lab, auditor| Box::pin(operator_down(lab, auditor)),
        ),
        suite.alone("release: a second operator takes over when the first dies", |lab, auditor| {
            Box::pin(takeover(lab, auditor))
        }),
        suite.alone("release: helm test passes, and fails without an operator", |lab, _| {
            Box::pin(helm_test(lab))
        }),
        suite.alone("release: helm uninstall leaves no gate, finalizer, label or slice", |lab, auditor| {
            Box::pin(uninstall(lab, auditor))
        }),
    ]
}

async fn verdict(auditor: &Auditor) -> Result<()> {
    auditor.look().await?;
    auditor.verdict(0)?;
    let (audits, most) = auditor.seen();
    eprintln!("          {audits} audits; at most {most} claims were held at once");
    Ok(())
}

/// Runs something in a place of its own on one node.
async fn in_space<F>(lab: &Lab, auditor: &Auditor, id: &str, work: F) -> Result<()>
where
    F: AsyncFnOnce(&Space<'_>) -> Result<()>,
{
    let space = Space::make(lab, auditor, id, vec![1], Some("")).await?;
    let result = work(&space).await;
    if result.is_err() {
        eprintln!("{}", dump::of(&space).await);
    }
    let removed = space.remove().await;
    result.and(removed)
}

async fn operator_down(lab: &Lab, auditor: &Auditor) -> Result<()> {
    in_space(lab, auditor, "down", async |space| {
        space.apply(&job("runs", 2, "profile: 1g.10gb")).await?;
        space.training_is("runs", "Running").await?;
        space.lab.operator().hold();
        let tried = while_down(space).await;
        space.lab.operator().release();
        tried?;
        space.pod_is("waits", "Running").await?;
        space.training_is("runs", "Running").await?;
        space.holds(3).await.map(drop)
    })
    .await
}

const OUTSIDE: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: t-outside}
---
apiVersion: v1
kind: Pod
metadata: {name: plain, namespace: t-outside}
spec: {nodeSelector: @nodes, containers: [{name: c, image: example.invalid/x}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: nic, namespace: t-outside}
spec: {devices: {requests: [{name: nic, exactly: {deviceClassName: nic.example.invalid}}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: nic, namespace: t-outside}
spec:
  nodeSelector: @nodes
  resourceClaims: [{name: nic, resourceClaimName: nic}]
  containers: [{name: c, image: example.invalid/x, resources: {claims: [{name: nic}]}}]
";

async fn while_down(space: &Space<'_>) -> Result<()> {
    space
        .apply(
            "
apiVersion: v1
kind: Pod
metadata: {name: plain}
spec: {nodeSelector: @nodes, containers: [{name: c, image: example.invalid/x}]}
",
        )
        .await?;
    space.apply(&pod("waits", "mig-1g.10gb")).await?;
    space.apply(OUTSIDE).await?;
    space.pod_is("plain", "Running").await?;
    let pods: Api<Pod> = Api::namespaced(space.admin.clone(), "t-outside");
    let outside =
        wait_for(SOON, "pods outside tenants' namespaces to be looked at by kube-scheduler", || async {
            let plain = pods.get("plain").await?.status.and_then(|status| status.phase);
            let nic = pods.get("nic").await?;
            let conditions = nic.status.as_ref().and_then(|status| status.conditions.as_ref());
            let seen = conditions.into_iter().flatten().any(|found| found.type_ == "PodScheduled");
            Ok((plain.as_deref() == Some("Running") && seen && !gated(&nic)).then_some(()))
        })
        .await;
    let namespaces: Api<Namespace> = Api::all(space.admin.clone());
    namespaces.delete("t-outside", &DeleteParams::default()).await?;
    outside?;
    ensure!(gated(&space.api::<Pod>().get("waits").await?), "a tenant's pod started without a decision");
    for pod in space.pods().await?.iter().filter(|pod| pod.name_any().starts_with("runs-")) {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        ensure!(phase == Some("Running"), "{} is {phase:?}", pod.name_any());
    }
    Ok(())
}

async fn takeover(lab: &Lab, auditor: &Auditor) -> Result<()> {
    in_space(lab, auditor, "takeover", async |space| {
        let scale = async |replicas: usize| {
            let replicas = format!("--replicas={replicas}");
            lab.kubectl(&["scale", "deployment", "vingt-operator", "-n", NAMESPACE, &replicas]).await
        };
        scale(2).await?;
        let result = first_dies(space).await;
        for container in lab.operator().containers() {
            container.hold(false);
        }
        scale(1).await?;
        result
    })
    .await
}

async fn first_dies(space: &Space<'_>) -> Result<()> {
    let operator = space.lab.operator();
    wait_for(SOON, "a second operator to run", || async {
        Ok((operator.processes().len() == 2).then_some(()))
    })
    .await?;
    let leases: Api<Lease> = Api::namespaced(space.admin.clone(), NAMESPACE);
    let holder = async || -> Result<String> {
        let spec = leases.get("vingt-operator").await?.spec.unwrap_or_default();
        spec.holder_identity.context("nobody holds the lease")
    };
    let first = holder().await?;
    let leader = operator.containers().into_iter().find(|container| container.pod.ends_with(&first));
    let leader = leader.with_context(|| format!("{first} is no operator of this lab"))?;
    leader.hold(true);
    leader.kill();
    space.apply(&job("x", 2, "profile: 1g.10gb")).await?;
    space.training_is("x", "Running").await?;
    let second = holder().await?;
    ensure!(second != first, "{first} is dead and leads");
    // The one that comes back does not decide beside the other.
    leader.hold(false);
    wait_for(SOON, "the first to run again", || async {
        Ok((operator.processes().len() == 2).then_some(()))
    })
    .await?;
    space.delete::<TrainingJob>("x").await?;
    space.apply(&job("y", 2, "profile: 1g.10gb")).await?;
    space.training_is("y", "Running").await?;
    ensure!(holder().await? == second, "the lease changed hands without need");
    Ok(())
}

async fn helm_test(lab: &Lab) -> Result<()> {
    let helm = lab.helm();
    let args = ["test", "vingt", "--namespace", NAMESPACE, "--timeout", "90s"];
    helm.run(&args).await?;
    // A test that cannot fail says nothing.
    lab.operator().hold();
    let fails =
        wait_for(SOON, "helm test to fail", || async { Ok(helm.run(&args).await.is_err().then_some(())) })
            .await;
    lab.operator().release();
    fails
}

async fn uninstall(lab: &mut Lab, auditor: &Auditor) -> Result<()> {
    auditor.pause(true);
    let space = Space::make(lab, auditor, "uninstall", vec![1], Some("1")).await?;
    space.apply(&job("runs", 2, "profile: 2g.20gb")).await?;
    space.training_is("runs", "Running").await?;
    space.apply(&job("waits", 4, "profile: 2g.20gb")).await?;
    space
        .apply(
            "
apiVersion: vingt.dev/v1alpha1
kind: InferenceJob
metadata: {name: serves}
spec:
  replicas: 1
  gpu: {profile: 1g.10gb}
  template: {spec: {nodeSelector: @nodes, containers: [{name: c, image: example.invalid/x}]}}
",
        )
        .await?;
    space.apply(&pod("stays", "mig-1g.10gb")).await?;
    space.apply(&pod("gated", "mig-4g.40gb")).await?;
    space.inference_is("serves", "1/1").await?;
    let stays = space.pod_is("stays", "Running").await?;
    space.waits_for("gated", "left").await?;
    let said = lab.helm().uninstall().await;
    let result = match said {
        Ok(_) => nothing_left(&space).await,
        Err(error) => Err(error),
    };
    if result.is_err() {
        eprintln!("{}", dump::of(&space).await);
    }
    result?;
    // A pod that is not the release's runs on.
    let still = space.pod_is("stays", "Running").await?;
    ensure!(
        still.uid() == stays.uid() && still.metadata.deletion_timestamp.is_none(),
        "a running pod was ended"
    );
    // And it can be installed again.
    lab.install().await.context("a second installation")?;
    let tenants: Api<Tenant> = Api::all(space.admin.clone());
    ensure!(tenants.get_opt("t-uninstall").await?.is_some(), "tenants went with the release");
    // A pod made before the namespace is its tenant's again would not be gated.
    let probe: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": "probe"},
        "spec": {
            "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "mig-1g.10gb"}],
            "containers": [{"name": "c", "image": "example.invalid/x"}],
        },
    }))?;
    let pods: Api<Pod> = Api::namespaced(space.admin.clone(), &space.name);
    let dry_run = PostParams { dry_run: true, ..PostParams::default() };
    wait_for(SOON, "new pods to be gated again", || async {
        Ok(gated(&pods.create(&dry_run, &probe).await?).then_some(()))
    })
    .await?;
    // What still runs is known again, and nothing of it is given away.
    space.apply(&pod("again", "mig-1g.10gb")).await?;
    space.pod_is("again", "Running").await?;
    space.training_is("runs", "Running").await?;
    space.inference_is("serves", "1/1").await?;
    wait_for(SOON, "claims and partitions to agree", || async { space.holds(5).await.map(Some) }).await?;
    Ok(())
}

/// Everything an uninstall must take away.
async fn nothing_left(space: &Space<'_>) -> Result<()> {
    let all = ListParams::default();
    let client = space.admin.clone();
    let mut left = Vec::new();
    for pod in Api::<Pod>::all(client.clone()).list(&all).await?.items {
        if gated(&pod) {
            left.push(format!("pod {} has the gate", pod.name_any()));
        }
    }
    for claim in Api::<ResourceClaim>::all(client.clone()).list(&all).await?.items {
        if claim.finalizers().iter().any(|finalizer| finalizer == names::LEDGER_FINALIZER) {
            left.push(format!("claim {} waits for a ledger", claim.name_any()));
        }
        if claim.annotations().contains_key(names::DECISION) {
            left.push(format!("claim {} has a decision record", claim.name_any()));
        }
    }
    for job in Api::<TrainingJob>::all(client.clone()).list(&all).await?.items {
        if !job.finalizers().is_empty() {
            left.push(format!("job {} has finalizers {:?}", job.name_any(), job.finalizers()));
        }
    }
    for job in Api::<InferenceJob>::all(client.clone()).list(&all).await?.items {
        if !job.finalizers().is_empty() {
            left.push(format!("job {} has finalizers {:?}", job.name_any(), job.finalizers()));
        }
    }
    for namespace in Api::<Namespace>::all(client.clone()).list(&all).await?.items {
        if namespace.labels().contains_key(names::TENANT_LABEL) {
            left.push(format!("namespace {} is labelled", namespace.name_any()));
        }
    }
    for template in Api::<ResourceClaimTemplate>::all(client.clone()).list(&all).await?.items {
        if template.owner_references().is_empty() {
            left.push(format!("template {} is left", template.name_any()));
        }
    }
    if !left.is_empty() {
        bail!("left behind:\n{}", left.join("\n"));
    }
    // The agents' slices go with them, or when the kubelet has missed them for 30 s.
    let slices: Api<ResourceSlice> = Api::all(client);
    wait_for(SOON + Duration::from_secs(30), "the slices to be gone", || async {
        let ours = slices.list(&all).await?.items;
        Ok(ours.iter().all(|slice| slice.spec.driver != names::DRIVER).then_some(()))
    })
    .await
}
