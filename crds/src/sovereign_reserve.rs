//! `SovereignReserve`: what of a pool of GPUs is kept for sovereign work, over
//! a year and at once. What may be claimed when is reckoned in `vingt-core`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decision::Basis;
use crate::shape::{Fraction, ReserveShape, time};
use crate::tenant::TenantClass;

/// A share of a pool of GPUs that is kept for tenants of certain classes: an
/// entitlement over a rolling year, of which a part can be claimed at once,
/// in stated shapes and within a stated time. What is not claimed is lent to
/// work that can be stopped within that time. No GPU is in two pools.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "vingt.dev",
    version = "v1alpha1",
    kind = "SovereignReserve",
    status = "SovereignReserveStatus",
    shortname = "sr",
    category = "vingt",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 63").message("the name may have at most 63 characters: reports are named after it"),
    printcolumn = r#"{"name":"Fraction","type":"string","jsonPath":".spec.fraction"}"#,
    printcolumn = r#"{"name":"Installed","type":"integer","jsonPath":".status.installedGPUs","description":"GPUs of the pool, healthy or not"}"#,
    printcolumn = r#"{"name":"Tokens","type":"string","jsonPath":".status.tokens.gpuHours","description":"GPU-hours that can be taken from others now"}"#,
    printcolumn = r#"{"name":"Delivered","type":"string","jsonPath":".status.year.summary","description":"GPU-hours of the rolling year, of those there is a right to"}"#,
    printcolumn = r#"{"name":"Lent","type":"string","jsonPath":".status.lent.gpus","description":"GPUs that run work which can be asked to leave"}"#,
    printcolumn = r#"{"name":"Deliverable","type":"string","jsonPath":".status.conditions[?(@.type=='Deliverable')].status","description":"whether the instant claim fits now"}"#,
    printcolumn = r#"{"name":"Crisis","type":"string","jsonPath":".status.conditions[?(@.type=='Crisis')].status"}"#,
    printcolumn = r#"{"name":"Next order","type":"date","priority":1,"jsonPath":".status.nextOrder.from"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = ("self.tokenBucket.depthDays <= self.windowDays",
        "tokenBucket.depthDays may be at most windowDays: more than the whole window's share cannot be saved up"),
    validation = ("!has(self.crisis) || double(self.crisis.fraction.replace('%', '')) >= double(self.fraction.replace('%', ''))",
        "a crisis raises the share: crisis.fraction must be at least fraction"),
)]
pub struct SovereignReserveSpec {
    /// Which nodes' GPUs are the pool; without it, all.
    #[serde(default)]
    pub node_selector: PoolSelector,
    /// Share of the pool that the tenants of `classes` have a right to.
    #[serde(default = "default_fraction")]
    pub fraction: Fraction,
    /// Days of the window over which the right is reckoned.
    #[serde(default = "default_window_days")]
    #[schemars(range(min = 1, max = 366))]
    pub window_days: u32,
    /// What can be claimed at once.
    pub instant_claim: InstantClaim,
    /// How much of the right can be saved up to be taken from others. What accrues beyond it is for orders only.
    #[serde(default)]
    pub token_bucket: TokenBucket,
    /// Tenants of which classes draw on the reserve.
    #[serde(default = "default_classes")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    #[x_kube(validation = ("self.all(class, class != 'standard')",
        "class standard draws on no reserve: name some of sme, sovereign and security"))]
    pub classes: Vec<TenantClass>,
    /// A disruption for which the share is raised. It needs the verb `declarecrisis` on the reserve, and ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crisis: Option<Crisis>,
    /// Announced maintenance: GPUs of these nodes do not count as installed meanwhile. Failures do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub maintenance: Vec<Maintenance>,
}

fn default_fraction() -> Fraction {
    Fraction("5%".to_owned())
}

fn default_window_days() -> u32 {
    365
}

fn default_classes() -> Vec<TenantClass> {
    vec![TenantClass::Sme, TenantClass::Sovereign, TenantClass::Security]
}

/// Nodes by label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PoolSelector {
    /// Nodes that have all these labels; if there are none, every node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
}

