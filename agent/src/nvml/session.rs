//! One open NVML session: what is on the GPUs, and the five changes the agent
//! makes to them. Synchronous; only the thread of [`super::Nvml`] holds one.
//! Which change is right is not decided here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::OsStr;

use nvml_wrapper::enums::device::DeviceArchitecture;
use nvml_wrapper::error::NvmlError;

use super::fault::{Fault, code};
use super::raw::{CiHandle, CiProfileInfo, GiHandle, GpuHandle, Raw};
use super::types::{ComputeInstance, Gpu, Instance, MigMode, Placement, Profile, Unreadable};

/// Profile enumerations tried; beyond what any driver knows today, so that new ones are found.
const PROFILES: u32 = 32;
/// Compute instance profile enumerations tried.
const CI_PROFILES: u32 = 16;
/// `nvmlDeviceArchitecture_t` of Hopper, the first that switches MIG mode without a reset.
const HOPPER: u32 = 9;

/// An open session.
pub struct Session {
    raw: Raw,
    driver_version: String,
    /// What cannot change while the session is open, by NVML's index of the GPU.
    cards: RefCell<BTreeMap<u32, Card>>,
    /// Compute instance profiles by GPU and GPU instance profile: they depend on nothing else.
    ci_profiles: RefCell<BTreeMap<(GpuHandle, u32), Vec<CiProfileInfo>>>,
    /// The last reading found a GPU that only a new session can read again.
    stale: Cell<bool>,
}

#[derive(Clone)]
struct Card {
    handle: GpuHandle,
    minor: u32,
    uuid: String,
    product: String,
    architecture: String,
    switches_mig_live: bool,
    brand: String,
    compute_capability: String,
    memory_mib: u64,
    /// Profiles by whether MIG was on when they were read: a driver may name none while it is off.
    profiles: BTreeMap<bool, Vec<Profile>>,
}

/// Everything NVML shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The GPUs that could be read, by minor number.
    pub gpus: Vec<Gpu>,
    /// The GPUs that could not.
    pub unreadable: Vec<Unreadable>,
}

impl Inventory {
    /// The GPU with this UUID.
    pub fn gpu(&self, uuid: &str) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.uuid == uuid)
    }

    /// The GPU with this minor number.
    pub fn by_minor(&self, minor: u32) -> Option<&Gpu> {
        self.gpus.iter().find(|gpu| gpu.minor == minor)
    }
}

impl Session {
    /// Loads the library and opens a session.
    pub fn open(library: &OsStr) -> Result<Self, Fault> {
        let raw = Raw::open(library)?;
        let driver_version = raw
            .nvml()
            .sys_driver_version()
            .map_err(|error| Fault::of("nvmlSystemGetDriverVersion", error))?;
        tracing::info!(library = raw.library(), driver_version, "NVML session opened");
        let (cards, ci_profiles, stale) = Default::default();
        Ok(Self { raw, driver_version, cards, ci_profiles, stale })
    }

    /// Reads all GPUs. A GPU that fails does not hide the others.
    pub fn inventory(&self) -> Result<Inventory, Fault> {
        self.read_all(true)
    }

