//! The leader's loop: changes come in, the core decides, writes go out.
//!
//! One task owns the picture of the world, so that decisions are made one
//! after the other; writes run beside it, at most one at a time for an object.
//! A decision being written holds its devices until the objects say so themselves.
//! Nothing else that matters is remembered: a crash finds it on the API server.

mod accounts;
mod api;
mod bind;
mod cycle;
mod events;
mod evict;
mod gangs;
mod lasting;
mod moves;
mod past;
mod pods;
mod promises;
mod queue;
mod running;
mod servers;
mod sweep;
mod tenants;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::api::DynamicObject;
use serde_json::Value;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use api::Target;
pub use api::{Failure, TIME_LIMIT, Writer};

use vingt_core::model::PodShape;

use crate::forecasts::Forecasts;
use crate::http::Snapshots;
use crate::learner::Learner;
use crate::metrics::Metrics;
use crate::settings::Loaded;
use crate::snapshot::layout::Layout;
use crate::snapshot::occupancy::Pending;
use crate::world::{Change, View, World};
use accounts::Accounts;
use events::{Announcement, Events};
use moves::Moves;
use past::Past;
use running::{Asked, KeptPlaces};

/// How long changes are gathered before a cycle: many come at once.
const GATHER: Duration = Duration::from_millis(20);
/// At most, should cycles take long: then half of what the last one took.
const GATHER_AT_MOST: Duration = Duration::from_millis(200);
/// A cycle at least this often: some reasons depend on the time alone.
const AT_LEAST_EVERY: Duration = Duration::from_secs(5);
/// Writes under way at a time; what is left comes with the next cycle.
const MAX_TASKS: usize = 256;
/// Of these, those that only say something: decisions need not wait for words.
const MAX_WORDS: usize = 128;
/// How long writes under way may take at the end.
const DRAIN: Duration = Duration::from_secs(20);
/// How long it is remembered which objects are gone; longer than any request takes.
const REMEMBER_DELETED: Duration = Duration::from_secs(120);

/// What the engine is told from outside.
pub struct Setup {
    /// Writes objects.
    pub writer: Writer,
    /// Changes from the watches.
    pub changes: UnboundedReceiver<Change>,
    /// The operator's own namespace.
    pub namespace: String,
    /// Name of this process, in events.
    pub identity: String,
    /// Metrics.
    pub metrics: Metrics,
    /// Who wants to see what is decided from.
    pub snapshots: Snapshots,
    /// How decisions are to be made.
    pub settings: watch::Receiver<Loaded>,
    /// Called once all kinds are listed.
    pub synced: Box<dyn FnOnce() + Send>,
}

/// Decides and writes.
pub struct Engine {
    world: World,
    layout: Layout,
    writer: Writer,
    changes: UnboundedReceiver<Change>,
    namespace: String,
    identity: String,
    metrics: Metrics,
    snapshots: Snapshots,
    events: Events,
    synced: Option<Box<dyn FnOnce() + Send>>,
    /// Decisions being written, by workload.
    pending: BTreeMap<String, Pending>,
    /// Objects being written.
    busy: BTreeSet<String>,
    tasks: JoinSet<Outcome>,
    /// Objects whose last write failed: how often, and when to try again.
    failed: BTreeMap<String, (u32, Instant)>,
    /// When each reason was last written, so that changing numbers don't flood the API server.
    told: BTreeMap<String, Instant>,
    /// What is told of writes under way once they have succeeded, by object.
    announcements: BTreeMap<String, Vec<Announcement>>,
    /// When to look again though nothing changes.
    look_again: Option<Instant>,
    /// What the API server says of a job's objects, by the job's UID and its
    /// generation; nothing if it accepts them.
    verdicts: BTreeMap<String, Verdict>,
    /// What the API server refused last, by object.
    refusals: BTreeMap<String, Failure>,
    /// What a worker of a job needs of its node, by the job's UID and its generation.
    shapes: BTreeMap<String, (Option<i64>, PodShape)>,
    /// Jobs and pods that wait: the more, the less often changed numbers are told.
    waiting: usize,
    /// Since when a pod is let go and not placed, by its UID, in milliseconds since 1970.
    stuck_since: BTreeMap<String, i64>,
    /// Nodes that did not work out for the pods of a controller, by its UID.
    avoid: BTreeMap<String, Avoided>,
    /// How decisions are to be made.
    settings: watch::Receiver<Loaded>,
    /// What was asked to leave a moment ago, by workload.
    asked: BTreeMap<String, Asked>,
    /// Places that the last plan keeps, by workload.
    kept: BTreeMap<String, KeptPlaces>,
    /// What is remembered of moves.
    moves: Moves,
    /// What is known of the past of the tenants.
    past: BTreeMap<String, Past>,
    /// Who learns which places are best.
    learner: Learner,
    /// When what waits is likely to start.
    forecasts: Forecasts,
    /// What is remembered of the ledger.
    accounts: Accounts,
}

