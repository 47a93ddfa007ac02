//! A wide gang against a stream of small jobs that never ends: it starts all the
//! same.

use std::fmt;

use proptest::prelude::*;
use vingt_core::model::Movable;

use super::cards::Card;
use super::drive::Drive;
use super::judge::{Rule, Verdict, broken};
use super::ledger::Ledger;
use super::scenario::{JobSpec, NodeSpec, Scenario, SettingsSpec, Step, TenantSpec};
use super::{strategies, text};

/// So many wait at most: more than ever find room.
const CROWD: usize = 12;

/// What comes before the gang, the gang, and what comes again and again.
#[derive(Clone)]
pub struct Stream {
    pub before: Scenario,
    pub gang: JobSpec,
    pub small: Vec<JobSpec>,
    pub every_s: u8,
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}submit {}", self.before, self.gang)?;
        writeln!(f, "and then for ever:")?;
        self.small.iter().try_for_each(|job| writeln!(f, "submit {job}"))?;
        writeln!(f, "pass {}", self.every_s)
    }
}

fn node() -> impl Strategy<Value = NodeSpec> {
    let card = prop_oneof![Just(Card::Whole), Just(Card::H100), Just(Card::Either)];
    let cards = prop::collection::vec(card, 1..=2);
    cards.prop_map(|cards| NodeSpec { cards, rack: 0, cpus: 99, gib: 99, tainted: false })
}

/// One GPU or less, for a short time.
fn small() -> impl Strategy<Value = JobSpec> {
    let ask = prop_oneof![Just(2_u8), Just(0_u8), Just(1_u8), Just(6_u8)];
    (strategies::job(), ask, 1..5_u8).prop_map(|(job, ask, runs_s)| {
        // What can be replaced and does not say when it ends counts as never ending.
        let serves = job.movable == Movable::Replace;
        let spare_s = job.spare_s.or(serves.then_some(0));
        JobSpec { pods: 1, asks: vec![(1, ask)], runs_s, spare_s, near: None, only_node: None, ..job }
    })
}

fn tenant() -> impl Strategy<Value = TenantSpec> {
    (0..22_u8, 0..3_u8).prop_map(|(guaranteed, weight)| TenantSpec {
        under: None,
        guaranteed,
        limit: None,
        weight,
    })
}

fn settings() -> impl Strategy<Value = SettingsSpec> {
    let on = any::<bool>;
    let numbers = (0..20_u8, 0..3_u8, 0..6_u8, 1..3_u8, 0..2_u8);
    (numbers, on(), on(), on()).prop_map(|(numbers, reclaim, preemption, defragmentation)| {
        let (half_life_s, aging_s, reserve_after_s, reservations, moves) = numbers;
        let placement = vingt_core::model::PlacementPolicy::BestFit;
        SettingsSpec {
            placement,
            half_life_s,
            aging_s,
            reserve_after_s,
            reservations,
            reclaim,
            preemption,
            defragmentation,
            moves,
        }
    })
}

pub fn stream() -> impl Strategy<Value = Stream> {
    (
        (prop::collection::vec(node(), 1..=3), prop::collection::vec(tenant(), 1..=3), settings()),
        (strategies::job(), prop_oneof![Just(2_u8), Just(1_u8), Just(6_u8)], 1..7_u8),
        (prop::collection::vec(small(), 1..=4), 1..3_u8),
    )
        .prop_map(|((nodes, tenants, settings), (gang, ask, pods), (small, every_s))| {
            let steps = small.iter().chain(&small).map(|job| Step::Submit(job.clone())).collect();
            let before = Scenario { nodes, tenants, settings, steps };
            let asks = vec![(1, ask)];
            let gang = JobSpec { pods, asks, near: None, only_node: None, movable: Movable::No, ..gang };
            Stream { before, gang, small, every_s }
        })
}

/// The stream that a text stands for.
pub fn read(text: &str) -> Stream {
    let (before, after) = text.split_once("and then for ever:").unwrap();
    let mut before = text::scenario(before);
    let Some(Step::Submit(gang)) = before.steps.pop() else { panic!("no gang: {text}") };
    let mut rest = text::scenario(after).steps;
    let Some(Step::Pass(every_s)) = rest.pop() else { panic!("no time passes: {text}") };
    let small = rest.into_iter().filter_map(|step| match step {
        Step::Submit(job) => Some(job),
        _ => None,
    });
    Stream { before, gang, small: small.collect(), every_s }
}

impl Stream {
    /// Plays it until the gang has started, or should have.
    pub fn lets_the_gang_start(&self) -> Verdict {
        let mut drive = Drive::play(&self.before, &[Rule::Starts])?;
        let gang = drive.world.jobs.len();
        drive.step(&Step::Submit(self.gang.clone()))?;
        let (snapshot, waiting, _) = drive.world.snapshot();
        let Some(at) = waiting.iter().position(|job| *job == gang) else { return Ok(()) };
        let workload = &snapshot.waiting[at];
        let emptied = Ledger::emptied(&snapshot);
        if emptied.fit(snapshot.shape_of(workload), workload.pods, false) < workload.pods {
            return Ok(());
        }
        let until_ms = drive.world.now_ms + self.patience_s() * 1000;
        let mut reason = None;
        while drive.world.now_ms < until_ms {
            for job in &self.small {
                if drive.world.waiting().len() < CROWD {
                    drive.step(&Step::Submit(job.clone()))?;
                }
            }
            drive.step(&Step::Pass(self.every_s))?;
            // Others may have it leave again, by right.
            if drive.world.jobs[gang].starts > 0 {
                return Ok(());
            }
            reason = drive.reason_of(gang);
        }
        broken(Rule::Starts, format!("the gang still waits after {} s: {reason:?}", self.patience_s()))
    }

    /// Until it is first in line whatever the others' priorities and shares, until it gets a place kept, and until
    /// that is free: the bound of docs/scheduling.md, with those of its own tenant that were there before it.
    fn patience_s(&self) -> i64 {
        let settings = &self.before.settings;
        let runs_s = |job: &JobSpec| i64::from(job.runs_s) + i64::from(job.spare_s.unwrap_or(0));
        let longest_s = self.small.iter().map(runs_s).max().unwrap_or(0);
        let tenants = self.before.tenants.len().max(1);
        let of = |job: &JobSpec| usize::from(job.tenant) % tenants;
        let own = |step: &&Step| matches!(step, Step::Submit(job) if of(job) == of(&self.gang));
        let ahead = i64::try_from(self.before.steps.iter().filter(own).count()).unwrap_or(i64::MAX);
        let aging_s = (24 * (ahead + 1) + 8) * i64::from(settings.aging_s);
        let crowd = i64::try_from(CROWD).unwrap_or(i64::MAX);
        30 + aging_s + 2 * i64::from(settings.reserve_after_s) + 2 * (crowd + 1) * longest_s
    }
}
