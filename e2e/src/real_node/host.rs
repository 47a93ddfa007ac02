//! Whether this machine can have a real node, and the few programs for it
//! that come from Debian.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CapabilitySet, capabilities};
use tokio::process::Command;

use super::cgroups;

/// Programs a node needs, and Debian's packages of them.
const TOOLS: [(&str, &str); 7] = [
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("busybox", "busybox-static"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("mount", "mount"),
    ("ldd", "libc-bin"),
];

/// Why this machine or this user cannot have a real node; `None` if they can.
pub fn obstacle() -> Option<&'static str> {
    if !cfg!(target_os = "linux") {
        Some("a real node needs Linux")
    } else if !rustix::process::geteuid().is_root() {
        Some("a real node needs root")
    } else if !has_capabilities() {
        Some("a real node needs namespaces and interfaces of its own, which this root may not make")
    } else if !cgroups::may_create() {
        Some("a real node needs control groups, which this machine does not let one make")
    } else {
        None
    }
}

/// Whether this process may do what root usually may, which is not so in most
/// containers.
fn has_capabilities() -> bool {
    let wanted = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    capabilities(None).is_ok_and(|sets| sets.effective.contains(wanted))
}

/// Packages that have to be installed before a node can be started.
pub fn missing_packages() -> Vec<&'static str> {
    let missing = TOOLS.iter().filter(|(program, _)| find(program).is_none());
    let mut packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    packages.dedup();
    packages
}

/// Installs [`missing_packages`] by apt-get. Says so before it does.
pub async fn install_tools() -> Result<()> {
    let packages = missing_packages();
    if packages.is_empty() {
        return Ok(());
    }
    let list = packages.join(" ");
    if find("apt-get").is_none() {
        bail!("the real node needs {list}; install what provides them and try again");
    }
    eprintln!("installing for the real node, by apt-get: {list}");
    if apt_get(&["install", "--yes", "--no-install-recommends"], &packages).await.is_err() {
        // The lists of packages may be old or missing.
        apt_get(&["update"], &[]).await?;
        apt_get(&["install", "--yes", "--no-install-recommends"], &packages).await?;
    }
    let still = missing_packages();
    ensure!(still.is_empty(), "apt-get installed {list}, but not the programs of {}", still.join(", "));
    Ok(())
}

async fn apt_get(command: &[&str], packages: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(command)
        .args(packages)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot run apt-get")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "`apt-get {}` failed:\n{}", command.join(" "), errors.trim());
    Ok(())
}

/// busybox, which is in the images that pods run.
pub(super) fn busybox() -> Result<PathBuf> {
    find("busybox").context("busybox is not in the PATH; install the package busybox-static")
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
