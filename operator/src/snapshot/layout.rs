//! The GPUs as the published slices describe them, and which of their devices
//! a selector selects. It changes when slices do, not when something is held.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use vingt_core::model::{Device, DeviceIndex, DeviceSet, Devices, Gpu, GpuIndex, NodeIndex};
use vingt_core::{Counter, charge};
use vingt_crds::DecidedDevice;
use vingt_crds::names::device;

use super::selector::Selector;
use crate::world::{self, Attribute, Cache, Slice};

/// Devices of one GPU beyond this number are left out: a set of them is one word.
const MAX_DEVICES: usize = 64;

/// Answers to selectors beyond this number are dropped when they are not used.
const KEPT_SELECTIONS: usize = 64;

/// All GPUs.
#[derive(Default)]
pub struct Layout {
    /// The [`Cache::changes`] of the slices it was made of.
    made_of: Option<u64>,
    /// The nodes that publish GPUs, in order.
    pub nodes: Vec<String>,
    /// Their indexes, by name.
    pub node_index: BTreeMap<String, NodeIndex>,
    /// Whether the newest generation of a node's pool is complete.
    pub complete: Vec<bool>,
    /// The GPUs, those of a node together.
    pub gpus: Vec<Gpu>,
    /// What no device takes of each counter of a GPU: somebody else has it.
    pub others: Vec<Vec<u64>>,
    /// Devices by pool and name.
    by_name: HashMap<String, HashMap<String, DeviceIndex>>,
    /// Where the description of a device is, by GPU and device.
    described: Vec<Vec<(Arc<Slice>, usize)>>,
    /// The different lists of devices, by the name of the first of them.
    lists: BTreeMap<String, Vec<Devices>>,
    /// Answers to [`Layout::select`], and whether they were asked for since the last [`Layout::tidy`].
    selections: BTreeMap<Vec<String>, (Result<Selection, String>, bool)>,
    /// Sets that selections refer to.
    pub sets: Vec<DeviceSet>,
}

/// The devices that a list of selectors selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Index into [`Layout::sets`].
    pub set: usize,
    /// What the devices are called, if all are called the same.
    pub kind: Option<String>,
    /// Whether all are partitions.
    pub partitions: bool,
}

impl Layout {
    /// Makes it anew if the slices have changed.
    pub fn refresh(&mut self, slices: &Cache<Slice>) {
        if self.made_of != Some(slices.changes()) {
            *self = Self::of(slices);
        }
    }

    /// The GPUs that `slices` describe.
    pub fn of(slices: &Cache<Slice>) -> Self {
        let mut pools: BTreeMap<&str, Vec<&Arc<Slice>>> = BTreeMap::new();
        for (_, slice) in slices.iter() {
            // A pool of vingt's is a node's and has its name.
            if slice.node.as_deref() == Some(slice.pool.as_str()) {
                pools.entry(&slice.pool).or_default().push(slice);
            }
        }
        let mut layout = Self { made_of: Some(slices.changes()), ..Self::default() };
        for (pool, slices) in pools {
            layout.add_pool(pool, &slices);
        }
        layout
    }

