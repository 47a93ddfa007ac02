//! A year, event by event: what is held, what waits, and a plan after each event,
//! which is carried out in [`carry`]. What comes is drawn elsewhere ([`super::load`]).

mod carry;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::Usage;
use crate::model::{Plan, Right, Running, Snapshot, UNITS_PER_GPU, Units, Workload};
use crate::reserve::{Account, Now};
use crate::simulate::replay::world::{release, saved_ms};
use crate::simulate::replay::{Quantiles, ReplayError};

use super::booking::{Books, as_single_jobs};
use super::load::{DAY_MS, Ends, Job, Load, draw};
use super::outcome::{Row, Summary, Year};
use super::tally::{Beyond, over};
use super::world::{World, cover, is_drawing};
use super::{Keeping, Setup, WITHIN_MS};

/// What happens; at one time in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Midnight,
    Back(usize),
    End(usize),
    Leave(usize),
    Fail(usize),
    /// A job that ends at a time is over, whether it ran or not.
    Over(usize),
    Wish(usize),
    Arrive(usize),
    /// An order has begun for so long that its job should run.
    Look(usize),
}

/// Something that holds devices, beside its entry in [`Snapshot::running`].
#[derive(Clone, Copy, Debug)]
struct Run {
    id: usize,
    job: usize,
    /// Since when it has held what it holds by its right.
    since_ms: i64,
}

/// How a job fares.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fate {
    /// Work left.
    left_ms: i64,
    /// It was asked for when there was a right to it, and has not run yet.
    valid: bool,
    /// It is over, or never comes.
    pub over: bool,
    /// It has run.
    pub ran: bool,
}

pub(super) struct Engine<'a> {
    setup: &'a Setup,
    world: World,
    load: Load,
    fates: Vec<Fate>,
    account: Account,
    books: Books,
    summary: Summary,
    now_ms: i64,
    /// Beside [`Snapshot::waiting`].
    queue: Vec<usize>,
    /// Beside [`Snapshot::running`].
    runs: Vec<Run>,
    /// For each run that was ever started where it is in `runs`.
    place_of: Vec<usize>,
    events: BinaryHeap<Reverse<(i64, Event)>>,
    /// Beside [`Snapshot::tenants`].
    recent: Vec<Usage>,
    beyond: Beyond,
    latencies: Vec<i64>,
    last_failure_ms: i64,
    row: Row,
    rows: Vec<Row>,
}

const GONE: usize = usize::MAX;

impl<'a> Engine<'a> {
    pub fn new(setup: &'a Setup) -> Result<Self, ReplayError> {
        let world = World::new(setup)?;
        let load = draw(setup, world.whole());
        let units = Units::from(setup.gpus) * UNITS_PER_GPU;
        let mut engine = Self {
            setup,
            recent: vec![Usage::at(setup.start_ms, 0); world.snapshot.tenants.len()],
            world,
            fates: Vec::new(),
            account: Account::open(365, setup.start_ms, setup.terms, units),
            books: Books::default(),
            summary: Summary { installed: units, depth: setup.terms.depth(units), ..Summary::default() },
            now_ms: setup.start_ms,
            queue: Vec::new(),
            runs: Vec::new(),
            place_of: Vec::new(),
            events: BinaryHeap::new(),
            beyond: Beyond::default(),
            latencies: Vec::new(),
            last_failure_ms: i64::MIN,
            row: Row { day_ms: setup.start_ms, ..Row::default() },
            rows: Vec::new(),
            load: Load::default(),
        };
        for (index, wish) in load.wishes.iter().enumerate() {
            engine.push(wish.at_ms, Event::Wish(index));
        }
        for (index, failure) in load.failures.iter().enumerate() {
            engine.push(failure.at_ms, Event::Fail(index));
            engine.push(failure.until_ms, Event::Back(index));
        }
        for day in 1..=i64::from(setup.days) {
            engine.push(setup.start_ms + day * DAY_MS, Event::Midnight);
        }
        engine.load = Load { jobs: Vec::new(), ..load };
        for job in load.jobs {
            engine.expect(job);
        }
        Ok(engine)
    }

    /// The cluster before anything came.
    pub fn snapshot(&self) -> &Snapshot {
        &self.world.snapshot
    }

