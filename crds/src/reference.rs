//! The API reference (`docs/api.md`), made from the CRDs' schemas so that it
//! cannot disagree with what the API server enforces.

use std::fmt::Write as _;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};

/// The reference as Markdown.
pub fn markdown(crds: &[CustomResourceDefinition]) -> String {
    let mut out = String::from(
        "# API reference\n\n\
         Generated from `crds/src` by `cargo run -p vingt-crds`; do not edit.\n\
         Group `vingt.dev`, version `v1alpha1`.\n",
    );
    for crd in crds {
        kind(&mut out, crd);
    }
    out
}

fn kind(out: &mut String, crd: &CustomResourceDefinition) {
    let names = &crd.spec.names;
    let short = names.short_names.as_deref().unwrap_or_default().join(", ");
    let short = if short.is_empty() { String::new() } else { format!(", short `{short}`") };
    let _ = writeln!(out, "\n## {}\n\n{}{short}.", names.kind, crd.spec.scope);
    for version in &crd.spec.versions {
        let Some(schema) = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref()) else {
            continue;
        };
        for part in ["spec", "status"] {
            let Some(part_schema) = schema.properties.as_ref().and_then(|p| p.get(part)) else { continue };
            let _ = writeln!(out, "\n### {}.{part}\n", names.kind);
            if let Some(description) = &part_schema.description {
                let _ = writeln!(out, "{}\n", one_line(description));
            }
            let _ = writeln!(out, "| field | type | meaning |\n|---|---|---|");
            fields(out, part_schema, "");
        }
    }
}

fn fields(out: &mut String, schema: &JSONSchemaProps, prefix: &str) {
    let required = schema.required.as_deref().unwrap_or_default();
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{prefix}{name}");
        let mark = if required.contains(name) { " (required)" } else { "" };
        let mut meaning = one_line(field.description.as_deref().unwrap_or_default());
        for rule in field.x_kubernetes_validations.iter().flatten() {
            if let Some(message) = &rule.message {
                let _ = write!(meaning, " *{}.*", one_line(message));
            }
        }
        if let Some(default) = &field.default {
            let _ = write!(meaning, " Default `{}`.", default.0);
        }
        let _ = writeln!(out, "| `{path}`{mark} | {} | {} |", type_of(field), meaning.replace('|', "\\|"));
        // What users of Kubernetes know already is not told again.
        if name == "template" || name == "conditions" {
            continue;
        }
        match &field.items {
            Some(JSONSchemaPropsOrArray::Schema(items)) => fields(out, items, &format!("{path}[].")),
            _ => fields(out, field, &format!("{path}.")),
        }
    }
}

fn type_of(schema: &JSONSchemaProps) -> String {
    let base = if schema.x_kubernetes_int_or_string == Some(true) {
        "integer or string".to_owned()
    } else {
        schema.type_.clone().unwrap_or_else(|| "object".to_owned())
    };
    if let Some(values) = &schema.enum_ {
        let values: Vec<_> =
            values.iter().map(|v| format!("`{}`", v.0.to_string().trim_matches('"'))).collect();
        return values.join(", ");
    }
    let range = match (schema.minimum, schema.maximum) {
        (Some(min), Some(max)) => format!(", {min} to {max}"),
        (Some(min), None) => format!(", at least {min}"),
        (None, Some(max)) => format!(", at most {max}"),
        (None, None) => String::new(),
    };
    let inner = match (&schema.items, &schema.additional_properties) {
        (Some(JSONSchemaPropsOrArray::Schema(items)), _) => format!(" of {}", type_of(items)),
        (_, Some(JSONSchemaPropsOrBool::Schema(values))) => format!(" of {}", type_of(values)),
        _ => String::new(),
    };
    format!("{base}{inner}{range}")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
