//! The journal over restarts, damage and full disks.

use tempfile::TempDir;

use super::*;
use crate::steps::Unobserved;

fn entry(state: State) -> Entry {
    Entry {
        namespace: "prod".into(),
        name: "x".into(),
        tenant: "prod".into(),
        workload: "Pod/prod/x".into(),
        units: 28,
        start: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
        state,
        devices: vec![DeviceEntry {
            decided: vingt_crds::DecidedDevice {
                request: "gpu".into(),
                pool: "n".into(),
                device: "gpu-0".into(),
            },
            target: Target::Gpu { gpu: "GPU-0".into(), minor: 0 },
            created: Created::Partition { gpu_instance: 1, compute_instance: 0, uuid: "MIG-1".into() },
        }],
    }
}

fn open(folder: &TempDir, boot: &str) -> (Journal, Found) {
    open_in(folder, Some(boot), None)
}

fn open_in(folder: &TempDir, boot: Option<&str>, driver: Option<&str>) -> (Journal, Found) {
    let boot = Boot { boot_id: boot.map(str::to_owned), driver_id: driver.map(str::to_owned) };
    Journal::open(folder.path(), boot, Arc::new(Unobserved)).unwrap()
}

async fn put(journal: &Journal, uid: &str, entry: Entry) {
    let put = |entries: &mut Entries| -> io::Result<()> {
        entries.insert(uid.to_owned(), entry);
        Ok(())
    };
    journal.change(put).await.unwrap();
}

#[tokio::test]
async fn entries_outlive_the_agent_and_tell_a_reboot() {
    let folder = TempDir::new().unwrap();
    let (journal, found) = open(&folder, "boot-1");
    assert_eq!(found, Found::Nothing);
    put(&journal, "a", entry(State::Prepared)).await;
    drop(journal);
    let (journal, found) = open(&folder, "boot-1");
    assert_eq!(found, Found::Whole { rebooted: false });
    assert_eq!(journal.entry("a"), Some(entry(State::Prepared)));
    drop(journal);
    let (_, found) = open(&folder, "boot-2");
    assert_eq!(found, Found::Whole { rebooted: true });
}

#[tokio::test]
async fn entries_tell_that_the_driver_was_loaded_anew() {
    let folder = TempDir::new().unwrap();
    let mut last = open_in(&folder, Some("boot"), Some("1")).0;
    for (driver, rebooted) in [(Some("1"), false), (Some("2"), true), (Some("2"), false), (None, false)] {
        put(&last, "a", entry(State::Prepared)).await;
        drop(last);
        let found;
        (last, found) = open_in(&folder, Some("boot"), driver);
        assert_eq!(found, Found::Whole { rebooted }, "{driver:?}");
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_read_is_set_aside_not_lost() {
    for (content, n) in
        [("{\"format\":", 0), ("", 1), (r#"{"format":"vingt.dev/agent-journal","version":2,"claims":{}}"#, 2)]
    {
        let folder = TempDir::new().unwrap();
        for before in 0..n {
            fs::write(folder.path().join(format!("journal.json.corrupt-{before}")), "older").unwrap();
        }
        fs::write(folder.path().join("journal.json"), content).unwrap();
        let (journal, found) = open(&folder, "boot");
        let aside = folder.path().join(format!("journal.json.corrupt-{n}"));
        assert_eq!(found, Found::Corrupt(aside.clone()));
        assert_eq!(fs::read_to_string(aside).unwrap(), content);
        assert!(journal.entries().is_empty());
    }
}

#[tokio::test]
async fn one_agent_at_a_time() {
    let folder = TempDir::new().unwrap();
    let (first, _) = open(&folder, "boot");
    let second = Journal::open(folder.path(), Boot::default(), Arc::new(Unobserved));
    assert!(matches!(second, Err(JournalError::Held(_))));
    drop(first);
    open(&folder, "boot");
}

#[tokio::test]
async fn a_change_that_is_refused_or_not_written_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let (journal, _) = open(&folder, "boot");
    put(&journal, "a", entry(State::Preparing)).await;
    let refused: io::Result<()> = journal
        .change(|entries| {
            entries.clear();
            Err(io::Error::other("no"))
        })
        .await;
    refused.unwrap_err();
    assert_eq!(journal.entries().len(), 1);

    // A folder in the temporary file's place: the write fails, for root too.
    fs::create_dir(folder.path().join(".journal.json.tmp")).unwrap();
    journal.forget("a").await.unwrap_err();
    assert_eq!(journal.entries().len(), 1);
}

#[tokio::test]
async fn the_end_of_a_claim_is_recorded_once_and_survives_a_torn_line() {
    let folder = TempDir::new().unwrap();
    let (journal, _) = open(&folder, "boot");
    let end = |uid: &str, second: i64| {
        let end = k8s_openapi::jiff::Timestamp::from_second(second).unwrap();
        Ended::of(uid, &entry(State::Unpreparing), end)
    };
    put(&journal, "a", entry(State::Unpreparing)).await;
    journal.end("a", end("a", 10)).await.unwrap();
    assert!(journal.entries().is_empty());
    journal.end("a", end("a", 20)).await.unwrap();
    let path = folder.path().join("ended.jsonl");
    let torn = fs::read_to_string(&path).unwrap() + "{\"claim\":\"tor";
    fs::write(&path, torn).unwrap();
    journal.end("b", end("b", 30)).await.unwrap();
    assert_eq!(journal.untold(), [end("a", 10), end("b", 30)]);
    drop(journal);
    let (journal, _) = open(&folder, "boot");
    assert_eq!(journal.untold(), [end("a", 10), end("b", 30)]);
    journal.drop_end("a", entry(State::Unpreparing).start).await.unwrap();
    drop(journal);
    assert_eq!(open(&folder, "boot").0.untold(), [end("b", 30)], "told is told");
}

#[test]
fn the_record_of_ends_is_bounded() {
    let folder = TempDir::new().unwrap();
    let now = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
    let lines: String = (0..8192)
        .map(|n| {
            serde_json::to_string(&Ended::of(&n.to_string(), &entry(State::Prepared), now)).unwrap() + "\n"
        })
        .collect();
    fs::write(folder.path().join("ended.jsonl"), lines).unwrap();
    Untold::open(folder.path()).unwrap().add(Ended::of("new", &entry(State::Prepared), now)).unwrap();
    let records = Untold::open(folder.path()).unwrap().records();
    assert_eq!(records.len(), 4097);
    assert_eq!((records[0].claim.as_str(), records[4096].claim.as_str()), ("4096", "new"));
}
