//! A cluster, its tenants and what happens to them, as plain small numbers that
//! shrink well. Its text form is in [`super::text`]; what it means in [`super::world`].

use vingt_core::model::{Movable, PlacementPolicy};

use super::cards::Card;

/// What can be asked for: a kind, or the smallest partition with at least this many GiB.
pub const ASKED: [&str; 10] =
    ["1g.10gb", "3g.40gb", "gpu", "1g.10gb+me", "1g.20gb", "2g.20gb", "7g.80gb", "1g.6gb", "2g.12gb", ">=20"];

/// Units that guarantees and limits are counted in: a seventh of a GPU.
pub const SHARE: u64 = 8;

/// Everything that a run depends on.
#[derive(Clone, PartialEq)]
pub struct Scenario {
    pub nodes: Vec<NodeSpec>,
    pub tenants: Vec<TenantSpec>,
    pub settings: SettingsSpec,
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq)]
/// A node and its GPUs.
pub struct NodeSpec {
    pub cards: Vec<Card>,
    pub rack: u8,
    pub cpus: u8,
    pub gib: u8,
    /// Keeps away what does not tolerate it.
    pub tainted: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TenantSpec {
    /// The tenant above, always one of those before it.
    pub under: Option<usize>,
    pub guaranteed: u8,
    pub limit: Option<u8>,
    pub weight: u8,
}

#[derive(Clone, Debug, PartialEq)]
pub struct SettingsSpec {
    pub placement: PlacementPolicy,
    pub half_life_s: u8,
    pub aging_s: u8,
    pub reserve_after_s: u8,
    pub reservations: u8,
    pub reclaim: bool,
    pub preemption: bool,
    pub defragmentation: bool,
    /// Moves that each cycle may make.
    pub moves: u8,
}

/// Something that happens; after each of them a plan is made and carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// So many seconds go by.
    Pass(u8),
    /// A job comes.
    Submit(JobSpec),
    /// A running job ends before its time.
    End(u8),
    /// A waiting job is deleted.
    Cancel(u8),
    /// A running job is withdrawn, to be tried again in some seconds.
    Withdraw(u8),
    /// A node fails: its GPUs are blocked and what runs there is lost.
    Fail(u8),
    /// A node takes no more pods; what runs there runs on.
    Cordon(u8),
    /// A node is well again.
    Return(u8),
    /// The slices of a GPU go missing, or come back.
    Block(u8),
    /// A device gets a taint, or loses it.
    Taint(u8, u8),
    /// Somebody else takes a device if it is free, or gives it back.
    Foreign(u8, u8),
    /// A tenant gets another limit.
    Limit(u8, Option<u8>),
    /// A tenant gets another guarantee.
    Guarantee(u8, u8),
    /// The operator starts anew and knows only what is written down.
    Restart,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JobSpec {
    pub tenant: u8,
    pub pods: u8,
    /// How many of which of [`ASKED`].
    pub asks: Vec<(u8, u8)>,
    pub cpus: u8,
    pub gib: u8,
    pub priority: i8,
    /// How long it runs indeed.
    pub runs_s: u8,
    /// How much longer it says that it runs at most; `None` says nothing.
    pub spare_s: Option<u8>,
    /// How long after being asked it leaves at the latest, and how much of that it does not use.
    pub grace_s: u8,
    pub early_s: u8,
    /// Saves its work this often; 0 is never.
    pub saves_s: u8,
    pub evictable: bool,
    pub movable: Movable,
    /// On one rack: whether it has to be.
    pub near: Option<bool>,
    pub tolerates: bool,
    pub only_node: Option<u8>,
}
