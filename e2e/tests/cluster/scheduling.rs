//! Who goes for whom: a preemption by priority, a guarantee that is taken back,
//! a replica that is moved, and a short job beside a place that is kept. They
//! have a lab of their own, whose operator keeps places after seconds instead
//! of minutes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::DeleteParams;
use kube::{Api, ResourceExt};
use libtest_mimic::Trial;
use vingt_crds::{LastEviction, Tenant, TrainingJob, TrainingJobStatus, names};
use vingt_e2e::{Lab, LabConfig, wait_for};

use crate::audit::Auditor;
use crate::dump;
use crate::manifests::{gang, pod};
use crate::space::{SOON, Space};
use crate::suite::{Suite, Work, start};

/// One that takes longer than this hangs.
const LONGEST: Duration = Duration::from_secs(600);

/// What a trial does in its lab.
pub type Part = for<'a> fn(&'a Space<'a>) -> Work<'a>;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    let trial =
        |name: &str, id: &'static str, part: Part| suite.plain(name, move || Box::pin(in_lab(id, part)));
    vec![
        trial("scheduling: a gang leaves for a higher priority, and comes back", "prio", |s| {
            Box::pin(preempted(s))
        }),
        trial("scheduling: what was borrowed is taken back, and no more", "reclaim", |s| {
            Box::pin(reclaimed(s))
        }),
        trial("scheduling: a replica is moved for a job that fits by count only", "move", |s| {
            Box::pin(moved(s))
        }),
        trial("scheduling: a short job starts beside a place that is kept", "backfill", |s| {
            Box::pin(backfilled(s))
        }),
    ]
}

pub async fn in_lab(id: &str, part: Part) -> Result<()> {
    // One lab after the other: they have one name.
    let config = LabConfig {
        virtual_nodes: 1,
        gpus_per_node: 2,
        values: serde_json::json!({"scheduling": {"reserveAfterMs": 2000}}),
        ..LabConfig::small("t-sched", env!("CARGO_BIN_EXE_lab"))
    };
    let lab = start(config).await?;
    let result = tokio::time::timeout(LONGEST, in_space(&lab, id, part)).await;
    let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("not done after {LONGEST:?}")));
    let stopped = lab.stop().await;
    result.and(stopped)
}

async fn in_space(lab: &Lab, id: &str, part: Part) -> Result<()> {
    let folders = lab.nodes().iter().map(|node| (node.name().to_owned(), node.folder().join("gpu")));
    let auditor = Auditor::new(lab.admin(), folders.collect());
    let watch = tokio::spawn(auditor.clone().watch());
    let space = Space::make(lab, &auditor, id, vec![0], Some("")).await?;
    let result = async {
        part(&space).await?;
        auditor.look().await?;
        auditor.verdict(0)
    };
    let result = result.await;
    if result.is_err() {
        eprintln!("{}", dump::of(&space).await);
    }
    watch.abort();
    result.and(space.remove().await)
}

/// Waits until the job waits with these words; its status then.
pub async fn waits(space: &Space<'_>, name: &str, words: &str) -> Result<TrainingJobStatus> {
    wait_for(SOON, &format!("{name} to wait with {words:?}"), || async {
        let status = space.training(name).await?;
        ensure!(status.state == "Waiting", "it is {}: {}", status.state, status.why);
        Ok(status.why.contains(words).then_some(status))
    })
    .await
}

pub fn last(status: &TrainingJobStatus) -> Result<(u32, &LastEviction)> {
    let evictions = status.evictions.as_ref().context("nothing is said of an eviction")?;
    Ok((evictions.count, evictions.last.as_ref().context("the last eviction is not told of")?))
}

async fn preempted(space: &Space<'_>) -> Result<()> {
    space.apply(&gang("low", 4, "profile: 3g.40gb", "priority: 1")).await?;
    space.training_is("low", "Running").await?;
    // Its equal is patient.
    space.apply(&gang("equal", 1, "profile: 3g.40gb", "priority: 1")).await?;
    waits(space, "equal", "needs 1 × 3g.40gb").await?;
    space.apply(&gang("high", 1, "profile: 4g.40gb", "priority: 5")).await?;
    space.training_is("high", "Running").await?;
    let status = waits(space, "low", "").await?;
    let (count, eviction) = last(&status)?;
    let by = format!("TrainingJob/{}/high", space.name);
    ensure!(count == 1 && eviction.reason == "Preempted" && eviction.by == by, "{count}: {eviction:?}");
    ensure!(status.assignments.is_empty(), "it is stopped in part: {:?}", status.assignments);
    // What it leaves is the next one's, and it comes back when all four fit again.
    space.training_is("equal", "Running").await?;
    space.holds(2).await?;
    space.delete::<TrainingJob>("high").await?;
    space.delete::<TrainingJob>("equal").await?;
    let status = space.training_is("low", "Running").await?;
    ensure!(last(&status)?.0 == 1 && status.restarts == 0 && status.withdrawals == 0, "{status:?}");
    space.holds(4).await.map(drop)
}

