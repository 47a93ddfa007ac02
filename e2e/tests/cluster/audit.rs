//! The auditor: recomputes who holds what from the claims, from the decision
//! records and from the (emulated) NVML of every node, and compares. It runs
//! all the time beside the trials. It repairs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use kube::api::ListParams;
use kube::{Api, Client};
use nvml_emulator::{Emulator, Partition};
use tokio::time::Instant;
use vingt_core::{Holding, audit};
use vingt_crds::{DecisionRecord, Tenant, names};

use crate::geometry::Geometry;

/// How often it looks.
const INTERVAL: Duration = Duration::from_millis(700);
/// Two sides may differ this long, while one follows the other.
const PATIENCE: Duration = Duration::from_secs(40);
/// What is said of a claim whose use is over, until that is in the ledger.
const USE_IS_OVER: &str = "has a decision record and no device";
/// It waits a minute for an agent that says nothing.
const PATIENCE_FOR_THE_END: Duration = Duration::from_secs(100);

/// How long a difference may last.
fn patience(difference: &str) -> Duration {
    if difference.ends_with(USE_IS_OVER) { PATIENCE_FOR_THE_END } else { PATIENCE }
}

/// An auditor of one lab.
pub struct Auditor {
    client: Client,
    /// By node: the folder of its emulator.
    nodes: BTreeMap<String, PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    geometry: Geometry,
    paused: bool,
    audits: usize,
    most_held: usize,
    /// What must never be, in words, in the order it was seen.
    violations: Vec<String>,
    /// What may be for a while, and since when it is.
    differences: BTreeMap<String, Instant>,
    /// Partitions that a trial made itself, by node and serial number: UUIDs come again.
    foreign: BTreeSet<(String, u32)>,
}

/// A claim that holds devices.
#[derive(Debug, Clone)]
pub struct Held {
    /// `<namespace>/<name>`.
    pub claim: String,
    /// What was decided.
    pub record: DecisionRecord,
}

