//! Child processes of the lab: each with a log file, its own process group and
//! a record on disk, so that whatever a crashed lab left behind can be found
//! and ended. Only processes whose recorded start time still matches are ever
//! signalled.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::process::{Child, Command};

use crate::wait::wait_for;

/// How many lines of its log a failed process is reported with.
const LOG_TAIL_LINES: usize = 20;

/// What is remembered of a process so that it can be found again.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq, Eq)]
pub struct Identity {
    /// Process id, which is also its process group's.
    pub pid: i32,
    /// Start time in clock ticks since boot: together with the pid it names
    /// one process for ever.
    pub start_ticks: u64,
}

impl Identity {
    /// Reads the identity of a running process from `/proc`.
    pub fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // The command name is in parentheses and may hold anything; the fields
        // after the last parenthesis start with the third. The 22nd is wanted.
        let (_, rest) = stat.rsplit_once(')').with_context(|| format!("{path} is malformed"))?;
        let mut fields = rest.split_whitespace();
        let zombie = fields.next().is_none_or(|state| state == "Z" || state == "X");
        anyhow::ensure!(!zombie, "process {pid} has ended");
        let start_ticks = fields
            .nth(18)
            .and_then(|field| field.parse().ok())
            .with_context(|| format!("{path} is malformed"))?;
        Ok(Self { pid, start_ticks })
    }

    /// Whether exactly this process still runs.
    pub fn is_alive(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }

    fn signal(&self, signal: Signal) {
        if !self.is_alive() {
            return;
        }
        if let Some(pid) = Pid::from_raw(self.pid) {
            // It may be gone already, which is what was wanted.
            if kill_process_group(pid, signal).is_err() {
                let _ = kill_process(pid, signal);
            }
        }
    }

    /// Ends the process: SIGTERM, then SIGKILL when `grace` has passed.
    pub async fn end(&self, grace: Duration) {
        self.signal(Signal::TERM);
        let gone = || async { Ok((!self.is_alive()).then_some(())) };
        if wait_for(grace, "a process to end", gone).await.is_err() {
            self.kill();
            let _ = wait_for(Duration::from_secs(5), "a killed process to end", gone).await;
        }
    }

    /// SIGKILL, at once.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }
}

/// How to start a process.
#[derive(Debug)]
pub struct Spec<'a> {
    /// Name in messages, of the log and of the record.
    pub name: &'a str,
    /// The program.
    pub program: &'a Path,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its whole environment: nothing is inherited but `PATH`.
    pub env: Vec<(String, String)>,
    /// Where the log goes; appended to.
    pub log: PathBuf,
    /// Folder of the records, see [`end_recorded`].
    pub records: &'a Path,
}

/// A running child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    identity: Identity,
    log: PathBuf,
    record: PathBuf,
}

impl Process {
    /// Starts a process and records it.
    pub fn start(spec: Spec<'_>) -> Result<Self> {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&spec.log)
            .with_context(|| format!("cannot open the log {}", spec.log.display()))?;
        let mut command = Command::new(spec.program);
        command
            .args(&spec.args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(spec.env)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .kill_on_drop(true);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {} ({})", spec.name, spec.program.display()))?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pid = pid.with_context(|| format!("{} ended as it started", spec.name))?;
        let identity =
            Identity::of(pid).with_context(|| format!("{} ended at once\n{}", spec.name, tail(&spec.log)))?;
        let record = spec.records.join(format!("{}.json", spec.name));
        fs::write(&record, serde_json::to_vec(&identity)?)
            .with_context(|| format!("cannot write {}", record.display()))?;
        Ok(Self { name: spec.name.to_owned(), child, identity, log: spec.log, record })
    }

    /// Which process it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The end of its log, for messages.
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// Fails, with the end of the log, if the process has ended.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            anyhow::bail!(
                "{} ended ({status}); the end of {}:\n{}",
                self.name,
                self.log.display(),
                self.log_tail()
            );
        }
        Ok(())
    }

    /// Waits for it to end and answers its exit code (`128 + n` for signal `n`).
    pub async fn wait(&mut self) -> Result<i32> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.wait().await?;
        let _ = fs::remove_file(&self.record);
        Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
    }

    /// SIGTERM, and SIGKILL when `grace` has passed.
    pub async fn stop(&mut self, grace: Duration) {
        self.identity.signal(Signal::TERM);
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            self.identity.kill();
            let _ = self.child.wait().await;
        }
        let _ = fs::remove_file(&self.record);
    }
}

/// Ends every process that has a record in `records`, newest record first.
pub async fn end_recorded(records: &Path, grace: Duration) {
    let mut found: Vec<(std::time::SystemTime, PathBuf)> = fs::read_dir(records)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
        .collect();
    found.sort();
    for (_, path) in found.into_iter().rev() {
        if let Some(identity) =
            fs::read(&path).ok().and_then(|json| serde_json::from_slice::<Identity>(&json).ok())
        {
            identity.end(grace).await;
        }
        let _ = fs::remove_file(path);
    }
}

/// The last lines of a text file.
pub fn tail(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_else(|error| format!("(no log: {error})"));
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
}
