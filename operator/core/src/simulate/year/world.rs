//! The cluster of a year, and the reserve as the planner sees it at a time.

use crate::model::{
    NodeIndex, NodeTerm, Operator, PodShape, Requirement, Reserve, ReservedShape, Resources, Snapshot,
    UNITS_PER_GPU, UnitMs, Units,
};
use crate::reserve::{Account, Now, Standing};
use crate::simulate::fleet::{Sort, add_node, shape};
use crate::simulate::replay::ReplayError;

use super::booking::Books;
use super::load::{Ask, DRAWING, Job, tenants};
use super::{GRACE_MS, Keeping, LEAST_CLAIM_MS, Setup};

/// The cluster, and what is asked of it.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub snapshot: Snapshot,
    /// Shapes of whole GPUs, halves and sevenths: for those who draw on the reserve, and for the others.
    shapes: [[usize; 3]; 2],
}

/// Whether a tenant draws on the reserve.
pub(super) fn is_drawing(tenant: &str) -> bool {
    DRAWING.iter().any(|(name, ..)| *name == tenant)
}

const ASKS: [(Ask, &str, Units); 3] =
    [(Ask::Whole, "gpu", 56), (Ask::Half, "3g.40gb", 28), (Ask::Seventh, "1g.10gb", 8)];

/// What one of it is charged.
pub(super) fn units(ask: Ask) -> Units {
    ASKS[ask as usize].2
}

impl World {
    pub fn new(setup: &Setup) -> Result<Self, ReplayError> {
        let mut snapshot = Snapshot::default();
        add_node(&mut snapshot, "node-00", 1, Sort::H100Either);
        let mut left = setup.gpus.saturating_sub(1);
        while left > 0 {
            let name = format!("node-{:02}", snapshot.nodes.len());
            add_node(&mut snapshot, &name, left.min(4), Sort::H100Either);
            left = left.saturating_sub(4);
        }
        snapshot.tenants.extend(tenants(Units::from(setup.gpus) * UNITS_PER_GPU));
        snapshot.settings.defragmentation = false;
        let mut shapes = [[0; 3]; 2];
        for (ask, kind, _) in ASKS {
            let index = shape(&mut snapshot, 1, kind, &Resources::default());
            let missing =
                || ReplayError::Scenario { field: "gpus", problem: format!("no {kind} in the cluster") };
            let index = index.ok_or_else(missing)?;
            for (drawing, operator) in [(0, Operator::NotIn), (1, Operator::In)] {
                shapes[drawing][ask as usize] = match setup.keeping {
                    Keeping::Lent | Keeping::Nothing => index,
                    Keeping::SetAside => {
                        let term =
                            Requirement { key: String::new(), operator, values: vec!["node-00".to_owned()] };
                        let node_terms = vec![NodeTerm { names: vec![term], ..NodeTerm::default() }];
                        let of = PodShape { node_terms, ..snapshot.shapes[index].clone() };
                        snapshot.shapes.push(of);
                        snapshot.shapes.len() - 1
                    }
                };
            }
        }
        Ok(Self { snapshot, shapes })
    }

    /// The shape of a whole GPU, for those who draw on the reserve.
    pub fn whole(&self) -> usize {
        self.shapes[1][Ask::Whole as usize]
    }

    /// What each pod of a job asks for.
    pub fn shape(&self, job: &Job) -> usize {
        self.shapes[usize::from(is_drawing(job.tenant))][job.ask as usize]
    }

    /// What can be claimed at once: one whole GPU and one half, in a crisis as many times more as the share is larger.
    pub fn declared(&self, setup: &Setup, now_ms: i64) -> Vec<ReservedShape> {
        let one = |ask: Ask| ReservedShape { shape: self.shapes[1][ask as usize], count: 1 };
        let declared = [one(Ask::Whole), one(Ask::Half)];
        match setup.crisis.as_ref().filter(|crisis| crisis.in_force(now_ms)) {
            Some(crisis) => crisis.shapes(setup.terms, &declared),
            None => declared.to_vec(),
        }
    }

    /// Whether one more fits into what can be claimed at once beside what is asked for already; a half may take
    /// the place of a whole one.
    pub fn may_claim(&self, setup: &Setup, now_ms: i64, asked: &[Ask], more: Ask) -> bool {
        let count = |ask: Ask| asked.iter().chain([&more]).filter(|one| **one == ask).count();
        let declared = self.declared(setup, now_ms);
        let [wholes, halves] = [0, 1].map(|at: usize| declared[at].count as usize);
        count(Ask::Whole) <= wholes && count(Ask::Whole) + count(Ask::Half) <= wholes + halves
    }

    /// How the reserve stands.
    pub fn standing(
        &self,
        setup: &Setup,
        account: &Account,
        books: &Books,
        now_ms: i64,
        claimed: Units,
    ) -> Standing {
        let booked = books.bookings();
        let installed = Units::from(setup.gpus) * UNITS_PER_GPU;
        let now = Now { terms: setup.terms, crisis: setup.crisis.as_ref(), installed, booked: &booked };
        let declared = self.declared(setup, now_ms);
        let most = declared[0].count * 56 + declared[1].count * 28;
        account.standing(&now, claimed, most.into(), LEAST_CLAIM_MS)
    }

    /// Tells the planner what is to be kept now.
    pub fn keep(&mut self, setup: &Setup, account: &Account, books: &Books, now_ms: i64, claimed: Units) {
        let standing = self.standing(setup, account, books, now_ms, claimed);
        self.snapshot.reserves = vec![Reserve {
            name: "national".to_owned(),
            nodes: (0..).map(NodeIndex).take(self.snapshot.nodes.len()).collect(),
            classes: DRAWING.iter().map(|(_, class, _)| *class).collect(),
            shapes: self.declared(setup, now_ms),
            burst: 1,
            grace_ms: GRACE_MS,
            tokens: standing.spare(),
            least_claim_ms: LEAST_CLAIM_MS,
            orders: books.orders(),
        }];
    }
}

/// Tokens that cover these claims and one more.
pub fn cover(asked: &[Ask], more: Ask) -> UnitMs {
    let all: Units = asked.iter().chain([&more]).map(|ask| units(*ask)).sum();
    super::tally::over(all, LEAST_CLAIM_MS)
}
