//! What may not be stopped for others starts only within what its tenant is
//! guaranteed: else it could borrow and never give back. The rest of who may
//! hold what is the core's.

use std::collections::BTreeMap;

use vingt_core::gpus;
use vingt_core::model::{Snapshot, Units, Workload};
use vingt_crds::names;

use super::Engine;
use crate::jobs::facts::gang_workload;
use crate::snapshot::members::Members;
use crate::snapshot::pods::pod_workload;
use crate::snapshot::running::Holder;
use crate::snapshot::{Picture, Subject};
use crate::world::Key;

impl Engine {
    /// Takes out of the queue what may not be stopped and is more than its tenant is guaranteed, beside what of its
    /// tenant holds devices already and may not be stopped either; says why.
    pub(super) fn hold_to_guarantee(
        &self,
        picture: &mut Picture,
        members: &Members,
    ) -> Vec<(Subject, String)> {
        let lasting: Vec<bool> =
            picture.subjects.iter().map(|subject| self.lasts(subject, members)).collect();
        if !lasting.contains(&true) {
            return vec![];
        }
        let mut held = self.lasting_units(picture, members);
        let snapshot = &picture.snapshot;
        let mut order: Vec<usize> = (0..lasting.len()).filter(|index| lasting[*index]).collect();
        order.sort_by_key(|index| {
            let workload = &snapshot.waiting[*index];
            (-i64::from(workload.priority), workload.queued_ms, &workload.key)
        });
        let mut beyond = BTreeMap::new();
        for index in order {
            let workload = &snapshot.waiting[index];
            let Some(needs) = least_units(workload, snapshot) else { continue };
            let tenant = snapshot.tenants.get(&workload.tenant);
            let guaranteed = tenant.map_or(0, |tenant| tenant.guaranteed);
            let held = held.entry(workload.tenant.clone()).or_default();
            if held.saturating_add(needs) <= guaranteed {
                *held += needs;
                continue;
            }
            let why = format!(
                "it may not be stopped for others, and so starts only within what tenant {} is guaranteed: needs {} GPUs; \
                 {} of {} are left. Without preemptible: false it may borrow",
                workload.tenant,
                gpus(needs),
                gpus(guaranteed.saturating_sub(*held)),
                gpus(guaranteed),
            );
            beyond.insert(index, why);
        }
        let mut out = Vec::new();
        let waiting = std::mem::take(&mut picture.snapshot.waiting);
        let subjects = std::mem::take(&mut picture.subjects);
        for (index, (subject, workload)) in subjects.into_iter().zip(waiting).enumerate() {
            if let Some(why) = beyond.remove(&index) {
                out.push((subject, why));
            } else {
                picture.subjects.push(subject);
                picture.snapshot.waiting.push(workload);
            }
        }
        out
    }

    fn lasts(&self, subject: &Subject, members: &Members) -> bool {
        match subject {
            Subject::Gang(key) => self.gang_lasts(key),
            Subject::Pod(key, _) => self.pod_lasts(key, members),
        }
    }

    fn gang_lasts(&self, key: &Key) -> bool {
        self.world.training_jobs.get(key).is_some_and(|job| !job.spec.preemptible)
    }

    fn pod_lasts(&self, key: &Key, members: &Members) -> bool {
        let server = members.server_of(key).and_then(|server| self.world.inference_jobs.get(server));
        let said = || self.world.pods.get(key).and_then(|pod| pod.marks.get(names::PREEMPTIBLE).cloned());
        server.map_or_else(|| said().as_deref() == Some("false"), |server| !server.spec.preemptible)
    }

    /// What of each tenant holds devices, or is about to, and may not be stopped.
    fn lasting_units(&self, picture: &Picture, members: &Members) -> BTreeMap<String, Units> {
        let mut held: BTreeMap<String, Units> = BTreeMap::new();
        for (holder, running) in picture.holders.iter().zip(&picture.snapshot.running) {
            let lasts = match holder {
                Holder::Gang(key) => self.gang_lasts(key),
                Holder::Pod(key) => self.pod_lasts(key, members),
                Holder::Claim(_) => false,
            };
            if lasts {
                *held.entry(running.tenant.clone()).or_default() += running.units;
            }
        }
        let gangs = self.world.training_jobs.iter().filter(|(_, job)| !job.spec.preemptible);
        let gangs = gangs.map(|(key, _)| gang_workload(key));
        let pods = self.world.pods.iter().filter(|(key, pod)| pod.gated() && self.pod_lasts(key, members));
        for workload in gangs.chain(pods.map(|(key, _)| pod_workload(key))) {
            let Some(decision) = self.pending.get(&workload) else { continue };
            let devices =
                decision.pods.iter().flat_map(|pod| pod.devices.iter().map(|name| (&pod.node, name)));
            let units = devices.filter_map(|(node, name)| {
                let at = self.layout.find(node, name)?;
                let gpu = picture.snapshot.gpus.get(at.gpu.0 as usize)?;
                Some(gpu.devices.get(usize::from(at.device))?.units)
            });
            *held.entry(decision.tenant.clone()).or_default() += units.sum::<Units>();
        }
        held
    }
}

