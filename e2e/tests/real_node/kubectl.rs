//! kubectl, as a user runs it.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// kubectl with the administrator's rights.
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Kubectl {
    pub fn new(program: PathBuf, kubeconfig: PathBuf) -> Self {
        Self { program, kubeconfig }
    }

    /// Runs it; its output if it succeeds.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        self.run_with(args, "").await
    }

    /// Runs it, parses its output as JSON.
    pub async fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.run(args).await?;
        serde_json::from_str(&text).with_context(|| format!("`kubectl {}` answered {text}", args.join(" ")))
    }

    /// Applies objects.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        self.run_with(&["apply", "--filename=-"], &object.to_string()).await.map(drop)
    }

    async fn run_with(&self, args: &[&str], input: &str) -> Result<String> {
        let mut child = Command::new(&self.program)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl has no input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        let errors = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "`kubectl {}` failed: {}", args.join(" "), errors.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
