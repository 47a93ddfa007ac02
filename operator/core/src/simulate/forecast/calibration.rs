//! Forecasts corrected by how those before them fared: what was foreseen is
//! remembered until it has happened, and the interval is moved and stretched so
//! that of the starts of late one in ten was before it, and one after it
//! (conformal prediction; Romano, Patterson and Candès 2019). What has not
//! started yet counts, too: as later than now.
//!
//! Waits are compared as ratios: a forecast of an hour that came to be two is
//! as wrong as one of a day that came to be two days.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::Forecast;
use crate::model::Snapshot;

/// Cases that are remembered of those that are over; and as many that are open.
const REMEMBERED: usize = 500;

/// Cases begun at a time, at most.
const AT_A_TIME: usize = 3;

/// Time between two of these at least, in milliseconds, and as part of the wait that is usual then.
const APART_MS: i64 = 60_000;
const APART_PART: i64 = 20;

/// By how much, as a logarithm, p10, p50 and p90 are taken to be later before there are any cases: forecasts of drawn
/// traces were a little too sure of themselves.
const BELIEVED: [f64; 3] = [-0.1, 0.0, 0.1];

/// As many cases as this belief weighs: those of one busy hour are much alike.
const BELIEF: f64 = 100.0;

/// Waits are compared with this added, in milliseconds: the ratio of shorter ones says nothing.
pub(super) const SHORT_MS: f64 = 10_000.0;

/// What forecasts tell, as shares of the cases that start before.
const LEVELS: [f64; 3] = [0.1, 0.5, 0.9];

/// How forecasts fared, and what follows for the next ones.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Calibration {
    /// What has not started, by key: each time of asking with what was foreseen, before it was corrected.
    open: BTreeMap<String, Vec<(i64, [i64; 3])>>,
    /// Logarithms of what was waited over what was foreseen as p10, p50 and p90; the latest last.
    over: VecDeque<[f64; 3]>,
    /// When cases were last begun, in milliseconds since 1970.
    begun_ms: Option<i64>,
    /// How often.
    times: usize,
}

impl Calibration {
    /// Remembers some of what was foreseen, if the last time is some while ago: the same jobs asked about again and
    /// again teach nothing new. These must be as they were before they were corrected.
    pub fn asked(&mut self, plain: &[Forecast], now_ms: i64) {
        let known = |told: &Forecast| Some([told.p10_ms?, told.p50_ms?, told.p90_ms?]);
        let known: Vec<(&str, [i64; 3])> =
            plain.iter().filter_map(|told| Some((told.key.as_str(), known(told)?))).collect();
        let mut waits: Vec<i64> = known.iter().map(|(_, [_, p50, _])| p50.saturating_sub(now_ms)).collect();
        waits.sort_unstable();
        let Some(usual_ms) = waits.get(waits.len() / 2) else { return };
        let apart_ms = APART_MS.max(usual_ms / APART_PART);
        if self.begun_ms.is_some_and(|begun_ms| now_ms.saturating_sub(begun_ms) < apart_ms) {
            return;
        }
        self.begun_ms = Some(now_ms);
        self.times += 1;
        // Not always the same place in the queue.
        let some = known.len().min(AT_A_TIME);
        for number in 0..some {
            if self.open.values().map(Vec::len).sum::<usize>() == REMEMBERED {
                self.forget_the_oldest();
            }
            let (key, told) = known[(self.times + number * known.len() / some) % known.len()];
            self.open.entry(key.to_owned()).or_default().push((now_ms, told));
        }
    }

    fn forget_the_oldest(&mut self) {
        let first = |cases: &Vec<(i64, [i64; 3])>| cases.first().map(|(asked_ms, _)| *asked_ms);
        let oldest = self.open.iter().min_by_key(|(_, cases)| first(cases)).map(|(key, _)| key.clone());
        if let Some(cases) = oldest.as_ref().and_then(|key| self.open.get_mut(key)) {
            cases.remove(0);
        }
        self.open.retain(|_, cases| !cases.is_empty());
    }

    /// Sees what has started, and what does not wait any more without having run.
    pub fn look(&mut self, snapshot: &Snapshot) {
        if self.open.is_empty() {
            return;
        }
        for running in &snapshot.running {
            self.started(&running.key, running.admitted_ms);
        }
        let waiting: BTreeSet<&str> = snapshot.waiting.iter().map(|workload| workload.key.as_str()).collect();
        self.open.retain(|key, _| waiting.contains(key.as_str()));
    }

