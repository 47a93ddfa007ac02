//! One cycle: take the picture, have the core plan, start what follows.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;
use vingt_core::model::Plan;

use super::gangs::Tracked;
use super::{Engine, now_ms};
use crate::snapshot::members::Members;
use crate::snapshot::pods::{PodStage, pod_workload};
use crate::snapshot::{self, Known, Picture, Subject};
use crate::tenants::Tenancy;
use crate::world::Key;

impl Engine {
    /// Decides once and starts the writes that follow.
    pub(super) fn cycle(&mut self) {
        let now_ms = now_ms();
        let tenancy = Tenancy::of(&self.world, &self.namespace);
        let members = Members::of(&self.world);
        let avoid = self.avoid.iter().map(|(owner, avoided)| (owner.as_str(), &avoided.nodes)).collect();
        let now = Instant::now();
        let paused = self.failed.iter().filter(|(_, (_, until))| *until > now);
        let next = paused.clone().map(|(_, (_, until))| *until).min();
        let paused: BTreeSet<&str> = paused.map(|(object, _)| object.as_str()).collect();
        let known = Known { tenancy: &tenancy, members: &members, pending: &self.pending, paused, avoid };
        let mut picture = snapshot::take(&self.world, &mut self.layout, &known);
        if let Some(next) = next {
            self.look_again_at(next);
        }
        let mut gangs = self.track_gangs(&mut picture, &tenancy, &members, now_ms);
        self.enter_running(&mut picture, &tenancy, &members, now_ms);
        self.enter_lasting(&mut picture, &members);
        self.enter_reserves(&mut picture, &tenancy, now_ms);
        self.recall_places(&mut picture, &members);
        picture.snapshot.settings = self.settings.borrow().settings.clone();
        picture.snapshot.moves_left = self.moves.left();
        let half_life_ms = picture.snapshot.settings.half_life_ms;
        self.recall_past(&mut picture.snapshot.tenants, half_life_ms, now_ms);
        let plan = self.plan(&picture, now_ms);
        self.snapshots.offer(&picture.snapshot, now_ms);
        self.count(&picture, &plan);
        self.remember_places(&picture.snapshot, &plan);
        self.note_missing(&picture.snapshot, &plan, now_ms);
        self.remember_served(&picture.snapshot, &plan, now_ms);
        self.forecasts.look(&picture.snapshot, now_ms);
        self.waiting = plan.waits.len();
        let mut reasons = reasons(&picture, &plan);

        self.admit(&picture, &plan, &mut gangs, now_ms);
        self.evict(&picture, &plan, &members, &mut gangs, now_ms);
        self.begin_moves(&picture, &plan, &members, now_ms);
        let Picture { mut snapshot, stages, .. } = picture;
        self.layout.gpus = std::mem::take(&mut snapshot.gpus);
        for gang in gangs {
            let why = reasons.gangs.get(gang.key());
            self.follow_gang(gang, why, &tenancy, now_ms);
        }
        for (key, stage) in &stages {
            if let PodStage::Waits(why) = stage {
                reasons.pods.insert(key.clone(), why.clone());
            }
            self.follow_pod(key, stage, reasons.pods.get(key).map(String::as_str));
        }
        let now = Timestamp::from_millisecond(now_ms).unwrap_or_default();
        self.label_namespaces(&tenancy);
        self.keep_templates(&tenancy);
        self.sweep_claims();
        self.keep_ledger(&tenancy, now_ms);
        self.take_back_stuck_pods(&members, now_ms);
        self.replace_unserved_pods(&tenancy, &members, now_ms);
        self.follow_servers(&tenancy, &members, &reasons.pods, now);
        self.follow_moves(&members, now_ms);
        let waiting = waiting(&tenancy, &reasons);
        self.tell_tenants(&tenancy, &snapshot.tenants, &waiting, now);
    }

