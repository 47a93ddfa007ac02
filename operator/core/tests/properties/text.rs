//! Scenarios as text, one line for each part of them: what a failing case is
//! shown as, and what a regression test is written in. Words are left out where
//! they say the usual.

use std::fmt;
use std::str::SplitWhitespace;

use vingt_core::model::{Movable, PlacementPolicy};

use super::cards::CARDS;
use super::scenario::{ASKED, JobSpec, NodeSpec, Scenario, SettingsSpec, Step, TenantSpec};

const POLICIES: [(PlacementPolicy, &str); 6] = [
    (PlacementPolicy::Learned, "learned"),
    (PlacementPolicy::BestFit, "best-fit"),
    (PlacementPolicy::FirstFit, "first-fit"),
    (PlacementPolicy::Fragmentation, "fragmentation"),
    (PlacementPolicy::BlockedWindows, "blocked-windows"),
    (PlacementPolicy::Spread, "spread"),
];

fn name_of<T: PartialEq>(names: &[(T, &'static str)], value: &T) -> &'static str {
    names.iter().find(|(known, _)| known == value).unwrap().1
}

fn named<T: Clone>(names: &[(T, &str)], word: &str) -> Option<T> {
    names.iter().find(|(_, name)| *name == word).map(|(value, _)| value.clone())
}

impl fmt::Debug for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f)?;
        for node in &self.nodes {
            write!(f, "node")?;
            for card in &node.cards {
                write!(f, " {}", name_of(&CARDS, card))?;
            }
            writeln!(
                f,
                " cpus={} gib={} rack={}{}",
                node.cpus,
                node.gib,
                node.rack,
                flag(node.tainted, " tainted")
            )?;
        }
        for (at, tenant) in self.tenants.iter().enumerate() {
            write!(f, "tenant t{at} guaranteed={} weight={}", tenant.guaranteed, tenant.weight)?;
            option(f, "limit", tenant.limit)?;
            option(f, "under", tenant.under)?;
            writeln!(f)?;
        }
        writeln!(f, "{}", self.settings)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

fn flag(set: bool, word: &'static str) -> &'static str {
    if set { word } else { "" }
}

fn option<T: fmt::Display>(f: &mut fmt::Formatter<'_>, name: &str, value: Option<T>) -> fmt::Result {
    value.map_or(Ok(()), |value| write!(f, " {name}={value}"))
}

impl fmt::Display for SettingsSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "settings {} half-life={} aging={} reserve-after={} reservations={} moves={}{}{}{}",
            name_of(&POLICIES, &self.placement),
            self.half_life_s,
            self.aging_s,
            self.reserve_after_s,
            self.reservations,
            self.moves,
            flag(self.reclaim, " reclaim"),
            flag(self.preemption, " preemption"),
            flag(self.defragmentation, " defragmentation"),
        )
    }
}

impl fmt::Display for JobSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "t{} {} x", self.tenant, self.pods)?;
        for (at, (count, ask)) in self.asks.iter().enumerate() {
            write!(f, "{}{count}:{}", if at == 0 { " " } else { "," }, ASKED[usize::from(*ask)])?;
        }
        write!(f, " cpus={} gib={} runs={}", self.cpus, self.gib, self.runs_s)?;
        option(f, "spare", self.spare_s)?;
        let numbers = [("grace", self.grace_s), ("early", self.early_s), ("saves", self.saves_s)];
        for (name, value) in numbers.into_iter().filter(|(_, value)| *value != 0) {
            write!(f, " {name}={value}")?;
        }
        option(f, "priority", Some(self.priority).filter(|priority| *priority != 0))?;
        option(f, "only", self.only_node)?;
        let near = match self.near {
            None => "",
            Some(true) => " one-rack",
            Some(false) => " same-rack-if-it-can",
        };
        let movable = match self.movable {
            Movable::No => "",
            Movable::Restart => " restarts",
            Movable::Replace => " replaceable",
        };
        write!(
            f,
            "{}{near}{movable}{}",
            flag(self.evictable, " evictable"),
            flag(self.tolerates, " tolerates")
        )
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pass(seconds) => write!(f, "pass {seconds}"),
            Self::Submit(job) => write!(f, "submit {job}"),
            Self::End(job) => write!(f, "end {job}"),
            Self::Cancel(job) => write!(f, "cancel {job}"),
            Self::Withdraw(job) => write!(f, "withdraw {job}"),
            Self::Fail(node) => write!(f, "fail {node}"),
            Self::Cordon(node) => write!(f, "cordon {node}"),
            Self::Return(node) => write!(f, "return {node}"),
            Self::Block(gpu) => write!(f, "block {gpu}"),
            Self::Taint(gpu, device) => write!(f, "taint {gpu} {device}"),
            Self::Foreign(gpu, device) => write!(f, "foreign {gpu} {device}"),
            Self::Limit(tenant, Some(limit)) => write!(f, "limit {tenant} {limit}"),
            Self::Limit(tenant, None) => write!(f, "limit {tenant}"),
            Self::Guarantee(tenant, guaranteed) => write!(f, "guarantee {tenant} {guaranteed}"),
            Self::Restart => write!(f, "restart"),
        }
    }
}

