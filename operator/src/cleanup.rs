//! `vingt-operator cleanup`: takes everything back that would be left behind
//! when the chart goes. It is run before anything is deleted, and can be
//! repeated.
//!
//! The order matters: the operator stops, else it would do everything again;
//! namespaces lose their label, so that no more pods are gated; only then
//! waiting pods are let go.

use std::time::Duration;

use anyhow::Context as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use vingt_crds::{InferenceJob, TrainingJob, names};

use crate::cli::CleanupArgs;
use crate::client::connect;

/// How long the pods of jobs may take to leave.
const LEAVE: Duration = Duration::from_secs(120);
const PAUSE: Duration = Duration::from_millis(500);

/// Takes everything back.
pub async fn cleanup(args: CleanupArgs) -> anyhow::Result<()> {
    let client = connect().await?;
    stop_operator(&client, &args).await?;
    let labelled = ListParams::default().labels(names::TENANT_LABEL);
    let unlabel = json!({"metadata": {"labels": {names::TENANT_LABEL: null}}});
    let count = patch_all::<Namespace>(&client, &labelled, |_| Some(unlabel.clone())).await?;
    println!("{count} namespaces are no tenant's any more");

    let finalizers = |finalizers: &[String]| {
        let ours = finalizers.iter().any(|finalizer| finalizer == names::JOB_FINALIZER);
        let rest: Vec<_> = finalizers.iter().filter(|finalizer| *finalizer != names::JOB_FINALIZER).collect();
        ours.then(|| json!({"metadata": {"finalizers": rest}}))
    };
    let all = ListParams::default();
    let count = patch_all::<TrainingJob>(&client, &all, |job| finalizers(job.finalizers())).await?
        + patch_all::<InferenceJob>(&client, &all, |job| finalizers(job.finalizers())).await?;
    println!("{count} jobs lost their finalizer");

    let ours = format!("{}={}", names::MANAGED_BY_LABEL, names::OPERATOR);
    let made = ListParams::default().labels(&ours);
    let count = delete_all::<Job>(&client, &made).await? + delete_all::<Deployment>(&client, &made).await?;
    println!("{count} Jobs and Deployments of jobs are deleted");

    let count = patch_all::<Pod>(&client, &all, release).await?;
    println!("{count} waiting pods are released");
    wait_for_pods(&client).await?;
    let count = take_back_claims(&client).await?;
    println!("{count} claims lost their decision record");

    let count = delete_all::<ResourceClaimTemplate>(&client, &made).await?
        + delete_all::<Service>(&client, &made).await?;
    println!("{count} claim templates and Services are deleted");
    Ok(())
}

/// Scales the operator down and waits until nobody holds its lease.
async fn stop_operator(client: &Client, args: &CleanupArgs) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &args.namespace);
    let none = json!({"spec": {"replicas": 0}});
    let scaled =
        deployments.patch_scale(&args.deployment, &PatchParams::default(), &Patch::Merge(&none)).await;
    ignore_missing(scaled.map(|_| ())).context("the operator cannot be stopped")?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), &args.namespace);
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let Some(lease) = leases.get_opt(&args.lease_name).await? else { break };
        let spec = lease.spec.unwrap_or_default();
        let held = spec.holder_identity.as_deref().is_some_and(|holder| !holder.is_empty());
        let until = spec.renew_time.map_or(Timestamp::UNIX_EPOCH, |time| time.0).as_second()
            + i64::from(spec.lease_duration_seconds.unwrap_or(0));
        if !held || until < Timestamp::now().as_second() {
            break;
        }
        anyhow::ensure!(
            Instant::now() < deadline,
            "the operator does not stop: it still renews lease {}",
            args.lease_name
        );
        sleep(PAUSE).await;
    }
    ignore_missing(leases.delete(&args.lease_name, &DeleteParams::default()).await.map(|_| ()))?;
    println!("the operator is stopped");
    Ok(())
}

/// The patch that lets a waiting pod go.
fn release(pod: &Pod) -> Option<Value> {
    let waiting = pod.annotations().contains_key(names::WAIT_REASON);
    let gates = pod.spec.as_ref()?.scheduling_gates.as_deref().unwrap_or_default();
    let held = gates.iter().any(|gate| gate.name == names::GATE);
    let rest: Vec<_> = gates.iter().filter(|gate| gate.name != names::GATE).collect();
    let metadata = json!({"annotations": {names::WAIT_REASON: null}});
    match (held, waiting) {
        (true, _) => Some(json!({"metadata": metadata, "spec": {"schedulingGates": rest}})),
        (false, true) => Some(json!({"metadata": metadata})),
        (false, false) => None,
    }
}

