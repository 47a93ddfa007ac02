//! Where the agent reads `ResourceClaim`s and tells their end: the API server,
//! or in tests a folder. What a claim must be like to be prepared is said here too, since it
//! depends on nothing but the claim.

use std::time::Duration;

use futures::future::BoxFuture;
use k8s_openapi::api::resource::v1::ResourceClaim;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams};
use serde_json::json;
use vingt_crds::{DecisionRecord, InvalidDecision, names};

/// The API server did not answer, or refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the API server cannot be asked for claims: {0}")]
pub struct Unavailable(pub String);

/// Reads claims, and tells their end.
pub trait ClaimSource: Send + Sync + 'static {
    /// The claim of this name, as it is now; `None` if there is none.
    fn get<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<ResourceClaim>, Unavailable>>;

    /// All claims that are allocated, of any driver and node.
    fn allocated(&self) -> BoxFuture<'_, Result<Vec<ResourceClaim>, Unavailable>>;

    /// Writes on a claim when it ended; `false` if it is another one by now and must be read again.
    fn end<'a>(
        &'a self,
        claim: &'a ResourceClaim,
        end: Timestamp,
    ) -> BoxFuture<'a, Result<bool, Unavailable>>;
}

/// The patch that says when a claim ended; it is refused for any other version of the claim.
pub fn end_patch(claim: &ResourceClaim, end: Timestamp) -> serde_json::Value {
    json!({"metadata": {
        "uid": claim.metadata.uid,
        "resourceVersion": claim.metadata.resource_version,
        "annotations": {names::ENDED: format!("{end:.3}")},
    }})
}

/// Claims of the API server.
pub struct KubeClaims {
    client: kube::Client,
}

impl KubeClaims {
    /// Reads with `client`.
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }
}

/// Longer than any healthy API server takes, and well within the kubelet's deadline of 45 s.
const DEADLINE: Duration = Duration::from_secs(10);

async fn in_time<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Unavailable> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Unavailable(error.to_string())),
        Err(_) => Err(Unavailable(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

impl ClaimSource for KubeClaims {
    fn get<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<ResourceClaim>, Unavailable>> {
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), namespace);
        Box::pin(async move { in_time(api.get_opt(name)).await })
    }

    fn allocated(&self) -> BoxFuture<'_, Result<Vec<ResourceClaim>, Unavailable>> {
        let api: Api<ResourceClaim> = Api::all(self.client.clone());
        Box::pin(async move {
            let mut claims = Vec::new();
            let mut page = ListParams::default().limit(500);
            loop {
                let list = in_time(api.list(&page)).await?;
                let allocated =
                    |claim: &ResourceClaim| claim.status.as_ref().is_some_and(|s| s.allocation.is_some());
                claims.extend(list.items.into_iter().filter(allocated));
                match list.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page = page.continue_token(&token),
                    None => return Ok(claims),
                }
            }
        })
    }

    fn end<'a>(
        &'a self,
        claim: &'a ResourceClaim,
        end: Timestamp,
    ) -> BoxFuture<'a, Result<bool, Unavailable>> {
        let namespace = claim.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<ResourceClaim> = Api::namespaced(self.client.clone(), namespace);
        Box::pin(async move {
            let name = claim.metadata.name.as_deref().unwrap_or_default();
            let (params, patch) = (PatchParams::default(), Patch::Merge(end_patch(claim, end)));
            in_time(async {
                match api.patch_metadata(name, &params, &patch).await {
                    Ok(_) => Ok(true),
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(false),
                    Err(error) => Err(error),
                }
            })
            .await
        })
    }
}

/// Why a claim is not one that this node may prepare.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// Nobody decided it, or something else than what is allocated.
    #[error("{0}; vingt prepares only what its operator decided")]
    Decision(#[from] InvalidDecision),
    /// It was decided for another node.
    #[error("it was decided for node {decided}, and this is node {here}")]
    OtherNode {
        /// Node of the decision.
        decided: String,
        /// This node.
        here: String,
    },
    /// It has none of our devices.
    #[error("it is allocated no device of {}", names::DRIVER)]
    NoDevices,
}

