//! Jobs to play with: streams drawn from a few sorts of job, and three made-up
//! clusters with what might run on them. Seeded.

use super::fleet::{Sort, fleet};
use super::jobs::TraceJob;
use super::random::Random;
use crate::model::{Movable, Snapshot, Tenant, UNITS_PER_GPU, Units};

/// A sort of job: what its jobs have in common, and how they differ.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// What they have in common. `duration_ms` is the mean.
    pub job: TraceJob,
    /// How many there are of them, relative to the others.
    pub weight: f64,
    /// Standard deviation of the logarithm of their durations; 0 if all are equal.
    pub spread: f64,
    /// The share of them that declare how long they run at most: up to three times what they do run.
    pub declared: f64,
}

/// `count` jobs that arrive at random, with the mean number of units held, if nobody ever waited, being `load` times
/// those of the cluster. Sorts whose profile the cluster does not have count as asking for nothing.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // times and units are far below 2^53
pub fn draw(snapshot: &Snapshot, streams: &[Stream], load: f64, count: usize, seed: u64) -> Vec<TraceJob> {
    let units = |kind: &str| {
        let devices = snapshot.gpus.iter().flat_map(|gpu| &gpu.devices);
        devices.filter(|device| device.kind == kind).map(|device| device.units).min().unwrap_or(0)
    };
    let weights: Vec<f64> = streams.iter().map(|stream| stream.weight).collect();
    let work = |stream: &Stream| {
        let each: Units =
            units(&stream.job.profile) * Units::from(stream.job.count) * Units::from(stream.job.pods);
        stream.weight * each as f64 * stream.job.duration_ms as f64
    };
    let mean = streams.iter().map(work).sum::<f64>() / weights.iter().sum::<f64>();
    let gpus = snapshot.gpus.iter().filter(|gpu| !gpu.devices.is_empty()).count();
    let between_ms = mean / (load * gpus as f64 * UNITS_PER_GPU as f64);
    let mut random = Random::new(seed);
    let mut now_ms = 0.0;
    let mut jobs = Vec::with_capacity(count);
    for number in 0..count {
        now_ms += between_ms * random.exponential();
        let stream = &streams[random.pick(&weights)];
        let (normal, chance, slack) = (random.normal(), random.unit(), random.unit());
        let spread = stream.spread;
        let duration = stream.job.duration_ms as f64 * (spread * normal - spread * spread / 2.0).exp();
        let runs_ms = (chance < stream.declared).then(|| (duration * (1.0 + 2.0 * slack)) as i64 + 2);
        let leaves_after_ms = (stream.job.grace_ms as f64 * random.unit()) as i64;
        jobs.push(TraceJob {
            name: format!("{}-{number:05}", stream.job.name),
            arrival_ms: now_ms as i64,
            duration_ms: (duration as i64).max(1),
            runs_ms,
            leaves_after_ms: Some(leaves_after_ms),
            ..stream.job.clone()
        });
    }
    jobs
}

/// Made-up clusters and what runs on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sample {
    /// Partitions of all sizes, of one tenant.
    Mig,
    /// Gangs of whole GPUs, and inference on partitions.
    Gangs,
    /// Two tenants with guarantees, of which one borrows from the other; priorities.
    Tenants,
}

const MINUTE_MS: i64 = 60_000;

impl Sample {
    /// A cluster of at least `gpus` GPUs, and what arrives there.
    pub fn on(self, gpus: u32) -> (Snapshot, Vec<Stream>) {
        match self {
            Self::Mig => (fleet(gpus.div_ceil(8), 8, Sort::H100Mig), partitions()),
            Self::Gangs => (fleet(gpus.div_ceil(8), 8, Sort::H100Either), gangs()),
            Self::Tenants => {
                let mut snapshot = fleet(gpus.div_ceil(8), 8, Sort::H100Mig);
                let all = snapshot.gpus.len() as Units * UNITS_PER_GPU;
                let tenant =
                    |percent, weight| Tenant { guaranteed: all * percent / 100, weight, ..Tenant::default() };
                snapshot.tenants = [("research", tenant(60, 2)), ("product", tenant(30, 1))]
                    .map(|(name, tenant)| (name.to_owned(), tenant))
                    .into();
                (snapshot, tenants())
            }
        }
    }
}

fn stream(name: &str, minutes: i64, profile: &str, weight: f64, spread: f64) -> Stream {
    let job = TraceJob { evictable: false, ..TraceJob::new(name, 0, minutes * MINUTE_MS, profile) };
    Stream { job, weight, spread, declared: 0.0 }
}

fn partitions() -> Vec<Stream> {
    vec![
        stream("small", 40, "1g.10gb", 0.3, 1.0),
        stream("double", 40, "1g.20gb", 0.1, 1.0),
        stream("two", 60, "2g.20gb", 0.2, 1.0),
        stream("three", 60, "3g.40gb", 0.2, 1.0),
        stream("four", 60, "4g.40gb", 0.1, 1.0),
        stream("all", 90, "7g.80gb", 0.1, 1.0),
    ]
}

fn gangs() -> Vec<Stream> {
    let gang = |name, pods, count, weight| {
        let mut stream = stream(name, 120, "gpu", weight, 0.8);
        stream.job = TraceJob {
            pods,
            count,
            checkpoint_ms: Some(15 * MINUTE_MS),
            evictable: true,
            movable: Movable::Restart,
            ..stream.job
        };
        stream.declared = 0.5;
        stream
    };
    let mut serving = stream("serve", 300, "3g.40gb", 0.2, 0.5);
    serving.job.movable = Movable::Replace;
    vec![
        gang("one", 1, 1, 0.3),
        gang("half", 1, 4, 0.15),
        gang("node", 1, 8, 0.1),
        gang("spread", 4, 2, 0.05),
        serving,
        stream("batch", 30, "1g.10gb", 0.4, 1.0),
    ]
}

fn tenants() -> Vec<Stream> {
    let of = |tenant: &str, priority, mut stream: Stream| {
        stream.job = TraceJob {
            tenant: tenant.to_owned(),
            priority,
            evictable: true,
            checkpoint_ms: Some(10 * MINUTE_MS),
            ..stream.job
        };
        stream
    };
    vec![
        of("research", 0, stream("train", 90, "7g.80gb", 0.2, 0.8)),
        of("research", 1, stream("try", 20, "3g.40gb", 0.3, 1.0)),
        of("research", 0, stream("sweep", 40, "1g.10gb", 0.2, 1.0)),
        of("product", 0, stream("tune", 60, "4g.40gb", 0.15, 0.8)),
        of("product", 0, stream("batch", 60, "2g.20gb", 0.3, 1.0)),
        of("product", 2, stream("urgent", 15, "3g.40gb", 0.05, 0.5)),
    ]
}
