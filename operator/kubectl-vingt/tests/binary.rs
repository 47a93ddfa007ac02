//! The binary as users start it, without a cluster.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

use std::path::Path;
use std::process::{Command, Output};

const JOBS: &str = "\
- {name: a, arrivalMs: 0, durationMs: 60000, profile: gpu, count: 8}
- {name: b, arrivalMs: 1000, durationMs: 60000, profile: 3g.40gb}
- {name: c, arrivalMs: 2000, durationMs: 60000, profile: 3g.40gb, tenant: red}
";

fn vingt(at: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-vingt"))
        .args(args)
        .current_dir(at)
        .env_remove("KUBECONFIG")
        .env("HOME", at)
        .output()
        .unwrap()
}

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn names(at: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(at).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn results_are_written_whole() {
    let at = tempfile::tempdir().unwrap();
    std::fs::write(at.path().join("jobs.yaml"), JOBS).unwrap();
    let args =
        ["simulate", "--trace", "jobs.yaml", "--nodes", "1", "--policy", "best-fit", "--policy", "spread"];
    let output = vingt(at.path(), &[&args[..], &["--output", "out"]].concat());
    let (code, text, errors) = said(&output);
    assert_eq!(code, Some(0), "{errors}");
    assert!(text.starts_with("3 jobs on 1 node with 8 GPUs\n"), "{text}");
    assert!(text.contains("best-fit") && text.contains("spread"), "{text}");
    assert!(!text.contains('\u{1b}'), "no colours into a file: {text}");
    assert_eq!(names(at.path()), ["jobs.yaml", "out"]);
    let written = names(&at.path().join("out"));
    let all = [
        "fragmentation.svg",
        "index.html",
        "results.json",
        "utilisation.svg",
        "waiting-jobs.svg",
        "waiting-time.svg",
    ];
    assert_eq!(written, all);
    let results = std::fs::read_to_string(at.path().join("out/results.json")).unwrap();
    let results: serde_json::Value = serde_json::from_str(&results).unwrap();
    assert_eq!(results["policies"][1]["policy"], "spread");
    assert_eq!(results["policies"][0]["wait"]["started"], 3);
    let page = std::fs::read_to_string(at.path().join("out/index.html")).unwrap();
    assert!(
        page.contains("<svg") && !page.contains("src=") && !page.contains("href="),
        "it needs nothing else"
    );
    let again = vingt(at.path(), &[&args[..], &["--output", "out"]].concat());
    assert_eq!(
        said(&again),
        (
            Some(2),
            String::new(),
            "error: --output out: it is there already: give a new name, or remove it\n".into()
        )
    );
}

#[test]
fn the_same_jobs_come_out_the_same() {
    let at = tempfile::tempdir().unwrap();
    std::fs::write(at.path().join("jobs.yaml"), JOBS).unwrap();
    let args = ["simulate", "--trace", "jobs.yaml", "--nodes", "1", "--output"];
    for out in ["one", "two"] {
        assert_eq!(vingt(at.path(), &[&args[..], &[out]].concat()).status.code(), Some(0));
    }
    let results = |out: &str| std::fs::read(at.path().join(out).join("results.json")).unwrap();
    assert_eq!(results("one"), results("two"));
}

#[test]
fn of_bad_input_nothing_is_left_and_the_place_is_named() {
    let at = tempfile::tempdir().unwrap();
    let refused = |file: &str, text: &str, flags: &[&str]| {
        std::fs::write(at.path().join(file), text).unwrap();
        let (code, text, errors) =
            said(&vingt(at.path(), &[&["simulate", "--output", "out"], flags].concat()));
        assert_eq!((code, text.as_str()), (Some(2), ""), "{errors}");
        assert_eq!(
            names(at.path()).iter().filter(|name| name.contains("out") || name.starts_with('.')).count(),
            0
        );
        errors
    };
    let trace = ["--trace", "jobs.yaml", "--nodes", "1"];
    let error = refused("jobs.yaml", &JOBS.replace("2000", "-2"), &trace);
    assert!(error.starts_with("error: jobs.yaml: line 3, field arrivalMs: "), "{error}");
    let error = refused("jobs.yaml", &JOBS.replace("name: c", "name: a"), &trace);
    assert!(error.starts_with("error: jobs.yaml: line 3, field name: "), "{error}");
    let error =
        refused("jobs.csv", "name,cpu_milli,num_gpu,gpu_milli\n", &["--trace", "jobs.csv", "--nodes", "1"]);
    assert!(error.starts_with("error: jobs.csv: line 1: no column"), "{error}");
    let error = refused("now.json", "{\n  \"now_ms\": \"soon\"\n}", &["--snapshot", "now.json"]);
    assert!(error.starts_with("error: now.json: line 2, field now_ms: "), "{error}");
    let error =
        refused("jobs.yaml", JOBS, &["--trace", "jobs.yaml", "--nodes", "1", "--guarantee", "red=many"]);
    assert!(error.contains("\"many\" is not a number of GPUs"), "{error}");
    let error = refused("jobs.yaml", JOBS, &["--trace", "gone.yaml", "--nodes", "1"]);
    assert!(error.starts_with("error: cannot read gone.yaml: "), "{error}");
}

#[test]
fn what_needs_a_cluster_says_how_to_name_one() {
    let at = tempfile::tempdir().unwrap();
    for args in [&["top"][..], &["why", "tj/x"], &["simulate", "--live"], &["snapshot"]] {
        let (code, text, errors) = said(&vingt(at.path(), args));
        assert_eq!((code, text.as_str()), (Some(1), ""), "{args:?}: {errors}");
        assert!(errors.contains("set KUBECONFIG or give --kubeconfig"), "{args:?}: {errors}");
    }
    let (code, _, errors) = said(&vingt(at.path(), &["top", "--kubeconfig", "none"]));
    assert!(code == Some(1) && errors.starts_with("error: the kubeconfig none cannot be used: "), "{errors}");
}

#[test]
fn version_and_completion_need_nothing() {
    let at = tempfile::tempdir().unwrap();
    let (code, text, _) = said(&vingt(at.path(), &["version"]));
    assert_eq!((code, text), (Some(0), format!("kubectl-vingt {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, text, _) = said(&vingt(at.path(), &["completion", "bash"]));
    assert!(code == Some(0) && text.contains("simulate"), "{text}");
}
