//! `UsageReport`: the ledger of a tenant or of a reserve for a month, as
//! `vingt-core` keeps it. What is in it and how it is hashed is decided there.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decision::Basis;
use crate::tenant::TenantClass;

/// What a tenant used in a month, or what there was in a reserve's pool and
/// how its promise was kept. Only the operator writes it. Once sealed it never
/// changes, and its hash is part of the next one's: `kubectl vingt attest`
/// recomputes all of them. Amounts are unit-milliseconds: 56 units are one GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "vingt.dev",
    version = "v1alpha1",
    kind = "UsageReport",
    shortname = "ur",
    category = "vingt",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name == (self.spec.subject.kind == 'reserve' ? 'reserve-' : '') + self.spec.subject.name + '-' + self.spec.month").message("a report is named after what it is about and its month, as research-2026-11 or reserve-national-2026-11"),
    selectable = ".spec.subject.name",
    selectable = ".spec.month",
    printcolumn = r#"{"name":"Of","type":"string","jsonPath":".spec.subject.kind"}"#,
    printcolumn = r#"{"name":"Tenant","type":"string","jsonPath":".spec.subject.name","description":"the tenant or the reserve"}"#,
    printcolumn = r#"{"name":"Month","type":"string","jsonPath":".spec.month"}"#,
    printcolumn = r#"{"name":"GPU-hours","type":"string","jsonPath":".spec.summary.gpuHours"}"#,
    printcolumn = r#"{"name":"Sovereign","type":"string","jsonPath":".spec.summary.sovereignGpuHours","description":"of these, claimed or ordered"}"#,
    printcolumn = r#"{"name":"Cost","type":"string","jsonPath":".spec.summary.cost"}"#,
    printcolumn = r#"{"name":"Sealed","type":"string","jsonPath":".spec.sealedMs","description":"when it was sealed, in milliseconds since 1970"}"#,
    printcolumn = r#"{"name":"Hash","type":"string","priority":1,"jsonPath":".spec.hash"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("!has(oldSelf.sealedMs) || self == oldSelf", "a sealed report never changes: what came after belongs into a later month"),
    validation = ("(self.subject.kind == 'reserve') == has(self.pool)", "pool is what a reserve's report has, and a tenant's has not"),
)]
pub struct UsageReportSpec {
    /// Version of the bytes that the hash is of.
    #[schemars(range(min = 1))]
    pub version: u32,
    /// Whom it is about.
    pub subject: ReportSubject,
    /// The month, UTC.
    #[schemars(length(max = 7), regex(pattern = r"^[1-9][0-9]{3}-(0[1-9]|1[0-2])$"))]
    pub month: String,
    /// When it was sealed, in milliseconds since 1970; missing while it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sealed_ms: Option<i64>,
    /// What was used; of a reserve, what all tenants together used in its pool.
    #[serde(default)]
    #[schemars(length(max = 4096))]
    pub lines: Vec<ReportLine>,
    /// UIDs of claims that ended and are counted wholly, and may still have their finalizer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(max = 64)))]
    pub settled: Vec<String>,
    /// UIDs of claims that are counted up to the end of the month, and go on in the next.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(max = 64)))]
    pub carried: Vec<String>,
    /// How many of the claims counted ended by the rule for nodes that do not come back.
    #[serde(default)]
    pub ended_by_rule: u64,
    /// What the tenant pays; of a tenant only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<ReportPrice>,
    /// The pool's account; of a reserve only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<ReportPool>,
    /// The same in short, for people.
    #[serde(default)]
    pub summary: ReportSummary,
    /// The hash of the report before it in the chain; empty in the first, and while it is open.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub previous: String,
    /// SHA-256 of its canonical bytes, in lower-case hexadecimal digits.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub hash: String,
}

/// Whom a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportSubject {
    /// What it is.
    pub kind: ReportSubjectKind,
    /// Its name.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
}

/// What a report is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReportSubjectKind {
    /// A tenant.
    Tenant,
    /// A reserve.
    Reserve,
}

