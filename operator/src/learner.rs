//! Learns beside the decisions which places are best for the jobs of this
//! cluster: a thread of its own, of the lowest priority, that is told what
//! starts and ends and answers with a table. What it learns, and when it falls
//! back on a simple rule, is the core's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use tokio::sync::watch;
use vingt_core::learn::{Brain, Effort, Setup};
use vingt_core::model::{Movable, PlacementPolicy, Running, Snapshot};
use vingt_core::policy::Scorer;
use vingt_core::simulate::{Job, Table};
use vingt_core::states::Catalog;

use crate::background;

/// A cluster that has grown or shrunk by this many percent is learnt anew.
const OTHER_SIZE_PERCENT: usize = 25;

/// What is known now.
#[derive(Clone, Debug)]
pub struct Known {
    /// By which places are weighed.
    pub scorer: Scorer,
    /// A simple rule decides, because it would have placed more.
    pub fell_back: bool,
    /// How often better values were learnt.
    pub learnt: u64,
}

/// Something that happened, at a time in seconds since 1970.
#[derive(Clone, Copy, Debug)]
enum Seen {
    Started(f64, u32, Job),
    Ended(f64, u32, Job),
}

/// The cards of a cluster, and who learns for them.
#[derive(Debug, Default)]
pub struct Learner {
    /// Version of the slices that the catalog is of.
    made_of: Option<u64>,
    catalog: Option<Catalog>,
    thread: Option<(Sender<Seen>, watch::Receiver<Option<Known>>)>,
    /// What holds one device, with its number and what it was told as.
    seen: BTreeMap<String, (u32, Job)>,
    next: u32,
}

impl Learner {
    /// What places are to be weighed by, if that is learnt and known.
    pub fn known(&self) -> Option<Known> {
        self.thread.as_ref()?.1.borrow().clone()
    }

    /// Takes a look at the cluster: its cards, when the slices are of version `slices`, and what has started and
    /// ended since the last time. Nothing is learnt unless the settings want it.
    pub fn look(&mut self, snapshot: &Snapshot, slices: u64, now_ms: i64) {
        if snapshot.settings.placement != PlacementPolicy::Learned {
            *self = Self::default();
            return;
        }
        if self.made_of != Some(slices) {
            self.made_of = Some(slices);
            self.renew(snapshot);
        }
        let (Some(catalog), Some((to, _))) = (&self.catalog, &self.thread) else { return };
        let now = seconds(now_ms);
        let mut gone = std::mem::take(&mut self.seen);
        for running in &snapshot.running {
            let Some(job) = single(running, snapshot, catalog) else { continue };
            let (id, job) = gone.remove(&running.key).unwrap_or_else(|| {
                self.next = self.next.wrapping_add(1);
                // Nobody listens any more: the thread has ended, and so does what it is for.
                let _ = to.send(Seen::Started(now, self.next, job));
                (self.next, job)
            });
            self.seen.insert(running.key.clone(), (id, job));
        }
        for (id, job) in gone.into_values() {
            let _ = to.send(Seen::Ended(now, id, job));
        }
    }

    /// Starts anew if the cards are others.
    fn renew(&mut self, snapshot: &Snapshot) {
        let catalog = Catalog::of(&snapshot.gpus);
        let alike = self.catalog.as_ref().is_some_and(|old| {
            let apart = old.card_of.len().abs_diff(catalog.card_of.len()) * 100;
            old.cards == catalog.cards
                && old.kinds == catalog.kinds
                && apart <= old.card_of.len() * OTHER_SIZE_PERCENT
        });
        if alike {
            return;
        }
        self.seen.clear();
        self.catalog = Some(catalog.clone());
        self.thread = None;
        if catalog.card_of.is_empty() {
            return;
        }
        let settings = &snapshot.settings;
        let moves =
            if settings.defragmentation { f64::from(settings.moves_per_thousand) / 1000.0 } else { 0.0 };
        let setup = Setup {
            cards: catalog.cards.clone(),
            gpus: catalog.card_of.clone(),
            worth: catalog.worth.clone(),
            life: vec![0; catalog.kinds.len()],
            moves,
            movable: 1.0,
            seed: 1,
        };
        let (to, from) = channel();
        let (tell, told) = watch::channel(None);
        if background::run("learner", move || learn(setup, &catalog, &from, &tell)) {
            self.thread = Some((to, told));
        }
    }
}

