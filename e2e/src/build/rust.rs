//! vingt's own parts, built by cargo from the same source tree and into the
//! same target folder as this program.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use super::{Progress, has_extension, workspace};

/// Paths of what was built.
#[derive(Debug, Clone)]
pub struct Artifacts {
    /// The operator.
    pub operator: PathBuf,
    /// The agent.
    pub agent: PathBuf,
    /// The plugin of kubectl.
    pub plugin: PathBuf,
    /// The emulated NVML, a shared library.
    pub emulator: PathBuf,
}

/// The cargo that runs this program.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What cargo tells the program it runs, this one, is not for the cargo
    // that this one runs: some crates are built again whenever it changes.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_"].iter().any(|start| text.starts_with(start)) {
            command.env_remove(&name);
        }
    }
    command
}

/// Builds everything of ours that the lab runs.
pub async fn build() -> Result<Artifacts> {
    let mut progress = Progress::start("building vingt", 0);
    let mut child = cargo()
        .current_dir(workspace())
        .args(["build", "--message-format=json-render-diagnostics"])
        // With this package, so that features are those of `cargo lab`.
        .args(["-p", "vingt-operator", "-p", "vingt-agent", "-p", "nvml-emulator", "-p", "vingt-e2e"])
        .args(["-p", "kubectl-vingt"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot run cargo")?;
    let stderr = child.stderr.take().context("no error stream")?;
    let errors = tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        let mut text = String::new();
        while let Ok(Some(line)) = lines.next_line().await {
            text.push_str(&line);
            text.push('\n');
        }
        text
    });
    let mut messages = BufReader::new(child.stdout.take().context("no output stream")?).lines();
    let mut found: Vec<(String, PathBuf)> = Vec::new();
    while let Some(line) = messages.next_line().await? {
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        if message["reason"] != "compiler-artifact" {
            continue;
        }
        let name = message["target"]["name"].as_str().unwrap_or_default();
        progress.advance(name);
        let shared = message["filenames"].as_array().into_iter().flatten();
        let shared = shared.filter_map(Value::as_str).filter(|file| has_extension(file, "so"));
        for file in message["executable"].as_str().into_iter().chain(shared) {
            found.push((name.to_owned(), PathBuf::from(file)));
        }
    }
    let status = child.wait().await?;
    let errors = errors.await.unwrap_or_default();
    ensure!(status.success(), "`cargo build` failed ({status}):\n{errors}");
    progress.finish();
    let artifact = |name: &str| {
        let found = found.iter().rev().find(|(target, _)| target == name);
        found.map(|(_, path)| path.clone()).with_context(|| format!("cargo built no {name}"))
    };
    Ok(Artifacts {
        operator: artifact("vingt-operator")?,
        agent: artifact("vingt-agent")?,
        plugin: artifact("kubectl-vingt")?,
        emulator: artifact("nvml_emulator")?,
    })
}
