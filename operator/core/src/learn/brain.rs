//! Which table decides now: values from the mix as soon as jobs come, better
//! ones when they have been learnt for it, and one of the simple rules for as
//! long as it would do better on the cluster's own jobs.

use std::sync::Arc;

use crate::policy::{Features, Ranking, Values, greedy, prior};
use crate::simulate::{Job, Table};
use crate::states::{Card, Space, SpaceError};

use super::mix::Mix;
use super::search::{Effort, Problem};
use super::shadow::Shadows;

/// GPUs that are played when learning, at most; more would teach the same, later.
const PLAYED_GPUS: usize = 128;

/// Arrivals after a change of the mix at which values are learnt, and then every so many.
const LEARN_AT: [u64; 2] = [1_500, 9_000];
const LEARN_EVERY: u64 = 40_000;

/// Arrivals after which the values from the mix are brought up to date while nothing is learnt yet.
const REFRESH_EVERY: u64 = 250;

/// Arrivals for which a rule stays in use before the table may come back.
const HOLD: u64 = 1_000;

/// Arrivals between two looks at the shadows.
const LOOK_EVERY: u64 = 100;

/// Jobs on which what was learnt must do better than what it would replace.
const PROOF_ARRIVALS: usize = 60_000;

/// What the cluster is.
#[derive(Clone, Debug, PartialEq)]
pub struct Setup {
    /// The sorts of GPUs.
    pub cards: Vec<Card>,
    /// The sort of each GPU.
    pub gpus: Vec<usize>,
    /// What a job of each demand is worth, in slices.
    pub worth: Vec<f64>,
    /// Demands with the same number live about equally long.
    pub life: Vec<u8>,
    /// Moves for each placed job.
    pub moves: f64,
    /// Share of jobs that may be moved.
    pub movable: f64,
    /// For all that is drawn at random.
    pub seed: u64,
}

/// Which shadow is what.
const TABLE: usize = 0;
const FRAGMENTATION: usize = 1;

/// The policy that is the default.
#[derive(Clone, Debug)]
pub struct Brain {
    setup: Setup,
    classes: Arc<Space>,
    states: Arc<Space>,
    features: Arc<Features>,
    mix: Mix,
    table: Arc<Table>,
    weights: Vec<f64>,
    learnt: bool,
    shadows: Shadows,
    rules: Vec<Arc<Table>>,
    /// The shadow that decides.
    active: usize,
    since_change: u64,
    since_switch: u64,
    learning: u64,
}

impl Brain {
    /// For a cluster in which nothing was seen yet.
    pub fn new(setup: Setup) -> Result<Self, SpaceError> {
        let demands = setup.worth.len();
        let classes = Arc::new(Space::with_lives(&setup.cards, demands, &setup.life)?);
        let states = Arc::new(Space::unlumped(&setup.cards, demands)?);
        let features = Arc::new(Features::promises(&classes, horizons(&setup), &vec![1.0; demands]));
        let mix = Mix::new(demands);
        let weights = prior::CONSTANTS.weights(&features, &mix.share(), &setup.worth);
        let table = Table::of_values(&classes, features.values(&weights));
        let gradient = Table::of_values(&states, Values::fragmentation(&states, &mix.share()));
        // Best fit gives states no value; when it has to move a job, it goes by that of the gradient.
        let best_fit = Table { ranking: Ranking::new(&states, &greedy::BestFit), ..Table::clone(&gradient) };
        let rules =
            vec![gradient, Arc::new(best_fit), Table::of_values(&states, Values::blocked_windows(&states))];
        let players: Vec<Arc<Table>> = std::iter::once(&table).chain(&rules).cloned().collect();
        let shadows = Shadows::new(&players, &setup.gpus, &setup.worth, setup.moves, setup.seed);
        Ok(Self {
            setup,
            classes,
            states,
            features,
            mix,
            table,
            weights,
            learnt: false,
            shadows,
            rules,
            active: TABLE,
            since_change: 0,
            since_switch: 0,
            learning: 0,
        })
    }

    /// The table to decide by now.
    pub fn table(&self) -> &Arc<Table> {
        if self.active == TABLE { &self.table } else { &self.rules[self.active - 1] }
    }

    /// Whether one of the simple rules decides, because it would have placed more.
    pub fn fell_back(&self) -> bool {
        self.active != TABLE
    }

    /// The mix as it is known.
    pub fn mix(&self) -> &Mix {
        &self.mix
    }

    /// Job `id` arrived, and has a place or not. Returns what to learn now, if anything: give the answer to
    /// [`Self::learnt`] whenever it is there.
    pub fn arrived(&mut self, now: f64, id: u32, job: Job, placed: bool) -> Option<Lesson> {
        let life = self.mix.life().map_or(1.0, |life| life[job.demand]);
        self.shadows.arrived(now, id, job, placed, life);
        let changed = self.mix.arrived(now, job.demand, placed);
        self.since_change = if changed { 0 } else { self.since_change + 1 };
        self.since_switch += 1;
        if changed {
            self.learnt = false;
            self.shadows.forget();
        }
        if changed || self.since_change.is_multiple_of(REFRESH_EVERY) {
            self.refresh();
        }
        if self.since_switch.is_multiple_of(LOOK_EVERY) {
            self.look();
        }
        let since = self.since_change;
        let due = LEARN_AT.contains(&since) || (since > LEARN_AT[1] && since.is_multiple_of(LEARN_EVERY));
        if due { self.lesson() } else { None }
    }

