//! The pod template of a job, kept as the user wrote it.
//!
//! It is deliberately not a `PodTemplateSpec`: one object with a field of the
//! wrong type must not fail the operator's whole watch. The schema checks what
//! every template needs; the API server checks the rest when the pods' owner
//! is created, and its answer is shown in the job's status.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A `PodTemplateSpec`, unparsed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodTemplate(pub serde_json::Value);

impl PodTemplate {
    /// The template as Kubernetes' type; the error names the field that does not parse.
    pub fn parse(&self) -> Result<PodTemplateSpec, impl std::error::Error + use<>> {
        serde_path_to_error::deserialize::<_, PodTemplateSpec>(&self.0)
    }
}

impl JsonSchema for PodTemplate {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PodTemplate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "description": "Template of the pods (a core/v1 PodTemplateSpec).",
            "required": ["spec"],
            "x-kubernetes-preserve-unknown-fields": true,
            "properties": {
                "metadata": {
                    "type": "object",
                    "x-kubernetes-preserve-unknown-fields": true,
                },
                "spec": {
                    "type": "object",
                    "required": ["containers"],
                    "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {
                        "containers": {
                            "type": "array",
                            "minItems": 1,
                            "maxItems": 64,
                            "items": {
                                "type": "object",
                                "required": ["name"],
                                "properties": { "name": { "type": "string", "minLength": 1, "maxLength": 63 } },
                                "x-kubernetes-preserve-unknown-fields": true,
                            },
                        },
                    },
                },
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_names_the_field() {
        let template = PodTemplate(json!({"spec": {"containers": [{"name": "c", "image": 7}]}}));
        let error = template.parse().unwrap_err().to_string();
        assert_eq!(error, "spec.containers[0].image: invalid type: integer `7`, expected a string");
    }
}
