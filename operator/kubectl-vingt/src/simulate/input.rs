//! What is to be played: a cluster and its jobs, from the flags and the files
//! they name. Whatever cannot be used is refused here, before anything is
//! played or written.

use std::path::{Path, PathBuf};

use vingt_core::Snapshot;
use vingt_core::model::{Movable, Tenant, UNITS_PER_GPU, Units};
use vingt_core::simulate::fleet::{Sort, fleet};
use vingt_core::simulate::jobs::{self, Format, TraceJob};
use vingt_core::simulate::openb::Mapping;
use vingt_core::simulate::replay::{Facts, Job, ReplayError, Scenario};

use crate::live::{self, Recorded};
use crate::whatif;
use crate::words::BadInput;

/// Points of a plot, about.
const POINTS: i64 = 600;

/// How long a replica takes to be ready, in milliseconds.
const READY_MS: i64 = 30_000;

/// How long a job of a live cluster takes to leave, where that is not known, in milliseconds.
const GRACE_MS: i64 = 30_000;

/// The cluster that is played with.
pub enum Source {
    /// Made up: nodes, GPUs for each, and their sort.
    Made(u32, u32, Sort),
    /// As it was.
    Recorded(Box<Recorded>),
}

/// What is asked about it.
pub struct Question {
    /// A list of jobs.
    pub trace: Option<PathBuf>,
    /// Which partition a share of openb stands for.
    pub mapping: Mapping,
    /// GPUs that are added.
    pub add_gpus: u32,
    /// What tenants are guaranteed.
    pub guarantees: Vec<(String, Units)>,
    /// How long a job runs of which that is not known, in milliseconds.
    pub runs_ms: i64,
}

/// Puts it together.
pub fn scenario(source: Source, question: &Question) -> Result<Scenario, BadInput> {
    let trace = question.trace.as_deref().map(|path| read_trace(path, question.mapping)).transpose()?;
    let mut scenario = match source {
        Source::Made(nodes, gpus, sort) => {
            Scenario { snapshot: fleet(nodes, gpus, sort), ..Scenario::default() }
        }
        Source::Recorded(recorded) => going_on(*recorded, question.runs_ms),
    };
    if question.add_gpus > 0 {
        whatif::add_gpus(&mut scenario.snapshot, question.add_gpus)
            .map_err(|why| BadInput(format!("--add-gpus: {why}")))?;
    }
    if let Some((path, text, jobs)) = trace {
        enter(&mut scenario, &path, &text, jobs)?;
    }
    for (name, units) in &question.guarantees {
        let known: Vec<&String> = scenario.snapshot.tenants.keys().collect();
        let wrong = || BadInput(format!("--guarantee: there is no tenant {name:?}; there are: {known:?}"));
        let wrong = wrong();
        scenario.snapshot.tenants.get_mut(name).ok_or(wrong)?.guaranteed = *units;
    }
    if scenario.jobs.is_empty() {
        return Err(BadInput("nothing waits in the snapshot: give jobs with --trace".to_owned()));
    }
    scenario.ready_ms = READY_MS;
    scenario.sample_ms = span_ms(&scenario) / POINTS;
    Ok(scenario)
}

/// Units of all GPUs that may be given out.
pub fn capacity(snapshot: &Snapshot) -> Units {
    snapshot.gpus.iter().filter(|gpu| !gpu.devices.is_empty()).count() as Units * UNITS_PER_GPU
}

type Trace = (PathBuf, String, Vec<TraceJob>);

fn read_trace(path: &Path, mapping: Mapping) -> Result<Trace, BadInput> {
    let text = live::file(path)?;
    let jobs = jobs::read(&text, Format::of(&text, mapping))
        .map_err(|error| BadInput(format!("{}: {error}", path.display())))?;
    Ok((path.to_owned(), text, jobs))
}