/// What was used of a profile, by what right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportLine {
    /// The profile of the devices; `gpu` for whole ones.
    #[schemars(length(max = 63))]
    pub profile: String,
    /// What the tenant was when it was decided.
    pub class: TenantClass,
    /// By what right.
    pub basis: Basis,
    /// The reserve in whose pool they are, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub reserve: Option<String>,
    /// What was held.
    pub unit_ms: u64,
    /// What an earlier month counted too much: it was sealed before the end was known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub credited_unit_ms: u64,
}

// Called by serde with a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(amount: &u64) -> bool {
    *amount == 0
}

/// A price plan as it was applied. Prices are millionths of the currency's unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportPrice {
    /// The currency, as `EUR`.
    #[schemars(length(max = 16))]
    pub currency: String,
    /// For a whole GPU over an hour.
    #[serde(rename = "perGPUHourMicros")]
    pub per_gpu_hour: u64,
    /// The same for a GPU's worth of certain profiles.
    #[serde(default, rename = "profileMicros", skip_serializing_if = "BTreeMap::is_empty")]
    pub profiles: BTreeMap<String, u64>,
    /// What the price is worked out of, if nobody set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derivation: Option<ReportDerivation>,
}

/// What a GPU costs its owner. Prices are millionths of the currency's unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportDerivation {
    /// What one GPU cost, with its part of the server and the network.
    #[serde(rename = "purchaseMicros")]
    pub purchase: u64,
    /// How many hours it is used.
    pub life_hours: u32,
    /// What it draws, with its part of the server.
    pub power_watts: u32,
    /// What cooling and losses draw on top of that.
    pub overhead_percent: u32,
    /// What a kilowatt-hour costs.
    #[serde(rename = "energyPerKWhMicros")]
    pub energy_per_kwh: u64,
}

/// What there was in a reserve's pool, and how its promise was kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportPool {
    /// Up to when the amounts are counted, in milliseconds since 1970.
    pub as_of_ms: i64,
    /// Units installed since then, whether healthy or not, without what is out for announced maintenance.
    pub units: u64,
    /// The fraction in force since then, in millionths.
    pub fraction_ppm: u32,
    /// What was installed, by the fraction that was in force.
    #[schemars(length(max = 1024))]
    pub installed: Vec<ReportInstalled>,
    /// What is not in it: out for announced maintenance.
    pub maintenance: u64,
    /// How long the declared shapes were deliverable, in milliseconds.
    pub held_ms: u64,
    /// How long they were not.
    pub not_held_ms: u64,
    /// Instant claims.
    pub claims: ReportClaims,
    /// Advance orders.
    pub orders: ReportOrders,
    /// Workloads that were asked to leave for claims and orders.
    pub evictions: u64,
    /// What these lost, in unit-milliseconds: what they did since their last checkpoints, of servers their restart.
    pub lost: u64,
    /// The crises that were in force in the month.
    #[schemars(length(max = 1024))]
    pub crises: Vec<ReportCrisis>,
}

/// What was installed under a fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportInstalled {
    /// The fraction, in millionths.
    pub fraction_ppm: u32,
    /// What was installed.
    pub unit_ms: u64,
}

/// How instant claims were served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportClaims {
    /// Valid ones.
    pub made: u64,
    /// Of these, started later than promised, or never.
    pub late: u64,
    /// How long the slowest took to start.
    pub slowest_ms: u64,
}

/// How advance orders were served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportOrders {
    /// Accepted.
    pub accepted: u64,
    /// Answered with the earliest start.
    pub countered: u64,
    /// Refused.
    pub refused: u64,
    /// Of those that began, begun later than accepted.
    pub late: u64,
}

/// A crisis that was declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportCrisis {
    /// Since when it was in force, in milliseconds since 1970.
    pub from_ms: i64,
    /// Until when, at the latest.
    pub until_ms: i64,
    /// The fraction it set, in millionths.
    pub fraction_ppm: u32,
    /// Why.
    #[schemars(length(max = 1024))]
    pub reason: String,
}

/// A report in words, worked out of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReportSummary {
    /// GPU-hours, with one digit.
    pub gpu_hours: String,
    /// Of these, claimed or ordered.
    pub sovereign_gpu_hours: String,
    /// What they cost, with the currency; empty without a price.
    pub cost: String,
}
