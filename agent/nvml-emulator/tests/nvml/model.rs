//! Random sequences of creating and destroying, compared with a second, independent account of the GPU: eight memory
//! slices and who has them. The account knows the documented sizes and nothing of the library's tables.

use std::sync::LazyLock;

use nvml_emulator::{Emulator, NodeDescription};
use nvml_wrapper_sys::bindings as sys;
use proptest::prelude::*;

use crate::calls::{create_at, get, gpu};
use crate::node::{H100, Node};

/// Profile id, memory slices, last start, most instances.
const PROFILES: [(u32, u32, u32, usize); 7] =
    [(19, 1, 6, 7), (20, 1, 6, 1), (15, 2, 6, 4), (14, 2, 4, 3), (9, 4, 4, 2), (5, 4, 0, 1), (0, 8, 0, 1)];

const INVALID_ARGUMENT: u32 = 2;
const INSUFFICIENT_RESOURCES: u32 = 23;

#[derive(Clone, Debug)]
enum Step {
    /// Profile, by its place in the table, and start: not always a valid one.
    CreateAt(usize, u32),
    Create(usize),
    /// One of the instances ever created.
    Destroy(usize),
}

#[derive(Clone, Copy)]
struct Living {
    handle: sys::nvmlGpuInstance_t,
    profile: usize,
    start: u32,
}

/// What is on the GPU, as this test sees it.
#[derive(Default)]
struct Account {
    living: Vec<Living>,
    dead: Vec<sys::nvmlGpuInstance_t>,
}

impl Account {
    fn is_free(&self, start: u32, size: u32) -> bool {
        self.living.iter().all(|other| {
            let other_end = other.start + PROFILES[other.profile].1;
            start + size <= other.start || other_end <= start
        })
    }

    fn can_create(&self, profile: usize, start: u32) -> bool {
        let (_, size, _, most) = PROFILES[profile];
        let count = self.living.iter().filter(|other| other.profile == profile).count();
        count < most && self.is_free(start, size)
    }

    fn starts(profile: usize) -> impl Iterator<Item = u32> {
        let (_, size, last, _) = PROFILES[profile];
        (0..=last).step_by(size as usize)
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..PROFILES.len(), 0..9_u32).prop_map(|(profile, start)| Step::CreateAt(profile, start)),
        2 => (0..PROFILES.len()).prop_map(Step::Create),
        4 => any::<prop::sample::Index>().prop_map(|index| Step::Destroy(index.index(64))),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn creating_and_destroying_agrees_with_an_independent_account(steps in steps()) {
        static NODE: LazyLock<Node> = LazyLock::new(|| Node::h100s(1, true));
        let emulator = Emulator::init(NODE.root(), &NodeDescription::of(H100, 1, true)).unwrap();
        let library = NODE.raw();
        let gpu = gpu(&library, 0);
        let mut account = Account::default();
        for step in steps {
            match step {
                Step::CreateAt(profile, start) => {
                    let (id, size, ..) = PROFILES[profile];
                    let created = create_at(&library, gpu, id, start, size);
                    if !Account::starts(profile).any(|valid| valid == start) {
                        prop_assert_eq!(created, Err(INVALID_ARGUMENT));
                    } else if account.can_create(profile, start) {
                        account.living.push(Living { handle: created.unwrap(), profile, start });
                    } else {
                        prop_assert_eq!(created, Err(INSUFFICIENT_RESOURCES));
                    }
                }
                Step::Create(profile) => {
                    let created = get!(library, nvmlDeviceCreateGpuInstance, gpu, PROFILES[profile].0; sys::nvmlGpuInstance_t);
                    if Account::starts(profile).any(|start| account.can_create(profile, start)) {
                        let handle = created.unwrap();
                        let info = get!(library, nvmlGpuInstanceGetInfo, handle; sys::nvmlGpuInstanceInfo_t).unwrap();
                        prop_assert!(account.can_create(profile, info.placement.start), "overlap at {}", info.placement.start);
                        account.living.push(Living { handle, profile, start: info.placement.start });
                    } else {
                        prop_assert_eq!(created, Err(INSUFFICIENT_RESOURCES));
                    }
                }
                Step::Destroy(index) => {
                    let ever = account.living.len() + account.dead.len();
                    if ever == 0 {
                        continue;
                    }
                    let index = index % ever;
                    if index < account.living.len() {
                        let living = account.living.swap_remove(index);
                        // SAFETY: a handle.
                        prop_assert_eq!(unsafe { library.nvmlGpuInstanceDestroy(living.handle) }, 0);
                        account.dead.push(living.handle);
                    } else {
                        let dead = account.dead[index - account.living.len()];
                        // SAFETY: a handle.
                        prop_assert_eq!(unsafe { library.nvmlGpuInstanceDestroy(dead) }, INVALID_ARGUMENT);
                    }
                }
            }
            let mut expected: Vec<_> = account.living.iter().map(|living| (PROFILES[living.profile].0, living.start)).collect();
            let partitions = &emulator.occupancy().unwrap()[0].partitions;
            let mut actual: Vec<_> = partitions.iter().map(|partition| (partition.profile_id, partition.start)).collect();
            expected.sort_unstable();
            actual.sort_unstable();
            prop_assert_eq!(expected, actual);
            for (profile, (id, ..)) in PROFILES.iter().enumerate() {
                let free = Account::starts(profile).filter(|start| account.can_create(profile, *start)).count();
                let count = account.living.iter().filter(|other| other.profile == profile).count();
                let left = u32::try_from(free.min(PROFILES[profile].3 - count)).unwrap();
                prop_assert_eq!(get!(library, nvmlDeviceGetGpuInstanceRemainingCapacity, gpu, *id; u32), Ok(left));
            }
        }
    }
}
