//! A job that cannot start says why, soon and in numbers; and starts when what
//! it waited for is there.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaimTemplate;
use kube::Api;
use kube::api::{Patch, PatchParams, WatchEvent, WatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};
use vingt_crds::{Tenant, TrainingJob, TrainingJobStatus};
use vingt_e2e::wait_for;

use crate::manifests::{job, pod};
use crate::space::{SOON, Space};
use crate::suite::{Needs, Suite};

/// How soon a reason is promised.
const PROMISE: Duration = Duration::from_secs(1);
/// How long a machine with other work may take to keep the promise.
const BUSY: Duration = Duration::from_secs(20);

pub fn trials(suite: &Suite) -> Vec<Trial> {
    let limited = |id, mig, limit| Needs { limit: Some(limit), ..Needs::mig(id, mig) };
    let nobodys = Needs { limit: None, ..Needs::mig("nobody", 1) };
    vec![
        suite.trial(
            "waits: no room, with what fits now and what the tenant has left",
            limited("room", 1, "12"),
            |s| Box::pin(no_room(s)),
        ),
        suite.trial("waits: a tenant's limit, until what it held is freed", limited("quota", 1, "1"), |s| {
            Box::pin(quota(s))
        }),
        suite.trial("waits: more than the tenant may ever hold", limited("limit", 0, "\"0.5\""), |s| {
            Box::pin(above_limit(s))
        }),
        suite.trial("waits: more than there is, and what there is not", Needs::mig("never", 1), |s| {
            Box::pin(never(s))
        }),
        suite.trial("waits: a namespace of no tenant", nobodys, |s| Box::pin(no_tenant(s))),
        suite.trial(
            "waits: replicas that fit serve, the others say why",
            limited("partly", 1, "\"0.3\""),
            |s| Box::pin(replicas(s)),
        ),
        suite.trial("waits: pods of others say why on themselves", limited("podwait", 1, "\"0.2\""), |s| {
            Box::pin(pods(s))
        }),
    ]
}

/// Creates a job that cannot start; answers its first status with a reason,
/// and how long after the creation it was there.
async fn first_reason(space: &Space<'_>, name: &str, yaml: &str) -> Result<(TrainingJobStatus, Duration)> {
    let jobs: Api<TrainingJob> = space.api();
    let params = WatchParams::default().fields(&format!("metadata.name={name}"));
    let mut events = jobs.watch(&params, "0").await?.boxed();
    let created = Instant::now();
    space.apply(yaml).await?;
    let reason = async {
        while let Some(event) = events.try_next().await? {
            let (WatchEvent::Added(job) | WatchEvent::Modified(job)) = event else { continue };
            let status = job.status.unwrap_or_default();
            if !status.why.is_empty() {
                return Ok(status);
            }
        }
        anyhow::bail!("the watch ended")
    };
    let status = tokio::time::timeout(BUSY, reason);
    let status = status.await.with_context(|| format!("{name} did not say why within {BUSY:?}"))??;
    Ok((status, created.elapsed()))
}

/// Checks that a job says this, in its status and in its condition, and how
/// soon.
async fn says(space: &Space<'_>, name: &str, yaml: &str, words: &[&str]) -> Result<TrainingJobStatus> {
    let (status, after) = first_reason(space, name, yaml).await?;
    let note = if after > PROMISE { "  (promised: 1 s; is the machine busy?)" } else { "" };
    eprintln!("          {:4} ms until it says: {}{note}", after.as_millis(), status.why);
    for word in words {
        ensure!(status.why.contains(word), "{word:?} is not in {:?}", status.why);
    }
    let admitted = status.conditions.iter().find(|condition| condition.type_ == "Admitted");
    let admitted = admitted.with_context(|| format!("no condition Admitted: {:?}", status.conditions))?;
    let same = admitted.status == "False" && admitted.message == status.why;
    ensure!(same, "the condition says {} {:?}", admitted.status, admitted.message);
    Ok(status)
}

async fn no_room(space: &Space<'_>) -> Result<()> {
    // Seven of the node's eight GPUs, so that two halves are left.
    space.apply(&job("most", 7, "profile: 7g.80gb")).await?;
    space.training_is("most", "Running").await?;
    let words = ["needs 4 × 3g.40gb", "2 fit now", &format!("tenant {} has 5 of 12 GPUs left", space.name)];
    let status = says(space, "late", &job("late", 4, "profile: 3g.40gb"), &words).await?;
    ensure!(status.state == "Waiting" && status.workers == "0/4", "{} {}", status.state, status.workers);
    ensure!(status.waiting_since.is_some(), "it waits since never");
    ensure!(space.pods().await?.len() == 7, "a gang that waits has pods");
    let columns = space.lab.kubectl(&["get", "trainingjobs", "-n", &space.name]).await?;
    let line = columns.lines().find(|line| line.starts_with("late")).context("kubectl shows no job late")?;
    ensure!(line.contains("2 fit now") && line.contains("Waiting"), "kubectl get shows {line:?}");
    // What fits is not held up by what does not.
    space.apply(&job("little", 1, "profile: 1g.10gb")).await?;
    space.training_is("little", "Running").await?;
    space.delete::<TrainingJob>("most").await?;
    space.training_is("late", "Running").await?;
    space.holds(5).await.map(drop)
}

