//! By what right something that runs may be asked to leave for something that
//! waits. Whether that makes room is not known here.
//!
//! - *Reclaim*: below where the branches of the two tenants meet, the waiting one's stays
//!   within its guarantee, and the other's is beyond its own, at each level. It is not
//!   brought below it, unless there is no other way than by one, say a gang, that is
//!   within it in part only ([`Spared`]). So nobody takes it back by the same right: the
//!   one that left would be beyond its guarantee again.
//! - *Preemption*: it is of the same tenant, and of a strictly lower priority, as set:
//!   that the waiting one waited long does not count. What the other had waited until it
//!   started does: it has gone before those whose priority that outweighs, and they don't
//!   undo it. So it is not stopped for ever by ever new ones of a higher priority.
//!
//! A tenant may take nothing from those above it. What its own workloads hold beside
//! tenants below it is a branch of its own, to which is guaranteed what is left by those.

use std::collections::BTreeMap;

use super::claim::Demands;
use crate::model::{EvictionReason, Right, Running, Settings, Snapshot, Units};
use crate::queue::tree::Tree;

/// Tenants that two branches belong to, and what leaves of each.
#[derive(Debug)]
pub(super) struct Rights<'a> {
    snapshot: &'a Snapshot,
    /// For each tenant, those right below it.
    below: Vec<Vec<usize>>,
    /// For each tenant, what of its own is about to leave.
    own_leaving: Vec<Units>,
    /// The same, with all below it.
    leaving: Vec<Units>,
}

/// Someone who waits, and wants room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claimant {
    /// Its tenant.
    pub tenant: usize,
    /// Its priority, as set.
    pub priority: i32,
    /// What it will hold.
    pub units: Units,
    /// What it may ask for by the right of a reserve; then that is all that counts.
    pub demands: Option<Demands>,
}

/// How much those who are asked to leave spare of what is guaranteed to their side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spared {
    /// All of it.
    All,
    /// All of it until the last of them leaves, who is not within it as a whole.
    UntilTheLast,
}

/// A part of the tree: a tenant with all below it, or what its own workloads hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Branch {
    All(usize),
    Own(usize),
}

impl<'a> Rights<'a> {
    pub fn of(snapshot: &'a Snapshot, tree: &Tree<'_>) -> Self {
        let mut below = vec![Vec::new(); tree.len()];
        for tenant in 0..tree.len() {
            if let Some(parent) = tree.parent(tenant) {
                below[parent].push(tenant);
            }
        }
        let nothing = vec![0; tree.len()];
        let mut rights = Self { snapshot, below, own_leaving: nothing.clone(), leaving: nothing };
        for running in snapshot.running.iter().filter(|running| running.leaves_ms.is_some()) {
            rights.leaves(running, tree);
        }
        rights
    }

    /// Counts something as about to leave.
    pub fn leaves(&mut self, running: &Running, tree: &Tree<'_>) {
        let Some(tenant) = tree.find(&running.tenant) else { return };
        self.own_leaving[tenant] = self.own_leaving[tenant].saturating_add(running.units);
        for at in tree.path(tenant) {
            self.leaving[at] = self.leaving[at].saturating_add(running.units);
        }
    }

    /// What of a tenant and all below it is about to leave.
    pub fn leaving(&self, tenant: usize) -> Units {
        self.leaving[tenant]
    }

    /// By what right `by` may ask `running` to leave, as far as only these two are looked at.
    pub fn right(&self, by: Claimant, running: &Running, tree: &Tree<'_>) -> Option<EvictionReason> {
        let Settings { reclaim, preemption, .. } = self.snapshot.settings;
        if let Some(demands) = by.demands {
            return demands.reach(running, self.snapshot).then_some(EvictionReason::Claimed);
        }
        if !running.evictable || running.leaves_ms.is_some() || running.right != Right::Ordinary {
            return None;
        }
        let of = tree.find(&running.tenant)?;
        if of == by.tenant {
            return (preemption && self.outranks(by, running)).then_some(EvictionReason::Preempted);
        }
        let may =
            reclaim && self.stays_within(by, of, tree) && !tree.path(by.tenant).any(|above| above == of) && {
                let beyond = |branch| self.held(branch, tree) > guaranteed(branch, tree);
                self.spared(of, by.tenant, tree).into_iter().all(beyond)
            };
        may.then_some(EvictionReason::Reclaimed)
    }

    /// Whether a workload has a higher priority than another of its tenant, also with what that one had waited.
    fn outranks(&self, by: Claimant, running: &Running) -> bool {
        let steps = i128::from(by.priority) - i128::from(running.priority);
        let aging_ms = self.snapshot.settings.aging_ms.max(1);
        steps > 0 && steps * i128::from(aging_ms) > i128::from(running.waited_ms)
    }