/// What the API server says of a job's objects.
#[derive(Debug)]
struct Verdict {
    /// The generation of the job that was asked about.
    generation: Option<i64>,
    /// Why they cannot be; nothing if they can.
    refusal: Option<String>,
    at: Instant,
}

/// Nodes that are avoided for a while.
#[derive(Debug)]
struct Avoided {
    nodes: BTreeSet<String>,
    until: Instant,
}

/// What a finished write says.
struct Outcome {
    /// What was written.
    objects: Vec<String>,
    /// The decision it was part of.
    workload: Option<String>,
    /// The job whose objects were checked.
    check: Option<(String, Option<i64>)>,
    changes: Vec<Change>,
    result: Result<(), Failure>,
}

impl Engine {
    /// An engine that knows nothing yet.
    pub fn new(setup: Setup) -> Self {
        Self {
            world: World::default(),
            layout: Layout::default(),
            events: Events::new(&setup.writer, setup.identity.clone()),
            identity: setup.identity,
            writer: setup.writer,
            changes: setup.changes,
            namespace: setup.namespace,
            metrics: setup.metrics,
            snapshots: setup.snapshots,
            synced: Some(setup.synced),
            pending: BTreeMap::new(),
            busy: BTreeSet::new(),
            tasks: JoinSet::new(),
            failed: BTreeMap::new(),
            told: BTreeMap::new(),
            announcements: BTreeMap::new(),
            look_again: None,
            verdicts: BTreeMap::new(),
            refusals: BTreeMap::new(),
            shapes: BTreeMap::new(),
            waiting: 0,
            stuck_since: BTreeMap::new(),
            avoid: BTreeMap::new(),
            settings: setup.settings,
            asked: BTreeMap::new(),
            kept: BTreeMap::new(),
            moves: Moves::default(),
            past: BTreeMap::new(),
            learner: Learner::default(),
            forecasts: Forecasts::default(),
            accounts: Accounts::default(),
        }
    }

