//! UUIDs and serial numbers that follow from the node's seed: distinct between nodes, stable for one. Not secret
//! and not random; the hash is FNV-1a, spread by the finalizer of `SplitMix64`.

use std::fmt::Write as _;

/// A UUID in text form for `what` on the node of `seed`; the version digit is 5 (derived from a name), as the
/// driver's own.
pub(crate) fn derive(seed: &str, what: &str) -> String {
    let high = hash(&format!("{seed}/{what}/high"));
    let low = hash(&format!("{seed}/{what}/low"));
    let high = high & 0xffff_ffff_ffff_0fff | 0x5000;
    let low = low & 0x3fff_ffff_ffff_ffff | 0x8000_0000_0000_0000;
    let digits = format!("{high:016x}{low:016x}");
    let mut text = String::with_capacity(36);
    for (at, digit) in digits.chars().enumerate() {
        if matches!(at, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// A board's serial number: thirteen digits.
pub(crate) fn serial_number(seed: &str, minor: u32) -> String {
    let mut text = String::from("165");
    // Writing to a string cannot fail.
    let _ = write!(text, "{:010}", hash(&format!("{seed}/serial {minor}")) % 10_000_000_000);
    text
}

fn hash(text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_are_stable_distinct_and_well_formed() {
        let one = derive("node-a", "gpu 0");
        assert_eq!(one, derive("node-a", "gpu 0"));
        assert_ne!(one, derive("node-a", "gpu 1"));
        assert_ne!(one, derive("node-b", "gpu 0"));
        let lengths: Vec<usize> = one.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(&one[14..15], "5");
        assert_eq!(serial_number("node-a", 0).len(), 13);
    }
}
