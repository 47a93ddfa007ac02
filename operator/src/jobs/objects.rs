//! The objects that jobs are made of, as they are written: Job, Deployment,
//! Service and `ResourceClaimTemplate`.

use serde_json::{Map, Value, json};
use vingt_crds::{GpuRequest, InferenceJob, TrainingJob, names};

use super::template::{Completion, claim_template_name, complete};
use crate::snapshot::ask::AskedDevices;

/// Port of the rendezvous of a gang.
const MASTER_PORT: u16 = 29_500;

/// Annotation with the generation of the job that an object was made for.
pub const GENERATION: &str = "vingt.dev/generation";

/// Whose objects these are.
pub struct Parent<'a> {
    kind: &'static str,
    name: &'a str,
    namespace: &'a str,
    uid: &'a str,
    generation: i64,
    label: &'static str,
}

impl<'a> Parent<'a> {
    /// A `TrainingJob`.
    pub fn training(job: &'a TrainingJob) -> Self {
        Self::new("TrainingJob", &job.metadata, names::TRAINING_JOB_LABEL)
    }

    /// An `InferenceJob`.
    pub fn inference(job: &'a InferenceJob) -> Self {
        Self::new("InferenceJob", &job.metadata, names::INFERENCE_JOB_LABEL)
    }

    fn new(
        kind: &'static str,
        meta: &'a k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
        label: &'static str,
    ) -> Self {
        Self {
            kind,
            name: meta.name.as_deref().unwrap_or_default(),
            namespace: meta.namespace.as_deref().unwrap_or_default(),
            uid: meta.uid.as_deref().unwrap_or_default(),
            generation: meta.generation.unwrap_or(0),
            label,
        }
    }

    fn metadata(&self, name: &str) -> Value {
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": {self.label: self.name, names::MANAGED_BY_LABEL: names::OPERATOR},
            "annotations": {GENERATION: self.generation.to_string()},
            "ownerReferences": [{
                "apiVersion": format!("{}/v1alpha1", names::GROUP),
                "kind": self.kind,
                "name": self.name,
                "uid": self.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        })
    }

    /// The `ResourceClaimTemplate` of the pods' claims.
    pub fn claim_template(&self, gpu: &GpuRequest) -> Value {
        let asked = asked(gpu);
        let mut request =
            json!({"deviceClassName": asked.class, "allocationMode": "ExactCount", "count": asked.count});
        if !asked.selectors.is_empty() {
            request["selectors"] =
                asked.selectors.iter().map(|text| json!({"cel": {"expression": text}})).collect();
        }
        json!({
            "apiVersion": "resource.k8s.io/v1",
            "kind": "ResourceClaimTemplate",
            "metadata": self.metadata(&claim_template_name(self.name)),
            "spec": {
                "metadata": {"labels": {self.label: self.name}},
                "spec": {"devices": {"requests": [{"name": asked.request, "exactly": request}]}},
            },
        })
    }

    /// A Service for the pods; one without a port is headless, for their names.
    pub fn service(&self, port: Option<i32>) -> Value {
        let spec = match port {
            Some(port) => json!({
                "selector": {self.label: self.name},
                "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
            }),
            None => json!({
                "clusterIP": "None",
                "publishNotReadyAddresses": true,
                "selector": {self.label: self.name},
                "ports": [{"name": "rendezvous", "port": MASTER_PORT, "protocol": "TCP"}],
            }),
        };
        json!({"apiVersion": "v1", "kind": "Service", "metadata": self.metadata(self.name), "spec": spec})
    }
}

/// What one pod of a job asks for; the selectors are those beside the class's.
pub fn asked(gpu: &GpuRequest) -> AskedDevices {
    let (class, count, selectors) = match (&gpu.profile, &gpu.memory, gpu.count) {
        (Some(profile), ..) => {
            let selector = format!(r#"device.attributes["{}"].profile == "{profile}""#, names::DRIVER);
            (names::CLASS_MIG, 1, vec![selector])
        }
        (None, Some(memory), _) => {
            let driver = names::DRIVER;
            let selector =
                format!(r#"device.capacity["{driver}"].memory.compareTo(quantity("{}")) >= 0"#, memory.0);
            (names::CLASS_MIG, 1, vec![selector])
        }
        (None, None, count) => (names::CLASS_GPU, count.unwrap_or(1), vec![]),
    };
    AskedDevices { request: "gpu".to_owned(), count, class: class.to_owned(), selectors }
}

/// The Job of a gang, suspended; the error says what in the template cannot be.
pub fn job(training: &TrainingJob) -> Result<Value, String> {
    let parent = Parent::training(training);
    let spec = &training.spec;
    let name = parent.name;
    let index = json!({"fieldRef": {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}});
    let environment = vec![
        json!({"name": "MASTER_ADDR", "value": format!("{name}-0.{name}.{}.svc", parent.namespace)}),
        json!({"name": "MASTER_PORT", "value": MASTER_PORT.to_string()}),
        json!({"name": "WORLD_SIZE", "value": spec.workers.to_string()}),
        json!({"name": "RANK", "valueFrom": index}),
    ];
    let mut fields = Map::new();
    fields.insert("subdomain".into(), json!(name));
    match spec.template.0.get("spec").and_then(|spec| spec.get("restartPolicy")).and_then(Value::as_str) {
        None | Some("Never") => fields.insert("restartPolicy".into(), json!("Never")),
        Some(policy) => {
            return Err(format!(
                "spec.template.spec.restartPolicy {policy} is not served: leave it out; spec.restartPolicy restarts the gang as a whole"
            ));
        }
    };
    if let Some(checkpoint) = &spec.checkpoint {
        fields.insert("terminationGracePeriodSeconds".into(), json!(checkpoint.grace_seconds));
    }
    let template =
        complete(&spec.template, name, Completion { label: (parent.label, name), environment, fields })?;
    Ok(json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": parent.metadata(name),
        "spec": {
            "completionMode": "Indexed",
            "completions": spec.workers,
            "parallelism": spec.workers,
            "suspend": true,
            "backoffLimit": 0,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            ]},
            "template": template,
        },
    }))
}

