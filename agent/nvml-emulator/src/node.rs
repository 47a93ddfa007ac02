//! The description of a node, `node.yaml`: which cards it has and which driver. What happens to them later is in
//! [`crate::state`].

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cards;

/// What a node is made of.
///
/// ```yaml
/// driverVersion: 580.95.05   # optional
/// cudaVersion: "13.0"        # optional
/// seed: node-1               # optional: makes the UUIDs the same every time; else the folder's path does
/// gpus:
///   - card: h100-sxm5-80gb   # an id of cards.yaml
///     count: 8
///     mig: true              # MIG mode at boot
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeDescription {
    /// Version of the driver.
    #[serde(default = "default_driver_version")]
    pub driver_version: String,
    /// CUDA version the driver supports, `major.minor`.
    #[serde(default = "default_cuda_version")]
    pub cuda_version: String,
    /// What the UUIDs and serial numbers are made from; nodes of one cluster need different ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<String>,
    /// The cards, in the order of their minor numbers.
    pub gpus: Vec<GpuGroup>,
}

/// Some GPUs of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GpuGroup {
    /// The id of a card in `cards.yaml`, e.g. `h100-sxm5-80gb`.
    pub card: String,
    /// How many.
    pub count: u32,
    /// Whether they are in MIG mode at boot.
    #[serde(default)]
    pub mig: bool,
}

/// What is wrong with a node description.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// A card that is not in the table.
    #[error("unknown card `{card}`: use one of {known}")]
    UnknownCard {
        /// The name asked for.
        card: String,
        /// The names there are.
        known: String,
    },
    /// More GPUs than a node can have.
    #[error("too many GPUs: a node has at most {limit}")]
    TooManyGpus {
        /// The most there can be.
        limit: u32,
    },
    /// A node without GPUs.
    #[error("no GPU: give at least one entry under `gpus` with a count above 0")]
    NoGpu,
    /// A CUDA version that is not `major.minor`.
    #[error("cudaVersion `{version}` is not of the form `major.minor`, e.g. \"13.0\" (quoted)")]
    CudaVersion {
        /// What was given.
        version: String,
    },
    /// Not the YAML of a node description.
    #[error("node description: {0}")]
    Yaml(#[from] serde_yaml::Error),
}

impl NodeError {
    pub(crate) fn unknown_card(card: &str) -> Self {
        let known: Vec<&str> = cards::all().iter().map(|card| card.id.as_str()).collect();
        Self::UnknownCard { card: card.to_owned(), known: known.join(", ") }
    }
}

impl NodeDescription {
    /// A node with `count` GPUs of one card, and the default driver.
    pub fn of(card: &str, count: u32, mig: bool) -> Self {
        Self {
            driver_version: default_driver_version(),
            cuda_version: default_cuda_version(),
            seed: None,
            gpus: vec![GpuGroup { card: card.to_owned(), count, mig }],
        }
    }

    /// Reads the YAML form.
    pub fn from_yaml(text: &str) -> Result<Self, NodeError> {
        Ok(serde_yaml::from_str(text)?)
    }

    pub(crate) fn to_yaml(&self) -> Result<String, NodeError> {
        Ok(serde_yaml::to_string(self)?)
    }

    pub(crate) fn cuda_version(&self) -> Result<(u32, u32), NodeError> {
        self.cuda_version
            .split_once('.')
            .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
            .ok_or_else(|| NodeError::CudaVersion { version: self.cuda_version.clone() })
    }
}

fn default_driver_version() -> String {
    "580.95.05".to_owned()
}

fn default_cuda_version() -> String {
    "13.0".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;

    #[test]
    fn the_yaml_of_the_documentation_is_read() {
        let node = NodeDescription::from_yaml(
            "gpus: [{card: h100-sxm5-80gb, count: 2, mig: true}, {card: a100-40gb, count: 1}]",
        )
        .expect("parses");
        let state = State::new(&node, "n").expect("a node");
        assert_eq!(state.gpus.len(), 3);
        assert!(state.gpus[1].mig && !state.gpus[2].mig);
        assert_eq!(state.cuda_version, (13, 0));
    }

    #[test]
    fn mistakes_are_named() {
        let of = |yaml: &str| {
            NodeDescription::from_yaml(yaml)
                .and_then(|node| State::new(&node, "n"))
                .expect_err(yaml)
                .to_string()
        };
        assert!(
            of("gpus: [{card: h100, count: 1}]")
                .starts_with("unknown card `h100`: use one of h100-sxm5-80gb, ")
        );
        assert!(of("gpus: []").starts_with("no GPU"));
        assert!(of("gpus: [{card: a100-40gb, count: 33}]").starts_with("too many GPUs"));
        assert!(of("gpus: [{card: a100-40gb, cuont: 1}]").contains("unknown field `cuont`"));
        assert!(of("{cudaVersion: thirteen, gpus: [{card: a100-40gb, count: 1}]}").contains("`thirteen`"));
    }
}
