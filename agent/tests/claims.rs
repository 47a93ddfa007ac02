//! What the kubelet gets for which claim, in the order things happen on a node.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::Node;
use k8s_openapi::api::resource::v1::ResourceClaimConsumerReference;
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
    // And of one that was never prepared: nothing to take back, but its charge ends.
    agent.unprepare(node.claim("y", &[HALF])).await.unwrap();
    assert_eq!(node.ended(), ["uid-x", "uid-y"]);
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
    first.prepare(claim.clone()).await.unwrap();
    assert_eq!(std::fs::read_to_string(&spec).unwrap(), before);
    // As is one that says something else, such as an older driver's files.
    std::fs::write(&spec, "{}").unwrap();
    first.prepare(claim).await.unwrap();
    assert_eq!(std::fs::read_to_string(&spec).unwrap(), before);
    // Also at the start: the folder is emptied at each boot.
    std::fs::remove_file(&spec).unwrap();
    drop(first);
    drop(agent(&node).await);
    assert_eq!(std::fs::read_to_string(&spec).unwrap(), before);
    std::fs::write(&spec, "{}").unwrap();
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
    // Nothing but the boot tells it from ours.
    let made = &node.entries()["uid-y"].devices[0].created;
    let same = matches!(made, Created::Partition { gpu_instance, uuid, .. }
        if *gpu_instance == theirs[0].1.id && *uuid == theirs[0].1.uuids[0]);
    assert!(same, "{made:?} and {theirs:?}");
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

/// While the agent was away, somebody removed our partition and made some of their own in its place.
#[tokio::test]
async fn partitions_that_took_the_place_of_ours_are_not_ours() {
    let node = Node::new(&[true]);
    let claim = node.claim("x", &[HALF]);
    let before = agent(&node).await;
    before.prepare(claim.clone()).await.unwrap();
    drop(before);
    let ours = node.partitions()[0].1.clone();
    node.remove(0, ours.id);
    // Another profile of the same size and in the same place; the driver gives it the same id.
    node.foreign(0, 5, Placement { start: 0, size: 4 }, 64);
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

/// Sweeps for longer than the bound; whether the claim's entry is still there.
async fn survives(node: &Node, agent: &Preparer) -> bool {
    let mut memory = Sweep::default();
    for _ in 0..12 {
        agent.sweep(&mut memory).await;
        tokio::time::advance(Duration::from_secs(30)).await;
    }
    node.entries().contains_key("uid-x")
}

/// The record is taken off claims in use at an uninstall, and anybody who may write claims can damage it.
#[tokio::test(start_paused = true)]
async fn a_claim_in_use_keeps_its_partition_whatever_becomes_of_its_decision_record() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    let claim = node.claim("x", &[HALF]);
    agent.prepare(claim.clone()).await.unwrap();
    let good = node.read_claim("x");
    for record in [
        None,
        Some("{".to_owned()),
        Some(good.metadata.annotations.as_ref().unwrap()[names::DECISION].replace("uid-x", "uid-z")),
    ] {
        let mut damaged = good.clone();
        damaged.metadata.annotations = record.map(|record| [(names::DECISION.to_owned(), record)].into());
        node.write_claim(&damaged);
        assert!(survives(&node, &agent).await);
        // But nothing is prepared by it, and its place is not waited for.
        assert_eq!(refused(&agent, &claim).await.0, "undecided");
        assert_eq!(refused(&agent, &node.claim("y", &[IN_HALF])).await.0, "conflict");
        node.delete_claim("y");
    }
    // Reserved, if it is not allocated any more: somebody still wants it.
    let mut reserved = good.clone();
    let status = reserved.status.as_mut().unwrap();
    status.allocation = None;
    let user = ResourceClaimConsumerReference {
        name: "x".into(),
        resource: "pods".into(),
        uid: "u".into(),
        ..Default::default()
    };
    status.reserved_for = Some(vec![user]);
    node.write_claim(&reserved);
    assert!(survives(&node, &agent).await);
    assert_eq!(node.placed(), ["0 3g.40gb 0"]);

    reserved.status.as_mut().unwrap().reserved_for = None;
    node.write_claim(&reserved);
    assert!(!survives(&node, &agent).await);
    assert_eq!(node.placed(), [""; 0]);
}

