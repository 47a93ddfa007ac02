//! Which writes of a gang may be under way at a time.

use kube::{Client, Config};
use vingt_core::lifecycle::{Failure, Outcome};

use super::*;
use crate::engine::Setup;
use crate::metrics::Metrics;
use crate::settings::Loaded;

/// An engine whose writes never get an answer.
pub fn engine() -> Engine {
    let client = Client::try_from(Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
    let metrics = Metrics::new().unwrap();
    Engine::new(Setup {
        writer: Writer::new(client, metrics.clone()),
        changes: tokio::sync::mpsc::unbounded_channel().1,
        namespace: "vingt".into(),
        identity: "test".into(),
        metrics,
        snapshots: crate::http::Snapshots::default(),
        settings: tokio::sync::watch::channel(Loaded::default()).1,
        synced: Box::new(|| {}),
    })
}

fn tracked(step: GangStep) -> Tracked {
    let job: TrainingJob = serde_json::from_value(json!({
        "apiVersion": "vingt.dev/v1alpha1", "kind": "TrainingJob",
        "metadata": {"name": "t", "namespace": "n", "uid": "u", "generation": 1},
        "spec": {"workers": 1, "gpu": {"count": 1}, "template": {"spec": {"containers": [{"name": "c"}]}}},
    }))
    .unwrap();
    let (key, gang) = (Key::new("n", "t"), Gang::default());
    Tracked { key, job: Arc::new(job), gang, step, record: Record::Nothing, pending: None, by: None }
}

#[tokio::test]
async fn a_plan_is_not_given_up_while_something_of_it_is_written() {
    let steps = [GangStep::ClearPlan, GangStep::Finish(Outcome::Failed(Failure::DeadlineExceeded))];
    for step in steps {
        let mut engine = engine();
        engine.busy.insert("TrainingJob/n/t".into());
        engine.follow_gang(tracked(step), None, &Tenancy::default(), 0);
        assert!(engine.tasks.is_empty(), "{step:?} beside another write");
        engine.busy.clear();
        engine.follow_gang(tracked(step), None, &Tenancy::default(), 0);
        assert_eq!(engine.tasks.len(), 1);
        assert!(engine.busy.contains("TrainingJob/n/t"), "nothing else is written beside {step:?}");
    }
}

#[tokio::test]
async fn one_that_starts_again_is_not_leaving_any_more() {
    let mut engine = engine();
    engine.remember_asked("TrainingJob/n/t", 1000);
    let decision = crate::engine::Pending { tenant: "t".into(), pods: vec![] };
    engine.start_decision("TrainingJob/n/t".into(), vec![], decision, |_| async { (vec![], Ok(())) });
    assert!(engine.asked.is_empty(), "else nobody could ask it again for as long as that is believed");
}

#[tokio::test]
async fn a_gang_that_is_asked_to_leave_records_for_whom_before_anything_else() {
    let mut engine = engine();
    let mut gang = tracked(GangStep::Wait { until_ms: None });
    gang.gang.facts.planned = true;
    gang.gang.facts.job = JobState::Running;
    let about = job_reference("TrainingJob", &Key::new("n", "big"), &kube::api::ObjectMeta::default());
    gang.ask(Leaving::Reclaimed, Beneficiary { workload: "TrainingJob/n/big".into(), about, cost: None }, 0);
    assert_eq!(gang.step, GangStep::Withdraw { reason: Leaving::Reclaimed, avoid: false });
    engine.follow_gang(gang, None, &Tenancy::default(), 1000);
    assert!(engine.busy.contains("TrainingJob/n/t/status"), "its status is written");
    assert!(!engine.busy.contains("TrainingJob/n/t"), "and nothing else");
    assert!(engine.asked.contains_key("TrainingJob/n/t"), "it is leaving from now on");
    assert_eq!(engine.announcements["TrainingJob/n/t/status"].len(), 2, "both sides are told");
}
