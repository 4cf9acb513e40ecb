//! What proxylistener counts and times.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::daemon::ConnectionMeter;

/// Upper bounds of the histograms, in seconds: from a host next door to the deadlines' defaults.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0];

/// What a client asked for.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the values of the label")]
pub enum Asked {
    /// `register`, or `registerCanonical`.
    register,
    /// `unregister`.
    unregister,
    /// No command.
    unknown,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the values of the label")]
pub enum Outcome {
    /// Committed.
    ok,
    /// The command, its pattern or its destination is not taken, or the route is another host's.
    refused,
    /// The identd did not tell.
    ident_failed,
    /// The user is no tool's.
    no_tool,
    /// Redis has not committed.
    redis_failed,
    /// The client ended, or was silent, within its command.
    no_command,
}

/// Labels of a client's command.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Decision {
    /// See there.
    pub command: Asked,
    /// See there.
    pub outcome: Outcome,
}

/// What the audit found about one route.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the values of the label")]
pub enum Finding {
    /// The port is the route's tool's.
    own,
    /// The port is somebody else's: withdrawn.
    withdrawn,
    /// The port is somebody else's, but the route has changed meanwhile.
    changed,
    /// Nothing answers there.
    backend_unreachable,
    /// The identd does not tell, or only that the system has the connection.
    owner_unknown,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Audited {
    finding: Finding,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    commands: Family<Decision, Counter>,
    ident: Histogram,
    /// How long Redis takes.
    pub redis: Histogram,
    /// Clients whose command is not answered yet.
    pub connections: ConnectionMeter,
    /// Clients that are answered and have not closed yet.
    pub lingering: ConnectionMeter,
    audited: Family<Audited, Counter>,
    rounds: Counter,
    rounds_failed: Counter,
}

impl Metrics {
    /// Counts from zero, and has `registry` tell of it.
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self {
            commands: Family::default(),
            ident: Histogram::new(SECONDS),
            redis: Histogram::new(SECONDS),
            connections: ConnectionMeter::default(),
            lingering: ConnectionMeter::default(),
            audited: Family::default(),
            rounds: Counter::default(),
            rounds_failed: Counter::default(),
        };
        let registry = registry.sub_registry_with_prefix("proxylistener");
        registry.register("commands", "Clients' commands, by what became of them", metrics.commands.clone());
        let help = "From asking an identd until its answer or failure";
        registry.register_with_unit("ident", help, Unit::Seconds, metrics.ident.clone());
        let help = "From asking Redis until its answer or failure";
        registry.register_with_unit("redis", help, Unit::Seconds, metrics.redis.clone());
        metrics.connections.register(registry);
        metrics.lingering.register(registry.sub_registry_with_prefix("lingering"));
        registry.register("audited_routes", "Routes the audit looked at, by what it found", metrics.audited.clone());
        registry.register("audit_rounds", "Audits that went through all routes", metrics.rounds.clone());
        registry.register("audit_rounds_failed", "Audits that Redis broke off", metrics.rounds_failed.clone());
        Arc::new(metrics)
    }

    /// A client's command has been decided.
    pub fn decided(&self, command: Asked, outcome: Outcome) {
        self.commands.get_or_create(&Decision { command, outcome }).inc();
    }

    /// An identd took so long.
    pub fn ident_took(&self, passed: Duration) {
        self.ident.observe(passed.as_secs_f64());
    }

    /// The audit has looked at so many routes more.
    pub fn audited(&self, finding: Finding, routes: u64) {
        self.audited.get_or_create(&Audited { finding }).inc_by(routes);
    }

    /// An audit has ended.
    pub fn audit_ended(&self, whole: bool) {
        if whole { &self.rounds } else { &self.rounds_failed }.inc();
    }
}
