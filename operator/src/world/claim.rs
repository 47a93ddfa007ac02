//! `ResourceClaims`, with their decision record read once when they arrive.

use k8s_openapi::api::resource::v1::{
    AllocationResult, ResourceClaim, ResourceClaimConsumerReference, ResourceClaimSpec,
};
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
        let status = claim.status.unwrap_or_default();
        Ok(Self {
            version: claim.metadata.resource_version.clone().unwrap_or_default(),
            deleting: claim.metadata.deletion_timestamp.is_some(),
            owner: owner(&claim.metadata),
            finalizers: claim.metadata.finalizers.unwrap_or_default(),
            uid: claim.metadata.uid.unwrap_or_default(),
            spec: claim.spec.unwrap_or_default(),
            allocation: status.allocation,
            reserved_for: status.reserved_for.unwrap_or_default(),
            decision,
        })
    }

    fn change(delta: Delta<Self>) -> Change {
        Change::Claim(delta)
    }
}