    pub fn play(mut self, mut planner: impl FnMut(&Snapshot, i64) -> Plan) -> Result<Year, ReplayError> {
        while let Some(&Reverse((at_ms, _))) = self.events.peek() {
            if at_ms > self.setup.end_ms() {
                break;
            }
            self.advance(at_ms);
            let mut changed = false;
            while let Some(&Reverse((_, event))) = self.events.peek().filter(|next| next.0.0 == at_ms) {
                self.events.pop();
                changed |= self.happens(event);
            }
            if changed && !self.world.snapshot.waiting.is_empty() {
                self.plan(&mut planner)?;
            }
        }
        Ok(self.outcome())
    }

    fn push(&mut self, at_ms: i64, event: Event) {
        self.events.push(Reverse((at_ms, event)));
    }

    /// A job will come.
    fn expect(&mut self, job: Job) {
        let index = self.load.jobs.len();
        let left_ms = match job.ends {
            Ends::Work(work_ms) => work_ms,
            Ends::At(at_ms) => {
                self.push(at_ms, Event::Over(index));
                i64::MAX
            }
        };
        self.push(job.queued_ms, Event::Arrive(index));
        if job.order.is_some() {
            self.push(job.queued_ms.saturating_add(WITHIN_MS), Event::Look(index));
        }
        self.fates.push(Fate { left_ms, ..Fate::default() });
        self.load.jobs.push(job);
    }

    fn held_by(&self, right: impl Fn(&Right) -> bool) -> Units {
        let running = self.world.snapshot.running.iter().filter(|running| right(&running.right));
        running.map(|running| running.units).sum()
    }

    /// Time goes on: what is held is held for longer, and the reserve's account is reckoned.
    fn advance(&mut self, to_ms: i64) {
        let (from_ms, passed_ms) = (self.now_ms, to_ms.saturating_sub(self.now_ms));
        if passed_ms <= 0 {
            return;
        }
        self.now_ms = to_ms;
        let half_life_ms = self.world.snapshot.settings.half_life_ms;
        for ((name, tenant), recent) in self.world.snapshot.tenants.iter_mut().zip(&mut self.recent) {
            recent.advance(to_ms, tenant.used, half_life_ms);
            tenant.recent = recent.recent();
            self.row.used += over(tenant.used, passed_ms);
            if is_drawing(name) {
                self.summary.sovereign += over(tenant.used, passed_ms);
            }
        }
        let claimed = self.held_by(|right| *right == Right::Claimed);
        let ordered = self.held_by(|right| matches!(right, Right::Ordered(_)));
        let booked = self.books.bookings();
        let now = Now {
            terms: self.setup.terms,
            crisis: self.setup.crisis.as_ref(),
            installed: self.summary.installed,
            booked: &booked,
        };
        let taken = self.account.advance(to_ms, &now, claimed, ordered);
        self.row.claimed += taken.amount;
        self.row.ordered += over(ordered, passed_ms);
        self.summary.claimed += taken.amount;
        self.summary.ordered += over(ordered, passed_ms);
        let lasted_ms = taken.ended_ms.unwrap_or(to_ms).saturating_sub(from_ms);
        let rate = self.setup.terms.rate(self.summary.installed);
        if self.setup.crisis.as_ref().is_some_and(|crisis| crisis.in_force(from_ms)) {
            self.beyond.cut();
        } else {
            self.beyond.step(lasted_ms, claimed, rate);
            self.beyond.step(passed_ms - lasted_ms, 0, rate);
        }
        if let Some(ended_ms) = taken.ended_ms {
            for place in 0..self.runs.len() {
                if self.world.snapshot.running[place].right == Right::Claimed {
                    self.settle(place, ended_ms);
                    self.world.snapshot.running[place].right = Right::Ordinary;
                }
            }
        }
    }

    /// Counts what something held by its right till now, apart from the account.
    fn settle(&mut self, place: usize, until_ms: i64) {
        let (run, running) = (&mut self.runs[place], &self.world.snapshot.running[place]);
        let held = over(running.units, until_ms.saturating_sub(run.since_ms));
        run.since_ms = until_ms;
        match running.right {
            Right::Ordinary => {}
            Right::Claimed => self.summary.claimed_by_jobs += held,
            Right::Ordered(_) => self.summary.ordered_by_jobs += held,
        }
    }

