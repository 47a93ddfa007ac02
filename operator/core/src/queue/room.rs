//! Room for a workload that has none, in one cycle: what becomes free is kept for it, or
//! others are asked to leave or to move. Whose turn it is, is decided in [`super::cycle`]; who
//! is asked, in [`crate::evict`].

use std::collections::BTreeSet;

use super::cycle::Cycle;
use super::drain::Place;
use super::keep::Kept;
use super::way::Load;
use crate::evict::{Evictor, Room, Wanted};
use crate::model::{Right, Units, Workload};

impl<'a> Cycle<'a> {
    /// Makes room for a workload that has none: keeps a place that becomes free, so that it starts there.
    pub(super) fn make_room(
        &mut self,
        index: usize,
        tenant: usize,
        needs: Units,
        waited: bool,
    ) -> Option<usize> {
        if let Some(kept) = self.keep_what_becomes_free(index, tenant, true) {
            return Some(kept);
        }
        if let Some(kept) = self.ask_for_room(index, tenant, needs, false) {
            return Some(kept);
        }
        let drains = u32::try_from(self.keeper.drains()).unwrap_or(u32::MAX);
        if !waited || self.overtaken || drains >= self.snapshot.settings.reservations {
            return None;
        }
        if !self.would_fit(index) {
            return None;
        }
        let kept = self.keep_what_becomes_free(index, tenant, false);
        // It lacks what is kept for others. Those behind it get nothing kept: it would have to wait for that as well.
        self.overtaken = kept.is_none();
        kept
    }

    pub(super) fn keep_what_becomes_free(
        &mut self,
        index: usize,
        tenant: usize,
        leaving_only: bool,
    ) -> Option<usize> {
        if leaving_only && !self.ends.anybody_leaves() {
            return None;
        }
        let workload: &Workload = &self.snapshot.waiting[index];
        let shape = self.shapes.shape_of[index];
        let place = self.ends.place(workload, shape, leaving_only, &mut self.cluster)?;
        if place.units > self.left_for_others(tenant) {
            return None;
        }
        self.keep(index, tenant, place)
    }

    /// Asks others to leave, or to move, whom the workload may ask, and keeps the place that they free. If it lacks units,
    /// so that it comes below the limits of its tenants, which no move helps.
    pub(super) fn ask_for_room(
        &mut self,
        index: usize,
        tenant: usize,
        needs: Units,
        lacks_units: bool,
    ) -> Option<usize> {
        if !self.ends.may_be_asked {
            return None;
        }
        let (snapshot, now_ms) = (self.snapshot, self.now_ms);
        let left = self.left_for_others(tenant);
        let mut evictor = self.evictor();
        let (tree, cluster) = (&self.tree, &mut self.cluster);
        let wanted = Wanted { workload: index, tenant, units: needs };
        let room = evictor.evict(wanted, cluster, tree);
        // Where the others of something that stays would go, no promise was looked at.
        let stays = |at: usize| self.guard.binds(&snapshot.running[at].as_workload());
        let promised = |room: &Room| !room.replacements.iter().any(|replacement| stays(replacement.running));
        let room = if lacks_units {
            room
        } else {
            let room = room.or_else(|| evictor.rearrange(wanted, cluster, tree));
            room.filter(|room| room.units <= left && promised(room))
        };
        let kept = room.and_then(|room| {
            for (running, leaves_ms) in room.who_leaves(snapshot, now_ms) {
                self.ends.ask(running, Some(leaves_ms));
            }
            let kept = self.keep(index, tenant, Place { pods: room.pods.clone(), units: room.units });
            // What is kept for others may have hidden that nobody is in the way there: then nobody leaves.
            if kept.is_none_or(|kept| self.keeper.get(kept).is_free()) {
                room.who_leaves(snapshot, now_ms).for_each(|(running, _)| self.ends.ask(running, None));
                return kept;
            }
            evictor.ask(&room, &mut self.cluster, &self.tree);
            self.evictions.extend(room.evictions);
            self.replacements.extend(room.replacements);
            kept
        });
        self.evictor = Some(evictor);
        kept
    }

    pub(super) fn evictor(&mut self) -> Evictor<'a> {
        let (snapshot, shapes, now_ms) = (self.snapshot, self.shapes, self.now_ms);
        self.evictor.take().unwrap_or_else(|| Evictor::of(snapshot, shapes, &self.tree, now_ms))
    }

    /// Keeps what becomes free under the limits of its tenants for a workload that needs more than there is, unless
    /// that is done for somebody there already.
    pub(super) fn hold_back(&mut self, index: usize, tenant: usize, needs: Units) {
        let short = |at: &usize| {
            let limit = self.tree.tenant(*at).limit.unwrap_or(Units::MAX);
            self.tree.held(*at).saturating_add(needs) > limit
        };
        let short: Vec<usize> = self.tree.path(tenant).filter(short).collect();
        if short.is_empty() || short.iter().any(|at| self.held_back[*at]) {
            return;
        }
        for at in short {
            self.held_back[at] = true;
        }
        let free_ms = self.ends.below_limits_ms(tenant, needs, &self.tree);
        let shape = self.shapes.shape_of[index];
        let kept = Kept {
            workload: index,
            tenant,
            shape,
            pods: Vec::new(),
            units: needs,
            load: Load::new(),
            way: BTreeSet::new(),
            free_ms,
            leaving: 0,
            ending: 0,
            stands: true,
            right: Right::Ordinary,
        };
        self.keeper.add(kept, &mut self.cluster, &mut self.tree);
    }
}
