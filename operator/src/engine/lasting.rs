//! What tenants hold that may not be stopped for others, for the core, which
//! starts more of it only within what the tenant is guaranteed.

use std::collections::BTreeMap;

use vingt_core::model::Units;

use super::Engine;
use crate::jobs::facts::gang_workload;
use crate::snapshot::Picture;
use crate::snapshot::members::Members;
use crate::snapshot::pods::pod_workload;
use crate::snapshot::running::{self, Holder};
use crate::world::Key;

impl Engine {
    /// Tells the core what of each tenant holds devices, or is about to, and may not be stopped.
    pub(super) fn enter_lasting(&self, picture: &mut Picture, members: &Members) {
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
        for (name, units) in held {
            if let Some(tenant) = picture.snapshot.tenants.get_mut(&name) {
                tenant.lasting = units;
            }
        }
    }

    fn gang_lasts(&self, key: &Key) -> bool {
        self.world.training_jobs.get(key).is_some_and(|job| !job.spec.preemptible)
    }

    fn pod_lasts(&self, key: &Key, members: &Members) -> bool {
        let server = members.server_of(key).and_then(|server| self.world.inference_jobs.get(server));
        self.world.pods.get(key).is_some_and(|pod| running::lasts(pod, server.map(AsRef::as_ref)))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use vingt_core::model::{PodShape, Running, Tenant};
    use vingt_crds::TrainingJob;

    use super::super::gangs::tests::engine;
    use super::*;
    use crate::snapshot::layout::tests::list;

    #[tokio::test]
    async fn what_may_not_be_stopped_is_told_by_tenant() {
        let mut engine = engine();
        let job = |(name, preemptible): (&str, bool)| {
            json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob",
                "metadata": {"name": name, "namespace": "p", "uid": name, "resourceVersion": "1"},
                "spec": {"workers": 2, "preemptible": preemptible, "gpu": {"count": 1},
                    "template": {"spec": {"containers": [{"name": "c"}]}}}})
        };
        let jobs = [("a", false), ("b", true), ("c", false)];
        list::<TrainingJob>(&mut engine.world, jobs.map(job));
        let mut picture = Picture::default();
        picture.snapshot.tenants = BTreeMap::from([("prod".to_owned(), Tenant::default())]);
        for (name, _) in jobs {
            let running = Running { tenant: "prod".into(), units: 112, ..Running::default() };
            picture.enter_running(Holder::Gang(Key::new("p", name)), running, PodShape::default());
        }
        engine.enter_lasting(&mut picture, &Members::default());
        assert_eq!(picture.snapshot.tenants["prod"].lasting, 224, "of b others may have its devices");
    }
}
