//! The Container Device Interface specs of prepared claims: one file per
//! claim, from which the container runtime learns what to give a container.
//! The files are the agent's own; which claims have one is decided elsewhere.

mod driver_files;
mod nodes;
mod spec;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use crate::files;
use crate::steps::Steps;
use spec::{ContainerEdits, Device, DeviceNode, Mount, Spec};

/// Kind of our devices: vendor and class.
const KIND: &str = "gpu.vingt.dev/mig";
/// Version of the CDI specification that the files are written to.
const CDI_VERSION: &str = "0.6.0";

/// Where things are, and what every container gets besides its device.
#[derive(Clone, Debug)]
pub struct CdiConfig {
    /// Folder of the specs.
    pub folder: PathBuf,
    /// `/proc` of the node.
    pub proc_root: PathBuf,
    /// Root of the driver's files as this process sees it.
    pub driver_root: PathBuf,
    /// The same root as the container runtime sees it.
    pub host_driver_root: PathBuf,
    /// Extra mounts: path on the host, path in the container.
    pub mounts: Vec<(PathBuf, PathBuf)>,
    /// Extra environment variables, `NAME=value`.
    pub env: Vec<String>,
}

/// Writes and removes specs.
pub struct Cdi {
    config: CdiConfig,
    steps: Arc<dyn Steps>,
    /// Said once.
    without_cuda: Once,
}

/// What a container gets for one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CdiDevice {
    /// Name in the claim's allocation.
    pub device: String,
    /// Minor number of the GPU.
    pub minor: u32,
    /// GPU instance and compute instance, for a partition.
    pub partition: Option<(u32, u32)>,
}

/// Why a spec could not be written.
#[derive(Debug, thiserror::Error)]
pub enum CdiError {
    /// The driver's files do not name a device node.
    #[error("{0}")]
    Driver(String),
    /// The file system failed.
    #[error("CDI spec {path}: {error}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: io::Error,
    },
}

/// The CDI id of a device of a claim: what the container runtime is told.
pub fn device_id(uid: &str, device: &str) -> String {
    format!("{KIND}={}", device_name(uid, device))
}

fn device_name(uid: &str, device: &str) -> String {
    format!("{uid}-{device}")
}

impl Cdi {
    /// A writer with this configuration.
    pub fn new(config: CdiConfig, steps: Arc<dyn Steps>) -> Self {
        Self { config, steps, without_cuda: Once::new() }
    }

    /// Writes the spec of a claim, replacing an older one.
    pub fn write(&self, uid: &str, devices: &[CdiDevice]) -> Result<(), CdiError> {
        let spec = self.spec(uid, devices).map_err(CdiError::Driver)?;
        let path = self.path(uid);
        let failed = |error| CdiError::Io { path: path.clone(), error };
        let text = serde_json::to_vec_pretty(&spec).map_err(|error| failed(error.into()))?;
        files::replace(&path, &text, self.steps.as_ref()).map_err(failed)
    }

    /// Removes the spec of a claim, if there is one.
    pub fn remove(&self, uid: &str) -> Result<(), CdiError> {
        let path = self.path(uid);
        files::remove(&path).map_err(|error| CdiError::Io { path, error })
    }

    /// Whether a claim has a spec.
    pub fn exists(&self, uid: &str) -> bool {
        self.path(uid).exists()
    }

    fn path(&self, uid: &str) -> PathBuf {
        self.config.folder.join(format!("{}.json", file_stem(uid)))
    }

    fn spec(&self, uid: &str, devices: &[CdiDevice]) -> Result<Spec, String> {
        let devices = devices
            .iter()
            .map(|device| {
                Ok(Device {
                    name: device_name(uid, &device.device),
                    container_edits: ContainerEdits {
                        device_nodes: nodes::of_device(&self.config, device)?,
                        ..Default::default()
                    },
                })
            })
            .collect::<Result<_, String>>()?;
        let mut env = vec!["NVIDIA_VISIBLE_DEVICES=void".to_owned()];
        env.extend(self.config.env.iter().cloned());
        let mut mounts: BTreeMap<PathBuf, PathBuf> = driver_files::mounts(&self.config);
        mounts.extend(self.config.mounts.iter().map(|(host, container)| (container.clone(), host.clone())));
        if !mounts.keys().any(|path| path.ends_with("libcuda.so.1")) {
            self.without_cuda.call_once(|| {
                tracing::error!(
                    driver_root = %self.config.driver_root.display(),
                    "no libcuda.so.1 under the driver's root: containers get their devices, but no CUDA program \
                     finds its library; see --driver-root and --cdi-mount"
                );
            });
        }
        let mounts = mounts.iter().map(|(container, host)| Mount::read_only(host, container)).collect();
        Ok(Spec {
            cdi_version: CDI_VERSION,
            kind: KIND,
            devices,
            container_edits: ContainerEdits { env, device_nodes: nodes::common(&self.config)?, mounts },
        })
    }
}

fn file_stem(uid: &str) -> String {
    // A UID comes from the API server, but a path is made of it: only what cannot leave the folder.
    let safe: String =
        uid.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    format!("gpu.vingt.dev-mig-{safe}")
}

/// A path under the driver's root, as the container runtime sees it.
fn on_host(config: &CdiConfig, path: &Path) -> PathBuf {
    match path.strip_prefix(&config.driver_root) {
        Ok(rest) => config.host_driver_root.join(rest),
        Err(_) => path.to_owned(),
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn node(path: String, major: u32, minor: u32, mode: u32) -> DeviceNode {
    DeviceNode { path, kind: "c", major, minor, file_mode: mode }
}
