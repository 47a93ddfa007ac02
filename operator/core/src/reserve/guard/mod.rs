//! The proof that what the reserves promise can be delivered, at every decision.
//!
//! A reserve promises shapes: those that can be claimed at once, and from when an
//! order begins those of the order. For now and for each such time there is a
//! *proof*: places for all of them in the cluster without whatever is gone by then
//! or can be asked to leave in time ([`proof`]). Work that cannot be asked is put
//! only where the proofs still hold, or can be made to hold, afterwards; work that
//! can be asked may go anywhere: to it the reserve is lent. Who leaves when
//! something is claimed is not decided here.

mod proof;

use std::collections::BTreeSet;

use crate::model::{
    Class, Missing, NodeIndex, Order, PodPlacement, PodShape, Reserve, ReservedShape, Right, Running,
    Snapshot, UnitMs, Units, Workload,
};
use crate::placement::Shapes;
use proof::{Change, Proof};

/// Keeps the promises of all reserves during one cycle.
#[derive(Debug)]
pub(crate) struct Guard<'a> {
    snapshot: &'a Snapshot,
    shapes: &'a Shapes<'a>,
    now_ms: i64,
    pools: Vec<Pool<'a>>,
    /// For each node, its pool.
    pool_of: Vec<Option<usize>>,
}

/// One reserve.
#[derive(Debug)]
struct Pool<'a> {
    reserve: &'a Reserve,
    /// What may still be taken with others leaving.
    tokens: UnitMs,
    /// Of the shapes, and of as many more as may be claimed while there is room, what is not claimed.
    claimable: Vec<ReservedShape>,
    /// For each order, what of it is not running under it.
    unmet: Vec<Vec<ReservedShape>>,
    proofs: Vec<Proof<'a>>,
}

/// What a workload may take by the right of a reserve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draw {
    pool: usize,
    /// As what it runs.
    pub right: Right,
    /// What it is above: whoever holds something by a right of this class or a higher one stays.
    pub class: Class,
    /// How long those who leave for it may take, in milliseconds.
    pub grace_ms: i64,
    /// For each of its pods, what it takes of what was promised.
    takes: Vec<usize>,
    order: Option<usize>,
}

impl<'a> Guard<'a> {
    pub fn of(snapshot: &'a Snapshot, shapes: &'a Shapes<'a>, now_ms: i64) -> Self {
        let mut pool_of = vec![None; snapshot.nodes.len()];
        for (at, reserve) in snapshot.reserves.iter().enumerate() {
            for NodeIndex(node) in &reserve.nodes {
                if let Some(of) = pool_of.get_mut(*node as usize) {
                    of.get_or_insert(at);
                }
            }
        }
        let mut guard = Self { snapshot, shapes, now_ms, pools: Vec::new(), pool_of };
        guard.pools = snapshot.reserves.iter().map(|reserve| guard.pool(reserve)).collect();
        guard
    }

    /// Whether there is nothing to keep.
    pub fn is_idle(&self) -> bool {
        self.pools.is_empty()
    }

