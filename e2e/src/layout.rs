//! Where one lab keeps what on disk. Paths are short, because the name of a
//! unix socket may have no more than 107 bytes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::process::Identity;

/// Longest name a lab may have.
const NAME_MAX: usize = 12;

/// The folders of one lab.
#[derive(Debug, Clone)]
pub struct Layout {
    name: String,
    root: PathBuf,
}

/// Held by whoever runs a lab; the kernel lets go of it when the holder dies.
#[derive(Debug)]
pub struct LabLock {
    // Says who holds it.
    file: File,
}

impl Drop for LabLock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

impl Layout {
    /// The folders of the lab `name` of this user. Makes nothing yet.
    pub fn new(name: &str) -> Result<Self> {
        let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        ensure!(
            !name.is_empty() && name.len() <= NAME_MAX && name.chars().all(valid),
            "a lab's name has 1 to {NAME_MAX} characters of a-z, 0-9 and '-'; \"{name}\" has not"
        );
        Ok(Self { name: name.to_owned(), root: Self::base().join(name) })
    }

    fn base() -> PathBuf {
        PathBuf::from(format!("/tmp/vingt-lab-{}", rustix::process::geteuid().as_raw()))
    }

    /// Names of the labs of this user that have a folder.
    pub fn existing() -> Vec<String> {
        let entries = fs::read_dir(Self::base()).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Makes the folder of this user's labs, or checks that it is ours alone:
    /// `/tmp` is everybody's.
    fn ensure_base() -> Result<()> {
        let base = Self::base();
        match DirBuilder::new().mode(0o700).create(&base) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make {}", base.display()));
            }
            _ => {}
        }
        let found = fs::symlink_metadata(&base)?;
        ensure!(
            found.is_dir() && found.uid() == rustix::process::geteuid().as_raw() && found.mode() & 0o022 == 0,
            "{} is not a folder that only this user can write; remove it",
            base.display()
        );
        Ok(())
    }

    /// Takes the lab, or says that it runs already.
    pub fn lock(&self) -> Result<LabLock> {
        Self::ensure_base()?;
        let path = self.lock_file();
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                bail!("the lab \"{}\" runs already; `cargo lab down` ends it", self.name)
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        let holder = Identity::of(i32::try_from(std::process::id())?)?;
        file.set_len(0)?;
        file.write_all(&serde_json::to_vec(&holder)?)?;
        Ok(LabLock { file })
    }

    /// The process that runs the lab.
    pub fn owner(&self) -> Option<Identity> {
        let text = fs::read(self.lock_file()).ok()?;
        serde_json::from_slice(&text).ok().filter(Identity::is_alive)
    }

    fn lock_file(&self) -> PathBuf {
        Self::base().join(format!("{}.lock", self.name))
    }

    /// Makes all folders; they must not be there yet.
    pub fn create(&self) -> Result<()> {
        DirBuilder::new()
            .mode(0o700)
            .create(&self.root)
            .with_context(|| format!("cannot make {}", self.root.display()))?;
        for folder in [self.pki(), self.logs(), self.records(), self.root.join("n")] {
            fs::create_dir(folder)?;
        }
        Ok(())
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab's folder; everything else is below it.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Certificates and keys.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// One log file per process.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// One record per running process.
    pub fn records(&self) -> PathBuf {
        self.root.join("run")
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// What a running lab says of itself, see `crate::state`.
    pub fn state(&self) -> PathBuf {
        self.root.join("lab.json")
    }

    /// The folder of virtual node number `index`.
    pub fn virtual_node(&self, index: usize) -> PathBuf {
        self.root.join("n").join(index.to_string())
    }

    /// The folder of the real node. The chart's host paths point here; a
    /// virtual node maps them to its own folder.
    pub fn real_node(&self) -> PathBuf {
        self.root.join("real")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_socket_path_fits() {
        let layout = Layout::new(&"x".repeat(NAME_MAX)).unwrap();
        let socket = layout.virtual_node(99).join("kubelet/plugins_registry/gpu.vingt.dev@reg.sock");
        assert!(socket.as_os_str().len() <= 107, "{}", socket.display());
    }

    #[test]
    fn names_that_would_leave_the_folder_are_refused() {
        for name in ["", "..", "a/b", "A", "thirteen-char"] {
            assert!(Layout::new(name).is_err(), "{name}");
        }
    }
}
