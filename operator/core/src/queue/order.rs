//! The order in which workloads are looked at; it changes as tenants are given things.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::model::{Snapshot, Tenant, Units};

/// The waiting workloads of the known tenants, next first.
#[derive(Debug)]
pub(super) struct Order<'a> {
    snapshot: &'a Snapshot,
    /// For each tenant its workloads, next first.
    queues: BTreeMap<&'a str, VecDeque<usize>>,
    /// The tenants that have some, next first.
    ranks: BTreeSet<(Rank<'a>, &'a str)>,
}

/// How soon a tenant's next workload is looked at; the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    /// How much of the guarantee is used, in parts of 2^32; `None` sorts the others behind.
    beyond_guarantee: bool,
    used: u128,
    queued_ms: i64,
    key: &'a str,
}

impl<'a> Order<'a> {
    /// The order while tenants hold `used`.
    pub fn of(snapshot: &'a Snapshot, used: &BTreeMap<&'a str, Units>) -> Self {
        let mut queues: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (index, workload) in snapshot.waiting.iter().enumerate() {
            if let Some((name, _)) = snapshot.tenants.get_key_value(&workload.tenant) {
                queues.entry(name).or_default().push(index);
            }
        }
        let first = |index: &usize| {
            let workload = &snapshot.waiting[*index];
            (std::cmp::Reverse(workload.priority), workload.queued_ms, workload.key.as_str(), *index)
        };
        let sorted = queues.into_iter().map(|(tenant, mut queue)| {
            queue.sort_by_key(first);
            (tenant, VecDeque::from(queue))
        });
        let mut order = Self { snapshot, queues: sorted.collect(), ranks: BTreeSet::new() };
        let tenants: Vec<&str> = order.queues.keys().copied().collect();
        for tenant in tenants {
            order.enter(tenant, used.get(tenant).copied().unwrap_or(0));
        }
        order
    }

    /// The next workload and its tenant. The tenant's other workloads come up
    /// only after [`Order::enter`] has told what it holds now.
    pub fn next(&mut self) -> Option<(usize, &'a str)> {
        let (_, tenant) = self.ranks.pop_first()?;
        let workload = self.queues.get_mut(tenant)?.pop_front()?;
        Some((workload, tenant))
    }

    /// Puts a tenant that holds `used` where it belongs, if it has workloads left.
    pub fn enter(&mut self, tenant: &'a str, used: Units) {
        let snapshot = self.snapshot;
        let Some(first) = self.queues.get(tenant).and_then(VecDeque::front) else { return };
        let guaranteed = snapshot.tenants.get(tenant).map_or(0, |tenant: &Tenant| tenant.guaranteed);
        let beyond_guarantee = used >= guaranteed;
        let share = (u128::from(used) << 32).checked_div(u128::from(guaranteed)).unwrap_or(0);
        let workload = &snapshot.waiting[*first];
        let rank = Rank {
            beyond_guarantee,
            used: if beyond_guarantee { 0 } else { share },
            queued_ms: workload.queued_ms,
            key: &workload.key,
        };
        self.ranks.insert((rank, tenant));
    }
}
