//! Whether one plan is right, by itself: what it says is done step by step on a
//! ledger of its own. What only shows over time is judged in [`super::history`].

use std::collections::BTreeSet;

use vingt_core::model::{
    EvictionReason, Movable, Plan, PodPlacement, Reservation, Right, Running, Settings, Snapshot, UnitMs,
    Workload,
};

use super::ledger::Ledger;
use super::tree::{Share, Tree};

/// What must hold, by the numbers that the design gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// 1: nothing overlaps, everything is a free device, no limit is exceeded.
    Places,
    /// 2: a gang gets all or nothing.
    Gangs,
    /// 6: what fits starts in the end.
    Starts,
    /// 7: evictions are by right, and don't go round in circles.
    Evictions,
    /// 8: the same is decided again, in whatever order things are listed.
    Same,
    /// Reservations can be honoured, and are.
    Reservations,
}

/// A rule that was broken.
#[derive(Clone, Debug)]
pub struct Broken {
    pub rule: Rule,
    pub what: String,
}

pub type Verdict = Result<(), Broken>;

pub fn broken<T>(rule: Rule, what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken { rule, what: what.into() })
}

/// Every waiting workload is either placed or waits, once.
pub fn everything_is_answered(snapshot: &Snapshot, plan: &Plan) -> Verdict {
    let mut seen: Vec<usize> = plan.admissions.iter().map(|admission| admission.workload).collect();
    seen.extend(plan.waits.iter().map(|wait| wait.workload));
    seen.sort_unstable();
    if seen == (0..snapshot.waiting.len()).collect::<Vec<_>>() {
        return Ok(());
    }
    broken(Rule::Gangs, format!("decided of {} waiting: {seen:?}", snapshot.waiting.len()))
}

/// Rules 1 and 2 of what starts.
pub fn admissions_hold(snapshot: &Snapshot, plan: &Plan, now_ms: i64) -> Verdict {
    let mut ledger = Ledger::of(snapshot);
    let mut tree = Tree::of(snapshot);
    for admission in &plan.admissions {
        let workload = &snapshot.waiting[admission.workload];
        let key = &workload.key;
        if workload.not_before_ms > now_ms {
            return broken(Rule::Places, format!("{key} starts before its time"));
        }
        gang_is_whole(snapshot, workload, &admission.pods)?;
        for pod in &admission.pods {
            let taken = ledger.take(snapshot.shape_of(workload), pod);
            taken.or_else(|why| broken(Rule::Places, format!("{key} starts, but {why}")))?;
        }
        let units = units_of(snapshot, &admission.pods);
        if units != admission.units {
            return broken(Rule::Places, format!("{key} is charged {} for {units} units", admission.units));
        }
        tree.add(&workload.tenant, units);
        if let Some(tenant) = tree.beyond_limit(&workload.tenant) {
            let held = tree.held(tenant);
            return broken(Rule::Places, format!("with {key}, {tenant} holds {held}, beyond its limit"));
        }
    }
    Ok(())
}

fn gang_is_whole(snapshot: &Snapshot, workload: &Workload, pods: &[PodPlacement]) -> Verdict {
    let key = &workload.key;
    if pods.len() != workload.pods as usize {
        return broken(Rule::Gangs, format!("{key} gets {} of {} pods", pods.len(), workload.pods));
    }
    let required = workload.topology.iter().filter(|topology| topology.required);
    for label in required.map(|topology| &topology.label) {
        let racks: BTreeSet<_> =
            pods.iter().map(|pod| snapshot.nodes[pod.node.0 as usize].labels.get(label)).collect();
        if racks.len() > 1 {
            return broken(Rule::Gangs, format!("{key} is spread over {racks:?}"));
        }
    }
    Ok(())
}

pub fn units_of(snapshot: &Snapshot, pods: &[PodPlacement]) -> u64 {
    let devices = pods.iter().flat_map(|pod| pod.devices.iter().flatten());
    devices.map(|at| snapshot.gpus[at.gpu.0 as usize].devices[usize::from(at.device)].units).sum()
}

