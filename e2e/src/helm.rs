//! Installs the chart with the real Helm, with values that fit the lab.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::process::Command;

use crate::build::workspace;
use crate::images::{REGISTRY, TAG};
use crate::layout::Layout;
use crate::real_node::gpus;

/// Namespace of the release.
pub const NAMESPACE: &str = "vingt-system";
/// Name of the release.
pub const RELEASE: &str = "vingt";

/// Helm, pointed at a lab.
#[derive(Debug, Clone)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
}

/// What the lab decides of the chart's values.
#[derive(Debug, Clone)]
pub struct Values {
    /// Whether agents may switch a GPU's MIG mode.
    pub allow_mig_mode_switch: bool,
    /// Replicas of the operator.
    pub operator_replicas: u32,
    /// Whether agents run in containers of the real node too.
    pub real_node: bool,
    /// Merged over everything else.
    pub extra: serde_json::Value,
}

impl Helm {
    /// `folder` holds the program.
    pub fn new(folder: &Path, layout: &Layout) -> Self {
        Self {
            program: folder.join("helm"),
            kubeconfig: layout.kubeconfig(),
            home: layout.root().join("helm"),
        }
    }

    /// Runs Helm; its output if it succeeds.
    pub async fn run(&self, args: &[&str]) -> Result<String> {
        let output = Command::new(&self.program)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HELM_CACHE_HOME", self.home.join("cache"))
            .env("HELM_CONFIG_HOME", self.home.join("config"))
            .env("HELM_DATA_HOME", self.home.join("data"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        ensure!(
            output.status.success(),
            "`helm {}` failed ({}): {}",
            args.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Installs or upgrades the chart and waits until everything is ready.
    pub async fn install(&self, layout: &Layout, values: &Values) -> Result<String> {
        let file = layout.root().join("values.yaml");
        fs::write(&file, serde_yaml::to_string(&chart_values(layout, values))?)?;
        let chart = workspace().join("charts/vingt");
        let (chart, file) = (chart.display().to_string(), file.display().to_string());
        self.run(&[
            "upgrade",
            "--install",
            RELEASE,
            &chart,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            "--values",
            &file,
            "--wait",
            "--timeout",
            "5m",
        ])
        .await
    }

    /// Uninstalls the chart and waits until everything is gone.
    pub async fn uninstall(&self) -> Result<String> {
        self.run(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait", "--timeout", "5m"]).await
    }
}

fn chart_values(layout: &Layout, values: &Values) -> serde_json::Value {
    // Host paths name the real node's folder. Virtual nodes map it to theirs.
    let node = layout.real_node();
    let path = |below: &str| node.join(below).display().to_string();
    let mut chart = json!({
        "image": {"registry": REGISTRY, "tag": TAG, "pullPolicy": "Never"},
        "operator": {
            "replicas": values.operator_replicas,
            "logFormat": "text",
            "logLevel": "info,vingt_operator=debug",
            // Played nodes run it as a process; the real node is for agents
            // and workloads.
            "nodeSelector": {"node.kubernetes.io/instance-type": "vingt-lab-virtual"},
        },
        "agent": {
            "allowMigModeSwitch": values.allow_mig_mode_switch,
            "kubeletDir": path("kubelet"),
            "cdiDir": path("cdi"),
            "stateDir": path("state"),
            "driverRoot": path("gpu"),
            "nvmlLibrary": path("gpu/libnvidia-ml.so.1"),
            "procRoot": path("gpu/proc"),
            "logFormat": "text",
            "logLevel": "info,vingt_agent=debug",
            "extraEnv": [{"name": "VINGT_EMULATOR_ROOT", "value": path("gpu")}],
            "extraVolumes": [{"name": "gpu", "hostPath": {"path": path("gpu")}}],
            "extraVolumeMounts": [{"name": "gpu", "mountPath": path("gpu")}],
        },
    });
    if values.real_node {
        merge(&mut chart, &gpus::chart_values(layout));
    }
    merge(&mut chart, &values.extra);
    chart
}

/// Merges `over` into `base`, objects key by key, everything else whole.
fn merge(base: &mut serde_json::Value, over: &serde_json::Value) {
    match (base, over) {
        (serde_json::Value::Object(base), serde_json::Value::Object(over)) => {
            for (key, value) in over {
                merge(base.entry(key.clone()).or_insert(serde_json::Value::Null), value);
            }
        }
        (_, serde_json::Value::Null) => {}
        (base, over) => *base = over.clone(),
    }
}