    /// Whether `by` may reclaim anything from anybody.
    pub fn may_reclaim(&self, by: Claimant, tree: &Tree<'_>) -> bool {
        let branches = [Branch::All(by.tenant), Branch::Own(by.tenant)];
        self.snapshot.settings.reclaim && branches.into_iter().any(|branch| self.within(by, branch, tree))
    }

    /// Whether `running`, if it made room for `by` and then found none itself, might ask it to leave again.
    pub fn could_take_back(&self, by: Claimant, running: &Running, tree: &Tree<'_>) -> bool {
        let Settings { reclaim, preemption, .. } = self.snapshot.settings;
        let Some(of) = tree.find(&running.tenant) else { return false };
        if of == by.tenant {
            return preemption && running.priority > by.priority;
        }
        let within = |branch| self.held(branch, tree) <= guaranteed(branch, tree);
        let beyond = |branch| self.held(branch, tree).saturating_add(by.units) > guaranteed(branch, tree);
        reclaim
            && branches(of, by.tenant, tree).into_iter().all(within)
            && self.spared(by.tenant, of, tree).into_iter().all(beyond)
    }

    /// Whether all of these, each of which `by` may ask to leave, may be asked together.
    pub fn all_may_leave<'r>(
        &self,
        by: Claimant,
        victims: impl IntoIterator<Item = &'r Running>,
        spared: Spared,
        tree: &Tree<'_>,
    ) -> bool {
        if by.demands.is_some() {
            return true;
        }
        // By branch: what leaves it, and the largest that does. If any order will do, the one with the largest last does.
        let mut leaves: BTreeMap<Branch, (Units, Units)> = BTreeMap::new();
        for running in victims {
            let Some(of) = tree.find(&running.tenant).filter(|of| *of != by.tenant) else { continue };
            for branch in self.spared(of, by.tenant, tree) {
                let (all, largest) = leaves.entry(branch).or_default();
                *all = all.saturating_add(running.units);
                *largest = running.units.max(*largest);
            }
        }
        leaves.into_iter().all(|(branch, (all, largest))| {
            let (held, guaranteed) = (self.held(branch, tree), guaranteed(branch, tree));
            match spared {
                Spared::All => held.checked_sub(all).is_some_and(|left| left >= guaranteed),
                Spared::UntilTheLast => held.saturating_sub(all - largest) > guaranteed,
            }
        })
    }

    /// Whether the claimant's branches below where it meets `other` hold no more than is guaranteed to them once
    /// it has started.
    fn stays_within(&self, by: Claimant, other: usize, tree: &Tree<'_>) -> bool {
        branches(by.tenant, other, tree).into_iter().all(|branch| self.within(by, branch, tree))
    }

    /// Whether a branch of the claimant holds no more than is guaranteed to it once it has started, with all that
    /// is kept for others there.
    fn within(&self, by: Claimant, branch: Branch, tree: &Tree<'_>) -> bool {
        let promised = match branch {
            Branch::All(tenant) => tree.kept(tenant),
            Branch::Own(tenant) => self.own(tenant, |tenant| tree.kept(tenant)),
        };
        let after = self.held(branch, tree).saturating_add(promised).saturating_add(by.units);
        after <= guaranteed(branch, tree)
    }

    /// What is held there, without what is about to leave.
    fn held(&self, branch: Branch, tree: &Tree<'_>) -> Units {
        match branch {
            Branch::All(tenant) => tree.held(tenant).saturating_sub(self.leaving[tenant]),
            Branch::Own(tenant) => {
                let own = self.own(tenant, |tenant| tree.held(tenant));
                own.saturating_sub(self.own_leaving[tenant])
            }
        }
    }

    fn own(&self, tenant: usize, with_all_below: impl Fn(usize) -> Units) -> Units {
        let below = self.below[tenant].iter().map(|below| with_all_below(*below));
        below.fold(with_all_below(tenant), Units::saturating_sub)
    }

    /// The branches of `tenant` that must not be brought below what is guaranteed to them for `other`.
    fn spared(&self, tenant: usize, other: usize, tree: &Tree<'_>) -> Vec<Branch> {
        let mut branches = branches(tenant, other, tree);
        if !self.below[tenant].is_empty() {
            branches.insert(0, Branch::Own(tenant));
        }
        branches
    }
}

fn guaranteed(branch: Branch, tree: &Tree<'_>) -> Units {
    match branch {
        Branch::All(tenant) => tree.guaranteed(tenant),
        Branch::Own(tenant) => tree.guaranteed_to_its_own(tenant),
    }
}

/// The branches that `tenant` is in and `other` is not.
fn branches(tenant: usize, other: usize, tree: &Tree<'_>) -> Vec<Branch> {
    let above_other: Vec<usize> = tree.path(other).collect();
    let apart = tree.path(tenant).take_while(|at| !above_other.contains(at));
    let apart: Vec<Branch> = apart.map(Branch::All).collect();
    if apart.is_empty() { vec![Branch::Own(tenant)] } else { apart }
}
