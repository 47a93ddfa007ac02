//! Why a workload waits, with the numbers as they are once the plan has started.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::drain::Ends;
use super::jobs::Job;
use super::keep::{Keeper, Kept};
use super::tree::{Tightest, Tree};
use super::words::{asked, kinds};
use crate::model::{Snapshot, Units, WaitReason};
use crate::placement::{Cluster, Shapes, Survey};

/// What kept a workload from starting, as seen when its turn came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Obstacle {
    NoTenant,
    NoSuchDevice,
    AboveLimit {
        needs: Units,
        limit: Units,
        tenant: usize,
    },
    Backoff {
        left_ms: i64,
    },
    /// Its tenant is guaranteed too little for what may not be stopped.
    Guarantee {
        needs: Units,
        left: Units,
        tenant: usize,
    },
    Quota {
        needs: Units,
    },
    Room,
    /// A reserve could not be delivered then.
    Promised,
    /// This is kept for it.
    Reserved(usize),
}

/// Finds reasons at the end of a cycle; the same shape is looked at once.
pub(super) struct Reasons<'a, 'c> {
    snapshot: &'a Snapshot,
    shapes: &'a Shapes<'a>,
    cluster: &'c mut Cluster<'a>,
    known: Known<'a, 'c>,
    /// The cluster as if nothing ran, once it is asked for.
    emptied: Option<Cluster<'a>>,
    now: Vec<Option<Surveyed>>,
    /// Pods that would fit if nothing were kept for others.
    with_kept: Vec<Option<u64>>,
    ever: Vec<Option<Surveyed>>,
    kinds: Option<Arc<[String]>>,
    /// By shape, numbers of pods and what is asked for, in words.
    asked: Vec<Vec<(u32, Arc<str>)>>,
    /// For each tenant, the one on the way up that has the least left under its limit, and what it has left.
    left: Vec<Left>,
}

/// What the cycle knows once all is decided.
#[derive(Clone, Copy)]
pub(super) struct Known<'a, 'c> {
    pub jobs: &'c [Job],
    pub tree: &'c Tree<'a>,
    pub keeper: &'c Keeper,
    pub ends: &'c Ends<'a>,
}

/// A survey, and its words as they are shared.
#[derive(Clone)]
struct Surveyed {
    survey: Survey,
    turned_away: Arc<BTreeMap<String, u32>>,
}

impl Surveyed {
    fn of(mut survey: Survey) -> Self {
        let turned_away = Arc::new(std::mem::take(&mut survey.turned_away));
        Self { survey, turned_away }
    }
}

/// A tenant's name, and what it has left under its limit, and that limit.
type Left = (Arc<str>, Option<(Units, Units)>);

impl<'a, 'c> Reasons<'a, 'c> {
    pub fn new(
        snapshot: &'a Snapshot,
        shapes: &'a Shapes<'a>,
        cluster: &'c mut Cluster<'a>,
        known: Known<'a, 'c>,
    ) -> Self {
        let shapes_known = shapes.pods.len();
        let tree = known.tree;
        let left = |tenant| match tree.tightest(tenant) {
            Some(Tightest { left, limit, tenant }) => (tree.name(tenant).into(), Some((left, limit))),
            None => (tree.name(tenant).into(), None),
        };
        Self {
            snapshot,
            shapes,
            cluster,
            known,
            emptied: None,
            now: vec![None; shapes_known],
            with_kept: vec![None; shapes_known],
            ever: vec![None; shapes_known],
            kinds: None,
            asked: vec![Vec::new(); shapes_known],
            left: (0..tree.len()).map(left).collect(),
        }
    }

    /// Looks at what is free, with and without what is kept, for everything that has no room.
    pub fn look_at(&mut self, obstacles: &[(usize, Obstacle)]) {
        let no_room = obstacles.iter().filter(|(_, obstacle)| matches!(obstacle, Obstacle::Room));
        let mut asked_for = vec![false; self.now.len()];
        no_room.for_each(|(index, _)| asked_for[self.known.jobs[*index].shape()] = true);
        let shapes: BTreeSet<usize> = (0..asked_for.len()).filter(|shape| asked_for[*shape]).collect();
        for shape in &shapes {
            self.now[*shape] = Some(Surveyed::of(self.cluster.survey(*shape)));
        }
        if self.known.keeper.has_places() {
            self.known.keeper.open_places(self.cluster);
            for shape in shapes {
                self.with_kept[shape] = Some(self.cluster.survey(shape).pods);
            }
        }
    }

