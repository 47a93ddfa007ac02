//! A node for tests: emulated GPUs in a folder of their own, claims as files,
//! and the agent's parts on top of both.

#![allow(dead_code, reason = "every test program uses another part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use k8s_openapi::api::resource::v1::{
    AllocationResult, DeviceAllocationResult, DeviceRequestAllocationResult, ResourceClaim,
    ResourceClaimStatus,
};
use k8s_openapi::jiff::Timestamp;
use nvml_emulator::{Emulator, GpuGroup, NodeDescription, Partition};
use tempfile::TempDir;
use vingt_agent::cdi::{Cdi, CdiConfig};
use vingt_agent::claims::{ClaimSource, Unavailable, end_patch};
use vingt_agent::journal::{Boot, Entry, Found, Journal};
use vingt_agent::metrics::Metrics;
use vingt_agent::nvml::{Inventory, Nvml, Placement, Session};
use vingt_agent::preparer::{ClaimRef, Parts, Preparer};
use vingt_agent::steps::Steps;
use vingt_crds::{DecidedDevice, DecisionRecord, names};

pub const NODE: &str = "n1";

/// A node: one folder, which several agents may use one after the other.
pub struct Node {
    pub root: PathBuf,
    pub emulator: Emulator,
    /// Whether its agents may switch MIG mode.
    pub switch: bool,
    _folder: Option<TempDir>,
}

impl Node {
    /// A node with H100s, one per entry: whether it is in MIG mode.
    pub fn new(mig: &[bool]) -> Self {
        let folder = TempDir::new().unwrap();
        let description = described(mig);
        let root = folder.path().to_owned();
        let emulator = Emulator::init(&root, &description).unwrap();
        // The library reads the node of the folder it lies in: several nodes in one process.
        let library = nvml_emulator::library_built_with(&std::env::current_exe().unwrap());
        fs::copy(
            library.expect("the emulator's library is built with the tests"),
            root.join("libnvidia-ml.so.1"),
        )
        .unwrap();
        fs::create_dir(root.join("claims")).unwrap();
        Self { root, emulator, switch: true, _folder: Some(folder) }
    }

    /// Boots it: whatever partitions there were are gone.
    pub fn reboot(&mut self, mig: &[bool]) {
        self.emulator = Emulator::init(&self.root, &described(mig)).unwrap();
    }

    /// Lets the first two GPUs swap their minor numbers, as a boot may.
    pub fn swap_gpus(&self) {
        let path = self.root.join("state");
        let mut state: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let (first, second) = (state["gpus"][0]["uuid"].clone(), state["gpus"][1]["uuid"].clone());
        state["gpus"][0]["uuid"] = second;
        state["gpus"][1]["uuid"] = first;
        // Another file: readers tell a changed state by it.
        fs::write(path.with_extension("swapped"), state.to_string()).unwrap();
        fs::rename(path.with_extension("swapped"), &path).unwrap();
    }

