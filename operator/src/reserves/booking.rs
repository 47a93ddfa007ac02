//! Orders in the core's words, and the core's answers on the orders.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use vingt_core::model::{Class, Order, ReservedShape};
use vingt_core::reserve::{Answer, Asked, Calendar, Facts, Fits, Room};
use vingt_crds::{
    ConditionType, OrderState, SovereignOrder, SovereignOrderStatus, TenantClass, set_condition,
};

use super::pools::Pool;
use super::room::{numbered, room};
use super::state::{State, terms};
use crate::snapshot::layout::Layout;
use crate::tenants::class;
use crate::world::Key;

/// An order with who asks for it.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The order.
    pub key: Key,
    /// The object.
    pub order: &'a SovereignOrder,
    /// The tenant of its namespace, and what it is; nothing if it is no tenant's.
    pub tenant: Option<(&'a str, TenantClass)>,
}

/// What became of orders: new statuses, by their keys.
pub type Told = BTreeMap<Key, SovereignOrderStatus>;

/// Whether an order was answered.
fn answered(order: &SovereignOrder) -> bool {
    order.status.as_ref().is_some_and(|status| status.state.is_some())
}

/// Whether an order is booked.
fn booked(order: &SovereignOrder) -> bool {
    let state = order.status.as_ref().and_then(|status| status.state);
    matches!(state, Some(OrderState::Accepted | OrderState::Active))
}

