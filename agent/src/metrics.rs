//! The agent's metrics: every name is here, and nothing else of the agent
//! knows the metrics library. (What the GPUs themselves do is not measured here.)

use std::time::Duration;

use prometheus::{
    Encoder, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
};

use crate::inventory::Pool;
use crate::journal::{Entries, State};

/// All metrics of one agent.
pub struct Metrics {
    registry: Registry,
    durations: HistogramVec,
    errors: IntCounterVec,
    published: IntGauge,
    foreign: IntGauge,
    withheld: IntGaugeVec,
    journal: IntGaugeVec,
    journal_corrupt: IntCounter,
    untold: IntGauge,
    slice_writes: IntCounterVec,
    lost: IntCounter,
}

/// What the kubelet asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// `NodePrepareResources`, per claim.
    Prepare,
    /// `NodeUnprepareResources`, per claim.
    Unprepare,
}

impl Operation {
    fn word(self) -> &'static str {
        match self {
            Self::Prepare => "prepare",
            Self::Unprepare => "unprepare",
        }
    }
}

impl Metrics {
    /// Registers all metrics.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let build = Opts::new("vingt_build_info", "Version of this binary; the value is always 1.");
        let build = IntGaugeVec::new(build, &["version", "component"])?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION"), "agent"]).set(1);
        let durations = HistogramOpts::new(
            "vingt_agent_claim_duration_seconds",
            "Time to prepare or unprepare one claim, waiting included.",
        )
        .buckets(vec![0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0]);
        let gauge = |name: &str, help: &str| IntGauge::with_opts(Opts::new(name, help));
        let gauges = |name: &str, help: &str, label: &str| IntGaugeVec::new(Opts::new(name, help), &[label]);
        let counter = |name: &str, help: &str| IntCounter::with_opts(Opts::new(name, help));
        let metrics = Self {
            durations: HistogramVec::new(durations, &["operation"])?,
            errors: IntCounterVec::new(
                Opts::new(
                    "vingt_agent_claim_errors_total",
                    "Claims that could not be prepared or unprepared.",
                ),
                &["operation", "reason"],
            )?,
            published: gauge("vingt_agent_published_devices", "Devices in this node's slices.")?,
            foreign: gauge("vingt_agent_foreign_partitions", "MIG partitions that vingt did not make.")?,
            withheld: gauges("vingt_agent_withheld", "GPUs not published, or not wholly.", "reason")?,
            journal: gauges("vingt_agent_journal_entries", "Claims in the journal.", "state")?,
            journal_corrupt: counter(
                "vingt_agent_journal_corrupt_total",
                "Journals set aside as unreadable.",
            )?,
            untold: gauge(
                "vingt_agent_untold_ends",
                "Ends of claims that the API server does not know yet.",
            )?,
            slice_writes: IntCounterVec::new(
                Opts::new("vingt_agent_slice_writes_total", "Publications of the pool, by result."),
                &["result"],
            )?,
            lost: counter(
                "vingt_agent_lost_partitions_total",
                "Partitions of ours that somebody else removed.",
            )?,
            registry,
        };
        let registry = &metrics.registry;
        registry.register(Box::new(build))?;
        registry.register(Box::new(metrics.durations.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.published.clone()))?;
        registry.register(Box::new(metrics.foreign.clone()))?;
        registry.register(Box::new(metrics.withheld.clone()))?;
        registry.register(Box::new(metrics.journal.clone()))?;
        registry.register(Box::new(metrics.journal_corrupt.clone()))?;
        registry.register(Box::new(metrics.untold.clone()))?;
        registry.register(Box::new(metrics.slice_writes.clone()))?;
        registry.register(Box::new(metrics.lost.clone()))?;
        Ok(metrics)
    }

    /// A claim was prepared or unprepared, or was not, for a reason in one word.
    pub fn claim(&self, operation: Operation, took: Duration, failed: Option<&str>) {
        self.durations.with_label_values(&[operation.word()]).observe(took.as_secs_f64());
        if let Some(reason) = failed {
            self.errors.with_label_values(&[operation.word(), reason]).inc();
        }
    }

    /// The pool as it is meant to be published.
    pub fn pool(&self, pool: &Pool) {
        self.published.set(count(pool.devices.values().map(Vec::len).sum()));
        self.foreign.set(count(pool.foreign_partitions));
        self.withheld.reset();
        for withheld in &pool.withheld {
            self.withheld.with_label_values(&[withheld.reason]).inc();
        }
    }

    /// The journal as it is, and how many ends are not told.
    pub fn journal(&self, entries: &Entries, untold: usize) {
        self.untold.set(count(untold));
        for (state, name) in State::ALL {
            let counted = entries.values().filter(|entry| entry.state == state).count();
            self.journal.with_label_values(&[name]).set(count(counted));
        }
    }

    /// A journal was set aside.
    pub fn journal_corrupt(&self) {
        self.journal_corrupt.inc();
    }

    /// The slices were written, or could not be.
    pub fn slices_written(&self, ok: bool) {
        self.slice_writes.with_label_values(&[if ok { "ok" } else { "error" }]).inc();
    }

    /// A partition of ours is gone that we did not remove.
    pub fn partition_lost(&self) {
        self.lost.inc();
    }

    /// In the text format of Prometheus.
    pub fn text(&self) -> String {
        let mut buffer = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut buffer) {
            tracing::error!(%error, "metrics could not be encoded");
        }
        String::from_utf8_lossy(&buffer).into_owned()
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
