//! What the sovereign reserves promise, told to the core as pools, shapes and
//! orders. What of it can be delivered, and who leaves for it, is decided there.

use std::collections::BTreeMap;
use std::sync::Arc;

use vingt_core::model::{
    Class, DeviceRequest, NodeIndex, NodeTerm, Operator, Order, Plan, PodShape, Requirement, Reserve,
    ReservedShape, Resources, Snapshot, Toleration,
};
use vingt_crds::{GpuRequest, OrderState, ReserveShape, SovereignOrder};

use super::Engine;
use crate::reserves::pools::Pool;
use crate::snapshot::Picture;
use crate::tenants::{Tenancy, class};
use crate::world::Key;

impl Engine {
    /// Enters the reserves into the picture: after everything that runs, for their shapes are among its shapes.
    pub(super) fn enter_reserves(&mut self, picture: &mut Picture, tenancy: &Tenancy, now_ms: i64) {
        let pools = self.accounts.reserves.look(&self.world, &self.layout, now_ms);
        for pool in &pools.pools {
            let reserve = self.promise(pool, picture, tenancy, now_ms);
            picture.snapshot.reserves.push(reserve);
        }
        if !pools.pools.is_empty() {
            picture.snapshot.device_sets.clone_from(&self.layout.sets);
        }
    }

    /// Takes in what of the reserves can't be delivered by a plan, and what is lent.
    pub(super) fn note_missing(&mut self, snapshot: &Snapshot, plan: &Plan, now_ms: i64) {
        let mut missing: BTreeMap<String, String> = BTreeMap::new();
        for one in &plan.missing {
            let Some(reserve) = snapshot.reserves.get(one.reserve) else { continue };
            let shape = snapshot.shapes.get(one.shape.shape).and_then(|shape| shape.requests.first());
            let label = shape.map_or("a shape", |request| request.label.as_str());
            let words = missing.entry(reserve.name.clone()).or_default();
            let more = if words.is_empty() { "there is no room for " } else { ", " };
            *words = format!("{words}{more}{} × {label}", one.shape.count);
        }
        self.accounts.reserves.proved(snapshot, &missing, now_ms);
    }

    fn promise(&mut self, pool: &Pool, picture: &mut Picture, tenancy: &Tenancy, now_ms: i64) -> Reserve {
        let spec = &pool.reserve.spec;
        let index = |node: &String| self.layout.node_index.get(node).copied();
        let mut nodes: Vec<NodeIndex> = pool.nodes.iter().filter_map(index).collect();
        nodes.sort_unstable();
        let declared = self.shapes_of(&spec.instant_claim.shapes, pool, picture);
        let shapes = self.accounts.reserves.claimable(pool, declared, now_ms);
        let seconds = |seconds: u32| i64::from(seconds).saturating_mul(1000);
        Reserve {
            name: pool.name().to_owned(),
            nodes,
            classes: spec.classes.iter().copied().map(class).collect(),
            shapes,
            burst: spec.instant_claim.burst,
            grace_ms: seconds(spec.instant_claim.grace_seconds),
            tokens: self.accounts.reserves.spare(pool.name()),
            least_claim_ms: seconds(spec.instant_claim.within_seconds),
            orders: self.orders_of(pool, picture, tenancy, now_ms),
        }
    }

    /// The orders that were accepted and have not ended, in the order they begin or began.
    fn orders_of(
        &mut self,
        pool: &Pool,
        picture: &mut Picture,
        tenancy: &Tenancy,
        now_ms: i64,
    ) -> Vec<Order> {
        let stands = |(key, order): (&Key, &Arc<SovereignOrder>)| {
            let status = order.status.as_ref()?;
            let accepted = matches!(status.state, Some(OrderState::Accepted | OrderState::Active));
            let tenant = tenancy.tenant(&key.namespace)?;
            let until_ms = order.spec.until.0.as_millisecond();
            let rating = status.rating.map_or(Class::Standard, class);
            (accepted && order.spec.reserve == pool.name() && until_ms > now_ms)
                .then(|| (key.clone(), order.clone(), tenant.to_owned(), rating))
        };
        let standing: Vec<_> = self.world.orders.iter().filter_map(stands).collect();
        let mut orders: Vec<Order> = standing
            .into_iter()
            .map(|(key, order, tenant, rating)| Order {
                key: format!("{}/{}", key.namespace, key.name),
                tenant,
                rating,
                shapes: self.shapes_of(&order.spec.shapes, pool, picture),
                from_ms: order.spec.from.0.as_millisecond(),
                until_ms: order.spec.until.0.as_millisecond(),
            })
            .collect();
        orders.sort_by(|a, b| (a.from_ms, &a.key).cmp(&(b.from_ms, &b.key)));
        orders
    }

    /// Shapes as pods that may be anywhere in the pool; what no device will do for is not among them.
    fn shapes_of(
        &mut self,
        shapes: &[ReserveShape],
        pool: &Pool,
        picture: &mut Picture,
    ) -> Vec<ReservedShape> {
        let anywhere = NodeTerm {
            labels: Vec::new(),
            names: vec![Requirement {
                key: "metadata.name".to_owned(),
                operator: Operator::In,
                values: pool.nodes.iter().cloned().collect(),
            }],
        };
        let any_taint = Toleration { key: None, value: None, effect: None };
        let mut found = Vec::new();
        for shape in shapes {
            let gpu = GpuRequest { profile: shape.profile.clone(), memory: None, count: shape.gpus };
            // A profile that no GPU has is told of where the reserve's status is written.
            let Ok(request) = self.request(&gpu) else { continue };
            let pod = PodShape {
                resources: Resources { pods: 1, ..Resources::default() },
                node_terms: vec![anywhere.clone()],
                tolerations: vec![any_taint.clone()],
                pinned: None,
                requests: vec![DeviceRequest { smallest: true, ..request }],
            };
            found.push(ReservedShape { shape: picture.shape(pod), count: shape.count });
        }
        found
    }
}
