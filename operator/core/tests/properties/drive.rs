//! Plays a scenario: step by step and event by event, each followed by a plan
//! that is judged and carried out.

use vingt_core::model::{Plan, WaitReason};

use super::history::{History, order_does_not_matter};
use super::judge::{
    Broken, Rule, Verdict, admissions_hold, broken, everything_is_answered, evictions_hold, reservations_hold,
};
use super::ledger::Ledger;
use super::scenario::{Scenario, Step};
use super::tree::Tree;
use super::world::{State, World};

/// Plans at one moment after which it has to come to rest.
const AT_ONCE: u32 = 60;

pub struct Drive<'r> {
    pub world: World,
    history: History,
    /// Only these rules are judged.
    rules: &'r [Rule],
}

impl<'r> Drive<'r> {
    pub fn new(scenario: &Scenario, rules: &'r [Rule]) -> Self {
        Self { world: World::new(scenario), history: History::default(), rules }
    }

    /// All steps of a scenario.
    pub fn play(scenario: &Scenario, rules: &'r [Rule]) -> Result<Self, Broken> {
        let mut drive = Self::new(scenario, rules);
        for step in &scenario.steps {
            drive.step(step)?;
        }
        Ok(drive)
    }

    pub fn step(&mut self, step: &Step) -> Verdict {
        self.world.happen(step);
        match step {
            Step::Pass(seconds) => self.pass(i64::from(*seconds) * 1000),
            _ => self.settle().map(|_| ()),
        }
    }

    /// Lets time pass; whenever something happens by itself a plan is made.
    pub fn pass(&mut self, span_ms: i64) -> Verdict {
        let until_ms = self.world.now_ms + span_ms;
        while let Some(event_ms) = self.world.next_event_ms(until_ms) {
            self.world.pass_to(event_ms);
            self.settle()?;
        }
        self.world.pass_to(until_ms);
        self.settle().map(|_| ())
    }

    /// Plans until nothing more happens at this moment; the last plan.
    fn settle(&mut self) -> Result<Plan, Broken> {
        for _ in 0..AT_ONCE {
            let plan = self.cycle()?;
            let leaves_at_once = self.world.is_due();
            if leaves_at_once {
                self.world.pass_to(self.world.now_ms);
            } else if plan.admissions.is_empty() && plan.evictions.is_empty() && plan.replacements.is_empty()
            {
                return Ok(plan);
            }
        }
        if self.rules.contains(&Rule::Evictions) {
            return broken(Rule::Evictions, "it does not come to rest");
        }
        Ok(Plan::default())
    }

    fn cycle(&mut self) -> Result<Plan, Broken> {
        let (snapshot, waiting, running) = self.world.snapshot();
        let now_ms = self.world.now_ms;
        let plan = vingt_core::plan(&snapshot, now_ms);
        self.heed(everything_is_answered(&snapshot, &plan))?;
        self.heed(admissions_hold(&snapshot, &plan, now_ms))?;
        if self.rules.contains(&Rule::Reservations) {
            self.heed(reservations_hold(&snapshot, &plan, now_ms))?;
        }
        if self.rules.contains(&Rule::Evictions) {
            self.heed(evictions_hold(&snapshot, &plan, now_ms))?;
        }
        let verdict = self.history.look(&self.world, &snapshot, &plan);
        self.heed(verdict)?;
        if self.rules.contains(&Rule::Same) {
            self.heed(order_does_not_matter(&snapshot, &plan, now_ms))?;
        }
        self.world.carry_out(&plan, &waiting, &running);
        Ok(plan)
    }

    fn heed(&self, verdict: Verdict) -> Verdict {
        verdict.or_else(|broken| if self.rules.contains(&broken.rule) { Err(broken) } else { Ok(()) })
    }

    /// Why a job would wait, if a plan were made now.
    pub fn reason_of(&self, job: usize) -> Option<String> {
        let (snapshot, waiting, _) = self.world.snapshot();
        let plan = vingt_core::plan(&snapshot, self.world.now_ms);
        let wait = plan.waits.iter().find(|wait| waiting[wait.workload] == job)?;
        Some(wait.reason.to_string())
    }

    /// Everything is well and no more jobs come: all that fit start and end.
    pub fn run_dry(&mut self) -> Verdict {
        self.world.heal();
        let mut plan = self.settle()?;
        let until_ms = self.world.now_ms + self.time_to_run_dry_ms();
        while !self.is_dry(&plan) && self.world.now_ms < until_ms {
            let next_ms = self.world.now_ms + 5000;
            let event_ms = self.world.next_event_ms(next_ms).unwrap_or(next_ms);
            self.world.pass_to(event_ms);
            plan = self.settle()?;
        }
        let (snapshot, waiting, _) = self.world.snapshot();
        let emptied = Ledger::emptied(&snapshot);
        for (workload, job) in snapshot.waiting.iter().zip(waiting) {
            let one_rack = workload.topology.as_ref().is_some_and(|topology| topology.required);
            let shape = snapshot.shape_of(workload);
            let fits = emptied.fit(shape, workload.pods, one_rack) == workload.pods;
            if fits && self.is_within_limits(job) {
                let reason = plan.waits.iter().find(|wait| snapshot.waiting[wait.workload] == *workload);
                let reason = reason.map(|wait| wait.reason.to_string());
                return broken(Rule::Starts, format!("{} never starts: {reason:?}", workload.key));
            }
        }
        Ok(())
    }

    /// Nothing runs, and nothing that waits is said to start ever.
    fn is_dry(&self, plan: &Plan) -> bool {
        let never = |reason: &WaitReason| {
            matches!(
                reason,
                WaitReason::NeverFits { .. }
                    | WaitReason::AboveLimit { .. }
                    | WaitReason::NoSuchDevice { .. }
            )
        };
        self.world.running().is_empty() && plan.waits.iter().all(|wait| never(&wait.reason))
    }

    /// Each job after the other, with a reservation for each, and several times over for those evicted.
    fn time_to_run_dry_ms(&self) -> i64 {
        let settings = &self.world.scenario.settings;
        let seconds = |job: &super::world::Job| {
            let spec = &job.spec;
            let runs_s = i64::from(spec.runs_s) + i64::from(spec.spare_s.unwrap_or(0));
            runs_s + i64::from(spec.grace_s) + i64::from(settings.reserve_after_s) + 20
        };
        let live = self.world.jobs.iter().filter(|job| !matches!(job.state, State::Gone));
        60_000 + 3000 * live.map(seconds).sum::<i64>()
    }

    fn is_within_limits(&self, job: usize) -> bool {
        let (snapshot, ..) = self.world.snapshot();
        let mut tree = Tree::of(&snapshot);
        let spec = &self.world.jobs[job].spec;
        // Which of the devices that will do are left for it is not looked at here: the dearest, then.
        let most = |(count, ask): &(u8, u8)| {
            let asked = super::scenario::ASKED[usize::from(*ask)];
            let devices = snapshot.gpus.iter().flat_map(|gpu| &gpu.devices);
            let units =
                devices.filter(|device| super::show::will_do(device, asked)).map(|device| device.units);
            u64::from(*count) * units.max().unwrap_or(0)
        };
        let units = u64::from(spec.pods) * spec.asks.iter().map(most).sum::<u64>();
        let tenant = format!("t{}", self.world.tenant_of(job));
        let name = snapshot.tenants.get_key_value(&tenant).unwrap().0;
        tree.add(name, units);
        tree.beyond_limit(name).is_none()
    }
}
