//! What only shows over time: promises are kept, evictions don't go round in
//! circles, and the same is decided again.

use std::collections::{BTreeMap, BTreeSet};

use vingt_core::model::{Plan, Snapshot};

use super::judge::{Broken, Rule, Verdict, broken};
use super::world::World;

/// What is remembered of the plans so far.
#[derive(Debug, Default)]
pub struct History {
    /// By job: until when its place was said to be free.
    promises: BTreeMap<String, i64>,
    /// Since the last fact: who was evicted for whom.
    evicted_by: BTreeSet<(String, String)>,
    facts: u32,
    upsets: u32,
}

impl History {
    /// Looks at a plan before it is carried out.
    pub fn look(&mut self, world: &World, snapshot: &Snapshot, plan: &Plan) -> Verdict {
        if world.facts != self.facts {
            self.facts = world.facts;
            self.evicted_by.clear();
        }
        if world.upsets != self.upsets {
            self.upsets = world.upsets;
            self.promises.clear();
        }
        self.promises_are_kept(snapshot, plan, world.now_ms)?;
        self.no_circles(snapshot, plan)
    }

    fn promises_are_kept(&mut self, snapshot: &Snapshot, plan: &Plan, now_ms: i64) -> Verdict {
        let waits = plan.waits.iter().map(|wait| (snapshot.waiting[wait.workload].key.clone(), &wait.reason));
        let waits: BTreeMap<String, _> = waits.collect();
        self.promises.retain(|key, _| waits.contains_key(key));
        for (key, promised_ms) in &self.promises {
            if *promised_ms <= now_ms {
                let late_ms = now_ms - promised_ms;
                let what = format!("{key} was to start {late_ms} ms ago, and waits: {}", waits[key]);
                return broken(Rule::Reservations, what);
            }
        }
        for reservation in &plan.reservations {
            let key = snapshot.waiting[reservation.workload].key.clone();
            let Some(free_ms) = reservation.free_ms else { continue };
            let promised_ms = self.promises.entry(key.clone()).or_insert(free_ms);
            if free_ms > *promised_ms {
                let what = format!("{key} was to start at {promised_ms}, and now at {free_ms}");
                return broken(Rule::Reservations, what);
            }
            *promised_ms = free_ms;
        }
        Ok(())
    }

    fn no_circles(&mut self, snapshot: &Snapshot, plan: &Plan) -> Verdict {
        let evictions = plan.evictions.iter().map(|eviction| (eviction.running, eviction.by));
        let replacements = plan.replacements.iter().map(|replacement| (replacement.running, replacement.by));
        let pairs = evictions.chain(replacements).collect::<BTreeSet<_>>();
        for (victim, by) in pairs {
            let victim = snapshot.running[victim].key.clone();
            let by = snapshot.waiting[by].key.clone();
            if self.leads_to(&victim, &by) || !self.evicted_by.insert((by.clone(), victim.clone())) {
                let what = format!("{victim} leaves for {by} again: {:?}", self.evicted_by);
                return broken(Rule::Evictions, what);
            }
        }
        Ok(())
    }

    /// Whether `from` had `to` evicted, or somebody who had.
    fn leads_to(&self, from: &str, to: &str) -> bool {
        from == to || self.evicted_by.iter().any(|(by, victim)| by == from && self.leads_to(victim, to))
    }
}

/// A plan with keys in the place of indices.
#[derive(Debug, PartialEq)]
struct Decisions {
    admissions: Vec<String>,
    rest: BTreeSet<String>,
}

fn decisions(snapshot: &Snapshot, plan: &Plan) -> Decisions {
    let waits = |index: usize| &snapshot.waiting[index].key;
    let runs = |index: usize| &snapshot.running[index].key;
    let mut rest: BTreeSet<String> = plan
        .evictions
        .iter()
        .map(|e| format!("{} leaves for {}: {:?} {}", runs(e.running), waits(e.by), e.reason, e.lost))
        .collect();
    rest.extend(
        plan.replacements
            .iter()
            .map(|r| format!("{} {} goes to {:?} for {}", runs(r.running), r.pod, r.to, waits(r.by))),
    );
    rest.extend(
        plan.reservations
            .iter()
            .map(|r| format!("kept for {}: {:?} {:?}", waits(r.workload), r.pods, r.free_ms)),
    );
    rest.extend(plan.waits.iter().map(|wait| format!("{} waits: {:?}", waits(wait.workload), wait.reason)));
    let admissions = plan.admissions.iter();
    let admissions = admissions.map(|a| format!("{}: {:?} {}", waits(a.workload), a.pods, a.units)).collect();
    Decisions { admissions, rest }
}

/// The same is decided again, and however the waiting and the running are listed.
pub fn order_does_not_matter(snapshot: &Snapshot, plan: &Plan, now_ms: i64) -> Verdict {
    if *plan != vingt_core::plan(snapshot, now_ms) {
        return broken(Rule::Same, "the same snapshot gives two plans");
    }
    let mut other = snapshot.clone();
    other.waiting.reverse();
    other.running.reverse();
    let turned = other.waiting.len() / 3;
    other.waiting.rotate_left(turned);
    let (one, two) = (decisions(snapshot, plan), decisions(&other, &vingt_core::plan(&other, now_ms)));
    if one == two {
        return Ok(());
    }
    let differ = one.rest.symmetric_difference(&two.rest).collect::<Vec<_>>();
    let what = format!("listed otherwise: {:?} and {:?}: {differ:#?}", one.admissions, two.admissions);
    Err(Broken { rule: Rule::Same, what })
}
