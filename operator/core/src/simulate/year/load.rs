//! What comes in a year: services that follow the day, training gangs,
//! notebooks, three tenants who draw on the reserve, and GPUs that break. All
//! drawn from a seed; nothing here knows how it is scheduled.

use crate::model::{Class, Order, ReservedShape, Tenant};
use crate::simulate::Random;

use super::Setup;

/// An hour, and a day, in milliseconds.
pub(super) const HOUR_MS: i64 = 3_600_000;
pub(super) const DAY_MS: i64 = 24 * HOUR_MS;

/// What a job's pods ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ask {
    Whole,
    Half,
    Seventh,
}

/// A job as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub tenant: &'static str,
    pub ask: Ask,
    pub pods: u32,
    pub queued_ms: i64,
    pub ends: Ends,
    /// Its progress is saved whenever it has run for this long.
    pub checkpoint_ms: Option<i64>,
    pub grace_ms: i64,
    /// It may not be asked to leave.
    pub lasting: bool,
    /// How long it runs at most, as its owner says.
    pub declared_ms: Option<i64>,
    /// Key of the order it runs under.
    pub order: Option<String>,
}

impl Job {
    /// Whether it answers requests for as long as it is wanted, and has no progress to lose.
    pub fn serves(&self) -> bool {
        matches!(self.ends, Ends::At(_)) && self.order.is_none()
    }
}

/// When a job ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// When it has run for so long in all.
    Work(i64),
    /// At a time, whether it runs or not.
    At(i64),
}

/// An order, and when it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub at_ms: i64,
    pub order: Order,
}

/// A GPU that can't be used for some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub gpu: usize,
    pub at_ms: i64,
    pub until_ms: i64,
}

/// All that comes.
#[derive(Clone, Debug, Default)]
pub(super) struct Load {
    pub jobs: Vec<Job>,
    pub wishes: Vec<Wish>,
    pub failures: Vec<Failure>,
}

/// Name, class, and the share of the pool that is guaranteed, in percent.
const TENANTS: [(&str, Class, u64); 7] = [
    ("chat", Class::Standard, 40),
    ("language", Class::Standard, 25),
    ("vision", Class::Standard, 25),
    ("notebooks", Class::Standard, 5),
    ("workshop", Class::Sme, 0),
    ("health", Class::Sovereign, 0),
    ("defence", Class::Security, 0),
];

/// Those who draw on the reserve, and how much more than the first each asks for.
pub(super) const DRAWING: [(&str, Class, f64); 3] =
    [("workshop", Class::Sme, 1.0), ("health", Class::Sovereign, 2.0), ("defence", Class::Security, 1.0)];

/// The tenants of a pool with so many units.
pub(super) fn tenants(units: u64) -> impl Iterator<Item = (String, Tenant)> {
    TENANTS.iter().map(move |(name, class, percent)| {
        let tenant = Tenant { class: *class, guaranteed: units * percent / 100, ..Tenant::default() };
        ((*name).to_owned(), tenant)
    })
}

/// Everything that comes, from the setup's seed. `whole` is the shape of a whole GPU.
pub(super) fn draw(setup: &Setup, whole: usize) -> Load {
    let mut load = Load::default();
    let each = |number: u64| Random::new(setup.seed.wrapping_mul(1000).wrapping_add(number));
    serve(setup, &mut each(1), &mut load.jobs);
    train(setup, &mut each(2), &mut load.jobs);
    notebooks(setup, &mut each(3), &mut load.jobs);
    claims(setup, &mut each(4), &mut load.jobs);
    wishes(setup, whole, &mut each(5), &mut load.wishes);
    failures(setup, &mut each(6), &mut load.failures);
    load.jobs.sort_by_key(|job| job.queued_ms);
    load.wishes.sort_by_key(|wish| wish.at_ms);
    load
}

/// How much of the day's most is wanted at a time: a sine over the day, less at the weekend.
fn daily(at_ms: i64) -> f64 {
    #[allow(clippy::cast_precision_loss)] // milliseconds of a day
    let turn = at_ms.rem_euclid(DAY_MS) as f64 / DAY_MS as f64;
    let weekend = (at_ms.div_euclid(DAY_MS) + 4).rem_euclid(7) % 6 == 0; // 1970-01-01 was a Thursday
    let height = 0.6 - 0.4 * (std::f64::consts::TAU * (turn - 1.0 / 6.0)).cos();
    if weekend { height * 0.7 } else { height }
}

/// Replicas of services: as many as the day wants, the last one started stopped first.
fn serve(setup: &Setup, random: &mut Random, jobs: &mut Vec<Job>) {
    for (ask, most) in [(Ask::Half, f64::from(setup.gpus) * 0.6), (Ask::Seventh, f64::from(setup.gpus) * 0.7)]
    {
        let mut running: Vec<i64> = Vec::new();
        let mut replica = |started_ms: i64, until_ms: i64| {
            jobs.push(Job {
                tenant: "chat",
                ask,
                pods: 1,
                queued_ms: started_ms,
                ends: Ends::At(until_ms),
                checkpoint_ms: None,
                grace_ms: 30_000,
                lasting: false,
                declared_ms: None,
                order: None,
            });
        };
        let mut at_ms = setup.start_ms;
        while at_ms < setup.end_ms() {
            let noise = 1.0 + 0.1 * random.normal();
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a small number
            let wanted = (most * daily(at_ms) * noise).round().max(1.0) as usize;
            while running.len() > wanted {
                if let Some(started_ms) = running.pop() {
                    replica(started_ms, at_ms);
                }
            }
            running.resize(wanted, at_ms);
            at_ms += HOUR_MS / 2;
        }
        for started_ms in running {
            replica(started_ms, setup.end_ms());
        }
    }
}

