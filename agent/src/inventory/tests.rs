//! What is published for which GPU.

use std::collections::BTreeSet;

use k8s_openapi::api::resource::v1::{Device, ResourceSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;

use super::fixtures::{h100, instance};
use super::*;

fn published(gpu: Gpu, ours: &[Target], switch: bool) -> Pool {
    let inventory = Inventory { gpus: vec![gpu], unreadable: Vec::new() };
    pool(&inventory, &ours.iter().cloned().collect(), switch)
}

fn device_names(pool: &Pool) -> Vec<String> {
    pool.devices.values().flatten().map(|device| device.name.clone()).collect()
}

fn reasons(pool: &Pool) -> Vec<&'static str> {
    pool.withheld.iter().map(|withheld| withheld.reason).collect()
}

fn counter(pool: &Pool, name: &str) -> String {
    pool.counter_sets[0].counters[name].value.0.clone()
}

fn target(name: &str) -> Target {
    Target::of(name, &Inventory { gpus: vec![h100(0)], unreadable: Vec::new() }).unwrap()
}

#[test]
fn a_gpu_in_mig_mode_publishes_its_25_partitions_only() {
    let pool = published(h100(0), &[], false);
    let names = device_names(&pool);
    assert_eq!(names.len(), 25);
    assert!(names.contains(&"gpu-0-mig-1g10gb-19-3".to_owned()), "{names:?}");
    assert!(!names.contains(&"gpu-0".to_owned()));
    assert!(pool.withheld.is_empty());
    let device = pool.devices[&0].iter().find(|device| device.name == "gpu-0-mig-3g40gb-9-4").unwrap();
    insta::assert_yaml_snapshot!("partition", device);
    insta::assert_yaml_snapshot!("counter_set", pool.counter_sets[0]);
}

#[test]
fn a_gpu_without_mig_mode_publishes_the_whole_only() {
    let gpu = Gpu { mig: MigMode::Disabled, ..h100(0) };
    let pool = published(gpu, &[], false);
    assert_eq!(device_names(&pool), ["gpu-0"]);
    let whole = &pool.devices[&0][0];
    // It takes everything that the counters have.
    assert_eq!(whole.consumes_counters.as_ref().unwrap()[0].counters, pool.counter_sets[0].counters);
    insta::assert_yaml_snapshot!("whole", whole);
}

#[test]
fn both_forms_are_published_only_where_the_mode_may_and_can_be_switched() {
    let off = Gpu { mig: MigMode::Disabled, ..h100(0) };
    assert_eq!(device_names(&published(off.clone(), &[], true)).len(), 26);
    assert_eq!(device_names(&published(h100(0), &[], true)).len(), 26);
    let ampere = Gpu { switches_mig_live: false, ..off };
    assert_eq!(device_names(&published(ampere, &[], true)), ["gpu-0"]);
}

#[test]
fn a_gpu_without_mig_is_one_piece() {
    let gpu = Gpu { mig: MigMode::Unsupported, profiles: Vec::new(), ..h100(0) };
    let pool = published(gpu, &[], true);
    assert_eq!(device_names(&pool), ["gpu-0"]);
    assert_eq!(counter(&pool, "memory-slice-0"), "1");
    assert_eq!(counter(&pool, "compute-slices"), "1");
}

#[test]
fn a_change_of_mode_that_waits_for_a_reset_withholds_the_gpu() {
    let pool = published(Gpu { mig: MigMode::Pending, ..h100(0) }, &[], true);
    assert!(pool.devices.is_empty() && pool.counter_sets.is_empty());
    assert_eq!(reasons(&pool), ["mode-pending"]);
}

#[test]
fn a_gpu_in_use_by_others_is_published_when_it_is_free() {
    let busy = Gpu { mig: MigMode::Disabled, processes: 2, ..h100(0) };
    let pool = published(busy.clone(), &[], true);
    assert!(pool.devices.is_empty());
    assert_eq!(reasons(&pool), ["in-use"]);
    // In use by a claim of ours it stays published.
    assert_eq!(device_names(&published(busy, &[target("gpu-0")], false)), ["gpu-0"]);
}

