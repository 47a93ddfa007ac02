//! What becomes of a gang that does not start, fails, is stopped or is deleted
//! half-way: it goes whole, says so, and frees everything.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, EvictParams, Patch, PatchParams, PropagationPolicy};
use libtest_mimic::Trial;
use serde_json::json;
use vingt_crds::{TrainingJob, TrainingJobStatus};
use vingt_e2e::wait_for;

use crate::space::{SOON, Space};
use crate::suite::{Needs, Suite};

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.trial(
            "gang: withdrawn whole where kube-scheduler refuses, and tried elsewhere",
            Needs::mig("withdraw", 2),
            |s| Box::pin(withdrawn(s)),
        ),
        suite.trial(
            "gang: host ports that collide: withdrawn again and again, never half",
            Needs::mig("ports", 1),
            |s| Box::pin(ports(s)),
        ),
        suite.trial(
            "gang: restarted as a whole when a worker fails, up to its limit",
            Needs::mig("restart", 1),
            |s| Box::pin(restarted(s)),
        ),
        suite.trial(
            "gang: a worker that fails late counts as a failure, not as a start that failed",
            Needs::mig("late", 1),
            |s| Box::pin(late(s)),
        ),
        suite.trial("gang: suspended and resumed", Needs::mig("suspend", 1), |s| Box::pin(suspended(s))),
        suite.trial("gang: ended at its deadline", Needs::mig("deadline", 1), |s| Box::pin(deadline(s))),
        suite.trial("gang: never restarted if it says so", Needs::mig("norestart", 1), |s| {
            Box::pin(no_restart(s))
        }),
        suite.trial(
            "gang: workers left without their Job are not in its way",
            Needs::mig("orphan", 1),
            |s| Box::pin(orphaned(s)),
        ),
        suite.trial(
            "gang: its Job and pods are put back when somebody else touches them",
            Needs::mig("touched", 1),
            |s| Box::pin(touched(s)),
        ),
    ]
}

fn job(workers: u32, more: &str, pod_metadata: &str, pod_spec: &str) -> String {
    format!(
        "
apiVersion: vingt.dev/v1alpha1
kind: TrainingJob
metadata: {{name: x}}
spec:
  workers: {workers}
  gpu: {{profile: 1g.10gb}}
  {more}
  template:
    metadata: {{{pod_metadata}}}
    spec:
      nodeSelector: @nodes
      {pod_spec}
      containers: [{{name: train, image: example.invalid/x}}]
"
    )
}

fn condition<'a>(status: &'a TrainingJobStatus, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let found = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((&found.status, &found.reason, &found.message))
}

async fn withdrawn(space: &Space<'_>) -> Result<()> {
    // A pod on one of the two nodes that workers may not be beside. It makes
    // that node the fuller one, which is filled first.
    space
        .apply(
            "
apiVersion: v1
kind: Pod
metadata: {name: neighbour, labels: {app: loud}}
spec:
  nodeSelector: @nodes
  resourceClaims: [{name: gpu, resourceClaimTemplateName: mig-1g.10gb}]
  containers: [{name: c, image: example.invalid/x, resources: {claims: [{name: gpu}]}}]
",
        )
        .await?;
    let neighbour = space.pod_is("neighbour", "Running").await?;
    let loud = neighbour.spec.and_then(|spec| spec.node_name).context("a pod without node")?;
    let apart = "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: \
                 [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: loud}}}]}}";
    space.apply(&job(3, "readyTimeoutSeconds: 10", "", apart)).await?;
    let starting = space.training_is("x", "Starting").await?;
    ensure!(starting.nodes == loud, "planned on {}, not on {loud}: this trial tries nothing", starting.nodes);
    let why = wait_for(SOON, "the job to repeat what kube-scheduler says", || async {
        let status = space.training("x").await?;
        Ok((!status.why.is_empty()).then_some(status.why))
    })
    .await?;
    ensure!(why.contains("anti-affinity"), "while it does not start it says {why:?}");

    let status = wait_for(SOON, "the gang to be withdrawn", || async {
        let status = space.training("x").await?;
        Ok((status.withdrawals == 1 && status.assignments.is_empty()).then_some(status))
    })
    .await?;
    ensure!(status.avoid_nodes == [loud.as_str()], "it avoids {:?}", status.avoid_nodes);
    let evicted = condition(&status, "Evicted").context("no condition Evicted")?;
    ensure!(evicted.0 == "True" && evicted.2.contains("not all workers were ready in time"), "{evicted:?}");
    ensure!(status.state == "Waiting" && !status.why.is_empty(), "{} {:?}", status.state, status.why);
    ensure!(space.pods().await?.len() == 1, "pods of a withdrawn gang are left");
    ensure!(space.held().await?.len() == 1, "claims of a withdrawn gang are held: {:?}", space.held().await?);
    let status = space.training_is("x", "Running").await?;
    ensure!(status.nodes != loud, "again on {loud}");
    space.holds(4).await.map(drop)
}

