//! One cycle: each waiting workload in its order is placed whole or waits.

use std::collections::BTreeMap;

use super::order::Order;
use super::reason::{Obstacle, Reasons};
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
    let mut order = Order::of(snapshot, &cycle.used);
    while let Some((workload, tenant)) = order.next() {
        match cycle.decide(workload, tenant) {
            Ok(admission) => plan.admissions.push(admission),
            Err(obstacle) => obstacles.push((workload, obstacle)),
        }
        order.enter(tenant, cycle.used.get(tenant).copied().unwrap_or(0));
    }
    let mut homeless: Vec<usize> = (0..snapshot.waiting.len())
        .filter(|index| !snapshot.tenants.contains_key(&snapshot.waiting[*index].tenant))
        .collect();
    homeless.sort_by_key(|index| (&snapshot.waiting[*index].key, *index));
    obstacles.extend(homeless.into_iter().map(|index| (index, Obstacle::NoTenant)));

    let Cycle { mut cluster, used, .. } = cycle;
    let mut reasons = Reasons::new(snapshot, &shapes, &mut cluster, &used);
    let wait = |(workload, obstacle)| Wait { workload, reason: reasons.of(workload, obstacle) };
    plan.waits = obstacles.into_iter().map(wait).collect();
    plan
}

struct Cycle<'a> {
    snapshot: &'a Snapshot,
    shapes: &'a Shapes<'a>,
    cluster: Cluster<'a>,
    now_ms: i64,
    /// What each tenant holds, with what this cycle gave it.
    used: BTreeMap<&'a str, Units>,
    /// How many workloads of each shape are still to be decided.
    left: Vec<usize>,
}

impl<'a> Cycle<'a> {
    fn new(snapshot: &'a Snapshot, shapes: &'a Shapes<'a>, now_ms: i64) -> Self {
        let mut left = vec![0; shapes.pods.len()];
        let with_tenant = |index: &usize| snapshot.tenants.contains_key(&snapshot.waiting[*index].tenant);
        for index in (0..snapshot.waiting.len()).filter(with_tenant) {
            left[shapes.shape_of[index]] += 1;
        }
        let used = snapshot.tenants.iter().map(|(name, tenant)| (name.as_str(), tenant.used)).collect();
        let cluster = Cluster::new(snapshot, shapes, false);
        Self { snapshot, shapes, cluster, now_ms, used, left }
    }

    fn decide(&mut self, index: usize, tenant: &'a str) -> Result<Admission, Obstacle> {
        let shape = self.shapes.shape_of[index];
        let decided = self.admit(index, tenant, shape);
        self.left[shape] -= 1;
        if self.left[shape] == 0 {
            self.cluster.forget(shape);
        }
        decided
    }

    fn admit(&mut self, index: usize, tenant: &'a str, shape: usize) -> Result<Admission, Obstacle> {
        let workload = &self.snapshot.waiting[index];
        let demand = &self.shapes.demands[self.shapes.demand_of[shape]];
        let Some(least) = demand.least else { return Err(Obstacle::NoSuchDevice) };
        let needs = least.saturating_mul(workload.pods.into());
        let limit = self.snapshot.tenants.get(tenant).and_then(|tenant| tenant.limit).unwrap_or(Units::MAX);
        let used = self.used.get(tenant).copied().unwrap_or(0);
        if needs > limit {
            return Err(Obstacle::AboveLimit { needs });
        }
        if workload.not_before_ms > self.now_ms {
            return Err(Obstacle::Backoff { left_ms: workload.not_before_ms.saturating_sub(self.now_ms) });
        }
        let left = limit.saturating_sub(used);
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
        self.used.insert(tenant, used.saturating_add(placed.units));
        Ok(Admission { workload: index, pods: placed.pods, units: placed.units })
    }
}
