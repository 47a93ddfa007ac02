//! One cycle: each waiting workload in its order is placed whole or waits.

use super::order::Order;
use super::reason::{Obstacle, Reasons};
use super::tree::{Tightest, Tree};
use crate::model::{Admission, Plan, Snapshot, Units, Wait};
use crate::placement::{Cluster, Shapes};

/// Decides what starts now, and where; and for everything else says why not.
///
/// Every workload of `snapshot.waiting` is in the plan exactly once. The
/// numbers in the reasons are those after everything in the plan has started.
pub fn plan(snapshot: &Snapshot, now_ms: i64) -> Plan {
    let shapes = Shapes::of(snapshot);
    let mut cycle = Cycle::new(snapshot, &shapes, now_ms);
    let mut plan = Plan::default();
    let mut obstacles = Vec::new();
    let mut order = Order::of(snapshot, &cycle.tree);
    while let Some((workload, tenant)) = order.next() {
        let decided = cycle.decide(workload, tenant);
        order.pass(&cycle.tree, tenant, decided.as_ref().ok().map(|admission| admission.units), now_ms);
        match decided {
            Ok(admission) => plan.admissions.push(admission),
            Err(obstacle) => obstacles.push((workload, obstacle)),
        }
    }
    let mut homeless: Vec<usize> = (0..snapshot.waiting.len())
        .filter(|index| cycle.tree.find(&snapshot.waiting[*index].tenant).is_none())
        .collect();
    homeless.sort_by_key(|index| (&snapshot.waiting[*index].key, *index));
    obstacles.extend(homeless.into_iter().map(|index| (index, Obstacle::NoTenant)));

    let Cycle { mut cluster, tree, .. } = cycle;
    let mut reasons = Reasons::new(snapshot, &shapes, &mut cluster, &tree);
    let wait = |(workload, obstacle)| Wait { workload, reason: reasons.of(workload, obstacle) };
    plan.waits = obstacles.into_iter().map(wait).collect();
    plan
}

struct Cycle<'a> {
    snapshot: &'a Snapshot,
    shapes: &'a Shapes<'a>,
    cluster: Cluster<'a>,
    now_ms: i64,
    /// What tenants hold, with what this cycle gave them.
    tree: Tree<'a>,
    /// How many workloads of each shape are still to be decided.
    left: Vec<usize>,
}

impl<'a> Cycle<'a> {
    fn new(snapshot: &'a Snapshot, shapes: &'a Shapes<'a>, now_ms: i64) -> Self {
        let mut left = vec![0; shapes.pods.len()];
        let tree = Tree::of(snapshot);
        let with_tenant = |index: &usize| tree.find(&snapshot.waiting[*index].tenant).is_some();
        for index in (0..snapshot.waiting.len()).filter(with_tenant) {
            left[shapes.shape_of[index]] += 1;
        }
        let cluster = Cluster::new(snapshot, shapes, false);
        Self { snapshot, shapes, cluster, now_ms, tree, left }
    }

    fn decide(&mut self, index: usize, tenant: usize) -> Result<Admission, Obstacle> {
        let shape = self.shapes.shape_of[index];
        let decided = self.admit(index, tenant, shape);
        self.left[shape] -= 1;
        if self.left[shape] == 0 {
            self.cluster.forget(shape);
        }
        decided
    }

    fn admit(&mut self, index: usize, tenant: usize, shape: usize) -> Result<Admission, Obstacle> {
        let workload = &self.snapshot.waiting[index];
        let demand = &self.shapes.demands[self.shapes.demand_of[shape]];
        let Some(least) = demand.least else { return Err(Obstacle::NoSuchDevice) };
        let needs = least.saturating_mul(workload.pods.into());
        if let Some((limit, of)) = self.tree.least_limit(tenant).filter(|(limit, _)| needs > *limit) {
            return Err(Obstacle::AboveLimit { needs, limit, tenant: of });
        }
        if workload.not_before_ms > self.now_ms {
            return Err(Obstacle::Backoff { left_ms: workload.not_before_ms.saturating_sub(self.now_ms) });
        }
        let left = self.tree.tightest(tenant).map_or(Units::MAX, |Tightest { left, .. }| left);
        if needs > left {
            return Err(Obstacle::Quota { needs });
        }
        let Some(placed) = self.cluster.place(shape, workload.pods, &workload.avoid) else {
            return Err(Obstacle::Room);
        };
        if placed.units > left {
            // Only larger devices than the least that will do were free.
            let needs = placed.units;
            self.cluster.take_back(shape, placed);
            return Err(Obstacle::Quota { needs });
        }
        self.tree.give(tenant, placed.units);
        Ok(Admission { workload: index, pods: placed.pods, units: placed.units })
    }
}
