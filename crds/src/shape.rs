//! What is kept, claimed or ordered of a sovereign reserve: a number of equal
//! shapes, and the share of a pool they are part of. How a shape is placed is
//! not decided here.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number of equal pods, each on a partition or on whole GPUs of one node. Exactly one of `profile` and `gpus`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.profile) != has(self.gpus)",
    "say exactly one of profile (a MIG profile such as 3g.40gb) and gpus (whole GPUs of one node)"))]
pub struct ReserveShape {
    /// A MIG profile as the driver names it, such as `3g.40gb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    #[x_kube(validation = ("self.matches('^[1-9][0-9]*g[.][1-9][0-9]*gb([+]me)?$')",
        "not the name of a MIG profile: write it as the driver does, for example 1g.10gb, 3g.40gb or 1g.10gb+me"))]
    pub profile: Option<String>,
    /// Number of whole GPUs, all on one node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub gpus: Option<u32>,
    /// How many of them.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 4096))]
    pub count: u32,
}

fn one() -> u32 {
    1
}

impl std::fmt::Display for ReserveShape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} × ", self.count)?;
        match (&self.profile, self.gpus) {
            (Some(profile), _) => write!(f, "{profile}"),
            (None, Some(1)) => write!(f, "GPU"),
            (None, Some(gpus)) => write!(f, "{gpus} GPUs"),
            (None, None) => write!(f, "nothing"),
        }
    }
}

/// A share of a pool, as a percentage with at most four decimals: `5%`, `0.5%`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fraction(pub String);

impl Fraction {
    /// Parts per million: `5%` is 50,000. Nothing if it is no percentage above 0 and up to 100.
    pub fn ppm(&self) -> Option<u32> {
        const DECIMALS: usize = 4;
        let number = self.0.strip_suffix('%')?;
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || whole.len() > 3 || decimals.len() > DECIMALS {
            return None;
        }
        let ppm = format!("{whole}{decimals:0<DECIMALS$}").parse().ok()?;
        (1..=1_000_000).contains(&ppm).then_some(ppm)
    }
}

impl std::fmt::Display for Fraction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Fraction {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Fraction".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "maxLength": 9,
            "x-kubernetes-validations": [{
                "rule": "self.matches('^(100([.]0{1,4})?|[0-9]{1,2}([.][0-9]{1,4})?)%$') && self.matches('[1-9]')",
                "message": "not a share: write a percentage above 0 and up to 100, with at most four decimals, for example 5% or 0.5%",
            }],
        })
    }
}

/// Schema of a time. It admits only what every part of vingt can read, so that one object cannot stop a watch.
pub(crate) fn time(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "string",
        "format": "date-time",
        "maxLength": 40,
        "pattern": "^2[0-8][0-9]{2}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,9})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_parts_per_million_exactly() {
        let ppm = |text: &str| Fraction(text.to_owned()).ppm();
        assert_eq!(ppm("5%"), Some(50_000));
        assert_eq!(ppm("0.5%"), Some(5_000));
        assert_eq!(ppm("12.3456%"), Some(123_456));
        assert_eq!(ppm("0.0001%"), Some(1));
        assert_eq!(ppm("100%"), Some(1_000_000));
        for none in ["0%", "0.0%", "100.1%", "5", "-5%", "5 %", "%", ".5%", "5.%", "5.00001%", "1e1%", "٥%"]
        {
            assert_eq!(ppm(none), None, "{none}");
        }
    }

    #[test]
    fn a_shape_says_what_it_is() {
        let shape = |profile: Option<&str>, gpus, count| {
            ReserveShape { profile: profile.map(Into::into), gpus, count }.to_string()
        };
        assert_eq!(shape(Some("3g.40gb"), None, 2), "2 × 3g.40gb");
        assert_eq!(shape(None, Some(1), 1), "1 × GPU");
        assert_eq!(shape(None, Some(8), 4), "4 × 8 GPUs");
    }
}
