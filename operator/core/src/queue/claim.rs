//! What the reserves add to a cycle: what cannot be asked to leave goes only
//! where every promise still holds, and who draws on a reserve gets room that
//! others leave. What is promised, and whether it holds, is decided in
//! [`crate::reserve::guard`]; who leaves, in [`crate::evict`].

use super::cycle::Cycle;
use super::drain::Place;
use super::reason::Obstacle;
use crate::evict::{Demands, Evictor, Room, Wanted};
use crate::model::{Admission, PodPlacement, Right, Units};
use crate::placement::Placed;
use crate::reserve::guard::Draw;

/// How often a cycle is begun anew for one more that was missed, before all that draw on a reserve go first.
const ROUNDS: usize = 4;

impl<'a> Cycle<'a> {
    /// Where a workload was placed, or, if a promise could not be kept then, another place; nothing, and nothing is
    /// held, if there is none.
    pub(super) fn where_promises_hold(
        &mut self,
        index: usize,
        shape: usize,
        placed: Placed,
    ) -> Option<Placed> {
        let workload = &self.snapshot.waiting[index];
        if !self.guard.binds(workload) || self.guard.admit(index, &placed.pods, None) {
            return Some(placed);
        }
        self.cluster.take_back(shape, placed);
        if self.unpromised.get(&shape).is_some_and(|pods| workload.pods >= *pods) {
            return None;
        }
        let promised: Vec<(usize, Vec<PodPlacement>)> =
            self.guard.places_now().map(|(shape, pods)| (shape, pods.to_vec())).collect();
        let closed: Vec<_> =
            promised.into_iter().filter(|(shape, pods)| self.cluster.close(*shape, pods)).collect();
        let elsewhere = self.cluster.place_workload(shape, workload);
        for (shape, pods) in &closed {
            self.cluster.open(*shape, pods);
        }
        let mut holds = |placed: &Placed| self.guard.admit(index, &placed.pods, None);
        match elsewhere {
            Some(placed) if holds(&placed) => Some(placed),
            found => {
                if let Some(placed) = found {
                    self.cluster.take_back(shape, placed);
                }
                if workload.topology.is_none() {
                    self.unpromised.insert(shape, workload.pods);
                }
                None
            }
        }
    }

    /// As what a workload runs if it starts where a place is kept for it.
    pub(super) fn right_of(&self, index: usize) -> Right {
        self.draws.get(&index).map_or(Right::Ordinary, |draw| draw.right.clone())
    }

    /// Makes room for a workload that draws on a reserve; the obstacle stands for those that don't.
    pub(super) fn admit_by_right(
        &mut self,
        index: usize,
        tenant: usize,
        needs: Units,
        obstacle: Obstacle,
    ) -> Result<Admission, Obstacle> {
        let Some(draw) = self.guard.draw(index) else { return Err(obstacle) };
        match self.claim(index, tenant, needs, &draw) {
            Some(kept) if self.keeper.get(kept).is_free() => self.admit_reserved(index, tenant, needs, kept),
            Some(kept) => Err(Obstacle::Reserved(kept)),
            None => {
                if !self.first.contains(&index) {
                    self.missed = Some(index);
                }
                Err(obstacle)
            }
        }
    }

    /// Those of `first`, and one that was missed; after some rounds all that draw on a reserve.
    pub(super) fn with_those_who_missed(&self, mut first: Vec<usize>, missed: usize) -> Vec<usize> {
        first.push(missed);
        if first.len() > ROUNDS {
            let draws = |index: &usize| !first.contains(index) && self.guard.may_draw(*index);
            let others: Vec<usize> = (0..self.snapshot.waiting.len()).filter(draws).collect();
            first.extend(others);
        }
        first
    }

    /// Keeps places for workloads that draw on a reserve before anybody else gets any.
    pub(super) fn claim_first(&mut self, first: &[usize]) {
        self.first = first.to_vec();
        for &index in first {
            let workload = &self.snapshot.waiting[index];
            let demand = &self.shapes.demands[self.shapes.demand_of[self.shapes.shape_of[index]]];
            let Some(needs) = demand.least.map(|least| least.saturating_mul(workload.pods.into())) else {
                continue;
            };
            let Some(tenant) = self.tree.of_waiting(index).filter(|_| self.keeper.of(index).is_none()) else {
                continue;
            };
            let allowed = self.tree.least_limit(tenant).is_none_or(|(limit, _)| needs <= limit);
            if allowed
                && workload.not_before_ms <= self.now_ms
                && let Some(draw) = self.guard.draw(index)
            {
                self.claim(index, tenant, needs, &draw);
            }
        }
    }

