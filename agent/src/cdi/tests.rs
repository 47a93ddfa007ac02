//! Specs against the rules of the CDI schema, and against the driver's files.

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::steps::Unobserved;

struct Node {
    root: TempDir,
}

impl Node {
    fn new() -> Self {
        let node = Self { root: TempDir::new().unwrap() };
        node.file(
            "proc/devices",
            "Character devices:\n195 nvidia-frontend\n238 nvidia-caps\n510 nvidia-uvm\n\nBlock devices:\n  7 nvidia-caps\n",
        );
        node.file(
            "proc/driver/nvidia/capabilities/gpu2/mig/gi5/access",
            "DeviceFileMinor: 48\nDeviceFileMode: 292\nDeviceFileModify: 1\n",
        );
        node.file(
            "proc/driver/nvidia/capabilities/gpu2/mig/gi5/ci0/access",
            "DeviceFileMinor: 49\nDeviceFileMode: 292\n",
        );
        node
    }

    fn file(&self, path: &str, content: &str) {
        let path = self.root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn link(&self, path: &str, to: &str) {
        std::os::unix::fs::symlink(to, self.root.path().join(path)).unwrap();
    }

    fn cdi(&self) -> Cdi {
        let root = self.root.path();
        let config = CdiConfig {
            folder: root.join("cdi"),
            proc_root: root.join("proc"),
            driver_root: root.join("driver"),
            host_driver_root: PathBuf::from("/run/nvidia/driver"),
            mounts: vec![("/opt/emulator/lib.so".into(), "/usr/lib/libnvidia-ml.so.1".into())],
            env: vec!["VINGT_EMULATOR_ROOT=/emulator".into()],
        };
        Cdi::new(config, Arc::new(Unobserved))
    }

    fn written(&self) -> Value {
        let path = self.root.path().join("cdi/gpu.vingt.dev-mig-uid-1.json");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }
}

fn partition() -> CdiDevice {
    CdiDevice { device: "gpu-2-mig-3g40gb-9-4".into(), minor: 2, partition: Some((5, 0)) }
}

/// The rules of the CDI 0.6.0 schema for the parts that the agent writes.
fn assert_valid(spec: &Value) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let keys = |value: &Value, known: &[&str]| {
        for key in value.as_object().unwrap().keys() {
            assert!(known.contains(&key.as_str()), "{key} is not known at this place of a CDI spec");
        }
    };
    keys(spec, &["cdiVersion", "kind", "annotations", "devices", "containerEdits"]);
    assert_eq!(spec["cdiVersion"], "0.6.0");
    let kind = text(&spec["kind"]);
    let (vendor, class) = kind.split_once('/').unwrap();
    let name = |name: &str, marks: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.ends_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || marks.contains(c))
    };
    assert!(name(vendor, "_-.") && name(class, "_-"), "{kind}");
    let devices = spec["devices"].as_array().unwrap();
    assert!(!devices.is_empty());
    for device in devices {
        keys(device, &["name", "annotations", "containerEdits"]);
        let device_name = text(&device["name"]);
        assert!(device_name.starts_with(|c: char| c.is_ascii_alphanumeric()));
        assert!(
            device_name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:".contains(c)),
            "{device_name}"
        );
    }
    let edits = devices.iter().map(|device| &device["containerEdits"]).chain([&spec["containerEdits"]]);
    for edits in edits {
        keys(edits, &["env", "deviceNodes", "mounts", "hooks"]);
        for env in edits["env"].as_array().into_iter().flatten() {
            assert!(text(env).split_once('=').is_some_and(|(name, _)| !name.is_empty()), "{env}");
        }
        for node in edits["deviceNodes"].as_array().into_iter().flatten() {
            keys(
                node,
                &["path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid"],
            );
            assert!(text(&node["path"]).starts_with('/'));
            assert!(["b", "c", "u", "p", ""].contains(&text(&node["type"]).as_str()));
            assert!(node["major"].is_u64() && node["minor"].is_u64() && node["fileMode"].is_u64());
        }
        for mount in edits["mounts"].as_array().into_iter().flatten() {
            keys(mount, &["hostPath", "containerPath", "type", "options"]);
            assert!(
                text(&mount["hostPath"]).starts_with('/') && text(&mount["containerPath"]).starts_with('/')
            );
            assert!(mount["options"].as_array().unwrap().iter().all(Value::is_string));
        }
    }
}