async fn quota(space: &Space<'_>) -> Result<()> {
    space.apply(&job("first", 3, "profile: 2g.20gb")).await?;
    space.training_is("first", "Running").await?;
    // 48 of 56 units are held; 8 are 1/7 of a GPU.
    let words = ["needs 0.29 GPUs", &format!("tenant {} has 0.14 of 1 GPU left", space.name)];
    says(space, "second", &job("second", 1, "profile: 2g.20gb"), &words).await?;
    space.apply(&job("third", 1, "profile: 1g.10gb")).await?;
    space.training_is("third", "Running").await?;
    space.uses(56).await?;
    space.delete::<TrainingJob>("first").await?;
    space.training_is("second", "Running").await?;
    space.uses(24).await?;

    // 24 of 56 are held, and nothing else stands in the way.
    let words = ["needs 0.86 GPUs", "has 0.57 of 1 GPU left"];
    says(space, "fourth", &job("fourth", 3, "profile: 2g.20gb"), &words).await.map(drop)
}

async fn above_limit(space: &Space<'_>) -> Result<()> {
    let words = ["needs 1 GPU", &format!("tenant {} may hold at most 0.5", space.name)];
    says(space, "big", &job("big", 1, "profile: 7g.80gb"), &words).await?;
    // A limit that is raised is enough.
    let tenants: Api<Tenant> = Api::all(space.admin.clone());
    let patch = Patch::Merge(json!({"spec": {"limitGPUs": 1}}));
    tenants.patch(&space.name, &PatchParams::default(), &patch).await?;
    // There is no node for it here; the reason is another one now.
    wait_for(SOON, "the job to wait for something else", || async {
        let why = space.training("big").await?.why;
        Ok((!why.contains("may hold at most") && !why.is_empty()).then_some(()))
    })
    .await
}

async fn never(space: &Space<'_>) -> Result<()> {
    let unknown = job("unknown", 1, "profile: 5g.60gb");
    says(space, "unknown", &unknown, &["no device here is 5g.60gb", "3g.40gb"]).await?;
    let memory = job("memory", 1, "memory: 200Gi");
    says(space, "memory", &memory, &["200Gi"]).await?;
    // The trial's node has eight GPUs, two halves each.
    let many = job("many", 17, "profile: 3g.40gb");
    says(space, "many", &many, &["needs 17 × 3g.40gb", "room for 16 of 17"]).await?;
    let nodes: Value = json!({"spec": {"containers": [{"name": "c", "image": "example.invalid/x",
        "resources": {"requests": {"cpu": "200"}}}]}});
    let cpu = format!(
        "{{apiVersion: vingt.dev/v1alpha1, kind: TrainingJob, metadata: {{name: cpu}}, \
         spec: {{workers: 1, gpu: {{profile: 1g.10gb}}, template: {nodes}}}}}"
    );
    says(space, "cpu", &cpu, &["cpu"]).await.map(drop)
}

async fn no_tenant(space: &Space<'_>) -> Result<()> {
    says(space, "orphan", &job("orphan", 1, "profile: 1g.10gb"), &["belongs to no tenant"]).await?;
    ensure!(space.pods().await?.is_empty(), "a job of nobody has pods");
    // It starts once the namespace is somebody's.
    space
        .apply(
            "{apiVersion: vingt.dev/v1alpha1, kind: Tenant, metadata: {name: @space}, \
             spec: {namespaces: {names: [@space]}}}",
        )
        .await?;
    space.training_is("orphan", "Running").await.map(drop)
}

async fn pods(space: &Space<'_>) -> Result<()> {
    space.apply(&pod("first", "mig-1g.10gb")).await?;
    space.pod_is("first", "Running").await?;
    space.apply(&pod("second", "mig-1g.10gb")).await?;
    space.waits_for("second", "has 0.05 of 0.2 GPUs left").await?;
    let events = space.lab.kubectl(&["get", "events", "-n", &space.name, "-o", "wide"]).await?;
    ensure!(events.contains("Waiting") && events.contains("pod/second"), "no event says so:\n{events}");
    // A template that is not there is not made up.
    space.apply(&pod("typo", "mig-1g.11gb")).await?;
    space.waits_for("typo", "mig-1g.11gb").await?;
    space.delete::<Pod>("first").await?;
    space.pod_is("second", "Running").await.map(drop)
}

async fn replicas(space: &Space<'_>) -> Result<()> {
    space
        .apply(
            "
apiVersion: vingt.dev/v1alpha1
kind: InferenceJob
metadata: {name: chat}
spec:
  replicas: 3
  gpu: {profile: 1g.10gb}
  template:
    spec:
      nodeSelector: @nodes
      containers: [{name: serve, image: example.invalid/x}]
",
        )
        .await?;
    let status = space.inference_is("chat", "2/3").await?;
    let status = wait_for(SOON, "the job to say why the third waits", || async {
        let now = space.inference("chat").await?;
        Ok(now.why.contains("of 0.29 GPUs left").then_some(now))
    })
    .await
    .with_context(|| format!("it said {:?}", status.why))?;
    ensure!(
        status.state == "Degraded" && status.waiting_since.is_some(),
        "{} {:?}",
        status.state,
        status.why
    );
    // A template that is deleted is put back.
    space.delete::<ResourceClaimTemplate>("mig-1g.10gb").await?;
    wait_for(SOON, "the ready-made template to be back", || async {
        Ok(space.api::<ResourceClaimTemplate>().get_opt("mig-1g.10gb").await?)
    })
    .await?;
    let tenants: Api<Tenant> = Api::all(space.admin.clone());
    let patch = Patch::Merge(json!({"spec": {"limitGPUs": 1}}));
    tenants.patch(&space.name, &PatchParams::default(), &patch).await?;
    let status = space.inference_is("chat", "3/3").await?;
    ensure!(status.why.is_empty(), "it serves and says {:?}", status.why);
    space.holds(3).await.map(drop)
}
