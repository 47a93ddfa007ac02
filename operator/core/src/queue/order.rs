//! The order in which workloads are looked at; it changes as tenants are given things.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use super::jobs::Job;
use super::tree::Tree;
use super::usage::average;
use crate::model::{Snapshot, UNITS_PER_GPU, Units};

/// Waiting as long as [`crate::model::Settings::aging_ms`] weighs as much as this part of the cluster.
const AGING_PART: i128 = 8;

/// Shares are in parts of 2^32 of the cluster.
const SHARE_BITS: u32 = 32;

/// More than this many times the cluster counts as much.
const MOST_SHARE: u128 = 2;

/// The waiting workloads of the known tenants, next first.
///
/// It is a tree of heaps: in that of a tenant are its own queue and the tenants below it. One look
/// changes only what is on the way to what was looked at, and that is on top of every heap.
#[derive(Debug)]
pub(super) struct Order {
    /// For each tenant its own workloads, next first.
    queues: Queues,
    /// For each tenant and then the cluster, what is below it and has workloads, next first.
    heaps: Vec<BinaryHeap<Reverse<Entry>>>,
    /// For each tenant, when one of its own workloads was last admitted.
    admitted_ms: Vec<i64>,
    /// For each tenant, how much its own workloads, and how much all of them, have in comparison.
    shares: Vec<(i64, i64)>,
    /// What each tenant's own workloads hold.
    own: Vec<Units>,
    /// What each tenant's own workloads, and all of them, held of late on average.
    of_late: Vec<(Units, Units)>,
    aging_ms: i64,
    capacity: u128,
}

/// The workloads of each tenant, one tenant after the other.
#[derive(Debug)]
struct Queues {
    waiting: Vec<Queued>,
    /// For each tenant, where its next one is, and where those of the next tenant begin.
    of: Vec<(usize, usize)>,
}

/// A workload in its tenant's queue; the least goes first, then that with the least key.
#[derive(Clone, Copy, Debug)]
struct Queued {
    rank: i128,
    since_ms: i64,
    index: u32,
}

/// What became of the workload that was next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Passed {
    /// It got these units.
    Given(Units),
    /// It waits, and those of its tenant that are behind it go before it, no sooner than if it had just been served.
    Over,
    /// It waits, and whoever is behind it takes its turn.
    By,
}

/// How soon something is looked at; the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    rank: i128,
    /// A tenant; in its own heap, its own queue.
    tenant: usize,
}

impl Order {
    pub fn of(snapshot: &Snapshot, jobs: &[Job], tree: &Tree<'_>) -> Self {
        let aging_ms = snapshot.settings.aging_ms.max(1);
        let capacity = (snapshot.gpus.len() as u128).saturating_mul(UNITS_PER_GPU.into()).max(1);
        let of_each = |value: fn(&crate::model::Tenant) -> i64| -> Vec<i64> {
            (0..tree.len()).map(|tenant| value(tree.tenant(tenant))).collect()
        };
        let late = |recent| average(recent, snapshot.settings.half_life_ms);
        let mut order = Self {
            queues: Queues::of(snapshot, jobs, tree.len(), aging_ms),
            heaps: vec![BinaryHeap::new(); tree.len() + 1],
            admitted_ms: of_each(|tenant| tenant.last_admitted_ms),
            shares: vec![(0, 0); tree.len()],
            own: (0..tree.len()).map(|tenant| tree.tenant(tenant).used).collect(),
            of_late: (0..tree.len())
                .map(|tenant| (late(tree.tenant(tenant).recent), late(tree.recent(tenant))))
                .collect(),
            aging_ms,
            capacity,
        };
        let mut deepest_first: Vec<usize> = (0..tree.len()).collect();
        deepest_first.sort_by_cached_key(|tenant| Reverse(tree.path(*tenant).count()));
        for tenant in deepest_first {
            order.weigh(tree, tenant);
            if let Some(rank) = order.rank_of_own(tenant) {
                order.heaps[tenant].push(Reverse(Entry { rank, tenant }));
            }
            if let Some(rank) = order.rank_of(tenant) {
                let parent = tree.parent(tenant).unwrap_or(tree.len());
                order.heaps[parent].push(Reverse(Entry { rank, tenant }));
            }
        }
        order
    }

    /// The next workload and its tenant; the same until [`Order::pass`].
    pub fn next(&self) -> Option<(usize, usize)> {
        let mut at = self.heaps.len() - 1;
        loop {
            let Reverse(top) = self.heaps[at].peek()?;
            if top.tenant == at {
                return Some((self.queues.first(at)?.index as usize, at));
            }
            at = top.tenant;
        }
    }

    /// Goes on to the one after `next`, which is of this tenant.
    pub fn pass(&mut self, tree: &Tree<'_>, tenant: usize, passed: Passed, now_ms: i64) {
        self.queues.of[tenant].0 += 1;
        if passed != Passed::By {
            self.admitted_ms[tenant] = now_ms.max(self.admitted_ms[tenant]);
        }
        let given = matches!(passed, Passed::Given(_));
        if let Passed::Given(units) = passed {
            self.own[tenant] = self.own[tenant].saturating_add(units);
        }
        let rank = self.rank_after(tree, tenant, given, true);
        self.replace_top(tenant, rank);
        for tenant in tree.path(tenant) {
            let rank = self.rank_after(tree, tenant, given, false);
            self.replace_top(tree.parent(tenant).unwrap_or(tree.len()), rank);
        }
    }

