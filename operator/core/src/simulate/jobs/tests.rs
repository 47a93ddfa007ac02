//! Lists as people write them, right and wrong.

use super::*;
use crate::simulate::fleet::{Sort, fleet};
use crate::simulate::openb::Mapping;
use crate::simulate::replay::replay;

const YAML: &str = "
# two jobs
- name: train
  tenant: vision
  arrivalMs: 0
  durationMs: 3600000
  profile: gpu
  count: 8
  pods: 2
  priority: -3
  runsMs: 7200000
  checkpointMs: 600000
  graceMs: 60000
  leavesAfterMs: 5
  evictable: false
  movable: restart
  topology: rack
  topologyRequired: true
  cpuMilli: 4000
  memoryBytes: 1024
- {name: serve, arrivalMs: 60000, durationMs: 1, profile: 3g.40gb}
";

const CSV: &str = "name,tenant,arrivalMs,durationMs,profile,count,pods,priority,runsMs,checkpointMs,graceMs,\
                   leavesAfterMs,evictable,movable,topology,topologyRequired,cpuMilli,memoryBytes
# two jobs
train,vision,0,3600000,gpu,8,2,-3,7200000,600000,60000,5,false,restart,rack,true,4000,1024
serve,,60000,1,3g.40gb,,,,,,,,,,,,,
";

fn two() -> Vec<TraceJob> {
    let train = TraceJob {
        tenant: "vision".into(),
        count: 8,
        pods: 2,
        priority: -3,
        runs_ms: Some(7_200_000),
        checkpoint_ms: Some(600_000),
        grace_ms: 60_000,
        leaves_after_ms: Some(5),
        evictable: false,
        movable: Movable::Restart,
        topology: Some("rack".into()),
        topology_required: true,
        cpu_milli: 4000,
        memory_bytes: 1024,
        ..TraceJob::new("train", 0, 3_600_000, "gpu")
    };
    vec![train, TraceJob::new("serve", 60_000, 1, "3g.40gb")]
}

fn guess(text: &str) -> Format {
    Format::of(text, Mapping::Ceil)
}

#[test]
fn a_list_is_the_same_in_yaml_and_as_a_table() {
    assert_eq!((guess(YAML), guess(CSV)), (Format::Yaml, Format::Csv));
    assert_eq!(read(YAML, Format::Yaml).unwrap(), two());
    assert_eq!(read(CSV, Format::Csv).unwrap(), two());
    let written = serde_yaml::to_string(&two()).unwrap();
    assert_eq!(read(&written, guess(&written)).unwrap(), two());
}

#[test]
fn a_pod_list_of_openb_is_a_list_of_jobs() {
    let text = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time\n\
                a,4000,2,1,460,,LS,Running,100,400\nb,1,1,0,0,,LS,Running,0,1\n,1,1,8,1000,,LS,Pending,7,9\n";
    let jobs = read(text, guess(text)).unwrap();
    let a = TraceJob {
        cpu_milli: 4000,
        memory_bytes: 2 << 20,
        ..TraceJob::new("a", 100_000, 300_000, "4g.40gb")
    };
    assert_eq!(jobs[0], a);
    assert_eq!((jobs[1].name.as_str(), jobs[1].profile.as_str(), jobs[1].count), ("line-4", "gpu", 8));
    let nearest = read(text, Format::of(text, Mapping::Nearest)).unwrap();
    assert_eq!(nearest[0].profile, "3g.40gb");
}

