//! The decision record: what the operator decided for one claim, kept on the
//! claim itself. The agent prepares nothing whose record does not match the
//! allocation, and the ledger reads its start from here.

use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::names;
use crate::tenant::TenantClass;

/// What was decided for one ResourceClaim; JSON in the annotation `vingt.dev/decision`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DecisionRecord {
    /// Format of this record; 1.
    pub version: u32,
    /// UID of the claim it was written for: a copy on another claim is void.
    pub claim: String,
    /// The node that holds the devices.
    pub node: String,
    /// One entry per device, in the order of `status.allocation.devices.results`.
    pub devices: Vec<DecidedDevice>,
    /// What the tenant is charged while the claim is allocated; 56 are one GPU.
    pub units: u64,
    /// The tenant charged.
    pub tenant: String,
    /// The job or pod it was decided for, as `Kind/namespace/name`.
    pub workload: String,
    /// When the decision was made; the charge begins here.
    pub start: Timestamp,
    /// The sovereign order it serves, if any, as `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<String>,
    /// What else the ledger has to know.
    #[serde(default, skip_serializing_if = "DecidedAccount::is_default")]
    pub account: DecidedAccount,
}

/// What the ledger has to know of a decision besides the units, the tenant and the time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DecidedAccount {
    /// By what right the devices are held.
    pub basis: Basis,
    /// When that right ended, if it did while the claim went on as an ordinary one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordinary_from: Option<Timestamp>,
    /// What the tenant was.
    pub class: TenantClass,
    /// The reserve in whose pool the devices are, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<String>,
    /// The profile of the devices; `gpu` for whole ones.
    pub profile: String,
}

impl DecidedAccount {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// By what right a device is held.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// As anyone's.
    #[default]
    Ordinary,
    /// As an instant claim: taken by asking others to leave. It spends tokens.
    Claimed,
    /// Under an advance order.
    Ordered,
}

impl Basis {
    /// Whether it is as anyone's.
    pub fn is_ordinary(&self) -> bool {
        *self == Self::Ordinary
    }

    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ordinary => "ordinary",
            Self::Claimed => "claimed",
            Self::Ordered => "ordered",
        }
    }
}

/// One device of a decision.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DecidedDevice {
    /// Name of the request in the claim.
    pub request: String,
    /// Pool of the device; the node's name.
    pub pool: String,
    /// Name of the device in its slice.
    pub device: String,
}

/// Why a claim's decision record cannot be relied on.
#[derive(Debug, PartialEq, Eq)]
pub enum InvalidDecision {
    /// The claim has no record: nobody of vingt decided it.
    Missing,
    /// The annotation is not a record of a known version; holds the parser's words.
    Malformed(String),
    /// The record was written for another claim; holds that claim's UID.
    OtherClaim(String),
    /// The allocation names other devices than the record.
    OtherDevices,
}

impl std::fmt::Display for InvalidDecision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing => write!(f, "the claim has no decision record (annotation {})", names::DECISION),
            Self::Malformed(why) => {
                write!(f, "the decision record (annotation {}) does not parse: {why}", names::DECISION)
            }
            Self::OtherClaim(uid) => write!(f, "the decision record is for another claim, with UID {uid}"),
            Self::OtherDevices => {
                write!(f, "the claim is allocated other devices than its decision record names")
            }
        }
    }
}

impl std::error::Error for InvalidDecision {}

impl DecisionRecord {
    /// The current format.
    pub const VERSION: u32 = 1;

    /// Reads the record of `claim`; checks its format and that it was written for this claim.
    pub fn of(claim: &ResourceClaim) -> Result<Self, InvalidDecision> {
        let text = claim
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(names::DECISION))
            .ok_or(InvalidDecision::Missing)?;
        let record: Self =
            serde_json::from_str(text).map_err(|error| InvalidDecision::Malformed(error.to_string()))?;
        if record.version != Self::VERSION {
            return Err(InvalidDecision::Malformed(format!("version {} is not known", record.version)));
        }
        if claim.metadata.uid.as_deref() != Some(record.claim.as_str()) {
            return Err(InvalidDecision::OtherClaim(record.claim));
        }
        Ok(record)
    }

    /// Reads the record and checks that the allocation is exactly what it says.
    pub fn verified(claim: &ResourceClaim) -> Result<Self, InvalidDecision> {
        let record = Self::of(claim)?;
        let allocated = allocated_devices(claim);
        if allocated == record.devices { Ok(record) } else { Err(InvalidDecision::OtherDevices) }
    }

    /// Whether the other record gives the same devices to the same job or pod, whenever it was made.
    pub fn decides_as(&self, other: &Self) -> bool {
        let devices = |record: &Self| (record.claim.clone(), record.node.clone(), record.devices.clone());
        devices(self) == devices(other) && self.workload == other.workload && self.tenant == other.tenant
    }

    /// The annotation's value.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// When the devices of a claim were given back (annotation `vingt.dev/ended`), if that is known.
