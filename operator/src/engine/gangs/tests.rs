//! Which writes of a gang may be under way at a time.

use kube::{Client, Config};
use vingt_core::lifecycle::{Failure, Outcome};

use super::*;
use crate::engine::Setup;
use crate::metrics::Metrics;

/// An engine whose writes never get an answer.
fn engine() -> Engine {
    let client = Client::try_from(Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
    let metrics = Metrics::new().unwrap();
    Engine::new(Setup {
        writer: Writer::new(client, metrics.clone()),
        changes: tokio::sync::mpsc::unbounded_channel().1,
        namespace: "vingt".into(),
        identity: "test".into(),
        metrics,
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
    Tracked { key, job: Arc::new(job), gang, step, record: Record::Nothing, pending: None }
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
