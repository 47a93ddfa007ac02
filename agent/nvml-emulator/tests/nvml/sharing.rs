//! Several processes and one node: what one does the others see, a killed one leaves a valid state, and one that may
//! not write can still read.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nvml_emulator::Emulator;
use nvml_wrapper_sys::bindings as sys;
use rustix::process::Uid;

use crate::calls::{create_at, get, gpu, partition, uuid};
use crate::node::{Node, raw};

const INVALID_ARGUMENT: u32 = 2;
const NO_PERMISSION: u32 = 4;
const INSUFFICIENT_RESOURCES: u32 = 23;

/// A process of a test; it ends with the test at the latest.
pub struct Running(Child);

impl Running {
    pub fn wait(&mut self) -> ExitStatus {
        self.0.wait().expect("its end")
    }

    fn kill(&mut self) {
        self.0.kill().expect("a signal");
        self.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended long ago.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts one of the functions of [`child`] in a process of its own.
pub fn start(role: &str, node: &Node) -> Running {
    let mut command = Command::new(env::current_exe().expect("the test program"));
    command.args(["--ignored", "--exact", "--quiet", &format!("sharing::child::{role}")]);
    command.env("NODE", node.root()).stdout(Stdio::null());
    Running(command.spawn().expect("a process"))
}

fn run(role: &str, node: &Node) {
    assert!(start(role, node).wait().success(), "{role} failed");
}

/// What the other processes do; each is a test so that the test program can be asked for it by name.
mod child {
    use super::*;

    fn root() -> std::path::PathBuf {
        env::var_os("NODE").expect("NODE: the root of the node").into()
    }

    #[test]
    #[ignore = "run by other tests, in a process of its own"]
    fn create() {
        let library = raw(&root());
        partition(&library, gpu(&library, 0), (14, 1), (2, 2));
    }

    #[test]
    #[ignore = "run by other tests, in a process of its own"]
    fn destroy() {
        let library = raw(&root());
        let gpu = gpu(&library, 0);
        let instance =
            get!(library, nvmlDeviceGetGpuInstanceById, gpu, 4; sys::nvmlGpuInstance_t).expect("it");
        let compute =
            get!(library, nvmlGpuInstanceGetComputeInstanceById, instance, 0; sys::nvmlComputeInstance_t)
                .expect("it");
        // SAFETY: handles.
        unsafe {
            assert_eq!(library.nvmlComputeInstanceDestroy(compute), 0);
            assert_eq!(library.nvmlGpuInstanceDestroy(instance), 0);
        }
    }

    /// Creates 1g instances until there is no room, and leaves them.
    #[test]
    #[ignore = "run by other tests, in a process of its own"]
    fn fill() {
        let library = raw(&root());
        let gpu = gpu(&library, 0);
        while get!(library, nvmlDeviceCreateGpuInstance, gpu, 19; sys::nvmlGpuInstance_t).is_ok() {}
    }

    /// Creates and destroys until it is killed.
    #[test]
    #[ignore = "run by other tests, in a process of its own"]
    fn churn() {
        let library = raw(&root());
        let gpu = gpu(&library, 0);
        loop {
            let (instance, compute, _) = partition(&library, gpu, (19, 0), (3, 1));
            // SAFETY: handles.
            unsafe {
                assert_eq!(library.nvmlComputeInstanceDestroy(compute), 0);
                assert_eq!(library.nvmlGpuInstanceDestroy(instance), 0);
            }
        }
    }
}

#[test]
fn what_another_process_does_is_seen_at_once() {
    let node = Node::h100s(1, true);
    let library = node.raw();
    let gpu = gpu(&library, 0);
    run("create", &node);
    let mig =
        get!(library, nvmlDeviceGetMigDeviceHandleByIndex, gpu, 0; sys::nvmlDevice_t).expect("the device");
    let first = uuid(&library, mig).expect("its UUID");
    assert_eq!(node.emulator.occupancy().unwrap()[0].partitions[0].uuids, std::slice::from_ref(&first));
    assert_eq!(create_at(&library, gpu, 14, 2, 2), Err(INSUFFICIENT_RESOURCES));

    run("destroy", &node);
    assert_eq!(uuid(&library, mig), Err(INVALID_ARGUMENT));
    let (_, _, again) = partition(&library, gpu, (14, 1), (2, 2));
    assert_ne!(again, mig, "a new instance has a new handle");
    assert_eq!(uuid(&library, again).expect("its UUID"), first, "the UUID is that of the place");
    let (_, _, beside) = partition(&library, gpu, (14, 1), (4, 2));
    assert_ne!(uuid(&library, beside).expect("its UUID"), first);
}

#[test]
fn processes_that_create_at_once_share_the_room_without_overlap() {
    let node = Node::h100s(1, true);
    let mut children: Vec<Running> = (0..4).map(|_| start("fill", &node)).collect();
    for child in &mut children {
        assert!(child.wait().success());
    }
    let partitions = node.emulator.occupancy().unwrap().remove(0).partitions;
    let starts: BTreeSet<u32> = partitions.iter().map(|partition| partition.start).collect();
    let serials: BTreeSet<u32> = partitions.iter().map(|partition| partition.serial).collect();
    assert_eq!((partitions.len(), starts.len(), serials.len()), (7, 7, 7));
}

#[test]
fn a_killed_process_leaves_a_valid_state() {
    let node = Node::h100s(1, true);
    let library = node.raw();
    for round in 0..20_u32 {
        let mut child = start("churn", &node);
        let serial = |emulator: &Emulator| {
            emulator.occupancy().unwrap()[0].partitions.first().map_or(0, |partition| partition.serial)
        };
        let before = serial(&node.emulator);
        let deadline = Instant::now() + Duration::from_secs(30);
        // Kill it while it works, each time at another point.
        while serial(&node.emulator) <= before + 2 * round {
            assert!(Instant::now() < deadline, "nothing happens");
            thread::yield_now();
        }
        child.kill();

        let emulator = Emulator::open(node.root()).expect("the state is whole");
        let partitions = emulator.occupancy().unwrap().remove(0).partitions;
        assert_eq!(capabilities(node.root()), expected_capabilities(&emulator), "the proc tree was repaired");
        let gpu = gpu(&library, 0);
        for partition in partitions {
            assert_eq!((partition.start, partition.size), (3, 1));
            let instance =
                get!(library, nvmlDeviceGetGpuInstanceById, gpu, partition.id; sys::nvmlGpuInstance_t)
                    .unwrap();
            if let Ok(compute) =
                get!(library, nvmlGpuInstanceGetComputeInstanceById, instance, 0; sys::nvmlComputeInstance_t)
            {
                // SAFETY: a handle.
                assert_eq!(unsafe { library.nvmlComputeInstanceDestroy(compute) }, 0);
            }
            // SAFETY: a handle.
            assert_eq!(unsafe { library.nvmlGpuInstanceDestroy(instance) }, 0, "the lock is free");
        }
    }
}

#[test]
fn a_stale_proc_tree_is_repaired_by_the_next_process() {
    let node = Node::h100s(2, true);
    let library = node.raw();
    partition(&library, gpu(&library, 1), (9, 2), (4, 4));
    let capabilities_folder = node.root().join("proc/driver/nvidia/capabilities");
    let access = fs::read_to_string(capabilities_folder.join("gpu1/mig/gi2/access")).unwrap();
    assert_eq!(access, "DeviceFileMinor: 156\nDeviceFileMode: 292\nDeviceFileModify: 1\n");
    let before = capabilities(node.root());
    assert_eq!(before, expected_capabilities(&node.emulator));

    fs::remove_dir_all(capabilities_folder.join("gpu1/mig/gi2/ci0")).unwrap();
    fs::create_dir_all(capabilities_folder.join("gpu0/mig/gi7/ci0")).unwrap();
    fs::write(capabilities_folder.join("gpu1/mig/gi2/access"), "half a li").unwrap();
    fs::write(capabilities_folder.join("gpu1/mig/gi2/access.new"), "half a li").unwrap();
    assert_ne!(capabilities(node.root()), before);
    Emulator::open(node.root()).unwrap();
    assert_eq!(capabilities(node.root()), before);
    assert_eq!(fs::read_to_string(capabilities_folder.join("gpu1/mig/gi2/access")).unwrap(), access);
}

/// While it lives, this thread (and no other) is not root, whom no file mode stops.
struct Unprivileged;

impl Unprivileged {
    fn become_it() -> Self {
        Self::set_effective_user(65534);
        Self
    }

    fn set_effective_user(id: u32) {
        let root = Uid::from_raw(0);
        if rustix::process::getuid().is_root() {
            rustix::thread::set_thread_res_uid(root, Uid::from_raw(id), root).expect("another user");
        }
    }
}

impl Drop for Unprivileged {
    fn drop(&mut self) {
        Self::set_effective_user(0);
    }
}

#[test]
fn a_process_that_may_not_write_reads_and_is_refused_changes() {
    let node = Node::h100s(1, true);
    let library = node.raw();
    let gpu = gpu(&library, 0);
    let (instance, compute, mig) = partition(&library, gpu, (19, 0), (0, 1));
    let set_mode = |mode| {
        for entry in ["", "lock", "state"] {
            fs::set_permissions(node.root().join(entry), fs::Permissions::from_mode(mode)).unwrap();
        }
    };
    set_mode(0o555);
    {
        let _user = Unprivileged::become_it();
        assert!(uuid(&library, mig).is_ok());
        assert_eq!(create_at(&library, gpu, 19, 1, 1), Err(NO_PERMISSION));
        let mut status = 0;
        // SAFETY: handles, and a pointer to a local.
        unsafe {
            assert_eq!(library.nvmlComputeInstanceDestroy(compute), NO_PERMISSION);
            assert_eq!(library.nvmlGpuInstanceDestroy(instance), NO_PERMISSION);
            assert_eq!(library.nvmlDeviceSetMigMode(gpu, 0, &raw mut status), NO_PERMISSION);
        }
        Emulator::open(node.root()).expect("there is nothing to repair, and no right to");
    }
    set_mode(0o755);
    assert_eq!(node.emulator.occupancy().unwrap()[0].partitions.len(), 1);
    // SAFETY: a handle.
    assert_eq!(unsafe { library.nvmlComputeInstanceDestroy(compute) }, 0);
}

/// The capability folders of instances under `proc`, with an `access` file in each.
fn capabilities(root: &Path) -> BTreeSet<String> {
    let folder = root.join("proc/driver/nvidia/capabilities");
    let mut found = BTreeSet::new();
    let names = |path: &Path| -> Vec<String> {
        let entries =
            fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect()
    };
    for gpu in names(&folder).into_iter().filter(|name| name.starts_with("gpu")) {
        for instance in names(&folder.join(&gpu).join("mig")) {
            let path = folder.join(&gpu).join("mig").join(&instance);
            for name in names(&path) {
                if name == "access" {
                    found.insert(format!("{gpu}/{instance}"));
                } else if path.join(&name).join("access").exists() {
                    found.insert(format!("{gpu}/{instance}/{name}"));
                } else {
                    found.insert(format!("{gpu}/{instance}/{name} without access"));
                }
            }
        }
    }
    found
}

fn expected_capabilities(emulator: &Emulator) -> BTreeSet<String> {
    let mut expected = BTreeSet::new();
    for gpu in emulator.occupancy().unwrap() {
        for partition in gpu.partitions {
            expected.insert(format!("gpu{}/gi{}", gpu.minor, partition.id));
            for compute in 0..partition.uuids.len() {
                expected.insert(format!("gpu{}/gi{}/ci{compute}", gpu.minor, partition.id));
            }
        }
    }
    expected
}
