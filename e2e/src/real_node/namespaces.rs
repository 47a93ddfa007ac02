//! The node's mount, network and process namespaces, held by one process that
//! is process 1 in them. When it ends the kernel ends all others in there, and
//! with them go their mounts and interfaces.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::process::{Identity, Process, Spec};
use crate::wait::wait_for;

/// How long making them may take.
const READY: Duration = Duration::from_secs(30);

/// What process 1 does. `$1` is the file that says it is ready.
///
/// The kubelet sets the kernel settings below to these values when it finds
/// others, for the whole machine, whatever namespace it is in. It is shown
/// files that hold them already.
///
/// Two of its paths no flag moves: the socket of its device manager, which a
/// second kubelet would remove, and the links to containers' logs. Each node
/// has its own, in memory.
const INIT: &str = r#"
set -e
mount --make-rshared /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/sysctl
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
    kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=/proc/sys/${setting%%=*}
  shown=/run/sysctl/${file##*/}
  echo "${setting##*=}" >"$shown"
  if [ -e "$file" ]; then mount --bind "$shown" "$file"; fi
done
for folder in /var/lib/kubelet /var/log/containers; do
  mkdir -p "$folder"
  mount -t tmpfs -o mode=755 tmpfs "$folder"
done
ip link set lo up
: >"$1"
trap 'exit 0' TERM
while :; do
  sleep 3600 &
  wait $!
done
"#;

/// The namespaces of a running node.
#[derive(Debug)]
pub(super) struct Namespaces {
    process: Process,
    pid: i32,
}

impl Namespaces {
    /// Makes them.
    pub async fn start(layout: &Layout) -> Result<Self> {
        let (script, ready) = (layout.real_node().join("init.sh"), layout.real_node().join("ready"));
        fs::write(&script, INIT)?;
        let _ = fs::remove_file(&ready);
        let options = "--mount --net --pid --fork --kill-child --propagation=private --mount-proc sh";
        let mut args: Vec<String> = options.split(' ').map(str::to_owned).collect();
        args.extend([&script, &ready].map(|path| path.display().to_string()));
        let mut process = Process::start(Spec {
            name: "real-node",
            program: Path::new("unshare"),
            args,
            env: Vec::new(),
            log: layout.logs().join("real-node.log"),
            records: &layout.records(),
        })?;
        let waited = wait_for(READY, "the real node's namespaces", || {
            let ended = process.check();
            let ready = ready.exists();
            async move { ended.map(|()| ready.then_some(())) }
        })
        .await;
        waited.with_context(|| process.log_tail())?;
        let pid = process.identity().pid;
        Ok(Self { process, pid })
    }

    /// Arguments of `nsenter` that run a program in them.
    pub fn enter(&self, program: &Path, args: Vec<String>) -> Vec<String> {
        let file = |kind: &str| self.file(kind).display().to_string();
        let mut all = vec![
            format!("--mount={}", file("mnt")),
            format!("--net={}", file("net")),
            format!("--pid={}", file("pid_for_children")),
            "--".to_owned(),
            program.display().to_string(),
        ];
        all.extend(args);
        all
    }

    /// The network namespace.
    pub fn network(&self) -> PathBuf {
        self.file("net")
    }

    /// A process that is in the network namespace, as the machine numbers it.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Fails if process 1 has ended.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// Ends every process in them.
    pub async fn stop(&mut self, grace: Duration) {
        self.process.stop(grace).await;
    }

    fn file(&self, kind: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/{kind}", self.pid))
    }
}

/// The program that an `nsenter` runs.
pub(super) fn child_of(process: &Process) -> Result<Identity> {
    let pid = process.identity().pid;
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let child = text.split_whitespace().next().and_then(|child| child.parse().ok());
    Identity::of(child.with_context(|| format!("process {pid} has no child"))?)
}
