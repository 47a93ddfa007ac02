//! The CRDs as YAML, one file per kind. The same text goes to `crds/yaml` and
//! into the chart; a test fails when either is stale.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{InferenceJob, Tenant, TrainingJob};

/// All CRDs of vingt.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![InferenceJob::crd(), Tenant::crd(), TrainingJob::crd()]
}

/// File name and content of each CRD's manifest.
pub fn files() -> Result<Vec<(String, String)>, serde_yaml::Error> {
    all()
        .iter()
        .map(|crd| {
            let name = format!("{}.yaml", crd.spec.names.plural);
            let yaml = serde_yaml::to_string(crd)?;
            Ok((
                name,
                format!("# Generated from crds/src by `cargo run -p vingt-crds`; do not edit.\n{yaml}"),
            ))
        })
        .collect()
}

/// The folders that hold the manifests, from the repository's root.
pub const FOLDERS: [&str; 2] = ["crds/yaml", "charts/vingt/files/crds"];
