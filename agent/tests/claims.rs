//! What the kubelet gets for which claim, in the order things happen on a node.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::Node;
use vingt_agent::journal::{Created, Found, State};
use vingt_agent::nvml::Placement;
use vingt_agent::preparer::{ClaimRef, Preparer, Sweep};
use vingt_agent::steps::Unobserved;
use vingt_crds::names;

const HALF: &str = "gpu-0-mig-3g40gb-9-0";
const IN_HALF: &str = "gpu-0-mig-1g10gb-19-1";
const OTHER_HALF: &str = "gpu-0-mig-3g40gb-9-4";

async fn agent(node: &Node) -> Preparer {
    let (agent, found) = node.agent(Arc::new(Unobserved), Some("boot-1"));
    agent.recover(&found).await.unwrap();
    agent
}

async fn refused(agent: &Preparer, claim: &ClaimRef) -> (&'static str, String) {
    let refusal = agent.prepare(claim.clone()).await.unwrap_err();
    (refusal.reason, refusal.message)
}

#[tokio::test]
async fn preparing_and_unpreparing_twice_is_the_same_as_once() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    let claim = node.claim("x", &[HALF]);
    let first = agent.prepare(claim.clone()).await.unwrap();
    assert_eq!(first[0].cdi_id, "gpu.vingt.dev/mig=uid-x-gpu-0-mig-3g40gb-9-0");
    assert_eq!((first[0].decided.request.as_str(), first[0].decided.pool.as_str()), ("gpu", "n1"));
    let made = node.partitions();
    assert_eq!(agent.prepare(claim.clone()).await.unwrap(), first);
    assert_eq!(node.partitions(), made);
    agent.unprepare(claim.clone()).await.unwrap();
    assert_eq!(node.placed(), [""; 0]);
    agent.unprepare(claim.clone()).await.unwrap();
    assert_eq!(node.ended(), ["uid-x"]);
    // And of one that was never prepared.
    agent.unprepare(node.claim("y", &[HALF])).await.unwrap();
    assert_eq!(node.ended(), ["uid-x"]);
}

#[tokio::test]
async fn a_spec_that_was_lost_is_written_again() {
    let node = Node::new(&[true]);
    let claim = node.claim("x", &[HALF]);
    let first = agent(&node).await;
    first.prepare(claim.clone()).await.unwrap();
    let spec = node.root.join("cdi").join(&node.specs()[0]);
    let before = std::fs::read_to_string(&spec).unwrap();
    std::fs::remove_file(&spec).unwrap();
    first.prepare(claim).await.unwrap();
    assert_eq!(std::fs::read_to_string(&spec).unwrap(), before);
    // Also at the start: the folder is emptied at each boot.
    std::fs::remove_file(&spec).unwrap();
    drop(first);
    agent(&node).await;
    assert_eq!(std::fs::read_to_string(&spec).unwrap(), before);
}

#[tokio::test]
async fn nothing_is_made_for_a_claim_that_was_not_decided_for_this_node() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    let claim = node.claim("x", &[HALF]);
    let good = node.read_claim("x");

    let mut undecided = good.clone();
    undecided.metadata.annotations = None;
    node.write_claim(&undecided);
    let (reason, message) = refused(&agent, &claim).await;
    assert_eq!(reason, "undecided");
    assert!(message.contains("no decision record"), "{message}");

    let mut other_node = good.clone();
    let record = other_node.metadata.annotations.as_mut().unwrap().get_mut(names::DECISION).unwrap();
    *record = record.replace(r#""node":"n1""#, r#""node":"n2""#);
    node.write_claim(&other_node);
    let (reason, message) = refused(&agent, &claim).await;
    assert_eq!(reason, "undecided");
    assert!(message.contains("decided for node n2"), "{message}");

    node.write_claim(&good);
    let other_uid = ClaimRef { uid: "uid-older".into(), ..claim.clone() };
    assert_eq!(refused(&agent, &other_uid).await.0, "claim-gone");
    node.delete_claim("x");
    assert_eq!(refused(&agent, &claim).await.0, "claim-gone");
    let unknown = node.claim("y", &["gpu-7"]);
    assert_eq!(refused(&agent, &unknown).await.0, "unknown-device");

    assert_eq!(node.placed(), [""; 0]);
    assert!(node.entries().is_empty() && node.specs().is_empty());
}

#[tokio::test]
async fn a_place_that_a_live_claim_holds_is_refused_at_once() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    agent.prepare(node.claim("x", &[HALF])).await.unwrap();
    let began = tokio::time::Instant::now();
    let (reason, message) = refused(&agent, &node.claim("y", &[IN_HALF])).await;
    assert_eq!(reason, "conflict");
    assert!(message.contains("prod/x"), "{message}");
    assert!(began.elapsed() < Duration::from_secs(30));
    assert_eq!(refused(&agent, &node.claim("z", &["gpu-0"])).await.0, "conflict");
    agent.prepare(node.claim("w", &[OTHER_HALF])).await.unwrap();
    assert_eq!(node.placed().len(), 2);
}

