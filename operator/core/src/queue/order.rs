//! The order in which workloads are looked at; it changes as tenants are given things.

use std::cmp::{Ordering, Reverse};
use std::collections::binary_heap::PeekMut;
use std::collections::{BinaryHeap, VecDeque};

use super::tree::Tree;
use super::usage::average;
use crate::model::{Snapshot, UNITS_PER_GPU, UnitMs, Units};

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
pub(super) struct Order<'a> {
    snapshot: &'a Snapshot,
    /// For each tenant its own workloads, next first.
    queues: Vec<VecDeque<u32>>,
    /// For each tenant and then the cluster, what is below it and has workloads, next first.
    heaps: Vec<BinaryHeap<Reverse<Entry>>>,
    /// For each tenant, when one of its own workloads was last admitted.
    admitted_ms: Vec<i64>,
    /// For each tenant, how much its own workloads, and how much all of them, have in comparison.
    shares: Vec<(i64, i64)>,
    /// What each tenant's own workloads hold.
    own: Vec<Units>,
    aging_ms: i64,
    capacity: u128,
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

impl<'a> Order<'a> {
    pub fn of(snapshot: &'a Snapshot, tree: &Tree<'a>) -> Self {
        let aging_ms = snapshot.settings.aging_ms.max(1);
        let capacity = (snapshot.gpus.len() as u128).saturating_mul(UNITS_PER_GPU.into()).max(1);
        let of_each = |value: fn(&crate::model::Tenant) -> i64| -> Vec<i64> {
            (0..tree.len()).map(|tenant| value(tree.tenant(tenant))).collect()
        };
        let mut order = Self {
            snapshot,
            queues: queues(snapshot, tree, aging_ms),
            heaps: vec![BinaryHeap::new(); tree.len() + 1],
            admitted_ms: of_each(|tenant| tenant.last_admitted_ms),
            shares: vec![(0, 0); tree.len()],
            own: (0..tree.len()).map(|tenant| tree.tenant(tenant).used).collect(),
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
                return Some((*self.queues[at].front()? as usize, at));
            }
            at = top.tenant;
        }
    }

    /// Goes on to the one after `next`, which is of this tenant.
    pub fn pass(&mut self, tree: &Tree<'a>, tenant: usize, passed: Passed, now_ms: i64) {
        self.queues[tenant].pop_front();
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

    fn rank_after(&mut self, tree: &Tree<'a>, tenant: usize, given: bool, own: bool) -> Option<i128> {
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
        let first = *self.queues[tenant].front()?;
        Some(self.rank(self.shares[tenant].0, self.since_ms(first, tenant)))
    }

    fn rank_of(&self, tenant: usize) -> Option<i128> {
        let mut at = tenant;
        loop {
            let Reverse(top) = self.heaps[at].peek()?;
            if top.tenant == at {
                let first = *self.queues[at].front()?;
                return Some(self.rank(self.shares[tenant].1, self.since_ms(first, at)));
            }
            at = top.tenant;
        }
    }

    /// Since when a tenant's first workload has been waiting for its turn.
    fn since_ms(&self, first: u32, tenant: usize) -> i64 {
        self.snapshot.waiting[first as usize].queued_ms.max(self.admitted_ms[tenant])
    }

    /// The share, less what waiting weighs. Everybody waits until the same now, so that it need not be known.
    fn rank(&self, share: i64, since_ms: i64) -> i128 {
        // Less than 2^34 times 2^66, and 2^95.
        i128::from(share) * (AGING_PART * i128::from(self.aging_ms)) + (i128::from(since_ms) << SHARE_BITS)
    }

    fn weigh(&mut self, tree: &Tree<'a>, tenant: usize) {
        let of = tree.tenant(tenant);
        let own = self.share(self.own[tenant], tree.guaranteed_to_its_own(tenant), of.recent, 1);
        let all = self.share(tree.held(tenant), tree.guaranteed(tenant), tree.recent(tenant), of.weight);
        self.shares[tenant] = (own, all);
    }

    /// Within its guarantee, from -1 to 0 as it is used up; beyond, the part of the cluster that is held and was
    /// held of late, by weight.
    fn share(&self, held: Units, guaranteed: Units, recent: UnitMs, weight: u32) -> i64 {
        let held = u128::from(held);
        let one = 1_u128 << SHARE_BITS;
        if held < u128::from(guaranteed) {
            let used = (held << SHARE_BITS) / u128::from(guaranteed);
            return i64::try_from(used).unwrap_or(0) - (1 << SHARE_BITS);
        }
        let of_late = average(recent, self.snapshot.settings.half_life_ms);
        let whole = self.capacity.saturating_mul(weight.max(1).into());
        let share = ((held + u128::from(of_late)) << SHARE_BITS) / whole;
        i64::try_from(share.min(MOST_SHARE * one)).unwrap_or(i64::MAX)
    }
}

/// For each tenant its own workloads: higher priority first, where waiting weighs as well; then who was queued first.
fn queues(snapshot: &Snapshot, tree: &Tree<'_>, aging_ms: i64) -> Vec<VecDeque<u32>> {
    let mut queues: Vec<Vec<(i128, i64, u32)>> = vec![Vec::new(); tree.len()];
    for (workload, index) in snapshot.waiting.iter().zip(0_u32..) {
        if let Some(tenant) = tree.of_waiting(index as usize) {
            let ahead = i128::from(workload.priority) * i128::from(aging_ms);
            let rank = i128::from(workload.queued_ms) - ahead;
            queues[tenant].push((rank, workload.queued_ms, index));
        }
    }
    let key = |index: u32| (&snapshot.waiting[index as usize].key, index);
    let compare = |one: &(i128, i64, u32), other: &(i128, i64, u32)| -> Ordering {
        (one.0, one.1).cmp(&(other.0, other.1)).then_with(|| key(one.2).cmp(&key(other.2)))
    };
    let sorted = queues.into_iter().map(|mut queue| {
        queue.sort_unstable_by(compare);
        queue.into_iter().map(|(_, _, index)| index).collect()
    });
    sorted.collect()
}

#[cfg(test)]
mod tests;