async fn reclaimed(space: &Space<'_>) -> Result<()> {
    let owner = format!("{}-owner", space.name);
    space
        .apply(&format!(
            "
apiVersion: v1
kind: Namespace
metadata: {{name: {owner}}}
---
apiVersion: vingt.dev/v1alpha1
kind: Tenant
metadata: {{name: {owner}}}
spec: {{namespaces: {{names: [{owner}]}}, guaranteedGPUs: 1}}
"
        ))
        .await?;
    let namespaces: Api<Namespace> = Api::all(space.admin.clone());
    let result = taken_back(space, &owner, &namespaces).await;
    namespaces.delete(&owner, &DeleteParams::default()).await?;
    let gone = || async { Ok(namespaces.get_opt(&owner).await?.is_none().then_some(())) };
    wait_for(SOON, "the owner's namespace to be gone", gone).await?;
    Api::<Tenant>::all(space.admin.clone()).delete(&owner, &DeleteParams::default()).await?;
    result
}

async fn taken_back(space: &Space<'_>, owner: &str, namespaces: &Api<Namespace>) -> Result<()> {
    wait_for(SOON, "the owner's namespace to be a tenant's", || async {
        let labels = namespaces.get(owner).await?.metadata.labels.unwrap_or_default();
        Ok((labels.get(names::TENANT_LABEL).map(String::as_str) == Some(owner)).then_some(()))
    })
    .await?;
    // Both GPUs are borrowed, by two jobs of which one is enough.
    space.apply(&gang("one", 2, "profile: 3g.40gb", "")).await?;
    space.training_is("one", "Running").await?;
    space.apply(&gang("two", 2, "profile: 3g.40gb", "")).await?;
    space.training_is("two", "Running").await?;
    let jobs: Api<TrainingJob> = Api::namespaced(space.admin.clone(), owner);
    let own = gang("own", 2, "profile: 3g.40gb", "")
        .replace("{name: own}", &format!("{{name: own, namespace: {owner}}}"));
    space.apply(&own).await?;
    let by = format!("TrainingJob/{owner}/own");
    wait_for(SOON, "the owner's job to run", || async {
        let status = jobs.get("own").await?.status.unwrap_or_default();
        Ok((status.state == "Running").then_some(()))
    })
    .await?;
    let (one, two) = (space.training("one").await?, space.training("two").await?);
    let (gone, stays) = if one.state == "Running" { (&two, &one) } else { (&one, &two) };
    ensure!(stays.state == "Running" && stays.evictions.is_none(), "both were stopped: {stays:?}");
    let (count, eviction) = last(gone)?;
    ensure!(count == 1 && eviction.reason == "Reclaimed" && eviction.by == by, "{count}: {eviction:?}");
    // More than its guarantee it does not get from others.
    let more = own.replace("name: own,", "name: more,");
    space.apply(&more).await?;
    wait_for(SOON, "the job beyond the guarantee to wait", || async {
        let status = jobs.get("more").await?.status.unwrap_or_default();
        Ok((status.state == "Waiting" && !status.why.is_empty()).then_some(()))
    })
    .await?;
    jobs.delete("own", &DeleteParams::default()).await?;
    // Now `more` is within it, and first.
    wait_for(SOON, "the next job of the owner to run", || async {
        let status = jobs.get("more").await?.status.unwrap_or_default();
        Ok((status.state == "Running").then_some(()))
    })
    .await?;
    jobs.delete("more", &DeleteParams::default()).await?;
    space.training_is("one", "Running").await?;
    space.training_is("two", "Running").await?;
    space.holds(4).await.map(drop)
}

