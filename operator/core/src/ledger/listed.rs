//! How maps with keys of several fields are written: as lists, in which no key
//! may come twice.

/// Lines of a report.
pub(super) mod lines {
    use std::collections::BTreeMap;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::ledger::entry::{Basis, LineKey};
    use crate::ledger::report::Amount;
    use crate::model::{Class, UnitMs};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Line {
        profile: String,
        class: Class,
        basis: Basis,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reserve: Option<String>,
        unit_ms: UnitMs,
        #[serde(default, skip_serializing_if = "is_zero")]
        credited_unit_ms: UnitMs,
    }

    #[allow(clippy::trivially_copy_pass_by_ref)] // as serde asks for it
    fn is_zero(number: &UnitMs) -> bool {
        *number == 0
    }

    pub fn serialize<S: Serializer>(
        lines: &BTreeMap<LineKey, Amount>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(lines.iter().map(|(key, amount)| Line {
            profile: key.profile.clone(),
            class: key.class,
            basis: key.basis,
            reserve: key.reserve.clone(),
            unit_ms: amount.used,
            credited_unit_ms: amount.credited,
        }))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<LineKey, Amount>, D::Error> {
        let mut lines = BTreeMap::new();
        for line in Vec::<Line>::deserialize(deserializer)? {
            let Line { profile, class, basis, reserve, unit_ms, credited_unit_ms } = line;
            let amount = Amount { used: unit_ms, credited: credited_unit_ms };
            if lines.insert(LineKey { profile, class, basis, reserve }, amount).is_some() {
                return Err(D::Error::custom("two lines of the same profile, class, basis and reserve"));
            }
        }
        Ok(lines)
    }
}

/// What was installed, by the fraction in force.
pub(super) mod installed {
    use std::collections::BTreeMap;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::model::UnitMs;

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    struct Installed {
        fraction_ppm: u32,
        unit_ms: UnitMs,
    }

    pub fn serialize<S: Serializer>(
        installed: &BTreeMap<u32, UnitMs>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            installed.iter().map(|(&fraction_ppm, &unit_ms)| Installed { fraction_ppm, unit_ms }),
        )
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<u32, UnitMs>, D::Error> {
        let mut installed = BTreeMap::new();
        for part in Vec::<Installed>::deserialize(deserializer)? {
            if installed.insert(part.fraction_ppm, part.unit_ms).is_some() {
                return Err(D::Error::custom("two amounts installed under the same fraction"));
            }
        }
        Ok(installed)
    }
}
