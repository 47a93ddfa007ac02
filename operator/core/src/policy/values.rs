//! Policies that give each class of states a value.

use crate::states::{Class, Demand, Space};

use super::Policy;

/// The value of every class, by number; the place is best where the value drops least.
#[derive(Clone, Debug, PartialEq)]
pub struct Values(pub Vec<f64>);

impl Values {
    /// The value of `class`.
    #[inline]
    pub fn of_class(&self, class: Class) -> f64 {
        self.0[usize::from(class.0)]
    }

    /// The same preferences, such that the best and the worst class differ by `span`.
    #[must_use]
    pub fn spanning(self, span: f64) -> Self {
        let most = self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = self.0.iter().copied().fold(f64::INFINITY, f64::min);
        let scale = if most > least { span / (most - least) } else { 1.0 };
        Self(self.0.into_iter().map(|value| (value - least) * scale).collect())
    }
}

impl Policy for Values {
    fn cost(&self, _: &Space, _: Demand, from: Class, to: Class) -> f64 {
        self.of_class(from) - self.of_class(to)
    }
}
