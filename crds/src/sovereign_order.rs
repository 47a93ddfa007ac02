//! `SovereignOrder`: an advance booking of a sovereign reserve. How it is
//! answered is decided in `vingt-core`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shape::{ReserveShape, time};
use crate::tenant::TenantClass;

/// An advance order on a reserve: shapes, from a time until a time, rated by
/// the class of the namespace's tenant. It is answered at once: accepted, or
/// countered with the earliest start that can be kept, or refused with what is
/// wrong with it. Jobs and pods of the namespace that name it run on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "vingt.dev",
    version = "v1alpha1",
    kind = "SovereignOrder",
    namespaced,
    status = "SovereignOrderStatus",
    shortname = "so",
    category = "vingt",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name may have at most 63 characters: jobs and reports refer to it"),
    printcolumn = r#"{"name":"State","type":"string","jsonPath":".status.state"}"#,
    printcolumn = r#"{"name":"From","type":"string","jsonPath":".spec.from"}"#,
    printcolumn = r#"{"name":"Until","type":"string","jsonPath":".spec.until"}"#,
    printcolumn = r#"{"name":"Rating","type":"string","jsonPath":".status.rating"}"#,
    printcolumn = r#"{"name":"Reason","type":"string","jsonPath":".status.reason"}"#,
    printcolumn = r#"{"name":"Earliest","type":"string","priority":1,"jsonPath":".status.earliestStart","description":"the earliest start that can be kept, of an order that was countered"}"#,
    printcolumn = r#"{"name":"Reserve","type":"string","priority":1,"jsonPath":".spec.reserve"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self == oldSelf", "an order cannot be changed after it is made: delete it and make another"),
    validation = ("self.from < self.until", "the order would end before it begins: until must be after from"),
)]
pub struct SovereignOrderSpec {
    /// Name of the `SovereignReserve` it draws on.
    #[schemars(length(min = 1, max = 63))]
    pub reserve: String,
    /// What is ordered, all of it together.
    #[schemars(length(min = 1, max = 16))]
    pub shapes: Vec<ReserveShape>,
    /// When it begins, as an RFC 3339 time such as `2026-12-01T08:00:00+01:00`. The offset says which instant is meant,
    /// also around a change of the clocks.
    #[schemars(schema_with = "time")]
    pub from: Time,
    /// When it ends.
    #[schemars(schema_with = "time")]
    pub until: Time,
}

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OrderState {
    /// It will be delivered.
    Accepted,
    /// It cannot be met at its time; `earliestStart` says when it could.
    Countered,
    /// It is being delivered.
    Active,
    /// Its time is over.
    Ended,
    /// It cannot be met at any time; `reason` says why.
    Refused,
}

impl OrderState {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Countered => "Countered",
            Self::Active => "Active",
            Self::Ended => "Ended",
            Self::Refused => "Refused",
        }
    }
}

/// The operator's answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SovereignOrderStatus {
    /// Accepted, Countered, Active, Ended or Refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<OrderState>,
    /// The earliest start that can be kept, if it was countered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub earliest_start: Option<Time>,
    /// The answer in words.
    pub reason: String,
    /// Class of the tenant when the order was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rating: Option<TenantClass>,
    /// When it was answered. An accepted order is not disturbed by those that are accepted later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<Time>,
    /// What is ordered; 56 are one GPU.
    pub units: u64,
    /// What has been delivered, in unit-milliseconds.
    pub delivered_unit_ms: u64,
    /// `metadata.generation` this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Ready (it is accepted, or being delivered).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
