//! The GPUs of a cluster, those together that are alike for every request: in
//! the same state, with the same devices in each set that is asked for. A
//! choice looks at groups, and then at the GPUs of one.

use std::collections::HashMap;

use crate::geometry::StateId;
use crate::states::GpuSet;

/// Levels of nodes: a GPU of a node of a lower level is taken first.
pub(super) const LEVELS: u8 = 34;

/// What GPUs that differ in no request have in common, besides their state.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Sort {
    /// For each set of devices, those of them that may be given out.
    pub masks: Vec<u64>,
    /// Those that may be given out at all.
    pub open: u64,
}

/// Names a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupId(pub u32);

/// GPUs that are alike.
#[derive(Debug)]
pub(super) struct Group {
    pub sort: u32,
    pub state: StateId,
    /// Bit `l`: some are on nodes of level `l`.
    pub levels: u64,
    members: Vec<Option<GpuSet>>,
}

impl Group {
    /// Its GPUs on nodes of a level, of which there are some.
    pub fn on(&self, level: u8) -> Option<&GpuSet> {
        self.members.get(usize::from(level))?.as_ref()
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Groups {
    gpus: usize,
    pub sorts: Vec<Sort>,
    known_sorts: HashMap<Sort, u32>,
    last_sort: u32,
    pub list: Vec<Group>,
    /// Groups that had no GPU and got one, in that order.
    pub filled: Vec<GroupId>,
    /// For each state its groups, by sort.
    of_state: Vec<Vec<(u32, GroupId)>>,
}

impl Groups {
    /// None, of a cluster with this many GPUs.
    pub fn new(gpus: usize) -> Self {
        Self {
            gpus,
            sorts: Vec::new(),
            known_sorts: HashMap::new(),
            last_sort: 0,
            list: Vec::new(),
            filled: Vec::new(),
            of_state: Vec::new(),
        }
    }

    /// The number of the sort of which `open` devices may be given out at all, and of each set of devices these.
    pub fn sort(&mut self, open: u64, masks: impl Iterator<Item = u64> + Clone) -> u32 {
        // The next GPU is most often like the last.
        let last = self.sorts.get(self.last_sort as usize);
        if last.is_some_and(|last| last.open == open && masks.clone().eq(last.masks.iter().copied())) {
            return self.last_sort;
        }
        let sort = Sort { masks: masks.collect(), open };
        let next = u32::try_from(self.sorts.len()).unwrap_or(u32::MAX);
        self.last_sort = *self.known_sorts.entry(sort.clone()).or_insert_with(|| {
            self.sorts.push(sort);
            next
        });
        self.last_sort
    }

    /// The group of GPUs of `sort` in `state`.
    #[inline]
    pub fn find(&mut self, sort: u32, state: StateId) -> GroupId {
        let at = state.0 as usize;
        if self.of_state.len() <= at {
            self.of_state.resize_with(at + 1, Vec::new);
        }
        if let Some((_, known)) = self.of_state[at].iter().find(|(known, _)| *known == sort) {
            return *known;
        }
        let id = GroupId(u32::try_from(self.list.len()).unwrap_or(u32::MAX));
        self.list.push(Group { sort, state, levels: 0, members: Vec::new() });
        self.of_state[at].push((sort, id));
        id
    }

    /// The group by its name.
    #[inline]
    pub fn get(&self, id: GroupId) -> &Group {
        &self.list[id.0 as usize]
    }

    /// Puts a GPU into a group.
    #[inline]
    pub fn enter(&mut self, id: GroupId, level: u8, gpu: u32) {
        let gpus = self.gpus;
        let group = &mut self.list[id.0 as usize];
        let slot = usize::from(level);
        if group.members.len() <= slot {
            group.members.resize_with(slot + 1, || None);
        }
        group.members[slot].get_or_insert_with(|| GpuSet::new(gpus)).insert(gpu as usize);
        if group.levels == 0 {
            self.filled.push(id);
        }
        group.levels |= 1 << level;
    }

    /// Takes a GPU out of a group that it is in.
    #[inline]
    pub fn leave(&mut self, id: GroupId, level: u8, gpu: u32) {
        let group = &mut self.list[id.0 as usize];
        if let Some(Some(members)) = group.members.get_mut(usize::from(level)) {
            members.remove(gpu as usize);
            if members.is_empty() {
                group.levels &= !(1 << level);
            }
        }
    }
}