    fn add_pool(&mut self, pool: &str, slices: &[&Arc<Slice>]) {
        let newest = slices.iter().map(|slice| slice.generation).max().unwrap_or(0);
        let slices: Vec<_> = slices.iter().filter(|slice| slice.generation == newest).collect();
        let complete = slices.iter().all(|slice| slice.slices == slices.len());
        let node = NodeIndex(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push(pool.to_owned());
        self.node_index.insert(pool.to_owned(), node);
        self.complete.push(complete);

        let counters: BTreeMap<&String, &BTreeMap<String, u64>> =
            slices.iter().flat_map(|s| &s.counters).collect();
        let mut devices: BTreeMap<&str, Vec<(Arc<Slice>, usize)>> = BTreeMap::new();
        for slice in &slices {
            for (index, device) in slice.devices.iter().enumerate() {
                devices.entry(&device.gpu).or_default().push(((**slice).clone(), index));
            }
        }
        let names = self.by_name.entry(pool.to_owned()).or_default();
        for (name, mut described) in devices {
            let Some(capacity) = counters.get(&name.to_owned()) else { continue };
            described.truncate(MAX_DEVICES);
            let gpu = GpuIndex(u32::try_from(self.gpus.len()).unwrap_or(u32::MAX));
            for (index, (slice, at)) in described.iter().enumerate() {
                let device = DeviceIndex { gpu, device: u8::try_from(index).unwrap_or(u8::MAX) };
                names.insert(slice.devices[*at].name.clone(), device);
            }
            let devices: Vec<Device> =
                described.iter().map(|(slice, at)| device_of(&slice.devices[*at], capacity)).collect();
            let capacity: Vec<u64> = capacity.values().copied().collect();
            let others = others(&capacity, &devices);
            self.gpus.push(Gpu {
                node,
                name: name.to_owned(),
                used: others.clone(),
                capacity,
                held: 0,
                devices: shared(&mut self.lists, devices),
                blocked: !complete,
            });
            self.others.push(others);
            self.described.push(described);
        }
    }

    /// What people call a published device: `gpu`, or its MIG profile.
    pub fn kind(&self, pool: &str, device: &str) -> Option<&str> {
        let at = self.find(pool, device)?;
        let device = self.gpus.get(at.gpu.0 as usize)?.devices.get(usize::from(at.device))?;
        Some(&device.kind)
    }

    /// The device of that name.
    pub fn find(&self, pool: &str, device: &str) -> Option<DeviceIndex> {
        self.by_name.get(pool)?.get(device).copied()
    }

    /// Drops the answers that nobody has asked for since the last time; what
    /// refers to [`Layout::sets`] is void then.
    pub fn tidy(&mut self) {
        if self.selections.len() <= KEPT_SELECTIONS {
            return;
        }
        let old = std::mem::take(&mut self.sets);
        for (selectors, (answer, used)) in std::mem::take(&mut self.selections) {
            if !used {
                continue;
            }
            let answer = answer.map(|selection| {
                self.sets.push(old[selection.set].clone());
                Selection { set: self.sets.len() - 1, ..selection }
            });
            self.selections.insert(selectors, (answer, false));
        }
    }

    /// The GPU that cannot hold what is planned beside what is held, if there is
    /// one. Devices that are not published are left out.
    pub fn overfull(
        &self,
        planned: impl Iterator<Item = DecidedDevice>,
        held: impl Iterator<Item = DecidedDevice>,
    ) -> Option<String> {
        let mut used: BTreeMap<GpuIndex, Vec<u64>> = BTreeMap::new();
        for (device, planned) in
            planned.map(|device| (device, true)).chain(held.map(|device| (device, false)))
        {
            let Some(at) = self.find(&device.pool, &device.device) else { continue };
            let Some(gpu) = self.gpus.get(at.gpu.0 as usize) else { continue };
            // What is amiss elsewhere is no reason not to carry this plan out.
            if !planned && !used.contains_key(&at.gpu) {
                continue;
            }
            let used = used.entry(at.gpu).or_insert_with(|| vec![0; gpu.capacity.len()]);
            let consumed = gpu.devices.get(usize::from(at.device)).map(|device| device.consumes.as_slice());
            for ((used, consumed), capacity) in
                used.iter_mut().zip(consumed.unwrap_or_default()).zip(&gpu.capacity)
            {
                *used = used.saturating_add(*consumed);
                if *used > *capacity {
                    return Some(format!("{}/{}", device.pool, gpu.name));
                }
            }
        }
        None
    }

    /// The devices that all of `selectors` select; the error says what is not supported.
    pub fn select(&mut self, selectors: &[String]) -> Result<Selection, String> {
        if let Some((known, used)) = self.selections.get_mut(selectors) {
            *used = true;
            return known.clone();
        }
        let answer = self.evaluate(selectors);
        self.selections.insert(selectors.to_vec(), (answer.clone(), true));
        answer
    }

    fn evaluate(&mut self, selectors: &[String]) -> Result<Selection, String> {
        let selectors: Vec<Selector> =
            selectors.iter().map(|text| Selector::compile(text)).collect::<Result<_, _>>()?;
        let personal = selectors.iter().any(Selector::personal);
        let mut known: HashMap<(usize, usize), bool> = HashMap::new();
        let mut set = DeviceSet(vec![0; self.described.len()]);
        let (mut kinds, mut partitions) = (Vec::new(), true);
        for (described, mask) in self.described.iter().zip(&mut set.0) {
            for (index, (slice, at)) in described.iter().enumerate() {
                let device = &slice.devices[*at];
                let identity = if personal { Arc::as_ptr(&device.identity) as usize } else { 0 };
                let like = (Arc::as_ptr(&device.traits) as usize, identity);
                let selected = if let Some(selected) = known.get(&like) {
                    *selected
                } else {
                    let selected = device.traits.unusable.is_none() && all_match(&selectors, device)?;
                    known.insert(like, selected);
                    selected
                };
                if selected {
                    *mask |= 1 << index;
                    let kind = kind(device);
                    partitions &= kind != "gpu";
                    if !kinds.contains(&kind) {
                        kinds.push(kind);
                    }
                }
            }
        }
        self.sets.push(set);
        let kind = if kinds.len() == 1 { kinds.pop() } else { None };
        Ok(Selection { set: self.sets.len() - 1, kind, partitions })
    }
}

fn all_match(selectors: &[Selector], device: &world::Device) -> Result<bool, String> {
    for selector in selectors {
        if !selector.matches(device)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The counters that no device takes anything of are others': an agent publishes no device in their
/// space, and the counters whole.
fn others(capacity: &[u64], devices: &[Device]) -> Vec<u64> {
    let wanted = |counter: usize| devices.iter().any(|device| device.consumes[counter] > 0);
    (0..).zip(capacity).map(|(counter, all)| if wanted(counter) { 0 } else { *all }).collect()
}

/// What people call a device: `gpu`, or its MIG profile.
fn kind(device: &world::Device) -> String {
    let text = |name| match device.traits.own(name) {
        Some(Attribute::Text(text)) => Some(text.clone()),
        _ => None,
    };
    text(device::PROFILE).or_else(|| text(device::TYPE)).unwrap_or_else(|| device.name.clone())
}

/// The list itself, or the same that an earlier GPU has: names repeat from node to node.
fn shared(lists: &mut BTreeMap<String, Vec<Devices>>, devices: Vec<Device>) -> Devices {
    let Some(first) = devices.first() else { return Devices::default() };
    let lists = lists.entry(first.name.clone()).or_default();
    if let Some(known) = lists.iter().find(|known| ***known == devices) {
        return known.clone();
    }
    let devices = Devices::from(devices);
    lists.push(devices.clone());
    devices
}

fn device_of(device: &world::Device, capacity: &BTreeMap<String, u64>) -> Device {
    let consumes = |name: &String| device.traits.consumes.get(name).copied().unwrap_or(0);
    let counters = capacity.iter().map(|(name, capacity)| Counter {
        name,
        capacity: *capacity,
        consumes: consumes(name),
    });
    // A device that consumes a counter the GPU does not have can never be allocated.
    let known = device.traits.consumes.keys().all(|name| capacity.contains_key(name));
    Device {
        name: device.name.clone(),
        kind: kind(device),
        consumes: capacity.keys().map(consumes).collect(),
        units: charge(counters),
        memory_bytes: device.traits.own_capacity(device::MEMORY).unwrap_or(0),
        tainted: device.tainted || !known || device.traits.unusable.is_some(),
    }
}

#[cfg(test)]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::world::{Change, Delta, Key, View, World};

    /// A partition of GPU `minor` with the memory slices given.
    pub fn partition(minor: u32, profile: &str, compute: u64, memory: std::ops::Range<u64>) -> Value {
        let mut counters = json!({"compute-slices": {"value": compute.to_string()}});
        for slice in memory.clone() {
            counters[format!("memory-slice-{slice}")] = json!({"value": "1"});
        }
        json!({"name": format!("gpu-{minor}-mig-{}-{}", profile.replace('.', ""), memory.start),
            "attributes": {"type": {"string": "mig"}, "profile": {"string": profile}, "minor": {"int": minor}},
            "capacity": {"memory": {"value": format!("{}Gi", 10 * (memory.end - memory.start))}},
            "taints": [{"key": "vingt.dev/managed", "effect": "NoSchedule"}],
            "consumesCounters": [{"counterSet": format!("gpu-{minor}"), "counters": counters}]})
    }

    /// The slices of a node with `gpus` GPUs, each of which can be two 3g.40gb or one 7g.80gb.
    pub fn slices(node: &str, gpus: u32, generation: i64) -> Vec<Value> {
        let mut counters = json!({"compute-slices": {"value": "7"}});
        for slice in 0..8 {
            counters[format!("memory-slice-{slice}")] = json!({"value": "1"});
        }
        let pool = json!({"name": node, "generation": generation, "resourceSliceCount": gpus + 1});
        let slice = |name: String, mut spec: Value| {
            spec["driver"] = json!("gpu.vingt.dev");
            spec["nodeName"] = json!(node);
            spec["pool"] = pool.clone();
            json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice",
                "metadata": {"name": format!("{node}-{name}"), "resourceVersion": "1"}, "spec": spec})
        };
        let sets: Vec<_> =
            (0..gpus).map(|minor| json!({"name": format!("gpu-{minor}"), "counters": counters})).collect();
        let mut all = vec![slice("counters".into(), json!({"sharedCounters": sets}))];
        for minor in 0..gpus {
            let devices = [
                partition(minor, "3g.40gb", 3, 0..4),
                partition(minor, "3g.40gb", 3, 4..8),
                partition(minor, "7g.80gb", 7, 0..8),
            ];
            all.push(slice(minor.to_string(), json!({"devices": devices})));
        }
        all
    }