/// A pod deleted by force: its claim is gone, its unprepare comes later, and the next pod is there first.
#[tokio::test]
async fn a_place_that_is_still_to_be_taken_back_is_waited_for() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    let old = node.claim("x", &[HALF]);
    agent.prepare(old.clone()).await.unwrap();
    node.delete_claim("x");
    let new = node.claim("y", &[IN_HALF]);
    let mut waiting = tokio::spawn({
        let agent = agent.clone();
        async move { agent.prepare(new).await }
    });
    // It is waiting, not refused, until the kubelet has taken the old one back.
    let early = tokio::time::timeout(Duration::from_millis(300), &mut waiting).await;
    assert!(early.is_err(), "not waited: {early:?}");
    agent.unprepare(old).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap().len(), 1);
    assert_eq!(node.placed(), ["0 1g.10gb 1"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_with_the_name_of_the_holder_or_with_the_claims_own_end() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    agent.prepare(node.claim("x", &[HALF])).await.unwrap();
    node.delete_claim("x");
    let claim = node.claim("y", &[IN_HALF]);
    let (reason, message) = refused(&agent, &claim).await;
    assert_eq!(reason, "occupied");
    assert!(message.contains("prod/x"), "{message}");

    let waiting = tokio::spawn({
        let (agent, claim) = (agent.clone(), claim.clone());
        async move { agent.prepare(claim).await }
    });
    tokio::task::yield_now().await;
    agent.unprepare(claim).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().reason, "cancelled");
    assert_eq!(node.placed(), ["0 3g.40gb 0"]);
}

