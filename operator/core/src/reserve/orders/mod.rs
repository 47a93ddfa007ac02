//! Advance orders: rated bookings of shapes from one time to another. Every one
//! is answered at once: accepted, or countered with the earliest start, or
//! refused with what is wrong with it.
//!
//! An order that was accepted stays undisturbed by later ones of an equal or a
//! lower rating. Work that is not rated, and orders of a lower rating, are no
//! reason to refuse one; orders that are displaced that way are answered anew.
//! Whether shapes fit is the planner's to say ([`Fits`]).

mod why;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::model::{Class, Order, ReservedShape, UnitMs, Units};

pub use why::Why;

use super::amount::Rate;
use super::bucket::over;
use super::window::{Booking, DAY_MS, Outlook, Window, begin_ms, day_of};

/// An order that begins less than this long ago begins now: it takes a while to get here.
pub const LATE_MS: i64 = 60_000;

/// What the planner knows of a reserve's pool.
pub trait Fits {
    /// What people call a shape.
    fn name(&self, shape: usize) -> String;
    /// What one of it is charged; `None` if no GPU of the pool can be cut like this, however empty it were.
    fn units(&self, shape: usize) -> Option<Units>;
    /// Whether all of these fit into the pool together, were it empty, at a time in milliseconds since 1970. If they
    /// do, so do fewer of them.
    fn fits(&self, shapes: &[ReservedShape], at_ms: i64) -> bool;
}

/// What an answer depends on, besides the orders that were accepted.
#[derive(Debug)]
pub struct Facts<'a, F> {
    /// The pool.
    pub pool: &'a F,
    /// When it becomes larger or smaller, as far as that is announced, in milliseconds since 1970.
    pub changes_ms: &'a [i64],
    /// What is kept for instant claims at any time.
    pub instant: &'a [ReservedShape],
    /// Whose tenants draw on the reserve.
    pub classes: &'a BTreeSet<Class>,
    /// What was delivered, reckoned up to now.
    pub window: &'a Window,
    /// At what rate entitlement accrues outside a crisis.
    pub rate: Rate,
}

/// An order that is asked for, or was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// What is ordered.
    pub order: Order,
    /// When it was received, in milliseconds since 1970.
    pub received_ms: i64,
}

/// The answer to an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "answer")]
pub enum Answer {
    /// It is booked as it was asked for.
    Accepted {
        /// Orders of a lower rating that were accepted earlier and give way to it.
        displaced: Vec<String>,
    },
    /// It can't be had then.
    #[serde(rename_all = "camelCase")]
    Countered {
        /// The earliest start at which all of it can be had for as long, in milliseconds since 1970.
        earliest_ms: i64,
        /// Why not as asked.
        why: Why,
    },
    /// It can't be had at all.
    Refused {
        /// Why not.
        why: Why,
    },
}

/// The orders that were accepted and have not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Calendar {
    accepted: BTreeMap<String, Asked>,
}

impl Calendar {
    /// Books an order as it is, whether or not it fits: it was accepted before.
    pub fn accept(&mut self, asked: Asked) {
        self.accepted.insert(asked.order.key.clone(), asked);
    }

    /// Takes an order out, and tells whether it was there.
    pub fn cancel(&mut self, key: &str) -> bool {
        self.accepted.remove(key).is_some()
    }

    /// Forgets the orders that have ended.
    pub fn prune(&mut self, now_ms: i64) {
        self.accepted.retain(|_, asked| asked.order.until_ms > now_ms);
    }

    /// What is booked, in the order in which it begins.
    pub fn orders(&self) -> Vec<&Order> {
        let mut orders: Vec<&Order> = self.accepted.values().map(|asked| &asked.order).collect();
        orders.sort_by_key(|order| (order.from_ms, &order.key));
        orders
    }

    /// What is booked, in units.
    pub fn bookings(&self, pool: &impl Fits) -> Vec<Booking> {
        self.accepted.values().map(|asked| booking(&asked.order, pool)).collect()
    }