    /// Whether the last reading found a GPU that only a new session can read again.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale.get()
    }

    /// Reads what the GPUs are and can hold, which is cheap, but not what is on them: no GPU of
    /// the answer has instances or processes.
    pub fn geometry(&self) -> Result<Inventory, Fault> {
        self.read_all(false)
    }

    fn read_all(&self, live: bool) -> Result<Inventory, Fault> {
        let count =
            self.raw.nvml().device_count().map_err(|error| Fault::of("nvmlDeviceGetCount_v2", error))?;
        let mut inventory = Inventory::default();
        let mut stale = false;
        for index in 0..count {
            match self.card(index).and_then(|card| self.read(index, &card, live)) {
                Ok(gpu) => inventory.gpus.push(gpu),
                Err(fault) if fault.ends_session() => return Err(fault),
                Err(fault) => {
                    stale |= fault.loses_gpu();
                    inventory.unreadable.push(Unreadable { index, why: fault.to_string() });
                }
            }
        }
        self.stale.set(stale);
        inventory.gpus.sort_by_key(|gpu| gpu.minor);
        Ok(inventory)
    }

    /// Reads one GPU; `None` if it is certain that the node has no such GPU (any more).
    pub fn gpu_if_there(&self, uuid: &str) -> Result<Option<Gpu>, Fault> {
        self.find(uuid)?.map(|(index, card)| self.read(index, &card, true)).transpose()
    }

    /// Reads one GPU, which must be there.
    pub fn gpu(&self, uuid: &str) -> Result<Gpu, Fault> {
        self.gpu_if_there(uuid)?.ok_or_else(|| missing(uuid))
    }

    fn find(&self, uuid: &str) -> Result<Option<(u32, Card)>, Fault> {
        let known = || {
            let cards = self.cards.borrow();
            cards.iter().find(|(_, card)| card.uuid == uuid).map(|(index, card)| (*index, card.clone()))
        };
        if let Some(found) = known() {
            return Ok(Some(found));
        }
        let inventory = self.geometry()?;
        match (known(), inventory.unreadable.first()) {
            // It may be the one that cannot be read.
            (None, Some(unreadable)) => Err(Fault::State(format!(
                "no GPU that can be read has the UUID {uuid}, and the one at index {} cannot: {}",
                unreadable.index, unreadable.why
            ))),
            (found, _) => Ok(found),
        }
    }

    fn handle(&self, uuid: &str) -> Result<GpuHandle, Fault> {
        self.find(uuid)?.map(|(_, card)| card.handle).ok_or_else(|| missing(uuid))
    }

    fn card(&self, index: u32) -> Result<Card, Fault> {
        if let Some(card) = self.cards.borrow().get(&index) {
            return Ok(card.clone());
        }
        let handle = self.raw.gpu(index)?;
        let device = self.raw.device(handle);
        let capability = device
            .cuda_compute_capability()
            .map_err(|error| Fault::of("nvmlDeviceGetCudaComputeCapability", error))?;
        let (architecture, switches_mig_live) = architecture(device.architecture())?;
        let memory = device.memory_info().map_err(|error| Fault::of("nvmlDeviceGetMemoryInfo_v2", error))?;
        let brand = match device.brand() {
            Ok(brand) => format!("{brand:?}"),
            // A brand newer than the wrapper.
            Err(NvmlError::UnexpectedVariant(_) | NvmlError::NotSupported) => "unknown".to_owned(),
            Err(error) => return Err(Fault::of("nvmlDeviceGetBrand", error)),
        };
        let card = Card {
            handle,
            minor: device.minor_number().map_err(|error| Fault::of("nvmlDeviceGetMinorNumber", error))?,
            uuid: device.uuid().map_err(|error| Fault::of("nvmlDeviceGetUUID", error))?,
            product: device.name().map_err(|error| Fault::of("nvmlDeviceGetName", error))?,
            architecture,
            switches_mig_live,
            brand,
            compute_capability: format!("{}.{}", capability.major, capability.minor),
            memory_mib: memory.total / (1 << 20),
            profiles: BTreeMap::new(),
        };
        self.cards.borrow_mut().insert(index, card.clone());
        Ok(card)
    }

    fn read(&self, index: u32, card: &Card, live: bool) -> Result<Gpu, Fault> {
        let mig = self.mig_mode(card.handle)?;
        let (profiles, instances) = match mig {
            MigMode::Unsupported => (Vec::new(), Vec::new()),
            MigMode::Disabled => (self.profiles(index, card, false)?, Vec::new()),
            MigMode::Enabled | MigMode::Pending => {
                let profiles = self.profiles(index, card, true)?;
                let instances = if live { self.instances(card.handle, &profiles)? } else { Vec::new() };
                (profiles, instances)
            }
        };
        let processes = if live { self.processes(card.handle)? } else { 0 };
        Ok(Gpu {
            minor: card.minor,
            uuid: card.uuid.clone(),
            product: card.product.clone(),
            architecture: card.architecture.clone(),
            switches_mig_live: card.switches_mig_live,
            brand: card.brand.clone(),
            compute_capability: card.compute_capability.clone(),
            driver_version: self.driver_version.clone(),
            memory_mib: card.memory_mib,
            mig,
            profiles,
            instances,
            processes,
        })
    }

    fn processes(&self, gpu: GpuHandle) -> Result<u32, Fault> {
        match self.raw.device(gpu).running_compute_processes_count() {
            Ok(count) => Ok(count),
            Err(error) => match Fault::of("nvmlDeviceGetComputeRunningProcesses_v3", error) {
                fault if fault.is(code::NOT_SUPPORTED) => Ok(0),
                fault => Err(fault),
            },
        }
    }

    fn mig_mode(&self, gpu: GpuHandle) -> Result<MigMode, Fault> {
        match self.raw.device(gpu).mig_mode().map_err(|error| Fault::of("nvmlDeviceGetMigMode", error)) {
            Ok(mode) if mode.current != mode.pending => Ok(MigMode::Pending),
            Ok(mode) if mode.current == 1 => Ok(MigMode::Enabled),
            Ok(_) => Ok(MigMode::Disabled),
            Err(fault) if fault.is(code::NOT_SUPPORTED) => Ok(MigMode::Unsupported),
            Err(fault) => Err(fault),
        }
    }

    fn profiles(&self, index: u32, card: &Card, mig_on: bool) -> Result<Vec<Profile>, Fault> {
        if let Some(profiles) = card.profiles.get(&mig_on) {
            return Ok(profiles.clone());
        }
        let mut profiles = Vec::new();
        for profile in 0..PROFILES {
            let Some(info) = self.raw.profile(card.handle, profile)? else { continue };
            let placements = match self.raw.placements(card.handle, info.id) {
                Ok(placements) => placements,
                // Nothing to offer, and no reason to lose the others; somebody may have such instances.
                Err(fault) if fault.is(code::NOT_SUPPORTED) => Vec::new(),
                Err(fault) => return Err(fault),
            };
            // Drivers older than the named structures: made from the sizes, as nvidia-smi prints it.
            let name = info.name.unwrap_or_else(|| {
                format!(
                    "{}g.{}gb",
                    info.slices,
                    (info.memory_mib * 8).div_ceil(card.memory_mib.max(1)) * card.memory_mib.div_ceil(1024)
                        / 8
                )
            });
            profiles.push(Profile {
                id: info.id,
                name: name.strip_prefix("MIG ").unwrap_or(&name).to_owned(),
                compute_slices: info.slices,
                max_instances: info.instances,
                memory_mib: info.memory_mib,
                multiprocessors: info.multiprocessors,
                copy_engines: info.copy_engines,
                decoders: info.decoders,
                encoders: info.encoders,
                jpeg_engines: info.jpeg_engines,
                ofa_engines: info.ofa_engines,
                placements,
            });
        }
        if let Some(card) = self.cards.borrow_mut().get_mut(&index) {
            card.profiles.insert(mig_on, profiles.clone());
        }
        Ok(profiles)
    }

    fn instances(&self, gpu: GpuHandle, profiles: &[Profile]) -> Result<Vec<Instance>, Fault> {
        let mut instances = Vec::new();
        for profile in profiles {
            let found = match self.raw.gpu_instances(gpu, profile.id) {
                Ok(found) => found,
                // MIG is on only after the next reset.
                Err(fault) if fault.is(code::NOT_SUPPORTED) => continue,
                Err(fault) => return Err(fault),
            };
            for gi in found {
                let info = match self.raw.gi_info(gi) {
                    Ok(info) => info,
                    // Destroyed by somebody else since it was listed.
                    Err(fault) if gone(&fault) || fault.is(code::INVALID_ARGUMENT) => continue,
                    Err(fault) => return Err(fault),
                };
                let compute = self
                    .compute(gpu, gi, info.profile_id)?
                    .into_iter()
                    .map(|(_, instance)| instance)
                    .collect();
                let instance =
                    Instance { id: info.id, profile_id: info.profile_id, placement: info.placement, compute };
                if !instances.contains(&instance) {
                    instances.push(instance);
                }
            }
        }
        instances.sort_by_key(|instance| (instance.placement, instance.id));
        Ok(instances)
    }

    fn compute(
        &self,
        gpu: GpuHandle,
        gi: GiHandle,
        profile_id: u32,
    ) -> Result<Vec<(CiHandle, ComputeInstance)>, Fault> {
        let mut compute: Vec<(_, ComputeInstance)> = Vec::new();
        for profile in self.ci_profiles(gpu, gi, profile_id)? {
            let found = match self.raw.compute_instances(gi, profile.id) {
                Ok(found) => found,
                Err(fault) if gone(&fault) || fault.is(code::INVALID_ARGUMENT) => continue,
                Err(fault) => return Err(fault),
            };
            for ci in found {
                let (id, uuid) = match self.raw.ci_info(ci) {
                    Ok(info) => info,
                    // Destroyed by somebody else since it was listed.
                    Err(fault) if gone(&fault) || fault.is(code::INVALID_ARGUMENT) => continue,
                    Err(fault) => return Err(fault),
                };
                if !compute.iter().any(|(_, known)| known.id == id) {
                    compute.push((ci, ComputeInstance { id, uuid }));
                }
            }
        }
        compute.sort_by_key(|(_, instance)| instance.id);
        Ok(compute)
    }

    fn ci_profiles(
        &self,
        gpu: GpuHandle,
        gi: GiHandle,
        profile_id: u32,
    ) -> Result<Vec<CiProfileInfo>, Fault> {
        if let Some(profiles) = self.ci_profiles.borrow().get(&(gpu, profile_id)) {
            return Ok(profiles.clone());
        }
        let mut profiles = Vec::new();
        for profile in 0..CI_PROFILES {
            profiles.extend(self.raw.ci_profile(gi, profile)?);
        }
        self.ci_profiles.borrow_mut().insert((gpu, profile_id), profiles.clone());
        Ok(profiles)
    }

    /// Creates a GPU instance; returns its id.
    pub fn create_gpu_instance(&self, uuid: &str, profile_id: u32, at: Placement) -> Result<u32, Fault> {
        let gi = self.raw.create_gi(self.handle(uuid)?, profile_id, at)?;
        self.raw.gi_info(gi).map(|info| info.id)
    }

    /// Creates the compute instance that takes all of a GPU instance.
    pub fn create_compute_instance(
        &self,
        uuid: &str,
        gpu_instance: u32,
        multiprocessors: u32,
    ) -> Result<ComputeInstance, Fault> {
        let gpu = self.handle(uuid)?;
        let gi = self.raw.gi_by_id(gpu, gpu_instance)?;
        let profiles = self.ci_profiles(gpu, gi, self.raw.gi_info(gi)?.profile_id)?;
        // By size, not by number: which profile is the whole of a `1g` with double memory differs
        // between drivers, and the wrong one leaves multiprocessors unused.
        let whole = profiles.iter().find(|profile| profile.multiprocessors == multiprocessors);
        let Some(profile) = whole.or_else(|| profiles.iter().max_by_key(|profile| profile.multiprocessors))
        else {
            return Err(Fault::State(format!(
                "GPU instance {gpu_instance} of {uuid} has no compute instance profile"
            )));
        };
        let ci = self.raw.create_ci(gi, profile.id)?;
        let (id, uuid) = self.raw.ci_info(ci)?;
        Ok(ComputeInstance { id, uuid })
    }

    /// Destroys one compute instance; one that is gone counts as destroyed.
    pub fn destroy_compute_instance(&self, uuid: &str, gpu_instance: u32, id: u32) -> Result<(), Fault> {
        let gpu = self.handle(uuid)?;
        let gi = match self.raw.gi_by_id(gpu, gpu_instance) {
            Ok(gi) => gi,
            Err(fault) if gone(&fault) => return Ok(()),
            Err(fault) => return Err(fault),
        };
        let compute = self.compute(gpu, gi, self.raw.gi_info(gi)?.profile_id)?;
        let Some((ci, _)) = compute.into_iter().find(|(_, instance)| instance.id == id) else {
            return Ok(());
        };
        ok_if_gone(self.raw.destroy_ci(ci))
    }

    /// Destroys a GPU instance without compute instances; one that is gone counts as destroyed.
    pub fn destroy_gpu_instance(&self, uuid: &str, id: u32) -> Result<(), Fault> {
        match self.raw.gi_by_id(self.handle(uuid)?, id) {
            Ok(gi) => ok_if_gone(self.raw.destroy_gi(gi)),
            Err(fault) if gone(&fault) => Ok(()),
            Err(fault) => Err(fault),
        }
    }

    /// Switches MIG mode; fails unless the new mode is in force at once, and then takes the wish back.
    pub fn set_mig_mode(&self, uuid: &str, on: bool) -> Result<(), Fault> {
        let gpu = self.handle(uuid)?;
        let failed = match self.ask_mig_mode(gpu, on)? {
            0 => {
                let wanted = if on { MigMode::Enabled } else { MigMode::Disabled };
                match self.mig_mode(gpu)? {
                    mode if mode == wanted => return Ok(()),
                    mode => format!("MIG mode of {uuid} is {mode:?} after the switch, not {wanted:?}"),
                }
            }
            activation => format!(
                "MIG mode of {uuid} was not switched: the driver's activation status is {activation} \
                 (19: the GPU is in use, 16: it needs a reset)"
            ),
        };
        // The driver keeps the wish, and would fulfil it at the next reset; until then the GPU is no use.
        Err(Fault::State(match self.ask_mig_mode(gpu, !on) {
            Ok(_) => failed,
            Err(fault) => format!("{failed}; and the change could not be withdrawn: {fault}"),
        }))
    }

    /// Asks for a MIG mode; the answer is the activation status. The call succeeds also when the
    /// driver could only take a note of the wish.
    fn ask_mig_mode(&self, gpu: GpuHandle, on: bool) -> Result<u32, Fault> {
        self.raw.device(gpu).set_mig_mode(on).map_err(|error| Fault::of("nvmlDeviceSetMigMode", error))
    }

    /// The library's session, for the listing that also works without privileges.
    pub(crate) fn raw(&self) -> &Raw {
        &self.raw
    }
}

