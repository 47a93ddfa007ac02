//! Why a workload waits, with the numbers as they are once the plan has started.

use std::collections::{BTreeMap, BTreeSet};

use super::keep::{Keeper, Kept};
use super::tree::{Tightest, Tree};
use super::words::{asked, kinds};
use crate::model::{Snapshot, Units, WaitReason, Workload};
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
    tree: &'c Tree<'a>,
    keeper: &'c Keeper,
    /// The cluster as if nothing ran, once it is asked for.
    emptied: Option<Cluster<'a>>,
    now: Vec<Option<Survey>>,
    /// Pods that would fit if nothing were kept for others.
    with_kept: Vec<Option<u64>>,
    ever: Vec<Option<Survey>>,
    kinds: Option<Vec<String>>,
    /// By shape and number of pods, what is asked for, in words.
    asked: BTreeMap<(usize, u32), String>,
    /// For each tenant, the one on the way up that has the least left under its limit, and what it has left.
    left: Vec<Left>,
}

/// A tenant's name, and what it has left under its limit, and that limit.
type Left = (String, Option<(Units, Units)>);

impl<'a, 'c> Reasons<'a, 'c> {
    pub fn new(
        snapshot: &'a Snapshot,
        shapes: &'a Shapes<'a>,
        cluster: &'c mut Cluster<'a>,
        tree: &'c Tree<'a>,
        keeper: &'c Keeper,
    ) -> Self {
        let unknown = vec![None; shapes.pods.len()];
        let (now, ever) = (unknown.clone(), unknown);
        let with_kept = vec![None; shapes.pods.len()];
        let left = |tenant| match tree.tightest(tenant) {
            Some(Tightest { left, limit, tenant }) => (tree.name(tenant).to_owned(), Some((left, limit))),
            None => (tree.name(tenant).to_owned(), None),
        };
        Self {
            snapshot,
            shapes,
            cluster,
            tree,
            keeper,
            emptied: None,
            now,
            with_kept,
            ever,
            kinds: None,
            asked: BTreeMap::new(),
            left: (0..tree.len()).map(left).collect(),
        }
    }

    /// Looks at what is free, with and without what is kept, for everything that has no room.
    pub fn look_at(&mut self, obstacles: &[(usize, Obstacle)]) {
        let no_room = obstacles.iter().filter(|(_, obstacle)| matches!(obstacle, Obstacle::Room));
        let shapes: BTreeSet<usize> = no_room.map(|(index, _)| self.shapes.shape_of[*index]).collect();
        for shape in &shapes {
            self.now[*shape] = Some(self.cluster.survey(*shape));
        }
        if self.keeper.has_places() {
            self.keeper.open_places(self.cluster);
            for shape in shapes {
                self.with_kept[shape] = Some(self.cluster.survey(shape).pods);
            }
        }
    }

    pub fn of(&mut self, index: usize, obstacle: Obstacle) -> WaitReason {
        let workload = &self.snapshot.waiting[index];
        let shape = self.shapes.shape_of[index];
        match obstacle {
            Obstacle::NoTenant => WaitReason::NoTenant { tenant: workload.tenant.clone() },
            Obstacle::NoSuchDevice => {
                let label = self.shapes.demands[self.shapes.demand_of[shape]].unknown.clone();
                let snapshot = self.snapshot;
                let available = self.kinds.get_or_insert_with(|| kinds(snapshot)).clone();
                WaitReason::NoSuchDevice { label: label.unwrap_or_default(), available }
            }
            Obstacle::AboveLimit { needs, limit, tenant } => {
                WaitReason::AboveLimit { tenant: self.tree.name(tenant).to_owned(), needs, limit }
            }
            Obstacle::Guarantee { needs, left, tenant } => WaitReason::Guarantee {
                tenant: self.tree.name(tenant).to_owned(),
                needs,
                left,
                guaranteed: self.tree.tenant(tenant).guaranteed,
            },
            Obstacle::Backoff { left_ms } => WaitReason::Backoff { left_ms },
            Obstacle::Quota { needs } => self.never(workload, shape).unwrap_or_else(|| {
                let (tenant, left) = self.left(index);
                match left {
                    Some((left, limit)) if needs > left => WaitReason::Quota { tenant, needs, left, limit },
                    _ => WaitReason::Kept { asked: self.asked(index) },
                }
            }),
            Obstacle::Promised => WaitReason::Promised { asked: self.asked(index) },
            Obstacle::Reserved(at) => self.reserved(index, self.keeper.get(at)),
            Obstacle::Room => self.never(workload, shape).unwrap_or_else(|| self.room(index, shape)),
        }
    }

    /// That it would not fit into the emptied cluster, if so.
    fn never(&mut self, workload: &Workload, shape: usize) -> Option<WaitReason> {
        let (snapshot, shapes) = (self.snapshot, self.shapes);
        let emptied = self.emptied.get_or_insert_with(|| Cluster::new(snapshot, shapes, true));
        let survey = self.ever[shape].get_or_insert_with(|| emptied.survey(shape));
        let required = workload.topology.as_ref().filter(|topology| topology.required);
        let fits = required.map_or(survey.pods, |topology| emptied.fit_together(shape, topology));
        (fits < u64::from(workload.pods)).then(|| WaitReason::NeverFits {
            asked: asked(snapshot, workload),
            empty_cluster_fits: below(fits, workload.pods),
            pods: workload.pods,
            turned_away: survey.turned_away.clone(),
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

    fn room(&mut self, index: usize, shape: usize) -> WaitReason {
        let workload = &self.snapshot.waiting[index];
        let (tenant, left) = self.left(index);
        let asked = self.asked(index);
        let wanted = u64::from(workload.pods);
        let nothing = Survey::default();
        let survey = self.now[shape].as_ref().unwrap_or(&nothing);
        let Survey { pods, pods_by_devices, nodes, .. } = *survey;
        if pods < wanted && self.with_kept[shape].is_some_and(|pods| pods >= wanted) {
            return WaitReason::Kept { asked };
        }
        let fit = below(pods, workload.pods);
        if pods_by_devices >= wanted {
            return WaitReason::NoNode {
                asked,
                fit,
                tenant,
                left,
                turned_away: survey.turned_away.clone(),
                nodes,
            };
        }
        WaitReason::NoRoom { asked, fit, pods: workload.pods, tenant, left }
    }

    fn left(&self, index: usize) -> Left {
        let tenant = self.tree.of_waiting(index);
        tenant.map_or_else(
            || (self.snapshot.waiting[index].tenant.clone(), None),
            |tenant| self.left[tenant].clone(),
        )
    }

    fn asked(&mut self, index: usize) -> String {
        let workload = &self.snapshot.waiting[index];
        let key = (self.shapes.shape_of[index], workload.pods);
        self.asked.entry(key).or_insert_with(|| asked(self.snapshot, workload)).clone()
    }
}

/// How many of `wanted` pods fit, where not all do.
fn below(fit: u64, wanted: u32) -> u32 {
    u32::try_from(fit).unwrap_or(u32::MAX).min(wanted.saturating_sub(1))
}