    fn rank_after(&mut self, tree: &Tree<'_>, tenant: usize, given: bool, own: bool) -> Option<i128> {
        if given {
            self.weigh(tree, tenant);
        }
        if own { self.rank_of_own(tenant) } else { self.rank_of(tenant) }
    }

    fn replace_top(&mut self, heap: usize, rank: Option<i128>) {
        let Some(mut top) = self.heaps[heap].peek_mut() else { return };
        match rank {
            Some(rank) if rank == top.0.rank => {}
            Some(rank) => top.0.rank = rank,
            None => drop(PeekMut::pop(top)),
        }
    }

    fn rank_of_own(&self, tenant: usize) -> Option<i128> {
        let first = self.queues.first(tenant)?;
        Some(self.rank(self.shares[tenant].0, self.since_ms(first, tenant)))
    }

    fn rank_of(&self, tenant: usize) -> Option<i128> {
        let mut at = tenant;
        loop {
            let Reverse(top) = self.heaps[at].peek()?;
            if top.tenant == at {
                let first = self.queues.first(at)?;
                return Some(self.rank(self.shares[tenant].1, self.since_ms(first, at)));
            }
            at = top.tenant;
        }
    }

    /// Since when a tenant's first workload has been waiting for its turn.
    fn since_ms(&self, first: &Queued, tenant: usize) -> i64 {
        first.since_ms.max(self.admitted_ms[tenant])
    }

    /// The share, less what waiting weighs. Everybody waits until the same now, so that it need not be known.
    fn rank(&self, share: i64, since_ms: i64) -> i128 {
        // Less than 2^34 times 2^66, and 2^95.
        i128::from(share) * (AGING_PART * i128::from(self.aging_ms)) + (i128::from(since_ms) << SHARE_BITS)
    }

    fn weigh(&mut self, tree: &Tree<'_>, tenant: usize) {
        let (own_late, late) = self.of_late[tenant];
        let own = self.share(self.own[tenant], tree.guaranteed_to_its_own(tenant), own_late, 1);
        let weight = tree.tenant(tenant).weight;
        let all = self.share(tree.held(tenant), tree.guaranteed(tenant), late, weight);
        self.shares[tenant] = (own, all);
    }

    /// Within its guarantee, from -1 to 0 as it is used up; beyond, the part of the cluster that is held and was
    /// held of late, by weight.
    fn share(&self, held: Units, guaranteed: Units, of_late: Units, weight: u32) -> i64 {
        let held = u128::from(held);
        let one = 1_u128 << SHARE_BITS;
        if held < u128::from(guaranteed) {
            let used = divided(held << SHARE_BITS, guaranteed.into());
            return i64::try_from(used).unwrap_or(0) - (1 << SHARE_BITS);
        }
        let whole = self.capacity.saturating_mul(weight.max(1).into());
        let share = divided((held + u128::from(of_late)) << SHARE_BITS, whole);
        i64::try_from(share.min(MOST_SHARE * one)).unwrap_or(i64::MAX)
    }
}

/// The quotient. Most numbers are small enough for the processor to divide.
fn divided(number: u128, by: u128) -> u128 {
    match (u64::try_from(number), u64::try_from(by)) {
        (Ok(number), Ok(by)) => (number / by).into(),
        _ => number / by,
    }
}

impl Queues {
    /// Higher priority first, where waiting weighs as well; then who was queued first.
    fn of(snapshot: &Snapshot, jobs: &[Job], tenants: usize, aging_ms: i64) -> Self {
        let mut of = vec![(0, 0); tenants];
        for tenant in jobs.iter().filter_map(Job::tenant) {
            of[tenant].1 += 1;
        }
        let mut start = 0;
        for (at, end) in &mut of {
            (*at, start) = (start, start + *end);
            *end = *at;
        }
        let mut waiting = vec![Queued { rank: 0, since_ms: 0, index: 0 }; start];
        for (job, index) in jobs.iter().zip(0_u32..) {
            if let Some(tenant) = job.tenant() {
                let ahead = i128::from(job.priority) * i128::from(aging_ms);
                let rank = i128::from(job.queued_ms) - ahead;
                let end = &mut of[tenant].1;
                waiting[*end] = Queued { rank, since_ms: job.queued_ms, index };
                *end += 1;
            }
        }
        let key = |of: &Queued| (&snapshot.waiting[of.index as usize].key, of.index);
        let compare = |one: &Queued, other: &Queued| -> Ordering {
            (one.rank, one.since_ms)
                .cmp(&(other.rank, other.since_ms))
                .then_with(|| key(one).cmp(&key(other)))
        };
        for (start, end) in &of {
            waiting[*start..*end].sort_unstable_by(compare);
        }
        Self { waiting, of }
    }

    /// The next one of a tenant.
    fn first(&self, tenant: usize) -> Option<&Queued> {
        let (at, end) = self.of[tenant];
        self.waiting.get(at..end)?.first()
    }
}

#[cfg(test)]
mod tests;
