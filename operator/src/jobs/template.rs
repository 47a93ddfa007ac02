//! The pod template of a job, completed: the claim, the gate, labels and the
//! rendezvous variables. The API server checks what is not checked here.

use serde_json::{Map, Value, json};
use vingt_crds::{PodTemplate, names};

/// What every pod of a job calls its claim.
pub const CLAIM: &str = "gpu";

/// What a template is completed with.
pub struct Completion<'a> {
    /// The label that names the job, with its value.
    pub label: (&'a str, &'a str),
    /// Environment variables for every container; one that a container sets itself is left alone.
    pub environment: Vec<Value>,
    /// Fields of the pod's spec; they replace what is there.
    pub fields: Map<String, Value>,
}

/// Name of the `ResourceClaimTemplate` of a job.
pub fn claim_template_name(job: &str) -> String {
    format!("{job}-gpu")
}

/// The completed template; the error says what in it cannot be.
pub fn complete(template: &PodTemplate, job: &str, completion: Completion<'_>) -> Result<Value, String> {
    template.parse().map_err(|error| format!("spec.template: {error}"))?;
    let mut template = template.0.clone();
    let spec =
        template.get_mut("spec").and_then(Value::as_object_mut).ok_or("spec.template.spec is missing")?;
    refuse(spec)?;
    claim(spec)?;
    for container in containers(spec) {
        let environment = list(container, "env");
        let Some(environment) = environment.as_array_mut() else { continue };
        let set: Vec<Value> =
            environment.iter().filter_map(|variable| variable.get("name").cloned()).collect();
        let new = completion.environment.iter().filter(|variable| !set.contains(&variable["name"]));
        let mut all: Vec<Value> = new.cloned().collect();
        all.append(environment);
        *environment = all;
    }
    let gate = json!({"name": names::GATE});
    let gates = list(spec, "schedulingGates");
    if let Some(gates) = gates.as_array_mut()
        && !gates.contains(&gate)
    {
        gates.push(gate);
    }
    spec.insert(
        "resourceClaims".into(),
        json!([{"name": CLAIM, "resourceClaimTemplateName": claim_template_name(job)}]),
    );
    // The class says both; the API server refuses a pod that says otherwise.
    spec.remove("priority");
    spec.remove("preemptionPolicy");
    spec.insert("priorityClassName".into(), json!(names::PRIORITY_CLASS));
    spec.extend(completion.fields);
    label(&mut template, completion.label);
    Ok(template)
}

/// The list of that name, made if it is not there or null.
fn list<'a>(object: &'a mut Map<String, Value>, name: &str) -> &'a mut Value {
    let list = object.entry(name).or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    list
}

/// What a template may not say, for vingt says it.
fn refuse(spec: &Map<String, Value>) -> Result<(), String> {
    if spec.get("resourceClaims").and_then(Value::as_array).is_some_and(|claims| !claims.is_empty()) {
        return Err(
            "spec.template.spec.resourceClaims must be empty: spec.gpu says what the pods get".to_owned()
        );
    }
    if spec.contains_key("nodeName") {
        return Err("spec.template.spec.nodeName must not be set: use nodeSelector or affinity".to_owned());
    }
    if let Some(scheduler) = spec.get("schedulerName").and_then(Value::as_str)
        && scheduler != "default-scheduler"
    {
        return Err(format!("spec.template.spec.schedulerName {scheduler} is not served: leave it out"));
    }
    Ok(())
}

/// Gives the claim to the first container, unless containers name it themselves.
fn claim(spec: &mut Map<String, Value>) -> Result<(), String> {
    for container in containers(spec) {
        let claims = container
            .get("resources")
            .and_then(|resources| resources.get("claims"))
            .and_then(Value::as_array);
        for claim in claims.into_iter().flatten() {
            let name = claim.get("name").and_then(Value::as_str).unwrap_or_default();
            if name != CLAIM {
                return Err(format!(
                    "spec.template: a container uses the claim {name}, and the only one there is is {CLAIM}"
                ));
            }
        }
    }
    let used = containers(spec).any(|container| {
        let claims = container
            .get("resources")
            .and_then(|resources| resources.get("claims"))
            .and_then(Value::as_array);
        claims.is_some_and(|claims| !claims.is_empty())
    });
    if used {
        return Ok(());
    }
    let first = spec.get_mut("containers").and_then(|all| all.get_mut(0)).and_then(Value::as_object_mut);
    let first = first.ok_or("spec.template.spec.containers must not be empty")?;
    let resources = first.entry("resources").or_insert_with(|| json!({}));
    if resources.is_null() {
        *resources = json!({});
    }
    resources["claims"] = json!([{"name": CLAIM}]);
    Ok(())
}

