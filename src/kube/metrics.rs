//! kube2proxy's metrics.

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

use super::service::ServiceRejection;
use crate::daemon::start_at_zero;

/// Upper bounds of the histograms, in seconds.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// States of Services.
const STATES: [&str; 5] = ["routed", "rejected", "outdone", "failing", "held"];

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RejectionLabel {
    reason: &'static str,
}

/// kube2proxy's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// 1 while Services are watched after a complete list.
    pub watching: Gauge,
    /// Lists and watches that failed.
    pub watch_failures: Counter,
    /// 1 while this replica holds the lock.
    pub leading: Gauge,
    /// Seconds from a request to Redis until its reply or failure.
    pub redis: Histogram,
    /// Seconds from a change of a Service until Redis has it.
    pub writes: Histogram,
    /// Routes written.
    pub written: Counter,
    /// Routes withdrawn.
    pub withdrawn: Counter,
    services: Family<StateLabel, Gauge>,
    rejected: Family<RejectionLabel, Gauge>,
    since: Arc<Since>,
}

/// Times of the last events, at first the start; exported as seconds since then.
#[derive(Debug)]
struct Since {
    event: Mutex<Instant>,
    list: Mutex<Instant>,
}

impl Metrics {
    /// Registers all metrics, at zero.
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
        registry.register("leading", "1 while this replica holds the lock and writes", metrics.leading.clone());
        let help = "From a request to Redis until its reply or failure";
        registry.register_with_unit("redis", help, Unit::Seconds, metrics.redis.clone());
        let help = "From a change of a Service until Redis has it";
        registry.register_with_unit("write", help, Unit::Seconds, metrics.writes.clone());
        registry.register("routes_written", "Routes written to Redis", metrics.written.clone());
        registry.register("routes_withdrawn", "Routes withdrawn from Redis", metrics.withdrawn.clone());
        registry.register("services", "Services by state", metrics.services.clone());
        registry.register("rejected_services", "Services without a route, by reason", metrics.rejected.clone());
        registry.register_collector(Box::new(since));
        start_at_zero(&metrics.services, STATES.map(|state| StateLabel { state }));
        start_at_zero(&metrics.rejected, ServiceRejection::REASONS.map(|reason| RejectionLabel { reason }));
        metrics
    }

    /// The cluster sent an event or a complete list.
    pub fn record_event(&self) {
        *self.since.event.lock() = Instant::now();
    }

    /// A list is complete.
    pub fn record_list(&self) {
        *self.since.list.lock() = Instant::now();
    }

    /// Sets the number of Services in a state.
    pub fn set_services(&self, state: &'static str, services: usize) {
        debug_assert!(STATES.contains(&state), "{state} has no initial value");
        self.services.get_or_create(&StateLabel { state }).set(i64::try_from(services).unwrap_or(i64::MAX));
    }

    /// Sets the number of rejected Services for each reason.
    pub fn set_rejected(&self, reasons: impl Iterator<Item = &'static str>) {
        let mut counts = ServiceRejection::REASONS.map(|reason| (reason, 0));
        for reason in reasons {
            let count = counts.iter_mut().find(|(known, _)| *known == reason);
            debug_assert!(count.is_some(), "{reason} has no initial value");
            count.into_iter().for_each(|(_, count)| *count += 1);
        }
        // Set, not incremented: a scrape must not see partial counts.
        for (reason, count) in counts {
            self.rejected.get_or_create(&RejectionLabel { reason }).set(count);
        }
    }
}

impl Collector for Since {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        for (name, help, at) in [
            ("since_last_event", "Since the last event of a Service, or the start", &self.event),
            ("since_last_list", "Since the last complete list of Services, or the start", &self.list),
        ] {
            let gauge = ConstGauge::new(at.lock().elapsed().as_secs_f64());
            gauge.encode(encoder.encode_descriptor(name, help, Some(&Unit::Seconds), gauge.metric_type())?)?;
        }
        Ok(())
    }
}
