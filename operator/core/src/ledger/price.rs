//! What a unit-millisecond costs, in whole millionths of a currency: price
//! plans, a default that is worked out of what a GPU costs, and bills. Rated
//! work pays what any other work of its tenant pays.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::entry::LineKey;
use super::month::Month;
use super::report::{Amount, GPU_HOUR, Report, SubjectKind};

/// Money: millionths of the currency's unit.
pub type Micros = u64;

/// Millionths of one.
const ONE: i128 = 1_000_000;

/// What a tenant pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PricePlan {
    /// The currency, as `EUR`.
    pub currency: String,
    /// For 56 units over an hour.
    #[serde(rename = "perGPUHourMicros")]
    pub per_gpu_hour: Micros,
    /// The same for a GPU's worth of certain profiles.
    #[serde(default, rename = "profileMicros", skip_serializing_if = "BTreeMap::is_empty")]
    pub profiles: BTreeMap<String, Micros>,
    /// What the price is worked out of, if nobody set it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derivation: Option<Derivation>,
}

impl PricePlan {
    /// The price of 56 units of a profile over an hour.
    pub fn of(&self, profile: &str) -> Micros {
        self.profiles.get(profile).copied().unwrap_or(self.per_gpu_hour)
    }
}

/// What a GPU costs its owner; a price follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Derivation {
    /// What one GPU cost, with its part of the server and the network.
    #[serde(rename = "purchaseMicros")]
    pub purchase: Micros,
    /// How many hours it is used.
    pub life_hours: u32,
    /// What it draws, with its part of the server.
    pub power_watts: u32,
    /// What cooling and losses draw on top of that.
    pub overhead_percent: u32,
    /// What a kilowatt-hour costs.
    #[serde(rename = "energyPerKWhMicros")]
    pub energy_per_kwh: Micros,
}

impl Default for Derivation {
    /// A server with 8 H100s bought for 300,000, used for five years; 10.2 kW at most; 0.20 for a kilowatt-hour.
    fn default() -> Self {
        Self {
            purchase: 37_500_000_000,
            life_hours: 43_800,
            power_watts: 1_275,
            overhead_percent: 30,
            energy_per_kwh: 200_000,
        }
    }
}

impl Derivation {
    /// The purchase spread over the life, for an hour.
    pub fn purchase_per_hour(self) -> Micros {
        nearest(u128::from(self.purchase), u128::from(self.life_hours.max(1)))
    }

    /// The energy of an hour.
    pub fn energy_per_hour(self) -> Micros {
        let watts = u128::from(self.power_watts) * (100 + u128::from(self.overhead_percent));
        nearest(watts.saturating_mul(self.energy_per_kwh.into()), 100_000)
    }

    /// What an hour of a GPU costs.
    pub fn per_gpu_hour(self) -> Micros {
        self.purchase_per_hour().saturating_add(self.energy_per_hour())
    }

    /// The price plan that follows.
    pub fn plan(self, currency: impl Into<String>) -> PricePlan {
        PricePlan {
            currency: currency.into(),
            per_gpu_hour: self.per_gpu_hour(),
            profiles: BTreeMap::new(),
            derivation: Some(self),
        }
    }

    /// How it follows, a line for each step.
    pub fn arithmetic(self, currency: &str) -> Vec<String> {
        let kilowatts = format!("{}.{:03}", self.power_watts / 1000, self.power_watts % 1000);
        let money = |micros: Micros, digits: usize| money(i128::from(micros), digits);
        vec![
            format!(
                "purchase {} {currency} / {} h of life = {} {currency}/h",
                money(self.purchase, 2),
                self.life_hours,
                money(self.purchase_per_hour(), 6)
            ),
            format!(
                "energy {kilowatts} kW + {} % for cooling and losses, at {} {currency}/kWh = {} {currency}/h",
                self.overhead_percent,
                money(self.energy_per_kwh, 6),
                money(self.energy_per_hour(), 6)
            ),
            format!("together {} {currency} per GPU-hour", money(self.per_gpu_hour(), 6)),
        ]
    }
}

/// What a tenant owes for a month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bill {
    /// The tenant.
    pub tenant: String,
    /// The month.
    pub month: Month,
    /// Whether nothing can be added any more.
    pub is_final: bool,
    /// What it pays.
    pub price: PricePlan,
    /// Each line of the report with its price.
    pub lines: Vec<BillLine>,
    /// What all lines come to.
    pub total: i128,
}

/// A line of a bill.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BillLine {
    /// What it is for.
    pub key: LineKey,
    /// How much.
    pub amount: Amount,
    /// The price of 56 units over an hour.
    pub per_gpu_hour: Micros,
    /// Both multiplied, rounded to the nearest millionth; negative if more is credited than used.
    pub cost: i128,
}

