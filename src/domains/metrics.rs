//! What invisible-unicorn counts and times.

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

/// Values of labels. A method that is not here counts as [`OTHER`].
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

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Domains in the database.
    pub domains: Gauge,
    /// Changes that Redis has yet to be told of.
    pub waiting: Gauge,
    /// 1 while Redis has all that was committed, or is being told.
    pub following: Gauge,
    /// Domains in Redis that the database does not have, and that stay.
    pub held: Gauge,
    /// Bytes of the log of changes.
    pub audit_bytes: Gauge,
    /// Connections to the API.
    pub connections: ConnectionMeter,
    /// How long Redis takes.
    pub redis: Histogram,
    requests: Family<Request, Counter>,
    differences: Family<Difference, Counter>,
}

impl Metrics {
    /// Counts from zero, and has `registry` tell of it.
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
        registry.register(
            "waiting_changes",
            "Changed domains that Redis has yet to be told of",
            metrics.waiting.clone(),
        );
        registry.register("following", "1 while Redis follows the database", metrics.following.clone());
        registry.register("held_domains", "Domains that only Redis has, and that stay", metrics.held.clone());
        registry.register("audit_bytes", "Size of the log of changes in the database", metrics.audit_bytes.clone());
        metrics.connections.register(registry);
        let help = "From asking Redis until its answer or failure";
        registry.register_with_unit("redis", help, Unit::Seconds, metrics.redis.clone());
        registry.register("requests", "Requests answered, by method and status", metrics.requests.clone());
        let help = "Domains that Redis had otherwise than the database, by what was done";
        registry.register("differences", help, metrics.differences.clone());
        let answers =
            METHODS.into_iter().chain([OTHER]).flat_map(|method| STATUSES.map(|status| Request { method, status }));
        start_at_zero(&metrics.requests, answers);
        start_at_zero(&metrics.differences, DIFFERENCES.map(|kind| Difference { kind }));
        metrics
    }

    /// A request was count_request. Methods that nobody knows are one.
    pub fn count_request(&self, method: &Method, status: u16) {
        let method = METHODS.into_iter().find(|known| method.as_str() == *known).unwrap_or(OTHER);
        debug_assert!(STATUSES.contains(&status), "{status} is not there from the start");
        self.requests.get_or_create(&Request { method, status }).inc();
    }

    /// So many domains were `written` or `withdrawn` because Redis had them otherwise.
    pub fn count_differences(&self, kind: &'static str, domains: usize) {
        debug_assert!(DIFFERENCES.contains(&kind), "{kind} is not there from the start");
        self.differences.get_or_create(&Difference { kind }).inc_by(u64::try_from(domains).unwrap_or(u64::MAX));
    }
}