async fn ports(space: &Space<'_>) -> Result<()> {
    let metadata = "labels: {app: x}";
    let mut colliding = job(2, "readyTimeoutSeconds: 10", metadata, "");
    colliding = colliding.replace(
        "image: example.invalid/x}",
        "image: example.invalid/x, ports: [{containerPort: 7777, hostPort: 7777}]}",
    );
    space.apply(&colliding).await?;
    let first = wait_for(SOON, "the gang to be withdrawn", || async {
        let status = space.training("x").await?;
        Ok((status.withdrawals == 1).then_some(status))
    })
    .await?;
    ensure!(first.avoid_nodes == [space.node(0)?.name()], "it avoids {:?}", first.avoid_nodes);
    // The only node there is is tried again, after a pause.
    wait_for(SOON, "the gang to be withdrawn a second time", || async {
        let status = space.training("x").await?;
        ensure!(status.state != "Running", "two pods on one port run");
        Ok((status.withdrawals == 2).then_some(()))
    })
    .await?;
    space.nodes_are_empty().await?;
    space.uses(0).await
}

async fn restarted(space: &Space<'_>) -> Result<()> {
    let failing = "annotations: {lab.vingt.dev/run-seconds: \"2\", lab.vingt.dev/exit-code: \"3\"}";
    space.apply(&job(2, "maxRestarts: 1", failing, "")).await?;
    let before = wait_for(SOON, "the gang to start", || async {
        let status = space.training("x").await?;
        Ok(status.admitted_at.is_some().then_some(status.admitted_at))
    })
    .await?;
    let status = space.training_is("x", "Failed").await?;
    ensure!(status.restarts == 1, "restarted {} times", status.restarts);
    ensure!(status.admitted_at != before, "it was never started again");
    ensure!(status.why.contains("exited with code 3"), "it says {:?}", status.why);
    let finished = condition(&status, "Finished").context("no condition Finished")?;
    ensure!(finished.0 == "True" && finished.1 == "WorkerFailed", "{finished:?}");
    space.nodes_are_empty().await?;
    space.uses(0).await
}

async fn no_restart(space: &Space<'_>) -> Result<()> {
    let failing = "annotations: {lab.vingt.dev/run-seconds: \"1\", lab.vingt.dev/exit-code: \"1\"}";
    space.apply(&job(2, "restartPolicy: Never", failing, "")).await?;
    let status = space.training_is("x", "Failed").await?;
    ensure!(status.restarts == 0, "restarted {} times", status.restarts);
    space.nodes_are_empty().await
}

async fn late(space: &Space<'_>) -> Result<()> {
    // It runs for longer than it may take to become ready.
    let failing = "annotations: {lab.vingt.dev/run-seconds: \"13\", lab.vingt.dev/exit-code: \"3\"}";
    space.apply(&job(2, "readyTimeoutSeconds: 10\n  maxRestarts: 1", failing, "")).await?;
    let status = space.training_is("x", "Failed").await?;
    ensure!(
        status.restarts == 1 && status.withdrawals == 0,
        "{} restarts, {} withdrawals",
        status.restarts,
        status.withdrawals
    );
    space.nodes_are_empty().await?;
    space.uses(0).await
}

async fn suspended(space: &Space<'_>) -> Result<()> {
    space.apply(&job(3, "suspend: true", "", "")).await?;
    space.training_is("x", "Suspended").await?;
    ensure!(space.pods().await?.is_empty(), "a suspended gang has pods");
    let jobs = space.api::<TrainingJob>();
    let set = |suspend: bool| {
        let jobs = jobs.clone();
        let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        async move { jobs.patch("x", &PatchParams::default(), &patch).await }
    };
    set(false).await?;
    space.training_is("x", "Running").await?;
    space.holds(3).await?;
    set(true).await?;
    let status = space.training_is("x", "Suspended").await?;
    ensure!(status.why == "suspended by the user", "it says {:?}", status.why);
    space.nodes_are_empty().await?;
    space.uses(0).await?;
    set(false).await?;
    let status = space.training_is("x", "Running").await?;
    // The user's wish is no failure, and is not held against the job.
    ensure!(status.withdrawals == 0 && status.restarts == 0, "{status:?}");
    space.holds(3).await.map(drop)
}

