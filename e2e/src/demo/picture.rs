//! What the demo shows, read from the API server: the jobs, and what lies on
//! which GPU. No drawing here.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{Device, ResourceClaim, ResourceSlice};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

const DRIVER: &str = "gpu.vingt.dev";
const TRAINING_JOB: &str = "vingt.dev/training-job";
const INFERENCE_JOB: &str = "vingt.dev/inference-job";
const WAITING: &str = "vingt.dev/waiting";

/// Everything at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// The jobs, by namespace and name.
    pub jobs: Vec<Job>,
    /// What lies on the GPUs, by node and minor number.
    pub gpus: BTreeMap<(String, i64), Gpu>,
}

/// A job of ours, or a Deployment that claims a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Job {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// One word.
    pub state: String,
    /// What each worker asks for.
    pub gpu: String,
    /// Ready of wanted.
    pub ready: String,
    /// Where it runs, in short.
    pub nodes: String,
    /// Why it waits.
    pub why: String,
}

/// One GPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Gpu {
    /// Memory slices it has.
    pub slices: i64,
    /// Allocated devices.
    pub taken: BTreeSet<Taken>,
}

/// An allocated device.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taken {
    /// First memory slice.
    pub start: i64,
    /// Memory slices.
    pub size: i64,
    /// MIG profile; none for a whole GPU.
    pub profile: Option<String>,
    /// Namespace and name of the job.
    pub job: (String, String),
    /// Its pod.
    pub pod: String,
    /// UUID of the GPU it is (part of).
    pub gpu_uuid: String,
}

/// Reads everything.
pub async fn take(client: &Client) -> Result<Picture> {
    let pods = list::<Pod>(client).await?;
    let pods: BTreeMap<(String, String), Pod> =
        pods.into_iter().map(|pod| ((pod.namespace().unwrap_or_default(), pod.name_any()), pod)).collect();
    let mut jobs = Vec::new();
    for kind in ["TrainingJob", "InferenceJob"] {
        let gvk = GroupVersionKind::gvk("vingt.dev", "v1alpha1", kind);
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk(&gvk));
        let found = api.list(&ListParams::default()).await?;
        jobs.extend(found.items.iter().map(|object| our_job(kind, object)));
    }
    for deployment in list::<Deployment>(client).await? {
        jobs.extend(deployment_job(&deployment, &pods));
    }
    jobs.sort();
    let mut gpus = gpus(&list::<ResourceSlice>(client).await?);
    for claim in list::<ResourceClaim>(client).await? {
        place(&claim, &pods, &mut gpus);
    }
    let gpus = gpus.into_iter().map(|(key, (gpu, _))| (key, gpu)).collect();
    Ok(Picture { jobs, gpus })
}

async fn list<K>(client: &Client) -> Result<Vec<K>>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    Ok(Api::<K>::all(client.clone()).list(&ListParams::default()).await?.items)
}

fn our_job(kind: &'static str, object: &DynamicObject) -> Job {
    let text = |field: &str| {
        let value = &object.data["status"][field];
        value.as_str().map(ToOwned::to_owned).unwrap_or_default()
    };
    let ready = if kind == "TrainingJob" { "workers" } else { "ready" };
    Job {
        kind,
        namespace: object.namespace().unwrap_or_default(),
        name: object.name_any(),
        state: text("state"),
        gpu: text("gpu"),
        ready: text(ready),
        nodes: text("nodes"),
        why: text("why"),
    }
}

/// The row of a Deployment, if its pods claim a device and no job of ours owns
/// it.
fn deployment_job(deployment: &Deployment, pods: &BTreeMap<(String, String), Pod>) -> Option<Job> {
    if deployment.owner_references().iter().any(|owner| owner.kind == "InferenceJob") {
        return None;
    }
    let spec = &deployment.spec;
    let claims = spec.template.spec.as_ref()?.resource_claims.as_ref()?;
    let namespace = deployment.namespace().unwrap_or_default();
    let labels = spec.selector.match_labels.clone().unwrap_or_default();
    let mut nodes = BTreeSet::new();
    let mut why = String::new();
    for ((of, _), pod) in pods {
        let mine = labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value));
        if *of != namespace || !mine {
            continue;
        }
        nodes.extend(pod.spec.as_ref().and_then(|spec| spec.node_name.clone()));
        if let Some(reason) = pod.annotations().get(WAITING) {
            why.clone_from(reason);
        }
    }
    let wanted = spec.replicas.unwrap_or(1);
    let ready = deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or_default();
    let state = match ready {
        ready if ready >= wanted => "Running",
        _ if !why.is_empty() => "Waiting",
        _ => "Starting",
    };
    Some(Job {
        kind: "Deployment",
        namespace,
        name: deployment.name_any(),
        state: state.to_owned(),
        gpu: claims
            .iter()
            .filter_map(|claim| claim.resource_claim_template_name.clone())
            .collect::<Vec<_>>()
            .join(", "),
        ready: format!("{ready}/{wanted}"),
        nodes: nodes.into_iter().collect::<Vec<_>>().join(","),
        why: if ready >= wanted { String::new() } else { why },
    })
}

