//! The planner of a share that is set aside: its GPUs and the others are two
//! clusters with a queue each, as they are where a share is set aside. In one
//! queue whoever waits for the one would also hold up who waits for the other.

use crate::model::{Plan, Snapshot};
use crate::policy::Scorer;
use crate::queue::plan_with;

use super::world::is_drawing;

/// A plan for those who draw on the reserve, and one for the others, as one.
pub(super) fn plan_apart(snapshot: &Snapshot, scorer: &Scorer, now_ms: i64) -> Plan {
    let mut both = Plan::default();
    for drawing in [true, false] {
        let of_part = |at: &usize| is_drawing(&snapshot.waiting[*at].tenant) == drawing;
        let part: Vec<usize> = (0..snapshot.waiting.len()).filter(of_part).collect();
        let waiting = part.iter().map(|at| snapshot.waiting[*at].clone()).collect();
        let mut plan = plan_with(&Snapshot { waiting, ..snapshot.clone() }, scorer, now_ms);
        plan.admissions.iter_mut().for_each(|admission| admission.workload = part[admission.workload]);
        plan.evictions.iter_mut().for_each(|eviction| eviction.by = part[eviction.by]);
        plan.reservations.iter_mut().for_each(|kept| kept.workload = part[kept.workload]);
        plan.out_of_turn.iter_mut().for_each(|workload| *workload = part[*workload]);
        both.admissions.append(&mut plan.admissions);
        both.evictions.append(&mut plan.evictions);
        both.reservations.append(&mut plan.reservations);
        both.out_of_turn.append(&mut plan.out_of_turn);
    }
    both
}
