use k8s_openapi::api::resource::v1::{ResourceClaim, ResourceSlice};
use serde_json::{Value, json};

use super::*;

/// What a node with `gpus` H100s publishes: the whole GPU, and some partitions.
pub(crate) fn published(node: &str, gpus: u32) -> Vec<ResourceSlice> {
    let profiles: [(&str, &str, u32, u32, &[u32]); 4] = [
        ("1g.10gb", "mig-1g10gb-19", 1, 1, &[0, 1, 2, 3, 4, 5, 6]),
        ("2g.20gb", "mig-2g20gb-14", 2, 2, &[0, 2, 4]),
        ("3g.40gb", "mig-3g40gb-9", 3, 4, &[0, 4]),
        ("gpu", "", 7, 8, &[0]),
    ];
    let counter = |value: u32| json!({"value": value.to_string()});
    let mut slices = Vec::new();
    let pool = json!({"name": node, "generation": 2, "resourceSliceCount": gpus + 1});
    let meta = |name: String| json!({"name": name});
    let sets: Vec<Value> = (0..gpus)
        .map(|minor| {
            let slices = (0..8).map(|slice| (format!("memory-slice-{slice}"), counter(1)));
            let counters: BTreeMap<String, Value> = slices
                .chain([
                    ("compute-slices".to_owned(), counter(7)),
                    ("memory".into(), json!({"value": "80Gi"})),
                ])
                .collect();
            json!({"name": format!("gpu-{minor}"), "counters": counters})
        })
        .collect();
    slices.push(json!({"metadata": meta(format!("{node}-counters")),
        "spec": {"driver": "gpu.vingt.dev", "nodeName": node, "pool": pool, "sharedCounters": sets}}));
    for minor in 0..gpus {
        let mut devices = Vec::new();
        for (profile, short, compute, size, starts) in profiles {
            for start in starts {
                let mut counters: BTreeMap<String, Value> = (*start..start + size)
                    .map(|slice| (format!("memory-slice-{slice}"), counter(1)))
                    .collect();
                counters.insert("compute-slices".into(), counter(compute));
                let whole = profile == "gpu";
                let name =
                    if whole { format!("gpu-{minor}") } else { format!("gpu-{minor}-{short}-{start}") };
                let uuid = format!("GPU-{node}-{minor}");
                let mut attributes = json!({"type": {"string": if whole { "gpu" } else { "mig" }},
                    "productName": {"string": "NVIDIA H100 80GB HBM3"}, "minor": {"int": minor}});
                attributes[if whole { "uuid" } else { "parentUUID" }] = json!({"string": uuid});
                if !whole {
                    attributes["profile"] = json!({"string": profile});
                }
                devices.push(json!({"name": name, "attributes": attributes,
                    "taints": [{"key": "vingt.dev/managed", "effect": "NoSchedule"}],
                    "consumesCounters": [{"counterSet": format!("gpu-{minor}"), "counters": counters}]}));
            }
        }
        slices.push(json!({"metadata": meta(format!("{node}-{minor}")),
            "spec": {"driver": "gpu.vingt.dev", "nodeName": node, "pool": pool, "devices": devices}}));
    }
    slices.into_iter().map(|slice| serde_json::from_value(slice).unwrap()).collect()
}

/// A claim of a tenant's job that is allocated a device.
pub(crate) fn claimed(name: &str, tenant: &str, workload: &str, node: &str, device: &str) -> ResourceClaim {
    let record = json!({"version": 1, "claim": name, "node": node, "units": 28, "tenant": tenant,
        "workload": workload, "start": "2026-01-01T00:00:00Z",
        "devices": [{"request": "gpu", "pool": node, "device": device}]});
    let results = json!([{"driver": "gpu.vingt.dev", "pool": node, "device": device, "request": "gpu"}]);
    let claim = json!({"metadata": {"name": name, "namespace": "p", "uid": name,
            "annotations": {"vingt.dev/decision": record.to_string()}},
        "spec": {}, "status": {"allocation": {"devices": {"results": results}}}});
    serde_json::from_value(claim).unwrap()
}