/// The jobs of a list are queued from the scenario's start on; tenants that are not there are without limits.
fn enter(scenario: &mut Scenario, path: &Path, text: &str, mut jobs: Vec<TraceJob>) -> Result<(), BadInput> {
    let first_ms = jobs.iter().map(|job| job.arrival_ms).min().unwrap_or(0);
    let taken: Vec<String> = scenario.jobs.iter().map(|job| job.workload.key.clone()).collect();
    for job in &mut jobs {
        job.arrival_ms = job.arrival_ms - first_ms + scenario.start_ms;
        if !scenario.snapshot.tenants.contains_key(&job.tenant) {
            scenario.snapshot.tenants.insert(job.tenant.clone(), Tenant::default());
        }
    }
    for job in jobs {
        let entered = job.job(&mut scenario.snapshot).map_err(|error| wrong_job(path, text, &error))?;
        if taken.contains(&entered.workload.key) {
            let line = line_of(text, &entered.workload.key);
            let why = "the snapshot has a job of this name: name it differently";
            return Err(BadInput(format!("{}: line {line}, field name: {why}", path.display())));
        }
        scenario.jobs.push(entered);
    }
    Ok(())
}

/// An error of a job, with its line.
fn wrong_job(path: &Path, text: &str, error: &ReplayError) -> BadInput {
    BadInput(match error {
        ReplayError::Job { key, field, problem } => {
            let (line, field) = (line_of(text, key), spelt(field));
            format!("{}: line {line}, field {field}: job {key:?}: {problem}", path.display())
        }
        error => format!("{}: {error}", path.display()),
    })
}

/// Why a scenario was not played, with the line if it is a job of the list at `trace`.
pub fn explain(error: &ReplayError, trace: Option<&Path>) -> anyhow::Error {
    match error {
        ReplayError::Job { key, .. } => {
            let text = trace.and_then(|path| Some((path, live::file(path).ok()?)));
            let found = text.filter(|(_, text)| text.contains(key.as_str()));
            found
                .map_or_else(|| BadInput(error.to_string()), |(path, text)| wrong_job(path, &text, error))
                .into()
        }
        ReplayError::Scenario { .. } => BadInput(error.to_string()).into(),
        // No fault of the input's.
        error => error.clone().into(),
    }
}

/// A field of a job as lists spell it.
fn spelt(field: &str) -> String {
    let mut parts = field.split('_');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let (head, rest) = part.split_at(part.len().min(1));
        text + &head.to_ascii_uppercase() + rest
    })
}

/// The line that names a job, from 1.
fn line_of(text: &str, name: &str) -> usize {
    let word = |part: char| !(part.is_alphanumeric() || "-_./".contains(part));
    text.lines().position(|line| line.split(word).any(|part| part == name)).map_or(1, |line| line + 1)
}

/// A recorded cluster from then on: what runs goes on, what waits is queued. How long either runs is
/// seldom known; then what runs goes on for as long as it has run so far, and what waits runs for `runs_ms`.
fn going_on(recorded: Recorded, runs_ms: i64) -> Scenario {
    let Recorded { now_ms, mut snapshot } = recorded;
    let running = snapshot.running.iter().map(|running| {
        let ran_ms = now_ms.saturating_sub(running.admitted_ms);
        let left_ms = running.ends_ms.map_or(ran_ms, |ends_ms| ends_ms.saturating_sub(now_ms));
        Facts {
            duration_ms: left_ms.max(1000),
            checkpoint_ms: running.saved_ms.map(|saved_ms| now_ms.saturating_sub(saved_ms).max(60_000)),
            grace_ms: running.grace_ms,
            leaves_after_ms: None,
            evictable: running.evictable,
            movable: running.movable,
        }
    });
    let running = running.collect();
    let jobs = std::mem::take(&mut snapshot.waiting).into_iter().map(|workload| Job {
        facts: Facts {
            duration_ms: workload.runs_ms.unwrap_or(runs_ms).max(1),
            checkpoint_ms: None,
            grace_ms: GRACE_MS,
            leaves_after_ms: None,
            evictable: true,
            movable: Movable::No,
        },
        workload,
    });
    Scenario { jobs: jobs.collect(), running, snapshot, start_ms: now_ms, ..Scenario::default() }
}

/// From the first arrival to the end of the last job, if none waited.
fn span_ms(scenario: &Scenario) -> i64 {
    let ends = scenario.jobs.iter().map(|job| job.workload.queued_ms.saturating_add(job.facts.duration_ms));
    ends.max().unwrap_or(0).saturating_sub(scenario.start_ms).max(POINTS)
}

#[cfg(test)]
mod tests;