    /// Puts objects into `world` as a list of their kind.
    pub fn list<V: View>(world: &mut World, objects: impl IntoIterator<Item = Value>) {
        let parsed = objects.into_iter().map(|value| {
            let object: kube::api::DynamicObject = serde_json::from_value(value).unwrap();
            let key = Key::of(&object.metadata);
            (key, world::version(&object.metadata), Arc::new(V::parse(object).unwrap()))
        });
        let change: Change = V::change(Delta::Listed(parsed.collect()));
        world.apply(change);
    }

    fn layout(slices: Vec<Value>) -> Layout {
        let mut world = World::default();
        list::<Slice>(&mut world, slices);
        Layout::of(&world.slices)
    }

    #[test]
    fn gpus_are_read_from_the_counters() {
        let layout = layout([slices("b", 1, 1), slices("a", 2, 4)].concat());
        assert_eq!(layout.nodes, ["a", "b"]);
        assert_eq!(
            layout.gpus.iter().map(|gpu| (gpu.node.0, gpu.name.as_str())).collect::<Vec<_>>(),
            [(0, "gpu-0"), (0, "gpu-1"), (1, "gpu-0")]
        );
        let gpu = &layout.gpus[0];
        assert_eq!((gpu.capacity.len(), gpu.blocked), (9, false));
        assert_eq!(gpu.devices.iter().map(|device| device.units).collect::<Vec<_>>(), [28, 28, 56]);
        assert!(gpu.devices.iter().all(|device| !device.tainted), "the fence is no taint");
        let found = layout.find("b", "gpu-0-mig-3g40gb-4");
        assert_eq!(found, Some(DeviceIndex { gpu: GpuIndex(2), device: 1 }));
    }