async fn deadline(space: &Space<'_>) -> Result<()> {
    space.apply(&job(2, "activeDeadlineSeconds: 4", "", "")).await?;
    let status = space.training_is("x", "Failed").await?;
    ensure!(status.why.contains("activeDeadlineSeconds"), "it says {:?}", status.why);
    space.nodes_are_empty().await?;
    space.uses(0).await
}

async fn touched(space: &Space<'_>) -> Result<()> {
    space.apply(&job(2, "", "", "")).await?;
    space.training_is("x", "Running").await?;
    let held = space.holds(2).await?;
    // A drain is a disruption, not a failure: the worker is replaced.
    let pod = space.pods().await?.pop().and_then(|pod| pod.metadata.name).context("no pod")?;
    space.api::<Pod>().evict(&pod, &EvictParams::default()).await?;
    whole_without(space, &pod).await?;
    let status = space.training("x").await?;
    ensure!(
        status.restarts == 0 && status.withdrawals == 0,
        "an eviction counts as a failure: {}",
        status.why
    );
    ensure!(space.holds(2).await? == held, "the worker was given another device");
    // A worker that somebody deletes has failed, and the gang starts again.
    let pod = space.pods().await?.pop().and_then(|pod| pod.metadata.name).context("no pod")?;
    space.delete::<Pod>(&pod).await?;
    whole_without(space, &pod).await?;
    ensure!(space.training("x").await?.restarts <= 1, "one deleted worker counts several times");
    // The Job is the operator's.
    space.api::<Job>().delete("x", &DeleteParams::background()).await?;
    wait_for(SOON, "the Job to be made again and the gang to run", || async {
        let there = space.api::<Job>().get_opt("x").await?;
        let there = there.is_some_and(|job| job.metadata.deletion_timestamp.is_none());
        let runs = space.training("x").await?.state == "Running";
        Ok((there && runs && space.holds(2).await.is_ok()).then_some(()))
    })
    .await?;
    // Deleted while it restarts: nothing of it stays.
    let pod = space.pods().await?.pop().and_then(|pod| pod.metadata.name).context("no pod")?;
    space.delete::<Pod>(&pod).await?;
    space.delete::<TrainingJob>("x").await?;
    wait_for(SOON, "the job to be gone", || async {
        let gone = space.api::<TrainingJob>().get_opt("x").await?.is_none();
        Ok((gone && space.pods().await?.is_empty()).then_some(()))
    })
    .await?;
    space.nodes_are_empty().await?;
    space.uses(0).await
}

async fn orphaned(space: &Space<'_>) -> Result<()> {
    space.apply(&job(2, "", "", "")).await?;
    space.training_is("x", "Running").await?;
    space
        .api::<Job>()
        .delete(
            "x",
            &DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() },
        )
        .await?;
    wait_for(SOON, "the gang to run in a Job of its own again", || async {
        let there = space.api::<Job>().get_opt("x").await?;
        let there = there.is_some_and(|job| job.metadata.deletion_timestamp.is_none());
        let status = space.training("x").await?;
        ensure!(there && status.state == "Running", "{} {}: {}", status.state, status.workers, status.why);
        Ok((space.holds(2).await.is_ok() && space.pods().await?.len() == 2).then_some(()))
    })
    .await?;
    space.delete::<TrainingJob>("x").await?;
    space.nodes_are_empty().await?;
    space.uses(0).await
}

/// Waits until the gang of two runs and a certain pod is gone.
async fn whole_without(space: &Space<'_>, pod: &str) -> Result<()> {
    wait_for(SOON, "the gang to be whole again", || async {
        let pods = space.pods().await?;
        let old = pods.iter().any(|found| found.metadata.name.as_deref() == Some(pod));
        let status = space.training("x").await?;
        Ok((!old && pods.len() == 2 && status.state == "Running").then_some(()))
    })
    .await
}
