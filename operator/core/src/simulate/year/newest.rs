//! The planner to compare with: it decides as ours does, but who leaves for a
//! claim is who started last, as schedulers for batch work have it: one after
//! the other until there is room, then those stay that turn out not to be in
//! the way, the longest running first.

use std::cmp::Reverse;

use crate::model::{Admission, Eviction, EvictionReason, Plan, PodPlacement, Reservation, Right, Snapshot};
use crate::policy::Scorer;
use crate::queue::plan_with;
use crate::simulate::replay::world::{hold, release, units_of};

use super::GRACE_MS;

/// A plan in which those leave for claims who started last.
pub(super) fn plan_newest_first(snapshot: &Snapshot, scorer: &Scorer, now_ms: i64) -> Plan {
    let mut plan = plan_with(snapshot, scorer, now_ms);
    let mut claiming: Vec<usize> = plan
        .evictions
        .iter()
        .filter(|eviction| eviction.reason == EvictionReason::Claimed)
        .map(|eviction| eviction.by)
        .collect();
    claiming.dedup();
    if claiming.is_empty() {
        return plan;
    }
    let mut trial = Trial::new(snapshot, &plan);
    for by in claiming {
        let Some((victims, pods)) = trial.room_for(by, scorer, now_ms) else { continue };
        plan.evictions.retain(|eviction| eviction.by != by);
        if victims.is_empty() {
            // It is free, and was only kept for others.
            let units = pods.iter().map(|pod| units_of(snapshot, pod)).sum();
            let right =
                plan.reservations.iter().find(|kept| kept.workload == by).map(|kept| kept.right.clone());
            plan.reservations.retain(|kept| kept.workload != by);
            plan.admissions.push(Admission { workload: by, pods, units, right: right.unwrap_or_default() });
            continue;
        }
        plan.evictions.extend(victims.into_iter().map(|running| Eviction {
            running,
            by,
            reason: EvictionReason::Claimed,
            lost: 0,
        }));
        // What is claimed is promised first.
        if let Some(at) = plan.reservations.iter().position(|kept| kept.workload == by) {
            let kept = plan.reservations.remove(at);
            plan.reservations.insert(0, Reservation { pods, ..kept });
        }
    }
    plan
}

/// The cluster, from which some are taken away.
struct Trial<'a> {
    of: &'a Snapshot,
    now: Snapshot,
    gone: Vec<bool>,
}

impl<'a> Trial<'a> {
    /// With what the plan starts in its place, and nobody who can be asked.
    fn new(of: &'a Snapshot, plan: &Plan) -> Self {
        let mut now = of.clone();
        for admission in &plan.admissions {
            // What does not fit is found out when the plan is carried out.
            let _ = hold(&mut now, &admission.pods, of.waiting[admission.workload].shape);
        }
        now.reserves.clear();
        now.running.clear();
        now.waiting.clear();
        let mut trial = Self { of, now, gone: vec![false; of.running.len()] };
        for eviction in plan.evictions.iter().filter(|eviction| eviction.reason != EvictionReason::Claimed) {
            trial.gone[eviction.running] = true;
        }
        trial
    }

    /// Who leaves, and where the workload goes then.
    fn room_for(
        &mut self,
        by: usize,
        scorer: &Scorer,
        now_ms: i64,
    ) -> Option<(Vec<usize>, Vec<PodPlacement>)> {
        let mut candidates: Vec<usize> =
            (0..self.of.running.len()).filter(|at| self.may_ask(by, *at)).collect();
        candidates.sort_by_key(|at| Reverse((self.of.running[*at].admitted_ms, *at)));
        let mut victims = Vec::new();
        let mut found = self.place(by, scorer, now_ms);
        for at in candidates {
            if found.is_some() {
                break;
            }
            self.take_away(at);
            victims.push(at);
            found = self.place(by, scorer, now_ms);
        }
        let mut pods = found?;
        for at in std::mem::take(&mut victims).into_iter().rev() {
            self.put_back(at);
            if let Some(still) = self.place(by, scorer, now_ms) {
                pods = still;
            } else {
                self.take_away(at);
                victims.push(at);
            }
        }
        // What is kept for it is not there for the next.
        hold(&mut self.now, &pods, self.of.waiting[by].shape).ok()?;
        Some((victims, pods))
    }

    fn may_ask(&self, by: usize, at: usize) -> bool {
        let running = &self.of.running[at];
        let class = |tenant: &str| self.of.tenants.get(tenant).map(|tenant| tenant.class);
        running.evictable
            && running.leaves_ms.is_none()
            && !self.gone[at]
            && running.grace_ms <= GRACE_MS
            && (running.right == Right::Ordinary
                || class(&running.tenant) < class(&self.of.waiting[by].tenant))
    }

    fn take_away(&mut self, at: usize) {
        let running = &self.of.running[at];
        release(&mut self.now, &running.pods, running.shape);
        self.gone[at] = true;
    }

    fn put_back(&mut self, at: usize) {
        let running = &self.of.running[at];
        // It fitted before.
        let _ = hold(&mut self.now, &running.pods, running.shape);
        self.gone[at] = false;
    }

    fn place(&mut self, by: usize, scorer: &Scorer, now_ms: i64) -> Option<Vec<PodPlacement>> {
        let mut waits = self.of.waiting[by].clone();
        waits.reserved.clear();
        waits.order = None;
        self.now.waiting = vec![waits];
        let plan = plan_with(&self.now, scorer, now_ms);
        plan.admissions.into_iter().next().map(|admission| admission.pods)
    }
}