    fn pool(&self, reserve: &'a Reserve) -> Pool<'a> {
        let most = |shape: &ReservedShape| shape.count.saturating_mul(reserve.burst.max(1));
        let mut claimable: Vec<ReservedShape> =
            reserve.shapes.iter().map(|shape| ReservedShape { count: most(shape), ..*shape }).collect();
        let mut unmet: Vec<Vec<ReservedShape>> =
            reserve.orders.iter().map(|order| order.shapes.clone()).collect();
        for running in &self.snapshot.running {
            let Some(shape) = self.snapshot.shapes.get(running.shape) else { continue };
            let of = match &running.right {
                Right::Ordinary => continue,
                Right::Claimed => Some(&mut claimable),
                Right::Ordered(key) => {
                    reserve.orders.iter().position(|order| order.key == *key).map(|at| &mut unmet[at])
                }
            };
            let Some(of) = of else { continue };
            let here = |pod: &&PodPlacement| reserve.nodes.binary_search(&pod.node).is_ok();
            for _ in running.pods.iter().filter(here) {
                if let Some(at) = smallest(self.snapshot, of, shape) {
                    of[at].count -= 1;
                }
            }
        }
        // Only the first time round is proved.
        let unclaimed: Vec<ReservedShape> = reserve
            .shapes
            .iter()
            .zip(&claimable)
            .map(|(all, left)| {
                let claimed = most(all) - left.count;
                ReservedShape { count: all.count.saturating_sub(claimed), ..*all }
            })
            .collect();
        let begins =
            reserve.orders.iter().map(|order| order.from_ms).filter(|from_ms| *from_ms > self.now_ms);
        let times: BTreeSet<i64> = begins.chain([self.now_ms]).collect();
        let wanted = |at_ms: i64| {
            let runs = |order: &Order| order.from_ms <= at_ms && at_ms < order.until_ms;
            let orders = reserve.orders.iter().zip(&unmet).filter(|(order, _)| runs(order));
            let shapes = orders.flat_map(|(_, shapes)| shapes.iter()).chain(&unclaimed);
            shapes.copied().collect::<Vec<_>>()
        };
        let proof = |at_ms: i64| {
            // What is claimed now is there once those asked now have left; an order begins on time.
            let by_ms = if at_ms > self.now_ms { at_ms } else { at_ms.saturating_add(reserve.grace_ms) };
            let stays = |at: usize| stays(reserve, &self.snapshot.running[at], at_ms, by_ms);
            Proof::of(self.snapshot, self.shapes, by_ms, stays, &wanted(at_ms))
        };
        let proofs = times.into_iter().map(proof).collect();
        Pool { reserve, tokens: reserve.tokens, claimable, unmet, proofs }
    }

    /// Whether a workload could not be asked to leave in time: then it goes only where every promise still holds.
    pub fn binds(&self, workload: &Workload) -> bool {
        let least = self.pools.iter().map(|pool| pool.reserve.grace_ms).min();
        least.is_some_and(|least| workload.lasting || workload.grace_ms > least)
    }

    /// What is promised now and can't be delivered.
    pub fn missing(&self) -> Vec<Missing> {
        let of_pool = |(reserve, pool): (usize, &Pool<'a>)| {
            let now = pool.proofs.first().into_iter().flat_map(Proof::missing);
            now.map(move |shape| Missing { reserve, shape }).collect::<Vec<_>>()
        };
        self.pools.iter().enumerate().flat_map(of_pool).collect()
    }

    /// Where what can be claimed at once would go: shapes, and places.
    pub fn places_now(&self) -> impl Iterator<Item = (usize, &[PodPlacement])> {
        self.pools.iter().filter_map(|pool| pool.proofs.first()).flat_map(Proof::places)
    }

    /// Counts a workload that can't be asked to leave in a place; `false`, and nothing is changed, if a promise could
    /// not be kept then. One that takes what was promised to it counts for itself, not for the promise.
    pub fn admit(&mut self, workload: usize, pods: &[PodPlacement], draw: Option<&Draw>) -> bool {
        let of = &self.snapshot.waiting[workload];
        let shape = self.shapes.shape_of[workload];
        let ends_ms = of.runs_ms.map(|runs_ms| self.now_ms.saturating_add(runs_ms));
        let mut pools: BTreeSet<usize> =
            pods.iter().filter_map(|pod| *self.pool_of.get(pod.node.0 as usize)?).collect();
        pools.extend(draw.map(|draw| draw.pool));
        let mut changed: Vec<(usize, usize, Change)> = Vec::new();
        for pool in pools {
            let takes = draw.filter(|draw| draw.pool == pool).map(|draw| self.taken(draw));
            for at in 0..self.pools[pool].proofs.len() {
                let proof = &mut self.pools[pool].proofs[at];
                let gone = ends_ms.is_some_and(|ends_ms| ends_ms <= proof.by_ms);
                let takes = takes.as_deref().unwrap_or_default();
                let Some(change) = proof.change(shape, if gone { &[] } else { pods }, takes) else {
                    for (pool, at, change) in changed.into_iter().rev() {
                        self.pools[pool].proofs[at].undo(shape, change);
                    }
                    return false;
                };
                changed.push((pool, at, change));
            }
        }
        if let Some(draw) = draw {
            self.spend(workload, draw);
        }
        true
    }

    /// Counts something that runs by a right as about to leave for one of a higher class, or not.
    pub fn let_go(&mut self, running: usize, away: bool) {
        self.pools.iter_mut().flat_map(|pool| &mut pool.proofs).for_each(|proof| proof.let_go(running, away));
    }

    /// Whether a workload's tenant draws on any reserve.
    pub fn may_draw(&self, workload: usize) -> bool {
        let tenant = self.snapshot.tenants.get(&self.snapshot.waiting[workload].tenant);
        tenant
            .is_some_and(|tenant| self.pools.iter().any(|pool| pool.reserve.classes.contains(&tenant.class)))
    }

    fn taken(&self, draw: &Draw) -> Vec<usize> {
        let pool = &self.pools[draw.pool];
        let of = draw.order.map_or(&pool.claimable, |order| &pool.unmet[order]);
        draw.takes.iter().filter_map(|at| of.get(*at)).map(|shape| shape.shape).collect()
    }

    fn spend(&mut self, workload: usize, draw: &Draw) {
        let cost = self.cost(workload, self.pools[draw.pool].reserve);
        let pool = &mut self.pools[draw.pool];
        if draw.right == Right::Claimed {
            pool.tokens = pool.tokens.saturating_sub(cost);
        }
        let of = match draw.order {
            Some(order) => &mut pool.unmet[order],
            None => &mut pool.claimable,
        };
        for at in &draw.takes {
            if let Some(shape) = of.get_mut(*at) {
                shape.count = shape.count.saturating_sub(1);
            }
        }
    }

    /// Tokens that a claim must be covered by.
    fn cost(&self, workload: usize, reserve: &Reserve) -> UnitMs {
        let units = least_units(self.shapes, self.shapes.shape_of[workload]);
        let units = units.saturating_mul(self.snapshot.waiting[workload].pods.into());
        units.saturating_mul(u64::try_from(reserve.least_claim_ms).unwrap_or(0))
    }

    /// By what right a workload may ask others to leave, if a reserve gives it one.
    pub fn draw(&self, workload: usize) -> Option<Draw> {
        let of = &self.snapshot.waiting[workload];
        let class = self.snapshot.tenants.get(&of.tenant)?.class;
        self.pools.iter().enumerate().find_map(|(at, pool)| {
            if !pool.reserve.classes.contains(&class) {
                return None;
            }
            let draw = |right, order, takes| Draw {
                pool: at,
                right,
                class,
                grace_ms: pool.reserve.grace_ms,
                takes,
                order,
            };
            if let Some(key) = &of.order {
                let mine = |order: &Order| order.key == *key && order.tenant == of.tenant;
                let order = pool.reserve.orders.iter().position(mine)?;
                let Order { from_ms, until_ms, .. } = pool.reserve.orders[order];
                let begins_ms = from_ms.saturating_sub(pool.reserve.grace_ms);
                let begun = begins_ms <= self.now_ms && self.now_ms < until_ms;
                let takes = self.takes(workload, &pool.unmet[order]).filter(|_| begun)?;
                return Some(draw(Right::Ordered(key.clone()), Some(order), takes));
            }
            let takes = self.takes(workload, &pool.claimable)?;
            let covered = self.cost(workload, pool.reserve) <= pool.tokens;
            covered.then(|| draw(Right::Claimed, None, takes))
        })
    }

    /// For each pod, the smallest promised shape that is as large; `None` if there are not enough.
    fn takes(&self, workload: usize, of: &[ReservedShape]) -> Option<Vec<usize>> {
        let of_workload = &self.snapshot.waiting[workload];
        let shape = self.snapshot.shapes.get(of_workload.shape)?;
        let mut left = of.to_vec();
        (0..of_workload.pods)
            .map(|_| {
                let at = smallest(self.snapshot, &left, shape)?;
                left[at].count -= 1;
                Some(at)
            })
            .collect()
    }

    /// A place for a workload where only those are in the way who can be asked to leave in time: what the proof for
    /// now has for what the workload takes.
    pub fn place(&mut self, workload: usize, draw: &Draw) -> Option<(Vec<PodPlacement>, Units)> {
        let takes = self.taken(draw);
        let of = &self.snapshot.waiting[workload];
        let shape = self.shapes.shape_of[workload];
        self.pools[draw.pool].proofs.first_mut()?.place_instead(shape, of, &takes)
    }
}

/// Whether something that runs is there still at a time, though the room were needed.
pub(super) fn stays(reserve: &Reserve, running: &Running, at_ms: i64, by_ms: i64) -> bool {
    let gone = |when_ms: Option<i64>| when_ms.is_some_and(|when_ms| when_ms <= by_ms);
    if gone(running.ends_ms) || gone(running.leaves_ms) {
        return false;
    }
    let by_right = match &running.right {
        Right::Ordinary => false,
        Right::Claimed => true,
        // What runs under an order is as any other once the order has ended.
        Right::Ordered(key) => reserve.orders.iter().any(|order| order.key == *key && order.until_ms > at_ms),
    };
    by_right || !running.evictable || running.grace_ms > reserve.grace_ms
}

/// What the devices of a pod of a shape are charged at least.
fn least_units(shapes: &Shapes<'_>, shape: usize) -> Units {
    shapes.demands[shapes.demand_of[shape]].least.unwrap_or(0)
}

/// Of some shapes of which any are left, the smallest that promises at least what `wanted` asks for.
fn smallest(snapshot: &Snapshot, of: &[ReservedShape], wanted: &PodShape) -> Option<usize> {
    let units = |shape: &PodShape| -> Units {
        let request = |request: &crate::model::DeviceRequest| {
            device_units(snapshot, request.eligible).saturating_mul(request.count.into())
        };
        shape.requests.iter().map(request).fold(0, Units::saturating_add)
    };
    let wants = units(wanted);
    let promised = |at: usize| snapshot.shapes.get(of[at].shape).map_or(0, units);
    let enough = (0..of.len()).filter(|at| of[*at].count > 0 && promised(*at) >= wants);
    enough.min_by_key(|at| (promised(*at), *at))
}

/// The least that any device of a set is charged.
fn device_units(snapshot: &Snapshot, eligible: usize) -> Units {
    let Some(set) = snapshot.device_sets.get(eligible) else { return Units::MAX };
    let of_gpu = |(gpu, mask): (&crate::model::Gpu, &u64)| {
        let devices = gpu.devices.iter().take(64).zip(0..);
        devices.filter(|(_, bit)| mask >> bit & 1 == 1).map(|(device, _)| device.units).min()
    };
    snapshot.gpus.iter().zip(&set.0).filter_map(of_gpu).min().unwrap_or(Units::MAX)
}

#[cfg(test)]
mod tests;