/// Waits until the pods of jobs are gone, so that their claims are free.
async fn wait_for_pods(client: &Client) -> anyhow::Result<()> {
    let pods: Api<Pod> = Api::all(client.clone());
    let deadline = Instant::now() + LEAVE;
    for label in [names::TRAINING_JOB_LABEL, names::INFERENCE_JOB_LABEL] {
        loop {
            let left = pods.list_metadata(&ListParams::default().labels(label)).await?.items.len();
            if left == 0 {
                break;
            }
            if Instant::now() > deadline {
                println!(
                    "{left} pods of jobs have not left yet: their claims are freed by Kubernetes when they have"
                );
                break;
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Decisions that no pod got to use are undone; the record goes from all claims, and what holds them for the ledger.
async fn take_back_claims(client: &Client) -> anyhow::Result<usize> {
    let all: Api<ResourceClaim> = Api::all(client.clone());
    let mut count = 0;
    for claim in all.list(&ListParams::default()).await?.items {
        let held = claim.finalizers().iter().any(|finalizer| finalizer == names::LEDGER_FINALIZER);
        if !claim.annotations().contains_key(names::DECISION) && !held {
            continue;
        }
        let api: Api<ResourceClaim> = Api::namespaced(client.clone(), &claim.namespace().unwrap_or_default());
        let name = claim.name_any();
        let status = claim.status.clone().unwrap_or_default();
        let used = status.reserved_for.as_ref().is_some_and(|consumers| !consumers.is_empty());
        let params = PatchParams::default();
        if status.allocation.is_some() && !used {
            let free = json!({"status": {"allocation": null, "reservedFor": null}});
            ignore_missing(api.patch_status(&name, &params, &Patch::Merge(&free)).await.map(|_| ()))?;
        }
        let ours = |finalizer: &&String| {
            *finalizer == names::LEDGER_FINALIZER || (!used && *finalizer == names::CLAIM_FINALIZER)
        };
        let rest: Vec<_> = claim.finalizers().iter().filter(|finalizer| !ours(finalizer)).collect();
        let mut metadata = json!({"annotations": {names::DECISION: null, names::ENDED: null}});
        if rest.len() < claim.finalizers().len() {
            metadata["finalizers"] = json!(rest);
        }
        ignore_missing(
            api.patch(&name, &params, &Patch::Merge(&json!({"metadata": metadata}))).await.map(|_| ()),
        )?;
        count += 1;
    }
    Ok(count)
}

/// Patches every object that `patch` has something for.
async fn patch_all<K>(
    client: &Client,
    params: &ListParams,
    patch: impl Fn(&K) -> Option<Value>,
) -> anyhow::Result<usize>
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let all: Api<K> = Api::all(client.clone());
    let kind = K::kind(&());
    let resource = ApiResource::erase::<K>(&());
    let objects = match all.list(params).await {
        Err(kube::Error::Api(status)) if status.code == 404 => return Ok(0),
        other => other.with_context(|| format!("{kind}: cannot be listed"))?,
    };
    let mut count = 0;
    for object in objects.items {
        let Some(patch) = patch(&object) else { continue };
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(client.clone(), &namespace, &resource),
            None => Api::all_with(client.clone(), &resource),
        };
        let patched = api.patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(&patch)).await;
        ignore_missing(patched.map(|_| ()))
            .with_context(|| format!("{kind} {}: cannot be patched", object.name_any()))?;
        count += 1;
    }
    Ok(count)
}

/// Deletes every object of the list, and what it owns after it.
async fn delete_all<K>(client: &Client, params: &ListParams) -> anyhow::Result<usize>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let all: Api<K> = Api::all(client.clone());
    let objects = all.list_metadata(params).await?.items;
    let count = objects.len();
    for object in objects {
        let namespace = object.metadata.namespace.clone().unwrap_or_default();
        let api: Api<K> = Api::namespaced(client.clone(), &namespace);
        let name = object.metadata.name.clone().unwrap_or_default();
        ignore_missing(api.delete(&name, &DeleteParams::background()).await.map(|_| ()))?;
    }
    Ok(count)
}

fn ignore_missing(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &Value, annotations: &Value) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "p", "annotations": annotations}, "spec": spec}))
            .unwrap()
    }

    #[test]
    fn a_waiting_pod_loses_our_gate_and_keeps_others() {
        let gates = json!([{"name": "other"}, {"name": "vingt.dev/admission"}]);
        let patch = release(&pod(&json!({"containers": [], "schedulingGates": gates}), &json!({})));
        assert_eq!(
            patch,
            Some(
                json!({"metadata": {"annotations": {"vingt.dev/waiting": null}}, "spec": {"schedulingGates": [{"name": "other"}]}})
            )
        );
        assert_eq!(
            release(&pod(&json!({"containers": [], "schedulingGates": [{"name": "other"}]}), &json!({}))),
            None
        );
    }
}
