//! The picture that the operator decides from: read from a file, or from the
//! operator through the API server.

use std::path::Path;
use std::time::Duration;

use anyhow::{anyhow, bail};
use http::Request;
use kube::Client;
use serde::{Deserialize, Serialize};
use vingt_core::Snapshot;
use vingt_crds::names;

use crate::api::refused;
use crate::words::BadInput;

/// How often the operator is asked; of its processes, which answer in turn, only the one that leads knows.
const TRIES: u32 = 20;

/// Time between two of them.
const PAUSE: Duration = Duration::from_millis(250);

/// A snapshot and its time, as the operator gives it out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// When it was taken, in milliseconds since 1970.
    pub now_ms: i64,
    /// What was decided from.
    pub snapshot: Snapshot,
}

/// Reads `path`. The error names the file, the line and the field.
pub fn read(path: &Path) -> Result<Recorded, BadInput> {
    parse(&file(path)?).map_err(|why| BadInput(format!("{}: {why}", path.display())))
}

/// The text of a file.
pub fn file(path: &Path) -> Result<String, BadInput> {
    std::fs::read_to_string(path)
        .map_err(|error| BadInput(format!("cannot read {}: {error}", path.display())))
}

/// Reads a snapshot; the error is a line, a field and what is wrong.
fn parse(text: &str) -> Result<Recorded, String> {
    let recorded: Recorded = serde_path_to_error::deserialize(&mut serde_json::Deserializer::from_str(text))
        .map_err(|error| {
            let (field, inner) = (error.path().to_string(), error.inner());
            let line = inner.line();
            let problem = inner.to_string();
            let problem = problem.split(" at line ").next().unwrap_or(&problem).to_owned();
            if field == "." || field == "?" {
                format!("line {line}: {problem}")
            } else {
                format!("line {line}, field {field}: {problem}")
            }
        })?;
    sound(&recorded.snapshot)?;
    Ok(recorded)
}

/// Refuses what refers to something that is not there.
fn sound(snapshot: &Snapshot) -> Result<(), String> {
    let Snapshot { nodes, gpus, device_sets, shapes, waiting, running, .. } = snapshot;
    for (index, gpu) in gpus.iter().enumerate() {
        let field = format!("field snapshot.gpus[{index}]");
        if gpu.node.0 as usize >= nodes.len() {
            return Err(format!("{field}.node: {} is not one of {} nodes", gpu.node.0, nodes.len()));
        }
        if gpu.used.len() != gpu.capacity.len() {
            return Err(format!(
                "{field}.used: must have as many counters as capacity, {}",
                gpu.capacity.len()
            ));
        }
        if gpu.devices.len() > 64 {
            return Err(format!("{field}.devices: more than 64"));
        }
        if let Some(at) = gpu.devices.iter().position(|device| device.consumes.len() != gpu.capacity.len()) {
            let all = gpu.capacity.len();
            return Err(format!(
                "{field}.devices[{at}].consumes: must have as many counters as capacity, {all}"
            ));
        }
    }
    if let Some(at) = device_sets.iter().position(|set| set.0.len() != gpus.len()) {
        return Err(format!(
            "field snapshot.device_sets[{at}]: must have one mask for each of {} GPUs",
            gpus.len()
        ));
    }
    for (index, shape) in shapes.iter().enumerate() {
        if let Some(at) = shape.requests.iter().position(|request| request.eligible >= device_sets.len()) {
            let field = format!("field snapshot.shapes[{index}].requests[{at}].eligible");
            return Err(format!("{field}: is not one of {} device sets", device_sets.len()));
        }
    }
    for (index, workload) in waiting.iter().enumerate() {
        if workload.shape >= shapes.len() {
            return Err(format!(
                "field snapshot.waiting[{index}].shape: is not one of {} shapes",
                shapes.len()
            ));
        }
    }
    for (index, running) in running.iter().enumerate() {
        let field = format!("field snapshot.running[{index}]");
        if running.shape >= shapes.len() {
            return Err(format!("{field}.shape: is not one of {} shapes", shapes.len()));
        }
        let there = |device: &vingt_core::model::DeviceIndex| {
            gpus.get(device.gpu.0 as usize).is_some_and(|gpu| usize::from(device.device) < gpu.devices.len())
        };
        for (at, pod) in running.pods.iter().enumerate() {
            if pod.node.0 as usize >= nodes.len() || !pod.devices.iter().flatten().all(there) {
                return Err(format!("{field}.pods[{at}]: is on a node or a device that is not there"));
            }
        }
    }
    Ok(())
}

/// Asks the operator in `namespace`, through the API server.
pub async fn fetch(client: &Client, namespace: &str) -> anyhow::Result<Recorded> {
    let name = names::OPERATOR;
    let path = format!("/api/v1/namespaces/{namespace}/services/{name}:http/proxy/snapshot");
    let what = "the operator's snapshot";
    for _ in 0..TRIES {
        let request = Request::get(&path).body(Vec::new())?;
        match client.request_text(request).await {
            Ok(text) => {
                return parse(&text)
                    .map_err(|why| anyhow!("{what} cannot be read ({why}): are both of the same version?"));
            }
            Err(kube::Error::Api(status)) if status.code == 503 => tokio::time::sleep(PAUSE).await,
            Err(kube::Error::Api(status)) if status.code == 404 => {
                bail!(
                    "there is no service {name} in namespace {namespace}, or it gives out no snapshots; \
                     where the operator is installed is said with --operator-namespace"
                )
            }
            Err(error) => return Err(refused("get", what, &error)),
        }
    }
    bail!(
        "no process of the operator in namespace {namespace} leads: it decides nothing now, so it has no snapshot"
    )
}

#[cfg(test)]
mod tests {
    use vingt_core::simulate::fleet::{Sort, fleet};

    use super::*;

    #[test]
    fn a_snapshot_is_read_as_it_was_given_out() {
        let recorded = Recorded { now_ms: 5, snapshot: fleet(2, 2, Sort::H100Either) };
        assert_eq!(parse(&serde_json::to_string(&recorded).unwrap()), Ok(recorded));
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_field() {
        let recorded = Recorded { now_ms: 5, snapshot: fleet(1, 1, Sort::H100) };
        let text = serde_json::to_string_pretty(&recorded).unwrap();
        let wrong = text.replacen("\"schedulable\": true", "\"schedulable\": 7", 1);
        let line = 1 + text.lines().position(|line| line.contains("schedulable")).unwrap();
        let expected = format!(
            "line {line}, field snapshot.nodes[0].schedulable: invalid type: integer `7`, expected a boolean"
        );
        assert_eq!(parse(&wrong).unwrap_err(), expected);
        assert_eq!(parse("").unwrap_err(), "line 1: EOF while parsing a value");
        assert_eq!(
            parse("{\"now\": 1}").unwrap_err(),
            "line 1, field now: unknown field `now`, expected `now_ms` or `snapshot`"
        );
        let wrong = text.replacen("\"node\": 0", "\"node\": 3", 1);
        assert_eq!(parse(&wrong).unwrap_err(), "field snapshot.gpus[0].node: 3 is not one of 1 nodes");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = read(Path::new("/nowhere/x.json")).unwrap_err().to_string();
        assert!(error.starts_with("cannot read /nowhere/x.json: "), "{error}");
    }
}
