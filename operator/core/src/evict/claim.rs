//! Who leaves for a workload that draws on a reserve. Whether it may draw on one,
//! and whether what else is promised can be delivered then, is not decided here.
//!
//! Whoever can leave within the reserve's grace may be asked, and none who holds
//! something by a right of the same class or a higher one. First those of tenants
//! that hold more than they are guaranteed, then the others, then who holds
//! something by a lower right; of several, those whose leaving loses the least.

use super::lift::Lift;
use super::limits::Short;
use super::reclaim::{Claimant, Spared};
use super::room::{Evictor, Room, Wanted, useful_nodes};
use super::victims::QUESTIONS;
use crate::model::{Class, Eviction, EvictionReason, PodPlacement, Right, Running, Snapshot, Units};
use crate::placement::Cluster;
use crate::queue::tree::Tree;

/// Claims for which victims are looked for in one cycle; the others get the places that are proved for them.
pub(super) const SEARCHES: u32 = 64;

/// What a workload that draws on a reserve may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demands {
    /// Who holds something by a right of this class or a higher one stays.
    pub class: Class,
    /// How long those who leave may take, in milliseconds.
    pub grace_ms: i64,
}

impl Demands {
    /// Whether something may be asked to leave.
    pub fn reach(&self, running: &Running, snapshot: &Snapshot) -> bool {
        let below = || {
            let holder = snapshot.tenants.get(&running.tenant).map_or(Class::Standard, |tenant| tenant.class);
            running.right == Right::Ordinary || holder < self.class
        };
        running.evictable && running.leaves_ms.is_none() && running.grace_ms <= self.grace_ms && below()
    }
}

impl<'a> Evictor<'a> {
    /// Room for a workload that draws on a reserve. Nobody is asked before [`Evictor::ask`].
    pub fn claim(
        &mut self,
        wanted: Wanted,
        demands: Demands,
        cluster: &mut Cluster<'a>,
        tree: &Tree<'a>,
    ) -> Option<Room> {
        self.claims = self.claims.checked_sub(1)?;
        let (snapshot, workload) = (self.snapshot, &self.snapshot.waiting[wanted.workload]);
        let shape = self.shapes.shape_of[wanted.workload];
        let useful = useful_nodes(snapshot, self.shapes, shape, cluster);
        let near =
            |running: &Running| running.pods.iter().any(|pod| useful.get(pod.node.0 as usize) == Some(&true));
        let may_be_asked = |at: &usize| {
            let running = &snapshot.running[*at];
            !self.is_asked(*at) && demands.reach(running, snapshot) && near(running)
        };
        let mut reached: Vec<usize> = (0..snapshot.running.len()).filter(may_be_asked).collect();
        reached.sort_by_key(|at| (self.line(*at, tree), *at));
        let by = Claimant {
            tenant: wanted.tenant,
            priority: workload.priority,
            units: wanted.units,
            demands: Some(demands),
        };
        for at in &self.leaving {
            cluster.release(*at);
        }
        let mut room = None;
        for line in 0..=LAST_LINE {
            let end = reached.partition_point(|at| self.line(*at, tree) <= line);
            let begin = reached.partition_point(|at| self.line(*at, tree) < line);
            if end == 0 || (begin == end && line > 0) {
                continue;
            }
            let mut candidates = reached[..end].to_vec();
            candidates.sort_unstable();
            let mut lift = Lift {
                snapshot,
                cluster,
                tree,
                rights: &self.rights,
                by,
                spared: Spared::All,
                short: &Short::default(),
                workload,
                shape,
                now_ms: self.now_ms,
            };
            let victims = lift.choose(&candidates, &mut { QUESTIONS });
            room = victims.and_then(|victims| {
                let (pods, units) = self.place_without(wanted.workload, &victims, cluster)?;
                Some(self.claimed(wanted.workload, victims, pods, units))
            });
            if room.is_some() {
                break;
            }
        }
        for at in &self.leaving {
            cluster.restore(*at);
        }
        room
    }

    /// A place, where these leave by the right of a reserve.
    pub fn claimed(
        &self,
        by: usize,
        victims: impl IntoIterator<Item = usize>,
        pods: Vec<PodPlacement>,
        units: Units,
    ) -> Room {
        let eviction = |running: usize| {
            let lost = self.snapshot.running[running].lost(self.now_ms);
            Eviction { running, by, reason: EvictionReason::Claimed, lost }
        };
        let evictions = victims.into_iter().map(eviction).collect();
        Room { pods, units, evictions, replacements: Vec::new(), elsewhere: Vec::new() }
    }

    /// In which line it stands among those who may be asked: the lower ones leave first.
    fn line(&self, running: usize, tree: &Tree<'a>) -> u8 {
        let running = &self.snapshot.running[running];
        if running.right != Right::Ordinary {
            return LAST_LINE;
        }
        let of = tree.find(&running.tenant);
        let borrows = of.is_none_or(|of| tree.path(of).any(|at| tree.held(at) > tree.guaranteed(at)));
        u8::from(!borrows)
    }
}

const LAST_LINE: u8 = 2;

#[cfg(test)]
mod adversary;
#[cfg(test)]
mod tests;
