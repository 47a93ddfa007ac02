//! Kills the agent at every step of prepare and of unprepare, and between any
//! two NVML calls of them, starts it anew, and looks at what is there: the
//! claim is prepared exactly once or not at all, nothing is left over, and
//! nobody else's partition is touched.
//!
//! The agent that is killed is this program, started again as a child.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::Node;
use nvml_emulator::{Action, Moment};
use vingt_agent::journal::State;
use vingt_agent::nvml::Placement;
use vingt_agent::preparer::ClaimRef;
use vingt_agent::steps::Steps;

const PREPARE: &str = "prepare";
const UNPREPARE: &str = "unprepare";
const RECOVER: &str = "recover";

/// Two partitions, one on a GPU whose MIG mode is off at first.
const DEVICES: [&str; 2] = ["gpu-0-mig-3g40gb-9-4", "gpu-1-mig-1g10gb-me-20-2"];
const WHOLE: [&str; 1] = ["gpu-1"];

/// Ends the process at one step, and writes down the steps on the way.
struct KillAt {
    step: usize,
    reached: AtomicUsize,
    log: std::path::PathBuf,
}

impl Steps for KillAt {
    fn reached(&self, step: &'static str) {
        use std::io::Write;
        let number = self.reached.fetch_add(1, Ordering::SeqCst);
        let mut log = fs::File::options().create(true).append(true).open(&self.log).unwrap();
        writeln!(log, "{step}").unwrap();
        if number == self.step {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
            // The signal may take a moment; nothing must happen meanwhile.
            loop {
                std::thread::park();
            }
        }
    }
}

/// The child: recovers, does one thing, and is killed on the way or not. Nothing in the parent.
#[test]
fn child() {
    let Ok(root) = std::env::var("CRASH_ROOT") else { return };
    let variable = |name: &str| std::env::var(name).unwrap();
    let steps = Arc::new(KillAt {
        step: variable("CRASH_STEP").parse().unwrap(),
        reached: AtomicUsize::new(0),
        log: Path::new(&root).join("steps.log"),
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let node = Node::at(Path::new(&root));
        let (agent, found) = node.agent(steps, None);
        agent.recover(&found).await.unwrap();
        let claim = reference();
        match variable("CRASH_WHAT").as_str() {
            PREPARE => drop(agent.prepare(claim).await.unwrap()),
            UNPREPARE => agent.unprepare(claim).await.unwrap(),
            _ => {}
        }
    });
}

fn reference() -> ClaimRef {
    ClaimRef { namespace: "prod".into(), name: "x".into(), uid: "uid-x".into() }
}

/// Runs the child; whether it was killed, rather than coming to its end.
fn killed(node: &Node, what: &str, step: usize) -> bool {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("CRASH_ROOT", &node.root)
        .env("CRASH_WHAT", what)
        .env("CRASH_STEP", step.to_string())
        .output()
        .unwrap();
    match (status.status.signal(), status.status.success()) {
        (Some(9), _) => true,
        (None, true) => false,
        _ => panic!("{what} at step {step}: {}", String::from_utf8_lossy(&status.stderr)),
    }
}

const NEVER: usize = usize::MAX;

/// A node with somebody else's partition, and a claim.
fn node(devices: &[&str]) -> Node {
    let node = Node::new(&[true, false]);
    node.claim("x", devices);
    node.foreign(0, 19, Placement { start: 1, size: 1 }, 16);
    node
}

fn foreign(node: &Node) -> Vec<(u32, Vec<String>)> {
    let theirs = node.partitions().into_iter().filter(|(_, p)| p.start == 1 && p.profile_id == 19);
    theirs.map(|(_, p)| (p.serial, p.uuids)).collect()
}

/// Partitions that are not somebody else's, with the number of compute instances in each.
fn ours(node: &Node) -> Vec<(String, usize)> {
    let ours = node.partitions().into_iter().filter(|(_, p)| !(p.start == 1 && p.profile_id == 19));
    ours.map(|(minor, p)| (format!("{minor} {} {}", p.profile, p.start), p.uuids.len())).collect()
}

fn assert_nothing(node: &Node, when: &str) {
    assert_eq!(ours(node), [], "{when}: a partition is left");
    assert!(node.specs().is_empty(), "{when}: a spec is left");
    assert!(node.entries().is_empty(), "{when}: an entry is left: {:?}", node.entries());
}

fn assert_prepared(node: &Node, devices: &[&str], when: &str) {
    let made: BTreeSet<(String, usize)> = ours(node).into_iter().collect();
    let expected = match devices {
        [_, _] => BTreeSet::from([("0 3g.40gb 4".to_owned(), 1), ("1 1g.10gb+me 2".to_owned(), 1)]),
        _ => BTreeSet::new(),
    };
    assert_eq!(made, expected, "{when}");
    assert_eq!(ours(node).len(), expected.len(), "{when}: twice");
    let entries = node.entries();
    assert_eq!(entries.len(), 1, "{when}");
    assert_eq!(entries["uid-x"].state, State::Prepared, "{when}");
    assert_eq!(node.specs(), ["gpu.vingt.dev-mig-uid-x.json"], "{when}");
    // The spec names the capabilities of the partition that is there now.
    let spec = fs::read_to_string(node.root.join("cdi/gpu.vingt.dev-mig-uid-x.json")).unwrap();
    assert_eq!(spec.matches("/dev/nvidia-caps/").count(), 2 * expected.len(), "{when}");
}

