//! Metrics of proxylistener.

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
/// Upper bounds of the histograms, in seconds: from a host nearby to the default timeouts.
const SECONDS: [f64; 12] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0];

label_values! {
    /// A command, as a label.
    pub enum CommandKind {
        /// `register`, or `registerCanonical`.
        register,
        /// `renew`, or `renewCanonical`.
        renew,
        /// `unregister`.
        unregister,
        /// `unregisterUrl`.
        unregister_url,
        /// Not a valid command.
        unknown,
    }
}

label_values! {
    /// The outcome of a command, as a label.
    pub enum Outcome {
        /// Committed.
        ok,
        /// Invalid command, pattern or destination; for a renewal also: the tool's server does not listen.
        refused,
        /// Another user's server has the address, or another tool is routed there.
        address_taken,
        /// The identd named no user.
        ident_failed,
        /// The user is not a tool account.
        no_tool,
        /// Redis has not committed.
        redis_failed,
        /// The connection ended, or timed out, within the command.
        no_command,
    }
}

/// Labels of a client's command.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct CommandLabels {
    command: CommandKind,
    outcome: Outcome,
}

impl CommandLabels {
    /// An invalid command is refused or incomplete.
    fn is_possible(&self) -> bool {
        match self.outcome {
            Outcome::refused => true,
            Outcome::no_command => self.command == CommandKind::unknown,
            _ => self.command != CommandKind::unknown,
        }
    }
}

label_values! {
    /// What an audit found about one route, as a label.
    pub enum AuditFinding {
        /// The port belongs to the route's tool.
        own,
        /// The port belongs to another user; the route was withdrawn.
        withdrawn,
        /// The route was to be withdrawn, but has changed meanwhile.
        changed,
        /// The port belongs to a user who is no tool, and the route has no origin; it stays.
        no_tools,
        /// Connections are refused, or not accepted in time.
        backend_unreachable,
        /// The port is dead; the route was withdrawn.
        dead,
        /// The port is dead, like most tools' ports; the route stays.
        held,
        /// The identd named no user, or only the kernel.
        owner_unknown,
        /// The route has no origin and leads to a host that cannot be a client.
        outside,
        /// Not audited: the tool's other servers took too long.
        not_reached,
    }
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FindingLabel {
    finding: AuditFinding,
}

/// proxylistener's metrics; `/metrics` shows them with the prefix `proxylistener_`.
#[derive(Clone, Debug)]
pub struct Metrics {
    commands: Family<CommandLabels, Counter>,
    ident: Histogram,
    /// Time per query.
    pub redis: Histogram,
    /// Clients with a permit, until the reply.
    pub connections: ConnectionMeter,
    /// Clients that wait for a permit.
    pub waiting: ConnectionMeter,
    /// Clients that have their reply and have not closed yet.
    pub lingering: ConnectionMeter,
    audited: Family<FindingLabel, Counter>,
    rounds: Counter,
    rounds_failed: Counter,
    /// Routes with an unknown owner in several audits in a row.
    pub unknown_owners: Gauge,
    /// Routes with dead ports that the guard holds.
    pub held_dead: Gauge,
}

impl Metrics {
    /// Registers all metrics, from zero.
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
        registry.register("commands", "Clients' commands, by outcome", metrics.commands.clone());
        let help = "Time from a query to an identd until its reply or failure";
        registry.register_with_unit("ident", help, Unit::Seconds, metrics.ident.clone());
        let help = "Time from a query to Redis until its reply or failure";
        registry.register_with_unit("redis", help, Unit::Seconds, metrics.redis.clone());
        metrics.connections.expect(ALLOW_CLIENT);
        metrics.connections.register(registry);
        metrics.waiting.register(registry.sub_registry_with_prefix("waiting"));
        metrics.lingering.register(registry.sub_registry_with_prefix("lingering"));
        registry.register("audited_routes", "Routes audited, by finding", metrics.audited.clone());
        let help = "Routes with an unknown owner in three or more audits in a row";
        registry.register("owner_unknown_routes", help, metrics.unknown_owners.clone());
        let help = "Routes kept although their ports refuse connections, because most tools' ports do";
        registry.register("held_dead_routes", help, metrics.held_dead.clone());
        registry.register("audit_rounds", "Completed audits", metrics.rounds.clone());
        registry.register(
            "audit_rounds_failed",
            "Audits interrupted by a Redis failure",
            metrics.rounds_failed.clone(),
        );
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

    /// Counts a client's command.
    pub fn count_command(&self, command: CommandKind, outcome: Outcome) {
        self.commands.get_or_create(&CommandLabels { command, outcome }).inc();
    }

    /// Records the time of one identd query.
    pub fn observe_ident(&self, passed: Duration) {
        self.ident.observe(passed.as_secs_f64());
    }

    /// Counts audited routes.
    pub fn count_finding(&self, finding: AuditFinding, routes: u64) {
        self.audited.get_or_create(&FindingLabel { finding }).inc_by(routes);
    }

    /// Counts an audit.
    pub fn count_round(&self, is_complete: bool) {
        if is_complete { &self.rounds } else { &self.rounds_failed }.inc();
    }
}
