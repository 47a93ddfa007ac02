//! `ResourceClaims`, with their decision record read once when they arrive.
//!
//! A use of a claim begins with its record and ends when its last device was
//! given back. Until it is in the ledger, a finalizer holds the claim, and the
//! record stays, though it decides nothing any more.

use k8s_openapi::api::resource::v1::{
    AllocationResult, ResourceClaim, ResourceClaimConsumerReference, ResourceClaimSpec,
};
use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use vingt_crds::{DecidedDevice, DecisionRecord, InvalidDecision, names};

use super::pod::owner;
use super::{Change, Delta, Owner, View};

/// A claim, as far as it matters here.
#[derive(Debug)]
pub struct Claim {
    /// Its identity over time.
    pub uid: String,
    /// Its version, for writes that must not hit another one.
    pub version: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Its finalizers.
    pub finalizers: Vec<String>,
    /// The pod it was made for, if it was made from a template.
    pub owner: Option<Owner>,
    /// What it asks for.
    pub spec: ResourceClaimSpec,
    /// What it is allocated.
    pub allocation: Option<AllocationResult>,
    /// Who may use it.
    pub reserved_for: Vec<ResourceClaimConsumerReference>,
    /// What vingt decided for it.
    pub decision: Result<DecisionRecord, InvalidDecision>,
    /// When its devices were given back last, in milliseconds since 1970, if the agent or the operator said so.
    pub ended_ms: Option<i64>,
    /// When its deletion was asked for, in milliseconds since 1970.
    pub deleted_ms: Option<i64>,
}

impl Claim {
    /// Its devices of vingt's driver: those allocated, else those decided and about to be. They are held.
    pub fn devices(&self) -> Vec<DecidedDevice> {
        if self.allocation.is_some() {
            self.allocated()
        } else {
            self.decided().map(|record| record.devices.clone()).unwrap_or_default()
        }
    }

    /// The devices of vingt's driver in its allocation.
    pub fn allocated(&self) -> Vec<DecidedDevice> {
        let devices = self.allocation.as_ref().and_then(|allocation| allocation.devices.as_ref());
        let results = devices.and_then(|devices| devices.results.as_deref()).unwrap_or_default();
        let ours = results.iter().filter(|result| result.driver == names::DRIVER);
        ours.map(|result| DecidedDevice {
            request: result.request.clone(),
            pool: result.pool.clone(),
            device: result.device.clone(),
        })
        .collect()
    }

    /// The decision that holds devices though nothing is allocated yet. Once a claim
    /// is deallocated its finalizer goes, and what is left of the record is void.
    pub fn decided(&self) -> Option<&DecisionRecord> {
        let live = self.allocation.is_none() && !self.deleting && self.protected();
        self.decision.as_ref().ok().filter(|_| live)
    }

    /// Whether the finalizer that keeps a claim in use from being deleted is on it.
    pub fn protected(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == names::CLAIM_FINALIZER)
    }

    /// Whether the finalizer is on it that holds it until its use is in the ledger.
    pub fn ledgered(&self) -> bool {
        self.finalizers.iter().any(|finalizer| finalizer == names::LEDGER_FINALIZER)
    }

    /// Whether its last use is over and not in the ledger yet: it is decided anew only after that.
    pub fn unaccounted(&self) -> bool {
        self.ledgered() && self.allocation.is_none() && self.decided().is_none()
    }

    /// Whether a pod may use it.
    pub fn is_reserved_for(&self, pod_uid: &str) -> bool {
        self.reserved_for.iter().any(|consumer| consumer.uid == pod_uid)
    }
}

impl View for Claim {
    fn parse(mut object: DynamicObject) -> Result<Self, serde_json::Error> {
        object.metadata.managed_fields = None;
        let claim: ResourceClaim = serde_json::from_value(serde_json::to_value(object)?)?;
        let decision = DecisionRecord::of(&claim);
        let ended_ms = vingt_crds::ended(&claim.metadata).map(Timestamp::as_millisecond);
        let status = claim.status.unwrap_or_default();
        Ok(Self {
            version: claim.metadata.resource_version.clone().unwrap_or_default(),
            deleting: claim.metadata.deletion_timestamp.is_some(),
            deleted_ms: claim.metadata.deletion_timestamp.as_ref().map(|time| time.0.as_millisecond()),
            owner: owner(&claim.metadata),
            finalizers: claim.metadata.finalizers.unwrap_or_default(),
            uid: claim.metadata.uid.unwrap_or_default(),
            spec: claim.spec.unwrap_or_default(),
            allocation: status.allocation,
            reserved_for: status.reserved_for.unwrap_or_default(),
            decision,
            ended_ms,
        })
    }

    fn change(delta: Delta<Self>) -> Change {
        Change::Claim(delta)
    }
}
