//! What the admission policies and roles let through and refuse, from
//! `charts/vingt/tests/policies.yaml`; its head says how it is to be read.
//! The operator is held down meanwhile: so nothing here leans on it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use k8s_openapi::api::core::v1::Namespace;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use libtest_mimic::Trial;
use serde::Deserialize;
use serde_json::{Value, json};
use vingt_e2e::build::workspace;
use vingt_e2e::{Lab, wait_for};

use crate::audit::Auditor;
use crate::chart;
use crate::http::{Answer, Call, Paths, User};
use crate::suite::Suite;

pub fn trials(suite: &Suite) -> Vec<Trial> {
    vec![
        suite.alone(
            "policies: each request is answered as the data say, without the operator",
            |lab, auditor| Box::pin(policies(lab, auditor)),
        ),
    ]
}

async fn policies(lab: &mut Lab, auditor: &Auditor) -> Result<()> {
    let operator = lab.operator();
    operator.hold();
    // The data hold claims with records that are no records.
    auditor.pause(true);
    let result = with_hook(&lab.admin()).await;
    auditor.pause(false);
    operator.release();
    result
}

/// Tries all of them while the uninstall hook's account and roles are there, as
/// they are for the time of an uninstall.
async fn with_hook(client: &Client) -> Result<()> {
    let cases = Cases::read().await?;
    let mut paths = Paths::default();
    let admin = User::default();
    let mut made = Vec::new();
    for object in chart::rendered(&json!({})).await? {
        let metadata = &object["metadata"];
        if metadata["name"] != "vingt-cleanup" || object["kind"] == "Job" {
            continue;
        }
        let path = paths.of(client, &object, false).await?;
        let call = Call { method: Method::POST, path, content: "application/json", body: object.clone() };
        let answer = call.send(client, &admin).await?;
        ensure!(answer.code < 300, "the hook's {}: {}", object["kind"], answer.message());
        made.push(object);
    }
    ensure!(made.len() >= 3, "the chart renders no account and roles for its hook: {made:?}");
    let result = cases.run(client).await;
    for object in made {
        let path = paths.of(client, &object, true).await?;
        let call = Call { method: Method::DELETE, path, content: "application/json", body: Value::Null };
        call.send(client, &admin).await?;
    }
    result
}

/// The data.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Cases {
    users: BTreeMap<String, User>,
    setup: Vec<Step>,
    #[serde(rename = "cases")]
    tried: Vec<Case>,
    teardown: Vec<Step>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    #[serde(rename = "as")]
    user: String,
    verb: Verb,
    object: Value,
    #[serde(default)]
    target: Value,
    #[serde(default)]
    patch: Value,
    #[serde(default)]
    subresource: Option<String>,
    #[serde(default)]
    fields: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Verb {
    Create,
    Patch,
    Apply,
    Delete,
    DeleteCollection,
}

#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    #[serde(flatten)]
    step: Step,
    expect: Expect,
    #[serde(default)]
    message: String,
    #[serde(default)]
    result: Value,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Allow,
    Warn,
    Deny,
}

impl Cases {
    async fn read() -> Result<Self> {
        let file = workspace().join("charts/vingt/tests/policies.yaml");
        let text = tokio::fs::read_to_string(&file).await?;
        let read: Self =
            serde_yaml::from_str(&text).with_context(|| format!("{} does not parse", file.display()))?;
        ensure!(!read.tried.is_empty(), "{} has no cases", file.display());
        Ok(read)
    }

    /// Sets up, sends all of them, and takes everything away again.
    async fn run(&self, client: &Client) -> Result<()> {
        let mut paths = Paths::default();
        let result = self.try_all(client, &mut paths).await;
        for step in &self.teardown {
            let answer = self.send(client, &mut paths, step, false).await?;
            let done = answer.code < 300 || answer.code == 404;
            ensure!(done, "teardown of {}: {}", step.object["metadata"], answer.message());
        }
        let namespaces: Api<Namespace> = Api::all(client.clone());
        wait_for(Duration::from_secs(60), "the namespaces of the data to be gone", || async {
            let all = namespaces.list(&ListParams::default()).await?.items;
            let left = all.iter().any(|namespace| namespace.name_any().starts_with("policies-"));
            Ok((!left).then_some(()))
        })
        .await?;
        result
    }