/// Places that are kept can be had when they are said to be, and are kept.
pub fn reservations_hold(snapshot: &Snapshot, plan: &Plan, now_ms: i64) -> Verdict {
    let waits: BTreeSet<usize> = plan.waits.iter().map(|wait| wait.workload).collect();
    let mut seen = BTreeSet::new();
    for reservation in &plan.reservations {
        let Some(workload) = snapshot.waiting.get(reservation.workload) else {
            return broken(Rule::Reservations, "a place is kept for nobody");
        };
        let key = &workload.key;
        if !waits.contains(&reservation.workload) || !seen.insert(reservation.workload) {
            return broken(Rule::Reservations, format!("{key} starts or has two places kept"));
        }
        gang_is_whole(snapshot, workload, &reservation.pods)
            .or_else(|Broken { what, .. }| broken(Rule::Reservations, format!("kept: {what}")))?;
        // Without a time: once everything of ours has ended.
        let by_ms = reservation.free_ms.unwrap_or(i64::MAX);
        let mut then = later(snapshot, plan, by_ms, now_ms, &[]);
        put(&mut then, snapshot, reservation).or_else(|why| {
            let free_ms = reservation.free_ms;
            broken(Rule::Reservations, format!("the place kept for {key} until {free_ms:?}: {why}"))
        })?;
    }
    let mut all = later(snapshot, plan, i64::MAX, now_ms, &[]);
    for reservation in &plan.reservations {
        put(&mut all, snapshot, reservation).or_else(|why| {
            let key = &snapshot.waiting[reservation.workload].key;
            broken(Rule::Reservations, format!("two places are kept on one: {key}: {why}"))
        })?;
    }
    let drains = plan.reservations.iter().filter(|reservation| {
        let mut left = leavers_gone(snapshot, plan);
        put(&mut left, snapshot, reservation).is_err()
    });
    let (drains, most) = (drains.count(), snapshot.settings.reservations as usize);
    if drains > most {
        return broken(Rule::Reservations, format!("{drains} places are drained, of at most {most}"));
    }
    Ok(())
}

/// What is held once everybody has left who is asked to.
fn leavers_gone<'a>(snapshot: &'a Snapshot, plan: &Plan) -> Ledger<'a> {
    let mut ledger = Ledger::of(snapshot);
    for (index, job) in snapshot.running.iter().enumerate() {
        let asked = plan.evictions.iter().any(|eviction| eviction.running == index);
        let replaced = |pod| plan.replacements.iter().any(|r| (r.running, r.pod) == (index, pod));
        for (at, pod) in job.pods.iter().enumerate() {
            if job.leaves_ms.is_some() || asked || replaced(at) {
                ledger.give_back(&snapshot.shapes[job.shape], pod);
            }
        }
    }
    ledger
}

fn put(ledger: &mut Ledger, snapshot: &Snapshot, reservation: &Reservation) -> Result<(), String> {
    let shape = snapshot.shape_of(&snapshot.waiting[reservation.workload]);
    reservation.pods.iter().try_for_each(|pod| ledger.take(shape, pod))
}