/// Times that are `mean_ms` apart on average, until the end.
fn arrivals(setup: &Setup, random: &mut Random, mean_ms: f64) -> Vec<i64> {
    let mut times = Vec::new();
    let mut at_ms = setup.start_ms;
    loop {
        at_ms = at_ms.saturating_add(milliseconds(mean_ms * random.exponential()).max(1));
        if at_ms >= setup.end_ms() {
            return times;
        }
        times.push(at_ms);
    }
}

#[allow(clippy::cast_possible_truncation)] // less than a year
fn milliseconds(ms: f64) -> i64 {
    ms.round() as i64
}

#[allow(clippy::cast_precision_loss)]
const HOUR: f64 = HOUR_MS as f64;

fn train(setup: &Setup, random: &mut Random, jobs: &mut Vec<Job>) {
    // Hours of whole GPUs that a gang takes on average.
    let mean_hours = 3.0 * (1.1_f64 * 1.1 / 2.0).exp() * (0.5 + 0.6 + 0.8);
    let gpus = f64::from(setup.gpus) * f64::from(setup.training_percent) / 100.0;
    for queued_ms in arrivals(setup, random, mean_hours / gpus * HOUR) {
        let pods = [1, 2, 4][random.pick(&[0.5, 0.3, 0.2])];
        let hours = (3.0 * (1.1 * random.normal()).exp()).clamp(0.1, 72.0);
        jobs.push(Job {
            tenant: ["language", "vision"][random.below(2)],
            ask: Ask::Whole,
            pods,
            queued_ms,
            ends: Ends::Work(milliseconds(hours * HOUR)),
            checkpoint_ms: [Some(HOUR_MS / 2), Some(2 * HOUR_MS), None][random.pick(&[0.6, 0.3, 0.1])],
            // One in seven takes longer to leave than the reserve can wait.
            grace_ms: if random.unit() < 1.0 / 7.0 { 300_000 } else { 30_000 },
            lasting: false,
            // Most owners say how long it takes at most, and are careful.
            declared_ms: (random.unit() < 0.8)
                .then(|| milliseconds(hours * (1.0 + 2.0 * random.unit()) * HOUR)),
            order: None,
        });
    }
}

fn notebooks(setup: &Setup, random: &mut Random, jobs: &mut Vec<Job>) {
    for queued_ms in arrivals(setup, random, 60.0 / f64::from(setup.gpus) * HOUR) {
        let hours = (4.0 * random.exponential()).clamp(0.2, 12.0);
        jobs.push(Job {
            tenant: "notebooks",
            ask: Ask::Seventh,
            pods: 1,
            queued_ms,
            ends: Ends::Work(milliseconds(hours * HOUR)),
            checkpoint_ms: None,
            grace_ms: 0,
            lasting: true,
            declared_ms: None,
            order: None,
        });
    }
}

/// Work that can't wait, of those who draw on the reserve; in a crisis five times as much.
fn claims(setup: &Setup, random: &mut Random, jobs: &mut Vec<Job>) {
    let crisis = setup.crisis.as_ref();
    for (tenant, _, share) in DRAWING {
        for queued_ms in arrivals(setup, random, 350.0 / share / f64::from(setup.gpus) * HOUR) {
            let hard = crisis.is_some_and(|crisis| crisis.in_force(queued_ms));
            for _ in 0..if hard { 5 } else { 1 } {
                let hours = (2.5 * random.exponential()).clamp(0.2, 24.0);
                jobs.push(Job {
                    tenant,
                    ask: if random.unit() < 0.6 { Ask::Whole } else { Ask::Half },
                    pods: 1,
                    queued_ms: queued_ms + milliseconds(random.unit() * 5.0 * 60_000.0),
                    ends: Ends::Work(milliseconds(hours * HOUR)),
                    checkpoint_ms: Some(HOUR_MS),
                    grace_ms: 30_000,
                    lasting: false,
                    declared_ms: None,
                    order: None,
                });
            }
        }
    }
}

fn wishes(setup: &Setup, whole: usize, random: &mut Random, wishes: &mut Vec<Wish>) {
    for (tenant, rating, share) in DRAWING {
        for (number, at_ms) in arrivals(setup, random, 40.0 * 24.0 / share * HOUR).into_iter().enumerate() {
            let from_ms = at_ms + milliseconds((2.0 + 28.0 * random.unit()) * 24.0) * HOUR_MS;
            let until_ms = from_ms + milliseconds(12.0 + 60.0 * random.unit()) * HOUR_MS;
            let count = u32::try_from(1 + random.below(setup.gpus as usize / 4)).unwrap_or(1);
            wishes.push(Wish {
                at_ms,
                order: Order {
                    key: format!("{tenant}/order-{number}"),
                    tenant: tenant.to_owned(),
                    rating,
                    shapes: vec![ReservedShape { shape: whole, count }],
                    from_ms,
                    until_ms,
                },
            });
        }
    }
}

/// Each GPU breaks about once a year, and is back after a day on average.
fn failures(setup: &Setup, random: &mut Random, failures: &mut Vec<Failure>) {
    for gpu in 0..setup.gpus as usize {
        let mut back_ms = setup.start_ms;
        for at_ms in arrivals(setup, random, 365.0 * 24.0 * HOUR) {
            if at_ms > back_ms {
                back_ms = at_ms + milliseconds(24.0 * HOUR * random.exponential()) + 1;
                failures.push(Failure { gpu, at_ms, until_ms: back_ms });
            }
        }
    }
}
