//! What a workload lacks under the limits of its tenants, and who would have to
//! leave for it to be met. By what right they may be asked is not looked at here.

use super::reclaim::Rights;
use crate::model::{Running, Units};
use crate::queue::tree::Tree;

/// For each tenant under whose limit units are lacking, how many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Short(Vec<(usize, Units)>);

impl Short {
    /// What so many units of a tenant lack once those have left who are about to; `None` if what is lacking is promised
    /// to others.
    pub fn of(tenant: usize, units: Units, rights: &Rights<'_>, tree: &Tree<'_>) -> Option<Self> {
        let mut short = Vec::new();
        for above in tree.path(tenant) {
            let Some(limit) = tree.tenant(above).limit else { continue };
            let wanted = tree.held(above).saturating_add(units);
            let promised = tree.promised(above);
            if promised > 0 && wanted.saturating_add(promised) > limit {
                return None;
            }
            let lacking = wanted.saturating_sub(rights.leaving(above)).saturating_sub(limit);
            if lacking > 0 {
                short.push((above, lacking));
            }
        }
        Some(Self(short))
    }

    /// Whether nothing is lacking.
    pub fn is_nothing(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something holds any of what is lacking.
    pub fn is_held_by(&self, running: &Running, tree: &Tree<'_>) -> bool {
        self.0.iter().any(|(above, _)| is_below(running, *above, tree))
    }

    /// Whether nothing is lacking any more once these have left.
    pub fn is_met_without<'r>(
        &self,
        victims: &(impl Iterator<Item = &'r Running> + Clone),
        tree: &Tree<'_>,
    ) -> bool {
        self.0.iter().all(|(above, lacking)| {
            let theirs = victims.clone().filter(|victim| is_below(victim, *above, tree));
            theirs.fold(0, |sum: Units, victim| sum.saturating_add(victim.units)) >= *lacking
        })
    }
}

fn is_below(running: &Running, above: usize, tree: &Tree<'_>) -> bool {
    tree.find(&running.tenant).is_some_and(|tenant| tree.path(tenant).any(|at| at == above))
}
