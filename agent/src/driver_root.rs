//! The driver's installation, below a root that need not be ours: files are
//! found as a program inside that root would find them. What they are for is
//! decided by the callers.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Folders of libraries, as distributions have them; the first that holds a library counts.
pub(crate) const LIBRARY_FOLDERS: [&str; 5] =
    ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib64", "usr/lib", "lib64"];

/// The file of a library by its name, in the first folder that holds it.
pub(crate) fn library(root: &Path, name: &OsStr) -> Option<PathBuf> {
    LIBRARY_FOLDERS.iter().find_map(|folder| resolve(root, &Path::new(folder).join(name)))
}

/// The file behind `inner` with all symbolic links followed inside `root`; absolute links too.
pub(crate) fn resolve(root: &Path, inner: &Path) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    let mut left: Vec<_> = components(inner);
    left.reverse();
    let mut links = 0;
    while let Some(part) = left.pop() {
        if part == ".." {
            path.pop();
            continue;
        }
        let next = path.join(&part);
        match fs::read_link(root.join(&next)) {
            Ok(link) if links < 40 => {
                links += 1;
                if link.is_absolute() {
                    path = PathBuf::new();
                }
                left.extend(components(&link).into_iter().rev());
            }
            Ok(_) => return None,
            Err(_) => path = next,
        }
    }
    let file = root.join(path);
    file.is_file().then_some(file)
}

fn components(path: &Path) -> Vec<std::ffi::OsString> {
    path.components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}
