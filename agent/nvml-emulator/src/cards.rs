//! The cards that can be played, with their MIG profiles: facts only, read from `cards.yaml`.
//! What is where on a GPU is in [`crate::state`]; what may be done to it in [`crate::mig`].

use std::sync::OnceLock;

use serde::Deserialize;

/// A card model.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Card {
    /// The name by which a node description asks for it, e.g. `h100-sxm5-80gb`.
    pub id: String,
    /// What `nvmlDeviceGetName` says.
    pub product_name: String,
    /// The chip's generation.
    pub architecture: Architecture,
    /// Device and vendor id, as in `nvmlPciInfo_t`.
    pub pci_device_id: u32,
    /// Subsystem and subsystem vendor id, as in `nvmlPciInfo_t`.
    pub pci_subsystem_id: u32,
    /// All memory, without MIG.
    pub total_memory_mib: u64,
    /// Of it, what the driver keeps for itself.
    pub reserved_memory_mib: u64,
    /// Width of the memory bus.
    pub memory_bus_bits: u32,
    /// All multiprocessors, without MIG.
    pub multiprocessors: u32,
    /// Compute slices of the whole GPU.
    #[cfg_attr(not(test), expect(dead_code, reason = "placements imply it; the tests check that they do"))]
    pub compute_slices: u32,
    /// Memory slices of the whole GPU.
    pub memory_slices: u32,
    /// The lowest power limit.
    pub min_power_milliwatts: u32,
    /// The highest power limit, and the default one.
    pub max_power_milliwatts: u32,
    /// Highest clock of the multiprocessors.
    pub max_sm_clock_mhz: u32,
    /// Highest clock of the memory.
    pub max_memory_clock_mhz: u32,
    /// The GPU instance profiles, in the order of the documentation.
    pub profiles: Vec<Profile>,
}

/// The generation of a chip, as far as it changes behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Architecture {
    /// Changing the MIG mode needs a reset of the GPU.
    Ampere,
    /// The MIG mode of an idle GPU changes at once.
    Hopper,
}

/// A GPU instance profile of a card.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Profile {
    /// E.g. `1g.10gb+me`.
    pub name: String,
    /// The GPU instance profile id: 19, 20, 15, 14, 9, 5, 0.
    pub id: u32,
    /// The `NVML_GPU_INSTANCE_PROFILE_*` number: the other numbering.
    #[serde(rename = "enum")]
    pub number: u32,
    /// Compute slices it takes.
    pub compute_slices: u32,
    /// Memory slices it takes.
    pub memory_slices: u32,
    /// Memory an instance has.
    pub memory_mib: u64,
    /// Multiprocessors an instance has.
    pub multiprocessors: u32,
    /// Copy engines.
    pub copy_engines: u32,
    /// Video decoders.
    pub decoders: u32,
    /// Video encoders.
    pub encoders: u32,
    /// JPEG engines.
    pub jpeg_engines: u32,
    /// Optical flow engines.
    pub ofa_engines: u32,
    /// How many instances an empty GPU holds.
    pub max_instances: u32,
    /// The memory slices at which an instance may start.
    pub starts: Vec<u32>,
    /// The compute instance profile that takes the whole instance.
    #[serde(rename = "fullComputeProfile")]
    pub full_compute_id: u32,
}

impl Card {
    /// The profile with this GPU instance profile id.
    pub fn profile_by_id(&self, id: u32) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.id == id)
    }

    /// The profile with this `NVML_GPU_INSTANCE_PROFILE_*` number.
    pub fn profile_by_number(&self, number: u32) -> Option<&Profile> {
        self.profiles.iter().find(|profile| profile.number == number)
    }

    /// CUDA compute capability, major and minor.
    pub fn compute_capability(&self) -> (i32, i32) {
        match self.architecture {
            Architecture::Ampere => (8, 0),
            Architecture::Hopper => (9, 0),
        }
    }
}

/// All cards, in the order of the table.
pub fn all() -> &'static [Card] {
    static CARDS: OnceLock<Vec<Card>> = OnceLock::new();
    // The table is compiled in and a test reads it, so that it always parses; an empty list would say "unknown card".
    CARDS.get_or_init(|| serde_yaml::from_str(include_str!("../cards.yaml")).unwrap_or_default())
}

/// The card of this id.
pub fn by_id(id: &str) -> Option<&'static Card> {
    all().iter().find(|card| card.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_parses_and_is_consistent() {
        let cards: Vec<Card> = serde_yaml::from_str(include_str!("../cards.yaml")).expect("cards.yaml");
        assert_eq!(cards.len(), 7);
        for card in &cards {
            assert_eq!(card.profiles.len(), 7, "{}", card.id);
            for profile in &card.profiles {
                assert!(profile.starts.len() >= profile.max_instances as usize, "{}", profile.name);
                for start in &profile.starts {
                    assert!(start + profile.memory_slices <= card.memory_slices, "{}", profile.name);
                    assert_eq!(start % profile.memory_slices, 0, "{} starts off its grid", profile.name);
                }
                assert!(profile.memory_mib < card.total_memory_mib);
                assert!(profile.multiprocessors <= card.multiprocessors);
                assert!(profile.compute_slices <= card.compute_slices);
            }
        }
    }

    #[test]
    fn the_two_numberings_are_kept_apart() {
        let card = by_id("h100-sxm5-80gb").expect("card");
        assert_eq!(card.profile_by_number(0).map(|p| p.name.as_str()), Some("1g.10gb"));
        assert_eq!(card.profile_by_id(0).map(|p| p.name.as_str()), Some("7g.80gb"));
        assert_eq!(card.profile_by_number(9).map(|p| p.name.as_str()), Some("1g.20gb"));
        assert_eq!(card.profile_by_id(9).map(|p| p.name.as_str()), Some("3g.40gb"));
    }
}
