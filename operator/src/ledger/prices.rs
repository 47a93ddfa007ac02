//! Tenants' price plans in the core's words.

use std::collections::BTreeMap;

use vingt_core::ledger::{Derivation, PricePlan, micros};
use vingt_crds::{PriceDerivation, Tenant};

/// The currency of the price that is worked out where a tenant has none.
const CURRENCY: &str = "EUR";

/// What a tenant pays: what its plan says, as far as it can be read, or else what the GPUs cost.
pub fn of_tenant(tenant: &Tenant) -> PricePlan {
    let Some(plan) = &tenant.spec.price_plan else { return Derivation::default().plan(CURRENCY) };
    let stated = plan.per_gpu_hour.as_deref().and_then(micros);
    let derived = || plan.derivation.as_ref().and_then(derivation).unwrap_or_default().plan(&plan.currency);
    let base = stated.map_or_else(derived, |per_gpu_hour| PricePlan {
        currency: plan.currency.clone(),
        per_gpu_hour,
        profiles: BTreeMap::new(),
        derivation: None,
    });
    let priced = |(profile, price): (&String, &String)| Some((profile.clone(), micros(price)?));
    PricePlan { profiles: plan.profiles.iter().filter_map(priced).collect(), ..base }
}

/// What a GPU costs, in the core's words.
fn derivation(said: &PriceDerivation) -> Option<Derivation> {
    Some(Derivation {
        purchase: micros(&said.purchase)?,
        life_hours: said.life_hours,
        power_watts: said.power_watts,
        overhead_percent: said.overhead_percent,
        energy_per_kwh: micros(&said.energy_per_kwh)?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn price(plan: &Value) -> PricePlan {
        let tenant = json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "t"},
            "spec": {"namespaces": {"names": ["t"]}, "guaranteedGPUs": "1", "pricePlan": plan}});
        of_tenant(&serde_json::from_value(tenant).unwrap())
    }

    #[test]
    fn a_price_is_what_is_said_or_what_a_gpu_costs() {
        let said = price(&json!({"currency": "USD", "perGPUHour": "2.10", "profiles": {"3g.40gb": "2.5"}}));
        assert_eq!((said.currency.as_str(), said.per_gpu_hour), ("USD", 2_100_000));
        assert_eq!((said.of("3g.40gb"), said.of("gpu")), (2_500_000, 2_100_000));
        assert_eq!(price(&Value::Null), Derivation::default().plan("EUR"));
        let cost = json!({"purchase": "8760", "lifeHours": 8760, "powerWatts": 1000, "energyPerKWh": "0.5"});
        let derived = price(&json!({"currency": "CHF", "derivation": cost}));
        assert_eq!((derived.currency.as_str(), derived.per_gpu_hour), ("CHF", 1_500_000));
        assert!(derived.derivation.is_some());
    }
}
