use std::io::Write as _;

use vingt_core::model::{Running, Workload};

use super::*;

fn question(trace: Option<&Path>) -> Question {
    Question {
        trace: trace.map(Path::to_owned),
        mapping: Mapping::Nearest,
        add_gpus: 0,
        guarantees: Vec::new(),
        runs_ms: 3_600_000,
    }
}

fn made() -> Source {
    Source::Made(1, 8, Sort::H100Either)
}

fn trace(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// What is said of a list, without the name of its file.
fn refusal(text: &str) -> String {
    let file = trace(text);
    let error = scenario(made(), &question(Some(file.path()))).err().unwrap().to_string();
    error.strip_prefix(&format!("{}: ", file.path().display())).unwrap().to_owned()
}

const JOBS: &str = "\
- {name: a, arrivalMs: 5000, durationMs: 1000, profile: gpu, count: 8}
- {name: b, tenant: red, arrivalMs: 6000, durationMs: 1000, profile: 3g.40gb}
";

#[test]
fn jobs_come_from_the_start_on_and_bring_their_tenants() {
    let file = trace(JOBS);
    let scenario = scenario(made(), &question(Some(file.path()))).unwrap();
    let queued: Vec<i64> = scenario.jobs.iter().map(|job| job.workload.queued_ms).collect();
    assert_eq!((scenario.start_ms, queued), (0, vec![0, 1000]));
    let tenants: Vec<&String> = scenario.snapshot.tenants.keys().collect();
    assert_eq!(tenants, ["default", "red"]);
}

#[test]
fn what_is_wrong_with_a_list_is_told_with_file_line_and_field() {
    let wrong = JOBS.replace("durationMs: 1000, profile: 3g", "durationMs: soon, profile: 3g");
    let said = refusal(&wrong);
    assert!(said.starts_with("line 2, field durationMs: "), "{said}");
    let said = refusal(&JOBS.replace("3g.40gb", "5g.50gb"));
    assert!(
        said.starts_with("line 2, field profile: job \"b\": no GPU has a device \"5g.50gb\"; there are: "),
        "{said}"
    );
    let csv = "name,arrivalMs,durationMs,profile\na,0,1,gpu\nb,0,x,gpu\n";
    let said = refusal(csv);
    assert!(said.starts_with("line 3, field durationMs: "), "{said}");
    assert_eq!(refusal("\n"), "there is no job in it");
}

#[test]
fn guarantees_are_for_tenants_that_are_there() {
    let file = trace(JOBS);
    let asked =
        |tenant: &str| Question { guarantees: vec![(tenant.into(), 112)], ..question(Some(file.path())) };
    let scenario_of = |tenant: &str| scenario(made(), &asked(tenant));
    assert_eq!(scenario_of("red").unwrap().snapshot.tenants["red"].guaranteed, 112);
    let error = scenario_of("blue").err().unwrap().to_string();
    assert_eq!(error, "--guarantee: there is no tenant \"blue\"; there are: [\"default\", \"red\"]");
}

#[test]
fn a_recorded_cluster_goes_on() {
    let mut snapshot = fleet(1, 1, Sort::H100);
    vingt_core::simulate::fleet::shape(&mut snapshot, 1, "gpu", &vingt_core::model::Resources::default());
    let running = |admitted_ms, ends_ms| Running {
        key: format!("r{admitted_ms}"),
        tenant: "default".into(),
        admitted_ms,
        ends_ms,
        ..Running::default()
    };
    snapshot.running = vec![running(4000, None), running(0, Some(10_500))];
    let waits = |key: &str, runs_ms| Workload {
        key: key.into(),
        tenant: "default".into(),
        pods: 1,
        runs_ms,
        queued_ms: 1,
        ..Workload::default()
    };
    snapshot.waiting = vec![waits("w", None), waits("v", Some(7))];
    let recorded = Recorded { now_ms: 10_000, snapshot };
    let scenario = scenario(Source::Recorded(Box::new(recorded)), &question(None)).unwrap();
    let left: Vec<i64> = scenario.running.iter().map(|facts| facts.duration_ms).collect();
    assert_eq!(left, [6000, 1000], "as long again, or until it ends, but a moment at least");
    let runs: Vec<i64> = scenario.jobs.iter().map(|job| job.facts.duration_ms).collect();
    assert_eq!((runs, scenario.start_ms), (vec![3_600_000, 7], 10_000));
    assert!(scenario.snapshot.waiting.is_empty());
}

#[test]
fn a_cluster_in_which_nothing_waits_needs_jobs() {
    let recorded = Recorded { now_ms: 0, snapshot: fleet(1, 1, Sort::H100) };
    let error = scenario(Source::Recorded(Box::new(recorded)), &question(None)).err().unwrap().to_string();
    assert_eq!(error, "nothing waits in the snapshot: give jobs with --trace");
}