    /// The node in a folder that another process made.
    pub fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), emulator: Emulator::open(root).unwrap(), switch: true, _folder: None }
    }

    /// Starts an agent's parts: opens the journal, does not recover.
    pub fn agent(&self, steps: Arc<dyn Steps>, boot: Option<&str>) -> (Preparer, Found) {
        self.agent_with(steps, boot, Arc::new(Metrics::new().unwrap()))
    }

    /// The same, with metrics that the test can look at.
    pub fn agent_with(
        &self,
        steps: Arc<dyn Steps>,
        boot: Option<&str>,
        metrics: Arc<Metrics>,
    ) -> (Preparer, Found) {
        let boot = Boot { boot_id: boot.map(str::to_owned), driver_id: None };
        let deadline = Instant::now() + Duration::from_secs(10);
        let (journal, found) = loop {
            match Journal::open(&self.root.join("agent"), boot.clone(), steps.clone()) {
                Ok(opened) => break opened,
                // Tasks of the agent before may hold it for a moment.
                Err(_) if Instant::now() < deadline => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        let cdi = CdiConfig {
            folder: self.root.join("cdi"),
            proc_root: self.root.join("proc"),
            driver_root: self.root.join("no-driver"),
            host_driver_root: self.root.join("no-driver"),
            mounts: Vec::new(),
            env: Vec::new(),
        };
        let preparer = Preparer::new(Parts {
            node: NODE.to_owned(),
            nvml: Nvml::start(self.root.join("libnvidia-ml.so.1").into_os_string(), "/".into()).unwrap(),
            journal,
            claims: Arc::new(FileClaims(self.root.join("claims"))),
            cdi: Cdi::new(cdi, steps.clone()),
            allow_mig_mode_switch: self.switch,
            steps,
            metrics,
        });
        (preparer, found)
    }

    /// Makes a partition as somebody else would.
    pub fn foreign(&self, minor: u32, profile_id: u32, placement: Placement, multiprocessors: u32) {
        let session = Session::open(self.root.join("libnvidia-ml.so.1").as_os_str()).unwrap();
        let inventory = session.inventory().unwrap();
        let uuid = &inventory.by_minor(minor).unwrap().uuid;
        let instance = session.create_gpu_instance(uuid, profile_id, placement).unwrap();
        session.create_compute_instance(uuid, instance, multiprocessors).unwrap();
    }

    /// What the GPUs hold, as a session of its own reads it.
    pub fn inventory(&self) -> Inventory {
        Session::open(self.root.join("libnvidia-ml.so.1").as_os_str()).unwrap().inventory().unwrap()
    }

    /// Makes a GPU instance without a compute instance, as somebody else who is not finished.
    pub fn foreign_half(&self, minor: u32, profile_id: u32, placement: Placement) {
        let session = Session::open(self.root.join("libnvidia-ml.so.1").as_os_str()).unwrap();
        let uuid = session.inventory().unwrap().by_minor(minor).unwrap().uuid.clone();
        session.create_gpu_instance(&uuid, profile_id, placement).unwrap();
    }

    /// Removes a partition as somebody else would.
    pub fn remove(&self, minor: u32, gpu_instance: u32) {
        let session = Session::open(self.root.join("libnvidia-ml.so.1").as_os_str()).unwrap();
        let inventory = session.inventory().unwrap();
        let uuid = &inventory.by_minor(minor).unwrap().uuid;
        session.destroy_compute_instance(uuid, gpu_instance, 0).unwrap();
        session.destroy_gpu_instance(uuid, gpu_instance).unwrap();
    }

    /// Makes a claim that is allocated and decided.
    pub fn claim(&self, name: &str, devices: &[&str]) -> ClaimRef {
        let claim = ClaimRef { namespace: "prod".into(), name: name.into(), uid: format!("uid-{name}") };
        let decided = |device: &&str| DecidedDevice {
            request: "gpu".into(),
            pool: NODE.into(),
            device: (*device).to_owned(),
        };
        let record = DecisionRecord {
            version: 1,
            claim: claim.uid.clone(),
            node: NODE.into(),
            devices: devices.iter().map(decided).collect(),
            units: 28,
            tenant: "prod".into(),
            workload: format!("Pod/prod/{name}"),
            start: k8s_openapi::jiff::Timestamp::UNIX_EPOCH,
            order: None,
            account: vingt_crds::DecidedAccount::default(),
        };
        let mut object = ResourceClaim::default();
        object.metadata.namespace = Some(claim.namespace.clone());
        object.metadata.name = Some(claim.name.clone());
        object.metadata.uid = Some(claim.uid.clone());
        object.metadata.annotations = Some([(names::DECISION.to_owned(), record.to_json())].into());
        let result = |device: &DecidedDevice| DeviceRequestAllocationResult {
            driver: names::DRIVER.into(),
            pool: device.pool.clone(),
            device: device.device.clone(),
            request: device.request.clone(),
            ..Default::default()
        };
        let results = record.devices.iter().map(result).collect();
        object.status = Some(ResourceClaimStatus {
            allocation: Some(AllocationResult {
                devices: Some(DeviceAllocationResult { results: Some(results), config: None }),
                ..Default::default()
            }),
            ..Default::default()
        });
        self.write_claim(&object);
        claim
    }

    pub fn write_claim(&self, claim: &ResourceClaim) {
        let name = claim.metadata.name.clone().unwrap();
        fs::write(self.claim_path(&name), serde_json::to_string(claim).unwrap()).unwrap();
    }

    pub fn read_claim(&self, name: &str) -> ResourceClaim {
        serde_json::from_str(&fs::read_to_string(self.claim_path(name)).unwrap()).unwrap()
    }

    pub fn delete_claim(&self, name: &str) {
        fs::remove_file(self.claim_path(name)).unwrap();
    }

    fn claim_path(&self, name: &str) -> PathBuf {
        self.root.join("claims").join(format!("{name}.json"))
    }

    /// All partitions, by GPU.
    pub fn partitions(&self) -> Vec<(u32, Partition)> {
        let occupancy = self.emulator.occupancy().unwrap();
        occupancy
            .into_iter()
            .flat_map(|gpu| gpu.partitions.into_iter().map(move |p| (gpu.minor, p)))
            .collect()
    }

    /// The entries on disk.
    pub fn entries(&self) -> BTreeMap<String, Entry> {
        let Ok(text) = fs::read_to_string(self.root.join("agent/journal.json")) else {
            return BTreeMap::new();
        };
        let document: serde_json::Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value(document["claims"].clone()).unwrap()
    }

    /// What lies where: GPU, profile and first memory slice.
    pub fn placed(&self) -> Vec<String> {
        let mut placed: Vec<_> =
            self.partitions().into_iter().map(|(minor, p)| (minor, p.start, p.profile)).collect();
        placed.sort();
        placed.iter().map(|(minor, start, profile)| format!("{minor} {profile} {start}")).collect()
    }

    /// Names of the CDI specs.
    pub fn specs(&self) -> Vec<String> {
        // Without the temporary file that a crash may leave: it starts with a dot.
        files(&self.root.join("cdi")).into_iter().filter(|name| !name.starts_with('.')).collect()
    }

    /// UIDs of the claims whose end is recorded, one per record.
    pub fn ended(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("agent/ended.jsonl")).unwrap_or_default();
        let uid = |line: &str| {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            record["claim"].as_str().unwrap().to_owned()
        };
        text.lines().map(uid).collect()
    }
}

