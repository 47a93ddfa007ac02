//! How far a pod that waits at vingt's gate is, and what it needs: for pods of
//! anybody's controllers. The workers of a `TrainingJob` are decided together
//! and are not looked at here.

use vingt_core::model::DeviceRequest;
use vingt_core::{ClaimState, ClaimsStep, claims_step};
use vingt_crds::{DecisionRecord, names};

use super::ask::{self, Ask, AskedDevices};
use super::layout::Layout;
use crate::world::{Claim, Key, Pod, Scheduling, World};

/// The most pods that may use one claim.
const MAX_CONSUMERS: usize = 256;

/// How far a gated pod is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PodStage {
    /// It has no device of vingt's: the gate comes off.
    Free,
    /// It is not decided yet, or cannot be; in words, why.
    Waits(String),
    /// Its claims are being made, which takes a moment; in words, should it take longer.
    Unmade(String),
    /// Its devices are to be planned.
    Plan(PodNeeds),
    /// Its devices are decided: what is missing is to be written, then the gate comes off.
    Bind(PodBinding),
    /// It is decided in part only: these claims, decided for it, are taken back.
    RollBack(Vec<Key>),
}

/// What a pod needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodNeeds {
    /// Claims to be allocated, with what they ask for.
    pub claims: Vec<(Key, Vec<AskedDevices>)>,
    /// Claims of others, allocated already, that it is to use as well.
    pub shared: Vec<Key>,
    /// The node of the shared claims.
    pub node: Option<String>,
}

/// The decided devices of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodBinding {
    /// Where it goes.
    pub node: String,
    /// Claims with their decision.
    pub claims: Vec<(Key, DecisionRecord)>,
    /// Claims of others that it is to use as well.
    pub shared: Vec<Key>,
}

/// The name of a pod as a workload.
pub fn pod_workload(key: &Key) -> String {
    format!("Pod/{}/{}", key.namespace, key.name)
}

/// How far the pod is.
pub fn stage(key: &Key, pod: &Pod, world: &World) -> PodStage {
    let mut found = Vec::new();
    let mut foreign = false;
    for claim in pod.claims.iter().filter(|claim| !claim.unneeded) {
        let Some(name) = &claim.claim else {
            let template = claim.template.as_deref().unwrap_or_default();
            return PodStage::Unmade(format!(
                "its ResourceClaim has not been made yet from ResourceClaimTemplate {template}"
            ));
        };
        let claim_key = Key::new(&key.namespace, name);
        let Some(object) = world.claims.get(&claim_key) else {
            return PodStage::Unmade(format!("ResourceClaim {name} does not exist"));
        };
        match ask::of_claim(&object.spec, &world.classes) {
            Ask::Foreign => foreign = true,
            Ask::Refused(why) => return PodStage::Waits(format!("ResourceClaim {name}: {why}")),
            Ask::Devices(_) if object.deleting => {
                return PodStage::Waits(format!("ResourceClaim {name} is being deleted"));
            }
            Ask::Devices(asked) => found.push((claim_key, object, asked)),
        }
    }
    if found.is_empty() {
        return PodStage::Free;
    }
    if foreign {
        return PodStage::Waits(
            "a pod with devices of vingt and of another driver is not served: put them in different pods"
                .to_owned(),
        );
    }
    if !pod.gated_by_us_alone() {
        let others: Vec<_> =
            pod.gates.iter().filter(|gate| *gate != names::GATE).map(String::as_str).collect();
        return PodStage::Waits(format!("other scheduling gates hold the pod: {}", others.join(", ")));
    }
    decide(key, pod, found)
}