    /// Job `id` has left.
    pub fn left(&mut self, now: f64, id: u32, job: Job) {
        self.mix.left(now, job.demand);
        self.shadows.left(now, id, job);
    }

    /// Takes what a lesson taught; one that was begun before the mix changed is worth nothing.
    pub fn learnt(&mut self, result: &Learnt) {
        if result.changes == self.mix.changes() {
            self.learnt = true;
            self.features = result.features.clone();
            self.adopt(result.weights.clone());
        }
    }

    fn refresh(&mut self) {
        let share = self.mix.share();
        if !self.learnt && self.since_change < LEARN_AT[1] {
            self.adopt(prior::CONSTANTS.weights(&self.features, &share, &self.setup.worth));
        }
        if self.since_change.is_multiple_of(4 * REFRESH_EVERY) {
            let rule = Table::of_values(&self.states, Values::fragmentation(&self.states, &share));
            self.shadows.switch(FRAGMENTATION, &rule);
            self.rules[FRAGMENTATION - 1] = rule;
        }
    }

    fn adopt(&mut self, weights: Vec<f64>) {
        self.weights = weights;
        self.table = Table::of_values(&self.classes, self.features.values(&self.weights));
        self.shadows.switch(TABLE, &self.table);
    }

    fn look(&mut self) {
        let next = if self.active == TABLE {
            self.shadows.better_than(TABLE)
        } else {
            let back = self.since_switch >= HOLD && self.shadows.lead(TABLE, self.active) >= 0.0;
            back.then_some(TABLE).or_else(|| self.shadows.better_than(self.active))
        };
        if let Some(next) = next {
            self.active = next;
            self.since_switch = 0;
        }
    }

    fn lesson(&mut self) -> Option<Lesson> {
        let life = self.mix.life()?;
        let share = self.mix.share();
        let mean: f64 = share.iter().zip(&life).map(|(p, t)| p * t).sum();
        let life: Vec<f64> = life.iter().map(|life| life / mean).collect();
        let played = self.setup.gpus.len().min(PLAYED_GPUS);
        let step = self.setup.gpus.len() / played.max(1);
        let cards: Vec<usize> = self.setup.gpus.iter().copied().step_by(step.max(1)).take(played).collect();
        let load = self.mix.load(&self.setup.worth)? * to_f64(cards.len()) / to_f64(self.setup.gpus.len());
        // Where lives are not told apart, only their mean counts for what a state promises.
        let known = if lives_alike(&self.setup) { vec![1.0; life.len()] } else { life.clone() };
        let features = Arc::new(Features::promises(&self.classes, horizons(&self.setup), &known));
        self.learning += 1;
        Some(Lesson {
            problem: Problem {
                space: self.classes.clone(),
                features,
                cards,
                worth: self.setup.worth.clone(),
                share,
                life,
                load,
                movable: self.setup.movable,
                moves: self.setup.moves,
                lives_known: !lives_alike(&self.setup),
            },
            weights: self.weights.clone(),
            seed: self.setup.seed.wrapping_mul(1_000_003).wrapping_add(self.learning * 1_009),
            changes: self.mix.changes(),
        })
    }
}

fn lives_alike(setup: &Setup) -> bool {
    setup.life.iter().all(|group| *group == setup.life[0])
}

fn horizons(setup: &Setup) -> &'static [f64] {
    if lives_alike(setup) { &prior::HORIZONS } else { &prior::HORIZONS_OF_LIVES }
}

/// What is to be learnt; it may be taken elsewhere and take its time.
#[derive(Clone, Debug)]
pub struct Lesson {
    problem: Problem,
    weights: Vec<f64>,
    seed: u64,
    changes: u64,
}

/// What was learnt.
#[derive(Clone, Debug)]
pub struct Learnt {
    features: Arc<Features>,
    weights: Vec<f64>,
    changes: u64,
}

impl Lesson {
    /// Searches for better weights with `effort`, and keeps the old ones unless the new ones place more of jobs
    /// that neither was chosen for.
    pub fn learn(&self, effort: Effort) -> Learnt {
        let found = self.problem.improve(&self.weights, effort, self.seed);
        let fresh = self.problem.trace(self.seed.wrapping_sub(1), PROOF_ARRIVALS);
        let worth = &self.problem.worth;
        let score = |weights: &[f64]| {
            let table = Table::of_values(&self.problem.space, self.problem.values(weights));
            self.problem.play(&table, &fresh).acceptance(worth)
        };
        let weights = if score(&found) >= score(&self.weights) { found } else { self.weights.clone() };
        Learnt { features: self.problem.features.clone(), weights, changes: self.changes }
    }
}

#[cfg(test)]
impl Lesson {
    /// The worst that could be taught: the opposite of what is in use.
    pub(super) fn perverted(&self) -> Learnt {
        let weights = self.weights.iter().map(|weight| -weight).collect();
        Learnt { features: self.problem.features.clone(), weights, changes: self.changes }
    }
}

/// Numbers of GPUs.
#[allow(clippy::cast_precision_loss)]
fn to_f64(count: usize) -> f64 {
    count as f64
}
