//! Over random histories: what is taken between any two instants is at most
//! what the bucket held and what accrued, and in any window at most its
//! entitlement. The sums are made anew from what was taken and when.

use proptest::prelude::*;

use super::super::*;

const HOUR_MS: i64 = 3_600_000;

/// A time in which nothing changed.
#[derive(Clone, Copy, Debug)]
struct Step {
    from_ms: i64,
    until_ms: i64,
    rate: Rate,
    depth: u64,
    claimed: u64,
    crisis: bool,
}

/// What happens to a reserve.
#[derive(Clone, Copy, Debug)]
struct Happening {
    /// By how much the clock moves; also back.
    clock_ms: i64,
    /// GPUs that are installed.
    gpus: u64,
    /// Of what is installed, in percent, what is asked for as instant claims, and under orders.
    claims: u64,
    orders: u64,
}

fn happening() -> impl Strategy<Value = Happening> {
    let clock_ms = prop_oneof![
        3 => 1..3 * HOUR_MS,
        3 => HOUR_MS..40 * HOUR_MS,
        1 => -30 * HOUR_MS..=0,
    ];
    let gpus = prop_oneof![4 => Just(16_u64), 1 => 0..40_u64];
    let claims = prop_oneof![2 => Just(0_u64), 1 => 1..12_u64, 1 => Just(100_u64)];
    (clock_ms, gpus, claims, prop_oneof![4 => Just(0_u64), 1 => 1..6_u64])
        .prop_map(|(clock_ms, gpus, claims, orders)| Happening { clock_ms, gpus, claims, orders })
}

/// Plays what happens; what claims took is told in steps.
fn play(account: &mut Account, terms: Terms, crisis: Option<&Crisis>, story: &[Happening]) -> Vec<Step> {
    let mut clock_ms = account.as_of_ms();
    let mut steps: Vec<Step> = Vec::new();
    for happening in story {
        clock_ms += happening.clock_ms;
        let installed = happening.gpus * 56;
        let now = Now { terms, crisis, installed, booked: &[] };
        let (claimed, ordered) = (installed * happening.claims / 100, installed * happening.orders / 100);
        let from_ms = account.as_of_ms();
        let mut last = account.clone();
        let taken = account.advance(clock_ms, &now, claimed, ordered);
        let ended_ms = taken.ended_ms.unwrap_or(clock_ms).max(from_ms);
        assert_eq!(taken.amount, claimed * u64::try_from(ended_ms - from_ms).unwrap());
        // The same in two parts comes to the same.
        let middle_ms = from_ms.midpoint(clock_ms.max(from_ms));
        let first = last.advance(middle_ms, &now, claimed, ordered);
        let rest = if first.ended_ms.is_some() { 0 } else { claimed };
        let second = last.advance(clock_ms, &now, rest, ordered);
        if claimed == 0 || taken.ended_ms.is_none() {
            assert_eq!((&last, first.amount + second.amount), (&*account, taken.amount));
        }
        let mut cuts = vec![from_ms, ended_ms, account.as_of_ms()];
        cuts.extend(crisis.iter().flat_map(|crisis| [crisis.from_ms, crisis.until_ms]));
        cuts.retain(|cut| (from_ms..=account.as_of_ms()).contains(cut));
        cuts.sort_unstable();
        steps.extend(cuts.windows(2).filter(|cut| cut[0] < cut[1]).map(|cut| {
            let crisis = crisis.filter(|crisis| crisis.in_force(cut[0]));
            let terms = crisis.map_or(terms, |crisis| crisis.terms(terms));
            Step {
                from_ms: cut[0],
                until_ms: cut[1],
                rate: terms.rate(installed),
                depth: terms.depth(installed),
                claimed: if cut[0] < ended_ms { claimed } else { 0 },
                crisis: crisis.is_some(),
            }
        }));
    }
    steps
}

fn over(amount: u64, ms: i64) -> u128 {
    u128::from(amount) * u128::from(u64::try_from(ms.max(0)).unwrap())
}