/// The least that a workload can be charged; nothing if there are no such devices.
fn least_units(workload: &Workload, snapshot: &Snapshot) -> Option<Units> {
    let of_request = |request: &vingt_core::model::DeviceRequest| {
        let masks = &snapshot.device_sets.get(request.eligible)?.0;
        let eligible = snapshot.gpus.iter().zip(masks).flat_map(|(gpu, mask)| {
            let devices = gpu.devices.iter().enumerate();
            devices.filter(move |(index, _)| mask >> index & 1 == 1).map(|(_, device)| device.units)
        });
        Some(eligible.min()? * u64::from(request.count))
    };
    let requests = snapshot.shape_of(workload).requests.iter().map(of_request);
    let pod: Units = requests.collect::<Option<Vec<_>>>()?.into_iter().sum();
    Some(pod * u64::from(workload.pods))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vingt_core::model::{Device, DeviceRequest, DeviceSet, Gpu, PodShape, Running, Tenant};
    use vingt_crds::TrainingJob;

    use super::super::gangs::tests::engine;
    use super::*;
    use crate::snapshot::layout::tests::list;

    /// Jobs by name, and whether they may be stopped; those of `queued` wait, each for two GPUs.
    fn picture(engine: &mut Engine, jobs: &[(&str, bool)], queued: &[&str]) -> Picture {
        let job = |(name, preemptible): &(&str, bool)| {
            json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob",
                "metadata": {"name": name, "namespace": "p", "uid": name, "resourceVersion": "1"},
                "spec": {"workers": 2, "preemptible": preemptible, "gpu": {"count": 1},
                    "template": {"spec": {"containers": [{"name": "c"}]}}}})
        };
        list::<TrainingJob>(&mut engine.world, jobs.iter().map(job));
        let mut picture = Picture::default();
        let device = Device { units: 56, ..Device::default() };
        picture.snapshot.gpus = vec![Gpu { devices: vec![device], ..Gpu::default() }];
        picture.snapshot.device_sets = vec![DeviceSet(vec![1])];
        let tenant = Tenant { guaranteed: 4 * 56, ..Tenant::default() };
        picture.snapshot.tenants = BTreeMap::from([("prod".to_owned(), tenant)]);
        let request = DeviceRequest { count: 1, eligible: 0, ..DeviceRequest::default() };
        let shape = PodShape { requests: vec![request], ..PodShape::default() };
        for (name, _) in jobs {
            let key = Key::new("p", name);
            if queued.contains(name) {
                let workload = Workload {
                    key: gang_workload(&key),
                    tenant: "prod".into(),
                    pods: 2,
                    ..Workload::default()
                };
                picture.enter(Subject::Gang(key), workload, shape.clone());
            } else {
                let running = Running { tenant: "prod".into(), units: 112, ..Running::default() };
                picture.enter_running(Holder::Gang(key), running, shape.clone());
            }
        }
        picture
    }

    fn out(jobs: &[(&str, bool)], queued: &[&str]) -> (Vec<String>, Vec<String>) {
        let mut engine = engine();
        let mut picture = picture(&mut engine, jobs, queued);
        let out = engine.hold_to_guarantee(&mut picture, &Members::default());
        assert_eq!(picture.subjects.len(), picture.snapshot.waiting.len());
        let why = out.into_iter().map(|(_, why)| why).collect();
        (picture.snapshot.waiting.into_iter().map(|workload| workload.key).collect(), why)
    }

    #[tokio::test]
    async fn what_may_not_be_stopped_starts_only_within_the_guarantee() {
        let (left, why) =
            out(&[("a", false), ("b", false), ("c", false), ("d", true)], &["a", "b", "c", "d"]);
        assert_eq!(
            left,
            ["TrainingJob/p/a", "TrainingJob/p/b", "TrainingJob/p/d"],
            "four GPUs hold two of them"
        );
        assert!(why[0].contains("needs 2 GPUs; 0 of 4 are left"), "{why:?}");
        let (left, _) = out(&[("a", false), ("b", true), ("c", false)], &["c"]);
        assert_eq!(left, ["TrainingJob/p/c"], "what may be stopped is in nobody's way");
        let (left, _) = out(&[("a", false), ("b", false), ("c", false)], &["c"]);
        assert!(left.is_empty());
    }
}