/// The decision of a claim, if the claim is one that this node may prepare.
pub fn decision(claim: &ResourceClaim, node: &str) -> Result<DecisionRecord, NotOurs> {
    let record = DecisionRecord::verified(claim)?;
    let elsewhere = record.devices.iter().map(|device| &device.pool).find(|pool| pool.as_str() != node);
    let decided = if record.node == node { elsewhere } else { Some(&record.node) };
    if let Some(decided) = decided {
        return Err(NotOurs::OtherNode { decided: decided.clone(), here: node.to_owned() });
    }
    if record.devices.is_empty() {
        return Err(NotOurs::NoDevices);
    }
    Ok(record)
}

/// Whether a claim may still be in use on this node, whatever its decision record says.
///
/// The record says what may be made, not what must go: it is taken off claims in use when vingt is
/// uninstalled.
pub fn is_held(claim: &ResourceClaim, node: &str) -> bool {
    let Some(status) = &claim.status else { return false };
    let devices = status.allocation.as_ref().and_then(|allocation| allocation.devices.as_ref());
    let mut results = devices.into_iter().flat_map(|devices| devices.results.iter().flatten());
    results.any(|result| result.driver == names::DRIVER && result.pool == node)
        || status.reserved_for.as_ref().is_some_and(|users| !users.is_empty())
}

#[cfg(test)]
pub(crate) mod tests {
    use k8s_openapi::api::resource::v1::{
        AllocationResult, DeviceAllocationResult, DeviceRequestAllocationResult, ResourceClaimStatus,
    };
    use vingt_crds::DecidedDevice;

    use super::*;

    /// A claim allocated and decided as `record` says.
    pub(crate) fn claim(namespace: &str, name: &str, record: &DecisionRecord) -> ResourceClaim {
        let mut claim = ResourceClaim::default();
        claim.metadata.namespace = Some(namespace.to_owned());
        claim.metadata.name = Some(name.to_owned());
        claim.metadata.uid = Some(record.claim.clone());
        claim.metadata.annotations = Some([(names::DECISION.to_owned(), record.to_json())].into());
        let results = record.devices.iter().map(|device| DeviceRequestAllocationResult {
            driver: names::DRIVER.into(),
            pool: device.pool.clone(),
            device: device.device.clone(),
            request: device.request.clone(),
            ..Default::default()
        });
        let devices = DeviceAllocationResult { results: Some(results.collect()), config: None };
        claim.status = Some(ResourceClaimStatus {
            allocation: Some(AllocationResult { devices: Some(devices), ..Default::default() }),
            ..Default::default()
        });
        claim
    }

    /// A record for devices of one node.
    pub(crate) fn record(uid: &str, node: &str, devices: &[&str]) -> DecisionRecord {
        let device = |device: &&str| DecidedDevice {
            request: "gpu".into(),
            pool: node.to_owned(),
            device: (*device).to_owned(),
        };
        DecisionRecord {
            version: 1,
            claim: uid.to_owned(),
            node: node.to_owned(),
            devices: devices.iter().map(device).collect(),
            units: 28,
            tenant: "prod".into(),
            workload: "Pod/prod/x".into(),
            start: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            order: None,
            account: vingt_crds::DecidedAccount::default(),
        }
    }

    #[test]
    fn only_what_was_decided_for_this_node_is_ours() {
        let good = record("u", "n1", &["gpu-0"]);
        assert_eq!(decision(&claim("prod", "x", &good), "n1"), Ok(good.clone()));
        let other_node = NotOurs::OtherNode { decided: "n1".into(), here: "n2".into() };
        assert_eq!(decision(&claim("prod", "x", &good), "n2"), Err(other_node));
        let mut other_pool = good.clone();
        other_pool.devices[0].pool = "n3".into();
        let elsewhere = NotOurs::OtherNode { decided: "n3".into(), here: "n1".into() };
        assert_eq!(decision(&claim("prod", "x", &other_pool), "n1"), Err(elsewhere));
        assert_eq!(decision(&claim("prod", "x", &record("u", "n1", &[])), "n1"), Err(NotOurs::NoDevices));
        let mut undecided = claim("prod", "x", &good);
        undecided.metadata.annotations = None;
        assert_eq!(decision(&undecided, "n1"), Err(NotOurs::Decision(InvalidDecision::Missing)));
    }
}
