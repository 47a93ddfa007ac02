//! What a node could leave on the machine.

use anyhow::{Result, ensure};
use vingt_e2e::layout::Layout;

/// Everything of this machine that a node could leave changed.
#[derive(Debug, PartialEq, Eq)]
pub struct Traces {
    mounts: Vec<String>,
    interfaces: Vec<String>,
    routes: Vec<String>,
    groups: Vec<String>,
    processes: Vec<String>,
    settings: Vec<String>,
    files: Vec<String>,
}

impl Traces {
    /// Fails unless everything is as it was.
    pub fn compare(&self, now: &Self) -> Result<()> {
        ensure!(self == now, "the node changed the machine; before:\n{self:#?}\nnow:\n{now:#?}");
        Ok(())
    }

    pub fn of(layout: &Layout) -> Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let mut groups = Vec::new();
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup")?.chain(std::fs::read_dir("/sys/fs")?) {
            let group = hierarchy?.path().join(format!("vingt-{}", layout.name()));
            if group.exists() {
                groups.push(group.display().to_string());
            }
        }
        let mut processes = Vec::new();
        for process in std::fs::read_dir("/proc")? {
            let command = read(&process?.path().join("cmdline").to_string_lossy());
            if command.contains(&layout.real_node().display().to_string()) {
                processes.push(command);
            }
        }
        let settings = [
            "vm/overcommit_memory",
            "vm/panic_on_oom",
            "kernel/panic",
            "kernel/panic_on_oops",
            "kernel/keys/root_maxkeys",
            "kernel/keys/root_maxbytes",
            "net/ipv4/ip_forward",
        ];
        let settings = settings.map(|name| format!("{name}={}", read(&format!("/proc/sys/{name}")).trim()));
        let mut interfaces: Vec<String> = std::fs::read_dir("/sys/class/net")?
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            // Other labs may come and go.
            .filter(|name| *name == format!("vt-{}", layout.name()) || !name.starts_with("vt-"))
            .collect();
        interfaces.sort();
        let routes = lines(read("/proc/net/route"));
        let routes =
            routes.into_iter().filter(|line| interfaces.iter().any(|name| line.starts_with(name.as_str())));
        // Where a kubelet writes whatever its flags are.
        let mut files = Vec::new();
        for folder in ["/var/lib/kubelet", "/var/lib/kubelet/device-plugins", "/var/log/containers"] {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            files.extend(entries.map(|entry| entry.path().display().to_string()));
        }
        files.sort();
        Ok(Self {
            files,
            mounts: lines(read("/proc/self/mounts")),
            routes: routes.collect(),
            interfaces,
            groups,
            processes,
            settings: settings.to_vec(),
        })
    }
}
