//! What is ordered, as people write it: `2x3g.40gb`, `8gpu`, `2x8gpu`.

use std::str::FromStr;

use vingt_crds::ReserveShape;

use crate::words::BadInput;

/// One shape of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape(pub ReserveShape);

impl FromStr for Shape {
    type Err = BadInput;

    fn from_str(text: &str) -> Result<Self, BadInput> {
        let wrong = || {
            BadInput(format!(
                "{text:?} is not a shape: write for example 3g.40gb, 2x3g.40gb, gpu, 8gpu (on one node) or 2x8gpu"
            ))
        };
        let positive = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0);
        let (count, what) = match text.split_once('x') {
            Some((count, what)) => (positive(count).ok_or_else(wrong)?, what),
            None => (1, text),
        };
        let gpus = what.strip_suffix("gpus").or_else(|| what.strip_suffix("gpu"));
        let shape = match gpus {
            Some("") => ReserveShape { gpus: Some(1), profile: None, count },
            Some(gpus) => {
                ReserveShape { gpus: Some(positive(gpus).ok_or_else(wrong)?), profile: None, count }
            }
            // The API server says what a profile must be like.
            None if what.contains("g.") => ReserveShape { profile: Some(what.to_owned()), gpus: None, count },
            None => return Err(wrong()),
        };
        Ok(Self(shape))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_written_short() {
        let said = |text: &str| text.parse::<Shape>().map(|shape| shape.0.to_string());
        assert_eq!(said("3g.40gb").unwrap(), "1 × 3g.40gb");
        assert_eq!(said("2x1g.10gb+me").unwrap(), "2 × 1g.10gb+me");
        assert_eq!(said("gpu").unwrap(), "1 × GPU");
        assert_eq!(said("2x8gpus").unwrap(), "2 × 8 GPUs");
        for wrong in ["", "2x", "x3g.40gb", "0x3g.40gb", "-1xgpu", "0gpu", "3g40gb", "two"] {
            assert!(said(wrong).is_err(), "{wrong}");
        }
    }
}
