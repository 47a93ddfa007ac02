//! What a device name means: which GPU, or which profile at which placement.
//! Names are made and read here only.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::nvml::{Inventory, Placement, Profile};

/// The piece of hardware behind a device, independent of what exists there now.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "type")]
pub enum Target {
    /// A whole GPU.
    #[serde(rename_all = "camelCase")]
    Gpu {
        /// The driver's UUID of the GPU.
        gpu: String,
        /// Minor number of the GPU.
        minor: u32,
    },
    /// A partition at one placement.
    #[serde(rename_all = "camelCase")]
    Partition {
        /// The driver's UUID of the GPU.
        gpu: String,
        /// Minor number of the GPU.
        minor: u32,
        /// GPU instance profile id.
        profile_id: u32,
        /// Where it lies.
        placement: Placement,
        /// Multiprocessors of the profile.
        multiprocessors: u32,
    },
}

/// A device name that means nothing on this node.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("device {device}: {why}")]
pub struct UnknownDevice {
    device: String,
    why: String,
}

impl Target {
    /// UUID of the GPU.
    pub fn gpu(&self) -> &str {
        match self {
            Self::Gpu { gpu, .. } | Self::Partition { gpu, .. } => gpu,
        }
    }

    /// Minor number of the GPU.
    pub fn minor(&self) -> u32 {
        match self {
            Self::Gpu { minor, .. } | Self::Partition { minor, .. } => *minor,
        }
    }

    /// Whether the two cannot exist at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        self.gpu() == other.gpu()
            && match (self, other) {
                (Self::Partition { placement: a, .. }, Self::Partition { placement: b, .. }) => {
                    a.overlaps(*b)
                }
                _ => true,
            }
    }

    /// The target of a device name, by what the node's GPUs can do.
    pub fn of(device: &str, inventory: &Inventory) -> Result<Self, UnknownDevice> {
        let unknown = |why: String| UnknownDevice { device: device.to_owned(), why };
        let name =
            Name::parse(device).ok_or_else(|| unknown("not a name that this driver publishes".to_owned()))?;
        let gpu = inventory.by_minor(name.minor).ok_or_else(|| unknown(missing(name.minor, inventory)))?;
        let Some(partition) = name.partition else {
            return Ok(Self::Gpu { gpu: gpu.uuid.clone(), minor: gpu.minor });
        };
        let profile = gpu
            .profile(partition.profile_id)
            .filter(|profile| slug(profile) == partition.slug)
            .ok_or_else(|| unknown(format!("{} has no such profile", gpu.product)))?;
        let placement =
            profile.placements.iter().find(|placement| placement.start == partition.start).ok_or_else(
                || unknown(format!("{} cannot be placed at {}", profile.name, partition.start)),
            )?;
        Ok(Self::Partition {
            gpu: gpu.uuid.clone(),
            minor: gpu.minor,
            profile_id: profile.id,
            placement: *placement,
            multiprocessors: profile.multiprocessors,
        })
    }
}

fn missing(minor: u32, inventory: &Inventory) -> String {
    let mut why = format!("this node has no readable GPU with minor number {minor}");
    for unreadable in &inventory.unreadable {
        // Writing to a string cannot fail.
        let _ = write!(why, "; the one at index {} cannot be read: {}", unreadable.index, unreadable.why);
    }
    why
}

/// Name of a whole GPU's device, and of its counter set.
pub fn gpu_name(minor: u32) -> String {
    format!("gpu-{minor}")
}

/// Name of a partition's device.
pub fn partition_name(minor: u32, profile: &Profile, placement: Placement) -> String {
    format!("gpu-{minor}-mig-{}-{}-{}", slug(profile), profile.id, placement.start)
}

/// The profile's name as it may stand in a device name.
fn slug(profile: &Profile) -> String {
    profile.name.replace('.', "").replace('+', "-").to_lowercase()
}

struct Name<'a> {
    minor: u32,
    partition: Option<PartitionName<'a>>,
}

struct PartitionName<'a> {
    slug: &'a str,
    profile_id: u32,
    start: u32,
}

impl<'a> Name<'a> {
    fn parse(device: &'a str) -> Option<Self> {
        let rest = device.strip_prefix("gpu-")?;
        let Some((minor, rest)) = rest.split_once("-mig-") else {
            return Some(Self { minor: rest.parse().ok()?, partition: None });
        };
        // The profile may hold dashes, the numbers after it cannot: read from the end.
        let (rest, start) = rest.rsplit_once('-')?;
        let (slug, profile_id) = rest.rsplit_once('-')?;
        let partition =
            PartitionName { slug, profile_id: profile_id.parse().ok()?, start: start.parse().ok()? };
        Some(Self { minor: minor.parse().ok()?, partition: Some(partition) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::fixtures::h100;

    fn inventory() -> Inventory {
        Inventory { gpus: vec![h100(0), h100(3)], unreadable: Vec::new() }
    }

    #[test]
    fn every_published_name_is_read_back_to_its_own_target() {
        let inventory = inventory();
        let gpu = &inventory.gpus[1];
        let mut names = Vec::new();
        for profile in &gpu.profiles {
            for placement in &profile.placements {
                let name = partition_name(3, profile, *placement);
                let target = Target::of(&name, &inventory).unwrap();
                let expected = Target::Partition {
                    gpu: gpu.uuid.clone(),
                    minor: 3,
                    profile_id: profile.id,
                    placement: *placement,
                    multiprocessors: profile.multiprocessors,
                };
                assert_eq!(target, expected);
                names.push(name);
            }
        }
        assert_eq!(names.len(), 25);
        assert!(names.contains(&"gpu-3-mig-1g10gb-me-20-0".to_owned()), "{names:?}");
    }

    #[test]
    fn names_that_mean_nothing_here_are_refused_with_a_reason() {
        for (name, why) in [
            ("gpu-1", "no readable GPU with minor number 1"),
            ("nic-0", "not a name that this driver publishes"),
            ("gpu-0-mig-3g40gb-9", "not a name"),
            ("gpu-0-mig-3g40gb-9-2", "cannot be placed at 2"),
            ("gpu-0-mig-3g20gb-9-0", "has no such profile"),
            ("gpu-0-mig-3g40gb-19-0", "has no such profile"),
        ] {
            let error = Target::of(name, &inventory()).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_whole_gpu_conflicts_with_all_on_it_and_partitions_by_their_slices() {
        let inventory = inventory();
        let target = |name: &str| Target::of(name, &inventory).unwrap();
        assert!(target("gpu-0").conflicts(&target("gpu-0-mig-1g10gb-19-6")));
        assert!(target("gpu-0-mig-3g40gb-9-0").conflicts(&target("gpu-0-mig-1g10gb-19-3")));
        assert!(!target("gpu-0-mig-3g40gb-9-0").conflicts(&target("gpu-0-mig-3g40gb-9-4")));
        assert!(!target("gpu-0").conflicts(&target("gpu-3")));
    }
}