/// What can be claimed at once: taken from work that must then leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.graceSeconds < self.withinSeconds",
    "graceSeconds must be less than withinSeconds: after those who leave, partitions are made and pods are bound"))]
pub struct InstantClaim {
    /// What can be claimed, all of it together. After each placement that cannot be taken back it is proved that this
    /// still fits.
    #[schemars(length(min = 1, max = 16))]
    pub shapes: Vec<ReserveShape>,
    /// Within how many seconds of the claim its containers run, if their image is on the node.
    #[serde(default = "default_within_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub within_seconds: u32,
    /// How many of these seconds are for those who must leave. Work that wants a longer grace period borrows nothing of
    /// the reserve.
    #[serde(default = "default_grace_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub grace_seconds: u32,
    /// How many times the shapes may be claimed at once while tokens last and there is room; only the first is proved.
    #[serde(default = "default_burst")]
    #[schemars(range(min = 1, max = 4))]
    pub burst: u32,
}

fn default_within_seconds() -> u32 {
    60
}

fn default_grace_seconds() -> u32 {
    30
}

fn default_burst() -> u32 {
    1
}

/// Tokens: what may be taken from others. They accrue at the share of the pool and are spent by instant claims.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TokenBucket {
    /// How many days' accrual can be held.
    #[serde(default = "default_depth_days")]
    #[schemars(range(min = 1, max = 366))]
    pub depth_days: u32,
}

impl Default for TokenBucket {
    fn default() -> Self {
        Self { depth_days: default_depth_days() }
    }
}

fn default_depth_days() -> u32 {
    30
}

/// A disruption for which more is kept for sovereign work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Crisis {
    /// Why. It is shown to everyone whose work has to leave.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = ("self.matches('[^ \\t\\r\\n]')", "say what the crisis is: a reason must not be blank"))]
    pub reason: String,
    /// When it ends, as an RFC 3339 time.
    #[schemars(schema_with = "time")]
    pub until: Time,
    /// The share while it lasts. The instant claim grows in proportion, to whole sets of its shapes.
    pub fraction: Fraction,
}

/// Announced maintenance of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("self.from < self.until", "the maintenance would end before it begins: until must be after from"))]
pub struct Maintenance {
    /// When it begins, as an RFC 3339 time. What is past when it is written stays counted.
    #[schemars(schema_with = "time")]
    pub from: Time,
    /// When it ends.
    #[schemars(schema_with = "time")]
    pub until: Time,
    /// The nodes, by name.
    #[schemars(length(min = 1, max = 1000), inner(length(min = 1, max = 253)))]
    pub nodes: Vec<String>,
    /// What is done.
    #[schemars(length(min = 1, max = 1024))]
    pub reason: String,
}

/// What the operator knows of a `SovereignReserve`. Amounts are unit-milliseconds: 56 units are one GPU.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SovereignReserveStatus {
    /// GPUs of the pool, healthy or not, without those in announced maintenance.
    #[serde(rename = "installedGPUs")]
    pub installed_gpus: u64,
    /// The rolling year: what there is a right to, and what was delivered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub year: Option<ReserveYear>,
    /// What may be taken from others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens: Option<ReserveTokens>,
    /// Who draws on the reserve now, by tenant and basis.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1000))]
    pub claimed_now: Vec<ReserveHolder>,
    /// What of the pool runs work that can be asked to leave within the grace period.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lent: Option<ReserveLent>,
    /// What could be claimed at once now, for each shape of the instant claim.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub claimable: Vec<ReserveClaimable>,
    /// Whether the shapes of the instant claim that are not claimed fit if all lent work left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proof: Option<ReserveProof>,
    /// The accepted order that begins next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_order: Option<NextOrder>,
    /// The crisis in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crisis: Option<CrisisInForce>,
    /// The account that all of this is reckoned from, exactly; the operator reads it back after a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<ReserveAccount>,
    /// `metadata.generation` this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Conditions: Ready (false when the pool shares nodes with another reserve's, or has none), Deliverable (the
    /// instant claim fits now), Crisis (one is in force).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// What was entitled and delivered in the window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveYear {
    /// When the window begins: its length ago, or when the reserve was first seen.
    pub from: Time,
    /// As of this time.
    pub as_of: Time,
    /// What was installed.
    pub installed_unit_ms: u64,
    /// What there is a right to: the fraction of what was installed.
    pub entitled_unit_ms: u64,
    /// What was delivered to instant claims, by taking it from others.
    pub claimed_unit_ms: u64,
    /// What was delivered to advance orders.
    pub ordered_unit_ms: u64,
    /// Delivered of entitled, in GPU-hours.
    pub summary: String,
}

