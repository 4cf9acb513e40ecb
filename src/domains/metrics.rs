//! Metrics of invisible-unicorn.

use hyper::Method;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::daemon::{ConnectionMeter, start_at_zero};

/// Upper bounds of the histograms, in seconds.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Label values. Other methods count as [`OTHER`].
const METHODS: [&str; 6] = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS"];
const OTHER: &str = "other";
const STATUSES: [u16; 10] = [200, 400, 401, 403, 404, 405, 408, 409, 413, 503];
const DIFFERENCES: [&str; 2] = ["written", "withdrawn"];

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Request {
    method: &'static str,
    status: u16,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Difference {
    kind: &'static str,
}

#[derive(Clone, Debug)]
pub struct Metrics {
    pub domains: Gauge,
    /// Changed domains in the outbox.
    pub waiting: Gauge,
    /// 1 while the replication works.
    pub following: Gauge,
    /// Unmapped domains that are kept in Redis.
    pub held: Gauge,
    pub audit_bytes: Gauge,
    pub connections: ConnectionMeter,
    /// Seconds of each request to Redis.
    pub redis: Histogram,
    requests: Family<Request, Counter>,
    differences: Family<Difference, Counter>,
}

impl Metrics {
    /// Registers all metrics, each at 0.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            domains: Gauge::default(),
            waiting: Gauge::default(),
            following: Gauge::default(),
            held: Gauge::default(),
            audit_bytes: Gauge::default(),
            connections: ConnectionMeter::default(),
            redis: Histogram::new(SECONDS),
            requests: Family::default(),
            differences: Family::default(),
        };
        let registry = registry.sub_registry_with_prefix("invisible_unicorn");
        registry.register("domains", "Domains in the database", metrics.domains.clone());
        registry.register("waiting_changes", "Changed domains not yet replicated to Redis", metrics.waiting.clone());
        registry.register("following", "1 while replication to Redis works", metrics.following.clone());
        registry.register("held_domains", "Domains kept in Redis that the database lacks", metrics.held.clone());
        registry.register("audit_bytes", "Size of the audit log in the database", metrics.audit_bytes.clone());
        metrics.connections.register(registry);
        let help = "Time of a request to Redis until its reply or failure";
        registry.register_with_unit("redis", help, Unit::Seconds, metrics.redis.clone());
        registry.register("requests", "Requests answered, by method and status", metrics.requests.clone());
        let help = "Domains corrected in Redis because they differed from the database, by kind of correction";
        registry.register("differences", help, metrics.differences.clone());
        let answers =
            METHODS.into_iter().chain([OTHER]).flat_map(|method| STATUSES.map(|status| Request { method, status }));
        start_at_zero(&metrics.requests, answers);
        start_at_zero(&metrics.differences, DIFFERENCES.map(|kind| Difference { kind }));
        metrics
    }

    /// Counts a request. Unknown methods share a label.
    pub fn count_request(&self, method: &Method, status: u16) {
        let method = METHODS.into_iter().find(|known| method.as_str() == *known).unwrap_or(OTHER);
        debug_assert!(STATUSES.contains(&status), "{status} is not exported from the start");
        self.requests.get_or_create(&Request { method, status }).inc();
    }

    /// Counts domains that were `written` or `withdrawn` because Redis differed from the database.
    pub fn count_differences(&self, kind: &'static str, domains: usize) {
        debug_assert!(DIFFERENCES.contains(&kind), "{kind} is not exported from the start");
        self.differences.get_or_create(&Difference { kind }).inc_by(u64::try_from(domains).unwrap_or(u64::MAX));
    }
}