fn described(mig: &[bool]) -> NodeDescription {
    let gpus = mig.iter().map(|mig| GpuGroup { card: "h100-sxm5-80gb".into(), count: 1, mig: *mig });
    NodeDescription { gpus: gpus.collect(), ..NodeDescription::of("h100-sxm5-80gb", 1, true) }
}

fn files(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Claims as files of a folder.
struct FileClaims(PathBuf);

impl FileClaims {
    fn read(path: &Path) -> Result<Option<ResourceClaim>, Unavailable> {
        match fs::read_to_string(path) {
            Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| Unavailable(error.to_string())),
            Err(_) if path.parent().is_some_and(Path::exists) => Ok(None),
            Err(error) => Err(Unavailable(error.to_string())),
        }
    }
}

impl ClaimSource for FileClaims {
    fn get<'a>(
        &'a self,
        _namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, Result<Option<ResourceClaim>, Unavailable>> {
        Box::pin(async move { Self::read(&self.0.join(format!("{name}.json"))) })
    }

    fn allocated(&self) -> BoxFuture<'_, Result<Vec<ResourceClaim>, Unavailable>> {
        Box::pin(async {
            fs::read_dir(&self.0).map_err(|error| Unavailable(error.to_string()))?;
            let names = files(&self.0);
            names.iter().filter_map(|name| Self::read(&self.0.join(name)).transpose()).collect()
        })
    }

    fn end<'a>(
        &'a self,
        claim: &'a ResourceClaim,
        end: Timestamp,
    ) -> BoxFuture<'a, Result<bool, Unavailable>> {
        Box::pin(async move {
            let path = self.0.join(format!("{}.json", claim.metadata.name.clone().unwrap()));
            let Some(mut found) = Self::read(&path)? else { return Ok(false) };
            if found.metadata.resource_version != claim.metadata.resource_version {
                return Ok(false);
            }
            let merge = end_patch(claim, end);
            let written = merge["metadata"]["annotations"][names::ENDED].as_str().unwrap();
            let annotations = found.metadata.annotations.get_or_insert_default();
            annotations.insert(names::ENDED.to_owned(), written.to_owned());
            fs::write(&path, serde_json::to_string(&found).unwrap())
                .map_err(|error| Unavailable(error.to_string()))?;
            Ok(true)
        })
    }
}