    /// The answer to an order, which is not booked by asking. One that was accepted as it is stays so.
    pub fn answer<F: Fits>(&self, asked: &Asked, facts: &Facts<F>, now_ms: i64) -> Answer {
        let order = &asked.order;
        if self.accepted.get(&order.key).is_some_and(|known| known.order == *order) {
            return Answer::Accepted { displaced: Vec::new() };
        }
        if let Err(why) = proper(order, facts, now_ms) {
            return Answer::Refused { why };
        }
        let before: Vec<&Asked> =
            self.accepted.values().filter(|known| known.order.rating >= order.rating).collect();
        let books = Books::new(before, facts, now_ms, order);
        let late = order.from_ms < now_ms.saturating_sub(LATE_MS);
        let why = match books.at(order.from_ms.max(now_ms)) {
            _ if late => Why::Past,
            Ok(()) => return Answer::Accepted { displaced: self.displaced(asked, facts, now_ms) },
            Err(why) => why,
        };
        match books.earliest(order.from_ms.max(now_ms), now_ms) {
            Some(earliest_ms) => Answer::Countered { earliest_ms, why },
            None => Answer::Refused { why },
        }
    }

    /// Answers orders that came together and books those that are accepted: the highest rating first, then the
    /// earliest date, then the first received. Orders that are displaced are taken out and answered anew.
    pub fn answer_all<F: Fits>(
        &mut self,
        mut asked: Vec<Asked>,
        facts: &Facts<F>,
        now_ms: i64,
    ) -> Vec<(String, Answer)> {
        asked.sort_by(|a, b| rank(a).cmp(&rank(b)));
        let mut answers = Vec::new();
        for one in asked {
            let answer = self.answer(&one, facts, now_ms);
            answers.push((one.order.key.clone(), answer.clone()));
            let Answer::Accepted { displaced } = answer else { continue };
            self.accept(one);
            let gone: Vec<Asked> = displaced.iter().filter_map(|key| self.accepted.remove(key)).collect();
            for one in gone {
                let answer = match self.answer(&one, facts, now_ms) {
                    Answer::Countered { earliest_ms, .. } => {
                        Answer::Countered { earliest_ms, why: Why::Displaced }
                    }
                    Answer::Refused { .. } => Answer::Refused { why: Why::Displaced },
                    accepted @ Answer::Accepted { .. } => {
                        self.accept(one.clone());
                        accepted
                    }
                };
                answers.push((one.order.key, answer));
            }
        }
        answers
    }

    /// Accepted orders that can't be delivered as they are any more, because the pool or the entitlement became
    /// less: those of a lower rating first, of equal ones those that begin later.
    pub fn failing<F: Fits>(&self, facts: &Facts<F>, now_ms: i64) -> Vec<String> {
        let mut failing = upheld(self.accepted.values().collect(), facts, now_ms).1;
        failing.reverse();
        failing
    }

    /// Those of a lower rating that don't fit beside `asked`, but would without it.
    fn displaced<F: Fits>(&self, asked: &Asked, facts: &Facts<F>, now_ms: i64) -> Vec<String> {
        let others = || self.accepted.values().filter(|known| known.order.key != asked.order.key);
        if others().all(|known| known.order.rating >= asked.order.rating) {
            return Vec::new();
        }
        let without = upheld(others().collect(), facts, now_ms).1;
        let with = upheld(others().chain([asked]).collect(), facts, now_ms).1;
        with.into_iter().filter(|key| !without.contains(key)).collect()
    }
}

/// Who is answered first.
fn rank(asked: &Asked) -> (Reverse<Class>, i64, i64, &str) {
    (Reverse(asked.order.rating), asked.order.from_ms, asked.received_ms, &asked.order.key)
}

