//! Kubernetes quantities (`250m`, `30Gi`, `1e3`) as exact integers.
//!
//! No floating point: a quantity is a number of billionths, and what is finer
//! is rounded up, as Kubernetes does. Formatting is not here.

use std::fmt;

/// Billionths of one.
const SCALE: i128 = 1_000_000_000;

/// An exact quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(i128);

/// Why a text is not a quantity.
#[derive(Debug, PartialEq, Eq)]
pub struct NotAQuantity(String);

impl fmt::Display for NotAQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a quantity: write a number and a unit, for example 500m or 30Gi", self.0)
    }
}

impl std::error::Error for NotAQuantity {}

impl Amount {
    /// Parses `text` as Kubernetes does: a decimal number with a binary,
    /// decimal or exponent suffix.
    pub fn parse(text: &str) -> Result<Self, NotAQuantity> {
        parse(text).ok_or_else(|| NotAQuantity(text.to_owned()))
    }

    /// Units, rounded up; negative is 0, too large is the largest.
    pub fn units(self) -> u64 {
        self.scaled(SCALE)
    }

    /// Thousandths, rounded up; negative is 0, too large is the largest.
    pub fn milli(self) -> u64 {
        self.scaled(SCALE / 1000)
    }

    /// This times `factor`, in units, rounded down.
    pub fn times(self, factor: u64) -> u64 {
        let product = self.0.max(0).saturating_mul(i128::from(factor)) / SCALE;
        u64::try_from(product).unwrap_or(u64::MAX)
    }

    /// -1, 0 or 1.
    pub fn signum(self) -> i64 {
        i64::from(self.0 > 0) - i64::from(self.0 < 0)
    }

    /// The sum; too large is the largest.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The value, if it is a whole number that fits.
    pub fn as_integer(self) -> Option<i64> {
        (self.0 % SCALE == 0).then(|| i64::try_from(self.0 / SCALE).ok()).flatten()
    }

    fn scaled(self, unit: i128) -> u64 {
        let value = self.0.max(0);
        let rounded = value / unit + i128::from(value % unit != 0);
        u64::try_from(rounded).unwrap_or(u64::MAX)
    }
}

fn parse(text: &str) -> Option<Amount> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let (binary, decimal) = multiplier(suffix)?;
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let places = u32::try_from(fraction.len()).ok()?;
    // digits · binary · 10^(decimal − places), in billionths, rounded away from zero.
    let exponent = decimal + 9 - i32::try_from(places).ok()?;
    let scaled = digits.checked_mul(binary);
    let value = if exponent >= 0 {
        scaled.and_then(|v| v.checked_mul(10i128.checked_pow(exponent.unsigned_abs())?)).unwrap_or(i128::MAX)
    } else {
        let divisor = 10i128.checked_pow(exponent.unsigned_abs())?;
        let scaled = scaled?;
        scaled / divisor + i128::from(scaled % divisor != 0)
    };
    Some(Amount(if negative { -value } else { value }))
}

/// A suffix as a binary factor and a power of ten.
fn multiplier(suffix: &str) -> Option<(i128, i32)> {
    Some(match suffix {
        "" => (1, 0),
        "n" => (1, -9),
        "u" => (1, -6),
        "m" => (1, -3),
        "k" => (1, 3),
        "M" => (1, 6),
        "G" => (1, 9),
        "T" => (1, 12),
        "P" => (1, 15),
        "E" => (1, 18),
        "Ki" => (1 << 10, 0),
        "Mi" => (1 << 20, 0),
        "Gi" => (1 << 30, 0),
        "Ti" => (1 << 40, 0),
        "Pi" => (1 << 50, 0),
        "Ei" => (1 << 60, 0),
        exponent => {
            let power = exponent.strip_prefix(['e', 'E'])?;
            let power: i32 = power.parse().ok()?;
            ((-30..=30).contains(&power)).then_some((1, power))?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_exact_and_round_up() {
        let cases = [
            ("1", 1, 1000),
            ("250m", 1, 250),
            ("0.5", 1, 500),
            ("1.0001", 2, 1001),
            ("30Gi", 30 << 30, (30 << 30) * 1000),
            ("1.5Gi", 3 << 29, (3 << 29) * 1000),
            ("1e3", 1000, 1_000_000),
            ("2E", 2_000_000_000_000_000_000, u64::MAX),
            ("100n", 1, 1),
            ("-5", 0, 0),
            (".5", 1, 500),
            ("5.", 5, 5000),
        ];
        for (text, units, milli) in cases {
            let amount = Amount::parse(text).unwrap();
            assert_eq!((amount.units(), amount.milli()), (units, milli), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "-", "abc", "1x", "1.2.3", "Gi", "1 Gi", "1e99", "."] {
            assert!(Amount::parse(text).is_err(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_quantity_or_not(text in ".{0,24}") {
            let _ = Amount::parse(&text);
        }

        #[test]
        fn larger_numbers_are_larger_quantities(a in 0_u64..1 << 40, b in 0_u64..1 << 40, unit in "(|n|u|m|k|M|G|Ki|Mi|Gi|e3|e-2)") {
            let parse = |number: u64| Amount::parse(&format!("{number}{unit}")).unwrap();
            proptest::prop_assert_eq!(a.cmp(&b), parse(a).cmp(&parse(b)));
        }
    }

    #[test]
    fn parts_of_a_gpu_are_counted_in_whole_units() {
        assert_eq!(Amount::parse("2.5").unwrap().times(56), 140);
        assert_eq!(Amount::parse("0.01").unwrap().times(56), 0);
    }
}
