//! Lets each NVML call on the way of prepare and of unprepare fail once, or
//! take long, and looks at what is there afterwards.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use common::Node;
use nvml_emulator::{ANY, Action, Code, Moment};
use vingt_agent::nvml::{MigMode, Nvml, Placement, Session};
use vingt_agent::preparer::{ClaimRef, Preparer};
use vingt_agent::steps::Unobserved;

const DEVICES: [&str; 1] = ["gpu-0-mig-3g40gb-9-4"];

async fn start(node: &Node) -> (Preparer, ClaimRef) {
    let claim = node.claim("x", &DEVICES);
    node.foreign(0, 19, Placement { start: 1, size: 1 }, 16);
    let (agent, found) = node.agent(Arc::new(Unobserved), None);
    agent.recover(&found).await.unwrap();
    (agent, claim)
}

/// Number of partitions, the one of somebody else included.
fn partitions(node: &Node) -> usize {
    node.partitions().len()
}

/// Injects a fault into the n-th call from now; whether it struck is told by [`struck`].
fn inject(node: &Node, call: u64, action: Action, moment: Moment) {
    node.emulator.clear_faults().unwrap();
    node.emulator.inject(ANY, call, action, moment).unwrap();
}

/// The function in which the fault struck.
fn struck(node: &Node) -> Option<String> {
    let struck = node.emulator.faults().unwrap()[0].fired_in.clone();
    node.emulator.clear_faults().unwrap();
    struck
}