/// Name of an architecture, and whether it switches MIG mode without a reset.
///
/// The number decides: one newer than the names here is no less of a GPU.
fn architecture(answer: Result<DeviceArchitecture, NvmlError>) -> Result<(String, bool), Fault> {
    const UNKNOWN: &str = "unknown";
    match answer {
        Ok(DeviceArchitecture::Unknown) | Err(NvmlError::NotSupported) => Ok((UNKNOWN.to_owned(), false)),
        Ok(known) => Ok((format!("{known:?}").to_lowercase(), known.as_c() >= HOPPER)),
        Err(NvmlError::UnexpectedVariant(number)) => Ok((UNKNOWN.to_owned(), number >= HOPPER)),
        Err(error) => Err(Fault::of("nvmlDeviceGetArchitecture", error)),
    }
}

fn missing(uuid: &str) -> Fault {
    Fault::State(format!("no GPU of this node has the UUID {uuid}"))
}

fn gone(fault: &Fault) -> bool {
    // NOT_SUPPORTED: MIG is off, so nothing of it is left.
    fault.is(code::NOT_FOUND) || fault.is(code::NOT_SUPPORTED)
}

fn ok_if_gone(result: Result<(), Fault>) -> Result<(), Fault> {
    match result {
        Err(fault) if gone(&fault) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_architecture_without_a_name_is_judged_by_its_number() {
        let of = |answer| architecture(answer).unwrap();
        assert_eq!(of(Ok(DeviceArchitecture::Hopper)), ("hopper".to_owned(), true));
        assert_eq!(of(Ok(DeviceArchitecture::Ampere)), ("ampere".to_owned(), false));
        assert_eq!(of(Err(NvmlError::UnexpectedVariant(HOPPER + 3))), ("unknown".to_owned(), true));
        assert_eq!(of(Ok(DeviceArchitecture::Unknown)), ("unknown".to_owned(), false));
        assert_eq!(of(Err(NvmlError::NotSupported)), ("unknown".to_owned(), false));
        architecture(Err(NvmlError::GpuLost)).unwrap_err();
    }
}