async fn moved(space: &Space<'_>) -> Result<()> {
    // Both right halves are taken, so that the replicas get the left ones, where alone a 4g.40gb can be.
    space.apply(RIGHT).await?;
    space.apply(&pod("right-0", "right")).await?;
    space.apply(&pod("right-1", "right")).await?;
    space.pod_is("right-0", "Running").await?;
    space.pod_is("right-1", "Running").await?;
    space
        .apply(
            "
apiVersion: vingt.dev/v1alpha1
kind: InferenceJob
metadata: {name: chat}
spec:
  replicas: 2
  gpu: {profile: 3g.40gb}
  template:
    spec:
      nodeSelector: @nodes
      containers: [{name: serve, image: example.invalid/x}]
",
        )
        .await?;
    space.inference_is("chat", "2/2").await?;
    space.delete::<Pod>("right-0").await?;
    space.delete::<Pod>("right-1").await?;
    wait_for(SOON, "the right halves to be free", || async {
        Ok(space.holds(2).await.is_ok().then_some(()))
    })
    .await?;
    let before = replicas(space).await?;
    // A job is moved only for one that came later, and times of creation are in whole seconds.
    let served = std::time::Instant::now();
    wait_for(SOON, "the second in which the replicas were admitted to be over", || async {
        Ok((served.elapsed() > Duration::from_secs(1)).then_some(()))
    })
    .await?;
    space.apply(&gang("large", 1, "profile: 4g.40gb", "")).await?;
    // While it moves, as many replicas are ready as before.
    let deployments: Api<Deployment> = space.api();
    wait_for(SOON, "the large job to run in the place of a replica", || async {
        let ready = deployments.get("chat").await?.status.and_then(|status| status.ready_replicas);
        if ready.unwrap_or(0) < 2 {
            space.auditor.accuse(format!("{ready:?} replicas are ready while one is moved"));
        }
        let status = space.training("large").await?;
        Ok((status.state == "Running").then_some(()))
    })
    .await?;
    let chat = wait_for(SOON, "the move to be over", || async {
        let status = space.inference("chat").await?;
        Ok((status.move_.is_none() && status.ready == "2/2").then_some(status))
    })
    .await?;
    let after = replicas(space).await?;
    let stayed = before.intersection(&after).count();
    ensure!(stayed == 1 && after.len() == 2, "one of {before:?} was to be moved; now there are {after:?}");
    ensure!(chat.evictions.is_none_or(|evictions| evictions.count == 0), "a move counts as an eviction");
    space.holds(3).await?;
    space.uses(28 + 28 + 32).await
}

async fn replicas(space: &Space<'_>) -> Result<BTreeSet<String>> {
    let pods = space.pods().await?.into_iter();
    let of_chat = pods.filter(|pod| pod.metadata.deletion_timestamp.is_none());
    Ok(of_chat.map(|pod| pod.name_any()).filter(|name| name.starts_with("chat-")).collect())
}

/// For the right half of a GPU.
const RIGHT: &str = "
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: right}
spec:
  spec:
    devices:
      requests:
        - name: gpu
          exactly:
            deviceClassName: mig-3g.40gb.vingt.dev
            selectors: [{cel: {expression: \"device.attributes['gpu.vingt.dev'].placementStart == 4\"}}]
";

async fn backfilled(space: &Space<'_>) -> Result<()> {
    // One GPU is held for good, and half of the other for a time that is known.
    space.apply(&gang("for-good", 1, "profile: 7g.80gb", "")).await?;
    space.training_is("for-good", "Running").await?;
    space.apply(&gang("holder", 1, "profile: 3g.40gb", "activeDeadlineSeconds: 120")).await?;
    let holder = space.training_is("holder", "Running").await?;
    space.apply(&gang("big", 1, "profile: 7g.80gb", "")).await?;
    waits(space, "big", "a place is kept for it").await?;
    space.apply(&gang("long", 1, "profile: 3g.40gb", "")).await?;
    waits(space, "long", "kept for a job that is ahead in line").await?;
    // As good as `long`, but it has ended before the place is free.
    space.apply(&gang("short", 1, "profile: 3g.40gb", "activeDeadlineSeconds: 10")).await?;
    space.training_is("short", "Running").await?;
    ensure!(space.training("holder").await?.state == "Running", "too late to tell: the holder has ended");
    waits(space, "big", "a place is kept for it").await?;
    waits(space, "long", "").await?;
    let big = space.training_is("big", "Running").await?;
    let until = |status: &TrainingJobStatus| status.admitted_at.as_ref().map(|time| time.0.as_second());
    let (held, started) = (until(&holder).context("no time")?, until(&big).context("no time")?);
    ensure!(
        started - held < 120 + 60,
        "it was kept waiting {} s after the holder had started",
        started - held
    );
    // `long` has no room now: both GPUs are held whole.
    waits(space, "long", "").await.map(drop)
}