/// The life of the thread: until nobody tells it anything any more.
fn learn(setup: Setup, catalog: &Catalog, from: &Receiver<Seen>, tell: &watch::Sender<Option<Known>>) {
    let mut brain = match Brain::new(setup) {
        Ok(brain) => brain,
        Err(error) => {
            tracing::info!(%error, "nothing is learnt for the cards of this cluster");
            return;
        }
    };
    let mut learnt = 0;
    let mut told: Option<(Arc<Table>, bool)> = None;
    loop {
        let now = (brain.table().clone(), brain.fell_back());
        let same = told.as_ref().is_some_and(|told| Arc::ptr_eq(&told.0, &now.0) && told.1 == now.1);
        if !same {
            let scorer = Scorer::learnt(catalog, now.0.clone());
            tell.send_replace(Some(Known { scorer, fell_back: now.1, learnt }));
            told = Some(now);
        }
        let Ok(mut seen) = from.recv() else { return };
        loop {
            match seen {
                Seen::Started(at, id, job) => {
                    if let Some(lesson) = brain.arrived(at, id, job, true) {
                        brain.learnt(&lesson.learn(Effort::ONLINE));
                        learnt += 1;
                        tracing::info!(learnt, "better values of places were learnt");
                    }
                }
                Seen::Ended(at, id, job) => brain.left(at, id, job),
            }
            match from.try_recv() {
                Ok(next) => seen = next,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return,
            }
        }
    }
}

/// The job, as far as it can be learnt from: one that holds a single device.
fn single(running: &Running, snapshot: &Snapshot, catalog: &Catalog) -> Option<Job> {
    let [pod] = running.pods.as_slice() else { return None };
    let [at] = pod.devices.concat()[..] else { return None };
    let device = snapshot.gpus.get(at.gpu.0 as usize)?.devices.get(usize::from(at.device))?;
    let demand = catalog.kinds.binary_search(&device.kind).ok()?;
    Some(Job { demand, movable: running.movable != Movable::No })
}

/// Seconds since 1970; microseconds are lost in the distant future.
#[allow(clippy::cast_precision_loss)]
fn seconds(ms: i64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use vingt_core::model::{Gpu, NodeIndex, PodPlacement, Settings};

    use super::*;
    use crate::snapshot::layout::Layout;
    use crate::snapshot::layout::tests::{list, slices};
    use crate::world::{Slice, World};

    fn cluster() -> Snapshot {
        let mut world = World::default();
        list::<Slice>(&mut world, slices("n", 4, 1));
        let gpus: Vec<Gpu> = Layout::of(&world.slices).gpus;
        Snapshot { gpus, ..Snapshot::default() }
    }

    fn holds(snapshot: &mut Snapshot, key: &str, gpu: u32, device: u8) {
        let at = vingt_core::model::DeviceIndex { gpu: vingt_core::model::GpuIndex(gpu), device };
        let pods = vec![PodPlacement { node: NodeIndex(0), devices: vec![vec![at]] }];
        snapshot.running.push(Running { key: key.into(), pods, ..Running::default() });
    }

    fn wait_for(learner: &Learner) -> Known {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(known) = learner.known() {
                return known;
            }
            assert!(Instant::now() < deadline, "nothing is known");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_table_is_known_soon_and_for_as_long_as_the_cards_are_the_same() {
        let mut snapshot = cluster();
        let mut learner = Learner::default();
        learner.look(&snapshot, 1, 0);
        let known = wait_for(&learner);
        assert_eq!(
            (known.scorer.policy(), known.fell_back, known.learnt),
            (PlacementPolicy::Learned, false, 0)
        );
        holds(&mut snapshot, "Pod/p/x", 0, 0);
        learner.look(&snapshot, 1, 1000);
        learner.look(&snapshot, 2, 2000);
        assert_eq!(learner.seen.len(), 1, "the same cards: nothing is forgotten");
        snapshot.running.clear();
        learner.look(&snapshot, 2, 3000);
        assert!(learner.seen.is_empty());
        snapshot.settings = Settings { placement: PlacementPolicy::Spread, ..Settings::default() };
        learner.look(&snapshot, 2, 4000);
        assert!(learner.known().is_none(), "the owner wants another policy");
    }

    #[test]
    fn only_what_holds_one_device_is_learnt_from() {
        let mut snapshot = cluster();
        holds(&mut snapshot, "a", 1, 1);
        let catalog = Catalog::of(&snapshot.gpus);
        let job = single(&snapshot.running[0], &snapshot, &catalog).unwrap();
        assert_eq!(catalog.kinds[job.demand], "3g.40gb");
        let mut two = snapshot.running[0].clone();
        two.pods.push(two.pods[0].clone());
        assert!(single(&two, &snapshot, &catalog).is_none());
    }
}
