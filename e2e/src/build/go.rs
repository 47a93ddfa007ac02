//! Kubernetes, etcd, Helm, containerd and CNI, built once from the modules in
//! `e2e/kube` into the user's cache. The folder of a build carries the hash of
//! everything that went into it, so a changed pin is built anew and an
//! unchanged one never.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::{Progress, workspace};

/// Something that is built from one Go module in one go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Component {
    /// kube-apiserver, kube-controller-manager, kube-scheduler and kubectl.
    ControlPlane,
    /// etcd.
    Etcd,
    /// helm.
    Helm,
    /// kubelet; only a real node needs it.
    Kubelet,
    /// containerd with its shim and ctr; only a real node needs it.
    Containerd,
    /// The network plugins; only a real node needs them.
    Cni,
}

impl Component {
    /// What a lab of virtual nodes needs.
    pub const VIRTUAL: [Self; 3] = [Self::Etcd, Self::ControlPlane, Self::Helm];
    /// What a real node needs besides.
    pub const REAL: [Self; 3] = [Self::Kubelet, Self::Containerd, Self::Cni];

    fn name(self) -> &'static str {
        match self {
            Self::ControlPlane => "control-plane",
            Self::Etcd => "etcd",
            Self::Helm => "helm",
            Self::Kubelet => "kubelet",
            Self::Containerd => "containerd",
            Self::Cni => "cni",
        }
    }

    fn module(self) -> PathBuf {
        let folder = match self {
            Self::ControlPlane | Self::Kubelet => "kubernetes",
            other => other.name(),
        };
        workspace().join("e2e/kube").join(folder)
    }

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::ControlPlane => &[
                "k8s.io/kubernetes/cmd/kube-apiserver",
                "k8s.io/kubernetes/cmd/kube-controller-manager",
                "k8s.io/kubernetes/cmd/kube-scheduler",
                "k8s.io/kubernetes/cmd/kubectl",
            ],
            Self::Kubelet => &["k8s.io/kubernetes/cmd/kubelet"],
            Self::Etcd => &["go.etcd.io/etcd/server/v3"],
            Self::Helm => &["helm.sh/helm/v3/cmd/helm"],
            Self::Containerd => &[
                "github.com/containerd/containerd/v2/cmd/containerd",
                "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
                "github.com/containerd/containerd/v2/cmd/ctr",
            ],
            Self::Cni => &[
                "github.com/containernetworking/plugins/plugins/main/bridge",
                "github.com/containernetworking/plugins/plugins/main/loopback",
                "github.com/containernetworking/plugins/plugins/ipam/host-local",
            ],
        }
    }

    /// Flags of the linker: Kubernetes must know its own version, which a
    /// build outside its repository can't read from git.
    fn ldflags(self, go_mod: &str) -> Result<String> {
        let mut flags = String::from("-s -w");
        if matches!(self, Self::ControlPlane | Self::Kubelet) {
            let version = required_version(go_mod, "k8s.io/kubernetes")
                .context("e2e/kube/kubernetes/go.mod does not require k8s.io/kubernetes")?;
            let mut parts = version.trim_start_matches('v').split('.');
            let (major, minor) = (parts.next().unwrap_or("0"), parts.next().unwrap_or("0"));
            for (variable, value) in
                [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor), ("gitTreeState", "clean")]
            {
                use std::fmt::Write;
                write!(flags, " -X k8s.io/component-base/version.{variable}={value}")?;
            }
        }
        Ok(flags)
    }
}

/// The version a go.mod requires of a module.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next() == Some(module)).then(|| words.next()).flatten()
    })
}

/// Builds a component unless that was done before; answers the folder of its
/// binaries.
pub async fn ensure_built(component: Component) -> Result<PathBuf> {
    let module = component.module();
    let read = |name: &str| {
        let path = module.join(name);
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    };
    let (go_mod, go_sum) = (read("go.mod")?, read("go.sum")?);
    let ldflags = component.ldflags(&go_mod)?;
    let mut hash = Sha256::new();
    for part in [go_mod.as_str(), &go_sum, &ldflags, &component.packages().join(" ")] {
        hash.update(part.len().to_le_bytes());
        hash.update(part);
    }
    let hash = hash.finalize();
    let hash = u64::from_be_bytes(std::array::from_fn(|index| hash[index]));
    let bin = cache()?.join("bin");
    let target = bin.join(format!("{}-{hash:016x}", component.name()));
    if target.is_dir() {
        return Ok(target);
    }

    fs::create_dir_all(&bin).with_context(|| format!("cannot make {}", bin.display()))?;
    let _lock = lock(bin.join(format!("{}.lock", component.name()))).await?;
    if target.is_dir() {
        return Ok(target);
    }
    check_go(&go_mod).await?;
    // One folder per component, so that what an interrupted build left is found.
    let temporary = bin.join(format!(".building-{}", component.name()));
    let _ = fs::remove_dir_all(&temporary);
    fs::create_dir(&temporary)?;
    build(component, &module, &ldflags, &temporary).await?;
    fs::rename(&temporary, &target).with_context(|| format!("cannot make {}", target.display()))?;
    Ok(target)
}

