//! What the account promises, case by case; over all pairs of instants it is
//! tried in [`bounds`].

mod bounds;

use crate::model::ReservedShape;

use super::*;

const HOUR_MS: i64 = 3_600_000;
/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;
/// 16 whole GPUs.
const POOL: u64 = 16 * 56;

/// 5 %, and 30 days of it.
fn terms() -> Terms {
    Terms { fraction_ppm: 50_000, depth_ms: 30 * DAY_MS }
}

fn now() -> Now<'static> {
    Now { terms: terms(), installed: POOL, ..Now::default() }
}

fn over(units: u64, ms: i64) -> u64 {
    units * u64::try_from(ms).unwrap()
}

#[test]
fn a_bucket_fills_exactly_and_holds_so_much_and_no_more() {
    let flow = Flow { rate: Rate(333_333), depth: 10, ..Flow::default() };
    let mut bucket = Bucket::empty(0);
    bucket.advance(3, &flow);
    assert_eq!(bucket.tokens, Amount { whole: 0, millionths: 999_999 });
    bucket.advance(4, &flow);
    assert_eq!(bucket.tokens, Amount { whole: 1, millionths: 333_332 });
    bucket.advance(100, &flow);
    assert_eq!(bucket.tokens, Amount::of(10));
    assert_eq!(bucket.spilled, Amount { whole: 23, millionths: 333_300 }, "nothing is lost");
    bucket.advance(100, &Flow { depth: 4, ..flow });
    assert_eq!((bucket.tokens, bucket.spilled.whole), (Amount::of(4), 29), "a shallower one holds less");
}

#[test]
fn claims_end_in_the_millisecond_for_which_they_lack_tokens() {
    let flow = Flow { rate: Rate(500_000), depth: 1000, claimed: 2, most: None };
    let mut bucket = Bucket::holding(10, 0);
    assert_eq!(bucket.runs_dry_ms(&flow), Some(6), "10 / (2 - 0.5) = 6.7");
    let taken = bucket.advance(100, &flow);
    assert_eq!(taken, Taken { amount: 12, ended_ms: Some(6) });
    assert_eq!(bucket.tokens, Amount::of(10 + 50 - 12));

    let mut bucket = Bucket::holding(10, 0);
    assert_eq!(bucket.advance(6, &flow), Taken { amount: 12, ended_ms: None }, "it lasts to the end");
    assert_eq!(bucket.advance(6, &flow), Taken::default());

    let slow = Flow { rate: Rate(2_000_000), ..flow };
    assert_eq!(Bucket::holding(0, 0).runs_dry_ms(&slow), None, "what accrues is enough");
    let bounded = Flow { most: Some(7), ..slow };
    assert_eq!(Bucket::holding(100, 0).runs_dry_ms(&bounded), Some(3), "the year ends it");
}

#[test]
fn a_clock_that_goes_back_changes_nothing() {
    let mut account = Account::open(365, START_MS, terms(), POOL);
    account.advance(START_MS + HOUR_MS, &now(), 56, 28);
    let before = account.clone();
    for at_ms in [START_MS + HOUR_MS, START_MS, START_MS - 400 * DAY_MS, i64::MIN] {
        assert_eq!(account.advance(at_ms, &now(), 56, 28), Taken::default());
        assert_eq!(account, before);
    }
}

#[test]
fn a_clock_that_jumps_far_ahead_is_followed_at_once() {
    for at_ms in [START_MS + 5000 * DAY_MS, i64::MAX - 1, i64::MAX] {
        let mut account = Account::open(365, START_MS, terms(), POOL);
        let taken = account.advance(at_ms, &now(), 2 * 56, 0);
        assert_eq!(account.as_of_ms(), at_ms);
        assert_eq!(taken, Taken { amount: 0, ended_ms: Some(START_MS) }, "no claim lasts for years");
        assert!(account.window.days().count() <= 366);
        assert_eq!(account.window.delivered(), 0);
    }
}

#[test]
fn a_new_reserve_can_be_claimed_from_on_its_first_day() {
    let year = terms().rate(POOL).over(365 * DAY_MS).whole;
    let account = Account::open(365, START_MS + 5 * HOUR_MS, terms(), POOL);
    assert_eq!(account.window.entitled(terms().rate(POOL)), year);
    let standing = account.standing(&now(), 0, 56, 60_000);
    assert_eq!(standing.spendable(), terms().depth(POOL));
    assert!(matches!(standing.claim(56), ClaimRight::Granted { until_ms: Some(_) }));

    let mut empty = Account::open_empty(365, START_MS + 5 * HOUR_MS);
    let refused = empty.standing(&now(), 0, 56, 60_000).claim(56);
    assert!(matches!(refused, ClaimRight::YearSpent { left: 0, .. }), "{refused:?}");
    empty.advance(START_MS + 8 * HOUR_MS, &now(), 0, 0);
    assert_eq!(
        empty.window.entitled(terms().rate(POOL)),
        over(POOL / 20, 3 * HOUR_MS) + over(4, 3 * HOUR_MS) / 5
    );
    assert!(matches!(empty.standing(&now(), 0, 56, 60_000).claim(56), ClaimRight::Granted { .. }));
}