type Devices = BTreeMap<String, Device>;

/// The GPUs that are published, with their devices by name.
fn gpus(slices: &[ResourceSlice]) -> BTreeMap<(String, i64), (Gpu, Devices)> {
    let mut found: BTreeMap<(String, i64), (Gpu, Devices)> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| slice.spec.driver == DRIVER) {
        for device in slice.spec.devices.iter().flatten() {
            let minor = number(device, "minor").unwrap_or_default();
            let (gpu, devices) = found.entry((slice.spec.pool.name.clone(), minor)).or_default();
            gpu.slices = gpu.slices.max(end(device)).max(8);
            devices.insert(device.name.clone(), device.clone());
        }
    }
    found
}

fn end(device: &Device) -> i64 {
    number(device, "placementStart").unwrap_or_default() + number(device, "placementSize").unwrap_or_default()
}

fn number(device: &Device, name: &str) -> Option<i64> {
    device.attributes.as_ref()?.get(name)?.int
}

fn string(device: &Device, name: &str) -> Option<String> {
    device.attributes.as_ref()?.get(name)?.string.clone()
}

/// Puts what a claim holds onto its GPUs.
fn place(
    claim: &ResourceClaim,
    pods: &BTreeMap<(String, String), Pod>,
    gpus: &mut BTreeMap<(String, i64), (Gpu, Devices)>,
) {
    let namespace = claim.namespace().unwrap_or_default();
    let Some(status) = &claim.status else { return };
    let devices = status.allocation.as_ref().and_then(|found| found.devices.as_ref());
    let results = devices.and_then(|devices| devices.results.as_ref());
    let consumer = status.reserved_for.as_ref().and_then(|all| all.first());
    let pod = consumer.map(|pod| pod.name.clone()).unwrap_or_default();
    let labels = pods.get(&(namespace.clone(), pod.clone())).map(|pod| pod.labels().clone());
    let labels = labels.unwrap_or_default();
    let job = [TRAINING_JOB, INFERENCE_JOB, "app"].iter().find_map(|key| labels.get(*key));
    let job = (namespace, job.cloned().unwrap_or_else(|| pod.clone()));
    for result in results.into_iter().flatten().filter(|result| result.driver == DRIVER) {
        let on = gpus
            .iter_mut()
            .find(|((pool, _), (_, devices))| *pool == result.pool && devices.contains_key(&result.device));
        let Some((_, (gpu, devices))) = on else { continue };
        let Some(device) = devices.get(&result.device) else { continue };
        let whole = string(device, "type").as_deref() == Some("gpu");
        let uuid = string(device, if whole { "uuid" } else { "parentUUID" });
        gpu.taken.insert(Taken {
            start: number(device, "placementStart").unwrap_or_default(),
            size: if whole { gpu.slices } else { number(device, "placementSize").unwrap_or(1) },
            profile: if whole { None } else { string(device, "profile") },
            job: job.clone(),
            pod: pod.clone(),
            gpu_uuid: uuid.unwrap_or_default(),
        });
    }
}

/// What NVML shows somewhere, as `vingt-agent devices -o json` prints it: for
/// each partition the GPU's UUID, the profile and the partition's UUID.
pub fn partitions(devices: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut found = Vec::new();
    for gpu in devices.as_array().into_iter().flatten() {
        for partition in gpu["partitions"].as_array().into_iter().flatten() {
            found.push((text(&gpu["uuid"]), text(&partition["profile"]), text(&partition["uuid"])));
        }
    }
    found
}