    /// Asks others to leave by the right of a reserve, if the workload draws on one, and keeps the place that they free:
    /// where the least is lost, else where the promise is proved.
    fn claim(&mut self, index: usize, tenant: usize, needs: Units, draw: &Draw) -> Option<usize> {
        let (snapshot, shapes, now_ms) = (self.snapshot, self.shapes, self.now_ms);
        let mut evictor =
            self.evictor.take().unwrap_or_else(|| Evictor::of(snapshot, shapes, &self.tree, now_ms));
        let wanted = Wanted { workload: index, tenant, units: needs };
        let demands = Demands { class: draw.class, grace_ms: draw.grace_ms };
        let free =
            self.cluster.place_workload(shapes.shape_of[index], &snapshot.waiting[index]).map(|placed| {
                let room = evictor.claimed(index, [], placed.pods.clone(), placed.units);
                self.cluster.take_back(shapes.shape_of[index], placed);
                room
            });
        let mut kept = free.and_then(|room| self.keep_claimed(index, tenant, draw, &room, &mut evictor));
        if kept.is_none() && !self.first.contains(&index) && self.others_came_first() {
            self.evictor = Some(evictor);
            return None;
        }
        if kept.is_none() {
            let cheapest = evictor.claim(wanted, demands, &mut self.cluster, &self.tree);
            kept = cheapest.and_then(|room| self.keep_claimed(index, tenant, draw, &room, &mut evictor));
        }
        if kept.is_none()
            && let Some((pods, units)) = self.guard.place(index, draw)
        {
            let leave = self.who_must_leave(index, demands, &pods);
            let proved = leave.map(|leave| evictor.claimed(index, leave, pods, units));
            kept = proved.and_then(|room| self.keep_claimed(index, tenant, draw, &room, &mut evictor));
        }
        self.evictor = Some(evictor);
        kept
    }

    /// Keeps the place of a claim, and asks those who are in the way there and were not: somebody may not have been in a
    /// state to be asked, or be there since. Nothing if one of them can't be asked and does not leave in time.
    pub(super) fn claim_again(&mut self, index: usize, tenant: usize, place: &Place) -> Option<usize> {
        let draw = self.draws.get(&index)?.clone();
        let demands = Demands { class: draw.class, grace_ms: draw.grace_ms };
        let leave = self.who_must_leave(index, demands, &place.pods).filter(|leave| !leave.is_empty())?;
        let mut evictor = self.evictor();
        let room = evictor.claimed(index, leave, place.pods.clone(), place.units);
        let kept = self.keep_claimed(index, tenant, &draw, &room, &mut evictor);
        self.evictor = Some(evictor);
        if kept.is_none() {
            // It goes on being one that draws, as it was.
            self.draws.insert(index, draw);
        }
        kept
    }

    /// Whether places are kept for others in this cycle, or given to them, that have no right to them: to who draws on a
    /// reserve they would be open, and nobody may have to leave.
    fn others_came_first(&self) -> bool {
        self.admissions.iter().any(|admission| admission.right == Right::Ordinary)
            || self.keeper.standing().any(|kept| kept.right == Right::Ordinary)
    }

    /// Who is in the way of a place and has to be asked; nothing if somebody there can't be.
    fn who_must_leave(
        &mut self,
        index: usize,
        demands: Demands,
        pods: &[PodPlacement],
    ) -> Option<Vec<usize>> {
        let load = self.ends.ground.load(self.snapshot.waiting[index].shape, pods);
        let way =
            self.ends.in_the_way(index, pods, &load, &self.keeper, &self.admissions, &mut self.cluster)?.way;
        let by_ms = self.now_ms.saturating_add(demands.grace_ms);
        let in_time = |at: &usize| {
            let running = &self.snapshot.running[*at];
            let gone = |when_ms: Option<i64>| when_ms.is_some_and(|when_ms| when_ms <= by_ms);
            gone(running.ends_ms) || gone(running.leaves_ms)
        };
        let (ask, rest): (Vec<usize>, Vec<usize>) =
            way.into_iter().partition(|at| demands.reach(&self.snapshot.running[*at], self.snapshot));
        rest.iter().all(in_time).then_some(ask)
    }

    fn keep_claimed(
        &mut self,
        index: usize,
        tenant: usize,
        draw: &Draw,
        room: &Room,
        evictor: &mut Evictor<'a>,
    ) -> Option<usize> {
        if room.units > self.left_for_others(tenant) {
            return None;
        }
        for (running, leaves_ms) in room.who_leaves(self.snapshot, self.now_ms) {
            self.ends.ask(running, Some(leaves_ms));
        }
        let by_right = |at: &usize| self.snapshot.running[*at].right != Right::Ordinary;
        let displaced: Vec<usize> =
            room.evictions.iter().map(|eviction| eviction.running).filter(by_right).collect();
        for running in &displaced {
            self.guard.let_go(*running, true);
        }
        self.draws.insert(index, draw.clone());
        let kept = self.keep(index, tenant, Place { pods: room.pods.clone(), units: room.units });
        if kept.is_none() {
            room.who_leaves(self.snapshot, self.now_ms).for_each(|(running, _)| self.ends.ask(running, None));
            for running in &displaced {
                self.guard.let_go(*running, false);
            }
            self.draws.remove(&index);
            return None;
        }
        evictor.ask(room, &mut self.cluster, &self.tree);
        self.evictions.extend(room.evictions.iter().cloned());
        kept
    }
}
