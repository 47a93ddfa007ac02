//! `Tenant`: whose namespaces these are, and how much of the cluster is theirs.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A tenant of the cluster. The operator labels each namespace it selects with
/// `vingt.dev/tenant`; a namespace belongs to one tenant, the older one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "vingt.dev",
    version = "v1alpha1",
    kind = "Tenant",
    status = "TenantStatus",
    category = "vingt",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name may have at most 63 characters: it becomes a label's value"),
    printcolumn = r#"{"name":"Namespaces","type":"string","jsonPath":".status.namespaces"}"#,
    printcolumn = r#"{"name":"Used","type":"string","jsonPath":".status.used","description":"GPUs held now"}"#,
    printcolumn = r#"{"name":"Guaranteed","type":"string","jsonPath":".spec.guaranteedGPUs"}"#,
    printcolumn = r#"{"name":"Limit","type":"string","jsonPath":".spec.limitGPUs"}"#,
    printcolumn = r#"{"name":"Borrowed","type":"string","jsonPath":".status.borrowed","description":"of these, GPUs beyond what is guaranteed"}"#,
    printcolumn = r#"{"name":"Waiting","type":"integer","jsonPath":".status.waiting","description":"jobs and pods that wait"}"#,
    printcolumn = r#"{"name":"Ready","type":"string","jsonPath":".status.conditions[?(@.type=='Ready')].status"}"#,
    printcolumn = r#"{"name":"Parent","type":"string","priority":1,"jsonPath":".spec.parent"}"#,
    printcolumn = r#"{"name":"Weight","type":"integer","priority":1,"jsonPath":".spec.weight"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.limitGPUs) || !has(self.guaranteedGPUs) || (isQuantity(string(self.limitGPUs)) && isQuantity(string(self.guaranteedGPUs)) && quantity(string(self.limitGPUs)).compareTo(quantity(string(self.guaranteedGPUs))) >= 0)",
    "limitGPUs must be at least guaranteedGPUs"))]
pub struct TenantSpec {
    /// Which namespaces are this tenant's.
    pub namespaces: NamespaceSelector,
    /// GPUs the tenant's jobs get before others may borrow them; a partition
    /// counts by its dominant share (1g.10gb 1/7, 3g.40gb 1/2).
    #[serde(default, rename = "guaranteedGPUs", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "gpus")]
    pub guaranteed_gpus: Option<Quantity>,
    /// GPUs the tenant's jobs may hold at most; without it, all there are.
    #[serde(default, rename = "limitGPUs", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "gpus")]
    pub limit_gpus: Option<Quantity>,
    /// The tenant above this one: guarantee and limit of a tenant are for it and all that are below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub parent: Option<String>,
    /// Its share of what nobody is guaranteed, relative to the others with the same parent.
    #[serde(default = "default_weight")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: u32,
}

fn default_weight() -> u32 {
    1
}

/// Namespaces by name, by label, or both (then either suffices).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("(has(self.names) && self.names.size() > 0) || (has(self.matchLabels) && self.matchLabels.size() > 0)",
    "select namespaces by names or by matchLabels: an empty selector would take every namespace"))]
pub struct NamespaceSelector {
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000), inner(length(max = 63)))]
    pub names: Vec<String>,
    /// Namespaces that have all these labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// What the operator knows of a `Tenant`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TenantStatus {
    /// The tenant's namespaces, in short.
    pub namespaces: String,
    /// GPUs held now, as a decimal.
    pub used: String,
    /// The same in units; 56 are one GPU.
    pub used_units: u64,
    /// GPUs held now beyond what is guaranteed, as a decimal; they may be taken back.
    pub borrowed: String,
    /// What it held of late, older use counting less; who used less goes first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recent_use: Option<RecentUse>,
    /// When a job or pod of its own was last admitted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_admitted: Option<Time>,
    /// Jobs and pods that wait.
    pub waiting: u32,
    /// `metadata.generation` this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Ready (false when a selected namespace is another tenant's, or there is no such parent).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Use of the past, as of a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecentUse {
    /// Units held times the milliseconds they were held; what is older counts less.
    pub unit_ms: u64,
    /// As of this time.
    pub at: Time,
}

/// Schema of a number of GPUs: whole, or a decimal such as `2.5`.
fn gpus(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "x-kubernetes-int-or-string": true,
        "nullable": true,
        "maxLength": 32,
        "x-kubernetes-validations": [{
            "rule": "isQuantity(string(self)) && !quantity(string(self)).isLessThan(quantity('0'))",
            "message": "not a number of GPUs: write for example 8 or 2.5",
        }],
    })
}