#[test]
fn a_partition_gets_its_gpu_and_its_two_capabilities() {
    let node = Node::new();
    let cdi = node.cdi();
    cdi.write("uid-1", &[partition()]).unwrap();
    let spec = node.written();
    assert_valid(&spec);
    insta::assert_yaml_snapshot!("partition", spec);
    assert_eq!(device_id("uid-1", "gpu-0"), "gpu.vingt.dev/mig=uid-1-gpu-0");
    assert!(cdi.exists("uid-1"));
    cdi.remove("uid-1").unwrap();
    assert!(!cdi.exists("uid-1"));
    cdi.remove("uid-1").unwrap();
}

#[test]
fn a_whole_gpu_gets_no_capability() {
    let node = Node::new();
    node.cdi().write("uid-1", &[CdiDevice { device: "gpu-1".into(), minor: 1, partition: None }]).unwrap();
    let spec = node.written();
    assert_valid(&spec);
    let nodes = spec["devices"][0]["containerEdits"]["deviceNodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!((nodes[0]["path"].as_str(), nodes[0]["minor"].as_u64()), (Some("/dev/nvidia1"), Some(1)));
}

#[test]
fn the_drivers_files_are_mounted_where_images_look_with_links_followed_inside_its_root() {
    let node = Node::new();
    node.file("driver/usr/lib64/libcuda.so.570.169", "");
    node.link("driver/usr/lib64/libcuda.so.1", "libcuda.so.570.169");
    node.file("driver/opt/nvidia/nvidia-smi", "");
    std::fs::create_dir_all(node.root.path().join("driver/usr/bin")).unwrap();
    node.link("driver/usr/bin/nvidia-smi", "/opt/nvidia/nvidia-smi");
    node.file("driver/usr/lib64/libnvidia-gpucomp.so.570.169", "");
    node.link("driver/usr/lib64/libnvidia-ml.so.1", "/gone");
    node.cdi().write("uid-1", &[partition()]).unwrap();
    let spec = node.written();
    assert_valid(&spec);
    let mounts: Vec<(&str, &str)> = spec["containerEdits"]["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|mount| (mount["hostPath"].as_str().unwrap(), mount["containerPath"].as_str().unwrap()))
        .collect();
    let expected = [
        ("/run/nvidia/driver/opt/nvidia/nvidia-smi", "/usr/bin/nvidia-smi"),
        ("/opt/emulator/lib.so", "/usr/lib/libnvidia-ml.so.1"),
        ("/run/nvidia/driver/usr/lib64/libcuda.so.570.169", "/usr/lib64/libcuda.so.1"),
        (
            "/run/nvidia/driver/usr/lib64/libnvidia-gpucomp.so.570.169",
            "/usr/lib64/libnvidia-gpucomp.so.570.169",
        ),
        ("/run/nvidia/driver/usr/lib64/libcuda.so.570.169", "/usr/local/nvidia/lib64/libcuda.so.1"),
        (
            "/run/nvidia/driver/usr/lib64/libnvidia-gpucomp.so.570.169",
            "/usr/local/nvidia/lib64/libnvidia-gpucomp.so.570.169",
        ),
    ];
    assert_eq!(mounts, expected);
}

#[test]
fn a_capability_that_the_driver_does_not_name_is_an_error_and_no_file() {
    let node = Node::new();
    let missing = CdiDevice { partition: Some((6, 0)), ..partition() };
    let error = node.cdi().write("uid-1", &[missing]).unwrap_err().to_string();
    assert!(error.contains("gpu2/mig/gi6/access"), "{error}");
    assert!(!node.cdi().exists("uid-1"));
}

#[test]
fn without_unified_memory_there_is_no_spec_and_the_remedy_is_told() {
    let node = Node::new();
    node.file("proc/devices", "Character devices:\n195 nvidia\n238 nvidia-caps\n");
    let error = node.cdi().write("uid-1", &[partition()]).unwrap_err().to_string();
    assert!(error.contains("nvidia-uvm is not loaded: run nvidia-modprobe -u -c0"), "{error}");
    assert!(!node.cdi().exists("uid-1"));
}

#[test]
fn a_uid_cannot_lead_out_of_the_folder() {
    assert_eq!(file_stem("../../etc/x"), "gpu.vingt.dev-mig-______etc_x");
}
