//! A reserve's pool and what is asked of it, in the core's words: what fits
//! there is decided in [`vingt_core::reserve::Room`].

use std::collections::BTreeMap;

use vingt_core::model::{Gpu, ReservedShape};
use vingt_core::reserve::{Room, Shape};
use vingt_crds::ReserveShape;

use super::pools::Pool;
use crate::snapshot::layout::Layout;

/// The room of a pool, by what is published of it.
pub fn room<'a>(pool: &'a Pool, layout: &'a Layout) -> Room<'a> {
    let mut gpus: BTreeMap<&str, Vec<&Gpu>> = BTreeMap::new();
    for gpu in &layout.gpus {
        let node = layout.nodes.get(gpu.node.0 as usize).filter(|node| pool.nodes.contains(*node));
        if let Some(node) = node {
            gpus.entry(node).or_default().push(gpu);
        }
    }
    let out = pool.reserve.spec.maintenance.iter().flat_map(|maintenance| {
        let times = (maintenance.from.0.as_millisecond(), maintenance.until.0.as_millisecond());
        maintenance.nodes.iter().map(move |node| (node.as_str(), times.0, times.1))
    });
    Room::of(gpus, out.collect())
}

/// Shapes, by the numbers that the room gives them.
pub fn numbered(room: &mut Room<'_>, shapes: &[ReserveShape]) -> Vec<ReservedShape> {
    let number = |shape: &ReserveShape| {
        let wanted = match (&shape.profile, shape.gpus) {
            (Some(profile), _) => Shape::Profile(profile.clone()),
            (None, gpus) => Shape::Gpus(gpus.unwrap_or(1)),
        };
        ReservedShape { shape: room.number(wanted), count: shape.count }
    };
    shapes.iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use vingt_core::reserve::Fits;

    use super::*;
    use crate::reserves::pools::tests::pool_of;

    fn shape(profile: Option<&str>, gpus: Option<u32>, count: u32) -> ReserveShape {
        ReserveShape { profile: profile.map(str::to_owned), gpus, count }
    }

    #[test]
    fn what_fits_into_an_empty_pool_fits() {
        let (pool, layout) = pool_of(&[("a", 2), ("b", 1)]);
        let mut room = room(&pool, &layout);
        let mut fits = |shapes: &[ReserveShape]| {
            let shapes = numbered(&mut room, shapes);
            room.fits(&shapes, 0)
        };
        assert!(fits(&[shape(None, Some(2), 1), shape(Some("3g.40gb"), None, 2)]));
        assert!(!fits(&[shape(None, Some(2), 1), shape(Some("3g.40gb"), None, 3)]));
        assert!(!fits(&[shape(None, Some(2), 2)]), "not on one node");
        assert!(fits(&[shape(None, Some(1), 3)]));
        assert!(!fits(&[shape(Some("9g.99gb"), None, 1)]));
        let numbers = numbered(&mut room, &[shape(None, Some(3), 1), shape(Some("9g.99gb"), None, 1)]);
        assert_eq!(numbers.iter().map(|shape| room.units(shape.shape)).collect::<Vec<_>>(), [None, None]);
    }
}