/// The token bucket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveTokens {
    /// What may be taken.
    pub unit_ms: u64,
    /// What can be held at most.
    pub depth_unit_ms: u64,
    /// As of this time.
    pub as_of: Time,
    /// `unitMs` in GPU-hours.
    pub gpu_hours: String,
    /// When they will be spent, if what runs now runs on and nothing else is claimed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs_dry_at: Option<Time>,
}

/// What a tenant holds of the reserve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveHolder {
    /// The tenant.
    pub tenant: String,
    /// Its class.
    pub class: TenantClass,
    /// How it came to hold this.
    pub basis: Basis,
    /// What it holds; 56 are one GPU.
    pub units: u64,
    /// The same in GPUs, as a decimal.
    pub gpus: String,
}

/// What is lent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveLent {
    /// GPUs, as a decimal.
    pub gpus: String,
    /// The same in units; 56 are one GPU.
    pub units: u64,
    /// To whom, most first; the last may be `others`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 50))]
    pub to: Vec<Borrower>,
}

/// What is lent to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Borrower {
    /// The tenant.
    pub tenant: String,
    /// What it holds; 56 are one GPU.
    pub units: u64,
}

/// What could be claimed of one shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveClaimable {
    /// The shape and how many are declared.
    pub shape: ReserveShape,
    /// How many of it are claimed.
    pub claimed: u32,
    /// How many more could be claimed now, none of the other shapes being claimed.
    pub now: u32,
    /// How many of these are free, so that nobody would have to leave.
    #[serde(default)]
    pub free: u32,
}

/// The last proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveProof {
    /// Whether everything declared and not claimed fits.
    pub holds: bool,
    /// As of this time.
    pub as_of: Time,
    /// What does not fit and why, in words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub missing: String,
}

/// An order that is to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NextOrder {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When it begins.
    pub from: Time,
}

/// A crisis while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CrisisInForce {
    /// Why.
    pub reason: String,
    /// Since when the operator knows of it.
    pub since: Time,
    /// When it ends.
    pub until: Time,
    /// The share meanwhile.
    pub fraction: Fraction,
}

/// What a reserve has given and may give, exactly, as `vingt-core` keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveAccount {
    /// The token bucket.
    pub bucket: AccountBucket,
    /// The days of the window.
    pub window: AccountWindow,
}

/// The token bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountBucket {
    /// What is in it.
    pub tokens: AccountAmount,
    /// What it had no room for; only advance orders can use it.
    pub spilled: AccountAmount,
    /// The time up to which it is reckoned, in milliseconds since 1970.
    pub as_of_ms: i64,
}

/// The days of the window.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountWindow {
    /// How long it is, in days.
    pub length: u32,
    /// The rate that stands for the time before the first day, in millionths of a unit-millisecond per millisecond.
    pub before: u64,
    /// By their number since 1970-01-01, UTC.
    #[schemars(extend("maxProperties" = 402))]
    pub days: BTreeMap<String, AccountDay>,
    /// The time up to which it is reckoned, in milliseconds since 1970.
    pub as_of_ms: i64,
}

/// A day of the window. Amounts are unit-milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountDay {
    /// What was installed.
    pub installed: u64,
    /// What of it there was a right to.
    pub entitled: AccountAmount,
    /// The least rate at which that accrued, in millionths of a unit-millisecond per millisecond.
    pub least: u64,
    /// What instant claims took.
    pub claimed: u64,
    /// What was held under advance orders.
    pub ordered: u64,
}

/// An exact amount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AccountAmount {
    /// Unit-milliseconds.
    pub whole: u64,
    /// Millionths of one besides.
    pub millionths: u32,
}