    /// Something started; it need not have been asked about.
    pub(super) fn started(&mut self, key: &str, start_ms: i64) {
        let Some(cases) = self.open.remove(key) else { return };
        self.over.extend(cases.into_iter().map(|(asked_ms, told)| ratios(told, asked_ms, start_ms)));
        let superfluous = self.over.len().saturating_sub(REMEMBERED);
        self.over.drain(..superfluous);
    }

    /// Forecasts that were given at a time, as those before them teach.
    #[must_use]
    pub fn corrected(&self, plain: &[Forecast], now_ms: i64) -> Vec<Forecast> {
        let shifts = self.shifts(now_ms);
        plain.iter().map(|told| corrected(told, shifts, now_ms)).collect()
    }

    /// By how much, as a logarithm, p10, p50 and p90 are to be later.
    #[allow(clippy::cast_precision_loss)] // numbers of cases
    fn shifts(&self, now_ms: i64) -> [f64; 3] {
        let over = self.over.iter().map(|ratios| (*ratios, true));
        let open = self.open.values().flatten();
        let open = open.map(|(asked_ms, told)| (ratios(*told, *asked_ms, now_ms), false));
        let cases: Vec<([f64; 3], bool)> = over.chain(open).collect();
        let known = self.over.len() as f64;
        let shift = |at: usize| {
            let ratios = cases.iter().map(|(ratios, over)| (ratios[at], *over)).collect();
            (known * quantile(ratios, LEVELS[at]) + BELIEF * BELIEVED[at]) / (known + BELIEF)
        };
        [0, 1, 2].map(shift)
    }
}

/// Logarithms of what was waited over what was foreseen.
#[allow(clippy::cast_precision_loss)] // milliseconds
fn ratios(told: [i64; 3], asked_ms: i64, start_ms: i64) -> [f64; 3] {
    let wait = |at_ms: i64| at_ms.saturating_sub(asked_ms).max(0) as f64 + SHORT_MS;
    told.map(|told_ms| (wait(start_ms) / wait(told_ms)).ln())
}

/// The value that this share is below, where some are known only to be greater than what is there (Kaplan and Meier
/// 1958); the greatest if it is among those.
#[allow(clippy::cast_precision_loss)] // numbers of cases
fn quantile(mut values: Vec<(f64, bool)>, share: f64) -> f64 {
    values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut above = 1.0;
    let mut at_risk = values.len() as f64;
    for (value, known) in &values {
        if *known {
            above *= 1.0 - 1.0 / at_risk;
            if above <= 1.0 - share {
                return *value;
            }
        }
        at_risk -= 1.0;
    }
    values.last().map_or(0.0, |last| last.0)
}

