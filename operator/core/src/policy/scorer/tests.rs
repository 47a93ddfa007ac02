use super::*;
use crate::testing::{a30, cluster, h100};

fn bit(gpu: &Gpu, name: &str) -> u8 {
    u8::try_from(gpu.devices.iter().position(|device| device.name.ends_with(name)).unwrap()).unwrap()
}

#[test]
fn a_card_is_known_by_its_counters_and_the_kinds_of_its_devices() {
    let snapshot = cluster(1, &[h100(), a30()]);
    let scorer = Scorer::new(&snapshot);
    let [first, second] = [0, 1].map(|gpu| scorer.card_of(&snapshot.gpus[gpu]));
    assert!(first.is_some() && second.is_some() && first != second);
    let mut other = snapshot.gpus[0].clone();
    other.devices[3].kind = "of another kind".into();
    assert_eq!(scorer.card_of(&other), None);
    other.devices[3].kind.clone_from(&snapshot.gpus[0].devices[3].kind);
    other.capacity[1] += 1;
    assert_eq!(scorer.card_of(&other), None);
}

#[test]
fn prices_are_those_of_the_table() {
    let snapshot = cluster(1, &[h100()]);
    let gpu = &snapshot.gpus[0];
    let [last, first, whole] = ["1g.10gb-6", "1g.10gb-0", "7g.80gb-0"].map(|name| bit(gpu, name));
    let learned = Scorer::new(&snapshot);
    let card = learned.card_of(gpu).unwrap();
    let empty = learned.state(card, 0).unwrap();
    assert!(learned.price(empty, last) < learned.price(empty, first), "the last slice is worth the least");
    let in_use = learned.state(card, 1 << whole).unwrap();
    assert_eq!(learned.price(in_use, last), None);
    assert_eq!(learned.state(card, 1 << whole | 1 << last), None);

    let catalog = Catalog::of(&snapshot.gpus);
    let first_fit = Scorer::of(PlacementPolicy::FirstFit, &catalog);
    let empty = first_fit.state(card, 0).unwrap();
    assert_eq!(first_fit.price(empty, last), Some(0));
    // What was learnt is used as it is.
    let worst = learned.known.as_ref().unwrap().table.values.clone().unwrap();
    let worst = Values(worst.0.iter().map(|value| -value).collect());
    let space = learned.known.as_ref().unwrap().table.space.clone();
    let perverted = Scorer::learnt(&catalog, Table::of_values(&space, worst));
    let empty = perverted.state(card, 0).unwrap();
    assert!(perverted.price(empty, last) > perverted.price(empty, first));
}

#[test]
fn a_card_that_cannot_be_listed_is_left_out_alone() {
    let mut many = h100();
    while many.devices.len() < 65 {
        let first = many.devices[0].clone();
        many.devices.push(first);
    }
    let snapshot = cluster(1, &[many, a30()]);
    let scorer = Scorer::new(&snapshot);
    assert_eq!(scorer.card_of(&snapshot.gpus[0]), None);
    let card = scorer.card_of(&snapshot.gpus[1]).unwrap();
    assert!(scorer.state(card, 0).is_some());
    // It is placed on all the same.
    let mut snapshot = snapshot;
    let workload = crate::testing::job(&mut snapshot, "a", 1, "3g.40gb");
    snapshot.waiting.push(workload);
    assert_eq!(crate::plan(&snapshot, 0).admissions.len(), 1);
}
