//! A few days of a year.

use super::*;

fn days() -> Setup {
    let setup = Setup { days: 9, ..Setup::default() };
    let crisis = setup.crisis.clone().map(|crisis| Crisis {
        from_ms: setup.start_ms + 5 * DAY_MS,
        until_ms: setup.start_ms + 7 * DAY_MS,
        ..crisis
    });
    Setup { crisis, ..setup }
}

#[test]
fn what_is_delivered_is_what_was_claimed_and_within_bounds() {
    let Year { rows, summary } = play(&days()).unwrap();
    assert_eq!(rows.len(), 9);
    assert_eq!(summary.claimed, summary.claimed_by_jobs, "difference 0 unit-ms");
    assert_eq!(summary.ordered, summary.ordered_by_jobs);
    assert!(summary.valid > 20);
    assert_eq!(summary.late, 0, "no valid claim is missed");
    assert!(summary.most_beyond_rate <= summary.depth);
    assert_eq!(rows.iter().map(|row| row.claimed).sum::<u64>(), summary.claimed);
    assert!(summary.used <= summary.capacity && summary.utilisation() > 0.5, "{summary:?}");
}

#[test]
fn the_same_seed_gives_the_same_year_and_another_another() {
    let short = Setup { days: 3, ..days() };
    let year = play(&short).unwrap();
    assert_eq!(play(&short).unwrap(), year);
    assert_ne!(play(&Setup { seed: 2, ..short }).unwrap(), year);
}

#[test]
fn a_share_that_is_set_aside_is_used_by_those_who_draw_on_it_only() {
    let Year { summary, .. } = play(&Setup { keeping: Keeping::SetAside, ..days() }).unwrap();
    assert_eq!((summary.evictions, summary.claimed), (0, 0));
    assert!(summary.sovereign <= summary.capacity / 20, "one GPU of 20");
}

#[test]
fn the_newest_leave_first_and_only_if_they_are_in_the_way() {
    let ours = play(&days()).unwrap().summary;
    let newest = play(&Setup { victims: Victims::NewestFirst, ..days() }).unwrap().summary;
    assert_eq!(newest.claimed, newest.claimed_by_jobs);
    assert!(newest.evictions > 0 && ours.evictions > 0, "{newest:?}");
}

#[test]
fn what_is_taken_beyond_the_rate_is_the_most_over_all_pairs_of_instants() {
    use super::tally::Beyond;
    let rate = crate::reserve::Rate(2_000_000);
    let mut beyond = Beyond::default();
    beyond.step(10, 0, rate);
    beyond.step(5, 10, rate);
    beyond.step(1, 0, rate);
    beyond.step(4, 10, rate);
    assert_eq!(beyond.most(), 5 * 8 - 2 + 4 * 8);
    beyond.cut();
    beyond.step(100, 3, rate);
    assert_eq!(beyond.most(), 100);
}