/// Which of some orders can be delivered, and which not, if those of a higher rating go first, and of equal ones
/// those that have begun, then those that were received first.
fn upheld<'a, F: Fits>(
    mut orders: Vec<&'a Asked>,
    facts: &Facts<F>,
    now_ms: i64,
) -> (Vec<&'a Asked>, Vec<String>) {
    orders.retain(|asked| asked.order.until_ms > now_ms);
    orders.sort_by_key(|asked| {
        let begun = asked.order.from_ms <= now_ms;
        (Reverse(asked.order.rating), !begun, asked.received_ms, &asked.order.key)
    });
    let (mut kept, mut failing) = (Vec::new(), Vec::new());
    for asked in orders {
        let rest = Order { from_ms: asked.order.from_ms.max(now_ms), ..asked.order.clone() };
        match Books::new(kept.clone(), facts, now_ms, &rest).at(rest.from_ms) {
            Ok(()) => kept.push(asked),
            Err(_) => failing.push(asked.order.key.clone()),
        }
    }
    (kept, failing)
}

/// Refuses what can't be had at any time.
fn proper<F: Fits>(order: &Order, facts: &Facts<F>, now_ms: i64) -> Result<(), Why> {
    let window_ms = facts.window.length_ms();
    let days = window_ms / DAY_MS;
    if !facts.classes.contains(&order.rating) {
        return Err(Why::NotEntitled { class: order.rating });
    }
    if order.until_ms <= order.from_ms {
        return Err(Why::EndsBeforeItBegins);
    }
    if order.until_ms.saturating_sub(order.from_ms) > window_ms {
        return Err(Why::LongerThanWindow { days });
    }
    if order.from_ms.saturating_sub(now_ms) > window_ms {
        return Err(Why::TooFarAhead { days });
    }
    if order.shapes.is_empty() || order.shapes.iter().any(|shape| shape.count == 0) {
        return Err(Why::Nothing);
    }
    if let Some(shape) = order.shapes.iter().find(|shape| facts.pool.units(shape.shape).is_none()) {
        return Err(Why::NoSuchShape { shape: facts.pool.name(shape.shape) });
    }
    let names = order.shapes.iter().map(|shape| (shape.count, facts.pool.name(shape.shape)));
    let asked = || why::asked(names.clone(), booking(order, facts.pool).units);
    let times = || facts.changes_ms.iter().copied().chain([order.from_ms.max(now_ms)]);
    let ever = |shapes: &[ReservedShape]| times().any(|at_ms| facts.pool.fits(shapes, at_ms));
    if !ever(&merged([order.shapes.as_slice()].into_iter())) {
        return Err(Why::LargerThanPool { asked: asked() });
    }
    if !ever(&merged([facts.instant, &order.shapes].into_iter())) {
        return Err(Why::LargerThanPoolLeaves { asked: asked() });
    }
    let needs = takes(order, facts.pool);
    let entitled = facts.rate.over(window_ms).whole;
    if needs > entitled {
        return Err(Why::MoreThanEntitled { needs, entitled });
    }
    Ok(())
}

/// An order among those that go before it.
struct Books<'a, F> {
    order: &'a Order,
    before: Vec<&'a Order>,
    facts: &'a Facts<'a, F>,
    outlook: Outlook,
    last_booked: i64,
}

impl<'a, F: Fits> Books<'a, F> {
    fn new(before: Vec<&'a Asked>, facts: &'a Facts<'a, F>, now_ms: i64, order: &'a Order) -> Self {
        let mut before: Vec<&Order> = before.into_iter().map(|asked| &asked.order).collect();
        before.retain(|known| known.key != order.key && known.until_ms > now_ms);
        let bookings: Vec<Booking> = before.iter().map(|known| booking(known, facts.pool)).collect();
        let last_booked = before.iter().map(|known| day_of(known.until_ms)).max().unwrap_or(i64::MIN);
        let outlook = Outlook::new(facts.window, facts.rate, &bookings);
        Self { order, before, facts, outlook, last_booked }
    }