pub fn ended(metadata: &ObjectMeta) -> Option<Timestamp> {
    metadata.annotations.as_ref()?.get(names::ENDED)?.parse().ok()
}

/// The devices of vingt's driver in the claim's allocation, in order; empty when unallocated.
fn allocated_devices(claim: &ResourceClaim) -> Vec<DecidedDevice> {
    let results = claim
        .status
        .as_ref()
        .and_then(|status| status.allocation.as_ref())
        .and_then(|allocation| allocation.devices.as_ref())
        .and_then(|devices| devices.results.as_deref());
    results
        .unwrap_or_default()
        .iter()
        .filter(|result| result.driver == names::DRIVER)
        .map(|result| DecidedDevice {
            request: result.request.clone(),
            pool: result.pool.clone(),
            device: result.device.clone(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::resource::v1::{
        AllocationResult, DeviceAllocationResult, DeviceRequestAllocationResult, ResourceClaimStatus,
    };

    use super::*;

    fn record() -> DecisionRecord {
        DecisionRecord {
            version: 1,
            claim: "uid-1".into(),
            node: "a".into(),
            devices: vec![DecidedDevice { request: "gpu".into(), pool: "a".into(), device: "gpu-0".into() }],
            units: 56,
            tenant: "prod".into(),
            workload: "Pod/prod/x".into(),
            start: Timestamp::UNIX_EPOCH,
            order: None,
            account: DecidedAccount::default(),
        }
    }

    fn claim(record: Option<&DecisionRecord>, devices: &[&str]) -> ResourceClaim {
        let mut claim = ResourceClaim::default();
        claim.metadata.uid = Some("uid-1".into());
        claim.metadata.annotations = record.map(|r| [(names::DECISION.to_owned(), r.to_json())].into());
        let result = |device: &&str| DeviceRequestAllocationResult {
            driver: names::DRIVER.into(),
            pool: "a".into(),
            device: (*device).into(),
            request: "gpu".into(),
            ..Default::default()
        };
        claim.status = Some(ResourceClaimStatus {
            allocation: Some(AllocationResult {
                devices: Some(DeviceAllocationResult {
                    results: Some(devices.iter().map(result).collect()),
                    config: None,
                }),
                ..Default::default()
            }),
            ..Default::default()
        });
        claim
    }

    #[test]
    fn an_allocation_is_verified_against_its_own_record_only() {
        let good = record();
        assert_eq!(DecisionRecord::verified(&claim(Some(&good), &["gpu-0"])), Ok(good.clone()));
        assert_eq!(DecisionRecord::verified(&claim(None, &["gpu-0"])), Err(InvalidDecision::Missing));
        let other_device = DecisionRecord::verified(&claim(Some(&good), &["gpu-1"]));
        assert_eq!(other_device, Err(InvalidDecision::OtherDevices));
        let more = DecisionRecord::verified(&claim(Some(&good), &["gpu-0", "gpu-1"]));
        assert_eq!(more, Err(InvalidDecision::OtherDevices));
        let copied = DecisionRecord { claim: "uid-2".into(), ..record() };
        let copied = DecisionRecord::verified(&claim(Some(&copied), &["gpu-0"]));
        assert_eq!(copied, Err(InvalidDecision::OtherClaim("uid-2".into())));
        let newer = DecisionRecord { version: 2, ..record() };
        let newer = DecisionRecord::verified(&claim(Some(&newer), &["gpu-0"]));
        assert!(matches!(newer, Err(InvalidDecision::Malformed(_))), "{newer:?}");
    }
}
