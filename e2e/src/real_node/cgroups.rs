//! The control groups below which all pods of the node are, in whichever
//! hierarchies this machine has: version 1, version 2, or both.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::wait::wait_for;

/// Makes the node's control group; answers its name for the kubelet.
pub(super) fn create(lab: &str) -> Result<String> {
    let name = format!("vingt-{lab}");
    let hierarchies = hierarchies()?;
    ensure!(!hierarchies.is_empty(), "no control groups are mounted on this machine");
    for hierarchy in hierarchies {
        let group = hierarchy.join(&name);
        fs::create_dir_all(&group)
            .with_context(|| format!("cannot make the control group {}", group.display()))?;
    }
    Ok(format!("/{name}"))
}

/// Removes it with all below, as soon as the last process in it has ended.
pub(super) async fn remove(lab: &str, deadline: Duration) -> Result<()> {
    let name = format!("vingt-{lab}");
    let groups: Vec<PathBuf> = hierarchies()?.into_iter().map(|path| path.join(&name)).collect();
    wait_for(deadline, "the control groups of the real node to become empty", || async {
        groups.iter().try_for_each(|group| remove_tree(group)).map(Some)
    })
    .await
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