    /// Tells whether a plan may come out differently for it.
    fn happens(&mut self, event: Event) -> bool {
        match event {
            Event::Midnight => self.midnight(),
            Event::Arrive(job) => self.arrive(job),
            Event::Over(job) => return self.over(job),
            Event::End(run) | Event::Leave(run) if self.place_of[run] == GONE => return false,
            Event::End(run) => {
                let (run, _) = self.leave(self.place_of[run]);
                self.fates[run.job].over = true;
                self.summary.ended += 1;
            }
            Event::Leave(run) => self.requeue(self.place_of[run]),
            Event::Fail(failure) => self.fail(self.load.failures[failure].gpu),
            Event::Back(failure) => {
                self.world.snapshot.gpus[self.load.failures[failure].gpu].blocked = false;
                self.row.broken -= 1;
            }
            Event::Wish(wish) => self.wish(wish),
            Event::Look(job) => {
                let Fate { over, ran, .. } = self.fates[job];
                let broken = self.row.broken > 0 || self.last_failure_ms > self.now_ms - WITHIN_MS;
                self.summary.orders_late += u32::from(!over && !ran && !broken);
                return false;
            }
        }
        true
    }

    fn midnight(&mut self) {
        let mut row = self.row;
        let day = Row { day_ms: self.now_ms, broken: row.broken, ..Row::default() };
        row.tokens = self.account.bucket.tokens.whole;
        row.entitled = self.account.window.days().map(|(_, day)| day.entitled.whole).sum();
        row.delivered = self.summary.claimed + self.summary.ordered;
        let booked = self.books.bookings();
        row.booked = booked.iter().map(|booking| booking.between(self.now_ms, i64::MAX)).sum();
        row.waiting = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        row.crisis = self.setup.crisis.as_ref().is_some_and(|crisis| crisis.in_force(self.now_ms));
        self.rows.push(row);
        self.row = day;
    }

    fn arrive(&mut self, job: usize) {
        if self.fates[job].over {
            return;
        }
        let come = &self.load.jobs[job];
        self.summary.jobs += 1;
        if is_drawing(come.tenant) && come.order.is_none() && self.setup.keeping == Keeping::Lent {
            self.summary.claims += 1;
            let asked = self.claims_asked();
            let held = self.held_by(|right| *right == Right::Claimed);
            let standing = self.world.standing(self.setup, &self.account, &self.books, self.now_ms, held);
            let valid = self.world.may_claim(self.setup, self.now_ms, &asked, come.ask)
                && standing.spendable() >= cover(&asked, come.ask);
            self.fates[job].valid = valid;
            self.summary.valid += u32::from(valid);
        }
        self.queue(job);
    }

    /// What is claimed, or waits to be placed with a right to it.
    fn claims_asked(&self) -> Vec<super::load::Ask> {
        let running = self.runs.iter().zip(&self.world.snapshot.running);
        let claimed = running.filter(|(_, running)| running.right == Right::Claimed).map(|(run, _)| run.job);
        let waiting = self.queue.iter().copied().filter(|job| self.fates[*job].valid);
        claimed.chain(waiting).map(|job| self.load.jobs[job].ask).collect()
    }

    fn queue(&mut self, job: usize) {
        let come = &self.load.jobs[job];
        let runs_ms = match come.ends {
            Ends::At(at_ms) if come.order.is_some() => Some(at_ms.saturating_sub(self.now_ms)),
            _ => come.declared_ms,
        };
        self.world.snapshot.waiting.push(Workload {
            key: format!("Job/{}/{job}", come.tenant),
            tenant: come.tenant.to_owned(),
            queued_ms: self.now_ms,
            pods: come.pods,
            shape: self.world.shape(come),
            runs_ms,
            lasting: come.lasting,
            grace_ms: come.grace_ms,
            order: come.order.clone(),
            ..Workload::default()
        });
        self.queue.push(job);
    }

    /// A job that ends at a time has come to it.
    fn over(&mut self, job: usize) -> bool {
        if self.fates[job].over {
            return false;
        }
        self.fates[job].over = true;
        self.summary.ended += 1;
        if let Some(place) = self.runs.iter().position(|run| run.job == job) {
            self.leave(place);
        } else if let Some(place) = self.queue.iter().position(|waits| *waits == job) {
            self.queue.swap_remove(place);
            self.world.snapshot.waiting.swap_remove(place);
        }
        true
    }

