//! The orders of a year: asked for, answered by the calendar, and taken with
//! the start that is offered.

use crate::model::{Order, ReservedShape, UNITS_PER_GPU, Units};
use crate::reserve::{Account, Answer, Asked, Booking, Calendar, Facts, Fits};

use super::Setup;
use super::load::{Ask, DRAWING, Ends, Job};
use super::world::World;

/// The calendar of a year.
#[derive(Clone, Debug, Default)]
pub(super) struct Books {
    calendar: Calendar,
    booked: Vec<Booking>,
}

/// What came of asking for an order.
#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub accepted: u32,
    pub countered: u32,
    pub refused: u32,
    /// Orders that gave way.
    pub displaced: Vec<String>,
    /// What will run under orders that were accepted.
    pub jobs: Vec<Job>,
}

/// Whole GPUs, and halves of them.
struct Pool {
    gpus: u32,
    whole: usize,
}

impl Fits for Pool {
    fn name(&self, shape: usize) -> String {
        if shape == self.whole { "gpu".to_owned() } else { "3g.40gb".to_owned() }
    }

    fn units(&self, shape: usize) -> Option<Units> {
        Some(if shape == self.whole { UNITS_PER_GPU } else { 28 })
    }

    fn fits(&self, shapes: &[ReservedShape], _: i64) -> bool {
        let of =
            |shape: &ReservedShape| if shape.shape == self.whole { 2 * shape.count } else { shape.count };
        shapes.iter().map(of).sum::<u32>() <= 2 * self.gpus
    }
}

impl Books {
    /// What is booked.
    pub fn bookings(&self) -> Vec<Booking> {
        self.booked.clone()
    }

    /// The orders that were accepted, in the order in which they begin.
    pub fn orders(&self) -> Vec<Order> {
        self.calendar.orders().into_iter().cloned().collect()
    }

    /// Forgets what has ended.
    pub fn prune(&mut self, now_ms: i64) {
        self.calendar.prune(now_ms);
        self.booked.retain(|booking| booking.until_ms > now_ms);
    }

    /// Asks for an order; where another start is offered, that is taken, also by those who give way.
    pub fn ask(
        &mut self,
        order: Order,
        setup: &Setup,
        world: &World,
        account: &Account,
        now_ms: i64,
    ) -> Answers {
        let pool = Pool { gpus: setup.gpus, whole: world.whole() };
        let facts = Facts {
            pool: &pool,
            changes_ms: &[],
            instant: &world.declared(setup, i64::MIN),
            classes: &DRAWING.iter().map(|(_, class, _)| *class).collect(),
            window: &account.window,
            rate: setup.terms.rate(Units::from(setup.gpus) * UNITS_PER_GPU),
        };
        let mut answers = Answers::default();
        let mut asked = vec![Asked { order, received_ms: now_ms }];
        // Each that gives way asks once more; those of the lowest rating displace nobody.
        for round in 0..4 {
            let mut next = Vec::new();
            let known: Vec<Order> = self
                .calendar
                .orders()
                .into_iter()
                .cloned()
                .chain(asked.iter().map(|one| one.order.clone()))
                .collect();
            for (key, answer) in self.calendar.answer_all(asked, &facts, now_ms) {
                let Some(order) = known.iter().find(|order| order.key == key) else { continue };
                match answer {
                    Answer::Accepted { displaced } => {
                        answers.accepted += u32::from(round == 0);
                        answers.jobs.extend(jobs(order));
                        answers.displaced.extend(displaced);
                    }
                    Answer::Countered { earliest_ms, .. } => {
                        answers.countered += 1;
                        let until_ms = earliest_ms + order.until_ms - order.from_ms;
                        let again =
                            Order { key: format!("{key}+"), from_ms: earliest_ms, until_ms, ..order.clone() };
                        next.push(Asked { order: again, received_ms: now_ms });
                    }
                    Answer::Refused { .. } => answers.refused += 1,
                }
            }
            asked = next;
            if asked.is_empty() {
                break;
            }
        }
        self.booked = self.calendar.bookings(&pool);
        answers
    }
}

/// What was ordered as jobs for one GPU at a time, as much work in all.
pub fn as_single_jobs(order: &Order) -> Vec<Job> {
    let count = order.shapes.iter().map(|shape| shape.count).sum();
    let work_ms = order.until_ms - order.from_ms;
    let one = |job: Job| Job { pods: 1, ends: Ends::Work(work_ms), order: None, ..job };
    (0..count).filter_map(|_| jobs(order)).map(one).collect()
}

/// What runs under an order.
fn jobs(order: &Order) -> Option<Job> {
    let (tenant, ..) = DRAWING.iter().find(|(name, ..)| *name == order.tenant)?;
    Some(Job {
        tenant,
        ask: Ask::Whole,
        pods: order.shapes.iter().map(|shape| shape.count).sum(),
        queued_ms: order.from_ms,
        ends: Ends::At(order.until_ms),
        checkpoint_ms: Some(super::load::HOUR_MS),
        grace_ms: 30_000,
        lasting: false,
        declared_ms: None,
        order: Some(order.key.clone()),
    })
}