    /// Runs until `stop` is cancelled or the watches end, then finishes the writes under way.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut forget = Instant::now() + REMEMBER_DELETED;
        let mut gather = GATHER;
        loop {
            let wake = self.look_again.unwrap_or_else(|| Instant::now() + AT_LEAST_EVERY);
            let changed = tokio::select! {
                () = stop.cancelled() => break,
                change = self.changes.recv() => match change {
                    Some(change) => self.world.apply(change),
                    None => break,
                },
                Some(outcome) = self.tasks.join_next() => self.finish(outcome),
                Ok(()) = self.settings.changed() => {
                    self.tell_settings();
                    true
                }
                () = tokio::time::sleep_until(wake) => true,
            };
            if !changed {
                continue;
            }
            self.gather(gather, &stop).await;
            if Instant::now() >= forget {
                self.world.forget_deleted();
                self.forget();
                forget = Instant::now() + REMEMBER_DELETED;
            }
            if self.world.missing().is_empty() {
                if let Some(synced) = self.synced.take() {
                    synced();
                }
                let began = Instant::now();
                self.look_again = None;
                self.cycle();
                let took = began.elapsed();
                self.metrics.cycle_seconds.observe(took.as_secs_f64());
                gather = (took / 2).clamp(GATHER, GATHER_AT_MOST);
            }
        }
        tracing::info!(writes = self.tasks.len(), "stopping: the writes under way are finished");
        let drained =
            tokio::time::timeout(DRAIN, async { while self.tasks.join_next().await.is_some() {} }).await;
        if drained.is_err() {
            tracing::warn!("some writes did not finish in time");
        }
    }

    /// Takes in what comes within a moment.
    async fn gather(&mut self, for_: Duration, stop: &CancellationToken) {
        let until = Instant::now() + for_;
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep_until(until) => break,
                Some(outcome) = self.tasks.join_next() => { self.finish(outcome); }
                change = self.changes.recv() => match change {
                    Some(change) => { self.world.apply(change); }
                    None => return,
                },
            }
        }
        while let Ok(change) = self.changes.try_recv() {
            self.world.apply(change);
        }
        while let Some(outcome) = self.tasks.try_join_next() {
            self.finish(outcome);
        }
    }

    /// Takes in what a write says. Returns whether to decide anew.
    fn finish(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) -> bool {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                // Its objects stay busy: nobody knows what was written. A restart finds out.
                tracing::error!(%error, "a write ended unexpectedly");
                return false;
            }
        };
        for change in outcome.changes {
            self.world.apply(change);
        }
        if let Some(workload) = &outcome.workload {
            self.pending.remove(workload);
        }
        if let Some((uid, generation)) = outcome.check {
            match &outcome.result {
                Ok(()) => {
                    self.verdicts.insert(uid, Verdict { generation, refusal: None, at: Instant::now() });
                }
                Err(Failure::Invalid(why)) => {
                    let refusal = Some(why.clone());
                    self.verdicts.insert(uid, Verdict { generation, refusal, at: Instant::now() });
                }
                Err(Failure::Stale | Failure::Refused(_) | Failure::Unknown(_)) => {}
            }
        }
        for object in outcome.objects {
            self.busy.remove(&object);
            let announcements = self.announcements.remove(&object).unwrap_or_default();
            if outcome.result.is_ok() {
                for announcement in announcements {
                    self.events.publish(announcement);
                }
            }
            match &outcome.result {
                Ok(()) => {
                    self.failed.remove(&object);
                    self.refusals.remove(&object);
                }
                Err(failure) => self.back_off(object, failure),
            }
        }
        true
    }

    /// Tells it once the write to `object` has succeeded.
    fn announce(&mut self, object: &str, announcement: Announcement) {
        self.announcements.entry(object.to_owned()).or_default().push(announcement);
    }

    fn back_off(&mut self, object: String, failure: &Failure) {
        let (times, _) = self.failed.get(&object).copied().unwrap_or((0, Instant::now()));
        // What has changed is looked at anew at once; what is refused will be refused again for a while.
        let pause = match failure {
            Failure::Stale => Duration::from_millis(50 << times.min(6)),
            Failure::Refused(_) | Failure::Invalid(_) | Failure::Unknown(_) => {
                Duration::from_secs(1 << times.min(6))
            }
        };
        if matches!(failure, Failure::Stale) {
            tracing::debug!(%object, "changed meanwhile; it is looked at anew");
        } else {
            tracing::warn!(%object, %failure, "a write failed; it is tried again");
            if matches!(failure, Failure::Refused(_) | Failure::Invalid(_)) {
                self.refusals.insert(object.clone(), failure.clone());
            }
        }
        self.failed.insert(object, (times + 1, Instant::now() + pause));
    }

    /// Forgets what is remembered of objects that are gone, or for long enough.
    fn forget(&mut self) {
        let now = Instant::now();
        self.avoid.retain(|_, avoided| avoided.until > now);
        self.told.retain(|_, told| now.duration_since(*told) < REMEMBER_DELETED);
        self.failed.retain(|_, (_, until)| now < *until + REMEMBER_DELETED);
        let uids: BTreeSet<&str> =
            self.world.training_jobs.iter().filter_map(|(_, job)| job.metadata.uid.as_deref()).collect();
        self.verdicts.retain(|uid, _| uids.contains(uid.as_str()));
        self.shapes.retain(|uid, _| uids.contains(uid.as_str()));
        let failed = &self.failed;
        self.refusals.retain(|object, _| failed.contains_key(object));
    }

    /// Whether something may be written to `object` now.
    fn free(&mut self, object: &str) -> bool {
        if self.busy.contains(object) || self.tasks.len() >= MAX_TASKS {
            return false;
        }
        match self.failed.get(object).map(|(_, until)| *until) {
            Some(until) if until > Instant::now() => {
                self.look_again_at(until);
                false
            }
            _ => true,
        }
    }

    /// Whether the last write to `object` failed and it is not tried again yet.
    fn paused(&self, object: &str) -> bool {
        self.failed.get(object).is_some_and(|(_, until)| *until > Instant::now())
    }

    /// The same for a write that only says something.
    fn free_for_words(&mut self, object: &str) -> bool {
        self.tasks.len() < MAX_WORDS && self.free(object)
    }

    fn look_again_at(&mut self, at: Instant) {
        self.look_again = Some(self.look_again.map_or(at, |other| other.min(at)));
    }

    /// Looks again at a time of the wall clock, in milliseconds since 1970.
    fn look_again_at_ms(&mut self, at_ms: i64) {
        let left = u64::try_from(at_ms.saturating_sub(now_ms())).unwrap_or(0);
        self.look_again_at(Instant::now() + Duration::from_millis(left.min(3_600_000)));
    }

    /// Starts a write to `object`, which must be free.
    fn start<F>(&mut self, object: String, write: impl FnOnce(Writer) -> F)
    where
        F: Future<Output = Written> + Send + 'static,
    {
        self.start_all(vec![object], write);
    }

    /// Starts a write that is to be the only one to `objects`, which must be free.
    fn start_all<F>(&mut self, objects: Vec<String>, write: impl FnOnce(Writer) -> F)
    where
        F: Future<Output = Written> + Send + 'static,
    {
        self.spawn(objects, None, None, write(self.writer.clone()));
    }

    /// Starts to carry a decision out by a write to `objects`; it holds what it
    /// decided meanwhile.
    fn start_decision<F>(
        &mut self,
        workload: String,
        objects: Vec<String>,
        decision: Pending,
        write: impl FnOnce(Writer) -> F,
    ) where
        F: Future<Output = Written> + Send + 'static,
    {
        self.asked.remove(&workload);
        self.pending.insert(workload.clone(), decision);
        self.spawn(objects, Some(workload), None, write(self.writer.clone()));
    }

    /// Asks the API server about the objects of a job, known by its UID and generation.
    fn start_check<F>(&mut self, object: String, job: (String, Option<i64>), check: impl FnOnce(Writer) -> F)
    where
        F: Future<Output = Result<Vec<Change>, Failure>> + Send + 'static,
    {
        let check = check(self.writer.clone());
        self.spawn(vec![object], None, Some(job), async move {
            match check.await {
                Ok(changes) => (changes, Ok(())),
                Err(failure) => (vec![], Err(failure)),
            }
        });
    }

    fn spawn(
        &mut self,
        objects: Vec<String>,
        workload: Option<String>,
        check: Option<(String, Option<i64>)>,
        write: impl Future<Output = Written> + Send + 'static,
    ) {
        self.busy.extend(objects.iter().cloned());
        self.tasks.spawn(async move {
            let (changes, result) = write.await;
            Outcome { objects, workload, check, changes, result }
        });
    }
}

/// What was written, also when something failed.
type Written = (Vec<Change>, Result<(), Failure>);

/// Makes an object unless it is there already; one of that name that belongs to
/// somebody else is left alone.
async fn ensure<V: View>(
    writer: &Writer,
    target: &Target,
    object: &Value,
    owner_uid: &str,
) -> Result<Change, Failure> {
    match writer.create::<V>(target, object).await {
        Err(Failure::Stale) => {}
        other => return other,
    }
    let there = writer.read(target).await?;
    if owned_by(&there, owner_uid) { api::applied::<V>(there) } else { Err(foreign(target)) }
}

fn owned_by(object: &DynamicObject, owner_uid: &str) -> bool {
    object.metadata.owner_references.iter().flatten().any(|owner| owner.uid == owner_uid)
}

fn foreign(target: &Target) -> Failure {
    let (kind, name) = (&target.resource.kind, &target.key.name);
    Failure::Refused(format!(
        "there is already a {kind} {name} that belongs to somebody else: delete it, or give the job another name"
    ))
}

/// The wall clock, in milliseconds since 1970.
fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}