/// What was taken, in millionths, and what accrued.
fn sums(steps: &[Step], from_ms: i64, until_ms: i64) -> (u128, u128) {
    steps.iter().fold((0, 0), |(taken, accrued), step| {
        let ms = step.until_ms.min(until_ms) - step.from_ms.max(from_ms);
        (taken + over(step.claimed, ms) * 1_000_000, accrued + over(step.rate.0, ms))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn between_any_two_instants_no_more_is_taken_than_the_bucket_held_and_what_accrued(
        story in prop::collection::vec(happening(), 1..60),
        depth_days in 0..12_i64,
        begin_ms in -3 * DAY_MS..3 * DAY_MS,
        full in any::<bool>(),
        crisis in prop::option::of((0..20 * DAY_MS, 1..10 * DAY_MS, 0..1_000_000_u32)),
    ) {
        let terms = Terms { fraction_ppm: 50_001, depth_ms: depth_days * DAY_MS };
        let crisis = crisis.map(|(after_ms, lasts_ms, fraction_ppm)| Crisis {
            reason: String::new(),
            from_ms: begin_ms + after_ms,
            until_ms: begin_ms + after_ms + lasts_ms,
            fraction_ppm,
        });
        let mut account = if full {
            Account::open(20, begin_ms, terms, 16 * 56)
        } else {
            Account::open_empty(20, begin_ms)
        };
        let steps = play(&mut account, terms, crisis.as_ref(), &story);
        for (index, first) in steps.iter().enumerate() {
            let (mut taken, mut accrued) = (0, 0);
            for step in &steps[index..] {
                let (more, grown) = sums(&[*step], i64::MIN, i64::MAX);
                (taken, accrued) = (taken + more, accrued + grown);
                prop_assert!(
                    taken <= u128::from(first.depth) * 1_000_000 + accrued,
                    "from {} to {}: {taken} of {} and {accrued}", first.from_ms, step.until_ms, first.depth
                );
            }
        }
        if let (Some(first), Some(last)) = (steps.first(), steps.last()) {
            let (taken, accrued) = sums(&steps, first.from_ms, last.until_ms);
            let opened = if full { u128::from(terms.depth(16 * 56)) * 1_000_000 } else { 0 };
            let is = account.bucket.tokens.in_millionths() + account.bucket.spilled.in_millionths();
            prop_assert_eq!(opened + accrued, taken + is, "nothing is lost, nothing is made up");
        }
    }

    #[test]
    fn while_something_is_taken_no_window_holds_more_than_its_entitlement(
        story in prop::collection::vec(happening(), 1..80),
        depth_days in 0..12_i64,
        begin_ms in -3 * DAY_MS..3 * DAY_MS,
        full in any::<bool>(),
        length in 1..12_u32,
    ) {
        let terms = Terms { fraction_ppm: 50_001, depth_ms: depth_days * DAY_MS };
        let mut account = if full {
            Account::open(length, begin_ms, terms, 16 * 56)
        } else {
            Account::open_empty(length, begin_ms)
        };
        let steps = play(&mut account, terms, None, &story);
        let length_ms = i64::from(length) * DAY_MS;
        let before = if full { terms.rate(16 * 56) } else { Rate(0) };
        for step in steps.iter().filter(|step| step.claimed > 0) {
            let midnight_ms = step.until_ms.div_euclid(DAY_MS) * DAY_MS;
            let times = [step.from_ms + 1, step.from_ms.midpoint(step.until_ms), midnight_ms, step.until_ms];
            for at_ms in times.into_iter().filter(|at_ms| (step.from_ms + 1..=step.until_ms).contains(at_ms)) {
                let (taken, accrued) = sums(&steps, at_ms - length_ms, at_ms);
                let phantom = over(before.0, begin_ms - (at_ms - length_ms));
                prop_assert!(taken <= accrued + phantom, "at {at_ms}: {taken} of {} ", accrued + phantom);
            }
        }
    }

    #[test]
    fn what_was_delivered_is_what_was_held(story in prop::collection::vec(happening(), 1..30)) {
        let terms = Terms { fraction_ppm: 50_001, depth_ms: 5 * DAY_MS };
        let mut account = Account::open(400, 0, terms, 16 * 56);
        let steps = play(&mut account, terms, None, &story);
        let (taken, _) = sums(&steps, i64::MIN, i64::MAX);
        let claimed: u128 = account.window.days().map(|(_, day)| u128::from(day.claimed)).sum();
        prop_assert_eq!(claimed * 1_000_000, taken, "to the unit-millisecond");
        prop_assert!(steps.iter().all(|step| !step.crisis));
    }
}
