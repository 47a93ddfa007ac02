//! The files that kubelet, containerd and the CNI plugins are configured by.

use std::path::Path;

use anyhow::Result;
use rustix::fs::statfs;
use serde_json::{Value, json};

use crate::images;

/// containerd's socket, in the node's own `/run`.
const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// What is particular to this node.
#[derive(Debug)]
pub(super) struct Kubelet<'a> {
    /// The node's folder.
    pub root: &'a Path,
    /// The control group of all its pods.
    pub groups: &'a str,
    /// The address it listens on.
    pub address: &'a str,
    /// Whose clients it believes.
    pub client_ca: &'a Path,
    /// Its certificate.
    pub certificate: &'a Path,
    /// The certificate's key.
    pub key: &'a Path,
}

impl Kubelet<'_> {
    /// The `KubeletConfiguration`.
    pub fn render(&self) -> Value {
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "address": self.address,
            "healthzBindAddress": "127.0.0.1",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.client_ca},
            },
            "authorization": {"mode": "Webhook"},
            "tlsCertFile": self.certificate,
            "tlsPrivateKeyFile": self.key,
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
            "podLogsDir": self.root.join("pod-logs"),
            "resolvConf": self.root.join("resolv.conf"),
            "volumePluginDir": self.root.join("kubelet/volume-plugins"),
            "maxPods": 100,
            // The machine is not ours: no limits on its own processes, no
            // firewall rules, and it may have old control groups, swap and a
            // rather full disk.
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": self.groups,
            "failCgroupV1": false,
            "failSwapOn": false,
            "enforceNodeAllocatable": [],
            "makeIPTablesUtilChains": false,
            "oomScoreAdj": 0,
            "evictionHard": {
                "memory.available": "50Mi",
                "nodefs.available": "1%",
                "imagefs.available": "1%",
                "nodefs.inodesFree": "1%",
            },
            // The images came from files; there is nowhere to get them again.
            "imageGCHighThresholdPercent": 100,
            "imageGCLowThresholdPercent": 99,
        })
    }
}

/// containerd's configuration.
pub(super) fn containerd(root: &Path, plugins: &Path) -> Result<String> {
    // An overlay cannot be laid over another one.
    let snapshotter = if is_overlay(root)? { "native" } else { "overlayfs" };
    let (folder, plugins, pause) = (root.display(), plugins.display(), images::reference("pause"));
    Ok(format!(
        r#"version = 3
root = "{folder}/containerd"
state = "/run/containerd"

[grpc]
address = "{CONTAINERD_SOCKET}"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "{snapshotter}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"

[plugins."io.containerd.cri.v1.runtime"]
enable_cdi = true
cdi_spec_dirs = ["{folder}/cdi"]
restrict_oom_score_adj = true
disable_apparmor = true

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{plugins}"]
conf_dir = "{folder}/cni/net.d"

[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/containerd/opt"

[plugins."io.containerd.nri.v1.nri"]
disable = true
"#
    ))
}

/// The network of the pods: a bridge inside the node's network namespace.
pub(super) fn cni(root: &Path, subnet: &str) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "vingt",
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipMasq": false,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": root.join("cni/addresses"),
                "ranges": [[{"subnet": subnet}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

fn is_overlay(path: &Path) -> Result<bool> {
    const OVERLAYFS_SUPER_MAGIC: rustix::fs::FsWord = 0x794c_7630;
    Ok(statfs(path)?.f_type == OVERLAYFS_SUPER_MAGIC)
}