    /// Whether it can be had from `start_ms` on for as long as was asked for.
    fn at(&self, start_ms: i64) -> Result<(), Why> {
        let end_ms = start_ms.saturating_add(self.order.until_ms.saturating_sub(self.order.from_ms));
        let booking = Booking { from_ms: start_ms, until_ms: end_ms, ..booking(self.order, self.facts.pool) };
        let (first, last) = (day_of(start_ms), day_of(end_ms.saturating_sub(1)).max(self.last_booked));
        if self.outlook.least_left(first, last, Some(&booking)) < 0 {
            let left = self.outlook.least_left(first, last, None).max(0);
            let left = UnitMs::try_from(left).unwrap_or(UnitMs::MAX);
            return Err(Why::EntitlementUsed { needs: takes(self.order, self.facts.pool), left });
        }
        let begins =
            self.before.iter().map(|known| known.from_ms).chain(self.facts.changes_ms.iter().copied());
        let within: BTreeSet<i64> =
            begins.filter(|at_ms| (start_ms..end_ms).contains(at_ms)).chain([start_ms]).collect();
        within
            .into_iter()
            .find(|at_ms| !self.fits(*at_ms, |_| true))
            .map_or(Ok(()), |at_ms| Err(self.why(at_ms)))
    }

    /// Whether it fits at a time beside those of the others that `counts`.
    fn fits(&self, at_ms: i64, counts: impl Fn(&Order) -> bool) -> bool {
        let others = self
            .before
            .iter()
            .filter(|known| (known.from_ms..known.until_ms).contains(&at_ms) && counts(known))
            .map(|known| known.shapes.as_slice());
        let shapes = merged(others.chain([self.facts.instant, &self.order.shapes]));
        self.facts.pool.fits(&shapes, at_ms)
    }

    /// Why it doesn't fit at a time.
    fn why(&self, at_ms: i64) -> Why {
        if !self.fits(at_ms, |_| false) {
            return Why::Smaller;
        }
        if !self.fits(at_ms, |known| known.tenant != self.order.tenant) {
            return Why::Orders;
        }
        let own = self.before.iter().filter(|known| known.tenant == self.order.tenant);
        let then = own.filter(|known| (known.from_ms..known.until_ms).contains(&at_ms));
        Why::OwnOrders { keys: then.map(|known| known.key.clone()).collect() }
    }

    /// The earliest start at which it can be had, up to a window from now. Room appears when another order ends or
    /// the pool changes; entitlement, when a day leaves the window that ends with the order.
    fn earliest(&self, from_ms: i64, now_ms: i64) -> Option<i64> {
        let last_ms = now_ms.saturating_add(self.facts.window.length_ms());
        let duration_ms = self.order.until_ms.saturating_sub(self.order.from_ms);
        let ends =
            self.before.iter().map(|known| known.until_ms).chain(self.facts.changes_ms.iter().copied());
        let days = day_of(from_ms)..=day_of(last_ms);
        let midnights = days.flat_map(|day| [begin_ms(day), begin_ms(day).saturating_sub(duration_ms)]);
        let starts: BTreeSet<i64> = ends.chain(midnights).chain([from_ms]).collect();
        starts
            .into_iter()
            .filter(|start_ms| (from_ms..=last_ms).contains(start_ms))
            .find(|start_ms| self.at(*start_ms).is_ok())
    }
}

/// Equal shapes once, with their counts together.
fn merged<'a>(lists: impl Iterator<Item = &'a [ReservedShape]>) -> Vec<ReservedShape> {
    let mut counts: BTreeMap<usize, u32> = BTreeMap::new();
    for shape in lists.flatten() {
        let count = counts.entry(shape.shape).or_default();
        *count = count.saturating_add(shape.count);
    }
    counts.into_iter().map(|(shape, count)| ReservedShape { shape, count }).collect()
}

/// What an order books.
fn booking(order: &Order, pool: &impl Fits) -> Booking {
    let units = order
        .shapes
        .iter()
        .map(|shape| pool.units(shape.shape).unwrap_or(0).saturating_mul(shape.count.into()));
    Booking { units: units.fold(0, Units::saturating_add), from_ms: order.from_ms, until_ms: order.until_ms }
}

/// What an order takes in all.
fn takes(order: &Order, pool: &impl Fits) -> UnitMs {
    over(booking(order, pool).units, order.until_ms.saturating_sub(order.from_ms))
}