fn prepared(node: &Node) -> bool {
    node.entries().get("uid-x").is_some_and(|entry| entry.state == State::Prepared)
}

/// After a crash: the next start leaves it prepared or gone, the kubelet's next call completes
/// it, and in the end nothing is left and the end is recorded once.
fn settle(node: &Node, devices: &[&str], what: &str, when: &str) {
    let before = foreign(node);
    assert_eq!(before.len(), 1, "{when}: somebody else's partition is gone");
    assert!(!killed(node, RECOVER, NEVER));
    if prepared(node) {
        assert_prepared(node, devices, when);
    } else {
        assert_nothing(node, when);
    }
    if what == PREPARE {
        assert!(!killed(node, PREPARE, NEVER));
        assert_prepared(node, devices, when);
    }
    assert!(!killed(node, UNPREPARE, NEVER));
    assert_nothing(node, when);
    assert_eq!(node.ended(), ["uid-x"], "{when}: the end is recorded once");
    assert_eq!(foreign(node), before, "{when}: somebody else's partition was touched");
}

/// Walks all steps.
fn walk_steps(devices: &[&str], what: &str) {
    for step in 0.. {
        let node = node(devices);
        if what == UNPREPARE {
            assert!(!killed(&node, PREPARE, NEVER));
        }
        if !killed(&node, what, step) {
            assert!(step > 3, "no step was found");
            println!("{what} of {devices:?}: killed at each of {step} steps");
            return;
        }
        settle(&node, devices, what, &format!("{what} of {devices:?}, killed at {step}"));
    }
}

/// The same within the NVML calls that change something: before the n-th call of a function has
/// done its work, and after. (Between calls that only look, nothing differs from one step to the next.)
fn walk_calls(what: &str, functions: &[&str]) {
    for function in functions {
        for moment in [Moment::Before, Moment::After] {
            let mut calls = 0;
            loop {
                let node = node(&DEVICES);
                if what == UNPREPARE {
                    assert!(!killed(&node, PREPARE, NEVER));
                }
                node.emulator.inject(function, calls + 1, Action::Kill, moment).unwrap();
                let struck = killed(&node, what, NEVER);
                node.emulator.clear_faults().unwrap();
                if !struck {
                    break;
                }
                calls += 1;
                settle(
                    &node,
                    &DEVICES,
                    what,
                    &format!("{what}, killed {moment:?} call {calls} of {function}"),
                );
            }
            assert!(calls > 0, "{function} is not called");
            println!("{what}: killed {moment:?} each of {calls} calls of {function}");
        }
    }
}

#[test]
fn a_crash_at_any_step_of_prepare() {
    walk_steps(&DEVICES, PREPARE);
}

#[test]
fn a_crash_at_any_step_of_unprepare() {
    walk_steps(&DEVICES, UNPREPARE);
}

#[test]
fn a_crash_at_any_step_with_a_whole_gpu() {
    walk_steps(&WHOLE, PREPARE);
    walk_steps(&WHOLE, UNPREPARE);
}

#[test]
fn a_crash_before_or_after_any_nvml_change_of_prepare() {
    let functions = [
        "nvmlDeviceSetMigMode",
        "nvmlDeviceCreateGpuInstanceWithPlacement",
        "nvmlGpuInstanceCreateComputeInstance",
    ];
    walk_calls(PREPARE, &functions);
}

#[test]
fn a_crash_before_or_after_any_nvml_change_of_unprepare() {
    walk_calls(UNPREPARE, &["nvmlComputeInstanceDestroy", "nvmlGpuInstanceDestroy"]);
}

/// And the recovery itself is killed at each of its steps, after a crash in the middle of either.
#[test]
fn a_crash_at_any_step_of_the_recovery_from_a_crash() {
    let mut walked = 0;
    for what in [PREPARE, UNPREPARE] {
        for second in 0.. {
            let node = node(&DEVICES);
            if what == UNPREPARE {
                assert!(!killed(&node, PREPARE, NEVER));
            }
            // In the middle: a partition is made, or destroyed, and the journal does not know.
            let first = middle(what);
            assert!(killed(&node, what, first));
            if !killed(&node, RECOVER, second) {
                assert!(second > 3, "recovery has no steps");
                break;
            }
            settle(
                &node,
                &DEVICES,
                what,
                &format!("{what} killed at {first}, then its recovery at {second}"),
            );
            walked += 1;
        }
    }
    println!("recovery: killed at each of {walked} steps");
}

/// The number of the first step at which the hardware is ahead of the journal.
fn middle(what: &str) -> usize {
    let node = node(&DEVICES);
    let wanted = match what {
        PREPARE => "prepare: compute instance made, not journalled",
        _ => "unprepare: compute instance destroyed, GPU instance still there",
    };
    assert!(!killed(&node, PREPARE, NEVER));
    if what == UNPREPARE {
        fs::remove_file(node.root.join("steps.log")).unwrap();
        assert!(!killed(&node, UNPREPARE, NEVER));
    }
    let steps = fs::read_to_string(node.root.join("steps.log")).unwrap();
    steps.lines().position(|step| step == wanted).unwrap()
}