/// The bill that follows from a tenant's report; none without a price, or of a reserve.
pub fn bill(report: &Report) -> Option<Bill> {
    let price = report.price.clone().filter(|_| report.subject.kind == SubjectKind::Tenant)?;
    let lines = report.lines.iter().map(|(key, amount)| BillLine {
        key: key.clone(),
        amount: *amount,
        per_gpu_hour: price.of(&key.profile),
        cost: cost(*amount, price.of(&key.profile)),
    });
    let lines: Vec<BillLine> = lines.collect();
    Some(Bill {
        tenant: report.subject.name.clone(),
        month: report.month,
        is_final: report.sealed(),
        total: total(&price, &report.lines),
        price,
        lines,
    })
}

/// What lines come to: the sum of what each comes to.
pub(super) fn total(price: &PricePlan, lines: &BTreeMap<LineKey, Amount>) -> i128 {
    lines.iter().map(|(key, amount)| cost(*amount, price.of(&key.profile))).sum()
}

fn cost(amount: Amount, per_gpu_hour: Micros) -> i128 {
    let price = |unit_ms: u64| i128::from(unit_ms).saturating_mul(per_gpu_hour.into());
    let exact = price(amount.used).saturating_sub(price(amount.credited));
    let half = i128::from(GPU_HOUR) / 2;
    (exact.saturating_add(if exact < 0 { -half } else { half })) / i128::from(GPU_HOUR)
}

fn nearest(number: u128, by: u128) -> Micros {
    Micros::try_from((number + by / 2) / by).unwrap_or(Micros::MAX)
}

/// An amount of money with up to 6 digits behind the point, rounded to the nearest.
pub fn money(micros: i128, digits: usize) -> String {
    let digits = digits.min(6);
    let step = 10_i128.pow(6 - u32::try_from(digits).unwrap_or(6));
    let steps = (micros.abs().saturating_add(step / 2)) / step;
    let per_one = ONE / step;
    let sign = if micros < 0 && steps > 0 { "-" } else { "" };
    if digits == 0 {
        return format!("{sign}{steps}");
    }
    format!("{sign}{}.{:0digits$}", steps / per_one, steps % per_one)
}

/// Reads an amount of money, as `2.10`; none if it is not one, or has more than 6 digits behind the point.
pub fn micros(text: &str) -> Option<Micros> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 6 {
        return None;
    }
    let whole: Micros = whole.parse().ok()?;
    format!("{part:0<6}").parse::<Micros>().ok()?.checked_add(whole.checked_mul(1_000_000)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_and_read() {
        assert_eq!(micros("2.10"), Some(2_100_000));
        assert_eq!(["", ".", "1.", "-1", "1.0000001", "1e3", "99999999999999999999"].map(micros), [None; 7]);
        assert_eq!(
            [(2_100_000, 2), (-5_000, 2), (-4_999, 2), (1_234_567, 6), (1_500_000, 0)]
                .map(|(micros, digits)| money(micros, digits)),
            ["2.10", "-0.01", "0.00", "1.234567", "2"]
        );
    }

    #[test]
    fn the_default_follows_from_what_a_gpu_costs() {
        let of = Derivation::default();
        // 37,500 / 43,800 = 0.856164; 1.275 · 1.3 · 0.2 = 0.3315.
        assert_eq!((of.purchase_per_hour(), of.energy_per_hour()), (856_164, 331_500));
        assert_eq!(of.plan("EUR").per_gpu_hour, 1_187_664);
        let wanted = [
            "purchase 37500.00 EUR / 43800 h of life = 0.856164 EUR/h",
            "energy 1.275 kW + 30 % for cooling and losses, at 0.200000 EUR/kWh = 0.331500 EUR/h",
            "together 1.187664 EUR per GPU-hour",
        ];
        assert_eq!(of.arithmetic("EUR"), wanted);
    }

    #[test]
    fn a_line_costs_what_it_used_less_what_is_credited() {
        let cost = |used, credited| cost(Amount { used, credited }, 2_100_000);
        assert_eq!(cost(GPU_HOUR, 0), 2_100_000);
        assert_eq!(cost(GPU_HOUR, 3 * GPU_HOUR), -4_200_000);
        // 96 unit-ms are a millionth at that price; half of it is rounded up, and down below zero.
        assert_eq!(
            [(48, 0), (47, 0), (0, 48), (0, 47)].map(|(used, credited)| cost(used, credited)),
            [1, 0, -1, 0]
        );
    }
}
