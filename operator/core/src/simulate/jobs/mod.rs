//! Lists of jobs as people write them, and as the openb trace has them, and
//! scenarios made of them. Text in, text out: files are opened elsewhere.
//!
//! A list is YAML, one entry for each job, or CSV with the names of the fields
//! in its first line; what is empty or absent is as told at [`TraceJob`].
//!
//! ```yaml
//! - {name: train-1, tenant: vision, arrivalMs: 0, durationMs: 3600000, profile: gpu, count: 8, pods: 2}
//! - {name: serve-1, arrivalMs: 60000, durationMs: 900000, profile: 3g.40gb, movable: replace}
//! ```

mod cells;
mod read;

#[cfg(test)]
mod tests;

pub use read::{Format, ReadError, read};

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use super::fleet::shape;
use super::replay::{Facts, Job, ReplayError, Scenario};
use crate::model::{Movable, Resources, Snapshot, Topology, Workload};

/// A job of a list. Times of a list count from any moment; they are taken as they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, expecting = "a job")]
pub struct TraceJob {
    /// Names it; each job another.
    pub name: String,
    /// Its tenant; `default` if absent.
    #[serde(default = "default_tenant")]
    pub tenant: String,
    /// When it is queued, in milliseconds; not negative.
    #[serde(deserialize_with = "not_negative")]
    pub arrival_ms: i64,
    /// How long it runs undisturbed, in milliseconds; more than 0.
    #[serde(deserialize_with = "positive")]
    pub duration_ms: i64,
    /// The kind of device each pod asks for: `gpu`, `3g.40gb`.
    pub profile: String,
    /// How many of them each pod asks for; 1 if absent.
    #[serde(default = "one", deserialize_with = "at_least_one")]
    pub count: u32,
    /// Pods, which start together; 1 if absent.
    #[serde(default = "one", deserialize_with = "at_least_one")]
    pub pods: u32,
    /// Higher goes first within a tenant; 0 if absent.
    #[serde(default)]
    pub priority: i32,
    /// How long it runs at most, as its owner declares it, in milliseconds; unknown to the planner if absent.
    #[serde(default)]
    pub runs_ms: Option<i64>,
    /// Its progress is saved each time it has run for this long, in milliseconds; never if absent.
    #[serde(default)]
    pub checkpoint_ms: Option<i64>,
    /// How long after being asked it leaves at the latest, in milliseconds; 30 s if absent.
    #[serde(default = "half_a_minute", deserialize_with = "not_negative")]
    pub grace_ms: i64,
    /// How long after being asked it does leave, in milliseconds; all of its grace if absent.
    #[serde(default)]
    pub leaves_after_ms: Option<i64>,
    /// Whether it may be asked to leave; it may if absent.
    #[serde(default = "yes")]
    pub evictable: bool,
    /// `no`, `restart` or `replace`: how it may be moved; not at all if absent.
    #[serde(default, with = "MovableName")]
    pub movable: Movable,
    /// Its pods are to be on nodes with the same value of this label.
    #[serde(default)]
    pub topology: Option<String>,
    /// Whether it waits until they can be so.
    #[serde(default)]
    pub topology_required: bool,
    /// Thousandths of a CPU that each pod asks for; 0 if absent.
    #[serde(default)]
    pub cpu_milli: u64,
    /// Bytes of memory that each pod asks for; 0 if absent.
    #[serde(default)]
    pub memory_bytes: u64,
}

/// How [`Movable`] is spelt in lists.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Movable", rename_all = "camelCase")]
enum MovableName {
    No,
    Restart,
    Replace,
}

fn default_tenant() -> String {
    "default".to_owned()
}

fn one() -> u32 {
    1
}

fn half_a_minute() -> i64 {
    30_000
}

fn yes() -> bool {
    true
}

fn positive<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    from.deserialize_i64(Within { least: 1, most: i64::MAX })
}

fn not_negative<'de, D: Deserializer<'de>>(from: D) -> Result<i64, D::Error> {
    from.deserialize_i64(Within { least: 0, most: i64::MAX })
}

fn at_least_one<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let number = from.deserialize_i64(Within { least: 1, most: u32::MAX.into() })?;
    u32::try_from(number).map_err(de::Error::custom)
}

/// A whole number that is checked while it is read, so that the error has its line.
struct Within {
    least: i64,
    most: i64,
}

impl de::Visitor<'_> for Within {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<i64, E> {
        match number {
            number if number < self.least => Err(E::custom(format!("{number} is less than {}", self.least))),
            number if number > self.most => Err(E::custom(format!("{number} is more than {}", self.most))),
            number => Ok(number),
        }
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<i64, E> {
        self.visit_i64(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl TraceJob {
    /// One of tenant `default` that asks for one device; all else as if absent.
    pub fn new(name: &str, arrival_ms: i64, duration_ms: i64, profile: &str) -> Self {
        Self {
            name: name.to_owned(),
            tenant: default_tenant(),
            arrival_ms,
            duration_ms,
            profile: profile.to_owned(),
            count: 1,
            pods: 1,
            priority: 0,
            runs_ms: None,
            checkpoint_ms: None,
            grace_ms: half_a_minute(),
            leaves_after_ms: None,
            evictable: true,
            movable: Movable::No,
            topology: None,
            topology_required: false,
            cpu_milli: 0,
            memory_bytes: 0,
        }
    }

    /// The job in `snapshot`, to whose shapes it is added. A profile that no GPU has is an error.
    pub fn job(&self, snapshot: &mut Snapshot) -> Result<Job, ReplayError> {
        let resources =
            Resources { cpu_milli: self.cpu_milli, memory_bytes: self.memory_bytes, ..Resources::default() };
        let Some(shape) = shape(snapshot, self.count, &self.profile, &resources) else {
            let kinds = snapshot.gpus.iter().flat_map(|gpu| &gpu.devices).map(|device| device.kind.as_str());
            let kinds: std::collections::BTreeSet<&str> = kinds.collect();
            let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
            return Err(ReplayError::Job {
                key: self.name.clone(),
                field: "profile",
                problem: format!("no GPU has a device {:?}; there are: {kinds}", self.profile),
            });
        };
        let label = self.topology.clone();
        Ok(Job {
            workload: Workload {
                key: self.name.clone(),
                tenant: self.tenant.clone(),
                priority: self.priority,
                queued_ms: self.arrival_ms,
                pods: self.pods,
                shape,
                runs_ms: self.runs_ms,
                topology: label.map(|label| Topology { label, required: self.topology_required }),
                ..Workload::default()
            },
            facts: Facts {
                duration_ms: self.duration_ms,
                checkpoint_ms: self.checkpoint_ms,
                grace_ms: self.grace_ms,
                leaves_after_ms: self.leaves_after_ms,
                evictable: self.evictable,
                movable: self.movable,
            },
        })
    }
}

/// The jobs in a cluster of which nothing is held by jobs, from the first arrival on, planned for at each event.
pub fn scenario(mut snapshot: Snapshot, jobs: &[TraceJob]) -> Result<Scenario, ReplayError> {
    let start_ms = jobs.iter().map(|job| job.arrival_ms).min().unwrap_or(0);
    let jobs: Result<Vec<Job>, _> = jobs.iter().map(|job| job.job(&mut snapshot)).collect();
    Ok(Scenario { jobs: jobs?, snapshot, start_ms, ready_ms: half_a_minute(), ..Scenario::default() })
}