#[tokio::test]
async fn somebody_elses_partition_is_in_the_way_and_stays() {
    let node = Node::new(&[true]);
    node.foreign(0, 19, Placement { start: 1, size: 1 }, 16);
    let before = node.partitions();
    let agent = agent(&node).await;
    // In the way, in the very place, and as a whole.
    for device in [HALF, IN_HALF, "gpu-0"] {
        let claim = node.claim("x", &[device]);
        assert_eq!(refused(&agent, &claim).await.0, "foreign-partition", "{device}");
        agent.unprepare(claim).await.unwrap();
    }
    assert_eq!(node.partitions(), before);
    assert!(node.entries().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_whole_gpu_is_given_when_it_is_idle() {
    let node = Node::new(&[false]);
    node.emulator.add_process(0, None, 4711, 1 << 30).unwrap();
    let agent = agent(&node).await;
    let claim = node.claim("x", &["gpu-0"]);
    let (reason, message) = refused(&agent, &claim).await;
    assert_eq!(reason, "in-use");
    assert!(message.contains("1 processes"), "{message}");
    node.emulator.remove_process(4711).unwrap();
    let ready = agent.prepare(claim.clone()).await.unwrap();
    assert_eq!(ready[0].cdi_id, "gpu.vingt.dev/mig=uid-x-gpu-0");
    agent.unprepare(claim).await.unwrap();
    assert_eq!(node.ended(), ["uid-x"]);
}

#[tokio::test]
async fn mig_mode_is_switched_only_where_allowed() {
    let mut node = Node::new(&[false]);
    node.switch = false;
    let (partition, whole) = (node.claim("x", &[HALF]), node.claim("y", &["gpu-0"]));
    let strict = agent(&node).await;
    let (reason, message) = refused(&strict, &partition).await;
    assert_eq!(reason, "mode-switch");
    assert!(message.contains("--allow-mig-mode-switch"), "{message}");
    drop(strict);

    node.switch = true;
    let agent = agent(&node).await;
    agent.prepare(partition.clone()).await.unwrap();
    assert!(node.emulator.occupancy().unwrap()[0].mig);
    agent.unprepare(partition).await.unwrap();
    // Left as it is until somebody needs the other mode.
    assert!(node.emulator.occupancy().unwrap()[0].mig);
    agent.prepare(whole).await.unwrap();
    assert!(!node.emulator.occupancy().unwrap()[0].mig);
}

/// The same claim, allocated anew while the kubelet owed us the end of its old use.
#[tokio::test]
async fn a_claim_that_is_decided_anew_gets_its_new_device_only() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    agent.prepare(node.claim("x", &[HALF])).await.unwrap();
    agent.prepare(node.claim("x", &[OTHER_HALF])).await.unwrap();
    assert_eq!(node.placed(), ["0 3g.40gb 4"]);
}

#[tokio::test]
async fn after_a_reboot_the_partition_is_made_anew_and_nobody_elses_is_taken_for_it() {
    let mut node = Node::new(&[true]);
    let claims = [node.claim("x", &[HALF]), node.claim("y", &[OTHER_HALF])];
    let before = agent(&node).await;
    for claim in &claims {
        before.prepare(claim.clone()).await.unwrap();
    }
    drop(before);
    node.reboot(&[true]);
    // Somebody's boot script was faster, in the very place of y.
    node.foreign(0, 9, Placement { start: 4, size: 4 }, 60);
    let theirs = node.partitions();
    let (agent, found) = node.agent(Arc::new(Unobserved), Some("boot-2"));
    assert_eq!(found, Found::Whole { rebooted: true });
    agent.recover(&found).await.unwrap();
    assert_eq!(node.partitions(), theirs);
    assert_eq!(node.entries()["uid-y"].devices[0].created, Created::Lost);
    agent.prepare(claims[0].clone()).await.unwrap();
    assert_eq!(refused(&agent, &claims[1]).await.0, "foreign-partition");
    assert_eq!(node.placed(), ["0 3g.40gb 0", "0 3g.40gb 4"]);
    for claim in claims {
        agent.unprepare(claim).await.unwrap();
    }
    assert_eq!(node.partitions(), theirs);
}

/// While the agent was away, somebody removed our partition and made one of their own in its place.
#[tokio::test]
async fn a_partition_that_took_the_place_of_ours_is_not_ours() {
    let node = Node::new(&[true]);
    let claim = node.claim("x", &[HALF]);
    let before = agent(&node).await;
    before.prepare(claim.clone()).await.unwrap();
    drop(before);
    let ours = node.partitions()[0].1.clone();
    node.remove(0, ours.id);
    node.foreign(0, 9, Placement { start: 0, size: 4 }, 60);
    let theirs = node.partitions();
    assert_eq!((theirs[0].1.id, theirs[0].1.start), (ours.id, ours.start), "the same id and place");
    let agent = agent(&node).await;
    assert_eq!(refused(&agent, &claim).await.0, "foreign-partition");
    agent.unprepare(claim).await.unwrap();
    assert_eq!(node.partitions(), theirs);
}

#[tokio::test]
async fn a_lost_or_damaged_journal_is_rebuilt_from_decided_claims_and_destroys_nothing() {
    for damage in ["{ \"format\": ", "", "gone"] {
        let node = Node::new(&[true]);
        let claim = node.claim("x", &[HALF]);
        let before = agent(&node).await;
        before.prepare(claim.clone()).await.unwrap();
        // Its claim is gone when the journal is: nothing tells any more that it is ours.
        before.prepare(node.claim("y", &["gpu-0-mig-1g10gb-19-4"])).await.unwrap();
        drop(before);
        node.delete_claim("y");
        node.foreign(0, 19, Placement { start: 5, size: 1 }, 16);
        let partitions = node.partitions();
        let journal = node.root.join("agent/journal.json");
        if damage == "gone" {
            std::fs::remove_file(&journal).unwrap();
        } else {
            std::fs::write(&journal, damage).unwrap();
        }

        let (agent, found) = node.agent(Arc::new(Unobserved), Some("boot-1"));
        assert!(matches!(found, Found::Corrupt(_) | Found::Nothing));
        // Without the API server nothing is decided.
        std::fs::rename(node.root.join("claims"), node.root.join("away")).unwrap();
        assert_eq!(agent.recover(&found).await.unwrap_err().reason, "api-server");
        std::fs::rename(node.root.join("away"), node.root.join("claims")).unwrap();
        agent.recover(&found).await.unwrap();
        assert_eq!(node.partitions(), partitions);
        let entries = node.entries();
        assert_eq!(entries.keys().collect::<Vec<_>>(), ["uid-x"]);
        assert_eq!(entries["uid-x"].state, State::Prepared);

        agent.unprepare(claim).await.unwrap();
        assert_eq!(node.placed(), ["0 1g.10gb 4", "0 1g.10gb 5"]);
        assert_eq!(node.ended(), ["uid-x"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_the_kubelet_forgot_is_taken_back_after_the_bound_and_not_before() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    agent.prepare(node.claim("x", &[HALF])).await.unwrap();
    agent.prepare(node.claim("y", &[OTHER_HALF])).await.unwrap();
    node.delete_claim("x");
    let mut memory = Sweep::default();
    let begin = tokio::time::Instant::now();
    while node.entries().contains_key("uid-x") {
        assert!(begin.elapsed() < Duration::from_secs(300), "never taken back");
        agent.sweep(&mut memory).await;
        tokio::time::advance(Duration::from_secs(30)).await;
    }
    assert!(begin.elapsed() >= Duration::from_secs(120), "too early: {:?}", begin.elapsed());
    assert_eq!(node.placed(), ["0 3g.40gb 4"]);
    assert_eq!(node.ended(), ["uid-x"]);
}
