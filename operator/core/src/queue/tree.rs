//! Tenants as a tree, by index: what each holds with all below it, and which
//! limit on the way up is the tightest. Whose turn it is, is not decided here.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use crate::model::{Snapshot, Tenant, UnitMs, Units};

/// The tenants of a snapshot; an index into them goes by the order of their names.
#[derive(Clone, Debug)]
pub(crate) struct Tree<'a> {
    tenants: Vec<Branch<'a>>,
    by_name: Names<'a>,
    /// For each waiting workload, its tenant.
    of_waiting: Vec<Option<usize>>,
}

type Names<'a> = HashMap<&'a str, usize, BuildHasherDefault<Words>>;

/// Hashes names eight bytes at a time: owners name tenants, and every waiting workload's is looked up in each cycle.
#[derive(Clone, Debug, Default)]
struct Words(u64);

impl Hasher for Words {
    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            // An odd constant near 2^64 / the golden ratio spreads every bit upwards, and the rotation back down.
            let mixed = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.0 = mixed ^ mixed.rotate_right(29);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A tenant in its tree.
#[derive(Clone, Debug)]
struct Branch<'a> {
    name: &'a str,
    tenant: &'a Tenant,
    parent: Option<usize>,
    guaranteed: Units,
    below: Units,
    held: Units,
    /// What is kept for workloads that wait, of it or of tenants below it.
    kept: Units,
    /// What is held back from others until there is enough of it for somebody.
    held_back: Units,
    recent: UnitMs,
}

/// A limit, and what is left under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Tightest {
    /// Units that are left.
    pub left: Units,
    /// The limit.
    pub limit: Units,
    /// The tenant whose limit it is.
    pub tenant: usize,
}

impl<'a> Tree<'a> {
    pub fn of(snapshot: &'a Snapshot) -> Self {
        let by_name: Names<'_> = snapshot.tenants.keys().map(String::as_str).zip(0..).collect();
        let branch = |(name, tenant): (&'a String, &'a Tenant)| Branch {
            name,
            tenant,
            parent: tenant.parent.as_ref().and_then(|parent| by_name.get(parent.as_str()).copied()),
            guaranteed: tenant.guaranteed,
            below: 0,
            held: 0,
            kept: 0,
            held_back: 0,
            recent: 0,
        };
        let tenants = snapshot.tenants.iter().map(branch).collect();
        let mut tree = Self { tenants, by_name, of_waiting: Vec::new() };
        tree.of_waiting = tree.of_each(snapshot);
        tree.cut_circles();
        for tenant in 0..tree.len() {
            let Tenant { used, recent, .. } = *tree.tenants[tenant].tenant;
            tree.give(tenant, used);
            tree.each_up(tenant, |branch| branch.recent = branch.recent.saturating_add(recent));
        }
        tree.guarantee_upwards();
        tree
    }

