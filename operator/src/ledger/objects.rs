//! Reports as objects of the API: made, changed, and read back.

use serde_json::{Map, Value, json};
use vingt_core::ledger::Report;
use vingt_crds::names;

use crate::world::{Claim, Key, StoredReport};

/// The key of a report.
pub fn key(report: &Report) -> Key {
    Key::new("", &report.name())
}

/// A report as an object that is made.
pub fn made(report: &Report) -> Value {
    json!({
        "apiVersion": "vingt.dev/v1alpha1",
        "kind": "UsageReport",
        "metadata": {"name": report.name(), "labels": {names::MANAGED_BY_LABEL: names::OPERATOR}},
        "spec": report,
    })
}

/// The patch that makes a stored report another one; it is refused for any other version of it.
pub fn changed(stored: &StoredReport, report: &Report) -> Value {
    let spec = |report: &Report| serde_json::to_value(report).unwrap_or_default();
    json!({
        "metadata": {"uid": stored.uid, "resourceVersion": stored.version},
        "spec": difference(&spec(&stored.report), &spec(report)),
    })
}

/// What a JSON merge patch must say to make `new` of `old`.
fn difference(old: &Value, new: &Value) -> Value {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return new.clone() };
    let gone = old.keys().filter(|name| !new.contains_key(*name)).map(|name| (name.clone(), Value::Null));
    let other = new.iter().filter(|(name, value)| old.get(*name) != Some(value));
    let other = other.map(|(name, value)| {
        let value = old.get(name).map_or_else(|| value.clone(), |old| difference(old, value));
        (name.clone(), value)
    });
    Value::Object(gone.chain(other).collect::<Map<_, _>>())
}

/// The patch that lets a claim go whose use is counted.
pub fn released(claim: &Claim) -> Value {
    let finalizers: Vec<_> =
        claim.finalizers.iter().filter(|finalizer| *finalizer != names::LEDGER_FINALIZER).collect();
    json!({"metadata": {
        "uid": claim.uid,
        "resourceVersion": claim.version,
        "finalizers": finalizers,
        "annotations": {names::DECISION: null, names::ENDED: null},
    }})
}

/// The patch that lets a claim be waited for that was decided before there was a ledger.
pub fn entered(claim: &Claim) -> Value {
    let finalizers = claim.finalizers.iter().map(String::as_str).chain([names::LEDGER_FINALIZER]);
    json!({"metadata": {
        "uid": claim.uid,
        "resourceVersion": claim.version,
        "finalizers": finalizers.collect::<Vec<_>>(),
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the API server applies it (RFC 7386).
    fn merge(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        for (name, value) in patch {
            if value.is_null() {
                target.as_object_mut().unwrap().remove(name);
            } else {
                merge(&mut target[name], value);
            }
        }
    }

    #[test]
    fn a_patch_makes_the_new_of_the_old_exactly() {
        let documents = [
            json!({"settled": ["a"], "lines": [{"unitMs": 1}], "price": {"currency": "EUR", "profileMicros": {"x": 1, "y": 2}}}),
            json!({"lines": [{"unitMs": 2}], "price": {"currency": "EUR"}, "pool": {"units": 3}}),
            json!({"lines": [], "pool": {"units": 3, "crises": []}}),
            json!({}),
        ];
        for old in &documents {
            for new in &documents {
                let mut patched = old.clone();
                merge(&mut patched, &difference(old, new));
                assert_eq!(&patched, new);
            }
        }
    }
}
