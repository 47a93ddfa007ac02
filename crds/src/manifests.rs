//! What is generated from the types: the CRDs as YAML, one file per kind, for
//! `crds/yaml` and the chart, and the API reference. A test fails when one is
//! stale.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::{InferenceJob, SovereignOrder, SovereignReserve, Tenant, TrainingJob, UsageReport};

/// All CRDs of vingt.
pub fn all() -> Vec<CustomResourceDefinition> {
    let mut crds = vec![
        InferenceJob::crd(),
        SovereignOrder::crd(),
        SovereignReserve::crd(),
        Tenant::crd(),
        TrainingJob::crd(),
        UsageReport::crd(),
    ];
    for version in crds.iter_mut().flat_map(|crd| &mut crd.spec.versions) {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            drop_unknown_formats(schema);
        }
    }
    crds
}

/// Rust's unsigned integers are no formats that the API server knows; it warns
/// about each. The bounds say the same.
fn drop_unknown_formats(schema: &mut JSONSchemaProps) {
    if schema.format.as_deref().is_some_and(|format| format.starts_with("uint")) {
        schema.format = None;
    }
    schema.properties.iter_mut().flatten().for_each(|(_, field)| drop_unknown_formats(field));
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        drop_unknown_formats(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        drop_unknown_formats(values);
    }
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