#[test]
fn who_has_no_right_to_claim_is_told_why() {
    let depth = terms().depth(POOL);
    let mut account = Account::open(365, START_MS, terms(), POOL);
    let standing = account.standing(&now(), 56, 84, 60_000);
    assert_eq!(standing.claim(56), ClaimRight::BeyondBurst { claimed: 56, most: 84 });
    assert_eq!(
        standing.claim(56).to_string(),
        "1 of the 1.5 GPUs that can be claimed at once are claimed: it waits as an ordinary workload"
    );
    assert!(matches!(standing.claim(28), ClaimRight::Granted { .. }));

    // All of the pool, until the bucket is empty.
    let taken = account.advance(START_MS + 60 * DAY_MS, &now(), POOL, 0);
    let dry_ms = taken.ended_ms.unwrap();
    assert_eq!(taken.amount, over(POOL, dry_ms - START_MS));
    let dry = account.clone();
    assert_eq!(dry.standing(&now(), 0, POOL, 60_000).spendable(), account.bucket.tokens.whole);
    let mut at_dry = Account::open(365, START_MS, terms(), POOL);
    at_dry.advance(dry_ms, &now(), POOL, 0);
    let right = at_dry.standing(&now(), 0, POOL, 60_000).claim(56);
    assert!(matches!(right, ClaimRight::NoTokens { needs: 3_360_000, tokens: 0..896 }), "{right:?}");
    assert!(
        right.to_string().starts_with("the reserve has tokens for 0.00 GPU-hours, the claim needs 0.01"),
        "{right}"
    );
    assert!(depth > 0);
}

#[test]
fn what_orders_took_is_missing_in_the_year() {
    let mut account = Account::open(365, START_MS, terms(), POOL);
    // 5 % of a year is 18.25 days of the whole pool.
    account.advance(START_MS + 18 * DAY_MS, &now(), 0, POOL);
    assert_eq!(account.bucket.tokens.whole, terms().depth(POOL), "orders spend no tokens");
    let standing = account.standing(&now(), 0, POOL, 60_000);
    assert_eq!(standing.spendable(), over(POOL, DAY_MS / 4));
    account.advance(START_MS + 19 * DAY_MS, &now(), 0, POOL);
    let right = account.standing(&now(), 0, POOL, 60_000).claim(56);
    assert_eq!(right, ClaimRight::YearSpent { needs: 3_360_000, left: 0 });
    assert!(right.to_string().contains("left of the reserve's entitlement of the year"), "{right}");
    // A year later all of it is back.
    account.advance(START_MS + 385 * DAY_MS, &now(), 0, 0);
    assert_eq!(account.standing(&now(), 0, POOL, 60_000).spendable(), terms().depth(POOL));
}

#[test]
fn what_is_booked_is_not_left_for_claims() {
    let account = Account::open(365, START_MS, terms(), POOL);
    let from_ms = START_MS + 100 * DAY_MS;
    let booked = [Booking { units: POOL, from_ms, until_ms: from_ms + 18 * DAY_MS }];
    let left = account.window.left_besides(terms().rate(POOL), &booked);
    assert_eq!(left, over(POOL, DAY_MS / 4));
    let too_much = [Booking { units: POOL, from_ms, until_ms: from_ms + 19 * DAY_MS }];
    assert_eq!(account.window.left_besides(terms().rate(POOL), &too_much), 0);
    // What was taken before is out of the window when the order runs.
    let mut account = Account::open(365, START_MS, terms(), POOL);
    account.advance(START_MS + 5 * DAY_MS, &now(), POOL / 20, 0);
    let late_ms = START_MS + 371 * DAY_MS;
    let late = [Booking { units: POOL, from_ms: late_ms, until_ms: late_ms + 18 * DAY_MS }];
    assert_eq!(account.window.left_besides(terms().rate(POOL), &late), over(POOL, DAY_MS / 4));
}

