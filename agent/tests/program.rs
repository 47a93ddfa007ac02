//! The program itself: alive without a driver, and what `devices` prints.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::Node;
use nvml_emulator::NodeDescription;
use vingt_agent::nvml::Placement;

struct Agent {
    process: Child,
    address: String,
}

/// Starts an agent on a node with a driver but, like one in a broken cluster, no API server.
fn start(root: &Path, library: &str) -> Agent {
    std::fs::create_dir_all(root.join("proc/driver/nvidia")).unwrap();
    start_anywhere(root, library)
}

fn start_anywhere(root: &Path, library: &str) -> Agent {
    let kubeconfig = root.join("kubeconfig");
    let config = "apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{name: x, cluster: {server: \"http://127.0.0.1:9\"}}]\n\
                  users: [{name: x, user: {}}]\ncontexts: [{name: x, context: {cluster: x, user: x}}]\n";
    std::fs::write(&kubeconfig, config).unwrap();
    let mut process = Command::new(env!("CARGO_BIN_EXE_vingt-agent"))
        .args(["run", "--node-name", "n1", "--http-address", "127.0.0.1:0", "--nvml-library", library])
        .arg("--kubelet-dir")
        .arg(root.join("kubelet"))
        .arg("--state-dir")
        .arg(root.join("state"))
        .arg("--cdi-dir")
        .arg(root.join("cdi"))
        .arg("--driver-root")
        .arg(root.join("driver"))
        .arg("--proc-root")
        .arg(root.join("proc"))
        .arg("--sys-root")
        .arg(root.join("sys"))
        .env("KUBECONFIG", kubeconfig)
        .env("RUST_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let address = lines.by_ref().find_map(|line| {
        let line = line.unwrap();
        let address = line.split("address=").nth(1)?.split(' ').next()?.to_owned();
        Some(address)
    });
    // Read on, or the agent would stop at a full pipe.
    std::thread::spawn(move || lines.for_each(drop));
    Agent { process, address: address.expect("the agent says where it listens") }
}

impl Agent {
    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    /// Waits until the agent says why it is not ready.
    fn not_ready(&self, why: &str) -> String {
        self.not_ready_if(|body| body.contains(why))
    }

    /// Waits until the agent is not ready for other reasons.
    fn not_ready_without(&self, why: &str) -> String {
        self.not_ready_if(|body| !body.contains(why))
    }

    /// Waits until the agent is ready.
    fn ready(&self) -> String {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let (code, body) = self.get("/readyz");
            if code == 200 {
                return body;
            }
            assert!(std::time::Instant::now() < deadline, "{body}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    fn not_ready_if(&self, wanted: impl Fn(&str) -> bool) -> String {
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let (code, body) = self.get("/readyz");
            assert_eq!(code, 503, "{body}");
            if wanted(&body) {
                return body;
            }
            assert!(std::time::Instant::now() < deadline, "{body}");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn without_a_usable_driver_the_agent_lives_and_says_what_is_missing() {
    let root = tempfile::TempDir::new().unwrap();
    let mut agent = start(root.path(), "/no/libnvidia-ml.so.1");
    let body = agent.not_ready("cannot load the NVIDIA library /no/libnvidia-ml.so.1");
    assert!(body.contains("--nvml-library"), "{body}");
    assert_eq!(agent.get("/healthz").0, 200);
    assert!(agent.get("/metrics").1.contains("vingt_build_info{component=\"agent\""));

    // And stops when told to.
    let pid = rustix::process::Pid::from_child(&agent.process);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(agent.process.wait().unwrap().success());
}

/// In a cluster in which not all nodes have GPUs.
#[test]
fn without_hardware_the_agent_is_ready_until_there_is_some() {
    let root = tempfile::TempDir::new().unwrap();
    let agent = start_anywhere(root.path(), "libnvidia-ml.so.1");
    assert_eq!(agent.ready(), "ok: no NVIDIA GPU on this node\n");
    // The driver is installed, or the GPU operator's driver container has come up.
    std::fs::create_dir_all(root.path().join("proc/driver/nvidia")).unwrap();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while agent.get("/readyz").0 == 200 {
        assert!(std::time::Instant::now() < deadline, "the GPU is not seen");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    agent.not_ready("cannot load the NVIDIA library");
}

/// The agent's image has no NVML: it is where the driver is, and comes with it.
#[test]
fn the_library_is_found_under_the_drivers_root_also_when_it_comes_later() {
    let node = Node::new(&[true]);
    let root = node.root.join("host");
    std::fs::create_dir(&root).unwrap();
    let agent = start(&root, "libnvidia-ml.so.1");
    let body =
        agent.not_ready("cannot load the NVIDIA library libnvidia-ml.so.1: it is not in the driver's root");
    assert!(body.contains("--driver-root"), "{body}");

    // As a driver container has it: absolute links are meant inside of its root.
    let driver = root.join("driver");
    std::fs::create_dir_all(driver.join("usr/lib64")).unwrap();
    nvml_emulator::Emulator::init(&driver.join("opt"), &NodeDescription::of("h100-sxm5-80gb", 3, true))
        .unwrap();
    std::fs::copy(node.root.join("libnvidia-ml.so.1"), driver.join("opt/libnvidia-ml.so.580")).unwrap();
    std::os::unix::fs::symlink("/opt/libnvidia-ml.so.580", driver.join("usr/lib64/libnvidia-ml.so.1"))
        .unwrap();
    agent.not_ready_without("cannot load");
}

#[test]
fn a_library_that_is_too_old_is_told_by_the_names_it_lacks() {
    let root = tempfile::TempDir::new().unwrap();
    let agent = start(root.path(), "libc.so.6");
    agent.not_ready("libc.so.6 is too old");
    agent.not_ready("nvmlInit_v2");
}

#[test]
fn devices_lists_gpus_and_partitions() {
    let node = Node::new(&[true]);
    node.foreign(0, 9, Placement { start: 4, size: 4 }, 60);
    let run = |output: &str| {
        let library = node.root.join("libnvidia-ml.so.1");
        let output = Command::new(env!("CARGO_BIN_EXE_vingt-agent"))
            .args(["devices", "-o", output, "--nvml-library"])
            .arg(library)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let json: serde_json::Value = serde_json::from_str(&run("json")).unwrap();
    let partition = &json[0]["partitions"][0];
    assert_eq!(partition["profile"], "3g.40gb");
    assert_eq!(partition["memoryMib"], 40448);
    assert_eq!(partition["placement"], serde_json::json!({"start": 4, "size": 4}));
    assert_eq!(partition["uuid"].as_str().unwrap(), node.partitions()[0].1.uuids[0]);
    let table = run("table");
    assert!(table.contains("gpu-0 NVIDIA H100 80GB HBM3"), "{table}");
    assert!(table.contains("3g.40gb") && table.contains("40448 MiB"), "{table}");
}