    async fn try_all(&self, client: &Client, paths: &mut Paths) -> Result<()> {
        for step in &self.setup {
            let answer = self.send(client, paths, step, false).await?;
            let there = step.verb == Verb::Create && answer.code == 409;
            ensure!(answer.code < 300 || there, "setup of {}: {}", step.object["metadata"], answer.message());
        }
        let mut wrong = Vec::new();
        for case in &self.tried {
            let answer = self.send(client, paths, &case.step, true).await;
            if let Err(error) = answer.and_then(|answer| case.judge(&answer)) {
                wrong.push(format!("{} (as {}): {error:#}", case.name, case.step.user));
            }
        }
        eprintln!("policies: {} requests tried", self.tried.len());
        ensure!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), self.tried.len(), wrong.join("\n"));
        Ok(())
    }

    async fn send(&self, client: &Client, paths: &mut Paths, step: &Step, dry: bool) -> Result<Answer> {
        let user = self.users.get(&step.user).with_context(|| format!("no user {}", step.user))?;
        let on_one = match step.verb {
            Verb::Create => step.subresource.is_some(),
            Verb::DeleteCollection => false,
            _ => true,
        };
        let place = if step.target.is_null() { &step.object } else { &step.target };
        let mut path = paths.of(client, place, on_one).await?;
        if let Some(subresource) = &step.subresource {
            path = format!("{path}/{subresource}");
        }
        let mut query: Vec<String> = Vec::new();
        if dry {
            query.push("dryRun=All".to_owned());
        }
        if let Some(fields) = &step.fields {
            query.push(format!("fieldSelector={}", fields.replace('=', "%3D")));
        }
        let (method, content, body) = match step.verb {
            Verb::Create => (Method::POST, "application/json", step.object.clone()),
            Verb::Patch => (Method::PATCH, "application/merge-patch+json", step.patch.clone()),
            Verb::Apply => {
                query.extend(["force=true".to_owned(), "fieldManager=policies".to_owned()]);
                (Method::PATCH, "application/apply-patch+yaml", step.object.clone())
            }
            Verb::Delete | Verb::DeleteCollection => (Method::DELETE, "application/json", Value::Null),
        };
        let path = format!("{path}?{}", query.join("&"));
        Call { method, path, content, body }.send(client, user).await
    }
}

impl Case {
    fn judge(&self, answer: &Answer) -> Result<()> {
        let Answer { code, body, warnings } = answer;
        match self.expect {
            Expect::Deny => {
                let refused = (400..500).contains(code) && answer.message().contains(&self.message);
                ensure!(refused, "not refused as expected, but {code}: {}", said(body));
            }
            Expect::Allow | Expect::Warn if *code >= 300 => bail!("refused, {code}: {}", said(body)),
            Expect::Allow => {
                ensure!(warnings.is_empty(), "a warning: {warnings:?}");
                compare(body, &self.result)?;
            }
            Expect::Warn => {
                let warned = warnings.iter().any(|warning| warning.contains(&self.message));
                ensure!(warned, "not warned as expected: {warnings:?}");
            }
        }
        Ok(())
    }
}

fn said(body: &Value) -> String {
    body["message"].as_str().map_or_else(|| body.to_string(), str::to_owned)
}

/// Maps are compared key by key, everything else whole.
fn compare(whole: &Value, part: &Value) -> Result<()> {
    match (whole, part) {
        (_, Value::Null) => Ok(()),
        (Value::Object(whole), Value::Object(part)) => part.iter().try_for_each(|(key, part)| {
            compare(whole.get(key).unwrap_or(&Value::Null), part).with_context(|| key.clone())
        }),
        (whole, part) => {
            ensure!(whole == part, "{whole} instead of {part}");
            Ok(())
        }
    }
}