#[test]
fn a_crisis_raises_rate_and_depth_and_ends_by_itself() {
    let crisis = Crisis {
        reason: "a fab burnt down".to_owned(),
        from_ms: START_MS + HOUR_MS,
        until_ms: START_MS + 11 * HOUR_MS,
        fraction_ppm: 200_000,
    };
    let during = Now { crisis: Some(&crisis), ..now() };
    let shapes = [ReservedShape { shape: 0, count: 1 }, ReservedShape { shape: 1, count: 3 }];
    let raised = crisis.shapes(terms(), &shapes);
    assert_eq!(raised.iter().map(|shape| shape.count).collect::<Vec<_>>(), [4, 12]);
    assert!(!crisis.in_force(crisis.from_ms - 1) && crisis.in_force(crisis.from_ms));
    assert!(crisis.in_force(crisis.until_ms - 1) && !crisis.in_force(crisis.until_ms));

    let mut account = Account::open(365, START_MS, terms(), POOL);
    let full = account.bucket.tokens.whole;
    account.advance(START_MS + 11 * HOUR_MS, &during, 0, 0);
    assert_eq!(account.bucket.tokens.whole, full + over(POOL, 2 * HOUR_MS), "20 % of 10 h");
    assert_eq!(
        account.standing(&during, 0, POOL, 0).spendable(),
        full,
        "it is over: what is deeper cannot be spent"
    );
    account.advance(START_MS + 11 * HOUR_MS + 1, &during, 0, 0);
    assert_eq!(account.bucket.tokens.whole, full);

    // The year ends no claim in a crisis.
    let mut spent = Account::open(365, START_MS, terms(), POOL);
    spent.advance(START_MS + HOUR_MS, &during, 0, 0);
    spent.window.advance(START_MS + 2 * HOUR_MS, &Held { claimed: u64::MAX, ..Held::default() });
    spent.bucket.as_of_ms = START_MS + 2 * HOUR_MS;
    assert!(matches!(spent.standing(&during, 0, 56, 1000).claim(56), ClaimRight::Granted { .. }));
    let over = Now { crisis: None, ..during };
    assert!(matches!(spent.standing(&over, 0, 56, 1000).claim(56), ClaimRight::YearSpent { .. }));
    let lower = Crisis { fraction_ppm: 1, ..crisis.clone() };
    assert_eq!(lower.terms(terms()), terms(), "it takes nothing away");
}

#[test]
fn what_ended_counts_from_then_however_late_it_is_known() {
    let held = [
        Holding { units: 56, from_ms: START_MS + 7, until_ms: Some(START_MS + HOUR_MS), ordered: false },
        Holding { units: 28, from_ms: START_MS, until_ms: None, ordered: true },
        Holding { units: 8, from_ms: START_MS + HOUR_MS, until_ms: None, ordered: false },
    ];
    let mut account = Account::open(365, START_MS, terms(), POOL);
    let replayed = account.replay(START_MS + 30 * HOUR_MS, &now(), &held);
    assert_eq!(replayed.amount, over(56, HOUR_MS - 7) + over(8, 29 * HOUR_MS));
    assert!(replayed.ended.is_empty());
    assert_eq!(account.window.delivered(), replayed.amount + over(28, 30 * HOUR_MS));

    let mut poor = Account::open_empty(365, START_MS);
    poor.advance(START_MS + HOUR_MS, &now(), 0, 0);
    let held = [
        Holding { units: POOL, from_ms: START_MS + HOUR_MS, until_ms: None, ordered: false },
        Holding { units: POOL, from_ms: START_MS + 9 * HOUR_MS, until_ms: None, ordered: false },
    ];
    let replayed = poor.replay(START_MS + 20 * HOUR_MS, &now(), &held);
    assert_eq!(replayed.ended.len(), 2);
    assert!(replayed.ended[&0] < START_MS + 2 * HOUR_MS && replayed.ended[&1] > START_MS + 9 * HOUR_MS);
    assert_eq!(poor.window.delivered(), replayed.amount);
}

#[test]
fn days_are_those_of_utc_also_before_1970_and_in_leap_years() {
    // 2028-02-28T23:59:59.999Z, three milliseconds on: the 29th exists.
    let leap_ms = 1_835_395_199_999;
    let mut window = Window::begin(365, leap_ms, Rate(0));
    window.advance(leap_ms + 3, &Held { ordered: 1, ..Held::default() });
    window.advance(leap_ms + 3 + DAY_MS, &Held { ordered: 1, ..Held::default() });
    let days: Vec<(i64, u64)> = window.days().map(|(number, day)| (number, day.ordered)).collect();
    assert_eq!(days, [(21242, 1), (21243, 86_400_000), (21244, 2)]);
    let mut window = Window::begin(365, -5, Rate(0));
    window.advance(7, &Held { ordered: 1, ..Held::default() });
    assert_eq!(
        window.days().map(|(number, day)| (number, day.ordered)).collect::<Vec<_>>(),
        [(-1, 5), (0, 7)]
    );
}