    fn of_each(&self, snapshot: &'a Snapshot) -> Vec<Option<usize>> {
        let mut last = ("", self.find(""));
        let mut of = |name: &'a str| {
            // Those of one tenant often come together.
            if last.0 != name {
                last = (name, self.find(name));
            }
            last.1
        };
        snapshot.waiting.iter().map(|workload| of(&workload.tenant)).collect()
    }

    /// A tenant that is above itself has no parent.
    fn cut_circles(&mut self) {
        let on_circle = |tenant: &usize| {
            let mut above = self.tenants[*tenant].parent;
            for _ in 0..self.len() {
                match above {
                    Some(other) if other == *tenant => return true,
                    Some(other) => above = self.tenants[other].parent,
                    None => return false,
                }
            }
            // It comes to a circle of others.
            false
        };
        let circles: Vec<usize> = (0..self.len()).filter(on_circle).collect();
        for tenant in circles {
            self.tenants[tenant].parent = None;
        }
    }

    /// What is guaranteed to a tenant is guaranteed to all above it.
    fn guarantee_upwards(&mut self) {
        let mut by_depth: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for tenant in 0..self.len() {
            by_depth.entry(self.path(tenant).count()).or_default().push(tenant);
        }
        for tenant in by_depth.into_values().rev().flatten() {
            let branch = &mut self.tenants[tenant];
            branch.guaranteed = branch.guaranteed.max(branch.below);
            let guaranteed = branch.guaranteed;
            if let Some(parent) = branch.parent {
                let below = &mut self.tenants[parent].below;
                *below = below.saturating_add(guaranteed);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.tenants.len()
    }

    /// The tenant of this name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The tenant of a waiting workload.
    pub fn of_waiting(&self, workload: usize) -> Option<usize> {
        self.of_waiting[workload]
    }

    /// Its name.
    pub fn name(&self, tenant: usize) -> &'a str {
        self.tenants[tenant].name
    }

    /// As it is in the snapshot.
    pub fn tenant(&self, tenant: usize) -> &'a Tenant {
        self.tenants[tenant].tenant
    }

    /// The tenant above it.
    pub fn parent(&self, tenant: usize) -> Option<usize> {
        self.tenants[tenant].parent
    }

    /// The tenant itself and those above it, upwards.
    pub fn path(&self, tenant: usize) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(Some(tenant), |tenant| self.tenants[*tenant].parent)
    }

    /// What is guaranteed to it and all below it: at least what is guaranteed to those below.
    pub fn guaranteed(&self, tenant: usize) -> Units {
        self.tenants[tenant].guaranteed
    }

    /// What of it is not guaranteed to one below it.
    pub fn guaranteed_to_its_own(&self, tenant: usize) -> Units {
        let branch = &self.tenants[tenant];
        branch.guaranteed.saturating_sub(branch.below)
    }

    /// What it and all below it hold.
    pub fn held(&self, tenant: usize) -> Units {
        self.tenants[tenant].held
    }

    /// What it and all below it held of late.
    pub fn recent(&self, tenant: usize) -> UnitMs {
        self.tenants[tenant].recent
    }

    /// Counts units that one of its own workloads gets.
    pub fn give(&mut self, tenant: usize, units: Units) {
        self.each_up(tenant, |branch| branch.held = branch.held.saturating_add(units));
    }

    /// Counts units as kept for one of its own workloads.
    pub fn keep(&mut self, tenant: usize, units: Units) {
        self.each_up(tenant, |branch| branch.kept = branch.kept.saturating_add(units));
    }

    /// What is kept for its own workloads, and those of all below it.
    pub fn kept(&self, tenant: usize) -> Units {
        self.tenants[tenant].kept
    }

    /// What is kept or held back for workloads that wait, of it and of all below it.
    pub fn promised(&self, tenant: usize) -> Units {
        self.tenants[tenant].kept.saturating_add(self.tenants[tenant].held_back)
    }

    /// Undoes [`Tree::keep`].
    pub fn unkeep(&mut self, tenant: usize, units: Units) {
        self.each_up(tenant, |branch| branch.kept = branch.kept.saturating_sub(units));
    }

    /// Holds units back from others than those for whom something is kept.
    pub fn hold_back(&mut self, tenant: usize, units: Units) {
        self.each_up(tenant, |branch| branch.held_back = branch.held_back.saturating_add(units));
    }

    /// Undoes [`Tree::hold_back`].
    pub fn let_go(&mut self, tenant: usize, units: Units) {
        self.each_up(tenant, |branch| branch.held_back = branch.held_back.saturating_sub(units));
    }

    /// The least limit on the way up; of equals, the nearest.
    pub fn least_limit(&self, tenant: usize) -> Option<(Units, usize)> {
        let limits = self.path(tenant).filter_map(|at| Some((self.tenants[at].tenant.limit?, at)));
        limits.min_by_key(|(limit, _)| *limit)
    }

    /// Where the least is left on the way up, whatever is kept; of equals, the nearest.
    pub fn tightest(&self, tenant: usize) -> Option<Tightest> {
        self.least_left(tenant, |_| 0)
    }

    /// Where the least is left on the way up besides what is kept; of equals, the nearest.
    pub fn tightest_besides_kept(&self, tenant: usize) -> Option<Tightest> {
        self.least_left(tenant, |branch| branch.kept)
    }

    /// Where the least is left on the way up besides what is kept or held back; of equals, the nearest.
    pub fn tightest_for_others(&self, tenant: usize) -> Option<Tightest> {
        self.least_left(tenant, |branch| branch.kept.saturating_add(branch.held_back))
    }

    fn least_left(&self, tenant: usize, besides: impl Fn(&Branch<'a>) -> Units) -> Option<Tightest> {
        let left = |at: usize| {
            let branch = &self.tenants[at];
            let limit = branch.tenant.limit?;
            let left = limit.saturating_sub(branch.held).saturating_sub(besides(branch));
            Some(Tightest { left, limit, tenant: at })
        };
        self.path(tenant).filter_map(left).min_by_key(|tightest| tightest.left)
    }

    fn each_up(&mut self, tenant: usize, mut change: impl FnMut(&mut Branch<'a>)) {
        let mut at = Some(tenant);
        while let Some(branch) = at.and_then(|at| self.tenants.get_mut(at)) {
            change(branch);
            at = branch.parent;
        }
    }
}
