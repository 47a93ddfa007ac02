//! When the use of a claim ended: as the agent of its node says, or the
//! operator that took it back before a pod could have it. For the rest, of
//! which nobody says anything, there is a rule.
//!
//! The rule: a use of which Kubernetes has taken the allocation away ended
//! then, or when its node was lost, if that was before. It is applied only
//! after the agent had the time to say otherwise, so that a claim is not held
//! for longer than that.

use std::collections::BTreeMap;

use crate::world::{Claim, Key, World};

/// How long an agent may take to tell an end: it may be restarting, or the API server out of its reach. It
/// has nothing to tell of a pod that went before the kubelet prepared its claims, and the claim waits for
/// that long all the same. Where the end is told later, it was, but for pods deleted by force, no later than
/// Kubernetes took the allocation away, so that little is lost.
const TOLD_WITHIN_MS: i64 = 60_000;
/// The same where no pod was seen to have reached its node, so that there is likely nothing to tell.
const UNUSED_WITHIN_MS: i64 = 15_000;

/// How much later than its end a use is still seen to go on: the pod leaves a moment after its devices.
const SEEN_LATE_MS: i64 = 60_000;

/// What is known of a use's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It goes on.
    Open,
    /// It is over; when it ended is known, or settled by rule, then at the latest.
    Due(i64),
    /// It ended.
    Told(i64),
    /// It ended by the rule.
    ByRule(i64),
}

/// What is remembered of uses, by UID of the claim.
#[derive(Debug, Default)]
pub struct Ends {
    uses: BTreeMap<String, Use>,
    /// Nodes of uses that are gone: since when, and whether they were looked at last.
    gone: BTreeMap<String, (i64, bool)>,
}

#[derive(Debug)]
struct Use {
    /// When it began, so that another use is told from it.
    start_ms: i64,
    /// A pod that may use it was seen on a node, or may have been.
    reached: bool,
    /// When such a pod was seen last.
    used_ms: i64,
    /// When it was first seen to be over.
    over_since_ms: Option<i64>,
    /// It was there when its uses were looked at last.
    seen: bool,
}

impl Ends {
    /// Looks at the use of a claim. To be called for each claim that the ledger waits for, then
    /// [`Self::forget_unseen`].
    pub fn look(&mut self, key: &Key, claim: &Claim, world: &World, now_ms: i64) -> End {
        let Ok(record) = &claim.decision else { return End::Open };
        let start_ms = record.start.as_millisecond();
        let fresh = || Use {
            start_ms,
            // What it was before this process looked is not known if nobody holds it any more.
            reached: claim.unaccounted(),
            used_ms: start_ms,
            over_since_ms: None,
            seen: true,
        };
        let first_look = !self.uses.contains_key(&claim.uid);
        let known = self.uses.entry(claim.uid.clone()).or_insert_with(fresh);
        if known.start_ms != start_ms {
            *known = fresh();
        }
        known.seen = true;
        if reached(key, claim, world) {
            (known.reached, known.used_ms) = (true, now_ms);
        }
        let node = world.nodes.get(&Key::new("", &record.node));
        let lost_ms = match node {
            None => {
                let gone = self.gone.entry(record.node.clone()).or_insert((now_ms, true));
                gone.1 = true;
                Some(gone.0)
            }
            Some(node) => node.lost_ms,
        };
        if !claim.unaccounted() {
            known.over_since_ms = None;
            return End::Open;
        }
        // The claim of a pod is deleted when the pod is gone: this operator may have been away then, and with
        // operators that start again and again, none would otherwise see a claim for as long as the rule asks.
        let deleted_ms = claim.deleted_ms.filter(|_| claim.owner.is_some());
        let first_seen_ms =
            deleted_ms.filter(|_| first_look).map_or(now_ms, |deleted_ms| now_ms.min(deleted_ms));
        let over_since_ms = *known.over_since_ms.get_or_insert(first_seen_ms);
        // The pods of a shared claim come and go: an end that it outlived is not its last.
        let told_ms = claim.ended_ms.filter(|told_ms| known.used_ms <= told_ms.saturating_add(SEEN_LATE_MS));
        if let Some(ended_ms) = told_ms {
            return End::Told(ended_ms);
        }
        let patience_ms = if known.reached { TOLD_WITHIN_MS } else { UNUSED_WITHIN_MS };
        let due_ms = over_since_ms.saturating_add(patience_ms);
        if now_ms < due_ms {
            return End::Due(due_ms);
        }
        let ended_ms = [deleted_ms, lost_ms].into_iter().flatten().fold(over_since_ms, i64::min);
        End::ByRule(ended_ms.max(start_ms))
    }

    /// Forgets the uses that were not looked at since the last call, and the nodes of none.
    pub fn forget_unseen(&mut self) {
        self.uses.retain(|_, known| std::mem::take(&mut known.seen));
        self.gone.retain(|_, (_, seen)| std::mem::take(seen));
    }
}

