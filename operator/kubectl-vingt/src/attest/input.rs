//! Usage reports, as the API server has them or as a file holds them. What
//! cannot be read is a fault of the report that it is in, with its field.

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use kube::Api;
use kube::api::{ApiResource, DynamicObject, ListParams};
use serde_json::Value;
use vingt_core::ledger::{Fault, Report};
use vingt_crds::UsageReport;

use crate::api::{Cluster, refused};
use crate::words::BadInput;

/// Reports asked for at a time.
const PAGE: u32 = 500;

/// What was read: the reports, and what is wrong with those that cannot be.
#[derive(Debug, Default)]
pub struct Reports {
    /// Those that can be read.
    pub reports: Vec<Report>,
    /// What is wrong.
    pub faults: Vec<Fault>,
}

impl Reports {
    /// Reads a report; `name` is what it is called where it is kept.
    fn add(&mut self, name: Option<&str>, place: usize, spec: Value) {
        let called = name.map_or_else(|| format!("report {place}"), ToOwned::to_owned);
        let mut fault = |field: &str, why: String| {
            self.faults.push(Fault { report: called.clone(), field: field.to_owned(), why });
        };
        match serde_path_to_error::deserialize::<_, Report>(spec) {
            Ok(report) => {
                if let Some(name) = name.filter(|name| **name != report.name()) {
                    fault(
                        "metadata.name",
                        format!("{name:?} is not {:?}, which follows from it", report.name()),
                    );
                }
                self.reports.push(report);
            }
            Err(error) => fault(&error.path().to_string(), error.inner().to_string()),
        }
    }

    /// An object of the API, or only its spec.
    fn add_value(&mut self, place: usize, value: Value) {
        match value {
            Value::Object(mut object) if object.contains_key("spec") => {
                let name = object.get("metadata").and_then(|metadata| metadata.get("name"));
                let name = name.and_then(Value::as_str).map(ToOwned::to_owned);
                let spec = object.remove("spec").unwrap_or_default();
                self.add(Some(name.as_deref().unwrap_or_default()), place, spec);
            }
            spec => self.add(None, place, spec),
        }
    }
}

/// Reads what `kubectl get usagereports -o json` printed, or a list of reports; `-` is the standard input.
pub fn read(path: &Path) -> Result<Reports, BadInput> {
    let named = |why: &dyn std::fmt::Display| BadInput(format!("{}: {why}", path.display()));
    let mut bytes = Vec::new();
    let result = if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut bytes).map(|_| ())
    } else {
        std::fs::read(path).map(|read| bytes = read)
    };
    result.map_err(|error| BadInput(format!("cannot read {}: {error}", path.display())))?;
    parse(&bytes).map_err(|why| named(&why))
}

fn parse(bytes: &[u8]) -> Result<Reports, String> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let items = match value {
        Value::Array(items) => items,
        Value::Object(mut object) => match object.remove("items") {
            Some(Value::Array(items)) => items,
            _ => return Err("it has no items: write it with kubectl get usagereports -o json".to_owned()),
        },
        _ => return Err("it is neither a list nor an object".to_owned()),
    };
    let mut reports = Reports::default();
    for (index, item) in items.into_iter().enumerate() {
        reports.add_value(index + 1, item);
    }
    Ok(reports)
}

/// Asks the API server. Their fields are read here, so that one that cannot be read is named.
pub async fn fetch(cluster: &Cluster) -> anyhow::Result<Reports> {
    let kind = ApiResource::erase::<UsageReport>(&());
    let api = Api::<DynamicObject>::all_with(cluster.client.clone(), &kind);
    let mut params = ListParams::default().limit(PAGE);
    let mut reports = Reports::default();
    loop {
        let page = api.list(&params).await.map_err(|error| match &error {
            kube::Error::Api(status) if status.code == 403 => {
                anyhow!("cannot list usagereports: {}; ask for the role vingt-auditor", status.message)
            }
            error => refused("list", "usagereports", error),
        })?;
        for object in page.items {
            let value = serde_json::to_value(&object).context("an object as JSON")?;
            reports.add_value(reports.reports.len() + reports.faults.len() + 1, value);
        }
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params = params.continue_token(&next),
            None => return Ok(reports),
        }
    }
}

#[cfg(test)]
mod tests {
    use vingt_core::ledger::Subject;

    use super::*;

    fn report() -> Report {
        Report::open(Subject::tenant("research"), "2026-11".parse().unwrap())
    }

    fn object(name: &str) -> Value {
        let spec = serde_json::to_value(report()).unwrap();
        serde_json::json!({"metadata": {"name": name, "uid": "x"}, "spec": spec, "kind": "UsageReport"})
    }

    #[test]
    fn objects_and_bare_reports_are_read() {
        for text in [
            serde_json::json!({"kind": "List", "items": [object("research-2026-11")]}).to_string(),
            serde_json::json!([report()]).to_string(),
        ] {
            let read = parse(text.as_bytes()).unwrap();
            assert_eq!((read.reports, read.faults), (vec![report()], vec![]));
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let mut wrong = object("research-2026-11");
        wrong["spec"]["subject"]["kind"] = "user".into();
        let other = object("research-2026-12");
        let text =
            serde_json::json!({"items": [wrong, other, {"metadata": {}, "spec": report()}]}).to_string();
        let faults: Vec<String> =
            parse(text.as_bytes()).unwrap().faults.iter().map(ToString::to_string).collect();
        let wanted = [
            "research-2026-11: subject.kind: unknown variant `user`, expected `tenant` or `reserve`",
            "research-2026-12: metadata.name: \"research-2026-12\" is not \"research-2026-11\", which follows from it",
            ": metadata.name: \"\" is not \"research-2026-11\", which follows from it",
        ];
        assert_eq!(faults, wanted);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        assert!(parse(b"{").unwrap_err().contains("EOF"));
        assert_eq!(parse(b"1").unwrap_err(), "it is neither a list nor an object");
        assert!(parse(b"{\"items\": 3}").unwrap_err().starts_with("it has no items"));
    }

    #[test]
    fn the_type_of_the_api_is_the_same_report() {
        let full = serde_json::to_value(super::super::tests::sealed()).unwrap();
        for value in full.as_array().unwrap() {
            let spec: vingt_crds::UsageReportSpec = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(&serde_json::to_value(&spec).unwrap(), value);
        }
    }
}
