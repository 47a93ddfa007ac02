//! The end of a claim is told to the API server: once, whatever fails in
//! between, and only where it is waited for.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;

use common::Node;
use k8s_openapi::jiff::Timestamp;
use vingt_agent::preparer::{ClaimRef, Preparer};
use vingt_agent::steps::Unobserved;
use vingt_crds::names;

const HALF: &str = "gpu-0-mig-3g40gb-9-0";

async fn agent(node: &Node) -> Preparer {
    let (agent, found) = node.agent(Arc::new(Unobserved), None);
    agent.recover(&found).await.unwrap();
    agent
}

async fn used(node: &Node, agent: &Preparer) -> ClaimRef {
    let claim = node.claim("x", &[HALF]);
    agent.prepare(claim.clone()).await.unwrap();
    agent.unprepare(claim.clone()).await.unwrap();
    claim
}

fn told(node: &Node) -> Option<Timestamp> {
    vingt_crds::ended(&node.read_claim("x").metadata)
}

#[tokio::test]
async fn the_end_is_told_to_the_millisecond_and_then_forgotten() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    used(&node, &agent).await;
    let recorded = agent.journal().untold()[0].end;
    assert!(agent.tell_ends_once().await);
    assert_eq!(told(&node), Some(recorded));
    let written = node.read_claim("x").metadata.annotations.unwrap()[names::ENDED].clone();
    assert_eq!(written.len(), "2026-11-24T12:00:00.000Z".len(), "{written}");
    assert_eq!((agent.journal().untold(), node.ended()), (vec![], vec![]));
}

#[tokio::test]
async fn an_end_that_could_not_be_told_is_told_by_the_next_agent() {
    let node = Node::new(&[true]);
    let before = agent(&node).await;
    used(&node, &before).await;
    let recorded = before.journal().untold()[0].end;
    std::fs::rename(node.root.join("claims"), node.root.join("away")).unwrap();
    assert!(!before.tell_ends_once().await, "the API server is away");
    drop(before);
    let agent = agent(&node).await;
    assert_eq!(agent.journal().untold().len(), 1);
    std::fs::rename(node.root.join("away"), node.root.join("claims")).unwrap();
    assert!(agent.tell_ends_once().await);
    assert_eq!(told(&node), Some(recorded));
}

#[tokio::test]
async fn an_end_that_nobody_waits_for_is_forgotten() {
    type Change = fn(&Node);
    let gone: Change = |node| node.delete_claim("x");
    let another: Change = |node| {
        let mut claim = node.read_claim("x");
        claim.metadata.uid = Some("another".into());
        node.write_claim(&claim);
    };
    let anew: Change = |node| {
        let mut claim = node.read_claim("x");
        let record = claim.metadata.annotations.as_mut().unwrap().get_mut(names::DECISION).unwrap();
        *record = record.replace("1970-01-01T00:00:00Z", "1970-01-01T00:00:09Z");
        node.write_claim(&claim);
    };
    let undecided: Change = |node| {
        let mut claim = node.read_claim("x");
        claim.metadata.annotations = None;
        node.write_claim(&claim);
    };
    for (change, there) in [(gone, false), (another, true), (anew, true), (undecided, true)] {
        let node = Node::new(&[true]);
        let agent = agent(&node).await;
        used(&node, &agent).await;
        change(&node);
        assert!(agent.tell_ends_once().await);
        assert_eq!(agent.journal().untold(), []);
        assert!(!there || told(&node).is_none());
    }
}

/// The pods of a shared claim come and go while it stays allocated.
#[tokio::test]
async fn a_use_that_goes_on_ends_when_it_last_ends() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    let claim = used(&node, &agent).await;
    assert!(agent.tell_ends_once().await);
    let first = told(&node).unwrap();
    agent.prepare(claim.clone()).await.unwrap();
    agent.unprepare(claim.clone()).await.unwrap();
    let second = agent.journal().untold()[0].end;
    agent.prepare(claim.clone()).await.unwrap();
    assert_eq!(agent.journal().untold(), [], "it goes on");
    agent.unprepare(claim).await.unwrap();
    let third = agent.journal().untold()[0].end;
    assert!(agent.tell_ends_once().await);
    assert_eq!(told(&node), Some(third));
    assert!(first <= second && second <= third);
}

#[tokio::test]
async fn a_claim_of_which_nothing_was_made_ends_when_the_kubelet_says_so() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    let claim = node.claim("x", &[HALF]);
    agent.unprepare(claim.clone()).await.unwrap();
    let end = agent.journal().untold()[0].end;
    assert!(agent.tell_ends_once().await);
    agent.unprepare(claim).await.unwrap();
    assert!(agent.tell_ends_once().await);
    assert_eq!(told(&node), Some(end), "the first end stays");
}