/// Whether a pod with a reservation of the claim is on a node, or may have been.
fn reached(key: &Key, claim: &Claim, world: &World) -> bool {
    claim.reserved_for.iter().any(|consumer| {
        let pod = world.pods.get(&Key::new(&key.namespace, &consumer.name));
        pod.is_none_or(|pod| pod.uid != consumer.uid || pod.node.is_some())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::snapshot::layout::tests::list;
    use crate::world::{Node, Pod};

    const RECORD: &str = r#"{"version":1,"claim":"cu","node":"n","devices":[{"request":"gpu","pool":"n","device":"d"}],
        "units":28,"tenant":"t","workload":"Pod/p/x","start":"1970-01-01T00:00:01Z"}"#;

    fn claim(metadata: &Value, allocated: bool) -> Value {
        let mut claim = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": "c", "namespace": "p", "uid": "cu", "resourceVersion": "5", "finalizers": ["vingt.dev/ledger"],
                "annotations": {"vingt.dev/decision": RECORD}},
            "spec": {}});
        if allocated {
            claim["status"] =
                json!({"allocation": {}, "reservedFor": [{"resource": "pods", "name": "x", "uid": "px"}]});
        }
        for (name, value) in metadata.as_object().unwrap() {
            claim["metadata"][name] = value.clone();
        }
        claim
    }

    fn node(ready: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "resourceVersion": "2"},
            "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "1970-01-01T00:00:07Z"}]}})
    }

    fn pod(node: Option<&str>) -> Value {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "p", "uid": "px", "resourceVersion": "3"},
            "spec": {"containers": [], "nodeName": node}})
    }

    /// What is said of the claim at each of these times, with the world as it is then.
    fn said(looks: &[(i64, Value, Option<Value>, Option<Value>)]) -> Vec<End> {
        let mut ends = Ends::default();
        let looks = looks.iter().map(|(now_ms, claim, node, pod)| {
            let mut world = World::default();
            list::<Claim>(&mut world, [claim.clone()]);
            list::<Node>(&mut world, node.clone());
            list::<Pod>(&mut world, pod.clone());
            let key = Key::new("p", "c");
            let said = ends.look(&key, world.claims.get(&key).unwrap(), &world, *now_ms);
            ends.forget_unseen();
            said
        });
        looks.collect()
    }

    #[test]
    fn what_is_told_is_believed_once_the_allocation_is_gone() {
        let told = json!({"annotations": {"vingt.dev/decision": RECORD, "vingt.dev/ended": "1970-01-01T00:00:09.123Z"}});
        let (node, pod) = (Some(node("True")), Some(pod(Some("n"))));
        let looks =
            [(10_000, claim(&told, true), node.clone(), pod), (11_000, claim(&told, false), node, None)];
        assert_eq!(said(&looks), [End::Open, End::Told(9_123)]);
    }

    #[test]
    fn an_agent_has_its_time_and_then_the_rule_holds() {
        let (there, none) = (Some(node("True")), json!({}));
        let looks = [
            (10_000, claim(&none, true), there.clone(), Some(pod(Some("n")))),
            (20_000, claim(&none, false), there.clone(), None),
            (79_999, claim(&none, false), there.clone(), None),
            (80_000, claim(&none, false), there.clone(), None),
        ];
        assert_eq!(said(&looks), [End::Open, End::Due(80_000), End::Due(80_000), End::ByRule(20_000)]);
        // First seen when it is over: a pod may have had it.
        assert_eq!(said(&looks[1..]), [End::Due(80_000), End::Due(80_000), End::ByRule(20_000)]);
    }

    #[test]
    fn an_end_that_a_shared_claim_outlived_is_not_its_last() {
        let told = |end: &str| json!({"annotations": {"vingt.dev/decision": RECORD, "vingt.dev/ended": end}});
        let (first, last) = (told("1970-01-01T00:00:09Z"), told("1970-01-01T00:02:03Z"));
        let (node, pod) = (Some(node("True")), Some(pod(Some("n"))));
        let looks = [
            (120_000, claim(&first, true), node.clone(), pod),
            (125_000, claim(&first, false), node.clone(), None),
            (126_000, claim(&last, false), node, None),
        ];
        assert_eq!(said(&looks), [End::Open, End::Due(185_000), End::Told(123_000)]);
    }

    #[test]
    fn what_reached_no_node_is_settled_soon() {
        let (there, none) = (Some(node("True")), json!({}));
        let looks = [
            (10_000, claim(&none, true), there.clone(), Some(pod(None))),
            (20_000, claim(&none, false), there.clone(), None),
            (35_000, claim(&none, false), there, None),
        ];
        assert_eq!(said(&looks), [End::Open, End::Due(35_000), End::ByRule(20_000)]);
    }

    #[test]
    fn on_a_lost_node_it_ended_when_the_node_was_lost() {
        let none = json!({});
        let lost = Some(node("Unknown"));
        let running = Some(pod(Some("n")));
        let looks = [
            (10_000, claim(&none, true), lost.clone(), running.clone()),
            (20_000, claim(&none, false), lost.clone(), None),
            (80_000, claim(&none, false), lost, None),
        ];
        assert_eq!(said(&looks)[2], End::ByRule(7_000));
        let looks = [
            (10_000, claim(&none, true), Some(node("True")), running.clone()),
            (12_000, claim(&none, true), None, running),
            (20_000, claim(&none, false), None, None),
            (80_000, claim(&none, false), None, None),
        ];
        assert_eq!(said(&looks), [End::Open, End::Open, End::Due(80_000), End::ByRule(12_000)]);
    }

    #[test]
    fn what_went_while_nobody_looked_ended_with_its_pod() {
        let gone = json!({"deletionTimestamp": "1970-01-01T00:00:15Z",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "x", "uid": "px", "controller": true}]});
        let looks = [
            (60_000, claim(&gone, false), Some(node("True")), None),
            (75_000, claim(&gone, false), Some(node("True")), None),
        ];
        // The agent's time runs from then, and not anew with each operator.
        assert_eq!(said(&looks), [End::Due(75_000), End::ByRule(15_000)]);
        assert_eq!(said(&looks[1..]), [End::ByRule(15_000)]);
        // Of a claim of one's own, the deletion may be asked for while it is in use.
        let own = json!({"deletionTimestamp": "1970-01-01T00:00:15Z"});
        let looks = looks.map(|(now_ms, _, node, pod)| (now_ms, claim(&own, false), node, pod));
        assert_eq!(said(&looks), [End::Due(120_000), End::Due(120_000)]);
    }
}
