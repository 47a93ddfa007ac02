//! What the operator made for jobs of its kinds: Jobs and Deployments without
//! their pod templates, and of the rest the metadata.

use std::collections::BTreeMap;
use std::marker::PhantomData;

use k8s_openapi::api::apps::v1 as apps;
use k8s_openapi::api::batch::v1 as batch;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::DynamicObject;
use serde::Deserialize;

use super::pod::owner;
use super::{Change, Delta, Owner, ServiceKind, TemplateKind, View};

/// A Job.
#[derive(Debug)]
pub struct Job {
    /// Its identity over time.
    pub uid: String,
    /// The `TrainingJob` that controls it.
    pub owner: Option<Owner>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it is suspended.
    pub suspended: bool,
    /// Workers that are done.
    pub done: Vec<u32>,
    /// How it ended, if it did: reason and message; the reason is empty when it went well. Pods may still be leaving.
    pub ended: Option<(String, String)>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobBody {
    spec: JobSpec,
    status: batch::JobStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    suspend: bool,
}

impl View for Job {
    fn parse(object: DynamicObject) -> Result<Self, serde_json::Error> {
        let body: JobBody = serde_json::from_value(object.data)?;
        // That it will fail is said at once, that it has failed when its pods are gone.
        let ended = body.status.conditions.iter().flatten().find_map(|condition| {
            let reason = condition.reason.clone().unwrap_or_default();
            let message = condition.message.clone().unwrap_or_default();
            match (condition.type_.as_str(), condition.status.as_str()) {
                ("Complete", "True") => Some((String::new(), message)),
                ("Failed" | "FailureTarget", "True") => {
                    Some((if reason.is_empty() { "Failed".to_owned() } else { reason }, message))
                }
                _ => None,
            }
        });
        Ok(Self {
            owner: owner(&object.metadata),
            deleting: object.metadata.deletion_timestamp.is_some(),
            suspended: body.spec.suspend,
            done: indexes(body.status.completed_indexes.as_deref().unwrap_or_default()),
            ended,
            uid: object.metadata.uid.unwrap_or_default(),
        })
    }

    fn change(delta: Delta<Self>) -> Change {
        Change::Job(delta)
    }
}

/// Reads completed indexes as a Job writes them (`0,2-4`).
fn indexes(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        Some(first..=last)
    };
    text.split(',').filter_map(range).flatten().collect()
}

/// A Deployment.
#[derive(Debug)]
pub struct Deployment {
    /// The `InferenceJob` that controls it.
    pub owner: Option<Owner>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Replicas it should have.
    pub replicas: i32,
    /// Whether its controller has seen it as it is, and all its pods are of its newest template.
    pub rolled_out: bool,
    /// Its annotations of vingt's domain.
    pub marks: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DeploymentBody {
    spec: DeploymentSpec,
    status: apps::DeploymentStatus,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DeploymentSpec {
    replicas: i32,
}

impl View for Deployment {
    fn parse(object: DynamicObject) -> Result<Self, serde_json::Error> {
        let body: DeploymentBody = serde_json::from_value(object.data)?;
        Ok(Self {
            owner: owner(&object.metadata),
            deleting: object.metadata.deletion_timestamp.is_some(),
            replicas: body.spec.replicas,
            rolled_out: body.status.observed_generation == object.metadata.generation
                && body.status.updated_replicas.unwrap_or(0) == body.status.replicas.unwrap_or(0),
            marks: ours(&object.metadata),
        })
    }

    fn change(delta: Delta<Self>) -> Change {
        Change::Deployment(delta)
    }
}

/// The metadata of something the operator made.
pub struct Owned<M> {
    /// Its identity over time.
    pub uid: String,
    /// What controls it.
    pub owner: Option<Owner>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its annotations of vingt's domain.
    pub marks: BTreeMap<String, String>,
    kind: PhantomData<fn() -> M>,
}

impl<M> Owned<M> {
    /// From the metadata.
    pub fn new(meta: ObjectMeta) -> Self {
        Self {
            owner: owner(&meta),
            deleting: meta.deletion_timestamp.is_some(),
            marks: ours(&meta),
            uid: meta.uid.unwrap_or_default(),
            kind: PhantomData,
        }
    }
}

impl View for Owned<ServiceKind> {
    fn parse(object: DynamicObject) -> Result<Self, serde_json::Error> {
        Ok(Self::new(object.metadata))
    }

    fn change(delta: Delta<Self>) -> Change {
        Change::Service(delta)
    }
}

impl View for Owned<TemplateKind> {
    fn parse(object: DynamicObject) -> Result<Self, serde_json::Error> {
        Ok(Self::new(object.metadata))
    }

    fn change(delta: Delta<Self>) -> Change {
        Change::Template(delta)
    }
}

fn ours(meta: &ObjectMeta) -> BTreeMap<String, String> {
    let annotations = meta.annotations.iter().flatten();
    annotations
        .filter(|(key, _)| key.starts_with("vingt.dev/"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completed_indexes_are_read_as_jobs_write_them() {
        assert_eq!(indexes("0,2-4,7"), [0, 2, 3, 4, 7]);
        assert!(indexes("").is_empty());
    }
}