/// Answers the orders on a reserve that are not answered, and says of the others how far they are. The state of the
/// reserve is told what is booked.
pub fn answer(pool: &Pool, state: &mut State, wishes: &[Wish<'_>], layout: &Layout, now_ms: i64) -> Told {
    let mut room = room(pool, layout);
    let instant = numbered(&mut room, &pool.reserve.spec.instant_claim.shapes);
    let mut calendar = Calendar::default();
    let mut asked = Vec::new();
    let mut told = Told::new();
    let mut by_name = BTreeMap::new();
    for wish in wishes {
        let shapes = numbered(&mut room, &wish.order.spec.shapes);
        let one = asked_of(wish, shapes);
        by_name.insert(one.order.key.clone(), wish);
        if booked(wish.order) {
            if wish.order.spec.until.0.as_millisecond() > now_ms {
                calendar.accept(one);
            }
        } else if !answered(wish.order) {
            asked.push(one);
        }
    }
    let mut changes_ms: Vec<i64> = pool
        .reserve
        .spec
        .maintenance
        .iter()
        .flat_map(|maintenance| [&maintenance.from, &maintenance.until])
        .map(|time| time.0.as_millisecond())
        .collect();
    changes_ms.sort_unstable();
    let facts = Facts {
        pool: &room,
        changes_ms: &changes_ms,
        instant: &instant,
        classes: &pool.reserve.spec.classes.iter().copied().map(class).collect(),
        window: &state.account.window,
        rate: terms(&pool.reserve).rate(pool.units()),
    };
    let answers = calendar.answer_all(asked, &facts, now_ms);
    let booked_now = calendar.bookings(&room);
    for (name, answer) in answers {
        let Some(wish) = by_name.get(&name) else { continue };
        told.insert(wish.key.clone(), decided(wish, &answer, &room, now_ms));
    }
    state.booked = booked_now;
    for wish in wishes.iter().filter(|wish| booked(wish.order)) {
        // One that gave way was answered anew.
        if told.contains_key(&wish.key) {
            continue;
        }
        if let Some(status) = followed(wish.order, now_ms) {
            told.insert(wish.key.clone(), status);
        }
    }
    told
}

fn asked_of(wish: &Wish<'_>, shapes: Vec<ReservedShape>) -> Asked {
    let (tenant, now) = wish.tenant.unwrap_or(("", TenantClass::Standard));
    // An order keeps the rating it was accepted with.
    let rating = wish.order.status.as_ref().and_then(|status| status.rating).unwrap_or(now);
    let made = wish.order.metadata.creation_timestamp.as_ref();
    Asked {
        order: Order {
            key: wish.key.to_string(),
            tenant: tenant.to_owned(),
            rating: if wish.tenant.is_some() { class(rating) } else { Class::Standard },
            shapes,
            from_ms: wish.order.spec.from.0.as_millisecond(),
            until_ms: wish.order.spec.until.0.as_millisecond(),
        },
        received_ms: made.map_or(0, |time| time.0.as_millisecond()),
    }
}

fn time(ms: i64) -> Time {
    Time(Timestamp::from_millisecond(ms).unwrap_or_default())
}

/// The status of an order that is answered now.
fn decided(wish: &Wish<'_>, answer: &Answer, room: &Room<'_>, now_ms: i64) -> SovereignOrderStatus {
    let mut status = wish.order.status.clone().unwrap_or_default();
    let (state, reason, earliest_ms) = match answer {
        Answer::Accepted { .. } => (OrderState::Accepted, "it will be delivered".to_owned(), None),
        Answer::Countered { earliest_ms, why } => {
            (OrderState::Countered, why.to_string(), Some(*earliest_ms))
        }
        Answer::Refused { why } => (OrderState::Refused, why.to_string(), None),
    };
    status.state = Some(state);
    status.reason = reason;
    status.earliest_start = earliest_ms.map(time);
    status.rating = wish.tenant.map(|(_, class)| status.rating.unwrap_or(class));
    status.decided_at = Some(time(now_ms));
    let mut own = room.clone();
    let shapes = numbered(&mut own, &wish.order.spec.shapes);
    status.units = shapes
        .iter()
        .map(|shape| own.units(shape.shape).unwrap_or(0).saturating_mul(u64::from(shape.count)))
        .sum();
    finish(&mut status, wish.order, now_ms);
    status
}

/// The status of an order of a reserve that is not there.
pub fn without_reserve(order: &SovereignOrder, now_ms: i64) -> Option<SovereignOrderStatus> {
    if answered(order) {
        return None;
    }
    let mut status = order.status.clone().unwrap_or_default();
    status.state = Some(OrderState::Refused);
    status.reason = format!("there is no SovereignReserve {}", order.spec.reserve);
    status.decided_at = Some(time(now_ms));
    finish(&mut status, order, now_ms);
    Some(status)
}

/// An order that is booked goes on by the clock.
fn followed(order: &SovereignOrder, now_ms: i64) -> Option<SovereignOrderStatus> {
    let mut status = order.status.clone()?;
    let (from_ms, until_ms) = (order.spec.from.0.as_millisecond(), order.spec.until.0.as_millisecond());
    let (state, reason) = match now_ms {
        _ if now_ms >= until_ms => (OrderState::Ended, "its time is over"),
        _ if now_ms >= from_ms => (OrderState::Active, "jobs and pods that name it run on it"),
        _ => return None,
    };
    if status.state == Some(state) {
        return None;
    }
    status.state = Some(state);
    reason.clone_into(&mut status.reason);
    finish(&mut status, order, now_ms);
    Some(status)
}

fn finish(status: &mut SovereignOrderStatus, order: &SovereignOrder, now_ms: i64) {
    let now = Timestamp::from_millisecond(now_ms).unwrap_or_default();
    let ready = matches!(status.state, Some(OrderState::Accepted | OrderState::Active));
    let reason = status.state.map_or("Unanswered", OrderState::as_str);
    let generation = order.metadata.generation;
    status.observed_generation = generation;
    let words = status.reason.clone();
    set_condition(&mut status.conditions, ConditionType::Ready, ready, reason, &words, generation, now);
}

/// When the next booked order begins or ends, in milliseconds since 1970.
pub fn next_change_ms(orders: &[Wish<'_>], now_ms: i64) -> Option<i64> {
    let times = orders
        .iter()
        .filter(|wish| booked(wish.order))
        .flat_map(|wish| [wish.order.spec.from.0.as_millisecond(), wish.order.spec.until.0.as_millisecond()]);
    times.filter(|at_ms| *at_ms > now_ms).min()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::reserves::pools::tests::pool_of;

    const NOW: &str = "2026-06-01T00:00:00Z";

    fn order(name: &str, profile: &str, count: u32, from: &str, until: &str) -> SovereignOrder {
        serde_json::from_value(json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "SovereignOrder",
            "metadata": {"name": name, "namespace": "p", "creationTimestamp": NOW},
            "spec": {"reserve": "r", "shapes": [{"profile": profile, "count": count}], "from": from, "until": until}}))
        .unwrap()
    }

    fn ask(orders: &[SovereignOrder], class: TenantClass, now: &str) -> Told {
        let (pool, layout) = pool_of(&[("a", 8)]);
        let now_ms = now.parse::<Timestamp>().unwrap().as_millisecond();
        let mut state = State::of(&pool, now_ms);
        let wishes: Vec<Wish<'_>> = orders
            .iter()
            .map(|order| Wish {
                key: Key::new("p", order.metadata.name.as_deref().unwrap()),
                order,
                tenant: Some(("t", class)),
            })
            .collect();
        answer(&pool, &mut state, &wishes, &layout, now_ms)
    }

    fn states(told: &Told) -> Vec<Option<OrderState>> {
        told.values().map(|status| status.state).collect()
    }

    #[test]
    fn an_order_is_answered_and_then_goes_on_by_the_clock() {
        let mut one = order("one", "3g.40gb", 1, "2026-06-02T02:00:00+02:00", "2026-06-02T08:00:00Z");
        let told = ask(std::slice::from_ref(&one), TenantClass::Sovereign, NOW);
        let status = told.values().next().unwrap();
        assert_eq!((status.state, status.units), (Some(OrderState::Accepted), 28), "{}", status.reason);
        assert_eq!(status.rating, Some(TenantClass::Sovereign));
        one.status = Some(status.clone());
        let later = |at: &str| ask(std::slice::from_ref(&one), TenantClass::Standard, at);
        assert_eq!(states(&later("2026-06-01T23:59:59Z")), [], "answered once");
        assert_eq!(states(&later("2026-06-02T00:00:00Z")), [Some(OrderState::Active)]);
        assert_eq!(states(&later("2026-06-02T08:00:00Z")), [Some(OrderState::Ended)]);
    }

    #[test]
    fn what_cannot_be_is_refused_in_words() {
        let day = ("2026-06-02T00:00:00Z", "2026-06-03T00:00:00Z");
        for (profile, count, class, words) in [
            ("9g.99gb", 1, TenantClass::Sovereign, "9g.99gb"),
            ("3g.40gb", 99, TenantClass::Sovereign, "pool"),
            ("3g.40gb", 1, TenantClass::Standard, "standard"),
        ] {
            let told = ask(&[order("x", profile, count, day.0, day.1)], class, NOW);
            let status = told.values().next().unwrap();
            assert_eq!(status.state, Some(OrderState::Refused));
            assert!(status.reason.contains(words), "{}", status.reason);
        }
        let past = ask(
            &[order("x", "3g.40gb", 1, "2026-05-01T00:00:00Z", "2026-05-02T00:00:00Z")],
            TenantClass::Sovereign,
            NOW,
        );
        assert_ne!(states(&past), [Some(OrderState::Accepted)]);
    }
}