#[test]
fn a_bad_list_is_refused_with_its_line_and_field() {
    let good = "- {name: a, arrivalMs: 0, durationMs: 1, profile: gpu}\n";
    let table: [(String, &str); 22] = [
        (String::new(), "there is no job in it"),
        ("# nothing\n".into(), "there is no job in it"),
        ("[]".into(), "there is no job in it"),
        ("name,arrivalMs".into(), "there is no job in it"),
        ("jobs: 3".into(), "line 1: invalid type: map, expected a sequence"),
        (format!("{good}- 3"), "line 2: invalid type: integer `3`, expected a job"),
        (
            format!("{good}- name: b\n  arrivalMs: x"),
            "line 3, field arrivalMs: invalid type: string \"x\", expected a whole number",
        ),
        (format!("{good}- name: b\n  arrivalMs: -1"), "line 3, field arrivalMs: -1 is less than 0"),
        (format!("{good}- name: b\n  durationMs: 0"), "line 3, field durationMs: 0 is less than 1"),
        (format!("{good}- name: b\n  pods: 0"), "line 3, field pods: 0 is less than 1"),
        (
            format!("{good}- {{name: b, arrivalMs: 0, profile: gpu}}"),
            "line 2, field durationMs: missing field `durationMs`",
        ),
        (
            format!("{good}- {{name: b, gpus: 3}}"),
            "line 2, field gpus: unknown field `gpus`, expected one of `name`, `tenant`, `arrivalMs`, `durationMs`, \
             `profile`, `count`, `pods`, `priority`, `runsMs`, `checkpointMs`, `graceMs`, `leavesAfterMs`, `evictable`, \
             `movable`, `topology`, `topologyRequired`, `cpuMilli`, `memoryBytes`",
        ),
        (
            format!("{good}- name: b\n  movable: maybe"),
            "line 3, field movable: unknown variant `maybe`, expected one of `no`, `restart`, `replace`",
        ),
        (format!("{good}{good}"), "line 2, field name: \"a\" is the name of two jobs: name each differently"),
        (format!("{good}- name: [b"), "line 2, field name: invalid type: sequence, expected a string"),
        ("name,arrivalMs,durationMs,profile\na,0,1".into(), "line 2: 3 fields where the first line has 4"),
        (
            "name,arrivalMs,durationMs,profile\na,0,1,gpu\nb,x,1,gpu".into(),
            "line 3, field arrivalMs: \"x\" is not a whole number",
        ),
        ("name,arrivalMs,durationMs,profile\na,0,0,gpu".into(), "line 2, field durationMs: 0 is less than 1"),
        (
            "name,arrivalMs,durationMs,profile\na,0,,gpu".into(),
            "line 2, field durationMs: missing field `durationMs`",
        ),
        (
            "name,arrivalMs,durationMs,profile,pods\na,0,1,gpu,-1".into(),
            "line 2, field pods: -1 is less than 1",
        ),
        (
            "name,arrivalMs,durationMs,profile\na,0,1,gpu\n\na,0,1,gpu".into(),
            "line 4, field name: \"a\" is the name of two jobs: name each differently",
        ),
        (
            "name,arrivalMs,durationMs,profile,evictable\na,0,1,gpu,yes".into(),
            "line 2, field evictable: \"yes\" is not true or false",
        ),
    ];
    let mut wrong = Vec::new();
    for (text, error) in table {
        let told = read(&text, guess(&text)).unwrap_err().to_string();
        if told != error {
            wrong.push(format!("{text:?}\n told {told}\n not  {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let openb = "num_gpu,gpu_milli,creation_time,deletion_time\n1,1000,x,0";
    let told = read(openb, guess(openb)).unwrap_err().to_string();
    assert_eq!(told, "line 2, field \"creation_time\": \"x\" is not a number");
}

#[test]
fn a_list_becomes_a_scenario_of_a_cluster_and_is_played() {
    let jobs = vec![
        TraceJob::new("a", 50, 100, "3g.40gb"),
        TraceJob { pods: 2, ..TraceJob::new("b", 60, 7, "3g.40gb") },
    ];
    let outcome = replay(&scenario(fleet(1, 1, Sort::H100Mig), &jobs).unwrap(), &mut ()).unwrap();
    assert_eq!(outcome.jobs.iter().map(|job| job.started_ms).collect::<Vec<_>>(), [Some(50), Some(150)]);
    let error = scenario(fleet(1, 1, Sort::H100), &jobs).unwrap_err().to_string();
    assert_eq!(error, r#"job "a", field profile: no GPU has a device "3g.40gb"; there are: gpu"#);
}