fn cache() -> Result<PathBuf> {
    let base = match (std::env::var_os("XDG_CACHE_HOME"), std::env::var_os("HOME")) {
        (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
        (_, Some(home)) if !home.is_empty() => PathBuf::from(home).join(".cache"),
        _ => bail!("neither XDG_CACHE_HOME nor HOME is set: there is no place for built binaries"),
    };
    Ok(base.join("vingt"))
}

/// One build of a component at a time; a second lab waits for the first's.
async fn lock(path: PathBuf) -> Result<fs::File> {
    tokio::task::spawn_blocking(move || {
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            eprintln!("waiting for another build that holds {} …", path.display());
            flock(&file, FlockOperation::LockExclusive)?;
        }
        Ok(file)
    })
    .await?
}

/// Says what is missing before a long build fails with something unreadable.
async fn check_go(go_mod: &str) -> Result<()> {
    let wanted = go_mod.lines().find_map(|line| line.strip_prefix("go ")).unwrap_or("1.26");
    let output = Command::new("go").args(["env", "GOVERSION"]).stdin(Stdio::null()).output().await;
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => bail!("`go env` failed: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => bail!(
            "the lab builds Kubernetes from source and needs Go {wanted} or newer in PATH \
             (https://go.dev/dl): cannot run `go`: {error}"
        ),
    };
    let found = String::from_utf8_lossy(&output.stdout);
    let found = found.trim().trim_start_matches("go");
    // With GOTOOLCHAIN=auto an older Go fetches the right one by itself.
    let number = |text: &str| -> Vec<u32> {
        text.split(['.', '-', ' ']).map_while(|part| part.parse().ok()).collect()
    };
    let may_switch = std::env::var("GOTOOLCHAIN").map_or(true, |mode| mode.contains("auto"));
    ensure!(
        number(found) >= number(wanted) || (may_switch && number(found) >= vec![1, 21]),
        "the lab needs Go {wanted} or newer, but `go` is {found}; see https://go.dev/dl"
    );
    Ok(())
}

/// Runs the build, counting compiled packages.
async fn build(component: Component, module: &Path, ldflags: &str, output: &Path) -> Result<()> {
    let name = component.name();
    let packages = component.packages();

    let mut list = go(module);
    list.args(["list", "-deps", "-f", "{{.ImportPath}}"]).args(packages);
    let mut progress = Progress::start(&format!("downloading the modules of {name}"), 0);
    let listed = run(list, |line| progress.advance(line)).await?;
    progress.finish();
    let total = listed.lines().count() as u64;

    let mut command = go(module);
    command.args(["build", "-v", "-ldflags", ldflags, "-o"]).arg(output).args(packages);
    let mut progress = Progress::start(&format!("building {name} (once)"), total);
    run(command, |line| progress.advance(line)).await?;
    progress.finish();
    if component == Component::Etcd {
        // Its main package is called after its folder, not after the program.
        fs::rename(output.join("server"), output.join("etcd")).context("the build of etcd left no binary")?;
    }
    Ok(())
}

fn go(module: &Path) -> Command {
    let mut command = Command::new("go");
    command
        .current_dir(module)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-mod=readonly")
        .env("GOWORK", "off")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs a command to its end; `on_line` sees its error stream, and its output
/// is the answer.
async fn run(mut command: Command, mut on_line: impl FnMut(&str)) -> Result<String> {
    let mut child = command.spawn().context("cannot run `go`")?;
    let stderr = child.stderr.take().context("no error stream")?;
    let stdout = child.stdout.take().context("no output stream")?;
    let collect = tokio::spawn(async move {
        let mut text = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut BufReader::new(stdout), &mut text).await.map(|_| text)
    });
    let mut lines = BufReader::new(stderr).lines();
    let mut last = Vec::new();
    while let Some(line) = lines.next_line().await? {
        on_line(&line);
        last.push(line);
        if last.len() > 40 {
            last.remove(0);
        }
    }
    let status = child.wait().await?;
    ensure!(status.success(), "`go` failed ({status}):\n{}", last.join("\n"));
    Ok(collect.await??)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_either_form_of_require() {
        let block = "require (\n\tk8s.io/kubernetes v1.37.2 // indirect\n\tk8s.io/api v0.1.0\n)\n";
        assert_eq!(required_version(block, "k8s.io/kubernetes"), Some("v1.37.2"));
        let line = "require k8s.io/kubernetes v1.2.3\n";
        assert_eq!(required_version(line, "k8s.io/kubernetes"), Some("v1.2.3"));
        assert_eq!(required_version(line, "k8s.io/api"), None);
    }

    #[test]
    fn kubernetes_is_linked_with_its_version() {
        let flags = Component::Kubelet.ldflags("require k8s.io/kubernetes v1.37.2\n").unwrap();
        assert!(flags.contains("gitVersion=v1.37.2"), "{flags}");
        assert!(flags.contains("gitMinor=37"), "{flags}");
    }
}