    #[test]
    fn space_without_devices_is_in_use_and_the_rest_costs_no_more_for_it() {
        let mut slices = slices("a", 1, 1);
        slices[1]["spec"]["devices"] = json!([partition(0, "3g.40gb", 3, 0..4)]);
        let gpu = &layout(slices).gpus[0];
        assert_eq!(gpu.devices[0].units, 28, "half of a GPU of which others have the other half");
        assert_eq!(gpu.used, [0, 0, 0, 0, 0, 1, 1, 1, 1]);
        assert!(layout(self::slices("a", 1, 1)).gpus[0].used.iter().all(|used| *used == 0));
    }

    #[test]
    fn only_the_newest_complete_generation_is_allocated_from() {
        let mut newer = slices("a", 2, 5);
        newer.remove(1);
        let half = layout([slices("a", 1, 4), newer].concat());
        assert_eq!(half.complete, [false]);
        assert!(half.gpus.iter().all(|gpu| gpu.blocked) && !half.gpus.is_empty());
    }

    #[test]
    fn devices_that_overlap_do_not_fit_a_gpu_together() {
        let layout = layout(slices("a", 2, 1));
        let device = |gpu: u32, name: &str| DecidedDevice {
            request: "gpu".into(),
            pool: "a".into(),
            device: format!("gpu-{gpu}-mig-{name}"),
        };
        let overfull = |planned: &[DecidedDevice], held: &[DecidedDevice]| {
            layout.overfull(planned.iter().cloned(), held.iter().cloned())
        };
        let (left, right) = (device(0, "3g40gb-0"), device(0, "3g40gb-4"));
        assert_eq!(overfull(&[left.clone(), right.clone(), device(1, "7g80gb-0")], &[]), None);
        assert_eq!(overfull(std::slice::from_ref(&left), &[right]), None);
        assert_eq!(overfull(std::slice::from_ref(&left), &[device(0, "7g80gb-0")]), Some("a/gpu-0".into()));
        assert_eq!(overfull(&[left.clone(), left.clone()], &[]), Some("a/gpu-0".into()));
        let amiss = [device(1, "3g40gb-0"), device(1, "7g80gb-0")];
        assert_eq!(overfull(&[left], &amiss), None, "another GPU does not matter");
    }