fn decide(key: &Key, pod: &Pod, found: Vec<(Key, &std::sync::Arc<Claim>, Vec<AskedDevices>)>) -> PodStage {
    let workload = pod_workload(key);
    let mut needs = PodNeeds::default();
    let mut own = Vec::new();
    let mut reserved = true;
    for (claim_key, claim, asked) in found {
        let name = &claim_key.name;
        let record = claim.decision.as_ref().ok();
        let mine = record.filter(|record| record.workload == workload);
        if let Some(allocation) = claim.allocated().first() {
            let node = &allocation.pool;
            if claim.is_reserved_for(&pod.uid) && mine.is_some() {
                own.push((claim_key, ClaimState::Allocated, mine.cloned(), asked));
            } else if record.is_none() {
                return PodStage::Waits(format!(
                    "ResourceClaim {name} is allocated, but not by vingt: delete it"
                ));
            } else if claim.reserved_for.len() >= MAX_CONSUMERS && !claim.is_reserved_for(&pod.uid) {
                return PodStage::Waits(format!(
                    "ResourceClaim {name} is used by {MAX_CONSUMERS} pods, which is the most"
                ));
            } else if needs.node.as_ref().is_some_and(|other| other != node) {
                return PodStage::Waits("its ResourceClaims are allocated on different nodes".to_owned());
            } else {
                needs.node = Some(node.clone());
                reserved &= claim.is_reserved_for(&pod.uid);
                needs.shared.push(claim_key);
            }
        } else if let Some(record) = claim.decided() {
            if record.workload != workload {
                return PodStage::Waits(format!(
                    "ResourceClaim {name} is being allocated for {}",
                    record.workload
                ));
            }
            own.push((claim_key, ClaimState::Recorded, Some(record.clone()), asked));
        } else if claim.unaccounted() {
            return PodStage::Waits(format!("the last use of ResourceClaim {name} is not accounted yet"));
        } else {
            own.push((claim_key, ClaimState::Undecided, None, asked));
        }
    }
    let states: Vec<ClaimState> = own.iter().map(|(_, state, ..)| *state).collect();
    // Whether the node of the shared claims has room for one more pod is planned like the rest.
    let joins = own.is_empty() && !reserved;
    match claims_step(&states, false) {
        ClaimsStep::Complete | ClaimsStep::Write(_) if joins => PodStage::Plan(needs),
        ClaimsStep::Plan => {
            needs.claims = own.into_iter().map(|(claim, _, _, asked)| (claim, asked)).collect();
            PodStage::Plan(needs)
        }
        ClaimsStep::RollBack(_) => PodStage::RollBack(decided(own).map(|(claim, _)| claim).collect()),
        ClaimsStep::Complete | ClaimsStep::Write(_) => {
            let claims: Vec<_> = decided(own).collect();
            let nodes: std::collections::BTreeSet<&String> =
                claims.iter().map(|(_, record)| &record.node).chain(&needs.node).collect();
            // Decided for one node and shared on another: start over.
            match nodes.first() {
                Some(node) if nodes.len() == 1 => {
                    PodStage::Bind(PodBinding { node: (*node).clone(), claims, shared: needs.shared })
                }
                _ => PodStage::RollBack(claims.into_iter().map(|(claim, _)| claim).collect()),
            }
        }
    }
}

/// Whether kube-scheduler waits for devices that vingt alone gives out, for a pod
/// that is not at vingt's gate: it was made before its namespace was a tenant's.
pub fn unserved(key: &Key, pod: &Pod, world: &World) -> bool {
    let waits = !pod.gated() && !pod.ended && !pod.deleting && pod.node.is_none();
    let undecided = |name: &String| {
        let claim = world.claims.get(&Key::new(&key.namespace, name));
        claim.is_some_and(|claim| {
            let ours = !matches!(ask::of_claim(&claim.spec, &world.classes), Ask::Foreign);
            ours && claim.allocation.is_none() && claim.decided().is_none()
        })
    };
    let mut claims = pod.claims.iter().filter_map(|claim| claim.claim.as_ref());
    waits && pod.unschedulable.is_some() && claims.any(undecided)
}

fn decided(
    own: Vec<(Key, ClaimState, Option<DecisionRecord>, Vec<AskedDevices>)>,
) -> impl Iterator<Item = (Key, DecisionRecord)> {
    own.into_iter().filter_map(|(claim, _, record, _)| Some((claim, record?)))
}

/// What the claims ask for, as requests of the core, in order; the error says
/// what is not supported.
pub fn requests(
    claims: &[(Key, Vec<AskedDevices>)],
    layout: &mut Layout,
) -> Result<Vec<DeviceRequest>, String> {
    let asked = claims.iter().flat_map(|(_, asked)| asked);
    asked.map(|asked| request(asked, layout)).collect()
}

/// One request of the core's.
pub fn request(asked: &AskedDevices, layout: &mut Layout) -> Result<DeviceRequest, String> {
    let selection = layout.select(&asked.selectors)?;
    let class = || {
        let class = asked
            .class
            .strip_suffix(names::GROUP)
            .and_then(|name| name.strip_suffix('.'))
            .unwrap_or(&asked.class);
        class.strip_prefix("mig-").unwrap_or(class).to_owned()
    };
    let label = selection.kind.unwrap_or_else(class);
    Ok(DeviceRequest { count: asked.count, label, eligible: selection.set, smallest: true })
}

/// Why the containers cannot use what they ask for: CUDA sees one partition only.
pub fn refuse_two_partitions(
    key: &Key,
    pod: &Pod,
    scheduling: &Scheduling,
    claims: &[(Key, Vec<AskedDevices>)],
    layout: &mut Layout,
) -> Result<(), String> {
    for (container, uses) in &scheduling.containers {
        let mut partitions = 0;
        for (name, request) in uses {
            let claim =
                pod.claims.iter().find(|claim| claim.name == *name).and_then(|claim| claim.claim.as_ref());
            let Some(claim) = claim.map(|claim| Key::new(&key.namespace, claim)) else { continue };
            let asked = claims.iter().filter(|(key, _)| *key == claim).flat_map(|(_, asked)| asked);
            for asked in
                asked.filter(|asked| request.as_ref().is_none_or(|request| asked.request == *request))
            {
                if layout.select(&asked.selectors)?.partitions {
                    partitions += asked.count;
                }
            }
        }
        if partitions > 1 {
            return Err(format!(
                "container {container} asks for {partitions} MIG partitions, and a CUDA program can use only one: \
                 ask for a larger profile, or give each container its own"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
