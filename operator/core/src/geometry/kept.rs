//! What was worked out about states, kept from one cycle to the next: the cards and the policy of a cluster rarely
//! change. Answers do not depend on it, only how long they take.

use std::cell::RefCell;

use super::Fleet;
use crate::policy::Scorer;

/// A cycle needs one, and one more to see what would fit into the empty cluster.
const KEPT: usize = 3;

/// With more states it is not worth its memory: others than vingt hold something else on each GPU.
const STATES: usize = 1 << 16;

thread_local! {
    static FLEETS: RefCell<Vec<Fleet>> = const { RefCell::new(Vec::new()) };
}

impl Fleet {
    /// One that weighs devices by `scorer`: of an earlier cycle, if there is one.
    pub fn kept(scorer: &Scorer) -> Self {
        let weighs_so = |fleet: &Self| fleet.scorer.as_ref().is_some_and(|of| of.is(scorer));
        let kept = FLEETS.with_borrow_mut(|fleets| {
            let at = fleets.iter().position(weighs_so)?;
            Some(fleets.remove(at))
        });
        let mut fleet = kept.unwrap_or_else(|| Self::new(scorer.clone()));
        // Cards are numbered anew in each cycle.
        fleet.numbers.clear();
        fleet
    }

    /// Keeps it for a later cycle of this thread.
    pub fn keep(self) {
        if self.scorer.is_none() || self.states.len() > STATES {
            return;
        }
        // A thread that ends keeps nothing.
        let _ = FLEETS.try_with(|fleets| {
            let mut fleets = fleets.borrow_mut();
            if fleets.len() == KEPT {
                fleets.remove(0);
            }
            fleets.push(self);
        });
    }
}
