//! Orders and their answers as text.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use kube::ResourceExt as _;
use vingt_crds::{OrderState, SovereignOrder, TenantClass};

use crate::lines::{Lines, clock};
use crate::screen::{Screen, cell};
use crate::words::duration;

/// What is ordered, in words.
fn what(order: &SovereignOrder) -> String {
    let shapes: Vec<String> = order.spec.shapes.iter().map(ToString::to_string).collect();
    shapes.join(", ")
}

/// How long until a time, or nothing if it is past.
fn soon(time: Timestamp, now: Timestamp) -> String {
    let left_ms = time.as_millisecond() - now.as_millisecond();
    if left_ms > 0 { format!(" (in {})", duration(left_ms)) } else { String::new() }
}

/// The answer to one order.
pub fn answer(order: &SovereignOrder, now: Timestamp, zone: &TimeZone, screen: Screen) -> String {
    let status = order.status.clone().unwrap_or_default();
    let (from, until) = (order.spec.from.0, order.spec.until.0);
    let lasts_ms = until.as_millisecond() - from.as_millisecond();
    let state =
        status.state.map_or_else(|| "no answer yet".to_owned(), |state| state.as_str().to_lowercase());
    let rated = status.rating.map(|rating| format!(", rated {}", rating.as_str())).unwrap_or_default();
    let mut lines = Lines::new(&format!("order {}: {state}{rated}", order.name_any()), screen);
    lines.say("what", &format!("{} of reserve {}", what(order), order.spec.reserve));
    lines.say(
        "when",
        &format!(
            "{}{} until {}, for {}",
            clock(from, now, zone),
            soon(from, now),
            clock(until, now, zone),
            duration(lasts_ms)
        ),
    );
    lines.say("because", &status.reason);
    match (status.state, status.earliest_start) {
        (Some(OrderState::Countered), Some(earliest)) => {
            let earliest = earliest.0;
            lines.say("earliest", &format!("{}{}", clock(earliest, now, zone), soon(earliest, now)));
            lines.say(
                "to get it",
                &format!(
                    "cancel {}, and ask again with --from {earliest} --for {}s; or ask with --or-earliest at once",
                    order.name_any(),
                    lasts_ms / 1000
                ),
            );
        }
        (Some(OrderState::Accepted | OrderState::Active), _) => {
            lines.say(
                "to use it",
                &format!(
                    "spec.order: {0} in a job, or the annotation vingt.dev/order: {0} on a pod",
                    order.name_any()
                ),
            );
        }
        _ => {}
    }
    lines.text
}

/// One line for each order, however long: names are copied from it.
pub fn table(
    orders: &[SovereignOrder],
    namespaces: bool,
    now: Timestamp,
    zone: &TimeZone,
    screen: Screen,
) -> String {
    let header = ["NAMESPACE", "NAME", "STATE", "FROM", "UNTIL", "RATING", "WHAT", "REASON"];
    let skip = usize::from(!namespaces);
    let rows = orders.iter().map(|order| {
        let status = order.status.clone().unwrap_or_default();
        let reason = match status.earliest_start.filter(|_| status.state == Some(OrderState::Countered)) {
            Some(earliest) => format!("earliest {}: {}", clock(earliest.0, now, zone), status.reason),
            None => status.reason,
        };
        let row = [
            order.namespace().unwrap_or_default(),
            order.name_any(),
            status.state.map_or("-", OrderState::as_str).to_owned(),
            clock(order.spec.from.0, now, zone),
            clock(order.spec.until.0, now, zone),
            status.rating.map_or("-", TenantClass::as_str).to_owned(),
            what(order),
            reason,
        ];
        row.into_iter().skip(skip).map(cell).collect()
    });
    Screen { width: u16::MAX, ..screen }.table(&header[skip..], &[], rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SCREEN: Screen = Screen { width: 100, colours: false, terminal: false };

    fn order(status: &serde_json::Value) -> SovereignOrder {
        serde_json::from_value(json!({"apiVersion": "vingt.dev/v1alpha1", "kind": "SovereignOrder",
            "metadata": {"name": "flood", "namespace": "civil"},
            "spec": {"reserve": "national", "shapes": [{"gpus": 8, "count": 2}], "from": "2026-12-01T08:00:00+01:00", "until": "2026-12-03T19:00:00Z"},
            "status": status}))
        .unwrap()
    }

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn an_accepted_order_says_how_it_is_used() {
        let order = order(&json!({"state": "Accepted", "rating": "sovereign", "reason": ""}));
        assert_eq!(
            answer(&order, now(), &TimeZone::UTC, SCREEN),
            "\
order flood: accepted, rated sovereign
  what       2 × 8 GPUs of reserve national
  when       Dec 1 07:00 (in 6d19h) until Dec 3 19:00, for 2d12h
  to use it  spec.order: flood in a job, or the annotation vingt.dev/order: flood on a pod
"
        );
    }

    #[test]
    fn a_countered_order_says_when_it_could_be_had() {
        let order = order(
            &json!({"state": "Countered", "earliestStart": "2026-12-05T07:00:00Z", "reason": "too full"}),
        );
        let said = answer(&order, now(), &TimeZone::UTC, SCREEN);
        assert!(said.contains("  earliest   Dec 5 07:00 (in 10d19h)\n"), "{said}");
        assert!(said.contains("--from 2026-12-05T07:00:00Z --for 216000s"), "{said}");
        let listed = table(&[order], true, now(), &TimeZone::UTC, SCREEN);
        assert!(listed.starts_with("NAMESPACE  NAME"), "{listed}");
        assert!(listed.contains("earliest Dec 5 07:00"), "{listed}");
    }

    #[test]
    fn an_order_without_an_answer_says_so() {
        let said = answer(&order(&json!(null)), now(), &TimeZone::UTC, SCREEN);
        assert!(said.starts_with("order flood: no answer yet\n"), "{said}");
        let listed = table(&[order(&json!(null))], false, now(), &TimeZone::UTC, SCREEN);
        assert!(listed.starts_with("NAME ") && listed.contains("flood  -"), "{listed}");
    }
}