async fn walk(moment: Moment) {
    let node = Node::new(&[true]);
    let (agent, claim) = start(&node).await;
    let mut failed = std::collections::BTreeSet::new();
    for call in 1.. {
        inject(&node, call, Action::Error(Code::Unknown), moment);
        let result = agent.prepare(claim.clone()).await;
        let Some(function) = struck(&node) else {
            result.unwrap();
            println!("prepare: {} calls failed {moment:?} their work, of {failed:?}", call - 1);
            break;
        };
        let when = format!("{function}, call {call}, failed {moment:?} its work");
        match result {
            Ok(devices) => assert_eq!((devices.len(), partitions(&node)), (1, 2), "{when}"),
            Err(refusal) => {
                assert!(refusal.to_string().contains("999"), "{when}: {refusal}");
                // A second call may be needed where the way back failed too.
                agent.sweep(&mut vingt_agent::preparer::Sweep::default()).await;
                assert_eq!(partitions(&node), 1, "{when}");
                assert!(node.entries().is_empty() && node.specs().is_empty(), "{when}");
            }
        }
        failed.insert(function);
        agent.prepare(claim.clone()).await.expect(&when);
        assert_eq!(partitions(&node), 2, "{when}");
        agent.unprepare(claim.clone()).await.expect(&when);
        assert_eq!(partitions(&node), 1, "{when}");
    }
    for function in ["nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceCreateComputeInstance"] {
        assert!(failed.contains(function), "{function} never failed");
    }

    failed.clear();
    for call in 1.. {
        agent.prepare(claim.clone()).await.unwrap();
        inject(&node, call, Action::Error(Code::Unknown), moment);
        let result = agent.unprepare(claim.clone()).await;
        let Some(function) = struck(&node) else {
            result.unwrap();
            println!("unprepare: {} calls failed {moment:?} their work, of {failed:?}", call - 1);
            break;
        };
        let when = format!("{function}, call {call}, failed {moment:?} its work");
        if result.is_err() {
            // The kubelet is told, and the journal remembers, until it succeeds.
            assert_eq!(node.entries().len(), 1, "{when}");
            agent.unprepare(claim.clone()).await.expect(&when);
        }
        failed.insert(function);
        assert_eq!(partitions(&node), 1, "{when}");
        assert!(node.entries().is_empty() && node.specs().is_empty(), "{when}");
    }
    for function in ["nvmlGpuInstanceDestroy", "nvmlComputeInstanceDestroy"] {
        assert!(failed.contains(function), "{function} never failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_fails_once_instead_of_its_work() {
    walk(Moment::Before).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_fails_once_after_its_work() {
    walk(Moment::After).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_long_is_waited_for() {
    let node = Node::new(&[true]);
    let (agent, claim) = start(&node).await;
    for function in ["nvmlDeviceCreateGpuInstanceWithPlacement", "nvmlGpuInstanceCreateComputeInstance"] {
        node.emulator.inject(function, 1, Action::DelayMs(300), Moment::Before).unwrap();
    }
    // The kubelet gives up, and its handler's future is dropped in the middle.
    let given_up = tokio::time::timeout(Duration::from_millis(100), agent.prepare(claim.clone())).await;
    assert!(given_up.is_err());
    // Its next call joins the work that went on.
    let ready = agent.prepare(claim.clone()).await.unwrap();
    assert_eq!(ready.len(), 1);
    assert_eq!(partitions(&node), 2);
    node.emulator.inject("nvmlGpuInstanceDestroy", 1, Action::DelayMs(300), Moment::After).unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(100), agent.unprepare(claim.clone())).await;
    assert!(given_up.is_err());
    agent.unprepare(claim).await.unwrap();
    assert_eq!(partitions(&node), 1);
    assert_eq!(node.ended(), ["uid-x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_still_in_use_is_waited_for() {
    let node = Node::new(&[true]);
    let (agent, claim) = start(&node).await;
    agent.prepare(claim.clone()).await.unwrap();
    for _ in 0..3 {
        node.emulator
            .inject("nvmlGpuInstanceDestroy", 1, Action::Error(Code::InUse), Moment::Before)
            .unwrap();
    }
    agent.unprepare(claim).await.unwrap();
    assert_eq!(partitions(&node), 1);
}

#[test]
fn every_call_of_the_first_reading_fails_once() {
    let node = Node::new(&[true]);
    let library = node.root.join("libnvidia-ml.so.1");
    let whole = Session::open(library.as_os_str()).unwrap().inventory().unwrap();
    for call in 1.. {
        inject(&node, call, Action::Error(Code::GpuIsLost), Moment::Before);
        let seen = Session::open(library.as_os_str()).and_then(|session| session.inventory());
        let Some(function) = struck(&node) else {
            println!("first reading: {} calls failed", call - 1);
            assert!(call > 10);
            break;
        };
        if let Ok(seen) = seen {
            // Whole, or the GPU is said to be unreadable: never half of it.
            assert!(
                seen == whole || seen.gpus.is_empty() && seen.unreadable.len() == 1,
                "{function}: {seen:?}"
            );
        }
    }
}

/// The driver keeps a wish that it cannot fulfil, and the GPU would be withheld until its next reset.
#[test]
fn a_mode_switch_that_fails_leaves_no_wish_behind() {
    let node = Node::new(&[false, true]);
    let session = Session::open(node.root.join("libnvidia-ml.so.1").as_os_str()).unwrap();
    node.emulator.add_process(0, None, 4711, 1 << 30).unwrap();
    node.foreign(1, 19, Placement { start: 1, size: 1 }, 16);
    for (minor, before) in [(0, MigMode::Disabled), (1, MigMode::Enabled)] {
        let gpu = session.inventory().unwrap().by_minor(minor).unwrap().clone();
        assert_eq!(gpu.mig, before);
        let error = session.set_mig_mode(&gpu.uuid, before == MigMode::Disabled).unwrap_err();
        assert!(error.to_string().contains("activation status is 19"), "{error}");
        assert_eq!(session.gpu(&gpu.uuid).unwrap().mig, before);
    }
}

/// As long as it may be the one that cannot be read, a GPU is not taken to be gone.
#[test]
fn a_gpu_is_gone_only_if_all_others_can_be_read() {
    let node = Node::new(&[true, true]);
    let library = node.root.join("libnvidia-ml.so.1");
    let session = Session::open(library.as_os_str()).unwrap();
    let lost = Action::Error(Code::GpuIsLost);
    node.emulator.inject("nvmlDeviceGetUUID", 1, lost, Moment::Before).unwrap();
    let error = session.gpu_if_there("GPU-none").unwrap_err();
    assert!(error.to_string().contains("the one at index 0 cannot"), "{error}");
    assert_eq!(session.gpu_if_there("GPU-none").unwrap(), None);
    let uuid = &session.inventory().unwrap().gpus[0].uuid;
    assert!(session.gpu_if_there(uuid).unwrap().is_some());
}

/// What a driver does not tell, or somebody has just destroyed, does not hide the rest of the GPU.
#[test]
fn an_answer_that_is_missing_costs_what_it_is_about_and_no_more() {
    let node = Node::new(&[true]);
    node.foreign(0, 19, Placement { start: 1, size: 1 }, 16);
    let library = node.root.join("libnvidia-ml.so.1");
    let read = |function: &str, code: Code| {
        node.emulator.inject(function, 1, Action::Error(code), Moment::Before).unwrap();
        // A session of its own: what is known of a GPU is asked for once.
        let mut seen = Session::open(library.as_os_str()).unwrap().inventory().unwrap();
        assert_eq!(struck(&node).as_deref(), Some(function));
        assert_eq!(seen.unreadable, []);
        seen.gpus.remove(0)
    };
    let gpu = read("nvmlDeviceGetArchitecture", Code::NotSupported);
    assert_eq!((gpu.architecture.as_str(), gpu.switches_mig_live), ("unknown", false));
    let all = gpu.profiles.len();
    let gpu = read("nvmlDeviceGetGpuInstancePossiblePlacements_v2", Code::NotSupported);
    assert_eq!((gpu.profiles.len(), gpu.instances.len()), (all, 1));
    assert_eq!(gpu.profiles.iter().filter(|profile| profile.placements.is_empty()).count(), 1);
    for code in [Code::InvalidArgument, Code::NotFound] {
        let gpu = read("nvmlComputeInstanceGetInfo_v2", code);
        assert_eq!((gpu.profiles.len(), gpu.instances[0].compute.len()), (all, 0));
    }
}

/// NVML finds the GPUs when it is initialised: one that was reset since can only be read by a new session.
#[tokio::test]
async fn a_session_that_has_lost_a_gpu_is_replaced_but_not_over_and_over() {
    let node = Node::new(&[true]);
    for code in [Code::GpuIsLost, Code::ResetRequired, Code::Unknown] {
        let nvml = Nvml::start(node.root.join("libnvidia-ml.so.1").into_os_string(), "/".into()).unwrap();
        nvml.call(Session::inventory).await.unwrap();
        for opened in [true, false] {
            node.emulator.clear_faults().unwrap();
            node.emulator.inject("nvmlInit_v2", 1, Action::DelayMs(0), Moment::Before).unwrap();
            node.emulator.inject("nvmlDeviceGetMigMode", 1, Action::Error(code), Moment::Before).unwrap();
            assert_eq!(nvml.call(Session::inventory).await.unwrap().unreadable.len(), 1);
            assert_eq!(nvml.call(Session::inventory).await.unwrap().unreadable, []);
            assert_eq!(node.emulator.faults().unwrap()[0].fired_in.is_some(), opened, "{code:?}");
        }
    }
}
