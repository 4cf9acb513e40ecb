//! What kube2proxy counts and times.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::service::Rejection;
use crate::daemon::start_at_zero;

/// Upper bounds of the histograms, in seconds.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// What became of a Service.
const STATES: [&str; 5] = ["routed", "rejected", "outdone", "failing", "held"];

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct State {
    state: &'static str,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// 1 while the last list was complete and no failure has come since.
    pub watching: Gauge,
    /// Lists and watches that failed.
    pub watch_failures: Counter,
    /// 1 while this one may write.
    pub leading: Gauge,
    /// How long Redis takes.
    pub redis: Histogram,
    /// From the news of a Service until Redis has it.
    pub writes: Histogram,
    /// Routes written.
    pub written: Counter,
    /// Routes withdrawn.
    pub withdrawn: Counter,
    services: Family<State, Gauge>,
    rejected: Family<Reason, Gauge>,
    since: Arc<Since>,
}

/// When something last happened, or the start; told as seconds since then.
#[derive(Debug)]
struct Since {
    event: Mutex<Instant>,
    list: Mutex<Instant>,
}

impl Metrics {
    /// Counts from zero, and has `registry` tell of it.
    pub fn register(registry: &mut Registry) -> Self {
        let since = Arc::new(Since { event: Mutex::new(Instant::now()), list: Mutex::new(Instant::now()) });
        let metrics = Self {
            watching: Gauge::default(),
            watch_failures: Counter::default(),
            leading: Gauge::default(),
            redis: Histogram::new(SECONDS),
            writes: Histogram::new(SECONDS),
            written: Counter::default(),
            withdrawn: Counter::default(),
            services: Family::default(),
            rejected: Family::default(),
            since: Arc::clone(&since),
        };
        let registry = registry.sub_registry_with_prefix("kube2proxy");
        registry.register("watching", "1 while Services are watched after a complete list", metrics.watching.clone());
        registry.register("watch_failures", "Lists and watches that failed", metrics.watch_failures.clone());
        registry.register("leading", "1 while this replica may write", metrics.leading.clone());
        let help = "From asking Redis until its answer or failure";
        registry.register_with_unit("redis", help, Unit::Seconds, metrics.redis.clone());
        let help = "From the news of a Service until Redis has it";
        registry.register_with_unit("write", help, Unit::Seconds, metrics.writes.clone());
        registry.register("routes_written", "Routes written to Redis", metrics.written.clone());
        registry.register("routes_withdrawn", "Routes withdrawn from Redis", metrics.withdrawn.clone());
        registry.register("services", "Services by what became of them", metrics.services.clone());
        registry.register("rejected_services", "Services that are no routes, by reason", metrics.rejected.clone());
        registry.register_collector(Box::new(since));
        start_at_zero(&metrics.services, STATES.map(|state| State { state }));
        start_at_zero(&metrics.rejected, Rejection::REASONS.map(|reason| Reason { reason }));
        metrics
    }

    /// Something was heard of the cluster.
    pub fn heard(&self) {
        *self.since.event.lock() = Instant::now();
    }

    /// A list was complete.
    pub fn listed(&self) {
        *self.since.list.lock() = Instant::now();
    }

    /// How many Services are so now.
    pub fn set_services(&self, state: &'static str, services: usize) {
        debug_assert!(STATES.contains(&state), "{state} is not there from the start");
        self.services.get_or_create(&State { state }).set(i64::try_from(services).unwrap_or(i64::MAX));
    }

    /// How many are rejected for each reason now.
    pub fn set_rejected(&self, reasons: impl Iterator<Item = &'static str>) {
        let mut counts = Rejection::REASONS.map(|reason| (reason, 0));
        for reason in reasons {
            let count = counts.iter_mut().find(|(known, _)| *known == reason);
            debug_assert!(count.is_some(), "{reason} is not there from the start");
            count.into_iter().for_each(|(_, count)| *count += 1);
        }
        // Set and not counted up: somebody may be reading them.
        for (reason, count) in counts {
            self.rejected.get_or_create(&Reason { reason }).set(count);
        }
    }
}

impl Collector for Since {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for (name, help, at) in [
            ("since_last_event", "Since something was heard of a Service, or the start", &self.event),
            ("since_last_list", "Since Services were listed completely, or the start", &self.list),
        ] {
            let gauge = ConstGauge::new(at.lock().elapsed().as_secs_f64());
            gauge.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), gauge.metric_type())?)?;
        }
        Ok(())
    }
}