/// A GPU that died: its pods must be able to end, and its claims do not come back as they were.
#[tokio::test]
async fn claims_of_a_gpu_that_is_gone_can_end() {
    let mut node = Node::new(&[true, true]);
    let claims = [
        node.claim("x", &[HALF]),
        node.claim("y", &["gpu-1-mig-3g40gb-9-0"]),
        node.claim("z", &["gpu-1-mig-1g10gb-19-4"]),
    ];
    let before = agent(&node).await;
    for claim in &claims {
        before.prepare(claim.clone()).await.unwrap();
    }
    drop(before);
    // The other one is as it was.
    node.reboot(&[true]);
    node.foreign(0, 9, Placement { start: 0, size: 4 }, 60);
    let agent = agent(&node).await;
    assert_eq!(refused(&agent, &claims[1]).await.0, "unknown-device");
    for claim in &claims[1..] {
        agent.unprepare(claim.clone()).await.unwrap();
    }
    assert_eq!(node.ended(), ["uid-y", "uid-z"]);
    assert_eq!(node.specs(), ["gpu.vingt.dev-mig-uid-x.json"]);
    assert_eq!(node.placed(), ["0 3g.40gb 0"]);
}

/// Two whole GPUs swap their numbers: whoever comes first must not get the other's.
#[tokio::test]
async fn a_whole_gpu_with_another_minor_number_is_not_the_one_that_was_given() {
    let node = Node::new(&[false, false]);
    let (x, y) = (node.claim("x", &["gpu-0"]), node.claim("y", &["gpu-1"]));
    let before = agent(&node).await;
    before.prepare(x.clone()).await.unwrap();
    before.prepare(y.clone()).await.unwrap();
    drop(before);
    node.swap_gpus();
    let (agent, found) = node.agent(Arc::new(Unobserved), Some("boot-2"));
    agent.recover(&found).await.unwrap();
    assert_eq!(node.specs(), [""; 0], "a spec names another's GPU");
    // What x is to have now is what y had, until y is settled too.
    assert_eq!(refused(&agent, &x).await.0, "conflict");
    assert_eq!(node.specs(), [""; 0]);
    agent.prepare(y).await.unwrap();
    agent.prepare(x).await.unwrap();
    let targets: Vec<_> = node.entries().into_values().map(|entry| entry.devices[0].target.clone()).collect();
    assert_eq!((targets[0].minor(), targets[1].minor()), (0, 1));
    assert_ne!(targets[0].gpu(), targets[1].gpu());
    assert_eq!(node.specs().len(), 2);
}

/// The same claim, let go and allocated anew on the same device: two uses, each with its own charge.
#[tokio::test]
async fn each_use_of_a_claim_ends_for_itself() {
    let node = Node::new(&[true]);
    let agent = agent(&node).await;
    let claim = node.claim("x", &[HALF]);
    agent.prepare(claim.clone()).await.unwrap();
    let mut again = node.read_claim("x");
    let record = again.metadata.annotations.as_mut().unwrap().get_mut(names::DECISION).unwrap();
    *record = record.replace("1970-01-01T00:00:00Z", "1970-01-01T00:00:09Z");
    node.write_claim(&again);
    agent.prepare(claim.clone()).await.unwrap();
    assert_eq!(node.ended(), ["uid-x"], "the first use has not ended");
    agent.prepare(claim.clone()).await.unwrap();
    agent.unprepare(claim).await.unwrap();
    assert_eq!(node.ended(), ["uid-x", "uid-x"]);
    let starts: Vec<_> = agent.journal().untold().iter().map(|ended| ended.start.as_second()).collect();
    assert_eq!(starts, [0, 9]);
}