/// What is still held at a time after now, if the plan is carried out and `staying` don't leave.
/// At [`i64::MAX`] everything has ended, also what does not say when; before, only what says so.
fn later<'a>(snapshot: &'a Snapshot, plan: &Plan, at_ms: i64, now_ms: i64, staying: &[usize]) -> Ledger<'a> {
    let mut ledger = Ledger::of(snapshot);
    let moved: BTreeSet<(usize, usize)> = plan.replacements.iter().map(|r| (r.running, r.pod)).collect();
    for (index, job) in snapshot.running.iter().enumerate() {
        let evicted = plan.evictions.iter().any(|eviction| eviction.running == index);
        let leaves_ms = if evicted { Some(now_ms + job.grace_ms) } else { job.leaves_ms };
        let ends_ms = leaves_ms.into_iter().chain(job.ends_ms).min();
        let gone = ends_ms.map_or(at_ms == i64::MAX, |ends_ms| ends_ms <= at_ms);
        for (at, pod) in job.pods.iter().enumerate() {
            let stays = staying.contains(&index);
            // When a replaced pod leaves is not known.
            if !stays && (gone || moved.contains(&(index, at))) {
                ledger.give_back(&snapshot.shapes[job.shape], pod);
            }
        }
    }
    for replacement in &plan.replacements {
        if at_ms != i64::MAX {
            ledger.add(&snapshot.shapes[snapshot.running[replacement.running].shape], &replacement.to);
        }
    }
    for admission in &plan.admissions {
        let workload = &snapshot.waiting[admission.workload];
        let ends_ms = workload.runs_ms.map(|runs_ms| now_ms + runs_ms);
        if ends_ms.map_or(at_ms == i64::MAX, |ends_ms| ends_ms <= at_ms) {
            continue;
        }
        admission.pods.iter().for_each(|pod| ledger.add(snapshot.shape_of(workload), pod));
    }
    ledger
}

/// Only what may be asked to leave is, for somebody who then gets the room, and no more than needed.
pub fn evictions_hold(snapshot: &Snapshot, plan: &Plan, now_ms: i64) -> Verdict {
    let mut asked = BTreeSet::new();
    for eviction in &plan.evictions {
        let Some(victim) = snapshot.running.get(eviction.running) else {
            return broken(Rule::Evictions, "nobody is evicted");
        };
        if !asked.insert(eviction.running) || victim.leaves_ms.is_some() {
            return broken(Rule::Evictions, format!("{} is asked to leave twice", victim.key));
        }
        let by = &snapshot.waiting[eviction.by];
        let may = may_be_evicted(snapshot, victim, by, eviction.reason);
        let words = format!("{} is {:?} for {}", victim.key, eviction.reason, by.key);
        may.or_else(|why| broken(Rule::Evictions, format!("{words}: {why}")))?;
        let lost = lost(victim, now_ms);
        if lost != eviction.lost {
            return broken(Rule::Evictions, format!("{words}: loses {lost}, not {}", eviction.lost));
        }
    }
    for replacement in &plan.replacements {
        let Some(job) = snapshot.running.get(replacement.running) else {
            return broken(Rule::Evictions, "nobody is replaced");
        };
        let may = job.movable == Movable::Replace && job.leaves_ms.is_none();
        if !may || asked.contains(&replacement.running) || replacement.pod >= job.pods.len() {
            return broken(Rule::Evictions, format!("{} may not be replaced", job.key));
        }
    }
    moves_are_few(snapshot, plan)?;
    reclaims_are_fair(snapshot, plan)?;
    let by: BTreeSet<usize> = plan
        .evictions
        .iter()
        .map(|eviction| eviction.by)
        .chain(plan.replacements.iter().map(|r| r.by))
        .collect();
    for by in by {
        room_is_for(snapshot, plan, by, now_ms)?;
    }
    Ok(())
}

fn may_be_evicted(
    snapshot: &Snapshot,
    victim: &Running,
    by: &Workload,
    reason: EvictionReason,
) -> Result<(), &'static str> {
    let settings = &snapshot.settings;
    let checks: &[(bool, &str)] = match reason {
        EvictionReason::Preempted => &[
            (settings.preemption, "preemption is off"),
            (victim.evictable, "it may not be evicted"),
            (victim.tenant == by.tenant, "it is another tenant's"),
            (victim.priority < by.priority, "its priority is not lower"),
            (
                outweighs(settings, by.priority - victim.priority, victim.waited_ms),
                "it has waited for too long",
            ),
        ],
        EvictionReason::Reclaimed => &[
            (settings.reclaim, "reclaim is off"),
            (victim.evictable, "it may not be evicted"),
            (victim.tenant != by.tenant, "it is the same tenant's"),
        ],
        EvictionReason::Claimed => &[(victim.right == Right::Ordinary, "it holds by a right itself")],
        EvictionReason::Moved => &[
            (settings.defragmentation, "moves are off"),
            (victim.movable == Movable::Restart, "it can't be restarted elsewhere"),
        ],
    };
    checks.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, why)| Err(why))
}

