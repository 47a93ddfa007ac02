//! `vingt-operator check`: is everything that the chart installs there, and at
//! work? For `helm test`; it changes nothing.

use anyhow::bail;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingAdmissionPolicy, MutatingAdmissionPolicyBinding, ValidatingAdmissionPolicy,
    ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceSlice};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use vingt_crds::names;

use crate::cli::CheckArgs;
use crate::client::{connect, words};

/// The policies without which a tenant could take devices by itself.
const VALIDATING: [&str; 10] = [
    "pods.vingt.dev",
    "gate-removal.vingt.dev",
    "claim-metadata.vingt.dev",
    "claim-status.vingt.dev",
    "slices.vingt.dev",
    "tenant-class.vingt.dev",
    "reserves.vingt.dev",
    "reserve-status.vingt.dev",
    "orders.vingt.dev",
    "reports.vingt.dev",
];
/// The kinds of the API.
const KINDS: [&str; 6] =
    ["trainingjobs", "inferencejobs", "tenants", "sovereignreserves", "sovereignorders", "usagereports"];
/// The policy that puts the gate on.
const MUTATING: &str = "gate.vingt.dev";
/// How old a renewal of the lease may be.
const RENEWED_WITHIN: SignedDuration = SignedDuration::from_secs(20);

/// Says of each thing whether it is as it should be; fails if one isn't.
pub async fn check(args: CheckArgs) -> anyhow::Result<()> {
    let client = connect().await?;
    let findings = [
        ("custom resources", kinds(&client).await),
        ("policies", policies(&client, args.without_policies).await),
        ("device classes", classes(&client).await),
        ("priority class", exists::<PriorityClass>(&client, &[names::PRIORITY_CLASS]).await),
        ("operator", lease(&client, &args.namespace, &args.lease_name).await),
        ("agents", agents(&client, &args.namespace).await),
    ];
    let mut wrong = 0;
    for (what, finding) in &findings {
        match finding {
            Ok(words) => println!("ok    {what}: {words}"),
            Err(words) => {
                wrong += 1;
                println!("WRONG {what}: {words}");
            }
        }
    }
    if wrong > 0 {
        bail!("{wrong} of {} checks failed", findings.len());
    }
    Ok(())
}

type Finding = Result<String, String>;

async fn kinds(client: &Client) -> Finding {
    let wanted: Vec<String> = KINDS.iter().map(|plural| format!("{plural}.{}", names::GROUP)).collect();
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in &wanted {
        let crd = api.get(name).await.map_err(|error| format!("{name}: {}", words(&error)))?;
        let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
        if !conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
        {
            return Err(format!("{name} is not established"));
        }
    }
    Ok(format!("{} are established", wanted.len()))
}

async fn policies(client: &Client, without: bool) -> Finding {
    if without {
        return Ok("not asked for".to_owned());
    }
    exists::<MutatingAdmissionPolicy>(client, &[MUTATING]).await?;
    exists::<MutatingAdmissionPolicyBinding>(client, &[MUTATING]).await?;
    exists::<ValidatingAdmissionPolicy>(client, &VALIDATING).await?;
    exists::<ValidatingAdmissionPolicyBinding>(client, &VALIDATING).await?;
    Ok(format!("{} are there and bound", VALIDATING.len() + 1))
}

async fn classes(client: &Client) -> Finding {
    exists::<DeviceClass>(client, &[names::CLASS_GPU, names::CLASS_MIG]).await?;
    let labelled = ListParams::default().labels(names::CLAIM_TEMPLATE_LABEL);
    let api: Api<DeviceClass> = Api::all(client.clone());
    let labelled = api.list(&labelled).await.map_err(|error| words(&error))?;
    Ok(format!("{} have a claim template", labelled.items.len()))
}

async fn exists<K>(client: &Client, wanted: &[&str]) -> Finding
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::ClusterResourceScope>
        + Clone
        + std::fmt::Debug
        + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    for name in wanted {
        api.get_metadata(name)
            .await
            .map_err(|error| format!("{} {name}: {}", K::kind(&()), words(&error)))?;
    }
    Ok(wanted.join(", "))
}

async fn lease(client: &Client, namespace: &str, name: &str) -> Finding {
    let api: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let lease =
        api.get(name).await.map_err(|error| format!("lease {namespace}/{name}: {}", words(&error)))?;
    let spec = lease.spec.unwrap_or_default();
    let holder = spec
        .holder_identity
        .filter(|holder| !holder.is_empty())
        .ok_or("nobody holds the lease: no operator leads")?;
    let renewed = spec.renew_time.map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let age = Timestamp::now().duration_since(renewed);
    if age > RENEWED_WITHIN {
        return Err(format!("{holder} renewed the lease {} s ago: it leads no more", age.as_secs()));
    }
    Ok(format!("{holder} leads"))
}

async fn agents(client: &Client, namespace: &str) -> Finding {
    let api: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let daemons =
        api.get("vingt-agent").await.map_err(|error| format!("daemon set vingt-agent: {}", words(&error)))?;
    let status = daemons.status.unwrap_or_default();
    let (wanted, ready) = (status.desired_number_scheduled, status.number_ready);
    if ready < wanted {
        return Err(format!(
            "{ready} of {wanted} agents are ready: `kubectl -n {namespace} get pods` tells which"
        ));
    }
    let ours = ListParams::default().fields(&format!("spec.driver={}", names::DRIVER));
    let api: Api<ResourceSlice> = Api::all(client.clone());
    let slices = api.list(&ours).await.map_err(|error| words(&error))?;
    let nodes: std::collections::BTreeSet<_> =
        slices.items.iter().filter_map(|slice| slice.spec.node_name.clone()).collect();
    if wanted > 0 && nodes.is_empty() {
        return Err("no node publishes GPUs: the agents' logs say why".to_owned());
    }
    Ok(format!("{ready} of {wanted} are ready; {} nodes publish GPUs", nodes.len()))
}
