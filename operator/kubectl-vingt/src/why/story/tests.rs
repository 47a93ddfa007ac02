use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::*;
use crate::screen::Screen;

#[allow(clippy::needless_pass_by_value)] // The cases read better without borrows.
fn gang(status: Value) -> TrainingJob {
    let spec = json!({"workers": 3, "gpu": {"count": 8}, "priority": 5, "maxRestarts": 3,
        "template": {"spec": {"containers": [{"name": "c"}]}}});
    let job = json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "big", "namespace": "research"}, "spec": spec, "status": status});
    serde_json::from_value(job).unwrap()
}

fn told(story: &Story) -> String {
    let now = "2026-03-01T14:12:00Z".parse().unwrap();
    story.tell(now, &TimeZone::UTC, Screen { width: 80, colours: false, terminal: false })
}

#[test]
fn a_job_that_waits_says_why_until_when_and_what_happened() {
    let job = gang(json!({"state": "Waiting", "tenant": "research", "waitingSince": "2026-03-01T14:00:00Z",
        "why": "needs 3 × 8 GPUs; 2 of 3 fit now; tenant research has 40 of 64 GPUs left, which is enough",
        "withdrawals": 1, "avoidNodes": ["node-3"],
        "expectedStart": {"p10": "2026-03-01T14:20:00Z", "p50": "2026-03-01T14:32:00Z",
            "p90": "2026-03-02T01:05:00Z", "basis": "from 200 ways the running jobs may end"},
        "evictions": {"count": 2, "last": {"at": "2026-03-01T11:00:00Z", "reason": "Reclaimed",
            "by": "TrainingJob/prod/nightly"}}}));
    let text = told(&Story::of_gang(&job));
    let wanted = "\
TrainingJob research/big waits, for 12m
  asks for 3 × 8 GPUs, for tenant research, priority 5
  because  needs 3 × 8 GPUs; 2 of 3 fit now; tenant research has 40 of 64 GPUs
           left, which is enough
  starts   at 14:32 as likely as not (in 20m); 10 %: before 14:20, 90 %: before
           Mar 2 01:05 (from 200 ways the running jobs may end)
  history  withdrawn once: its workers did not become ready
           avoids node-3, where the last try failed
           stopped for others twice; the last time at 2026-03-01 11:00 UTC: what
           its tenant had borrowed was taken back for TrainingJob/prod/nightly
";
    assert_eq!(text, wanted, "\n{text}");
}

#[test]
fn a_job_that_runs_says_where() {
    let job =
        gang(json!({"state": "Running", "tenant": "research", "nodes": "node-6,node-7", "workers": "3/3"}));
    let text = told(&Story::of_gang(&job));
    assert!(text.starts_with("TrainingJob research/big does not wait: it is running\n"), "{text}");
    assert!(text.ends_with("  runs on  node-6,node-7\n"), "{text}");
    let unseen = told(&Story::of_gang(&gang(Value::Null)));
    assert!(
        unseen.starts_with("TrainingJob research/big was not looked at yet: is the operator"),
        "{unseen}"
    );
}

#[test]
fn a_gated_pod_has_its_reason_in_an_annotation() {
    let pod = |gates: Value| {
        let pod = json!({"metadata": {"name": "x-0", "namespace": "serving", "creationTimestamp": "2026-03-01T14:11:00Z",
                "labels": {"vingt.dev/inference-job": "x"},
                "annotations": {"vingt.dev/waiting": "needs 3g.40gb; 0 fit now"}},
            "spec": {"containers": [], "schedulingGates": gates,
                "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "mig-3g.40gb"}]},
            "status": {"phase": "Pending"}});
        Story::of_pod(&serde_json::from_value(pod).unwrap())
    };
    let text = told(&pod(json!([{"name": "vingt.dev/admission"}])));
    let wanted = "\
Pod serving/x-0 waits, for 1m
  asks for mig-3g.40gb
  because  needs 3g.40gb; 0 fit now
  history  belongs to InferenceJob x: ask `kubectl vingt why ij/x`
";
    assert_eq!(text, wanted, "\n{text}");
    let free = told(&pod(json!([])));
    assert!(free.starts_with("Pod serving/x-0 does not wait: it is pending\n"), "{free}");
    assert!(!free.contains("because"), "{free}");
}

#[test]
fn a_replica_on_its_way_is_told() {
    let job = json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "InferenceJob",
        "metadata": {"name": "chat", "namespace": "serving"},
        "spec": {"replicas": 3, "gpu": {"profile": "1g.10gb"}, "template": {"spec": {"containers": [{"name": "c"}]}}},
        "status": {"state": "Degraded", "tenant": "serving", "readyReplicas": 2, "waitingSince": "2026-03-01T14:11:30Z",
            "why": "needs 1g.10gb; 0 fit now",
            "move": {"pod": "chat-a", "podUid": "u", "by": "TrainingJob/p/y", "startedAt": "2026-03-01T14:11:00Z",
                "node": "node-1", "devices": []}}});
    let text = told(&Story::of_server(&serde_json::from_value(job).unwrap()));
    assert!(
        text.starts_with("InferenceJob serving/chat runs in part, for 30s\n  asks for 3 × 1g.10gb, 2 ready"),
        "{text}"
    );
    assert!(text.contains("chat-a is being replaced by one on node-1"), "{text}");
}

#[test]
fn what_would_help_is_listed() {
    let mut story = Story::of_gang(&gang(json!({"state": "Waiting", "why": "needs more"})));
    assert!(story.waits());
    assert_eq!(story.key(), "TrainingJob/research/big");
    story.helps = vec!["8 GPUs more".into(), "the end of x".into()];
    story.notes.push("nothing else".into());
    let wanted = "  helps    8 GPUs more\n           the end of x\n  note     nothing else\n";
    assert!(told(&story).ends_with(wanted), "{}", told(&story));
}