fn containers(spec: &mut Map<String, Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    let lists = spec.iter_mut().filter(|(key, _)| matches!(key.as_str(), "containers" | "initContainers"));
    lists.filter_map(|(_, list)| list.as_array_mut()).flatten().filter_map(Value::as_object_mut)
}

fn label(template: &mut Value, (key, value): (&str, &str)) {
    for field in ["metadata", "labels"] {
        let parent = if field == "metadata" { &mut *template } else { &mut template["metadata"] };
        if !parent.get(field).is_some_and(Value::is_object) {
            parent[field] = json!({});
        }
    }
    template["metadata"]["labels"][key] = json!(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(template: Value) -> Result<Value, String> {
        let completion = Completion {
            label: (names::TRAINING_JOB_LABEL, "t"),
            environment: vec![
                json!({"name": "RANK", "value": "0"}),
                json!({"name": "WORLD_SIZE", "value": "2"}),
            ],
            fields: [("subdomain".to_owned(), json!("t"))].into_iter().collect(),
        };
        complete(&PodTemplate(template), "t", completion)
    }

    #[test]
    fn a_template_is_completed_and_keeps_what_it_says() {
        let template = completed(json!({
            "metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "a", "env": [{"name": "RANK", "value": "7"}]}, {"name": "b"}], "nodeSelector": {"z": "1"}},
        }))
        .unwrap();
        assert_eq!(
            template,
            json!({
                "metadata": {"labels": {"app": "x", "vingt.dev/training-job": "t"}},
                "spec": {
                    "containers": [
                        {"name": "a", "resources": {"claims": [{"name": "gpu"}]},
                            "env": [{"name": "WORLD_SIZE", "value": "2"}, {"name": "RANK", "value": "7"}]},
                        {"name": "b", "env": [{"name": "RANK", "value": "0"}, {"name": "WORLD_SIZE", "value": "2"}]},
                    ],
                    "nodeSelector": {"z": "1"},
                    "schedulingGates": [{"name": "vingt.dev/admission"}],
                    "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "t-gpu"}],
                    "priorityClassName": "vingt",
                    "subdomain": "t",
                },
            })
        );
    }

    #[test]
    fn what_is_null_is_not_there_and_the_class_says_the_priority() {
        let container = json!({"name": "a", "env": null, "resources": null});
        let spec = json!({"containers": [container], "schedulingGates": null, "priority": 7, "preemptionPolicy": "Never"});
        let template = completed(json!({"metadata": null, "spec": spec})).unwrap();
        let spec = &template["spec"];
        assert_eq!(spec["containers"][0]["env"].as_array().map(Vec::len), Some(2));
        assert_eq!(spec["containers"][0]["resources"]["claims"], json!([{"name": "gpu"}]));
        assert_eq!(spec["schedulingGates"], json!([{"name": "vingt.dev/admission"}]));
        assert_eq!((spec.get("priority"), spec.get("preemptionPolicy")), (None, None));
    }

    #[test]
    fn a_container_that_names_the_claim_gets_it_instead_of_the_first() {
        let uses = json!({"claims": [{"name": "gpu"}]});
        let template =
            completed(json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "resources": uses}]}}))
                .unwrap();
        assert_eq!(template["spec"]["containers"][0]["resources"], Value::Null);
        assert_eq!(template["spec"]["containers"][1]["resources"], uses);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let container = |extra: Value| json!({"spec": {"containers": [{"name": "a", "resources": extra}]}});
        let spec = |field: &str, value: Value| json!({"spec": {"containers": [{"name": "a"}], field: value}});
        let cases = [
            (json!({"spec": {"containers": []}}), "containers must not be empty"),
            (json!({}), "spec is missing"),
            (container(json!({"claims": [{"name": "other"}]})), "the claim other"),
            (spec("nodeName", json!("n")), "nodeName"),
            (spec("resourceClaims", json!([{"name": "x"}])), "resourceClaims"),
            (spec("schedulerName", json!("mine")), "schedulerName"),
            (spec("hostNetwork", json!("yes")), "spec.template"),
        ];
        for (template, words) in cases {
            let error = completed(template.clone()).expect_err(&template.to_string());
            assert!(error.contains(words), "{template}: {error}");
        }
    }
}
