//! The part of a CDI spec that the agent writes, as its JSON names it.

use std::path::Path;

use serde::Serialize;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Spec {
    pub(super) cdi_version: &'static str,
    pub(super) kind: &'static str,
    pub(super) devices: Vec<Device>,
    pub(super) container_edits: ContainerEdits,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) container_edits: ContainerEdits,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerEdits {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) env: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) device_nodes: Vec<DeviceNode>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) mounts: Vec<Mount>,
}

/// A device node, with its numbers: the runtime then makes it, whether or not the host has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DeviceNode {
    pub(super) path: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) major: u32,
    pub(super) minor: u32,
    pub(super) file_mode: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mount {
    host_path: String,
    container_path: String,
    options: Vec<&'static str>,
}

impl Mount {
    pub(super) fn read_only(host: &Path, container: &Path) -> Self {
        Self {
            host_path: super::text(host),
            container_path: super::text(container),
            options: vec!["ro", "nosuid", "nodev", "rbind", "rprivate"],
        }
    }
}