/// Whether so many steps of priority are more than what somebody had waited before it started.
fn outweighs(settings: &Settings, steps: i32, waited_ms: i64) -> bool {
    i64::from(steps) * settings.aging_ms.max(1) > waited_ms
}

/// Units, times the time since they were last saved, or that they don't serve.
fn lost(victim: &Running, now_ms: i64) -> UnitMs {
    if victim.serves {
        return victim.units * u64::try_from(victim.grace_ms + 120_000).unwrap();
    }
    let since_ms = victim.saved_ms.unwrap_or(victim.admitted_ms).max(victim.admitted_ms);
    victim.units * u64::try_from(now_ms - since_ms).unwrap_or(0)
}

fn moves_are_few(snapshot: &Snapshot, plan: &Plan) -> Verdict {
    let restarts = plan.evictions.iter().filter(|eviction| eviction.reason == EvictionReason::Moved);
    let count = restarts.count() + plan.replacements.len();
    if count > snapshot.moves_left as usize {
        return broken(Rule::Evictions, format!("{count} moves, of {} left", snapshot.moves_left));
    }
    for eviction in plan.evictions.iter().filter(|eviction| eviction.reason == EvictionReason::Moved) {
        let mut ledger = leavers_gone(snapshot, plan);
        let kept = plan.reservations.iter().find(|kept| kept.workload == eviction.by);
        let shape = snapshot.shape_of(&snapshot.waiting[eviction.by]);
        kept.iter().flat_map(|kept| &kept.pods).for_each(|pod| ledger.add(shape, pod));
        let moved = &snapshot.running[eviction.running];
        let pods = u32::try_from(moved.pods.len()).unwrap();
        let one_rack = moved.topology.as_ref().is_some_and(|topology| topology.required);
        if ledger.fit(&snapshot.shapes[moved.shape], pods, one_rack) < pods {
            return broken(Rule::Evictions, format!("{} is moved, but fits nowhere", moved.key));
        }
    }
    for replacement in &plan.replacements {
        let job = &snapshot.running[replacement.running];
        // Until the other is ready both are held.
        let mut ledger = Ledger::of(snapshot);
        for admission in &plan.admissions {
            let shape = snapshot.shape_of(&snapshot.waiting[admission.workload]);
            admission.pods.iter().for_each(|pod| ledger.add(shape, pod));
        }
        let taken = ledger.take(&snapshot.shapes[job.shape], &replacement.to);
        taken.or_else(|why| broken(Rule::Places, format!("{} is replaced, but {why}", job.key)))?;
    }
    Ok(())
}

