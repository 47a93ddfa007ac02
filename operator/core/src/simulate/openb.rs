//! The openb trace (Alibaba cluster-trace-gpu-v2023) and others in its
//! columns, as jobs for partitions. It has shares of GPUs that cannot be
//! partitioned; which partition a share stands for is an assumption, so there
//! are two.

use super::jobs::TraceJob;

/// A task of the trace that asks for a GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// Line of the list, from 1.
    pub line: usize,
    /// Its name; empty if the list has no such column.
    pub name: String,
    /// When it was created, in seconds.
    pub created_s: f64,
    /// Thousandths of a CPU; 0 if the list has no such column.
    pub cpu_milli: f64,
    /// Memory in MiB; 0 if the list has no such column.
    pub memory_mib: f64,
    /// How many GPUs.
    pub gpus: u32,
    /// The share of one GPU that it asks for, if of one; else 1.
    pub share: f64,
    /// How long it ran, in seconds; at least 1.
    pub life_s: f64,
}

/// What is wrong with a trace, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenbError {
    /// The first line names no such column.
    #[error("line 1: no column {column:?}: it must be one of openb's pod lists")]
    NoColumn {
        /// The column.
        column: &'static str,
    },
    /// A field that is not what it should be.
    #[error("line {line}, field {column:?}: {value:?} is not a {wanted}")]
    BadField {
        /// Line of the file, from 1.
        line: usize,
        /// The column.
        column: &'static str,
        /// What is there.
        value: String,
        /// What should be.
        wanted: &'static str,
    },
    /// Nothing in it asks for a GPU.
    #[error("no task asks for a GPU")]
    NoTasks,
}

/// How a share becomes a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    /// The smallest partition that has the share of both compute and memory.
    Ceil,
    /// The partition whose share of compute is nearest.
    Nearest,
}

/// The tasks of the pod list `text` that ask for GPUs.
pub fn parse(text: &str) -> Result<Vec<Task>, OpenbError> {
    let mut lines = text.lines().enumerate();
    let header: Vec<&str> = lines.next().map_or("", |(_, line)| line).split(',').map(str::trim).collect();
    let column = |column: &'static str| {
        header.iter().position(|name| *name == column).ok_or(OpenbError::NoColumn { column })
    };
    let (gpus, milli_at) = (column("num_gpu")?, column("gpu_milli")?);
    let (created, deleted) = (column("creation_time")?, column("deletion_time")?);
    let optional = |column: &str| header.iter().position(|name| *name == column).unwrap_or(usize::MAX);
    let (name, cpu, memory) = (optional("name"), optional("cpu_milli"), optional("memory_mib"));
    let mut tasks = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let number = |at: usize, column: &'static str, empty: Option<f64>| {
            let value = fields.get(at).copied().unwrap_or_default();
            let parsed = if value.is_empty() { empty } else { value.parse::<f64>().ok() };
            parsed.filter(|number| number.is_finite() && *number >= 0.0).ok_or_else(|| OpenbError::BadField {
                line: index + 1,
                column,
                value: value.to_owned(),
                wanted: "number",
            })
        };
        let count = number(gpus, "num_gpu", Some(0.0))?;
        let milli = number(milli_at, "gpu_milli", Some(0.0))?;
        let begin = number(created, "creation_time", Some(0.0))?;
        let end = number(deleted, "deletion_time", Some(begin))?;
        let (cpu_milli, memory_mib) =
            (number(cpu, "cpu_milli", Some(0.0))?, number(memory, "memory_mib", Some(0.0))?);
        if count < 1.0 {
            continue;
        }
        let share = if count > 1.0 { 1.0 } else { milli / 1000.0 };
        if count > 1024.0 || !(share > 0.0 && share <= 1.0) {
            let (column, at) = if count > 1024.0 { ("num_gpu", gpus) } else { ("gpu_milli", milli_at) };
            let value = fields.get(at).copied().unwrap_or_default().to_owned();
            return Err(OpenbError::BadField { line: index + 1, column, value, wanted: "share of GPUs" });
        }
        tasks.push(Task {
            line: index + 1,
            name: fields.get(name).copied().unwrap_or_default().to_owned(),
            created_s: begin,
            cpu_milli,
            memory_mib,
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and 1024
            gpus: count as u32,
            share,
            life_s: (end - begin).max(1.0),
        });
    }
    if tasks.is_empty() { Err(OpenbError::NoTasks) } else { Ok(tasks) }
}

/// The partitions of an H100 that a share may stand for, smallest first, as compute slices of 7 and memory slices
/// of 8; the last is the whole.
const H100: [(&str, (f64, f64)); 6] = [
    ("1g.10gb", (1.0, 1.0)),
    ("1g.20gb", (1.0, 2.0)),
    ("2g.20gb", (2.0, 2.0)),
    ("3g.40gb", (3.0, 4.0)),
    ("4g.40gb", (4.0, 4.0)),
    ("gpu", (7.0, 8.0)),
];

impl Task {
    /// It as a job of tenant `default` for an H100 or a partition of one.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // not negative; too much is cut off
    pub fn job(&self, mapping: Mapping) -> TraceJob {
        let profile = H100[mapping.partition(self.share, &H100.map(|(_, sizes)| sizes))].0;
        let name = if self.name.is_empty() { format!("line-{}", self.line) } else { self.name.clone() };
        let ms = |seconds: f64| (seconds * 1000.0) as i64;
        TraceJob {
            count: self.gpus,
            cpu_milli: self.cpu_milli as u64,
            memory_bytes: (self.memory_mib * f64::from(1 << 20)) as u64,
            ..TraceJob::new(&name, ms(self.created_s), ms(self.life_s), profile)
        }
    }
}

impl Mapping {
    /// The partition that `share` of a GPU stands for, among those given as their compute slices of 7 and memory
    /// slices of 8, smallest first.
    pub fn partition(self, share: f64, partitions: &[(f64, f64)]) -> usize {
        let last = partitions.len().saturating_sub(1);
        match self {
            Self::Ceil => {
                let holds =
                    |&(compute, memory): &(f64, f64)| share <= (compute / 7.0).min(memory / 8.0) + 1e-9;
                partitions.iter().position(holds).unwrap_or(last)
            }
            Self::Nearest => {
                let distance = |index: usize| (partitions[index].0 / 7.0 - share).abs();
                (0..partitions.len()).min_by(|&a, &b| distance(a).total_cmp(&distance(b))).unwrap_or(last)
            }
        }
    }
}
