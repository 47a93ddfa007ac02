//! The control groups below which all pods of the node are, in whichever
//! hierarchies this machine has: version 1, version 2, or both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::fs::Access;

use crate::wait::wait_for;

/// Makes the node's control group; answers its name for the kubelet.
///
/// Notes in the file `enabled` what it had to change of version 2's root.
pub(super) fn create(lab: &str, enabled: &Path) -> Result<String> {
    let name = format!("vingt-{lab}");
    let hierarchies = hierarchies()?;
    ensure!(!hierarchies.is_empty(), "no control groups are mounted on this machine");
    let changed: Vec<Vec<String>> =
        hierarchies.iter().map(|path| enable_controllers(path)).collect::<Result<_>>()?;
    fs::write(enabled, changed.concat().join("\n"))?;
    for hierarchy in hierarchies {
        let group = hierarchy.join(&name);
        fs::create_dir_all(&group)
            .with_context(|| format!("cannot make the control group {}", group.display()))?;
    }
    Ok(format!("/{name}"))
}

/// Lets groups below the root of a version 2 hierarchy have all controllers
/// there are, because the kubelet insists on it; answers what was written.
fn enable_controllers(hierarchy: &Path) -> Result<Vec<String>> {
    // Version 1 has no such file.
    let Ok(all) = fs::read_to_string(hierarchy.join("cgroup.controllers")) else { return Ok(Vec::new()) };
    let control = hierarchy.join("cgroup.subtree_control");
    let before = fs::read_to_string(&control)?;
    let before: Vec<&str> = before.split_whitespace().collect();
    let mut enabled = Vec::new();
    for controller in all.split_whitespace().filter(|name| !before.contains(name)) {
        // Some cannot be while others use them; the kubelet says so if it minds.
        if fs::write(&control, format!("+{controller}")).is_ok() {
            enabled.push(controller.to_owned());
        }
    }
    Ok(enabled)
}

/// Removes it with all below, as soon as the last process in it has ended, and
/// undoes what `enabled` says.
pub(super) async fn remove(lab: &str, enabled: &Path, deadline: Duration) -> Result<()> {
    let name = format!("vingt-{lab}");
    let hierarchies = hierarchies()?;
    let groups: Vec<PathBuf> = hierarchies.iter().map(|path| path.join(&name)).collect();
    wait_for(deadline, "the control groups of the real node to become empty", || async {
        groups.iter().try_for_each(|group| remove_tree(group)).map(Some)
    })
    .await?;
    for controller in fs::read_to_string(enabled).unwrap_or_default().lines() {
        for hierarchy in &hierarchies {
            // Whoever uses it by now keeps it.
            let _ = fs::write(hierarchy.join("cgroup.subtree_control"), format!("-{controller}"));
        }
    }
    let _ = fs::remove_file(enabled);
    Ok(())
}

/// Whether this process may make control groups.
pub(super) fn may_create() -> bool {
    let writable = |path: &PathBuf| rustix::fs::access(path, Access::WRITE_OK).is_ok();
    hierarchies().is_ok_and(|all| !all.is_empty() && all.iter().all(writable))
}

/// Only the folders can be removed; the files in them go along.
fn remove_tree(group: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(group) else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(group).with_context(|| format!("cannot remove the control group {}", group.display()))
}

fn hierarchies() -> Result<Vec<PathBuf>> {
    Ok(parse(&fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?))
}

fn parse(mounts: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(1);
            let (path, kind) = (words.next()?, words.next()?);
            matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(path))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_found() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let expected = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        assert_eq!(parse(mounts), expected);
    }
}
