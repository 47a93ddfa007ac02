//! What holds devices is entered into the picture, and what is remembered of
//! the last plan: who has been asked to leave, and which places are kept for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;
use vingt_core::model::{DeviceIndex, Plan, PodPlacement, PodShape, Right, Snapshot};
use vingt_crds::{ConditionType, InferenceJob, TrainingJob};

use super::Engine;
use crate::jobs::facts::{condition, gang_workload};
use crate::snapshot::ask::AskedDevices;
use crate::snapshot::members::Members;
use crate::snapshot::running::{self, Holder, Sight};
use crate::snapshot::{Picture, pods};
use crate::tenants::Tenancy;
use crate::world::{Key, Pod};

/// How long it is believed that something leaves that was asked to and does not say so itself.
const BELIEVED: Duration = Duration::from_secs(15);

/// Something that was asked to leave a moment ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    leaves_ms: i64,
    until: Instant,
}

/// A place that is kept, by names: what is where in the snapshot changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The node.
    pub node: String,
    /// The devices of each request.
    pub devices: Vec<Vec<String>>,
}

/// The places that the last plan keeps for a workload.
#[derive(Debug)]
pub(super) struct KeptPlaces {
    /// Which of the reservations it was.
    pub rank: u32,
    /// A place for each pod.
    pub places: Vec<Place>,
    /// As what the workload runs if it starts there.
    pub right: Right,
}

impl Place {
    /// The place of that name in the snapshot.
    pub(super) fn of(placement: &PodPlacement, snapshot: &Snapshot) -> Self {
        let name =
            |at: &DeviceIndex| snapshot.gpus[at.gpu.0 as usize].devices[usize::from(at.device)].name.clone();
        let devices = placement.devices.iter().map(|devices| devices.iter().map(name).collect()).collect();
        Self { node: snapshot.nodes[placement.node.0 as usize].name.clone(), devices }
    }
}

impl Engine {
    /// Enters all that hold devices.
    pub(super) fn enter_running(
        &mut self,
        picture: &mut Picture,
        tenancy: &Tenancy,
        members: &Members,
        now_ms: i64,
    ) {
        let now = Instant::now();
        self.asked.retain(|_, asked| asked.until > now);
        let mut asked: BTreeMap<String, i64> =
            self.asked.iter().map(|(workload, asked)| (workload.clone(), asked.leaves_ms)).collect();
        asked.extend(self.moving(now_ms));
        let mut found = Vec::new();
        let sight = Sight {
            world: &self.world,
            members,
            layout: &self.layout,
            gpus: &picture.snapshot.gpus,
            asked: &asked,
            now_ms,
        };
        for (key, job) in self.world.training_jobs.iter() {
            let planned = job.status.as_ref().filter(|status| !status.assignments.is_empty());
            let Some(status) = planned.filter(|_| !self.pending.contains_key(&gang_workload(key))) else {
                continue;
            };
            let tenant = tenancy.tenant(&key.namespace).unwrap_or(&status.tenant);
            if let Some(running) = running::gang(key, job, tenant, sight) {
                found.push((Holder::Gang(key.clone()), running, vec![]));
            }
        }
        let holds = |pod: &Pod| !pod.gated() && !pod.claims.is_empty();
        for (key, pod) in self.world.pods.iter().filter(|(_, pod)| holds(pod)) {
            if members.gang_of(key).is_some() || self.pending.contains_key(&pods::pod_workload(key)) {
                continue;
            }
            let server_key = members.server_of(key);
            let server = server_key.and_then(|server| self.world.inference_jobs.get(server));
            let Some((mut running, wishes)) = running::pod(key, pod, server.map(AsRef::as_ref), sight) else {
                continue;
            };
            if let (Some(server_key), Some(server)) = (server_key, server)
                && !self.may_move(server_key, server)
            {
                running.movable = vingt_core::model::Movable::No;
            }
            found.push((Holder::Pod(key.clone()), running, wishes));
        }
        // A gang has no plan any more when it has ended; its claims hold their devices for a moment longer.
        let ended = |job: &TrainingJob| {
            let conditions = job.status.as_ref().map(|status| status.conditions.as_slice());
            condition(conditions.unwrap_or_default(), ConditionType::Finished).is_some()
        };
        let ended: BTreeSet<String> = self
            .world
            .training_jobs
            .iter()
            .filter(|(_, job)| ended(job))
            .map(|(key, _)| gang_workload(key))
            .collect();
        for (key, claim) in self.world.claims.iter() {
            let Ok(record) = &claim.decision else { continue };
            if ended.contains(&record.workload)
                && let Some(running) = running::claim(key, claim, &record.tenant, sight)
            {
                found.push((Holder::Claim(key.clone()), running, vec![]));
            }
        }
        // Replicas of a server are alike.
        let mut alike: BTreeMap<Key, Option<PodShape>> = BTreeMap::new();
        for (holder, running, wishes) in found {
            let shape = match &holder {
                Holder::Gang(key) => {
                    let job = self.world.training_jobs.get(key).cloned();
                    job.and_then(|job| self.gang_shape(&job).ok())
                }
                Holder::Pod(key) => match members.server_of(key) {
                    Some(server) => alike
                        .entry(server.clone())
                        .or_insert_with_key(|server| {
                            let job = self.world.inference_jobs.get(server).cloned();
                            job.and_then(|job| self.server_shape(&job))
                        })
                        .clone(),
                    None => self.pod_shape(key, &wishes),
                },
                Holder::Claim(_) => Some(PodShape::default()),
            };
            if let Some(shape) = shape {
                picture.enter_running(holder, running, shape);
            }
        }
        picture.snapshot.device_sets.clone_from(&self.layout.sets);
    }

