//! In a container only what has a device node is there. The device folder comes from the environment, so these tests
//! run in processes of their own.

use std::env;
use std::fs;
use std::path::Path;
use std::process::Command;

use nvml_wrapper_sys::bindings as sys;

use crate::calls::{create_at, get, gpu, partition, uuid};
use crate::node::{Node, raw};

const NO_PERMISSION: u32 = 4;
const NOT_FOUND: u32 = 6;

/// Runs one of [`child`]'s functions with `/dev` of a container that has the named nodes.
fn in_container(role: &str, node: &Node, nodes: &[&str]) {
    let dev = node.root().join(format!("dev-{}", nodes.concat().replace('/', "-")));
    fs::create_dir_all(dev.join("nvidia-caps")).unwrap();
    for node in nodes {
        fs::write(dev.join(node), "").unwrap();
    }
    let status = Command::new(env::current_exe().unwrap())
        .args(["--ignored", "--exact", "--quiet", &format!("visibility::child::{role}")])
        .env("NODE", node.root())
        .env("VINGT_EMULATOR_DEV", &dev)
        .status()
        .unwrap();
    assert!(status.success(), "{role} failed");
}

mod child {
    use super::*;

    fn library() -> sys::NvmlLib {
        raw(Path::new(&env::var_os("NODE").expect("NODE: the root of the node")))
    }

    #[test]
    #[ignore = "run by other tests, in a process of its own"]
    fn partition() {
        let library = library();
        let mut count = 0;
        // SAFETY: points to a local.
        assert_eq!(unsafe { library.nvmlDeviceGetCount_v2(&raw mut count) }, 0);
        assert_eq!(count, 1);
        let gpu = gpu(&library, 0);
        assert_eq!(
            get!(library, nvmlDeviceGetMinorNumber, gpu; u32),
            Ok(1),
            "the only GPU is the second one"
        );
        let mig =
            get!(library, nvmlDeviceGetMigDeviceHandleByIndex, gpu, 0; sys::nvmlDevice_t).expect("ours");
        assert_eq!(
            get!(library, nvmlDeviceGetGpuInstanceId, mig; u32),
            Ok(2),
            "the only partition is not the first"
        );
        assert_eq!(
            get!(library, nvmlDeviceGetMemoryInfo, mig; sys::nvmlMemory_t).map(|m| m.total),
            Ok(40_448 << 20)
        );
        assert_eq!(
            get!(library, nvmlDeviceGetMigDeviceHandleByIndex, gpu, 1; sys::nvmlDevice_t),
            Err(NOT_FOUND)
        );
        // Neither the sum over all partitions nor changes are a container's business.
        assert_eq!(
            get!(library, nvmlDeviceGetMemoryInfo, gpu; sys::nvmlMemory_t).map(|m| m.total),
            Err(NO_PERMISSION)
        );
        assert_eq!(create_at(&library, gpu, 19, 3, 1), Err(NO_PERMISSION));
        let instance = get!(library, nvmlDeviceGetGpuInstanceById, gpu, 2; sys::nvmlGpuInstance_t);
        assert_eq!(instance, Err(NO_PERMISSION));
        assert_eq!(
            get!(library, nvmlDeviceGetGpuInstanceRemainingCapacity, gpu, 19; u32),
            Err(NO_PERMISSION)
        );
    }

    #[test]
    #[ignore = "run by other tests, in a process of its own"]
    fn half_a_partition() {
        let library = library();
        let gpu = gpu(&library, 0);
        assert_eq!(
            get!(library, nvmlDeviceGetMigDeviceHandleByIndex, gpu, 0; sys::nvmlDevice_t),
            Err(NOT_FOUND)
        );
    }

    #[test]
    #[ignore = "run by other tests, in a process of its own"]
    fn administrator() {
        let library = library();
        let gpu = gpu(&library, 0);
        create_at(&library, gpu, 19, 3, 1).expect("nvidia-cap1 gives the right");
        for id in [2, 9, 10] {
            get!(library, nvmlDeviceGetGpuInstanceById, gpu, id; sys::nvmlGpuInstance_t)
                .expect("all are there");
        }
        assert_eq!(
            get!(library, nvmlDeviceGetMemoryInfo, gpu; sys::nvmlMemory_t).map(|m| m.total),
            Ok(81_559 << 20)
        );
    }
}

#[test]
fn a_container_sees_what_it_has_device_nodes_for() {
    let node = Node::h100s(2, true);
    let library = node.raw();
    let second = gpu(&library, 1);
    partition(&library, second, (19, 0), (2, 1));
    let (_, _, mig) = partition(&library, second, (9, 2), (4, 4));
    uuid(&library, mig).expect("all is visible here");
    // 3 + (1 * 15 + 2) * 9 = 156 is gpu1/gi2, 157 its ci0.
    let caps = ["nvidia-caps/nvidia-cap156", "nvidia-caps/nvidia-cap157"];
    in_container("partition", &node, &["nvidia1", caps[0], caps[1]]);
    in_container("half_a_partition", &node, &["nvidia1", caps[0]]);
    in_container("half_a_partition", &node, &["nvidia1", caps[1]]);
    in_container("administrator", &node, &["nvidia1", "nvidia-caps/nvidia-cap1"]);
}