fn corrected(told: &Forecast, shifts: [f64; 3], now_ms: i64) -> Forecast {
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // milliseconds
    let later = |at_ms: Option<i64>, shift: f64| {
        let wait = at_ms?.saturating_sub(now_ms).max(0) as f64 + SHORT_MS;
        Some(now_ms.saturating_add((wait * shift.exp() - SHORT_MS).max(0.0) as i64))
    };
    let [p10, p50, p90] = shifts;
    let p50_ms = later(told.p50_ms, p50);
    let p10_ms = later(told.p10_ms, p10).map(|p10_ms| p50_ms.map_or(p10_ms, |p50_ms| p10_ms.min(p50_ms)));
    let p90_ms = later(told.p90_ms, p90).map(|p90_ms| p50_ms.map_or(p90_ms, |p50_ms| p90_ms.max(p50_ms)));
    Forecast { p10_ms, p50_ms, p90_ms, ..told.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Running, Workload};
    use crate::simulate::Random;

    const MINUTE_MS: i64 = 60_000;

    fn told(key: &str, now_ms: i64, minutes: [i64; 3]) -> Forecast {
        let [p10_ms, p50_ms, p90_ms] = minutes.map(|minutes| Some(now_ms + minutes * MINUTE_MS));
        Forecast { key: key.into(), p10_ms, p50_ms, p90_ms, ..Forecast::default() }
    }

    /// Jobs asked about one after the other, of which the n-th starts after so many minutes.
    fn taught(cases: i64, minutes: impl Fn(i64) -> i64) -> Calibration {
        let mut calibration = Calibration::default();
        for number in 0..cases {
            let (now_ms, key) = (number * 1_000 * MINUTE_MS, number.to_string());
            calibration.asked(&[told(&key, now_ms, [50, 100, 200])], now_ms);
            calibration.started(&key, now_ms + minutes(number) * MINUTE_MS);
        }
        calibration
    }

    fn minutes(calibration: &Calibration, told_minutes: [i64; 3]) -> [i64; 3] {
        let now_ms = 1_000_000 * MINUTE_MS;
        let corrected = &calibration.corrected(&[told("new", now_ms, told_minutes)], now_ms)[0];
        [corrected.p10_ms, corrected.p50_ms, corrected.p90_ms].map(|at| (at.unwrap() - now_ms) / MINUTE_MS)
    }

    #[test]
    fn without_cases_forecasts_are_widened_a_little() {
        let [p10, p50, p90] = minutes(&Calibration::default(), [50, 100, 200]);
        assert_eq!((p10, p50, p90), (45, 100, 221));
    }

    #[test]
    fn what_always_comes_later_is_foreseen_later() {
        // From 1.5 to 3 times as late as the median.
        let calibration = taught(500, |n| 150 + n * 7 % 151);
        let [p10, p50, p90] = minutes(&calibration, [50, 100, 200]);
        assert!(
            (125..165).contains(&p10) && (185..225).contains(&p50) && (250..285).contains(&p90),
            "{p10} {p90}"
        );
        let day = 24 * 60;
        assert!(minutes(&calibration, [50, day, 3 * day])[1] > 3 * day / 2, "as a ratio");
    }

    #[test]
    fn eight_of_ten_are_within_however_wrong_the_forecasts_are() {
        let mut random = Random::new(3);
        #[allow(clippy::cast_possible_truncation)] // minutes
        let waits: Vec<i64> = (0..1_000).map(|_| (700.0 * random.normal().exp()) as i64).collect();
        let mut within = 0;
        let mut calibration = Calibration::default();
        for (number, wait) in (0..).zip(waits) {
            let (now_ms, key) = (number * 100_000 * MINUTE_MS, number.to_string());
            let plain = [told(&key, now_ms, [50, 60, 70])];
            if number >= 500 {
                let given = &calibration.corrected(&plain, now_ms)[0];
                let start = Some(now_ms + wait * MINUTE_MS);
                within += i32::from(given.p10_ms <= start && start <= given.p90_ms);
            }
            calibration.asked(&plain, now_ms);
            calibration.started(&key, now_ms + wait * MINUTE_MS);
        }
        assert!((350..=450).contains(&within), "{within} of 500");
    }

    #[test]
    fn what_has_not_started_yet_counts_as_later() {
        let mut calibration = taught(40, |n| 60 + n);
        let before = minutes(&calibration, [50, 100, 200]);
        for number in 0..40 {
            let now_ms = (500_000 + number * 10) * MINUTE_MS;
            calibration.asked(&[told(&format!("open{number}"), now_ms, [1, 2, 3])], now_ms);
        }
        let after = minutes(&calibration, [50, 100, 200]);
        assert!(after[1] > before[1] && after[2] > 2 * before[2], "{before:?} {after:?}");
    }

    #[test]
    fn what_started_is_seen_and_what_went_away_is_forgotten() {
        let mut calibration = Calibration::default();
        let plain = ["a", "b", "c"].map(|key| told(key, 0, [50, 100, 200]));
        calibration.asked(&plain, 0);
        calibration.asked(&plain, 1_000);
        assert_eq!(calibration.open.values().map(Vec::len).sum::<usize>(), 3, "not again at once");
        let mut snapshot = Snapshot::default();
        snapshot.waiting.push(Workload { key: "a".into(), ..Workload::default() });
        snapshot.running.push(Running { key: "b".into(), admitted_ms: 5 * MINUTE_MS, ..Running::default() });
        calibration.look(&snapshot);
        assert_eq!(
            (calibration.open.keys().map(String::as_str).collect::<Vec<_>>(), calibration.over.len()),
            (vec!["a"], 1)
        );
        calibration.look(&snapshot);
        assert_eq!(calibration.over.len(), 1, "once");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let calibration = taught(700, |_| 100);
        assert_eq!(calibration.over.len(), REMEMBERED);
        let mut calibration = Calibration::default();
        for number in 0..700 {
            let now_ms = number * 100 * MINUTE_MS;
            calibration.asked(&[told(&number.to_string(), now_ms, [1, 2, 3])], now_ms);
        }
        assert_eq!(calibration.open.len(), REMEMBERED);
        assert!(calibration.open.contains_key("699"), "the oldest make room");
    }
}
