//! What is true of the node now: GPUs, their instances, their processes, the faults waiting. Plain data, kept as
//! JSON in the file `state`; [`crate::store`] reads and writes it, [`crate::mig`] changes it by the rules.

use serde::{Deserialize, Serialize};

use crate::cards::{self, Card, Profile};
use crate::code::Code;
use crate::faults::Fault;
use crate::node::{NodeDescription, NodeError};
use crate::uuid;

/// Capability nodes exist for 32 GPUs (`mig-minors`), so a node has no more.
pub(crate) const MAX_GPUS: u32 = 32;

/// The whole node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State {
    /// Grows by one with every write.
    pub revision: u64,
    /// Given to the next instance; never used twice, so a handle of a destroyed instance finds nothing.
    pub next_serial: u32,
    /// What the UUIDs of this node are made from.
    pub seed: String,
    /// E.g. `580.95.05`.
    pub driver_version: String,
    /// CUDA version of the driver, major and minor.
    pub cuda_version: (u32, u32),
    /// In the order of their minor numbers.
    pub gpus: Vec<Gpu>,
    /// Injected faults, fired ones too.
    pub faults: Vec<Fault>,
}

/// One GPU.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Gpu {
    pub minor: u32,
    /// The id of its [`Card`].
    pub card: String,
    pub uuid: String,
    pub serial: String,
    pub mig: bool,
    pub mig_pending: bool,
    pub persistence: bool,
    /// `nvmlComputeMode_t`; 0 is the default mode.
    pub compute_mode: u32,
    /// By id.
    pub instances: Vec<GpuInstance>,
    pub processes: Vec<Process>,
}

/// A GPU instance: memory slices and engines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct GpuInstance {
    pub id: u32,
    pub serial: u32,
    pub profile_id: u32,
    /// First memory slice.
    pub start: u32,
    /// By id.
    pub compute: Vec<ComputeInstance>,
}

/// A compute instance in a GPU instance: together they are what NVML calls a MIG device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ComputeInstance {
    pub id: u32,
    pub serial: u32,
    pub profile_id: u32,
    /// First compute slice within the GPU instance.
    pub start: u32,
    /// `MIG-…`: follows from the GPU, the GPU instance's id and the start, so the next one in the same place has it
    /// again.
    pub uuid: String,
}

/// A process that has a context on a GPU.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// Its process id.
    pub pid: u32,
    /// The memory it has allocated.
    pub memory_bytes: u64,
    /// GPU and compute instance id it runs on; `None` on a GPU without MIG.
    pub instance: Option<(u32, u32)>,
}

impl State {
    /// The node as it is after boot.
    pub fn new(node: &NodeDescription, seed: &str) -> Result<Self, NodeError> {
        let mut gpus = Vec::new();
        for group in &node.gpus {
            let card = cards::by_id(&group.card).ok_or_else(|| NodeError::unknown_card(&group.card))?;
            for _ in 0..group.count {
                let minor = u32::try_from(gpus.len()).unwrap_or(MAX_GPUS);
                if minor >= MAX_GPUS {
                    return Err(NodeError::TooManyGpus { limit: MAX_GPUS });
                }
                gpus.push(Gpu {
                    minor,
                    card: card.id.clone(),
                    uuid: format!("GPU-{}", uuid::derive(seed, &format!("gpu {minor}"))),
                    serial: uuid::serial_number(seed, minor),
                    mig: group.mig,
                    mig_pending: group.mig,
                    persistence: true,
                    compute_mode: 0,
                    instances: Vec::new(),
                    processes: Vec::new(),
                });
            }
        }
        if gpus.is_empty() {
            return Err(NodeError::NoGpu);
        }
        Ok(Self {
            revision: 0,
            next_serial: 1,
            seed: seed.to_owned(),
            driver_version: node.driver_version.clone(),
            cuda_version: node.cuda_version()?,
            gpus,
            faults: Vec::new(),
        })
    }

    pub fn gpu_mut(&mut self, minor: u32) -> Result<&mut Gpu, Code> {
        self.gpus.iter_mut().find(|gpu| gpu.minor == minor).ok_or(Code::InvalidArgument)
    }

    /// A serial that no instance had before.
    pub fn take_serial(&mut self) -> u32 {
        let serial = self.next_serial;
        self.next_serial += 1;
        serial
    }
}

impl Gpu {
    pub fn card(&self) -> Result<&'static Card, Code> {
        cards::by_id(&self.card).ok_or(Code::Unknown)
    }

    pub fn instance_by_serial(&self, serial: u32) -> Option<&GpuInstance> {
        self.instances.iter().find(|instance| instance.serial == serial)
    }

    /// All MIG devices: each compute instance with its GPU instance.
    pub fn mig_devices(&self) -> impl Iterator<Item = (&GpuInstance, &ComputeInstance)> {
        self.instances
            .iter()
            .flat_map(|instance| instance.compute.iter().map(move |compute| (instance, compute)))
    }

    /// Domain, bus and device on the PCI bus; eight GPUs share a domain, on the buses of an HGX board.
    pub fn pci_address(&self) -> (u32, u32, u32) {
        const BUSES: [u32; 8] = [0x1b, 0x43, 0x52, 0x61, 0x9d, 0xc3, 0xd1, 0xdf];
        (self.minor / 8, BUSES[(self.minor % 8) as usize], 0)
    }

    /// The PCI address as NVML prints it, with a domain of eight digits.
    pub fn pci_bus_id(&self) -> String {
        let (domain, bus, device) = self.pci_address();
        format!("{domain:08X}:{bus:02X}:{device:02X}.0")
    }
}

impl GpuInstance {
    pub fn profile(&self, card: &'static Card) -> Result<&'static Profile, Code> {
        card.profile_by_id(self.profile_id).ok_or(Code::Unknown)
    }
}
