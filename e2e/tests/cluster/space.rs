//! A trial's own place in the cluster: a namespace that is its own tenant's,
//! nodes nobody else uses, and what a trial does there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceClaimTemplate};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, Resource};
use nvml_emulator::{Emulator, Partition};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use vingt_crds::{InferenceJob, InferenceJobStatus, Tenant, TrainingJob, TrainingJobStatus, names};
use vingt_e2e::virtual_node::VirtualNode;
use vingt_e2e::{Lab, wait_for};

use crate::audit::{Auditor, device_name, devices};
use crate::http::{Answer, Call, Paths, User};

/// How long anything may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(240);
/// Label on the nodes of a trial: its namespace.
const TRIAL: &str = "lab.vingt.dev/trial";

/// A trial's place.
pub struct Space<'a> {
    /// The lab.
    pub lab: &'a Lab,
    /// The auditor.
    pub auditor: &'a Auditor,
    /// Namespace and tenant.
    pub name: String,
    /// A client with all rights.
    pub admin: Client,
    nodes: Vec<usize>,
    paths: Mutex<Paths>,
}

impl<'a> Space<'a> {
    /// Makes the namespace and, unless `limit` is `None`, its tenant; an empty
    /// limit is none.
    pub async fn make(
        lab: &'a Lab,
        auditor: &'a Auditor,
        id: &str,
        nodes: Vec<usize>,
        limit: Option<&str>,
    ) -> Result<Self> {
        let space = Self {
            lab,
            auditor,
            name: format!("t-{id}"),
            admin: lab.admin(),
            nodes,
            paths: Mutex::default(),
        };
        let name = &space.name;
        for node in space.nodes() {
            space.label(node.name(), json!(name)).await?;
        }
        space.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}")).await?;
        if let Some(limit) = limit {
            let limit = if limit.is_empty() { String::new() } else { format!(", limitGPUs: {limit}") };
            space
                .apply(&format!(
                    "{{apiVersion: vingt.dev/v1alpha1, kind: Tenant, metadata: {{name: {name}}}, \
                     spec: {{namespaces: {{names: [{name}]}}{limit}}}}}"
                ))
                .await?;
            space.is_tenants().await?;
        }
        Ok(space)
    }

    /// Waits until the namespace is labelled and has the ready-made templates.
    async fn is_tenants(&self) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.admin.clone());
        let templates: Api<ResourceClaimTemplate> = self.api();
        wait_for(SOON, "the namespace to be the tenant's, with claim templates", || async {
            let labels = namespaces.get(&self.name).await?.metadata.labels.unwrap_or_default();
            let labelled = labels.get(names::TENANT_LABEL) == Some(&self.name);
            let there = templates.get_opt("mig-1g.10gb").await?.is_some();
            Ok((labelled && there).then_some(()))
        })
        .await
    }

    async fn label(&self, node: &str, value: Value) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let patch = Patch::Merge(json!({"metadata": {"labels": {TRIAL: value}}}));
        nodes.patch(node, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    /// Removes everything, and fails if something stays behind on the nodes.
    pub async fn remove(&self) -> Result<()> {
        let now = DeleteParams::default();
        let tenants: Api<Tenant> = Api::all(self.admin.clone());
        let namespaces: Api<Namespace> = Api::all(self.admin.clone());
        namespaces.delete(&self.name, &now).await?;
        let gone = wait_for(SOON, "the trial's namespace to be gone", || async {
            Ok(namespaces.get_opt(&self.name).await?.is_none().then_some(()))
        })
        .await;
        if let Err(error) = gone {
            let left = namespaces.get_opt(&self.name).await?.and_then(|namespace| namespace.status);
            let conditions = left.and_then(|status| status.conditions).unwrap_or_default();
            let why: Vec<String> = conditions.into_iter().filter_map(|condition| condition.message).collect();
            return Err(error.context(why.join("; ")));
        }
        if tenants.get_opt(&self.name).await?.is_some() {
            tenants.delete(&self.name, &now).await?;
        }
        self.nodes_are_empty().await?;
        for node in self.nodes() {
            self.label(node.name(), Value::Null).await?;
        }
        Ok(())
    }

    /// Waits until no partition is left on the trial's nodes.
    pub async fn nodes_are_empty(&self) -> Result<()> {
        let left = || self.nodes().map(partitions).collect::<Result<Vec<_>>>();
        let empty = || async { Ok(left()?.iter().all(BTreeMap::is_empty).then_some(())) };
        wait_for(SOON, "all partitions of the trial's nodes to be gone", empty)
            .await
            .with_context(|| format!("left: {:?}", left()))
    }

    /// The trial's nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &'a VirtualNode> {
        self.nodes.iter().filter_map(|index| self.lab.nodes().get(*index))
    }

    /// One of the trial's nodes.
    pub fn node(&self, index: usize) -> Result<&'a VirtualNode> {
        self.nodes().nth(index).context("the trial asked for too few nodes")
    }

    /// Objects of the trial's namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.admin.clone(), &self.name)
    }

    /// Objects in YAML, with `@nodes` for a node selector of the trial's nodes
    /// and `@space` for its name.
    pub fn read(&self, yaml: &str) -> Result<Vec<Value>> {
        let text =
            yaml.replace("@nodes", &format!("{{{TRIAL}: {}}}", self.name)).replace("@space", &self.name);
        let mut objects = Vec::new();
        for document in serde_yaml::Deserializer::from_str(&text) {
            let mut object = Value::deserialize(document).with_context(|| format!("in {text}"))?;
            if object["kind"] != "Namespace" && object["metadata"]["namespace"].is_null() {
                object["metadata"]["namespace"] = json!(self.name);
            }
            objects.push(object);
        }
        Ok(objects)
    }

    /// Creates objects, see [`Space::read`]; all must be accepted.
    pub async fn apply(&self, yaml: &str) -> Result<()> {
        for object in self.read(yaml)? {
            let answer = self.create(&User::default(), &object).await?;
            let name = &object["metadata"]["name"];
            ensure!(answer.code < 300, "{} {name} was refused: {}", object["kind"], answer.message());
        }
        Ok(())
    }

    /// Tries to create one object, see [`Space::read`].
    pub async fn try_apply(&self, yaml: &str) -> Result<Answer> {
        let object = self.read(yaml)?.pop().context("no object")?;
        self.create(&User::default(), &object).await
    }

    /// Tries to create an object as somebody.
    pub async fn create(&self, user: &User, object: &Value) -> Result<Answer> {
        let path = self.paths.lock().await.of(&self.admin, object, false).await?;
        let call =
            Call { method: http::Method::POST, path, content: "application/json", body: object.clone() };
        call.send(&self.admin, user).await
    }

    /// Tries to change an object by a merge patch, as somebody. `subresource`
    /// may be empty.
    pub async fn patch(
        &self,
        user: &User,
        target: &Value,
        subresource: &str,
        change: Value,
    ) -> Result<Answer> {
        let mut path = self.paths.lock().await.of(&self.admin, target, true).await?;
        if !subresource.is_empty() {
            path = format!("{path}/{subresource}");
        }
        let call =
            Call { method: http::Method::PATCH, path, content: "application/merge-patch+json", body: change };
        call.send(&self.admin, user).await
    }

    /// Deletes an object; that it is gone already is no error.
    pub async fn delete<K>(&self, name: &str) -> Result<()>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
        K::DynamicType: Default,
    {
        match self.api::<K>().delete(name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop).map_err(Into::into),
        }
    }

    /// The status of a `TrainingJob`.
    pub async fn training(&self, name: &str) -> Result<TrainingJobStatus> {
        Ok(self.api::<TrainingJob>().get(name).await?.status.unwrap_or_default())
    }

    /// The status of an `InferenceJob`.
    pub async fn inference(&self, name: &str) -> Result<InferenceJobStatus> {
        Ok(self.api::<InferenceJob>().get(name).await?.status.unwrap_or_default())
    }

    /// Waits until a `TrainingJob` is in this state; its status then.
    pub async fn training_is(&self, name: &str, state: &str) -> Result<TrainingJobStatus> {
        let status = |status: TrainingJobStatus| (status.state == state).then_some(status);
        let what = format!("training job {name} to be {state}");
        let reached = wait_for(SOON, &what, || async { Ok(status(self.training(name).await?)) });
        match reached.await {
            Ok(status) => Ok(status),
            Err(error) => {
                let now = self.training(name).await?;
                Err(error.context(format!("it is {} {}: {}", now.state, now.workers, now.why)))
            }
        }
    }

    /// Waits until an `InferenceJob` says this of its replicas, as `3/3`.
    pub async fn inference_is(&self, name: &str, ready: &str) -> Result<InferenceJobStatus> {
        let status = |status: InferenceJobStatus| (status.ready == ready).then_some(status);
        let what = format!("inference job {name} to be {ready} ready");
        let reached = wait_for(SOON, &what, || async { Ok(status(self.inference(name).await?)) });
        match reached.await {
            Ok(status) => Ok(status),
            Err(error) => {
                let now = self.inference(name).await?;
                Err(error.context(format!("it is {} {}: {}", now.state, now.ready, now.why)))
            }
        }
    }

    /// The pods of the namespace, by name.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        Ok(self.api::<Pod>().list(&ListParams::default()).await?.items)
    }

    /// Waits until a pod is in this phase.
    pub async fn pod_is(&self, name: &str, phase: &str) -> Result<Pod> {
        wait_for(SOON, &format!("pod {name} to be {phase}"), || async {
            let pod = self.api::<Pod>().get(name).await?;
            let found = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            Ok((found == Some(phase)).then_some(pod))
        })
        .await
    }

    /// What the pod says it waits for.
    pub async fn waits_for(&self, pod: &str, words: &str) -> Result<Pod> {
        let what = format!("pod {pod} to wait for {words:?}");
        let said = wait_for(SOON, &what, || async {
            let pod = self.api::<Pod>().get(pod).await?;
            Ok(reason(&pod).contains(words).then_some(pod))
        });
        match said.await {
            Ok(pod) => Ok(pod),
            Err(error) => {
                let now = self.api::<Pod>().get(pod).await?;
                Err(error.context(format!("it says {:?}", reason(&now))))
            }
        }
    }

    /// The devices that claims of the namespace hold, as (node, device), by
    /// claim.
    pub async fn held(&self) -> Result<BTreeMap<String, Vec<(String, String)>>> {
        let claims = self.api::<ResourceClaim>().list(&ListParams::default()).await?.items;
        let held = claims.iter().map(|claim| {
            let devices = devices(claim).map(|(node, device)| (node.to_owned(), device.to_owned()));
            (claim.metadata.name.clone().unwrap_or_default(), devices.collect::<Vec<_>>())
        });
        Ok(held.filter(|(_, devices)| !devices.is_empty()).collect())
    }

    /// Checks that the claims of the namespace hold these many devices, each
    /// once, all on the trial's nodes, and that NVML shows just those
    /// partitions. Answers them.
    pub async fn holds(&self, count: usize) -> Result<BTreeSet<(String, String)>> {
        let held = self.held().await?;
        let all: Vec<(String, String)> = held.into_values().flatten().collect();
        let devices: BTreeSet<(String, String)> = all.iter().cloned().collect();
        ensure!(all.len() == devices.len(), "a device is held twice: {all:?}");
        ensure!(devices.len() == count, "{count} devices are to be held, not {devices:?}");
        let mut there = BTreeSet::new();
        for node in self.nodes() {
            let name = node.name();
            there.extend(partitions(node)?.into_keys().map(|device| (name.to_owned(), device)));
        }
        let cut: BTreeSet<_> =
            devices.iter().filter(|(_, device)| device.contains("-mig-")).cloned().collect();
        ensure!(there == cut, "NVML shows {there:?}, the claims hold {cut:?}");
        Ok(devices)
    }

    /// Waits until the tenant is said to use these many units.
    pub async fn uses(&self, units: u64) -> Result<()> {
        let tenants: Api<Tenant> = Api::all(self.admin.clone());
        wait_for(SOON, &format!("the tenant to use {units} units"), || async {
            let status = tenants.get(&self.name).await?.status.unwrap_or_default();
            Ok((status.used_units == units).then_some(()))
        })
        .await
    }
}

/// What a pod says it waits for; empty if nothing.
pub fn reason(pod: &Pod) -> &str {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(names::WAIT_REASON)).map_or("", String::as_str)
}

/// Whether a pod has our gate.
pub fn gated(pod: &Pod) -> bool {
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_ref());
    gates.into_iter().flatten().any(|gate| gate.name == names::GATE)
}

/// The emulated GPUs of a node.
pub fn emulator(node: &VirtualNode) -> Result<Emulator> {
    Ok(Emulator::open(&node.folder().join("gpu"))?)
}

/// The partitions of a node, by device name.
pub fn partitions(node: &VirtualNode) -> Result<BTreeMap<String, Partition>> {
    let gpus = emulator(node)?.occupancy()?.into_iter();
    let all = gpus.flat_map(|gpu| {
        gpu.partitions.into_iter().map(move |partition| (device_name(gpu.minor, &partition), partition))
    });
    Ok(all.collect())
}
