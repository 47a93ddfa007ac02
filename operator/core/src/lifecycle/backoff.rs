//! How long a withdrawn gang waits for its next try.

const FIRST_MS: i64 = 10_000;
const LONGEST_MS: i64 = 600_000;

/// How long to wait after the last of `withdrawals`: 10 s after the first,
/// twice as long after each more, at most 10 min; 0 after none.
pub fn backoff_ms(withdrawals: u32) -> i64 {
    let Some(doublings) = withdrawals.checked_sub(1) else { return 0 };
    // 2^6 times the first is longer than the longest.
    (FIRST_MS << doublings.min(6)).min(LONGEST_MS)
}

/// The time before which a gang is not tried again, in milliseconds since 1970,
/// when its plan was taken back at `since_ms` for the `withdrawals`th time.
pub fn not_before_ms(withdrawals: u32, since_ms: i64) -> i64 {
    since_ms.saturating_add(backoff_ms(withdrawals))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_minutes() {
        let waits: Vec<i64> = (0..9).map(|n| backoff_ms(n) / 1000).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 320, 600, 600]);
        assert_eq!(backoff_ms(u32::MAX), 600_000);
        assert_eq!(not_before_ms(2, 5), 20_005);
        assert_eq!(not_before_ms(9, i64::MAX), i64::MAX);
    }
}