    #[test]
    fn selections_are_sets_of_devices() {
        let mut layout = layout(slices("a", 2, 1));
        let profile = |profile: &str| format!(r#"device.attributes["gpu.vingt.dev"].profile == "{profile}""#);
        let half = layout.select(&[profile("3g.40gb")]).unwrap();
        assert_eq!((half.kind.as_deref(), half.partitions), (Some("3g.40gb"), true));
        assert_eq!(layout.sets[half.set].0, [0b011, 0b011]);
        let one = layout
            .select(&[profile("3g.40gb"), r#"device.attributes["gpu.vingt.dev"].minor == 1"#.into()])
            .unwrap();
        assert_eq!(layout.sets[one.set].0, [0, 0b011]);
        let memory = layout
            .select(&[r#"device.capacity["gpu.vingt.dev"].memory.compareTo(quantity("50Gi")) > 0"#.into()]);
        let memory = memory.unwrap();
        assert_eq!(
            (memory.kind.as_deref(), &layout.sets[memory.set].0),
            (Some("7g.80gb"), &vec![0b100, 0b100])
        );
        assert!(layout.select(&["device.wrong(".into()]).is_err());
        assert_eq!(layout.select(&[profile("3g.40gb")]).unwrap(), half, "asked again, the same set");

        for number in 0..100 {
            layout.select(&[profile(&number.to_string())]).unwrap();
        }
        layout.tidy();
        let kept = layout.select(&[profile("7")]).unwrap();
        layout.tidy();
        assert_eq!((layout.selections.len(), layout.sets.len()), (1, 1), "what nobody asks for is dropped");
        assert_eq!(layout.select(&[profile("7")]).unwrap().set, 0);
        assert_ne!(kept.set, 0);
    }
}
