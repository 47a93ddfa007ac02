//! The slices that the agents publish, trimmed: most devices of a cluster look
//! alike, so what they have in common is kept once.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use k8s_openapi::api::resource::v1::{self as resource, DeviceAttribute, ResourceSliceSpec};
use kube::api::DynamicObject;
use serde::Deserialize;
use vingt_crds::names::{self, device};

use super::{Change, Delta, View};
use crate::quantity::Amount;

/// One slice of a pool.
#[derive(Debug)]
pub struct Slice {
    /// Its pool; the node's name.
    pub pool: String,
    /// The node; `None` if the slice is not of one node.
    pub node: Option<String>,
    /// Generation of the pool it belongs to.
    pub generation: i64,
    /// How many slices the pool has in this generation.
    pub slices: usize,
    /// Counters, by set.
    pub counters: BTreeMap<String, BTreeMap<String, u64>>,
    /// Devices.
    pub devices: Vec<Device>,
}

/// One device.
#[derive(Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// What tells it from its like on other GPUs: its UUIDs and its minor number.
    pub identity: Arc<BTreeMap<String, Attribute>>,
    /// The rest of what it is.
    pub traits: Arc<Traits>,
    /// The counter set it consumes from; its GPU.
    pub gpu: String,
    /// Whether a taint other than the fence keeps new allocations away.
    pub tainted: bool,
}

/// What a device has in common with its like.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Traits {
    /// Attributes by full name (`domain/name`).
    pub attributes: BTreeMap<String, Attribute>,
    /// Capacities by full name, as written.
    pub capacity: BTreeMap<String, String>,
    /// What it consumes of the counters of its set.
    pub consumes: BTreeMap<String, u64>,
    /// Why it is never allocated (it has a form that is not served), if so.
    pub unusable: Option<&'static str>,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Attribute {
    /// A number.
    Int(i64),
    /// True or false.
    Bool(bool),
    /// A text.
    Text(String),
    /// A semantic version.
    Version(String),
    /// A form that is not known here, such as a list.
    Other,
}

impl Traits {
    /// An attribute of vingt's own domain.
    pub fn own(&self, name: &str) -> Option<&Attribute> {
        self.attributes.get(&qualified(name))
    }

    /// A capacity of vingt's own domain, in units.
    pub fn own_capacity(&self, name: &str) -> Option<u64> {
        let text = self.capacity.get(&qualified(name))?;
        Amount::parse(text).ok().map(Amount::units)
    }
}

/// The full name of an attribute or capacity: its own domain is the driver's.
pub fn qualified(name: &str) -> String {
    if name.contains('/') { name.to_owned() } else { format!("{}/{name}", names::DRIVER) }
}

#[derive(Deserialize)]
struct SliceBody {
    spec: ResourceSliceSpec,
}

impl View for Slice {
    fn parse(object: DynamicObject) -> Result<Self, serde_json::Error> {
        let SliceBody { spec } = serde_json::from_value(object.data)?;
        let sets = spec.shared_counters.into_iter().flatten();
        Ok(Self {
            pool: spec.pool.name,
            node: spec.node_name,
            generation: spec.pool.generation,
            slices: usize::try_from(spec.pool.resource_slice_count).unwrap_or(0),
            counters: sets.map(|set| (set.name, counters(set.counters))).collect(),
            devices: spec.devices.into_iter().flatten().map(read_device).collect(),
        })
    }

    fn change(delta: Delta<Self>) -> Change {
        Change::Slice(delta)
    }
}

fn counters(counters: BTreeMap<String, resource::Counter>) -> BTreeMap<String, u64> {
    counters
        .into_iter()
        .map(|(name, counter)| (name, Amount::parse(&counter.value.0).map_or(0, Amount::units)))
        .collect()
}

