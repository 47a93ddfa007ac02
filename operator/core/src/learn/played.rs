//! The default policy as it plays: a cluster, the brain that watches it, and
//! lessons taken on the spot.

use crate::simulate::{Job, Placer, Player};
use crate::states::SpaceError;

use super::brain::{Brain, Setup};
use super::search::Effort;

/// A cluster under the default policy.
#[derive(Clone, Debug)]
pub struct Played {
    player: Player,
    brain: Brain,
    effort: Option<Effort>,
    fallen: u64,
}

impl Played {
    /// Empty; lessons are taken with `effort`, or not at all.
    pub fn new(setup: &Setup, effort: Option<Effort>) -> Result<Self, SpaceError> {
        let brain = Brain::new(setup.clone())?;
        let player = Player::new(brain.table(), &setup.gpus, &setup.worth, setup.moves);
        Ok(Self { player, brain, effort, fallen: 0 })
    }

    /// Arrivals that a simple rule decided.
    pub fn fallen_back(&self) -> u64 {
        self.fallen
    }

    /// The brain.
    pub fn brain(&self) -> &Brain {
        &self.brain
    }
}

impl Placer for Played {
    fn arrive(&mut self, now: f64, id: u32, job: Job) -> bool {
        let placed = self.player.arrive(now, id, job);
        self.fallen += u64::from(self.brain.fell_back());
        let lesson = self.brain.arrived(now, id, job, placed);
        if let (Some(lesson), Some(effort)) = (lesson, self.effort) {
            self.brain.learnt(&lesson.learn(effort));
        }
        if !std::sync::Arc::ptr_eq(self.brain.table(), self.player.table()) {
            self.player.switch(self.brain.table());
        }
        placed
    }

    fn depart(&mut self, now: f64, id: u32, job: Job) {
        self.player.depart(now, id, job);
        self.brain.left(now, id, job);
    }

    fn moves(&self) -> u64 {
        self.player.moves()
    }
}
