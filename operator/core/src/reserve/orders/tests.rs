//! Every way an order can be wrong or come too late has its answer, and whatever
//! is accepted can be delivered together.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::super::Held;
use super::*;

const HOUR_MS: i64 = 3_600_000;
/// 2028-02-01T00:00:00Z: a leap year.
const NOW_MS: i64 = 1_832_976_000_000;

const WHOLE: usize = 0;
const HALF: usize = 1;
const LACKING: usize = 2;

/// Some GPUs that can be halved; fewer during maintenance.
#[derive(Debug)]
struct Pool {
    gpus: u32,
    away: u32,
    maintenance_ms: [i64; 2],
}

impl Fits for Pool {
    fn name(&self, shape: usize) -> String {
        ["gpu", "3g.40gb", "1c.3g.40gb"][shape].to_owned()
    }

    fn units(&self, shape: usize) -> Option<Units> {
        [Some(56), Some(28), None][shape]
    }

    fn fits(&self, shapes: &[ReservedShape], at_ms: i64) -> bool {
        let halves: u32 =
            shapes.iter().map(|shape| if shape.shape == WHOLE { 2 * shape.count } else { shape.count }).sum();
        let away = (self.maintenance_ms[0]..self.maintenance_ms[1]).contains(&at_ms);
        let whole: u32 = shapes.iter().filter(|shape| shape.shape == WHOLE).map(|shape| shape.count).sum();
        let gpus = if away { self.gpus - self.away } else { self.gpus };
        halves <= 2 * gpus && whole <= gpus
    }
}

/// A reserve of 20 % of 4 GPUs, one half of which is kept for instant claims.
struct World {
    pool: Pool,
    instant: Vec<ReservedShape>,
    classes: BTreeSet<Class>,
    window: Window,
    fraction_ppm: u32,
}

impl World {
    fn new() -> Self {
        let fraction_ppm = 200_000;
        Self {
            pool: Pool { gpus: 4, away: 0, maintenance_ms: [0, 0] },
            instant: vec![ReservedShape { shape: HALF, count: 1 }],
            classes: [Class::Sme, Class::Sovereign, Class::Security].into(),
            window: Window::begin(365, NOW_MS, Rate::of(4 * 56, fraction_ppm)),
            fraction_ppm,
        }
    }

