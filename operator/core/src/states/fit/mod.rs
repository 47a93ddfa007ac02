//! The smallest number of equal GPUs that holds a demand, when everything on
//! them may be arranged anew: in closed form where the card is like an H100,
//! by search over its configurations elsewhere. With jobs that cannot move, a
//! demand that passes here may still have to wait.

mod halves;
mod linear;
mod search;

use halves::Halves;
use search::Configurations;

use super::card::Card;
use super::space::{Space, SpaceError};

/// Answers for one card.
#[derive(Clone, Debug)]
pub struct Fit {
    closed: Option<Halves>,
    configurations: Configurations,
}

impl Fit {
    /// For `card`, to whose devices `demands` sorts of jobs come. A device that serves several demands counts
    /// for one of them at a time.
    pub fn new(card: &Card, demands: usize) -> Result<Self, SpaceError> {
        let space = Space::new(std::slice::from_ref(card), demands)?;
        Ok(Self { closed: Halves::recognise(&space), configurations: Configurations::of(&space) })
    }

    /// The same, but always by search.
    #[must_use]
    pub fn by_search(self) -> Self {
        Self { closed: None, ..self }
    }

    /// Whether the closed form answers.
    pub fn is_closed_form(&self) -> bool {
        self.closed.is_some()
    }

    /// Whether `gpus` empty GPUs hold `counts` of each demand at the same time.
    pub fn fits(&self, counts: &[u64], gpus: u64) -> bool {
        match &self.closed {
            Some(halves) => halves.fits(counts, gpus),
            None => self.configurations.min_gpus(counts).is_some_and(|min| min <= gpus),
        }
    }

    /// How many GPUs `counts` of each demand need; `None` if no number is enough.
    pub fn min_gpus(&self, counts: &[u64]) -> Option<u64> {
        match &self.closed {
            Some(halves) => Some(halves.min_gpus(counts)),
            None => self.configurations.min_gpus(counts),
        }
    }
}