#[test]
fn the_space_of_partitions_that_others_made_is_not_published() {
    let mut gpu = h100(0);
    gpu.instances = vec![instance(1, 9, 0, 4), instance(7, 20, 5, 1)];
    let pool = published(gpu.clone(), &[], true);
    assert_eq!(pool.foreign_partitions, 2);
    assert_eq!(reasons(&pool), ["foreign-partition"]);
    // Left are memory slices 4, 6 and 7; the one optical flow accelerator is taken.
    let expected = ["gpu-0-mig-1g10gb-19-4", "gpu-0-mig-1g10gb-19-6", "gpu-0-mig-1g20gb-15-6"];
    assert_eq!(device_names(&pool), expected);
    let slices = ["0", "1", "2", "3", "4", "5", "6", "7"]
        .map(|slice| counter(&pool, &format!("memory-slice-{slice}")));
    assert_eq!(slices, ["1"; 8], "shares are reckoned from all of them");
    assert_eq!(counter(&pool, "ofa-engines"), "0");
    assert_eq!(counter(&pool, "multiprocessors"), (132 - 60 - 16).to_string());
    assert_eq!(counter(&pool, "compute-slices"), "7");

    // The same partitions, made for claims of ours, change nothing.
    let ours = [target("gpu-0-mig-3g40gb-9-0"), target("gpu-0-mig-1g10gb-me-20-5")];
    assert_eq!(device_names(&published(gpu, &ours, false)).len(), 25);
}

#[test]
fn an_unreadable_gpu_hides_no_other() {
    let unreadable = crate::nvml::Unreadable { index: 1, why: "lost".to_owned() };
    let inventory = Inventory { gpus: vec![h100(0)], unreadable: vec![unreadable] };
    let pool = pool(&inventory, &BTreeSet::new(), false);
    assert_eq!(device_names(&pool).len(), 25);
    assert_eq!(reasons(&pool), ["unreadable"]);
}

/// Every set of partitions that the hardware can hold must fit the counters: here all pairs of
/// halves and the full rows of each size, added up by hand from the devices themselves.
#[test]
fn what_fits_the_hardware_fits_the_counters() {
    let pool = published(h100(0), &[], true);
    let all: Vec<&Device> = pool.devices[&0].iter().collect();
    let rows: [&[&str]; 5] = [
        &["gpu-0-mig-4g40gb-5-0", "gpu-0-mig-3g40gb-9-4"],
        &["gpu-0-mig-3g40gb-9-0", "gpu-0-mig-3g40gb-9-4"],
        &["gpu-0-mig-1g20gb-15-0", "gpu-0-mig-1g20gb-15-2", "gpu-0-mig-1g20gb-15-4", "gpu-0-mig-1g20gb-15-6"],
        &["gpu-0-mig-2g20gb-14-0", "gpu-0-mig-2g20gb-14-2", "gpu-0-mig-2g20gb-14-4", "gpu-0-mig-1g20gb-15-6"],
        &["gpu-0-mig-7g80gb-0-0"],
    ];
    let bytes = |text: &str| match text.strip_suffix("Mi") {
        Some(mib) => mib.parse::<u64>().unwrap() << 20,
        None => text
            .strip_suffix("Gi")
            .map_or_else(|| text.parse().unwrap(), |gib| gib.parse::<u64>().unwrap() << 30),
    };
    for row in rows {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for name in row {
            let device = all.iter().find(|device| device.name == *name).unwrap();
            for (name, counter) in &device.consumes_counters.as_ref().unwrap()[0].counters {
                *sums.entry(name).or_default() += bytes(&counter.value.0);
            }
        }
        for (name, sum) in sums {
            assert!(sum <= bytes(&counter(&pool, name)), "{row:?} needs {sum} of {name}");
        }
    }
    // And no two partitions with the one optical flow accelerator fit.
    assert_eq!(counter(&pool, "ofa-engines"), "1");
}

/// A card whose halves together state more memory than its whole: the counters must hold both.
#[test]
fn counters_hold_what_profiles_round_up() {
    let mut gpu = h100(0);
    for profile in &mut gpu.profiles {
        if profile.id == 0 {
            profile.memory_mib = 80_000;
        }
    }
    assert_eq!(counter(&published(gpu, &[], false), "memory"), "79Gi");
}

#[test]
fn slices_hold_counters_and_devices_apart_within_the_limits_of_the_api() {
    let inventory = Inventory { gpus: (0..10).map(h100).collect(), unreadable: Vec::new() };
    let pool = pool(&inventory, &BTreeSet::new(), true);
    let owner =
        OwnerReference { kind: "Node".into(), name: "n1".into(), uid: "u".into(), ..Default::default() };
    let slices: Vec<ResourceSlice> = slices(&pool, "n1", &owner, 7);
    assert_eq!(slices.len(), 12, "ten GPUs need two slices of counter sets");
    let mut names = BTreeSet::new();
    for slice in &slices {
        let spec = &slice.spec;
        assert!(spec.devices.is_some() != spec.shared_counters.is_some());
        assert!(spec.devices.as_ref().is_none_or(|devices| devices.len() <= 64));
        assert!(spec.shared_counters.as_ref().is_none_or(|sets| sets.len() <= 8));
        assert_eq!((spec.pool.generation, spec.pool.resource_slice_count), (7, 12));
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        names.insert(slice.metadata.name.clone().unwrap());
    }
    assert_eq!(names.len(), 12);
}

