//! The pool as `ResourceSlice` objects, with the names and limits of the API.

use std::collections::BTreeMap;

use k8s_openapi::api::resource::v1::{DeviceAttribute, ResourcePool, ResourceSlice, ResourceSliceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use vingt_crds::names;

use super::Pool;
use crate::nvml::Gpu;

/// The API's limit of counter sets in one slice.
const COUNTER_SETS_PER_SLICE: usize = 8;
/// The API's limit of devices with counters in one slice.
const DEVICES_PER_SLICE: usize = 64;
/// The API's limit of an attribute's string value, in bytes.
const LONGEST_STRING: usize = 64;

pub(super) type Attributes = BTreeMap<String, DeviceAttribute>;

/// The slices of a pool: counter sets first, then the devices of each GPU; all of one generation.
pub fn slices(pool: &Pool, node: &str, owner: &OwnerReference, generation: i64) -> Vec<ResourceSlice> {
    let mut specs = Vec::new();
    for (index, sets) in pool.counter_sets.chunks(COUNTER_SETS_PER_SLICE).enumerate() {
        let spec = ResourceSliceSpec { shared_counters: Some(sets.to_vec()), ..Default::default() };
        specs.push((format!("counters-{index}"), spec));
    }
    for (minor, devices) in &pool.devices {
        for (index, devices) in devices.chunks(DEVICES_PER_SLICE).enumerate() {
            let suffix = if index == 0 { format!("gpu-{minor}") } else { format!("gpu-{minor}-{index}") };
            specs.push((suffix, ResourceSliceSpec { devices: Some(devices.to_vec()), ..Default::default() }));
        }
    }
    let count = i64::try_from(specs.len()).unwrap_or(i64::MAX);
    let slice = |(suffix, spec): (String, ResourceSliceSpec)| ResourceSlice {
        metadata: ObjectMeta {
            name: Some(format!("{node}-{}-{suffix}", names::DRIVER)),
            owner_references: Some(vec![owner.clone()]),
            ..Default::default()
        },
        spec: ResourceSliceSpec {
            driver: names::DRIVER.to_owned(),
            node_name: Some(node.to_owned()),
            pool: ResourcePool { name: node.to_owned(), generation, resource_slice_count: count },
            ..spec
        },
    };
    specs.into_iter().map(slice).collect()
}

/// What a GPU's partitions have in common with the whole.
pub(super) fn common_attributes(gpu: &Gpu) -> Attributes {
    let mut attributes = Attributes::from([
        int(names::device::MINOR, gpu.minor),
        string(names::device::PRODUCT_NAME, &gpu.product),
        string(names::device::ARCHITECTURE, &gpu.architecture),
        string("brand", &gpu.brand),
    ]);
    for (name, text) in
        [("driverVersion", &gpu.driver_version), ("cudaComputeCapability", &gpu.compute_capability)]
    {
        if let Some(version) = semantic(text) {
            let attribute = DeviceAttribute { version: Some(version), ..Default::default() };
            attributes.insert(name.to_owned(), attribute);
        }
    }
    attributes
}

pub(super) fn string(name: &str, value: &str) -> (String, DeviceAttribute) {
    let end =
        (0..=LONGEST_STRING.min(value.len())).rev().find(|end| value.is_char_boundary(*end)).unwrap_or(0);
    (name.to_owned(), DeviceAttribute { string: Some(value[..end].to_owned()), ..Default::default() })
}

pub(super) fn int(name: &str, value: u32) -> (String, DeviceAttribute) {
    (name.to_owned(), DeviceAttribute { int: Some(value.into()), ..Default::default() })
}

/// A dotted version as the API wants it: three numbers without leading zeros.
fn semantic(version: &str) -> Option<String> {
    let mut numbers: Vec<u64> = version.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    if numbers.len() > 3 {
        return None;
    }
    numbers.resize(3, 0);
    Some(numbers.iter().map(u64::to_string).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_padded_and_cleared_of_zeros() {
        assert_eq!(semantic("570.169").as_deref(), Some("570.169.0"));
        assert_eq!(semantic("580.65.06").as_deref(), Some("580.65.6"));
        assert_eq!(semantic("r570-beta"), None);
    }

    #[test]
    fn long_strings_are_cut_at_a_character() {
        let (_, attribute) = string("productName", &"é".repeat(40));
        assert_eq!(attribute.string.unwrap().len(), 64);
    }
}