    /// Frees what a run holds.
    fn leave(&mut self, place: usize) -> (Run, Running) {
        self.settle(place, self.now_ms);
        let run = self.runs.swap_remove(place);
        let snapshot = &mut self.world.snapshot;
        let running = snapshot.running.swap_remove(place);
        self.place_of[run.id] = GONE;
        if let Some(moved) = self.runs.get(place) {
            self.place_of[moved.id] = place;
        }
        release(snapshot, &running.pods, running.shape);
        if let Some(tenant) = snapshot.tenants.get_mut(&running.tenant) {
            tenant.used = tenant.used.saturating_sub(running.units);
            if self.load.jobs[run.job].lasting {
                tenant.lasting = tenant.lasting.saturating_sub(running.units);
            }
        }
        (run, running)
    }

    /// It had to leave before its end, and waits again with what work is left.
    fn requeue(&mut self, place: usize) {
        let (run, mut running) = self.leave(place);
        let saved_ms = saved_ms(&running, self.load.jobs[run.job].checkpoint_ms, self.now_ms);
        let kept_ms = saved_ms.unwrap_or(running.admitted_ms);
        running.saved_ms = saved_ms;
        if running.leaves_ms.is_some() {
            self.summary.lost += running.lost(self.now_ms);
        }
        let fate = &mut self.fates[run.job];
        fate.left_ms = fate.left_ms.saturating_sub(kept_ms.saturating_sub(running.admitted_ms)).max(1);
        self.queue(run.job);
    }

    /// A GPU breaks: nothing can be put there, and what runs there is stopped.
    fn fail(&mut self, gpu: usize) {
        self.world.snapshot.gpus[gpu].blocked = true;
        self.row.broken += 1;
        self.summary.failures += 1;
        self.last_failure_ms = self.now_ms;
        let there = |running: &Running| {
            let devices = running.pods.iter().flat_map(|pod| pod.devices.iter().flatten());
            devices.into_iter().any(|device| device.gpu.0 as usize == gpu)
        };
        while let Some(place) = self.world.snapshot.running.iter().position(there) {
            self.world.snapshot.running[place].leaves_ms = None;
            self.requeue(place);
        }
    }

    fn wish(&mut self, wish: usize) {
        let order = self.load.wishes[wish].order.clone();
        self.summary.orders += 1;
        if self.setup.keeping != Keeping::Lent {
            for job in as_single_jobs(&order) {
                self.expect(job);
            }
            return;
        }
        let answers = self.books.ask(order, self.setup, &self.world, &self.account, self.now_ms);
        self.summary.accepted += answers.accepted;
        self.summary.countered += answers.countered;
        self.summary.refused += answers.refused;
        for (job, known) in self.load.jobs.iter().enumerate() {
            if known.order.as_ref().is_some_and(|key| answers.displaced.contains(key)) {
                self.fates[job].over |= !self.fates[job].ran;
            }
        }
        for place in 0..self.runs.len() {
            if let Right::Ordered(key) = &self.world.snapshot.running[place].right
                && answers.displaced.contains(key)
            {
                self.settle(place, self.now_ms);
                self.world.snapshot.running[place].right = Right::Ordinary;
            }
        }
        for job in answers.jobs {
            self.expect(job);
        }
    }

    fn outcome(mut self) -> Year {
        self.advance(self.setup.end_ms());
        for place in 0..self.runs.len() {
            self.settle(place, self.setup.end_ms());
        }
        // Valid claims that never ran are late, too.
        let never = self.queue.iter().filter(|job| self.fates[**job].valid);
        let never = never.filter(|job| self.now_ms - self.load.jobs[**job].queued_ms > WITHIN_MS).count();
        let mut summary = self.summary;
        summary.late += u32::try_from(never).unwrap_or(u32::MAX);
        summary.used = self.rows.iter().map(|row| row.used).sum();
        summary.capacity = over(summary.installed, self.setup.end_ms() - self.setup.start_ms);
        summary.entitled = self.rows.last().map_or(0, |row| row.entitled);
        summary.most_beyond_rate = self.beyond.most();
        summary.claim_ms = Quantiles::of(self.latencies);
        Year { rows: self.rows, summary }
    }
}
