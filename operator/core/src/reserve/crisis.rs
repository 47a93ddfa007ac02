//! A crisis: for a stated reason and time the reserve's share is larger. It
//! begins and ends by the clock alone; who may declare one is not decided here.

use serde::{Deserialize, Serialize};

use crate::model::ReservedShape;

use super::bucket::Terms;

/// A crisis that was declared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Crisis {
    /// Why, in words.
    pub reason: String,
    /// When it begins, in milliseconds since 1970.
    pub from_ms: i64,
    /// When it is over, in milliseconds since 1970.
    pub until_ms: i64,
    /// The reserve's share while it lasts, in parts per million; a smaller one than the ordinary changes nothing.
    pub fraction_ppm: u32,
}

impl Crisis {
    /// Whether it is in force.
    pub fn in_force(&self, now_ms: i64) -> bool {
        (self.from_ms..self.until_ms).contains(&now_ms)
    }

    /// The terms while it lasts.
    pub fn terms(&self, ordinary: Terms) -> Terms {
        Terms { fraction_ppm: self.fraction_ppm.max(ordinary.fraction_ppm), ..ordinary }
    }

    /// What can be claimed at once while it lasts: as many times more as the share is larger, in whole pods.
    pub fn shapes(&self, ordinary: Terms, declared: &[ReservedShape]) -> Vec<ReservedShape> {
        let raised = u64::from(self.terms(ordinary).fraction_ppm);
        let times = |count: u32| match u64::from(ordinary.fraction_ppm) {
            0 => count,
            usual => u32::try_from((u64::from(count) * raised).div_ceil(usual)).unwrap_or(u32::MAX),
        };
        declared.iter().map(|shape| ReservedShape { count: times(shape.count), ..*shape }).collect()
    }
}
