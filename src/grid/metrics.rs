//! What proxylistener counts and times.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::daemon::{ConnectionMeter, label_values, start_at_zero};

/// The label of a connection from outside `--allow-client`.
pub const ALLOW_CLIENT: &str = "allow_client";
/// Upper bounds of the histograms, in seconds: from a host next door to the deadlines' defaults.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0];

label_values! {
    /// What a client asked for.
    pub enum CommandKind {
        /// `register`, or `registerCanonical`.
        register,
        /// `renew`, or `renewCanonical`.
        renew,
        /// `unregister`.
        unregister,
        /// `unregisterUrl`.
        unregister_url,
        /// No command.
        unknown,
    }
}

label_values! {
    /// What became of it.
    pub enum Outcome {
        /// Committed.
        ok,
        /// The command, its pattern or its destination is not taken; of a renewal, the tool's server is not there.
        refused,
        /// The address is another user's server, or another tool is routed there.
        address_taken,
        /// The identd did not tell.
        ident_failed,
        /// The user is no tool's.
        no_tool,
        /// Redis has not committed.
        redis_failed,
        /// The client ended, or was silent, within its command.
        no_command,
    }
}

/// Labels of a client's command.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CommandLabels {
    /// See there.
    pub command: CommandKind,
    /// See there.
    pub outcome: Outcome,
}

impl CommandLabels {
    /// What is no command comes to nothing else than these two.
    fn is_possible(&self) -> bool {
        match self.outcome {
            Outcome::refused => true,
            Outcome::no_command => self.command == CommandKind::unknown,
            _ => self.command != CommandKind::unknown,
        }
    }
}

label_values! {
    /// What the audit found about one route.
    pub enum AuditFinding {
        /// The port is the route's tool's.
        own,
        /// The port is somebody else's: withdrawn.
        withdrawn,
        /// The port is somebody else's, but the route has changed meanwhile.
        changed,
        /// The port is a user's who is no tool, and nobody signed the route, which stays.
        no_tools,
        /// Connections are refused, or not accepted in time.
        backend_unreachable,
        /// Connections have been refused for long: withdrawn.
        dead,
        /// The same, and kept: it is so of most tools.
        held,
        /// The identd does not tell, or only that the system has the connection.
        owner_unknown,
        /// Nobody signed the route, and no client's host is there.
        outside,
        /// Not looked at: the tool's other servers took too long.
        not_reached,
    }
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FindingLabel {
    finding: AuditFinding,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    commands: Family<CommandLabels, Counter>,
    ident: Histogram,
    /// How long Redis takes.
    pub redis: Histogram,
    /// Clients whose command is not answered yet.
    pub connections: ConnectionMeter,
    /// Clients that wait for a place.
    pub waiting: ConnectionMeter,
    /// Clients that are answered and have not closed yet.
    pub lingering: ConnectionMeter,
    audited: Family<FindingLabel, Counter>,
    rounds: Counter,
    rounds_failed: Counter,
    /// Routes whose owner several audits in a row have not found out.
    pub unknown_owners: Gauge,
    /// Routes that are kept although their ports have refused connections for long.
    pub held_dead: Gauge,
}

impl Metrics {
    /// Counts from zero, and has `registry` tell of it.
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self {
            commands: Family::default(),
            ident: Histogram::new(SECONDS),
            redis: Histogram::new(SECONDS),
            connections: ConnectionMeter::default(),
            waiting: ConnectionMeter::default(),
            lingering: ConnectionMeter::default(),
            audited: Family::default(),
            rounds: Counter::default(),
            rounds_failed: Counter::default(),
            unknown_owners: Gauge::default(),
            held_dead: Gauge::default(),
        };
        let registry = registry.sub_registry_with_prefix("proxylistener");
        registry.register("commands", "Clients' commands, by what became of them", metrics.commands.clone());
        let help = "From asking an identd until its answer or failure";
        registry.register_with_unit("ident", help, Unit::Seconds, metrics.ident.clone());
        let help = "From asking Redis until its answer or failure";
        registry.register_with_unit("redis", help, Unit::Seconds, metrics.redis.clone());
        metrics.connections.expect(ALLOW_CLIENT);
        metrics.connections.register(registry);
        metrics.waiting.register(registry.sub_registry_with_prefix("waiting"));
        metrics.lingering.register(registry.sub_registry_with_prefix("lingering"));
        registry.register("audited_routes", "Routes the audit looked at, by what it found", metrics.audited.clone());
        let help = "Routes whose owner has been unknown in three audits in a row or more";
        registry.register("owner_unknown_routes", help, metrics.unknown_owners.clone());
        let help = "Routes kept although their ports refuse connections, because most tools' do";
        registry.register("held_dead_routes", help, metrics.held_dead.clone());
        registry.register("audit_rounds", "Audits that went through all routes", metrics.rounds.clone());
        registry.register("audit_rounds_failed", "Audits that Redis broke off", metrics.rounds_failed.clone());
        let decisions = CommandKind::ALL.iter().flat_map(|&command| {
            Outcome::ALL
                .iter()
                .map(move |&outcome| CommandLabels { command, outcome })
                .filter(CommandLabels::is_possible)
        });
        start_at_zero(&metrics.commands, decisions);
        start_at_zero(&metrics.audited, AuditFinding::ALL.iter().map(|&finding| FindingLabel { finding }));
        Arc::new(metrics)
    }

    /// A client's command has been decided.
    pub fn count_command(&self, command: CommandKind, outcome: Outcome) {
        self.commands.get_or_create(&CommandLabels { command, outcome }).inc();
    }

    /// An identd took so long.
    pub fn observe_ident(&self, passed: Duration) {
        self.ident.observe(passed.as_secs_f64());
    }

    /// The audit has looked at so many routes more.
    pub fn count_finding(&self, finding: AuditFinding, routes: u64) {
        self.audited.get_or_create(&FindingLabel { finding }).inc_by(routes);
    }

    /// An audit has ended.
    pub fn count_round(&self, whole: bool) {
        if whole { &self.rounds } else { &self.rounds_failed }.inc();
    }
}
