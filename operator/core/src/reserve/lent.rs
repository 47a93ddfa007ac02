//! What of a reserve's pool is lent: it runs work that leaves in time if it is
//! asked to, or has ended by then. Who is asked is not decided here.

use std::collections::BTreeMap;

use super::guard::stays;
use crate::model::{Reserve, Right, Snapshot, Units};

/// What is lent, by tenant. Of a gang that is partly in the pool, its pods there count.
pub fn lent(snapshot: &Snapshot, reserve: &Reserve, now_ms: i64) -> BTreeMap<String, Units> {
    let by_ms = now_ms.saturating_add(reserve.grace_ms);
    let mut lent: BTreeMap<String, Units> = BTreeMap::new();
    let leaves = snapshot
        .running
        .iter()
        .filter(|running| running.right == Right::Ordinary && !stays(reserve, running, now_ms, by_ms));
    for running in leaves {
        let inside = running.pods.iter().filter(|pod| reserve.nodes.contains(&pod.node)).count();
        let (inside, all) = (inside as Units, running.pods.len().max(1) as Units);
        let units = running.units.saturating_mul(inside) / all;
        if units > 0 {
            *lent.entry(running.tenant.clone()).or_default() += units;
        }
    }
    lent
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{NodeIndex, PodPlacement, Running};
    use crate::testing::{cluster, h100};

    #[test]
    fn what_would_leave_in_time_is_lent_and_only_in_the_pool() {
        let mut snapshot = cluster(1, &[h100()]);
        let mut reserve = Reserve { nodes: vec![NodeIndex(0)], grace_ms: 30_000, ..Reserve::default() };
        for tenant in ["quick", "slow", "fixed", "claims"] {
            let running = Running {
                tenant: tenant.into(),
                pods: vec![PodPlacement { node: NodeIndex(0), devices: Vec::new() }],
                units: 56,
                evictable: true,
                grace_ms: 30_000,
                ..Running::default()
            };
            snapshot.running.push(running);
        }
        snapshot.running[1].grace_ms = 30_001;
        snapshot.running[2].evictable = false;
        snapshot.running[3].right = Right::Claimed;
        assert_eq!(lent(&snapshot, &reserve, 0), [("quick".to_owned(), 56)].into());
        // What has ended by then is lent, too.
        snapshot.running[2].ends_ms = Some(29_000);
        assert_eq!(lent(&snapshot, &reserve, 0).len(), 2);
        reserve.nodes.clear();
        assert_eq!(lent(&snapshot, &reserve, 0), BTreeMap::new());
    }
}
