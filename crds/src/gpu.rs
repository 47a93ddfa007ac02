//! What one pod asks of the GPUs: a partition by profile, a partition by
//! memory, or whole GPUs.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Exactly one of `profile`, `memory` and `count`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("[has(self.profile), has(self.memory), has(self.count)].filter(x, x).size() == 1",
    "say exactly one of profile (a MIG profile such as 3g.40gb), memory (the smallest partition that holds it) and count (whole GPUs)"))]
pub struct GpuRequest {
    /// A MIG profile as the driver names it, such as `3g.40gb` or `1g.10gb+me`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = ("self.matches('^[1-9][0-9]*g[.][1-9][0-9]*gb([+]me)?$')",
        "not the name of a MIG profile: write it as the driver does, for example 1g.10gb, 3g.40gb or 1g.10gb+me"))]
    pub profile: Option<String>,
    /// GPU memory the pod needs, such as `30Gi`: it gets the smallest partition that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity")]
    pub memory: Option<Quantity>,
    /// Number of whole GPUs, all on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub count: Option<u32>,
}

impl std::fmt::Display for GpuRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.profile, &self.memory, self.count) {
            (Some(profile), ..) => write!(f, "{profile}"),
            (None, Some(memory), _) => write!(f, "memory {}", memory.0),
            (None, None, Some(1)) => write!(f, "1 GPU"),
            (None, None, Some(count)) => write!(f, "{count} GPUs"),
            (None, None, None) => write!(f, "nothing"),
        }
    }
}

/// Schema of a positive quantity written as a string.
fn quantity(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "nullable": true,
        "maxLength": 32,
        "x-kubernetes-validations": [{
            "rule": "isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
            "message": "not a positive quantity: write memory as a number and a unit, for example 30Gi",
        }],
    })
}
