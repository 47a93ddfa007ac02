//! Why a workload waits, with the numbers as they are once the plan has started.

use super::tree::{Tightest, Tree};
use super::words::{asked, kinds};
use crate::model::{Snapshot, Units, WaitReason, Workload};
use crate::placement::{Cluster, Shapes, Survey};

/// What kept a workload from starting, as seen when its turn came.
#[derive(Clone, Copy, Debug)]
pub(super) enum Obstacle {
    NoTenant,
    NoSuchDevice,
    AboveLimit { needs: Units, limit: Units, tenant: usize },
    Backoff { left_ms: i64 },
    Quota { needs: Units },
    Room,
}

/// Finds reasons at the end of a cycle; the same shape is looked at once.
pub(super) struct Reasons<'a, 'c> {
    snapshot: &'a Snapshot,
    shapes: &'a Shapes<'a>,
    cluster: &'c mut Cluster<'a>,
    tree: &'c Tree<'a>,
    /// The cluster as if nothing ran, once it is asked for.
    emptied: Option<Cluster<'a>>,
    now: Vec<Option<Survey>>,
    ever: Vec<Option<Survey>>,
    kinds: Option<Vec<String>>,
}

impl<'a, 'c> Reasons<'a, 'c> {
    pub fn new(
        snapshot: &'a Snapshot,
        shapes: &'a Shapes<'a>,
        cluster: &'c mut Cluster<'a>,
        tree: &'c Tree<'a>,
    ) -> Self {
        let unknown = vec![None; shapes.pods.len()];
        let (now, ever) = (unknown.clone(), unknown);
        Self { snapshot, shapes, cluster, tree, emptied: None, now, ever, kinds: None }
    }

    pub fn of(&mut self, index: usize, obstacle: Obstacle) -> WaitReason {
        let workload = &self.snapshot.waiting[index];
        let tenant = workload.tenant.clone();
        let shape = self.shapes.shape_of[index];
        match obstacle {
            Obstacle::NoTenant => WaitReason::NoTenant { tenant },
            Obstacle::NoSuchDevice => {
                let label = self.shapes.demands[self.shapes.demand_of[shape]].unknown.clone();
                let snapshot = self.snapshot;
                let available = self.kinds.get_or_insert_with(|| kinds(snapshot)).clone();
                WaitReason::NoSuchDevice { label: label.unwrap_or_default(), available }
            }
            Obstacle::AboveLimit { needs, limit, tenant } => {
                WaitReason::AboveLimit { tenant: self.tree.name(tenant).to_owned(), needs, limit }
            }
            Obstacle::Backoff { left_ms } => WaitReason::Backoff { left_ms },
            Obstacle::Quota { needs } => self.never(workload, shape).unwrap_or_else(|| {
                let (tenant, left) = self.left(&tenant);
                let (left, limit) = left.unwrap_or((0, needs));
                WaitReason::Quota { tenant, needs, left, limit }
            }),
            Obstacle::Room => self.never(workload, shape).unwrap_or_else(|| self.room(workload, shape)),
        }
    }

    /// That it would not fit into the emptied cluster, if so.
    fn never(&mut self, workload: &Workload, shape: usize) -> Option<WaitReason> {
        let (snapshot, shapes) = (self.snapshot, self.shapes);
        let emptied = self.emptied.get_or_insert_with(|| Cluster::new(snapshot, shapes, true));
        let survey = self.ever[shape].get_or_insert_with(|| emptied.survey(shape));
        (survey.pods < u64::from(workload.pods)).then(|| WaitReason::NeverFits {
            asked: asked(snapshot, workload),
            empty_cluster_fits: below(survey.pods, workload.pods),
            pods: workload.pods,
            turned_away: survey.turned_away.clone(),
        })
    }

    fn room(&mut self, workload: &Workload, shape: usize) -> WaitReason {
        let (tenant, left) = self.left(&workload.tenant);
        let cluster = &mut *self.cluster;
        let survey = self.now[shape].get_or_insert_with(|| cluster.survey(shape));
        let Survey { pods, pods_by_devices, nodes, .. } = *survey;
        let asked = asked(self.snapshot, workload);
        let fit = below(pods, workload.pods);
        if pods_by_devices >= u64::from(workload.pods) {
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

    /// The tenant on the way up that has the least left under its limit, and what it has left.
    fn left(&self, tenant: &str) -> (String, Option<(Units, Units)>) {
        let tightest = self.tree.find(tenant).and_then(|tenant| self.tree.tightest(tenant));
        match tightest {
            Some(Tightest { left, limit, tenant }) => {
                (self.tree.name(tenant).to_owned(), Some((left, limit)))
            }
            None => (tenant.to_owned(), None),
        }
    }
}

/// How many of `wanted` pods fit, where not all do.
fn below(fit: u64, wanted: u32) -> u32 {
    u32::try_from(fit).unwrap_or(u32::MAX).min(wanted.saturating_sub(1))
}
