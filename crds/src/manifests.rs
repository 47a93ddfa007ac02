//! What is generated from the types: the CRDs as YAML, one file per kind, for
//! `crds/yaml` and the chart, and the API reference. A test fails when one is
//! stale.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use crate::{InferenceJob, Tenant, TrainingJob};

/// All CRDs of vingt.
pub fn all() -> Vec<CustomResourceDefinition> {
    vec![InferenceJob::crd(), Tenant::crd(), TrainingJob::crd()]
}

/// Everything that is generated from the types: path from the repository's root, and content.
pub fn files() -> Result<Vec<(String, String)>, serde_yaml::Error> {
    let crds = all();
    let mut files = vec![("docs/api.md".to_owned(), crate::reference::markdown(&crds))];
    for crd in &crds {
        let yaml = serde_yaml::to_string(crd)?;
        let text = format!("# Generated from crds/src by `cargo run -p vingt-crds`; do not edit.\n{yaml}");
        for folder in FOLDERS {
            files.push((format!("{folder}/{}.yaml", crd.spec.names.plural), text.clone()));
        }
    }
    Ok(files)
}

/// The folders that hold the CRDs, from the repository's root.
const FOLDERS: [&str; 2] = ["crds/yaml", "charts/vingt/files/crds"];
