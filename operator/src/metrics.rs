//! The operator's metrics, and the only place that knows the library.

use prometheus::{
    Encoder, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::engine::Failure;

/// All metrics; clones count together.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// How long a cycle takes, from the picture to the writes it starts.
    pub cycle_seconds: Histogram,
    /// Jobs and pods that wait, by tenant.
    pub waiting: IntGaugeVec,
    /// Units held, by tenant; 56 are one GPU.
    pub used_units: IntGaugeVec,
    /// Decisions, by what was decided.
    pub decisions: IntCounterVec,
    /// Jobs and pods taken back, by reason.
    pub take_backs: IntCounterVec,
    writes: IntCounterVec,
    /// 1 while this process decides.
    pub leader: IntGauge,
    /// 1 while the file of the settings is right.
    pub settings_valid: IntGauge,
    /// Jobs and pods asked to leave for others, by reason.
    pub evictions: IntCounterVec,
    /// Replicas moved, by how far it came.
    pub moves: IntCounterVec,
    /// Jobs and pods for which places are kept.
    pub reservations: IntGauge,
    /// The placement policy in force: 1 for one, 0 for the others.
    pub placement: IntGaugeVec,
    /// Whether a simple rule decides because it would have placed more.
    pub fell_back: IntGauge,
    /// How often better values were learnt since the cards are what they are.
    pub learnt: IntGauge,
    /// Uses of claims that are over and not in the ledger yet.
    pub unaccounted: IntGauge,
    /// Claims let go because their use is in the ledger.
    pub accounted: IntCounter,
}

impl Metrics {
    /// Fresh metrics; the error says which one is declared wrongly.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let vec = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, prometheus::Error> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let build =
            gauges("vingt_build_info", "The version of the operator; always 1.", &["component", "version"])?;
        build.with_label_values(&["operator", env!("CARGO_PKG_VERSION")]).set(1);
        let leader = IntGauge::new("vingt_operator_leader", "Whether this process decides.")?;
        registry.register(Box::new(leader.clone()))?;
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let buckets = vec![0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5];
        let cycle = HistogramOpts::new("vingt_operator_cycle_seconds", "How long one planning cycle takes.");
        let cycle_seconds = Histogram::with_opts(cycle.buckets(buckets))?;
        registry.register(Box::new(cycle_seconds.clone()))?;
        Ok(Self {
            cycle_seconds,
            waiting: gauges("vingt_operator_waiting", "Jobs and pods that wait for devices.", &["tenant"])?,
            used_units: gauges(
                "vingt_tenant_used_units",
                "Units held by a tenant; 56 are one GPU.",
                &["tenant"],
            )?,
            decisions: vec("vingt_operator_decisions_total", "Jobs and pods admitted.", &["kind"])?,
            take_backs: vec("vingt_operator_take_backs_total", "Jobs and pods taken back.", &["reason"])?,
            writes: vec(
                "vingt_operator_api_requests_total",
                "Requests to the API server.",
                &["kind", "result"],
            )?,
            leader,
            settings_valid: gauge(
                "vingt_operator_settings_valid",
                "Whether the settings are as the file says; 0 when it is wrong.",
            )?,
            evictions: vec("vingt_evictions_total", "Jobs and pods asked to leave for others.", &["reason"])?,
            moves: vec("vingt_moves_total", "Replicas moved to other devices.", &["outcome"])?,
            reservations: gauge("vingt_reservations", "Jobs and pods for which places are kept.")?,
            placement: gauges("vingt_placement_policy", "The placement policy in force.", &["policy"])?,
            fell_back: gauge(
                "vingt_placement_fell_back",
                "Whether a simple rule decides because it would have placed more.",
            )?,
            learnt: gauge(
                "vingt_placement_learnt",
                "How often better values of places were learnt since the cards are what they are.",
            )?,
            unaccounted: gauge(
                "vingt_ledger_unaccounted",
                "Uses of claims that are over and not in the ledger yet.",
            )?,
            accounted: {
                let counter = IntCounter::new(
                    "vingt_ledger_accounted_total",
                    "Claims let go because their use is in the ledger.",
                )?;
                registry.register(Box::new(counter.clone()))?;
                counter
            },
            registry,
        })
    }

    /// Counts a request.
    pub fn count_write(&self, kind: &str, failure: Option<&Failure>) {
        let result = match failure {
            None => "ok",
            Some(Failure::Stale) => "stale",
            Some(Failure::Refused(_) | Failure::Invalid(_)) => "refused",
            Some(Failure::Unknown(_)) => "unknown",
        };
        self.writes.with_label_values(&[kind, result]).inc();
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> Result<String, prometheus::Error> {
        let mut buffer = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer).into_owned())
    }
}
