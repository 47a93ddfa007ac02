//! Which moves are worth making, when only so many may be made.
//!
//! A move costs a job a checkpoint and a restart, whatever it is made for; so
//! a budget is best spent where a move brings most. The price of a move rises
//! with each that is made and falls with each job that is placed, so that in
//! the long run just the best are made that the budget allows.

/// How strongly the price follows what is spent, in slices for each move. (.05 and .2 differ by a point of the gap.)
const STEP: f64 = 0.05;

/// Part of the drop in the cluster's value that is held against a move. (.5 and 1 did equally well, 0 and 2 worse.)
const HELD_AGAINST: f64 = 0.5;

/// Moves that may be saved up.
pub const SAVED: f64 = 30.0;

/// Value of an empty GPU over that of the worst state, in the unit of the worth of jobs: a whole-GPU job.
pub const SPAN: f64 = 8.0;

/// A budget for moves, and what it asks of the next one.
#[derive(Clone, Debug, PartialEq)]
pub struct Price {
    share: f64,
    asked: f64,
    left: f64,
}

impl Price {
    /// At most `share` moves for each placed job; 1 or more is no limit, 0 no moves.
    pub fn new(share: f64) -> Self {
        Self { share, asked: if share < 1.0 { SPAN / 2.0 } else { f64::NEG_INFINITY }, left: 0.0 }
    }

    /// Whether a move may be made at all for a job that is worth `worth` slices.
    pub fn allows(&self, worth: f64) -> bool {
        self.share >= 1.0 || (self.left >= 1.0 && worth >= self.asked)
    }

    /// Whether to make a move that brings a job worth `worth` slices, and lets the value of the cluster, which
    /// spans [`SPAN`], drop by `cost`.
    pub fn accepts(&self, worth: f64, cost: f64) -> bool {
        self.allows(worth) && worth - HELD_AGAINST * cost >= self.asked
    }

    /// A job was placed.
    pub fn placed(&mut self) {
        self.left = (self.left + self.share).min(SAVED);
        if self.share < 1.0 {
            self.asked = (self.asked - STEP * self.share).max(0.0);
        }
    }

    /// A job was moved.
    pub fn moved(&mut self) {
        self.left -= 1.0;
        if self.share < 1.0 {
            self.asked += STEP;
        }
    }
}
