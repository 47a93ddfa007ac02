//! The sovereign reserve as a plan sees it: what is kept deliverable, and who
//! draws on it. How tokens and entitlement are reckoned is not here
//! ([`crate::reserve`]).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{NodeIndex, UnitMs};

/// What a tenant is to the reserves. A higher one may take what a lower one holds; equals never do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// Everyone else.
    #[default]
    Standard,
    /// A small or medium-sized business.
    Sme,
    /// Sovereign needs.
    Sovereign,
    /// National security.
    Security,
}

/// What is kept deliverable in a pool of GPUs: at any time, and at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserve {
    /// Its name.
    pub name: String,
    /// Its pool: the nodes whose GPUs these are, in order. No node is in two pools.
    pub nodes: Vec<NodeIndex>,
    /// Whose workloads draw on it.
    pub classes: BTreeSet<Class>,
    /// What can be claimed at once, with what is claimed already.
    pub shapes: Vec<ReservedShape>,
    /// How many times the shapes may be claimed while tokens last and there is room; only the first is kept deliverable.
    /// 0 counts as 1.
    pub burst: u32,
    /// How long after it is asked to leave lent work may stay, in milliseconds.
    pub grace_ms: i64,
    /// What may still be taken by asking others to leave: the tokens, and no more than is left of the year.
    pub tokens: UnitMs,
    /// For how long a claim must be covered by tokens to be made, in milliseconds.
    pub least_claim_ms: i64,
    /// Advance orders that were accepted and have not ended, in the order they began or begin.
    pub orders: Vec<Order>,
}

/// A number of equal pods that the reserve keeps deliverable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReservedShape {
    /// What each needs: index into [`super::Snapshot::shapes`].
    pub shape: usize,
    /// How many.
    pub count: u32,
}

/// An advance order that was accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its identity, as `namespace/name`.
    pub key: String,
    /// The tenant it is for.
    pub tenant: String,
    /// What the tenant was when it was accepted.
    pub rating: Class,
    /// What was ordered.
    pub shapes: Vec<ReservedShape>,
    /// When it begins, in milliseconds since 1970.
    pub from_ms: i64,
    /// When it ends, in milliseconds since 1970.
    pub until_ms: i64,
}

/// What is promised and can't be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Missing {
    /// Index into [`super::Snapshot::reserves`].
    pub reserve: usize,
    /// Of which shape, and how many.
    pub shape: ReservedShape,
}
