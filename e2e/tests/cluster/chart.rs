//! What the chart renders, from `charts/vingt/tests/templates.yaml`.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Trial;
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;
use vingt_e2e::build::go::{Component, ensure_built};
use vingt_e2e::build::workspace;

use crate::suite::Suite;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![suite.plain("chart: the templates render what they should", || Box::pin(templates()))]
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Case {
    name: String,
    values: Value,
    #[serde(default)]
    kube_version: Option<String>,
    #[serde(default)]
    refused: Option<String>,
    #[serde(default)]
    has: Vec<Expected>,
    #[serde(default)]
    lacks: Vec<Expected>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    kind: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    part: Value,
}

impl Expected {
    fn names(&self, object: &Value) -> bool {
        let name = self.name.as_deref().map(Value::from);
        object["kind"] == *self.kind && name.is_none_or(|name| object["metadata"]["name"] == name)
    }
}

async fn templates() -> Result<()> {
    let helm = ensure_built(Component::Helm).await?.join("helm");
    let folder = tempfile::tempdir()?;
    let file = workspace().join("charts/vingt/tests/templates.yaml");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let cases: Cases = serde_yaml::from_str(&text)?;
    ensure!(!cases.cases.is_empty(), "{} has no cases", file.display());
    let mut wrong = Vec::new();
    for case in &cases.cases {
        if let Err(error) = case.run(&helm, folder.path()).await {
            wrong.push(format!("{}: {error:#}", case.name));
        }
    }
    eprintln!("chart: {} cases of what the templates render", cases.cases.len());
    ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.cases.len(), wrong.join("\n"));
    Ok(())
}

impl Case {
    async fn run(&self, helm: &Path, folder: &Path) -> Result<()> {
        let rendered = render(helm, folder, &self.values, self.kube_version.as_deref()).await?;
        let objects = match (rendered, &self.refused) {
            (Ok(objects), None) => objects,
            (Ok(_), Some(_)) => bail!("was not refused"),
            (Err(said), Some(expected)) => {
                ensure!(said.contains(expected), "was refused with other words: {said}");
                return Ok(());
            }
            (Err(said), None) => bail!("was refused: {said}"),
        };
        for expected in &self.has {
            let found = objects.iter().filter(|object| expected.names(object));
            let parts: Vec<Result<(), String>> =
                found.map(|object| contains(object, &expected.part)).collect();
            ensure!(!parts.is_empty(), "there is no {} {:?}", expected.kind, expected.name);
            if !parts.iter().any(Result::is_ok) {
                let why: Vec<String> = parts.into_iter().filter_map(Result::err).collect();
                bail!("{} {:?}: {}", expected.kind, expected.name, why.join("; "));
            }
        }
        for unwanted in &self.lacks {
            let found = objects.iter().find(|object| unwanted.names(object));
            ensure!(found.is_none(), "there is a {} {:?}", unwanted.kind, unwanted.name);
        }
        Ok(())
    }
}

/// The objects, or what Helm said instead.
async fn render(
    helm: &Path,
    folder: &Path,
    values: &Value,
    kube_version: Option<&str>,
) -> Result<Result<Vec<Value>, String>> {
    let file: PathBuf = folder.join("values.yaml");
    std::fs::write(&file, serde_json::to_vec(values)?)?;
    let output = Command::new(helm)
        .args(["template", "vingt"])
        .arg(workspace().join("charts/vingt"))
        .args(["-n", "vingt-system", "--kube-version", kube_version.unwrap_or("1.37.0"), "--values"])
        .arg(&file)
        .envs(["CACHE", "CONFIG", "DATA"].map(|home| (format!("HELM_{home}_HOME"), folder)))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    if !output.status.success() {
        return Ok(Err(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let text = String::from_utf8(output.stdout)?;
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&text) {
        let object = Value::deserialize(document)?;
        if !object.is_null() {
            objects.push(object);
        }
    }
    Ok(Ok(objects))
}

/// Whether `part` is in `whole`: of maps each key, of lists each item, at any
/// place.
fn contains(whole: &Value, part: &Value) -> Result<(), String> {
    match (whole, part) {
        (_, Value::Null) => Ok(()),
        (Value::Object(whole), Value::Object(part)) => part.iter().try_for_each(|(key, part)| {
            let found = whole.get(key).ok_or_else(|| format!("no {key}"))?;
            contains(found, part).map_err(|why| format!("{key}: {why}"))
        }),
        (Value::Array(whole), Value::Array(part)) => part.iter().try_for_each(|part| {
            let found = whole.iter().any(|item| contains(item, part).is_ok());
            if found { Ok(()) } else { Err(format!("no item {part}")) }
        }),
        (whole, part) if whole == part => Ok(()),
        (whole, part) => Err(format!("{whole} instead of {part}")),
    }
}