#[test]
fn quantities_are_written_as_the_api_server_writes_them() {
    let written = |name, amount| quantity(name, amount).0;
    assert_eq!(written("memory", 9984 << 20), "9984Mi");
    assert_eq!(written("memory", 40960 << 20), "40Gi");
    assert_eq!(written("multiprocessors", 132), "132");
    assert_eq!(written("multiprocessors", 2000), "2k");
    assert_eq!(written("memory", 0), "0");
}

/// Partitions taken one after the other from what `gpu` can hold, in the order of `wishes`.
fn placed_by_hardware(gpu: &Gpu, wishes: &[usize]) -> Vec<Instance> {
    let all: Vec<(&Profile, Placement)> = gpu
        .profiles
        .iter()
        .flat_map(|profile| profile.placements.iter().map(move |at| (profile, *at)))
        .collect();
    let mut taken: Vec<(&Profile, Placement)> = Vec::new();
    for wish in wishes {
        let (profile, at) = all[wish % all.len()];
        let same = taken.iter().filter(|(other, _)| other.id == profile.id).count();
        let compute: u32 = taken.iter().map(|(other, _)| other.compute_slices).sum();
        let free = taken.iter().all(|(_, other)| !other.overlaps(at));
        if free && same < profile.max_instances as usize && compute + profile.compute_slices <= 7 {
            taken.push((profile, at));
        }
    }
    (1..).zip(taken).map(|(id, (profile, at))| instance(id, profile.id, at.start, at.size)).collect()
}

proptest::proptest! {
    /// Whatever others have made and whatever is then chosen by the counters alone: the hardware
    /// can hold it, though the counters of slices are not reduced.
    #[test]
    fn what_the_counters_allow_beside_others_fits_the_hardware(
        theirs in proptest::collection::vec(0_usize..25, 0..4),
        wishes in proptest::collection::vec(0_usize..25, 0..40),
    ) {
        let mut gpu = h100(0);
        gpu.instances = placed_by_hardware(&gpu, &theirs);
        let pool = published(gpu.clone(), &[], false);
        let devices: Vec<&Device> = pool.devices.values().flatten().collect();
        let value = |counter: &Counter| -> u64 {
            let text = &counter.value.0;
            match (text.strip_suffix("Mi"), text.strip_suffix("Gi")) {
                (Some(mib), _) => mib.parse::<u64>().unwrap() << 20,
                (_, Some(gib)) => gib.parse::<u64>().unwrap() << 30,
                _ => text.parse().unwrap(),
            }
        };
        let mut left: BTreeMap<String, u64> = pool.counter_sets.first().map_or_else(BTreeMap::new, |set| {
            set.counters.iter().map(|(name, counter)| (name.clone(), value(counter))).collect()
        });
        let inventory = Inventory { gpus: vec![h100(0)], unreadable: Vec::new() };
        let mut all: Vec<(u32, Placement)> = gpu.instances.iter().map(|i| (i.profile_id, i.placement)).collect();
        for wish in wishes {
            let Some(device) = devices.get(wish) else { continue };
            let needs = &device.consumes_counters.as_ref().unwrap()[0].counters;
            if needs.iter().any(|(name, counter)| left[name] < value(counter)) {
                continue;
            }
            for (name, counter) in needs {
                *left.get_mut(name).unwrap() -= value(counter);
            }
            match Target::of(&device.name, &inventory).unwrap() {
                Target::Partition { profile_id, placement, .. } => all.push((profile_id, placement)),
                Target::Gpu { .. } => panic!("a whole GPU in MIG mode"),
            }
        }
        let mut compute = 0;
        for (index, (profile_id, placement)) in all.iter().enumerate() {
            let profile = gpu.profile(*profile_id).unwrap();
            compute += profile.compute_slices;
            assert!(all[..index].iter().all(|(_, other)| !other.overlaps(*placement)), "{all:?}");
            let same = all.iter().filter(|(id, _)| id == profile_id).count();
            assert!(same <= profile.max_instances as usize, "{same} of {}", profile.name);
        }
        assert!(compute <= 7, "{compute} compute slices: {all:?}");
    }
}