    fn facts(&self) -> Facts<'_, Pool> {
        Facts {
            pool: &self.pool,
            changes_ms: &self.pool.maintenance_ms,
            instant: &self.instant,
            classes: &self.classes,
            window: &self.window,
            rate: Rate::of(u64::from(self.pool.gpus) * 56, self.fraction_ppm),
        }
    }

    fn answer(&self, calendar: &Calendar, asked: &Asked) -> Answer {
        calendar.answer(asked, &self.facts(), NOW_MS)
    }

    fn refusal(&self, asked: &Asked) -> String {
        match self.answer(&Calendar::default(), asked) {
            Answer::Refused { why } => why.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

/// An order of so many GPUs by the hour from now.
fn order(key: &str, count: u32, from_hours: i64, until_hours: i64) -> Asked {
    Asked {
        order: Order {
            key: key.to_owned(),
            tenant: key.split('/').next().unwrap_or_default().to_owned(),
            rating: Class::Sovereign,
            shapes: vec![ReservedShape { shape: WHOLE, count }],
            from_ms: NOW_MS + from_hours * HOUR_MS,
            until_ms: NOW_MS + until_hours * HOUR_MS,
        },
        received_ms: NOW_MS,
    }
}

fn rated(rating: Class, mut asked: Asked) -> Asked {
    asked.order.rating = rating;
    asked
}

fn booked(orders: &[Asked]) -> Calendar {
    let mut calendar = Calendar::default();
    for asked in orders {
        calendar.accept(asked.clone());
    }
    calendar
}

fn accepted() -> Answer {
    Answer::Accepted { displaced: Vec::new() }
}

fn countered(earliest_hours: i64, why: Why) -> Answer {
    Answer::Countered { earliest_ms: NOW_MS + earliest_hours * HOUR_MS, why }
}

#[test]
fn an_order_that_fits_is_accepted_and_stays_so() {
    let world = World::new();
    let one = order("a/one", 3, 10, 20);
    assert_eq!(world.answer(&Calendar::default(), &one), accepted());
    let calendar = booked(std::slice::from_ref(&one));
    assert_eq!(world.answer(&calendar, &one), accepted(), "asked again");
    let moved = order("a/one", 3, 15, 25);
    assert_eq!(world.answer(&calendar, &moved), accepted(), "it isn't in its own way");
}

#[test]
fn what_can_never_be_had_is_refused_in_words() {
    let world = World::new();
    for (asked, words) in [
        (order("a/x", 1, 5, 5), "it ends before it begins: until must be later than from"),
        (order("a/x", 1, 5, 4), "it ends before it begins: until must be later than from"),
        (
            order("a/x", 1, 1, 365 * 24 + 2),
            "it takes longer than 365 days, over which the entitlement is reckoned",
        ),
        (
            order("a/x", 1, 365 * 24 + 1, 365 * 24 + 2),
            "it begins more than 365 days from now: ask again later",
        ),
        (order("a/x", 0, 1, 2), "it orders nothing: every count must be at least 1"),
        (
            rated(Class::Standard, order("a/x", 1, 1, 2)),
            "tenants of class standard do not draw on this reserve",
        ),
        (order("a/x", 5, 1, 2), "the whole pool does not hold 5 × gpu (5 GPUs in all)"),
        (
            order("a/x", 4, 1, 2),
            "the pool does not hold 4 × gpu (4 GPUs in all) beside what is kept for instant claims",
        ),
        (
            order("a/x", 3, 0, 98 * 24),
            "it takes 7056.00 GPU-hours, the reserve is entitled to 7008.00 in all",
        ),
    ] {
        assert_eq!(world.refusal(&asked), words);
    }
    let mut lacking = order("a/x", 1, 1, 2);
    lacking.order.shapes.push(ReservedShape { shape: LACKING, count: 1 });
    assert_eq!(world.refusal(&lacking), "no GPU of the reserve's pool can be cut into 1c.3g.40gb");
    lacking.order.shapes.clear();
    assert_eq!(world.refusal(&lacking), "it orders nothing: every count must be at least 1");
    for (from_ms, until_ms) in [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (i64::MAX - 1, i64::MAX)] {
        let asked =
            Asked { order: Order { from_ms, until_ms, ..order("a/x", 1, 1, 2).order }, received_ms: 0 };
        world.refusal(&asked);
    }
}

#[test]
fn an_order_in_the_past_is_told_the_earliest_start() {
    let world = World::new();
    let calendar = booked(&[order("b/one", 3, -2, 7)]);
    let past = order("a/x", 2, -3, 2);
    assert_eq!(world.answer(&calendar, &past), countered(7, Why::Past));
    assert_eq!(world.answer(&Calendar::default(), &order("a/x", 2, -30, -20)), countered(0, Why::Past));
    let mut just = order("a/x", 2, 0, 2);
    just.order.from_ms -= LATE_MS;
    assert_eq!(world.answer(&Calendar::default(), &just), accepted(), "it was on its way");
    just.order.from_ms -= 1;
    assert_eq!(world.answer(&Calendar::default(), &just), countered(0, Why::Past));
}

#[test]
fn what_others_booked_is_countered_without_naming_them() {
    let world = World::new();
    let calendar =
        booked(&[order("b/secret", 2, 10, 20), order("c/secret", 2, 20, 30), order("a/own", 1, 50, 60)]);
    let answer = world.answer(&calendar, &order("a/x", 2, 12, 14));
    assert_eq!(answer, countered(30, Why::Orders));
    assert!(!Why::Orders.to_string().contains("secret"));
    assert_eq!(world.answer(&calendar, &order("a/x", 1, 12, 14)), accepted(), "there is room beside them");
    let own = Why::OwnOrders { keys: vec!["a/own".to_owned()] };
    assert_eq!(world.answer(&calendar, &order("a/x", 3, 45, 51)), countered(60, own.clone()));
    assert_eq!(own.to_string(), "orders of the same tenant have the GPUs then: a/own");
    assert_eq!(world.answer(&calendar, &order("a/x", 2, 50, 60)), accepted(), "own ones may overlap");
    assert_eq!(world.answer(&calendar, &order("a/x", 3, 30, 50)), accepted(), "one ends as the next begins");
}

#[test]
fn a_lower_rating_is_no_reason_to_refuse_and_gives_way() {
    let world = World::new();
    let low = rated(Class::Sme, order("b/low", 3, 10, 20));
    let lower_late = rated(Class::Sme, order("c/low", 1, 30, 40));
    let mut calendar = booked(&[low.clone(), lower_late]);
    let high = rated(Class::Security, order("a/high", 3, 15, 25));
    let answers = calendar.answer_all(vec![high.clone()], &world.facts(), NOW_MS);
    assert_eq!(answers[0], ("a/high".to_owned(), Answer::Accepted { displaced: vec!["b/low".to_owned()] }));
    assert_eq!(answers[1], ("b/low".to_owned(), countered(40, Why::Displaced)));
    let left: Vec<&str> = calendar.orders().iter().map(|order| order.key.as_str()).collect();
    assert_eq!(left, ["a/high", "c/low"], "who is not in the way stays");

    let equal = rated(Class::Security, order("d/equal", 3, 15, 25));
    assert_eq!(world.answer(&calendar, &equal), countered(25, Why::Orders), "equals stay undisturbed");
    let lower = rated(Class::Sovereign, order("d/lower", 3, 15, 25));
    assert_eq!(world.answer(&calendar, &lower), countered(25, Why::Orders), "and higher ones");
}

#[test]
fn of_orders_that_come_together_the_rating_decides_then_the_date_then_receipt() {
    let world = World::new();
    let early = Asked { received_ms: NOW_MS - 5, ..order("a/received-first", 2, 12, 20) };
    let dated = order("b/date-first", 2, 11, 20);
    let same = order("c/received-last", 2, 12, 20);
    let low = Asked { received_ms: 0, ..rated(Class::Sme, order("d/low", 1, 1, 20)) };
    let mut calendar = Calendar::default();
    let answers = calendar.answer_all(vec![low, same, early, dated], &world.facts(), NOW_MS);
    let order: Vec<&str> = answers.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(order, ["b/date-first", "a/received-first", "c/received-last", "d/low"]);
    let taken: Vec<bool> =
        answers.iter().map(|(_, answer)| matches!(answer, Answer::Accepted { .. })).collect();
    assert_eq!(taken, [true, false, false, true]);
}

#[test]
fn an_order_waits_for_the_end_of_maintenance() {
    let mut world = World::new();
    world.pool.away = 3;
    world.pool.maintenance_ms = [NOW_MS + 10 * HOUR_MS, NOW_MS + 16 * HOUR_MS];
    let calendar = Calendar::default();
    assert_eq!(world.answer(&calendar, &order("a/x", 1, 5, 12)), countered(16, Why::Smaller));
    assert_eq!(world.answer(&calendar, &order("a/x", 1, 5, 10)), accepted());
    let before =
        booked(&[order("a/x", 1, 5, 12), rated(Class::Sme, order("b/y", 1, 11, 13)), order("a/z", 1, 1, 2)]);
    assert_eq!(
        before.failing(&world.facts(), NOW_MS),
        ["b/y", "a/x"],
        "if they were accepted before it was known"
    );
}

#[test]
fn an_order_waits_for_entitlement_to_come_back() {
    let mut world = World::new();
    // 20 % of 4 GPUs is 292 GPU-days a year: 280 of them are gone in 140 days.
    world.window.advance(
        NOW_MS + 140 * DAY_MS,
        &Held { ordered: 112, rate: Rate::of(224, 200_000), ..Held::default() },
    );
    let now_ms = NOW_MS + 140 * DAY_MS;
    let asked = order("a/x", 3, 141 * 24, 145 * 24);
    let calendar = Calendar::default();
    assert_eq!(calendar.answer(&asked, &world.facts(), now_ms), accepted(), "12 are left");
    let more = order("a/x", 3, 141 * 24, 146 * 24);
    let answer = calendar.answer(&more, &world.facts(), now_ms);
    let Answer::Countered { earliest_ms, why } = answer else { panic!("{answer:?}") };
    assert_eq!(why.to_string(), "it takes 360.00 GPU-hours, 288.00 of the entitlement are left then");
    // Of the first days of use, two each, two have to be out of the window that ends with the order's last day.
    assert_eq!((earliest_ms - NOW_MS) / DAY_MS, 365 + 2 - 5 + 1);
    let later = Asked {
        order: Order { from_ms: earliest_ms, until_ms: earliest_ms + 5 * DAY_MS, ..more.order },
        ..more
    };
    assert_eq!(calendar.answer(&later, &world.facts(), now_ms), accepted());
}

#[test]
fn what_is_booked_is_not_taken_before_nor_after() {
    let world = World::new();
    // 280 of the 292 GPU-days that a window gives.
    let calendar = booked(&[order("b/large", 2, 5 * 24, 145 * 24)]);
    for first_day in [1, 150, 200] {
        let asked = order("a/x", 1, first_day * 24, (first_day + 13) * 24);
        let answer = world.answer(&calendar, &asked);
        let Answer::Countered { earliest_ms, why: Why::EntitlementUsed { left, .. } } = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(left, 12 * 56 * u64::try_from(DAY_MS).unwrap());
        // Until the first day of the large one is out of the window that ends with the last of this one.
        assert_eq!((earliest_ms - NOW_MS) / DAY_MS, 365 + 5 + 2 - 13);
        assert_eq!(
            world.answer(&calendar, &order("a/x", 1, first_day * 24, (first_day + 12) * 24)),
            accepted()
        );
    }
}

#[test]
fn leap_days_count_and_a_clock_that_jumps_forgets_nothing_it_should_keep() {
    let world = World::new();
    // From 2028-02-28T12:00Z over the 29th to 2028-03-01T12:00Z: two days.
    let leap = order("a/leap", 3, 27 * 24 + 12, 29 * 24 + 12);
    let mut calendar = booked(std::slice::from_ref(&leap));
    assert_eq!(takes(&leap.order, &world.pool), 3 * 56 * 2 * u64::try_from(DAY_MS).unwrap());
    assert_eq!(
        world.answer(&calendar, &order("b/x", 1, 28 * 24, 28 * 24 + 1)),
        countered(29 * 24 + 12, Why::Orders)
    );
    calendar.prune(leap.order.until_ms - 1);
    calendar.prune(i64::MIN);
    assert_eq!(calendar.orders().len(), 1);
    let back = calendar.answer(&leap, &world.facts(), NOW_MS - 100 * DAY_MS);
    assert_eq!(back, accepted(), "a clock that goes back does not undo it");
    calendar.prune(leap.order.until_ms);
    assert!(calendar.orders().is_empty());
}

#[test]
fn a_cancelled_order_makes_room() {
    let world = World::new();
    let mut calendar = booked(&[order("b/one", 3, 10, 20)]);
    assert!(!calendar.cancel("a/one") && calendar.cancel("b/one"));
    assert_eq!(world.answer(&calendar, &order("a/x", 3, 10, 20)), accepted());
    assert!(calendar.bookings(&world.pool).is_empty());
}

fn any_order() -> impl Strategy<Value = (u32, u32, i64, i64, u8, u8)> {
    (0..3_u32, 0..3_u32, -3..60_i64, 1..40_i64, 0..3_u8, 0..3_u8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_is_accepted_can_be_delivered_together(
        orders in prop::collection::vec(any_order(), 1..14),
        away in 0..3_u32,
        maintenance in (0..40_i64, 0..20_i64),
    ) {
        let mut world = World::new();
        world.pool.away = away;
        world.pool.maintenance_ms =
            [NOW_MS + maintenance.0 * HOUR_MS, NOW_MS + (maintenance.0 + maintenance.1) * HOUR_MS];
        let mut calendar = Calendar::default();
        for (number, (whole, half, from, lasts, tenant, class)) in orders.into_iter().enumerate() {
            let mut asked = order(&format!("t{tenant}/{number}"), whole, from, from + lasts);
            asked.order.shapes.push(ReservedShape { shape: HALF, count: half });
            asked.order.shapes.retain(|shape| shape.count > 0);
            asked.order.rating = [Class::Sme, Class::Sovereign, Class::Security][usize::from(class)];
            let facts = world.facts();
            let before = calendar.clone();
            let answers = calendar.answer_all(vec![asked.clone()], &facts, NOW_MS);
            for known in before.orders() {
                let lower = known.rating < asked.order.rating;
                prop_assert!(lower || calendar.orders().contains(&known), "{known:?} gave way to {asked:?}");
            }
            if let Answer::Countered { earliest_ms, .. } = answers[0].1 {
                let at = |from_ms: i64| {
                    let until_ms = from_ms + lasts * HOUR_MS;
                    let later = Asked { order: Order { from_ms, until_ms, ..asked.order.clone() }, ..asked.clone() };
                    matches!(before.answer(&later, &facts, NOW_MS), Answer::Accepted { .. })
                };
                prop_assert!(at(earliest_ms), "{asked:?} at {earliest_ms}");
                // All that changes does so on the hour.
                let hours = from.max(0)..(earliest_ms - NOW_MS) / HOUR_MS;
                prop_assert!(hours.into_iter().all(|hour| !at(NOW_MS + hour * HOUR_MS)), "{asked:?}");
            }
        }
        for hour in 0..150 {
            let at_ms = NOW_MS + hour * HOUR_MS;
            let orders = calendar.orders();
            let then = orders.iter().filter(|order| (order.from_ms..order.until_ms).contains(&at_ms));
            let lists = then.map(|order| order.shapes.as_slice()).chain([world.instant.as_slice()]);
            let shapes = merged(lists);
            // What is kept for instant claims alone may be too much for what maintenance leaves.
            prop_assert!(
                world.pool.fits(&shapes, at_ms) || !world.pool.fits(&world.instant, at_ms),
                "{shapes:?} at hour {hour}"
            );
        }
    }

    #[test]
    fn no_window_gives_more_to_orders_than_its_entitlement(
        orders in prop::collection::vec((1..4_u32, 0..700_i64, 1..200_i64), 1..12),
        taken in prop::collection::vec(0..224_u64, 0..30),
    ) {
        let mut world = World::new();
        world.window = Window::begin(20, NOW_MS - 30 * DAY_MS, Rate::of(224, 200_000));
        for (day, claimed) in (1..).zip(taken) {
            let held = Held { installed: 224, rate: Rate::of(224, 200_000), claimed: claimed / 5, ordered: 0 };
            world.window.advance(NOW_MS + (day - 31) * DAY_MS + 7 * HOUR_MS, &held);
        }
        world.window.advance(NOW_MS, &Held { installed: 224, rate: Rate::of(224, 200_000), ..Held::default() });
        let mut calendar = Calendar::default();
        for (number, (count, from, lasts)) in orders.into_iter().enumerate() {
            let asked = order(&format!("t/{number}"), count, from, from + lasts);
            calendar.answer_all(vec![asked], &world.facts(), NOW_MS);
        }
        // A day that is over and booked is one that was delivered.
        let bookings = calendar.bookings(&world.pool);
        for hour in 1..950 {
            let at_ms = NOW_MS + hour * HOUR_MS;
            let since_ms = at_ms - 20 * DAY_MS;
            if !bookings.iter().any(|booking| (booking.from_ms..booking.until_ms).contains(&(at_ms - 1))) {
                continue;
            }
            let known: u64 = world
                .window
                .days()
                .filter(|(day, _)| begin_ms(*day) >= since_ms)
                .map(|(_, day)| day.claimed)
                .sum();
            let booked: u64 = bookings.iter().map(|booking| booking.between(since_ms, at_ms)).sum();
            let entitled = Rate::of(224, 200_000).over(20 * DAY_MS).whole;
            prop_assert!(known + booked <= entitled, "{known} and {booked} of {entitled} at hour {hour}");
        }
    }
}
