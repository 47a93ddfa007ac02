//! A plan is made and carried out: who is asked to leave, who starts where, and
//! what is kept for whom. A plan that can't be carried out is a fault.

use std::collections::BTreeSet;

use crate::model::{Admission, Eviction, EvictionReason, Plan, Right, Running, Snapshot};
use crate::simulate::replay::ReplayError;
use crate::simulate::replay::world::{hold, saved_ms};

use super::super::load::Ends;
use super::super::{Keeping, WITHIN_MS};
use super::{Engine, Event, Run};

impl Engine<'_> {
    pub(super) fn plan(
        &mut self,
        planner: &mut impl FnMut(&Snapshot, i64) -> Plan,
    ) -> Result<(), ReplayError> {
        for (running, run) in self.world.snapshot.running.iter_mut().zip(&self.runs) {
            running.saved_ms = saved_ms(running, self.load.jobs[run.job].checkpoint_ms, self.now_ms);
        }
        if self.setup.keeping == Keeping::Lent {
            let claimed = self.held_by(|right| *right == Right::Claimed);
            self.books.prune(self.now_ms);
            self.world.keep(self.setup, &self.account, &self.books, self.now_ms, claimed);
        }
        let plan = planner(&self.world.snapshot, self.now_ms);
        self.summary.plans += 1;
        let now_ms = self.now_ms;
        self.carry_out(&plan).map_err(|problem| ReplayError::Plan { now_ms, problem })
    }

    fn carry_out(&mut self, plan: &Plan) -> Result<(), String> {
        for eviction in &plan.evictions {
            self.evict(eviction)?;
        }
        for workload in &mut self.world.snapshot.waiting {
            workload.reserved.clear();
            workload.reserved_right = Right::Ordinary;
        }
        for (rank, reservation) in (0..).zip(&plan.reservations) {
            let workload = self.world.snapshot.waiting.get_mut(reservation.workload);
            let workload = workload.ok_or("a reservation for what doesn't wait")?;
            workload.reserved.clone_from(&reservation.pods);
            workload.reserved_rank = rank;
            workload.reserved_right = reservation.right.clone();
        }
        let mut started = BTreeSet::new();
        for admission in &plan.admissions {
            self.start(admission, !plan.out_of_turn.contains(&admission.workload))?;
            started.insert(admission.workload);
        }
        for place in started.into_iter().rev() {
            self.queue.swap_remove(place);
            self.world.snapshot.waiting.swap_remove(place);
        }
        Ok(())
    }

    fn evict(&mut self, eviction: &Eviction) -> Result<(), String> {
        let running =
            self.world.snapshot.running.get_mut(eviction.running).ok_or("an eviction of nothing")?;
        if !running.evictable || running.leaves_ms.is_some() {
            return Err(format!("{} is asked to leave", running.key));
        }
        let leaves_ms = self.now_ms.saturating_add(running.grace_ms);
        running.leaves_ms = Some(leaves_ms);
        let id = self.runs[eviction.running].id;
        self.push(leaves_ms, Event::Leave(id));
        if eviction.reason == EvictionReason::Claimed {
            self.summary.evictions += 1;
            self.row.evictions += 1;
        }
        Ok(())
    }

    fn start(&mut self, admission: &Admission, in_turn: bool) -> Result<(), String> {
        let snapshot = &mut self.world.snapshot;
        let workload = snapshot.waiting.get(admission.workload).ok_or("an admission of nothing")?.clone();
        let units = hold(snapshot, &admission.pods, workload.shape)?;
        let job = self.queue[admission.workload];
        if let Some(tenant) = snapshot.tenants.get_mut(&workload.tenant) {
            tenant.used += units;
            tenant.lasting += if workload.lasting { units } else { 0 };
            tenant.last_admitted_ms = if in_turn { self.now_ms } else { tenant.last_admitted_ms };
        }
        let id = self.place_of.len();
        self.place_of.push(self.runs.len());
        self.runs.push(Run { id, job, since_ms: self.now_ms });
        let come = &self.load.jobs[job];
        let ends_ms = match come.ends {
            Ends::At(at_ms) if come.order.is_some() => Some(at_ms),
            _ => come.declared_ms.map(|declared_ms| self.now_ms.saturating_add(declared_ms)),
        };
        snapshot.running.push(Running {
            key: workload.key,
            tenant: workload.tenant,
            priority: workload.priority,
            shape: workload.shape,
            pods: admission.pods.clone(),
            units,
            admitted_ms: self.now_ms,
            ends_ms,
            grace_ms: come.grace_ms,
            evictable: !come.lasting,
            serves: come.serves(),
            right: admission.right.clone(),
            ..Running::default()
        });
        let fate = &mut self.fates[job];
        fate.ran = true;
        let (left_ms, valid) = (fate.left_ms, std::mem::take(&mut fate.valid));
        if valid {
            let took_ms = self.now_ms.saturating_sub(come.queued_ms).saturating_add(self.setup.ready_ms);
            self.latencies.push(took_ms);
            let broke = self.last_failure_ms >= come.queued_ms;
            self.summary.late += u32::from(took_ms > WITHIN_MS && !broke);
        }
        if left_ms < i64::MAX {
            self.push(self.now_ms.saturating_add(left_ms), Event::End(id));
        }
        Ok(())
    }
}
