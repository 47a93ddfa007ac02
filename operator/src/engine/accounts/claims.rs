//! Follows instant claims for the reserves' reports: for whom others were asked
//! to leave, what that cost them, and whether it runs by now. How that counts is
//! the core's ([`TimedClaim`]). What is counted is lost with the process that
//! counted it, if that is not in a report yet.

use vingt_core::ledger::TimedClaim;
use vingt_core::model::{Eviction, EvictionReason, Snapshot, UnitMs};

use super::super::Engine;
use crate::world::{Key, World};

/// A workload for which others were asked to leave, and which does not run yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claiming {
    /// The reserve that it draws on.
    reserve: String,
    timed: TimedClaim,
}

/// What an eviction for a claim cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine) struct Cost {
    /// The reserve.
    reserve: String,
    /// What was lost, in unit-milliseconds.
    lost: UnitMs,
}

/// How far a claim is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Starts,
    Runs,
    Gone,
}

impl Engine {
    /// What an eviction costs if it is for a claim; the claim is timed from now on.
    pub(in crate::engine) fn cost_of_claim(
        &mut self,
        eviction: &Eviction,
        by: &str,
        snapshot: &Snapshot,
        now_ms: i64,
    ) -> Option<Cost> {
        if eviction.reason != EvictionReason::Claimed {
            return None;
        }
        let node = snapshot.running.get(eviction.running)?.pods.first()?.node;
        let reserve = self
            .accounts
            .reserves
            .of_node(&snapshot.nodes.get(usize::try_from(node.0).ok()?)?.name)?
            .to_owned();
        let claiming = &mut self.accounts.reserves.claiming;
        claiming
            .entry(by.to_owned())
            .or_insert_with(|| Claiming { reserve: reserve.clone(), timed: TimedClaim::since(now_ms) });
        Some(Cost { reserve, lost: eviction.lost })
    }

    /// Counts what left for a claim.
    pub(in crate::engine) fn count_cost(&mut self, cost: &Cost) {
        if let Some(counts) = self.accounts.reserves.counts(&cost.reserve) {
            counts.evictions += 1;
            counts.lost = counts.lost.saturating_add(cost.lost);
        }
    }

    /// Counts the claims that run by now, or are late.
    pub(super) fn count_claims(&mut self, now_ms: i64) {
        let reserves = &mut self.accounts.reserves;
        for (workload, mut claiming) in std::mem::take(&mut reserves.claiming) {
            let progress = progress(&workload, &self.world);
            if progress == Progress::Gone {
                continue;
            }
            let runs = progress == Progress::Runs;
            let within_ms = reserves.within_ms(&claiming.reserve);
            if let Some(counts) = reserves.counts(&claiming.reserve) {
                claiming.timed.count(runs, within_ms, now_ms, &mut counts.claims);
            }
            if !runs {
                reserves.claiming.insert(workload, claiming);
            }
        }
    }
}

fn progress(workload: &str, world: &World) -> Progress {
    let mut parts = workload.splitn(3, '/');
    let (Some(kind), Some(namespace), Some(name)) = (parts.next(), parts.next(), parts.next()) else {
        return Progress::Gone;
    };
    let key = Key::new(namespace, name);
    let state = match kind {
        "TrainingJob" => {
            let status = world.training_jobs.get(&key).map(|job| job.status.as_ref());
            status.map(|status| status.is_some_and(|status| status.state == "Running"))
        }
        _ => world.pods.get(&key).filter(|pod| !pod.ended && !pod.deleting).map(|pod| pod.ready),
    };
    match state {
        None => Progress::Gone,
        Some(false) => Progress::Starts,
        Some(true) => Progress::Runs,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::snapshot::layout::tests::list;
    use crate::world::Pod;

    #[test]
    fn a_claim_is_kept_when_what_claims_runs() {
        let mut world = World::default();
        let pod = |name: &str, ready: &str| {
            json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "p", "uid": name, "resourceVersion": "1"},
                "spec": {"containers": []},
                "status": {"conditions": [{"type": "Ready", "status": ready}]}})
        };
        list::<Pod>(&mut world, [pod("a", "True"), pod("b", "False")]);
        let said = ["Pod/p/a", "Pod/p/b", "Pod/p/c", "TrainingJob/p/a", "nonsense"];
        assert_eq!(
            said.map(|workload| progress(workload, &world)),
            [Progress::Runs, Progress::Starts, Progress::Gone, Progress::Gone, Progress::Gone]
        );
    }
}