/// A tenant.
pub(crate) fn tenant(name: &str, guaranteed: &str, limit: &str, waiting: u32) -> TenantObject {
    let tenant = json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": name},
        "spec": {"namespaces": {"names": [name]}, "guaranteedGPUs": guaranteed, "limitGPUs": limit},
        "status": {"waiting": waiting}});
    serde_json::from_value(tenant).unwrap()
}

#[test]
fn a_partition_lies_where_its_counters_say_and_costs_its_share() {
    let claims = [claimed("c", "research", "TrainingJob/research/sweep", "n", "gpu-1-mig-3g40gb-9-4")];
    let picture = Picture::of(&published("n", 2), &claims, &[tenant("research", "8", "16", 3)]);
    let [node] = &picture.nodes[..] else { panic!("one node: {picture:?}") };
    assert!(node.complete && node.gpus.len() == 2 && node.gpus.iter().all(|gpu| gpu.healthy));
    let gpu = &node.gpus[1];
    assert_eq!((gpu.slices, gpu.free(), gpu.uuid.as_str()), (8, 4, "GPU-n-1"));
    let [held] = &gpu.held[..] else { panic!("one device: {gpu:?}") };
    assert_eq!((held.profile.as_str(), held.first, held.slices, held.units), ("3g.40gb", 4, 4, 28));
    assert_eq!(held.since.as_deref(), Some("2026-01-01T00:00:00Z"));
    let [tenant] = &picture.tenants[..] else { panic!("one tenant: {picture:?}") };
    assert_eq!((tenant.held_units, tenant.waiting, tenant.limit.as_deref()), (28, 3, Some("16")));
    assert!(picture.notes.is_empty(), "{:?}", picture.notes);
}

#[test]
fn a_decision_that_is_being_written_holds_and_a_void_one_does_not() {
    let mut claim = claimed("c", "t", "Pod/p/x", "n", "gpu-0");
    claim.status = None;
    let held = |claim: &ResourceClaim| {
        let picture = Picture::of(&published("n", 1), std::slice::from_ref(claim), &[]);
        picture.tenants.iter().map(|tenant| tenant.held_units).sum::<u64>()
    };
    assert_eq!(held(&claim), 0, "without its finalizer it was deallocated");
    claim.metadata.finalizers = Some(vec!["resource.kubernetes.io/delete-protection".into()]);
    assert_eq!(held(&claim), 56);
}

#[test]
fn what_is_amiss_is_said() {
    let mut slices = published("n", 2);
    let gone = claimed("c", "t", "Pod/p/x", "n", "gpu-7");
    let stray = claimed("d", "t", "Pod/p/y", "n", "gpu-0");
    let stray = ResourceClaim {
        metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            annotations: None,
            ..stray.metadata
        },
        ..stray
    };
    for device in slices[2].spec.devices.iter_mut().flatten() {
        let sick =
            serde_json::from_value(json!({"key": "gpu.vingt.dev/xid", "effect": "NoExecute"})).unwrap();
        device.taints.get_or_insert_default().push(sick);
    }
    let picture = Picture::of(&slices, &[gone, stray], &[]);
    assert_eq!(picture.notes, ["n/gpu-7, held by Pod/p/x, is not published"]);
    let [first, second] = &picture.nodes[0].gpus[..] else { panic!("two GPUs") };
    assert_eq!((first.healthy, second.healthy), (true, false));
    assert_eq!((first.held[0].tenant.as_str(), first.held[0].workload.as_str()), ("", "ResourceClaim/p/d"));
    slices.pop();
    assert!(!Picture::of(&slices, &[], &[]).nodes[0].complete, "a slice is missing");
}

#[test]
fn an_older_generation_is_no_more() {
    let mut slices = published("n", 1);
    let mut old = published("n", 2);
    for slice in &mut old {
        slice.spec.pool.generation = 1;
    }
    slices.append(&mut old);
    let picture = Picture::of(&slices, &[], &[]);
    assert_eq!((picture.nodes.len(), picture.nodes[0].gpus.len(), picture.nodes[0].complete), (1, 1, true));
}