fn read_device(device: resource::Device) -> Device {
    let unusable = unusable(&device);
    let attributes =
        device.attributes.into_iter().flatten().map(|(name, value)| (qualified(&name), attribute(value)));
    let personal = [device::UUID, device::PARENT_UUID, device::MINOR].map(qualified);
    let (identity, attributes) = attributes.partition(|(name, _)| personal.contains(name));
    let capacity =
        device.capacity.into_iter().flatten().map(|(name, value)| (qualified(&name), value.value.0));
    let of_set = device.consumes_counters.into_iter().flatten().next();
    let (gpu, consumes) = of_set.map(|from| (from.counter_set, counters(from.counters))).unwrap_or_default();
    let fence = |taint: &resource::DeviceTaint| taint.key == names::FENCE_TAINT || taint.effect == "None";
    Device {
        name: device.name,
        identity: intern(&IDENTITIES, identity),
        traits: intern(&TRAITS, Traits { attributes, capacity: capacity.collect(), consumes, unusable }),
        gpu,
        tainted: !device.taints.iter().flatten().all(fence),
    }
}

/// Forms of devices that vingt's agents do not publish, and that would be allocated wrongly if they did.
fn unusable(device: &resource::Device) -> Option<&'static str> {
    if device.consumes_counters.as_ref().map_or(0, Vec::len) != 1 {
        return Some("it does not consume exactly one counter set");
    }
    if device.binding_conditions.as_ref().is_some_and(|conditions| !conditions.is_empty()) {
        return Some("it has binding conditions");
    }
    if device.allow_multiple_allocations == Some(true) {
        return Some("it allows several allocations");
    }
    None
}

fn attribute(value: DeviceAttribute) -> Attribute {
    match value {
        DeviceAttribute { int: Some(value), .. } => Attribute::Int(value),
        DeviceAttribute { bool: Some(value), .. } => Attribute::Bool(value),
        DeviceAttribute { string: Some(value), .. } => Attribute::Text(value),
        DeviceAttribute { version: Some(value), .. } => Attribute::Version(value),
        _ => Attribute::Other,
    }
}

type Pool<T> = LazyLock<Mutex<HashSet<Arc<T>>>>;

static TRAITS: Pool<Traits> = LazyLock::new(Mutex::default);
static IDENTITIES: Pool<BTreeMap<String, Attribute>> = LazyLock::new(Mutex::default);

/// The one copy of a value; copies that nobody uses any more are dropped now and then.
fn intern<T: Eq + std::hash::Hash>(pool: &Pool<T>, value: T) -> Arc<T> {
    let mut pool = pool.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = pool.get(&value) {
        return known.clone();
    }
    if pool.len() == pool.capacity() {
        pool.retain(|value| Arc::strong_count(value) > 1);
    }
    let value = Arc::new(value);
    pool.insert(value.clone());
    value
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_slice_is_read_and_its_devices_share_what_is_the_same() {
        let device = |name: &str, uuid: &str, taints: serde_json::Value| {
            json!({"name": name, "taints": taints,
                "attributes": {"type": {"string": "mig"}, "parentUUID": {"string": uuid}, "driverVersion": {"version": "570.1.2"}},
                "capacity": {"memory": {"value": "10Gi"}},
                "consumesCounters": [{"counterSet": "gpu-0", "counters": {"memory-slice-0": {"value": "1"}}}]})
        };
        let fence = json!({"key": "vingt.dev/managed", "effect": "NoSchedule"});
        let sick = json!({"key": "gpu.vingt.dev/xid", "effect": "NoExecute"});
        let slice = json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"},
            "spec": {"driver": "gpu.vingt.dev", "nodeName": "n",
                "pool": {"name": "n", "generation": 3, "resourceSliceCount": 2},
                "devices": [device("a", "u1", json!([fence])), device("b", "u2", json!([fence, sick]))]}});
        let slice = Slice::parse(serde_json::from_value(slice).unwrap()).unwrap();
        assert_eq!((slice.pool.as_str(), slice.generation, slice.slices), ("n", 3, 2));
        let [a, b] = &slice.devices[..] else { panic!("two devices") };
        assert!(Arc::ptr_eq(&a.traits, &b.traits), "they differ by the GPU only");
        assert_ne!(a.identity, b.identity);
        assert_eq!((a.tainted, b.tainted), (false, true));
        assert_eq!(a.traits.own("type"), Some(&Attribute::Text("mig".into())));
        assert_eq!(a.traits.own_capacity("memory"), Some(10 << 30));
        assert_eq!(a.traits.consumes, [("memory-slice-0".to_owned(), 1)].into());
        assert_eq!((a.gpu.as_str(), a.traits.unusable), ("gpu-0", None));
    }
}