/// Who reclaims stays within what is guaranteed to it and those above it, up to where the victim's tenant is
/// below as well; the victim's side still holds what is guaranteed to it afterwards.
fn reclaims_are_fair(snapshot: &Snapshot, plan: &Plan) -> Verdict {
    let reclaims: Vec<_> = plan.evictions.iter().filter(|e| e.reason == EvictionReason::Reclaimed).collect();
    let mut tree = Tree::of(snapshot);
    for running in snapshot.running.iter().filter(|running| running.leaves_ms.is_some()) {
        tree.take(&running.tenant, running.units);
    }
    for victim in reclaims.iter().map(|reclaim| &snapshot.running[reclaim.running]) {
        tree.take(&victim.tenant, victim.units);
    }
    for reclaim in &reclaims {
        let (victim, by) = (&snapshot.running[reclaim.running], &snapshot.waiting[reclaim.by]);
        let kept = plan.reservations.iter().find(|kept| kept.workload == reclaim.by);
        let units = kept.map_or(0, |kept| units_of(snapshot, &kept.pods));
        let (ours, theirs) = (tree.path(&by.tenant), tree.path(&victim.tenant));
        let mut mine: Vec<Share> = below_common(&ours, &theirs).iter().map(|name| tree.all(name)).collect();
        if mine.is_empty() {
            mine.push(tree.own(&by.tenant));
        }
        // Its side, with the largest that is taken back from each level: that one may have been within the guarantee in part.
        let of = |name: &str, own: bool| {
            let is_there = |at: &str| if own { at == name } else { tree.path(at).contains(&name) };
            let victims = reclaims.iter().map(|reclaim| &snapshot.running[reclaim.running]);
            let largest = victims.filter(|victim| is_there(&victim.tenant)).map(|victim| victim.units).max();
            let share = if own { tree.own(name) } else { tree.all(name) };
            (share, largest.unwrap_or(0))
        };
        let mut its: Vec<_> = below_common(&theirs, &ours).iter().map(|name| of(name, false)).collect();
        let words = format!("{} is reclaimed for {}", victim.key, by.key);
        if let Some(share) = mine.iter().find(|share| share.held + units > share.guaranteed) {
            return broken(Rule::Evictions, format!("{words}, with {units}: {share:?}"));
        }
        if its.is_empty() {
            return broken(Rule::Evictions, format!("{words}: its tenant is above"));
        }
        its.push(of(&victim.tenant, true));
        if let Some((share, largest)) = its.iter().find(|(share, last)| share.held + last <= share.guaranteed)
        {
            return broken(Rule::Evictions, format!("{words}, with {largest}, and then: {share:?}"));
        }
    }
    Ok(())
}

/// The part of a path below the lowest tenant that it shares with another.
fn below_common<'a>(path: &[&'a str], other: &[&'a str]) -> Vec<&'a str> {
    path.iter().take_while(|name| !other.contains(name)).copied().collect()
}

/// Who others are asked to leave for has a place kept that they free, and needs each of them to leave.
fn room_is_for(snapshot: &Snapshot, plan: &Plan, by: usize, now_ms: i64) -> Verdict {
    let key = &snapshot.waiting[by].key;
    let Some(reservation) = plan.reservations.iter().find(|reservation| reservation.workload == by) else {
        return broken(Rule::Evictions, format!("others leave for {key}, for which no place is kept"));
    };
    let by_ms = reservation.free_ms.unwrap_or(i64::MAX);
    for eviction in plan.evictions.iter().filter(|eviction| eviction.by == by) {
        let mut then = later(snapshot, plan, by_ms, now_ms, &[eviction.running]);
        if put(&mut then, snapshot, reservation).is_ok()
            && !lacks_units(snapshot, plan, reservation, eviction.running)
        {
            let victim = &snapshot.running[eviction.running].key;
            return broken(Rule::Evictions, format!("{victim} leaves for {key}, which does not need it"));
        }
    }
    Ok(())
}

/// Whether somebody for whom a place is kept would be beyond a limit if this one stayed, and all others left who are asked
/// to.
fn lacks_units(snapshot: &Snapshot, plan: &Plan, reservation: &Reservation, stays: usize) -> bool {
    let mut tree = Tree::of(snapshot);
    for (index, running) in snapshot.running.iter().enumerate().filter(|(index, _)| *index != stays) {
        if running.leaves_ms.is_some() || plan.evictions.iter().any(|eviction| eviction.running == index) {
            tree.take(&running.tenant, running.units);
        }
    }
    for admission in &plan.admissions {
        tree.add(&snapshot.waiting[admission.workload].tenant, admission.units);
    }
    let tenant = &snapshot.waiting[reservation.workload].tenant;
    tree.add(tenant, units_of(snapshot, &reservation.pods));
    tree.beyond_limit(tenant).is_some()
}