/// Replicas that an `InferenceJob` is to have now.
pub fn replicas(inference: &InferenceJob) -> u32 {
    if inference.spec.suspend { 0 } else { inference.spec.replicas }
}

/// Replicas that its Deployment is to have now: one more while one is on its way to other devices.
pub fn deployed_replicas(inference: &InferenceJob) -> u32 {
    let moving = inference.status.as_ref().and_then(|status| status.move_.as_ref());
    let more = moving.is_some_and(|moving| !moving.leaving) && !inference.spec.suspend;
    replicas(inference) + u32::from(more)
}

/// The Deployment of an `InferenceJob`; the error says what in the template cannot be.
pub fn deployment(inference: &InferenceJob) -> Result<Value, String> {
    let parent = Parent::inference(inference);
    let name = parent.name;
    let completion = Completion { label: (parent.label, name), environment: vec![], fields: Map::new() };
    let template = complete(&inference.spec.template, name, completion)?;
    Ok(json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": parent.metadata(name),
        "spec": {
            "replicas": deployed_replicas(inference),
            // A surge would need a free device.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
            "selector": {"matchLabels": {parent.label: name}},
            "template": template,
        },
    }))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

    use super::*;

    fn training(spec: &Value) -> TrainingJob {
        serde_json::from_value(json!({
            "apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob",
            "metadata": {"name": "t", "namespace": "n", "uid": "u", "generation": 3},
            "spec": spec,
        }))
        .unwrap()
    }

    #[test]
    fn a_gang_is_an_indexed_job_that_starts_suspended() {
        let job = job(&training(&json!({
            "workers": 4, "gpu": {"profile": "2g.20gb"}, "checkpoint": {"graceSeconds": 90},
            "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}},
        })))
        .unwrap();
        let spec = &job["spec"];
        assert_eq!(
            (&spec["suspend"], &spec["completions"], &spec["parallelism"]),
            (&json!(true), &json!(4), &json!(4))
        );
        assert_eq!((&spec["backoffLimit"], &spec["podReplacementPolicy"]), (&json!(0), &json!("Failed")));
        let pod = &spec["template"]["spec"];
        assert_eq!(pod["terminationGracePeriodSeconds"], json!(90));
        assert_eq!(pod["restartPolicy"], json!("Never"));
        let environment = pod["containers"][0]["env"].as_array().unwrap();
        assert!(environment.contains(&json!({"name": "MASTER_ADDR", "value": "t-0.t.n.svc"})));
        assert_eq!(job["metadata"]["ownerReferences"][0]["uid"], json!("u"));
    }

    #[test]
    fn a_gang_is_not_restarted_by_the_kubelet() {
        let template = json!({"spec": {"restartPolicy": "OnFailure", "containers": [{"name": "c"}]}});
        let error =
            job(&training(&json!({"workers": 1, "gpu": {"count": 1}, "template": template}))).unwrap_err();
        assert!(error.contains("restartPolicy"), "{error}");
    }

    #[test]
    fn requests_become_a_class_and_a_selector() {
        let profile = GpuRequest { profile: Some("3g.40gb".into()), ..Default::default() };
        let asked_profile = asked(&profile);
        assert_eq!(asked_profile.class, "mig.vingt.dev");
        assert_eq!(asked_profile.selectors, [r#"device.attributes["gpu.vingt.dev"].profile == "3g.40gb""#]);
        let memory = GpuRequest { memory: Some(Quantity("30Gi".into())), ..Default::default() };
        let selector = r#"device.capacity["gpu.vingt.dev"].memory.compareTo(quantity("30Gi")) >= 0"#;
        assert_eq!(asked(&memory).selectors, [selector]);
        let whole = asked(&GpuRequest { count: Some(8), ..Default::default() });
        assert_eq!((whole.class.as_str(), whole.count, whole.selectors.len()), ("gpu.vingt.dev", 8, 0));
    }
}
