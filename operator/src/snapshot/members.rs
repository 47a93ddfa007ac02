//! Which pods belong to which job of vingt's kinds. Membership is by
//! controller and UID, not by label: a label can be written by anybody.

use std::collections::{BTreeMap, HashMap};

use vingt_crds::names;

use crate::world::{Key, Pod, World};

/// The pods of the jobs.
#[derive(Debug, Default)]
pub struct Members {
    /// Pods of a `TrainingJob`, by job and completion index.
    gangs: BTreeMap<Key, BTreeMap<u32, Vec<Key>>>,
    /// The `TrainingJob` of a pod, and its completion index in it.
    gang_of: HashMap<Key, (Key, u32)>,
    /// Pods of an `InferenceJob`.
    replicas: BTreeMap<Key, Vec<Key>>,
    /// The `InferenceJob` of a pod.
    server_of: HashMap<Key, Key>,
}

impl Members {
    /// Finds the pods of all jobs.
    pub fn of(world: &World) -> Self {
        let mut jobs: HashMap<&str, Key> = HashMap::new();
        for (key, job) in world.jobs.iter() {
            let Some(owner) = job.owner.as_ref().filter(|owner| owner.kind == "TrainingJob") else {
                continue;
            };
            let training = Key::new(&key.namespace, &owner.name);
            // A Job of another name that says so is not the one that was made for it.
            if *key != training {
                continue;
            }
            let current = world.training_jobs.get(&training).and_then(|job| job.metadata.uid.as_deref());
            if current == Some(owner.uid.as_str()) {
                jobs.insert(&job.uid, training);
            }
        }
        let mut members = Self::default();
        for (key, pod) in world.pods.iter() {
            let Some(owner) = &pod.owner else { continue };
            if let Some(training) = jobs.get(owner.uid.as_str())
                && let Some(index) = pod.index()
            {
                members
                    .gangs
                    .entry(training.clone())
                    .or_default()
                    .entry(index)
                    .or_default()
                    .push(key.clone());
                members.gang_of.insert(key.clone(), (training.clone(), index));
            } else if let Some(server) = server(key, pod, world) {
                members.replicas.entry(server.clone()).or_default().push(key.clone());
                members.server_of.insert(key.clone(), server);
            }
        }
        members
    }

    /// The `TrainingJob` of a pod, and its completion index in it.
    pub fn gang_of(&self, pod: &Key) -> Option<&(Key, u32)> {
        self.gang_of.get(pod)
    }

    /// The `InferenceJob` of a pod.
    pub fn server_of(&self, pod: &Key) -> Option<&Key> {
        self.server_of.get(pod)
    }

    /// Pods of a `TrainingJob`, by completion index; more than one while one of them ends.
    pub fn gang(&self, job: &Key) -> impl Iterator<Item = (u32, &Key)> {
        let by_index = self.gangs.get(job).into_iter().flatten();
        by_index.flat_map(|(index, pods)| pods.iter().map(|pod| (*index, pod)))
    }

    /// Pods of an `InferenceJob`.
    pub fn replicas(&self, job: &Key) -> &[Key] {
        self.replicas.get(job).map_or(&[], Vec::as_slice)
    }
}

/// `ReplicaSets` are not watched: a pod says which server it is of, and its
/// controller must have a name that the server's Deployment gives.
fn server(key: &Key, pod: &Pod, world: &World) -> Option<Key> {
    let name = pod.marks.get(names::INFERENCE_JOB_LABEL)?;
    let owner = pod.owner.as_ref().filter(|owner| owner.kind == "ReplicaSet")?;
    let server = Key::new(&key.namespace, name);
    let made = owner.name.strip_prefix(name.as_str())?.starts_with('-');
    (made && world.inference_jobs.get(&server).is_some()).then_some(server)
}
