//! The place that is free soonest: where the fewest of those who end have to be gone, the first first. When somebody
//! ends, and whether the place is kept, is not decided here.

use std::collections::BTreeSet;

use super::drain::{End, Place};
use crate::model::{Snapshot, Workload};
use crate::placement::Cluster;

/// Looks node by node: whoever ends elsewhere does not matter to a node, and most nodes are ruled out by one question.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fewest<'a, 's> {
    pub snapshot: &'a Snapshot,
    /// When each of the snapshot's running ends.
    pub ends: &'s [End],
    /// See [`heads`].
    pub heads: &'s [u128],
    /// For each node, who runs there.
    pub there: &'s [Vec<usize>],
}

/// Nodes and pods do not add up to a place: it has to be tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Unsure;

/// The order in which they are expected to end.
type Rank<'a> = (End, u128, &'a str, usize);

/// For each of the snapshot's running, what comes first in its key after what all keys begin with: as numbers they are
/// in the order of the keys, and most differ.
pub(super) fn heads(snapshot: &Snapshot) -> Vec<u128> {
    let mut keys = snapshot.running.iter().map(|running| running.key.as_bytes());
    let first = keys.next().unwrap_or_default();
    let alike = |key: &[u8]| key.iter().zip(first).take_while(|(one, other)| one == other).count();
    let shared = keys.map(alike).min().unwrap_or(0);
    let head = |key: &[u8]| {
        let mut head = [0; 16];
        head.iter_mut().zip(key.iter().skip(shared)).for_each(|(to, from)| *to = *from);
        u128::from_be_bytes(head)
    };
    snapshot.running.iter().map(|running| head(running.key.as_bytes())).collect()
}

impl<'a> Fewest<'a, '_> {
    fn rank(&self, at: usize) -> Rank<'a> {
        (self.ends[at], self.heads[at], &self.snapshot.running[at].key, at)
    }

    /// The place, for a workload that may go anywhere and has none now; none if all of them are too few.
    pub fn place(
        &self,
        workload: &Workload,
        shape: usize,
        cluster: &mut Cluster<'a>,
    ) -> Result<Option<Place>, Unsure> {
        let wanted = usize::try_from(workload.pods).unwrap_or(usize::MAX);
        // For the pods that find room soonest, who is the last in the way of each, and on which node.
        let mut soonest: Vec<(Option<Rank<'a>>, u32)> = Vec::new();
        let mut gone = Vec::new();
        for (node, there) in (0..).zip(self.there) {
            let bound = wanted.checked_sub(1).and_then(|last| soonest.get(last)).map(|(rank, _)| *rank);
            let sooner = |at: usize| bound.is_none_or(|bound| Some(self.rank(at)) < bound);
            gone.clear();
            gone.extend(there.iter().copied().filter(|at| self.ends[*at] != End::Never && sooner(*at)));
            // What a single pod lacks everywhere, it lacks here.
            if gone.is_empty() && wanted == 1 {
                continue;
            }
            let most = usize::try_from(cluster.pods_without(shape, node, &gone)).unwrap_or(usize::MAX);
            if most == 0 {
                continue;
            }
            gone.sort_unstable_by_key(|at| self.rank(*at));
            let mut enough = 0;
            for pods in 1..=most.min(wanted) {
                let (mut too_few, mut all) = (enough, gone.len());
                while too_few < all {
                    let middle = usize::midpoint(too_few, all);
                    let fit = cluster.pods_without(shape, node, &gone[..middle]);
                    let fits = usize::try_from(fit).is_ok_and(|fit| fit >= pods);
                    (too_few, all) = if fits { (too_few, middle) } else { (middle + 1, all) };
                }
                enough = all;
                soonest.push((enough.checked_sub(1).map(|last| self.rank(gone[last])), node));
            }
            soonest.sort_unstable();
            soonest.truncate(wanted);
        }
        if soonest.len() < wanted {
            return Ok(None);
        }
        let Some(&(Some(last), _)) = soonest.last() else { return Err(Unsure) };
        self.once_gone(last, soonest.iter().map(|(_, node)| *node), workload, shape, cluster).map(Some)
    }

    /// The place once all up to `last` are gone, on these nodes or where that one was.
    fn once_gone(
        &self,
        last: Rank<'a>,
        nodes: impl Iterator<Item = u32>,
        workload: &Workload,
        shape: usize,
        cluster: &mut Cluster<'a>,
    ) -> Result<Place, Unsure> {
        let nodes: BTreeSet<u32> =
            self.snapshot.running[last.3].pods.iter().map(|pod| pod.node.0).chain(nodes).collect();
        let there = nodes.iter().filter_map(|node| self.there.get(*node as usize)).flatten();
        let gone: BTreeSet<usize> =
            there.copied().filter(|at| self.ends[*at] != End::Never && self.rank(*at) <= last).collect();
        for at in &gone {
            cluster.release(*at);
        }
        let place = now(workload, shape, cluster);
        for at in &gone {
            cluster.restore(*at);
        }
        place.ok_or(Unsure)
    }
}

/// The same by trying, with whole prefixes of `order` gone: for the few that leave, and for those that have to be
/// together.
pub(super) fn by_trying(
    workload: &Workload,
    shape: usize,
    order: &[usize],
    cluster: &mut Cluster<'_>,
) -> Option<Place> {
    let all = order.len();
    let (mut too_few, mut enough) = (0, all);
    let mut found = None;
    let mut gone = 0;
    let mut next = 1.min(all);
    while all > 0 && (found.is_none() || enough - too_few > 1) {
        for at in order.get(gone..next).unwrap_or_default() {
            cluster.release(*at);
        }
        for at in order.get(next..gone).unwrap_or_default() {
            cluster.restore(*at);
        }
        gone = next;
        match now(workload, shape, cluster) {
            Some(place) => {
                found = Some(place);
                enough = next;
            }
            None if next == all => break,
            None => too_few = next,
        }
        let further =
            if found.is_none() { too_few.saturating_mul(2) } else { usize::midpoint(too_few, enough) };
        next = further.clamp(too_few + 1, all);
    }
    for at in order.get(..gone).unwrap_or_default() {
        cluster.restore(*at);
    }
    found
}

/// The place that a workload would get now.
fn now(workload: &Workload, shape: usize, cluster: &mut Cluster<'_>) -> Option<Place> {
    let placed = cluster.place_workload(shape, workload)?;
    let place = Place { pods: placed.pods.clone(), units: placed.units };
    cluster.take_back(shape, placed);
    Some(place)
}

#[cfg(test)]
mod tests;