    /// Has the core plan, by what was learnt if that is known.
    fn plan(&mut self, picture: &Picture, now_ms: i64) -> Plan {
        let snapshot = &picture.snapshot;
        self.learner.look(snapshot, self.world.slices.changes(), now_ms);
        let known = self.learner.known();
        self.metrics.placement.reset();
        let policy = format!("{:?}", snapshot.settings.placement);
        self.metrics.placement.with_label_values(&[&policy]).set(1);
        self.metrics.fell_back.set(known.as_ref().map_or(0, |known| i64::from(known.fell_back)));
        self.metrics
            .learnt
            .set(known.as_ref().map_or(0, |known| i64::try_from(known.learnt).unwrap_or(i64::MAX)));
        match known {
            Some(known) => vingt_core::plan_with(snapshot, &known.scorer, now_ms),
            None => vingt_core::plan(snapshot, now_ms),
        }
    }

    fn count(&self, picture: &Picture, plan: &Plan) {
        self.metrics.waiting.reset();
        self.metrics.used_units.reset();
        for (name, tenant) in &picture.snapshot.tenants {
            let used = i64::try_from(tenant.used).unwrap_or(i64::MAX);
            self.metrics.used_units.with_label_values(&[name]).set(used);
            self.metrics.waiting.with_label_values(&[name]).set(0);
        }
        for wait in &plan.waits {
            let tenant = &picture.snapshot.waiting[wait.workload].tenant;
            self.metrics.waiting.with_label_values(&[tenant]).inc();
        }
    }

    fn admit(&mut self, picture: &Picture, plan: &Plan, gangs: &mut [Tracked], now_ms: i64) {
        self.moves.earn(plan.admissions.len(), picture.snapshot.settings.moves_per_thousand);
        for admission in &plan.admissions {
            let workload = &picture.snapshot.waiting[admission.workload];
            match &picture.subjects[admission.workload] {
                Subject::Pod(key, needs) => {
                    self.admit_pod(key, needs, admission, workload, &picture.snapshot, now_ms);
                }
                Subject::Gang(key) => {
                    if let Some(gang) = find(gangs, key) {
                        gang.admit(admission, workload, &picture.snapshot);
                    }
                }
            }
        }
    }
}

/// The gang of that key; they are in the order of their keys.
pub(super) fn find<'a>(gangs: &'a mut [Tracked], key: &Key) -> Option<&'a mut Tracked> {
    let at = gangs.binary_search_by(|gang| gang.key().cmp(key)).ok()?;
    gangs.get_mut(at)
}

/// Why what was planned waits, in words.
#[derive(Default)]
struct Reasons {
    pods: BTreeMap<Key, String>,
    gangs: BTreeMap<Key, String>,
}

/// How many jobs and pods of each tenant wait.
fn waiting(tenancy: &Tenancy, reasons: &Reasons) -> BTreeMap<String, u32> {
    let mut waiting: BTreeMap<String, u32> = BTreeMap::new();
    for key in reasons.pods.keys().chain(reasons.gangs.keys()) {
        if let Some(tenant) = tenancy.tenant(&key.namespace) {
            *waiting.entry(tenant.to_owned()).or_default() += 1;
        }
    }
    waiting
}

fn reasons(picture: &Picture, plan: &Plan) -> Reasons {
    let mut reasons = Reasons::default();
    for wait in &plan.waits {
        let text = wait.reason.to_string();
        match &picture.subjects[wait.workload] {
            Subject::Pod(key, _) => reasons.pods.insert(key.clone(), text),
            Subject::Gang(key) => reasons.gangs.insert(key.clone(), text),
        };
    }
    reasons
}

impl Engine {
    fn follow_pod(&mut self, key: &Key, stage: &PodStage, planned: Option<&str>) {
        match stage {
            PodStage::Free => self.free_pod(key),
            PodStage::Waits(why) => self.explain_pod(key, why),
            PodStage::Unmade(why) => self.explain_pod_later(key, why),
            PodStage::Plan(_) => {
                let refusal = self.refusals.get(&pod_workload(key)).map(|failure| failure.words().to_owned());
                if let Some(why) = planned.map(str::to_owned).or(refusal) {
                    self.explain_pod(key, &why);
                }
            }
            PodStage::Bind(binding) => {
                self.bind_pod(key, binding);
            }
            PodStage::RollBack(claims) => self.roll_back(key, claims),
        }
    }
}
