use std::collections::{BTreeSet, VecDeque};

use super::*;
use crate::testing::{a30, either, h100, h100_with, whole};

fn bit(gpu: &Gpu, name: &str) -> u8 {
    u8::try_from(gpu.devices.iter().position(|device| device.name == name).unwrap()).unwrap()
}

fn of_kind(gpu: &Gpu, kind: &str) -> u64 {
    gpu.devices.iter().enumerate().filter(|(_, d)| d.kind == kind).fold(0, |mask, (i, _)| mask | 1 << i)
}

/// All states that can be reached, by compute slices and memory slices held.
fn reachable(gpu: &Gpu) -> BTreeSet<(u64, Vec<u64>)> {
    let mut fleet = Fleet::default();
    let mut open = VecDeque::from([fleet.state_of(gpu, true)]);
    let mut seen = BTreeSet::from([open[0]]);
    while let Some(state) = open.pop_front() {
        for device in devices_in(fleet.fits(state)) {
            let next = fleet.take(state, device);
            if seen.insert(next) {
                open.push_back(next);
            }
        }
    }
    seen.into_iter().map(|id| &fleet.state(id).used).map(|used| (used[0], used[3..].to_vec())).collect()
}

#[test]
fn as_many_states_as_an_h100_has() {
    assert_eq!(reachable(&h100()).len(), 336);
    assert_eq!(reachable(&h100_with(&["1g.10gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"])).len(), 153);
}

#[test]
fn equal_gpus_are_one_state_whatever_their_devices_are_called() {
    let mut fleet = Fleet::default();
    let mut other = h100();
    for device in other.devices.iter_mut() {
        device.name.insert_str(0, "gpu-7-");
    }
    let state = fleet.state_of(&h100(), false);
    assert_eq!(fleet.state_of(&other, false), state);
    other.used[0] = 1;
    assert_ne!(fleet.state_of(&other, false), state);
    assert_eq!(fleet.state_of(&other, true), state);
    assert_ne!(fleet.state_of(&a30(), false), state);
}

#[test]
fn the_placement_that_blocks_least_is_taken() {
    let gpu = h100();
    let mut fleet = Fleet::default();
    let empty = fleet.state_of(&gpu, false);
    for (kind, device) in [("1g.10gb", "1g.10gb-6"), ("3g.40gb", "3g.40gb-4"), ("2g.20gb", "2g.20gb-4")] {
        let pick = fleet.pick(empty, of_kind(&gpu, kind), false).unwrap();
        assert_eq!(gpu.devices[usize::from(pick.device)].name, device);
    }
}

#[test]
fn one_media_extension_a_gpu() {
    let gpu = h100();
    let mut fleet = Fleet::default();
    let empty = fleet.state_of(&gpu, false);
    assert_eq!(fleet.most(empty, of_kind(&gpu, "1g.10gb"), false), 7);
    assert_eq!(fleet.most(empty, of_kind(&gpu, "1g.10gb+me"), false), 1);
    let next = fleet.take(empty, bit(&gpu, "1g.10gb+me-0"));
    assert_eq!(fleet.fits(next) & of_kind(&gpu, "1g.10gb+me"), 0);
}

#[test]
fn the_smallest_that_will_do_is_taken_if_asked_for() {
    let gpu = h100();
    let mut fleet = Fleet::default();
    let state = fleet.state_of(&gpu, false);
    let large = of_kind(&gpu, "7g.80gb") | of_kind(&gpu, "4g.40gb") | of_kind(&gpu, "3g.40gb");
    let pick = fleet.pick(state, large, true).unwrap();
    assert_eq!(gpu.devices[usize::from(pick.device)].kind, "3g.40gb");
    assert_eq!(pick.size, 28);
}

#[test]
fn a_whole_gpu_and_its_partitions_exclude_one_another() {
    let gpu = either();
    let mut fleet = Fleet::default();
    let empty = fleet.state_of(&gpu, false);
    let taken = fleet.take(empty, bit(&gpu, "whole"));
    assert_eq!(fleet.fits(taken), 0);
    let cut = fleet.take(empty, bit(&gpu, "1g.10gb-6"));
    assert_eq!(fleet.fits(cut) & of_kind(&gpu, "gpu"), 0);
}

#[test]
fn a_device_that_could_be_given_out_twice_is_never_used() {
    let mut gpu = whole();
    gpu.devices[0].consumes = gpu.capacity.iter().map(|all| all / 2).collect();
    let mut fleet = Fleet::default();
    let state = fleet.state_of(&gpu, false);
    assert_eq!(fleet.fits(state), 0);
    gpu.devices[0].consumes.clear();
    let state = fleet.state_of(&gpu, false);
    assert_eq!(fleet.fits(state), 0);
}

#[test]
fn more_in_use_than_there_is_leaves_no_room() {
    let mut gpu = h100();
    gpu.used = vec![u64::MAX; gpu.capacity.len()];
    let mut fleet = Fleet::default();
    let state = fleet.state_of(&gpu, false);
    assert_eq!((fleet.fits(state), fleet.room(state)), (0, 0));
}
