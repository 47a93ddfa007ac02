//! The openb trace (Alibaba cluster-trace-gpu-v2023) and others in its
//! columns, as jobs for partitions. It has shares of GPUs that cannot be
//! partitioned; which partition a share stands for is an assumption, so there
//! are two.

/// A task of the trace that asks for a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Task {
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
        if count < 1.0 {
            continue;
        }
        let share = if count > 1.0 { 1.0 } else { milli / 1000.0 };
        if count > 1024.0 || !(share > 0.0 && share <= 1.0) {
            let (column, at) = if count > 1024.0 { ("num_gpu", gpus) } else { ("gpu_milli", milli_at) };
            let value = fields.get(at).copied().unwrap_or_default().to_owned();
            return Err(OpenbError::BadField { line: index + 1, column, value, wanted: "share of GPUs" });
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 1 and 1024
        tasks.push(Task { gpus: count as u32, share, life_s: (end - begin).max(1.0) });
    }
    if tasks.is_empty() { Err(OpenbError::NoTasks) } else { Ok(tasks) }
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
