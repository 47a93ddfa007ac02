//! What others do to what is prepared, and what is found again without a journal.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::Node;
use vingt_agent::journal::{Created, Found, State};
use vingt_agent::metrics::Metrics;
use vingt_agent::nvml::Placement;
use vingt_agent::preparer::Preparer;
use vingt_agent::steps::Unobserved;

const HALF: &str = "gpu-0-mig-3g40gb-9-0";
const PLACE: Placement = Placement { start: 0, size: 4 };

async fn agent(node: &Node) -> (Preparer, Arc<Metrics>) {
    let metrics = Arc::new(Metrics::new().unwrap());
    let (agent, found) = node.agent_with(Arc::new(Unobserved), Some("boot-1"), metrics.clone());
    agent.recover(&found).await.unwrap();
    (agent, metrics)
}

fn lost(metrics: &Metrics) -> String {
    let text = metrics.text();
    let line = text.lines().find(|line| line.starts_with("vingt_agent_lost_partitions_total")).unwrap();
    line.rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_partition_that_somebody_removes_is_counted_once_and_given_up_for_good() {
    let node = Node::new(&[true]);
    let (first, metrics) = agent(&node).await;
    let claim = node.claim("x", &[HALF]);
    first.prepare(claim.clone()).await.unwrap();
    let with = node.inventory();
    first.note_lost(&with).await;
    assert_eq!((lost(&metrics).as_str(), node.specs().len()), ("0", 1));

    let ours = node.partitions()[0].1.id;
    node.remove(0, ours);
    let without = node.inventory();
    for _ in 0..2 {
        first.note_lost(&without).await;
        assert_eq!((lost(&metrics).as_str(), node.specs().len()), ("1", 0));
    }
    assert_eq!(node.entries()["uid-x"].devices[0].created, Created::Lost);
    // The like of it, made by somebody else: also for the next run of the agent.
    node.foreign(0, 9, PLACE, 60);
    let theirs = node.partitions();
    first.note_lost(&node.inventory()).await;
    drop(first);
    let (second, metrics) = agent(&node).await;
    assert_eq!(lost(&metrics), "0");
    assert_eq!(second.prepare(claim.clone()).await.unwrap_err().reason, "foreign-partition");
    second.unprepare(claim.clone()).await.unwrap();
    assert_eq!(node.partitions(), theirs);

    node.remove(0, ours);
    second.prepare(claim).await.unwrap();
    // An old reading says nothing about what was made since.
    second.note_lost(&without).await;
    assert_eq!((lost(&metrics).as_str(), node.specs().len()), ("0", 1));
}

#[tokio::test]
async fn a_loss_while_the_agent_is_away_is_counted_when_it_is_back() {
    let node = Node::new(&[true]);
    let (first, _) = agent(&node).await;
    first.prepare(node.claim("x", &[HALF])).await.unwrap();
    drop(first);
    node.remove(0, node.partitions()[0].1.id);
    let (second, metrics) = agent(&node).await;
    assert_eq!((lost(&metrics).as_str(), node.specs().len()), ("1", 0));
    second.note_lost(&node.inventory()).await;
    assert_eq!(lost(&metrics), "1");
    drop(second);
    assert_eq!(lost(&agent(&node).await.1), "0");
}

/// A GPU instance has the id of its place, whoever made it: somebody else's that is not finished.
#[tokio::test]
async fn a_bare_gpu_instance_in_the_place_of_ours_is_not_ours() {
    let node = Node::new(&[true]);
    let (agent, metrics) = agent(&node).await;
    for noticed in [true, false] {
        let claim = node.claim("x", &[HALF]);
        agent.prepare(claim.clone()).await.unwrap();
        node.remove(0, node.partitions()[0].1.id);
        node.foreign_half(0, 9, PLACE);
        if noticed {
            agent.note_lost(&node.inventory()).await;
            assert_eq!(lost(&metrics), "1");
        }
        agent.unprepare(claim).await.unwrap();
        assert_eq!(node.placed(), ["0 3g.40gb 0"]);
        node.remove(0, node.partitions()[0].1.id);
    }
}

/// An idle GPU shows nothing of the claim that has it, but its spec does.
#[tokio::test]
async fn a_lost_journal_is_rebuilt_also_for_whole_gpus_that_are_idle() {
    let node = Node::new(&[false]);
    let (first, _) = agent(&node).await;
    let claim = node.claim("x", &["gpu-0"]);
    first.prepare(claim.clone()).await.unwrap();
    drop(first);
    std::fs::remove_file(node.root.join("agent/journal.json")).unwrap();
    let (second, found) = node.agent(Arc::new(Unobserved), Some("boot-1"));
    assert_eq!(found, Found::Nothing);
    second.recover(&found).await.unwrap();
    assert_eq!(node.entries()["uid-x"].state, State::Prepared);
    second.unprepare(claim).await.unwrap();
    assert_eq!(node.ended(), ["uid-x"]);
}