    pub fn of(&mut self, index: usize, obstacle: Obstacle) -> WaitReason {
        let tree = self.known.tree;
        match obstacle {
            Obstacle::NoTenant => {
                WaitReason::NoTenant { tenant: self.snapshot.waiting[index].tenant.as_str().into() }
            }
            Obstacle::NoSuchDevice => {
                let shape = self.known.jobs[index].shape();
                let label = self.shapes.demands[self.shapes.demand_of[shape]].unknown.as_deref();
                let snapshot = self.snapshot;
                let available = self.kinds.get_or_insert_with(|| kinds(snapshot).into()).clone();
                WaitReason::NoSuchDevice { label: label.unwrap_or_default().into(), available }
            }
            Obstacle::AboveLimit { needs, limit, tenant } => {
                WaitReason::AboveLimit { tenant: tree.name(tenant).into(), needs, limit }
            }
            Obstacle::Guarantee { needs, left, tenant } => WaitReason::Guarantee {
                tenant: tree.name(tenant).into(),
                needs,
                left,
                guaranteed: tree.tenant(tenant).guaranteed,
            },
            Obstacle::Backoff { left_ms } => WaitReason::Backoff { left_ms },
            Obstacle::Quota { needs } => self.never(index).unwrap_or_else(|| {
                let (tenant, left) = self.left(index);
                match left {
                    Some((left, limit)) if needs > left => WaitReason::Quota { tenant, needs, left, limit },
                    _ => WaitReason::Kept { asked: self.asked(index) },
                }
            }),
            Obstacle::Promised => WaitReason::Promised { asked: self.asked(index) },
            Obstacle::Reserved(at) => self.reserved(index, self.known.keeper.get(at)),
            Obstacle::Room => self.never(index).unwrap_or_else(|| self.room(index)),
        }
    }

    /// That it would not fit into the emptied cluster, if so.
    fn never(&mut self, index: usize) -> Option<WaitReason> {
        let (snapshot, shapes, Job { pods, plain, .. }) =
            (self.snapshot, self.shapes, self.known.jobs[index]);
        let shape = self.known.jobs[index].shape();
        // What fits once what runs has ended fits into the emptied cluster, too.
        if plain && self.known.ends.is_known_to_fit(pods, shape) {
            return None;
        }
        let emptied = self.emptied.get_or_insert_with(|| Cluster::new(snapshot, shapes, true));
        let surveyed = self.ever[shape].get_or_insert_with(|| Surveyed::of(emptied.survey(shape)));
        let topology = if plain { None } else { snapshot.waiting[index].topology.as_ref() };
        let required = topology.filter(|topology| topology.required);
        let fits = required.map_or(surveyed.survey.pods, |topology| emptied.fit_together(shape, topology));
        if fits >= u64::from(pods) {
            return None;
        }
        let turned_away = surveyed.turned_away.clone();
        Some(WaitReason::NeverFits {
            asked: self.asked(index),
            empty_cluster_fits: below(fits, pods),
            pods,
            turned_away,
        })
    }

    fn reserved(&mut self, index: usize, kept: &Kept) -> WaitReason {
        let asked = self.asked(index);
        let Kept { leaving, ending, free_ms, .. } = *kept;
        match free_ms {
            Some(until_ms) if ending == 0 => WaitReason::MakingRoom { asked, leaving, until_ms },
            _ => WaitReason::Reserved { asked, ending: leaving.saturating_add(ending), free_ms },
        }
    }

    fn room(&mut self, index: usize) -> WaitReason {
        let Job { pods: wanted, .. } = self.known.jobs[index];
        let shape = self.known.jobs[index].shape();
        let (tenant, left) = self.left(index);
        let asked = self.asked(index);
        let Some(Surveyed { survey, turned_away }) = &self.now[shape] else {
            return WaitReason::NoRoom { asked, fit: 0, pods: wanted, tenant, left };
        };
        let enough = u64::from(wanted);
        if survey.pods < enough && self.with_kept[shape].is_some_and(|pods| pods >= enough) {
            return WaitReason::Kept { asked };
        }
        let fit = below(survey.pods, wanted);
        if survey.pods_by_devices >= enough {
            let turned_away = turned_away.clone();
            return WaitReason::NoNode { asked, fit, tenant, left, turned_away, nodes: survey.nodes };
        }
        WaitReason::NoRoom { asked, fit, pods: wanted, tenant, left }
    }

    fn left(&self, index: usize) -> Left {
        self.known.jobs[index].tenant().map_or_else(
            || (self.snapshot.waiting[index].tenant.as_str().into(), None),
            |tenant| self.left[tenant].clone(),
        )
    }

    fn asked(&mut self, index: usize) -> Arc<str> {
        let job = self.known.jobs[index];
        let known = &mut self.asked[job.shape()];
        if let Some((_, asked)) = known.iter().find(|(pods, _)| *pods == job.pods) {
            return asked.clone();
        }
        let asked: Arc<str> = asked(self.snapshot, &self.snapshot.waiting[index]).into();
        known.push((job.pods, asked.clone()));
        asked
    }
}

/// How many of `wanted` pods fit, where not all do.
fn below(fit: u64, wanted: u32) -> u32 {
    u32::try_from(fit).unwrap_or(u32::MAX).min(wanted.saturating_sub(1))
}