/// The scenario that a text stands for; panics with the line that stands for none.
pub fn scenario(text: &str) -> Scenario {
    let mut scenario = Scenario {
        nodes: Vec::new(),
        tenants: Vec::new(),
        settings: settings(&mut Words::default()),
        steps: Vec::new(),
    };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = Words::of(line);
        match words.next() {
            "node" => scenario.nodes.push(node(&mut words)),
            "tenant" => scenario.tenants.push(tenant(&mut words)),
            "settings" => scenario.settings = settings(&mut words),
            verb => scenario.steps.push(step(verb, &mut words)),
        }
        assert!(words.rest.is_empty(), "{line}: what is {:?}?", words.rest);
    }
    scenario
}

/// The words of a line, taken out one by one.
#[derive(Default)]
struct Words<'a> {
    line: &'a str,
    rest: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        Self { line, rest: SplitWhitespace::collect(line.split_whitespace()) }
    }

    fn next(&mut self) -> &'a str {
        assert!(!self.rest.is_empty(), "{}: a word is missing", self.line);
        self.rest.remove(0)
    }

    fn number(&mut self) -> u8 {
        let word = self.next().trim_start_matches('t');
        word.parse().unwrap_or_else(|_| panic!("{}: {word} is no number", self.line))
    }

    fn take(&mut self, word: &str) -> bool {
        let at = self.rest.iter().position(|other| *other == word);
        at.map(|at| self.rest.remove(at)).is_some()
    }

    fn value<T: std::str::FromStr>(&mut self, name: &str) -> Option<T> {
        let named = |word: &&str| word.split_once('=').is_some_and(|(before, _)| before == name);
        let at = self.rest.iter().position(named)?;
        let (_, value) = self.rest.remove(at).split_once('=')?;
        Some(value.parse().unwrap_or_else(|_| panic!("{}: bad {name}", self.line)))
    }
}

fn node(words: &mut Words) -> NodeSpec {
    let (cpus, gib, rack) = (words.value("cpus"), words.value("gib"), words.value("rack"));
    let tainted = words.take("tainted");
    let cards = std::mem::take(&mut words.rest);
    NodeSpec {
        cards: cards.into_iter().map(|word| named(&CARDS, word).unwrap()).collect(),
        rack: rack.unwrap_or(0),
        cpus: cpus.unwrap_or(99),
        gib: gib.unwrap_or(99),
        tainted,
    }
}

fn tenant(words: &mut Words) -> TenantSpec {
    words.next();
    TenantSpec {
        under: words.value("under"),
        guaranteed: words.value("guaranteed").unwrap_or(0),
        limit: words.value("limit"),
        weight: words.value("weight").unwrap_or(1),
    }
}

fn settings(words: &mut Words) -> SettingsSpec {
    let policy = POLICIES.iter().find(|(_, name)| words.take(name));
    SettingsSpec {
        placement: policy.map_or(PlacementPolicy::BestFit, |(policy, _)| *policy),
        half_life_s: words.value("half-life").unwrap_or(60),
        aging_s: words.value("aging").unwrap_or(60),
        reserve_after_s: words.value("reserve-after").unwrap_or(5),
        reservations: words.value("reservations").unwrap_or(4),
        moves: words.value("moves").unwrap_or(0),
        reclaim: words.take("reclaim"),
        preemption: words.take("preemption"),
        defragmentation: words.take("defragmentation"),
    }
}

fn step(verb: &str, words: &mut Words) -> Step {
    match verb {
        "pass" => Step::Pass(words.number()),
        "submit" => Step::Submit(job(words)),
        "end" => Step::End(words.number()),
        "cancel" => Step::Cancel(words.number()),
        "withdraw" => Step::Withdraw(words.number()),
        "fail" => Step::Fail(words.number()),
        "cordon" => Step::Cordon(words.number()),
        "return" => Step::Return(words.number()),
        "block" => Step::Block(words.number()),
        "taint" => Step::Taint(words.number(), words.number()),
        "foreign" => Step::Foreign(words.number(), words.number()),
        "limit" => Step::Limit(words.number(), (!words.rest.is_empty()).then(|| words.number())),
        "guarantee" => Step::Guarantee(words.number(), words.number()),
        "restart" => Step::Restart,
        verb => panic!("{verb}: no such step"),
    }
}

fn job(words: &mut Words) -> JobSpec {
    let (tenant, pods, _) = (words.number(), words.number(), words.next());
    let ask = |word: &str| {
        let (count, kind) = word.split_once(':').unwrap();
        let kind = ASKED.iter().position(|known| *known == kind);
        (count.parse().unwrap(), u8::try_from(kind.unwrap()).unwrap())
    };
    let asks = words.next().split(',').map(ask).collect();
    let near = words.take("one-rack").then_some(true);
    let restarts = words.take("restarts").then_some(Movable::Restart);
    JobSpec {
        tenant,
        pods,
        asks,
        cpus: words.value("cpus").unwrap_or(0),
        gib: words.value("gib").unwrap_or(0),
        priority: words.value("priority").unwrap_or(0),
        runs_s: words.value("runs").unwrap_or(10),
        spare_s: words.value("spare"),
        grace_s: words.value("grace").unwrap_or(0),
        early_s: words.value("early").unwrap_or(0),
        saves_s: words.value("saves").unwrap_or(0),
        evictable: words.take("evictable"),
        movable: restarts.or(words.take("replaceable").then_some(Movable::Replace)).unwrap_or_default(),
        near: near.or(words.take("same-rack-if-it-can").then_some(false)),
        tolerates: words.take("tolerates"),
        only_node: words.value("only"),
    }
}