    /// What a replica needs.
    fn server_shape(&mut self, job: &InferenceJob) -> Option<PodShape> {
        let request = self.request(&job.spec.gpu).ok()?;
        Some(PodShape { requests: vec![request], ..self.shape(&job.metadata, &job.spec.template) })
    }

    /// What a pod of somebody's needs, as far as it is known: it is not moved.
    fn pod_shape(&mut self, key: &Key, wishes: &[AskedDevices]) -> Option<PodShape> {
        let requests =
            wishes.iter().map(|wish| pods::request(wish, &mut self.layout).ok()).collect::<Option<_>>()?;
        let resources = self.world.pods.get(key)?.requests.clone();
        Some(PodShape { resources, requests, ..PodShape::default() })
    }

    /// Remembers that something was asked to leave, until it says so itself.
    pub(super) fn remember_asked(&mut self, workload: &str, leaves_ms: i64) {
        self.asked.insert(workload.to_owned(), Asked { leaves_ms, until: Instant::now() + BELIEVED });
    }

    /// Tells the core which places its last plan kept.
    pub(super) fn recall_places(&self, picture: &mut Picture, members: &Members) {
        let moving = self.move_places(members);
        for workload in &mut picture.snapshot.waiting {
            // A replica's place was promised when the move began: before all others.
            let kept =
                self.kept.get(&workload.key).map(|kept| (kept.rank + 1, &kept.places, kept.right.clone()));
            let moved = moving.get(&workload.key).map(|places| (0, places, Right::Ordinary));
            let Some((rank, places, right)) = moved.or(kept) else {
                continue;
            };
            let placement = |place: &Place| -> Option<PodPlacement> {
                let node = *self.layout.node_index.get(&place.node)?;
                let find = |devices: &Vec<String>| {
                    devices.iter().map(|name| self.layout.find(&place.node, name)).collect::<Option<Vec<_>>>()
                };
                let devices = place.devices.iter().map(find).collect::<Option<Vec<_>>>()?;
                Some(PodPlacement { node, devices })
            };
            // One whose devices are not there any more is kept for nobody.
            if let Some(places) = places.iter().map(placement).collect() {
                workload.reserved = places;
                workload.reserved_rank = rank;
                workload.reserved_right = right;
            }
        }
    }

    /// Remembers which places the plan keeps.
    pub(super) fn remember_places(&mut self, snapshot: &Snapshot, plan: &Plan) {
        let reservations = (0..).zip(&plan.reservations).map(|(rank, reservation)| {
            let places = reservation.pods.iter().map(|pod| Place::of(pod, snapshot)).collect();
            let right = reservation.right.clone();
            (snapshot.waiting[reservation.workload].key.clone(), KeptPlaces { rank, places, right })
        });
        self.kept = reservations.collect();
        self.metrics.reservations.set(i64::try_from(self.kept.len()).unwrap_or(i64::MAX));
        if let Some(free_ms) = plan.reservations.iter().filter_map(|reservation| reservation.free_ms).min() {
            self.look_again_at_ms(free_ms);
        }
    }
}
