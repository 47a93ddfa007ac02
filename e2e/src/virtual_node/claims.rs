//! The claims of a node's pods: each is prepared once, however many pods share
//! it, and unprepared when the last of them has ended.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::{Api, Client};
use tokio::sync::Mutex;

use super::dra_client::{self, ClaimRef, PreparedDevice};
use super::plugin::Plugins;

/// Which claims are prepared on a node, and for whom.
#[derive(Debug, Default)]
pub struct Claims {
    entries: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Debug)]
struct Entry {
    claim: ClaimRef,
    drivers: BTreeSet<String>,
    pods: BTreeSet<String>,
    devices: Option<Vec<PreparedDevice>>,
}

impl Claims {
    /// Prepares what a pod claims. Fails while a claim is not allocated to the
    /// pod, or its driver is away or refuses: the caller tries again.
    pub async fn prepare(&self, client: &Client, plugins: &Plugins, pod: &Pod) -> Result<()> {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let pod_uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let claims: Api<ResourceClaim> = Api::namespaced(client.clone(), namespace);
        for name in claim_names(pod)? {
            let claim = claims.get(&name).await?;
            let uid = claim.metadata.uid.clone().unwrap_or_default();
            let status = claim.status.unwrap_or_default();
            let reserved = status.reserved_for.unwrap_or_default();
            if !reserved.iter().any(|consumer| consumer.uid == pod_uid) {
                bail!("claim {namespace}/{name} is not reserved for this pod");
            }
            let Some(allocation) = status.allocation else {
                bail!("claim {namespace}/{name} is not allocated");
            };
            let results = allocation.devices.unwrap_or_default().results.unwrap_or_default();
            let drivers: BTreeSet<String> = results.into_iter().map(|result| result.driver).collect();
            let reference = ClaimRef { namespace: namespace.to_owned(), uid: uid.clone(), name };

            let mut entries = self.entries.lock().await;
            let entry = entries.entry(uid.clone()).or_insert_with(|| Entry {
                claim: reference.clone(),
                drivers: drivers.clone(),
                pods: BTreeSet::new(),
                devices: None,
            });
            // Remembered before the call: whatever it leaves behind is undone.
            entry.pods.insert(pod_uid.to_owned());
            if entry.devices.is_some() {
                continue;
            }
            // Other pods of the node don't wait for this one's driver.
            drop(entries);
            let mut devices = Vec::new();
            for driver in &drivers {
                let socket = plugins.endpoint(driver)?;
                let prepared = dra_client::prepare(&socket, std::slice::from_ref(&reference)).await?;
                devices.extend(prepared.into_values().flatten());
            }
            if let Some(entry) = self.entries.lock().await.get_mut(&uid) {
                entry.devices = Some(devices);
            }
        }
        Ok(())
    }

    /// Gives back what a pod claimed. Safe to repeat until it succeeds.
    pub async fn unprepare(&self, plugins: &Plugins, pod_uid: &str) -> Result<()> {
        let mut last_of = Vec::new();
        for (uid, entry) in self.entries.lock().await.iter() {
            if entry.pods.contains(pod_uid) && entry.pods.len() == 1 {
                last_of.push((uid.clone(), entry.claim.clone(), entry.drivers.clone()));
            }
        }
        for (uid, claim, drivers) in last_of {
            for driver in &drivers {
                let socket = plugins.endpoint(driver)?;
                dra_client::unprepare(&socket, std::slice::from_ref(&claim)).await?;
            }
            self.entries.lock().await.remove(&uid);
        }
        for entry in self.entries.lock().await.values_mut() {
            entry.pods.remove(pod_uid);
        }
        Ok(())
    }

    /// Prepares every claim again, as when a restarted kubelet makes the
    /// sandboxes of its pods anew.
    pub async fn prepare_again(&self, plugins: &Plugins) -> Result<()> {
        let mut prepared = Vec::new();
        for entry in self.entries.lock().await.values() {
            if entry.devices.is_some() {
                prepared.push((entry.claim.clone(), entry.drivers.clone()));
            }
        }
        for (claim, drivers) in prepared {
            for driver in &drivers {
                let socket = plugins.endpoint(driver)?;
                dra_client::prepare(&socket, std::slice::from_ref(&claim)).await?;
            }
        }
        Ok(())
    }

    /// The devices a claim was prepared with, by claim uid.
    pub async fn devices(&self, claim_uid: &str) -> Option<Vec<PreparedDevice>> {
        self.entries.lock().await.get(claim_uid)?.devices.clone()
    }
}

/// Names of the claims of a pod, in the order of its spec.
fn claim_names(pod: &Pod) -> Result<Vec<String>> {
    let wanted = pod.spec.as_ref().and_then(|spec| spec.resource_claims.as_ref());
    let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_ref());
    let mut names = Vec::new();
    for claim in wanted.into_iter().flatten() {
        if let Some(name) = &claim.resource_claim_name {
            names.push(name.clone());
            continue;
        }
        let made = statuses.into_iter().flatten().find(|status| status.name == claim.name);
        let made = made.with_context(|| format!("claim {:?} is not made yet", claim.name))?;
        // Without a name, none was needed.
        names.extend(made.resource_claim_name.clone());
    }
    let extended = pod.status.as_ref().and_then(|s| s.extended_resource_claim_status.as_ref());
    names.extend(extended.map(|status| status.resource_claim_name.clone()));
    Ok(names)
}
