//! Lists of jobs from text. What cannot be read is refused whole, with the line and the field.

use std::collections::BTreeSet;

use super::TraceJob;
use super::cells::line;
use crate::simulate::openb::{self, Mapping};

/// How a list is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A list of maps with the fields of [`TraceJob`].
    Yaml,
    /// A table with the fields of [`TraceJob`] in its first line; a cell that is empty is absent.
    Csv,
    /// A pod list of the openb trace, whose shares of GPUs stand for partitions of an H100.
    Openb(Mapping),
}

impl Format {
    /// What `text` looks like: a pod list if its first line has openb's columns, else a table if that line has commas
    /// and no colon, else YAML.
    pub fn of(text: &str, mapping: Mapping) -> Self {
        let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
        let columns: Vec<&str> = first.split(',').map(str::trim).collect();
        if ["num_gpu", "gpu_milli"].iter().all(|column| columns.contains(column)) {
            Self::Openb(mapping)
        } else if columns.len() > 1 && !first.contains(':') {
            Self::Csv
        } else {
            Self::Yaml
        }
    }
}

/// What is wrong with a list, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A field that is not what it should be.
    #[error("line {line}, field {field}: {problem}")]
    Field {
        /// Line of the text, from 1.
        line: usize,
        /// The field.
        field: String,
        /// What is wrong, and what to write.
        problem: String,
    },
    /// Something that is no job at all.
    #[error("line {line}: {problem}")]
    Line {
        /// Line of the text, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// There is no job in it.
    #[error("there is no job in it")]
    Empty,
    /// A pod list of openb.
    #[error(transparent)]
    Openb(#[from] openb::OpenbError),
}

/// The jobs in `text`, in its order; their names differ.
pub fn read(text: &str, format: Format) -> Result<Vec<TraceJob>, ReadError> {
    let jobs = match format {
        Format::Yaml => yaml(text)?,
        Format::Csv => csv(text)?,
        Format::Openb(mapping) => {
            openb::parse(text)?.iter().map(|task| (task.line, task.job(mapping))).collect()
        }
    };
    let mut names = BTreeSet::new();
    if let Some((line, job)) = jobs.iter().find(|(_, job)| !names.insert(&job.name)) {
        let problem = format!("{:?} is the name of two jobs: name each differently", job.name);
        return Err(field_or_line(*line, "name", problem));
    }
    if jobs.is_empty() {
        return Err(ReadError::Empty);
    }
    Ok(jobs.into_iter().map(|(_, job)| job).collect())
}

fn field_or_line(line: usize, field: &str, problem: String) -> ReadError {
    match field {
        "" | "." | "?" => ReadError::Line { line, problem },
        field => ReadError::Field { line, field: field.to_owned(), problem },
    }
}

/// The jobs, each with the line at which it begins.
fn yaml(text: &str) -> Result<Vec<(usize, TraceJob)>, ReadError> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return Ok(Vec::new());
    }
    let reader = serde_yaml::Deserializer::from_str(text);
    let jobs: Vec<TraceJob> = serde_path_to_error::deserialize(reader).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        let mut problem = inner.to_string();
        let mut line = 1;
        if let Some(at) = inner.location() {
            line = at.line();
            let place = format!(" at line {} column {}", at.line(), at.column());
            problem = problem.replace(&place, "");
        }
        // The path is told in words of our own.
        let place = |prefix: &str| prefix.contains('[') && !prefix.contains(' ');
        let problem = match problem.split_once(": ") {
            Some((prefix, rest)) if place(prefix) => rest.to_owned(),
            _ => problem,
        };
        let (_, field) = path.split_once('.').unwrap_or_default();
        let field = missing(&problem).unwrap_or(field).to_owned();
        field_or_line(line, &field, problem)
    })?;
    // Where a job begins is not told: it is looked for, by its name.
    let mut lines = text.lines().zip(1..);
    let begins = |job: TraceJob| {
        let here = |(line, _): &(&str, usize)| line.contains("name:") && line.contains(&job.name);
        (lines.find(here).map_or(1, |(_, at)| at), job)
    };
    Ok(jobs.into_iter().map(begins).collect())
}

fn csv(text: &str) -> Result<Vec<(usize, TraceJob)>, ReadError> {
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).comment(Some(b'#')).from_reader(text.as_bytes());
    let broken = |error: &csv::Error| {
        let line = error.position().map_or(1, |at| begins_at(text, at));
        let problem = match error.kind() {
            csv::ErrorKind::UnequalLengths { expected_len, len, .. } => {
                format!("{len} fields where the first line has {expected_len}")
            }
            _ => "it is no line of a table".to_owned(),
        };
        ReadError::Line { line, problem }
    };
    let names = reader.headers().map_err(|error| broken(&error))?.clone();
    let mut jobs = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| broken(&error))?;
        let at = record.position().map_or(1, |at| begins_at(text, at));
        let job: Result<TraceJob, _> = serde_path_to_error::deserialize(line(names.iter(), record.iter()));
        let job = job.map_err(|error| {
            let path = error.path().to_string();
            let problem = error.into_inner().to_string();
            field_or_line(at, missing(&problem).unwrap_or(&path), problem.clone())
        })?;
        jobs.push((at, job));
    }
    Ok(jobs)
}

/// The line at which what is read from a position on begins: lines that say nothing come before it.
fn begins_at(text: &str, at: &csv::Position) -> usize {
    let rest = usize::try_from(at.byte()).ok().and_then(|byte| text.get(byte..)).unwrap_or_default();
    let nothing = |line: &&str| line.trim().is_empty() || line.starts_with('#');
    usize::try_from(at.line()).unwrap_or(usize::MAX) + rest.lines().take_while(nothing).count()
}

/// The field that a job lacks, if that is the problem.
fn missing(problem: &str) -> Option<&str> {
    Some(problem.split_once("missing field `")?.1.split_once('`')?.0)
}