impl Auditor {
    /// An auditor that has seen nothing yet.
    pub fn new(client: Client, nodes: BTreeMap<String, PathBuf>) -> Arc<Self> {
        Arc::new(Self { client, nodes, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks again and again.
    pub async fn watch(self: Arc<Self>) {
        loop {
            if !self.state().paused {
                // An API server that does not answer has nothing to audit.
                let _ = self.look().await;
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    /// Looks away, while a trial makes up claims of its own, or looks again.
    pub fn pause(&self, paused: bool) {
        self.state().paused = paused;
    }

    /// A partition that a trial made past vingt.
    pub fn expect_foreign(&self, node: &str, serial: u32) {
        self.state().foreign.insert((node.to_owned(), serial));
    }

    /// Something that must not be, found by a trial itself.
    pub fn accuse(&self, violation: String) {
        self.state().found(violation);
    }

    /// Looks once, now.
    pub async fn look(&self) -> Result<()> {
        let all = ListParams::default();
        // Pods first: a pod that runs has its claim, and then its partition.
        let pods = Api::<Pod>::all(self.client.clone()).list(&all).await?.items;
        let claims = Api::<ResourceClaim>::all(self.client.clone()).list(&all).await?.items;
        let tenants = Api::<Tenant>::all(self.client.clone()).list(&all).await.map(|list| list.items);
        let slices = Api::<ResourceSlice>::all(self.client.clone()).list(&all).await?.items;
        let mut partitions = BTreeMap::new();
        for (node, folder) in &self.nodes {
            for gpu in Emulator::open(folder)?.occupancy()? {
                for partition in gpu.partitions {
                    partitions.insert((node.clone(), device_name(gpu.minor, &partition)), partition);
                }
            }
        }
        // Once more: what was only just given back is no leak.
        let later = Api::<ResourceClaim>::all(self.client.clone()).list(&all).await?.items;

        let mut state = self.state();
        state.audits += 1;
        if let Err(error) = state.geometry.learn(&slices) {
            state.found(format!("{error:#}"));
        }
        let held = state.holdings(&claims);
        state.most_held = state.most_held.max(held.len());
        let now_held = allocated(&later);
        let mut found = BTreeSet::new();
        for ((node, device), partition) in &partitions {
            let owned = now_held.contains(&(node.clone(), device.clone()))
                || held.iter().any(|held| held.holds(node, device));
            let foreign = state.foreign.contains(&(node.clone(), partition.serial));
            if !owned && !foreign {
                found
                    .insert(format!("partition {device} (no. {}) of {node} is no claim's", partition.serial));
            }
        }
        found.extend(running_without(&pods, &held, &partitions));
        found.extend(unfounded(&claims, &pods));
        if let Ok(tenants) = tenants {
            found.extend(charges(&tenants, &held));
        }
        let now = Instant::now();
        state.differences.retain(|difference, _| found.contains(difference));
        for difference in found {
            state.differences.entry(difference).or_insert(now);
        }
        let lasting: Vec<String> = state
            .differences
            .iter()
            .filter(|(difference, since)| since.elapsed() > patience(difference))
            .map(|(difference, _)| format!("for more than {:?}: {difference}", patience(difference)))
            .collect();
        for violation in lasting {
            state.found(violation);
        }
        Ok(())
    }

    /// How much was found until now, for [`Auditor::verdict`].
    pub fn found(&self) -> usize {
        self.state().violations.len()
    }

    /// Fails if something was found since `since`.
    pub fn verdict(&self, since: usize) -> Result<()> {
        let state = self.state();
        let found = &state.violations[since..];
        ensure!(found.is_empty(), "the auditor found:\n{}", found.join("\n"));
        Ok(())
    }

    /// How often it looked, and the most claims it saw held at once.
    pub fn seen(&self) -> (usize, usize) {
        let state = self.state();
        (state.audits, state.most_held)
    }

    /// What differs at this moment, in words.
    pub fn differences(&self) -> Vec<String> {
        self.state().differences.keys().cloned().collect()
    }
}

impl State {
    fn found(&mut self, violation: String) {
        if !self.violations.contains(&violation) {
            self.violations.push(violation);
        }
    }

    /// The claims that hold devices, each checked against its record, all
    /// against each other.
    fn holdings(&mut self, claims: &[ResourceClaim]) -> Vec<Held> {
        let mut held = Vec::new();
        let mut holdings = Vec::new();
        for claim in claims.iter().filter(|claim| devices(claim).next().is_some()) {
            let name = full_name(claim);
            let record = match DecisionRecord::verified(claim) {
                Ok(record) => record,
                Err(why) => {
                    self.found(format!("claim {name} is allocated, but {why}"));
                    continue;
                }
            };
            let mut units = 0;
            for device in &record.devices {
                let owner = name.clone();
                holdings.push(Holding { owner, node: device.pool.clone(), device: device.device.clone() });
                units += self.geometry.units(&device.pool, &device.device).unwrap_or(0);
            }
            if units != record.units {
                let charged = record.units;
                self.found(format!("claim {name} is charged {charged} units instead of {units}"));
            }
            held.push(Held { claim: name, record });
        }
        let violations = audit(&self.geometry.snapshot(), &holdings);
        for violation in violations {
            self.found(violation.to_string());
        }
        held
    }
}

impl Held {
    fn holds(&self, node: &str, device: &str) -> bool {
        self.record.devices.iter().any(|held| held.pool == node && held.device == device)
    }
}

/// The name that the agent gives to a partition.
pub fn device_name(minor: u32, partition: &Partition) -> String {
    let profile = partition.profile.replace('.', "").replace('+', "-");
    format!("gpu-{minor}-mig-{profile}-{}-{}", partition.profile_id, partition.start)
}

/// The devices of ours that a claim is allocated, as (node, device).
pub fn devices(claim: &ResourceClaim) -> impl Iterator<Item = (&str, &str)> {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let results =
        allocation.and_then(|allocation| allocation.devices.as_ref()).and_then(|all| all.results.as_ref());
    let ours = results.into_iter().flatten().filter(|result| result.driver == names::DRIVER);
    ours.map(|result| (result.pool.as_str(), result.device.as_str()))
}

fn allocated(claims: &[ResourceClaim]) -> BTreeSet<(String, String)> {
    let all = claims.iter().flat_map(devices);
    all.map(|(node, device)| (node.to_owned(), device.to_owned())).collect()
}

fn full_name(claim: &ResourceClaim) -> String {
    let metadata = &claim.metadata;
    let part = |part: &Option<String>| part.clone().unwrap_or_default();
    format!("{}/{}", part(&metadata.namespace), part(&metadata.name))
}

/// Pods that run without the partitions they were given.
fn running_without(
    pods: &[Pod],
    held: &[Held],
    partitions: &BTreeMap<(String, String), Partition>,
) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for pod in pods {
        let status = pod.status.as_ref();
        let runs = status.and_then(|status| status.phase.as_deref()) == Some("Running");
        if !runs || pod.metadata.deletion_timestamp.is_some() {
            continue;
        }
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or_default();
        let statuses = status.and_then(|status| status.resource_claim_statuses.as_ref());
        for claim in statuses.into_iter().flatten().filter_map(|status| status.resource_claim_name.as_ref()) {
            let claim = format!("{namespace}/{claim}");
            let Some(held) = held.iter().find(|held| held.claim == claim) else { continue };
            for device in &held.record.devices {
                let missing = device.device.contains("-mig-")
                    && !partitions.contains_key(&(device.pool.clone(), device.device.clone()));
                if missing || device.pool != node {
                    let (pool, device) = (&device.pool, &device.device);
                    found.insert(format!("pod {namespace}/{name} runs on {node} without {device} of {pool}"));
                }
            }
        }
    }
    found
}

/// Decisions and reservations that lead nowhere.
fn unfounded(claims: &[ResourceClaim], pods: &[Pod]) -> BTreeSet<String> {
    let live: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.uid.as_deref()).collect();
    let mut found = BTreeSet::new();
    for claim in claims {
        let name = full_name(claim);
        let holds = devices(claim).next().is_some();
        let decided = claim.metadata.annotations.iter().flatten().any(|(key, _)| key == names::DECISION);
        if decided && !holds {
            found.insert(format!("claim {name} {USE_IS_OVER}"));
        }
        let reserved = claim.status.as_ref().and_then(|status| status.reserved_for.as_ref());
        let for_somebody = reserved.into_iter().flatten().any(|pod| live.contains(pod.uid.as_str()));
        if holds && !for_somebody {
            found.insert(format!("claim {name} holds a device for nobody"));
        }
    }
    found
}

/// Tenants whose status says another charge than their claims add up to.
fn charges(tenants: &[Tenant], held: &[Held]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for tenant in tenants {
        let name = tenant.metadata.name.clone().unwrap_or_default();
        let sum: u64 =
            held.iter().filter(|held| held.record.tenant == name).map(|held| held.record.units).sum();
        let said = tenant.status.as_ref().map_or(0, |status| status.used_units);
        if said != sum {
            found.insert(format!("tenant {name} is said to use {said} units; its claims hold {sum}"));
        }
    }
    found
}
