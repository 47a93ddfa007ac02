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
    validation = Rule::new("!self.metadata.name.startsWith('reserve-')").message("the name may not begin with reserve-: the monthly reports of the reserves are named so"),
    printcolumn = r#"{"name":"Class","type":"string","jsonPath":".spec.class"}"#,
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
#[x_kube(validation = ("self.class == 'standard' || !has(self.namespaces.matchLabels) || self.namespaces.matchLabels.size() == 0",
    "a tenant of another class than standard names its namespaces one by one (namespaces.names): whoever may label namespaces could else make one of theirs its own"))]
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
    /// What it is to the sovereign reserves. Any other than `standard` draws on them, and goes before the lower ones:
    /// `security`, `sovereign`, `sme`. Setting or changing it needs the verb `classify` on the tenant.
    #[serde(default)]
    pub class: TenantClass,
    /// What it pays; without it, what the price derived from the GPUs' cost is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_plan: Option<PricePlan>,
}

/// What a tenant is to the sovereign reserves. A higher one may take what a lower one holds; equals never do.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum TenantClass {
    /// Everyone else.
    #[default]
    Standard,
    /// A small or medium-sized business with specific needs.
    Sme,
    /// Sovereign needs.
    Sovereign,
    /// National security.
    Security,
}

impl TenantClass {
    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Sme => "sme",
            Self::Sovereign => "sovereign",
            Self::Security => "security",
        }
    }

    /// Whether it draws on reserves at all.
    pub fn draws(self) -> bool {
        self != Self::Standard
    }
}

/// What a tenant pays for what it holds, whatever it does with it: a stated price, or one that follows from what the
/// GPUs cost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.perGPUHour) != has(self.derivation)",
    "say exactly one of perGPUHour (a price such as 2.10) and derivation (what a GPU costs)"))]
pub struct PricePlan {
    /// The currency, by its three letters, such as `EUR`.
    #[schemars(length(max = 3))]
    #[x_kube(validation = ("self.matches('^[A-Z]{3}$')", "not a currency: write its three letters, for example EUR"))]
    pub currency: String,
    /// Price of a whole GPU for an hour, as a decimal such as `2.10`. Partitions pay by their share: 3g.40gb one half.
    #[serde(default, rename = "perGPUHour", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "optional_price")]
    pub per_gpu_hour: Option<String>,
    /// The price of an hour of a whole GPU's worth of certain profiles, where it is another: two 3g.40gb are one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "prices")]
    pub profiles: BTreeMap<String, String>,
    /// What a GPU costs; the price of an hour is worked out of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derivation: Option<PriceDerivation>,
}

/// What a GPU costs its owner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PriceDerivation {
    /// What one GPU cost, with its part of the server and the network, as a decimal.
    #[schemars(schema_with = "price")]
    pub purchase: String,
    /// How many hours it is used; five years are 43,800.
    #[schemars(range(min = 1, max = 876_000))]
    pub life_hours: u32,
    /// What it draws, with its part of the server.
    #[schemars(range(min = 0, max = 100_000))]
    pub power_watts: u32,
    /// What cooling and losses draw on top of that.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub overhead_percent: u32,
    /// What a kilowatt-hour costs, as a decimal.
    #[serde(rename = "energyPerKWh")]
    #[schemars(schema_with = "price")]
    pub energy_per_kwh: String,
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

/// Schema of an amount of money: a decimal with at most six decimals.
fn price(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "maxLength": 17,
        "x-kubernetes-validations": [{
            "rule": "self.matches('^(0|[1-9][0-9]{0,8})([.][0-9]{1,6})?$')",
            "message": "not a price: write a decimal without the currency, for example 2.10",
        }],
    })
}

/// The same where it may be left out.
fn optional_price(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let mut schema = price(generator);
    schema.insert("nullable".to_owned(), true.into());
    schema
}

/// Schema of prices by MIG profile.
fn prices(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "additionalProperties": price(generator),
        "x-kubernetes-validations": [{
            "rule": "self.all(profile, profile.matches('^[1-9][0-9]*g[.][1-9][0-9]*gb([+]me)?$'))",
            "message": "not the name of a MIG profile: write it as the driver does, for example 1g.10gb or 3g.40gb",
        }],
    })
}
