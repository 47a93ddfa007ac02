//! Tests of the rules, on every card: what can be reached at all, and the answers at the edges.

use std::collections::BTreeSet;

use super::{compute, gpu_instances, mode};
use crate::cards;
use crate::code::Code;
use crate::node::NodeDescription;
use crate::state::{Process, State};

fn node(card: &str, mig: bool) -> State {
    State::new(&NodeDescription::of(card, 1, mig), "test").unwrap()
}

/// Creates instances in every order and at every place, and looks at each state once.
fn reach(state: &State, seen: &mut BTreeSet<Vec<(u32, u32)>>, look: &mut impl FnMut(&State)) {
    let gpu = &state.gpus[0];
    let mut layout: Vec<_> =
        gpu.instances.iter().map(|instance| (instance.start, instance.profile_id)).collect();
    layout.sort_unstable();
    if !seen.insert(layout) {
        return;
    }
    look(state);
    let card = gpu.card().unwrap();
    for profile in &card.profiles {
        for start in gpu_instances::free_starts(gpu, card, profile) {
            let mut next = state.clone();
            gpu_instances::create(&mut next, 0, profile.id, Some(start)).unwrap();
            reach(&next, seen, look);
        }
    }
}

#[test]
fn every_reachable_layout_fits_the_gpu() {
    for card in cards::all() {
        let mut seen = BTreeSet::new();
        reach(&node(&card.id, true), &mut seen, &mut |state| {
            let gpu = &state.gpus[0];
            let profiles: Vec<_> =
                gpu.instances.iter().map(|instance| instance.profile(card).unwrap()).collect();
            assert!(
                profiles.iter().map(|profile| profile.compute_slices).sum::<u32>() <= card.compute_slices
            );
            assert!(
                profiles.iter().map(|profile| profile.multiprocessors).sum::<u32>() <= card.multiprocessors
            );
            let ids: BTreeSet<u32> = gpu.instances.iter().map(|instance| instance.id).collect();
            assert_eq!(ids.len(), gpu.instances.len(), "an id is used twice in {:?}", gpu.instances);
            for profile in &card.profiles {
                let starts = gpu_instances::free_starts(gpu, card, profile);
                let remaining = gpu_instances::remaining(gpu, card, profile);
                // As many as are said to remain can be created without placement, and not one more.
                let mut next = state.clone();
                for _ in 0..remaining {
                    gpu_instances::create(&mut next, 0, profile.id, None).unwrap();
                }
                assert_eq!(
                    gpu_instances::create(&mut next, 0, profile.id, None),
                    Err(Code::InsufficientResources)
                );
                assert_eq!(remaining == 0, starts.is_empty());
            }
        });
        assert!(seen.len() > 100, "only {} layouts of {}", seen.len(), card.id);
    }
}

#[test]
fn ids_follow_the_tree_of_memory_ranges() {
    let card = cards::by_id("h100-sxm5-80gb").unwrap();
    for (name, ids) in [
        ("7g.80gb", vec![0]),
        ("4g.40gb", vec![1]),
        ("3g.40gb", vec![1, 2]),
        ("2g.20gb", vec![3, 4, 5]),
        ("1g.20gb", vec![3, 4, 5, 6]),
        ("1g.10gb", vec![7, 8, 9, 10, 11, 12, 13]),
        ("1g.10gb+me", vec![7, 8, 9, 10, 11, 12, 13]),
    ] {
        let profile = card.profiles.iter().find(|profile| profile.name == name).unwrap();
        let id_at = |start: &u32| {
            let mut state = node(&card.id, true);
            gpu_instances::create(&mut state, 0, profile.id, Some(*start)).unwrap();
            state.gpus[0].instances[0].id
        };
        assert_eq!(profile.starts.iter().map(id_at).collect::<Vec<_>>(), ids, "{name}");
    }
}

#[test]
fn only_one_instance_has_the_media_engines() {
    let mut state = node("h100-sxm5-80gb", true);
    gpu_instances::create(&mut state, 0, 20, Some(0)).unwrap();
    assert_eq!(gpu_instances::create(&mut state, 0, 20, Some(1)), Err(Code::InsufficientResources));
    gpu_instances::create(&mut state, 0, 19, Some(1)).unwrap();
}

#[test]
fn a_gpu_instance_is_cut_by_compute_slices() {
    let mut state = node("h100-sxm5-80gb", true);
    let instance = gpu_instances::create(&mut state, 0, 9, Some(4)).unwrap();
    let make = |state: &mut State, profile, start| compute::create(state, 0, instance, profile, start);
    make(&mut state, 1, None).unwrap();
    assert_eq!(make(&mut state, 2, None), Err(Code::InsufficientResources));
    assert_eq!(make(&mut state, 0, Some(1)), Err(Code::InsufficientResources));
    assert_eq!(make(&mut state, 0, Some(3)), Err(Code::InvalidArgument));
    assert_eq!(make(&mut state, 3, None), Err(Code::NotSupported));
    make(&mut state, 0, None).unwrap();
    let cut: Vec<_> =
        state.gpus[0].instances[0].compute.iter().map(|c| (c.id, c.profile_id, c.start)).collect();
    assert_eq!(cut, [(0, 1, 0), (1, 0, 2)]);
}

#[test]
fn the_full_compute_profile_has_all_multiprocessors_and_the_plain_name() {
    for card in cards::all() {
        for profile in &card.profiles {
            let cuts = compute::profiles(card, profile);
            let whole = cuts.iter().find(|cut| cut.id == profile.full_compute_id).unwrap();
            assert_eq!((whole.multiprocessors, &whole.name), (profile.multiprocessors, &profile.name));
            for cut in &cuts {
                let last = cut.starts.last().unwrap();
                assert!(last + cut.slices <= profile.compute_slices, "{} of {}", cut.name, card.id);
                assert!(cut.multiprocessors <= profile.multiprocessors);
            }
        }
    }
    let card = cards::by_id("h100-sxm5-80gb").unwrap();
    let double_memory = card.profile_by_id(15).unwrap();
    let names: Vec<_> = compute::profiles(card, double_memory)
        .into_iter()
        .map(|cut| (cut.id, cut.name, cut.multiprocessors))
        .collect();
    assert_eq!(names, [(0, "1c.1g.20gb".to_owned(), 16), (7, "1g.20gb".to_owned(), 26)]);
}

#[test]
fn mig_mode_waits_for_processes_instances_and_on_ampere_for_a_reset() {
    let mut hopper = node("h100-sxm5-80gb", false);
    let gpu = &mut hopper.gpus[0];
    gpu.processes.push(Process { pid: 1, memory_bytes: 0, instance: None });
    assert_eq!(mode::set(gpu, true), Ok(Err(Code::InUse)));
    assert!(!gpu.mig && gpu.mig_pending);
    gpu.processes.clear();
    assert_eq!(mode::set(gpu, true), Ok(Ok(())));
    assert!(gpu.mig);
    gpu_instances::create(&mut hopper, 0, 19, None).unwrap();
    assert_eq!(mode::set(&mut hopper.gpus[0], false), Ok(Err(Code::InUse)));
    assert_eq!(mode::reset(&mut hopper.gpus[0]), Err(Code::InUse));

    let mut ampere = node("a100-40gb", false);
    let gpu = &mut ampere.gpus[0];
    assert_eq!(mode::set(gpu, true), Ok(Err(Code::ResetRequired)));
    assert!(!gpu.mig && gpu.mig_pending);
    mode::reset(gpu).unwrap();
    assert!(gpu.mig);
}
