//! What webservicemonitor counts and times.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::brake::Brake;
use super::decision::Decision;
use super::manifest::Skip;
use super::start_outcome::StartOutcome;
use crate::daemon::start_at_zero;

/// Upper bounds of the histograms, in seconds.
const SECONDS: [f64; 11] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Ended {
    outcome: &'static str,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Decided {
    decision: &'static str,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// 1 after a round that restarted nothing because the facts were not there, or not believed.
    pub braked: Gauge,
    /// How long Redis takes.
    pub redis: Histogram,
    rounds: Family<Ended, Counter>,
    tools: Family<Decided, Gauge>,
    skipped: Family<Reason, Gauge>,
    starts: Family<Ended, Counter>,
    round: Histogram,
    list_age: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Counts from zero, and has `registry` tell of it.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            braked: Gauge::default(),
            redis: Histogram::new(SECONDS),
            rounds: Family::default(),
            tools: Family::default(),
            skipped: Family::default(),
            starts: Family::default(),
            round: Histogram::new(SECONDS),
            list_age: Gauge::default(),
        };
        metrics.list_age(None);
        let registry = registry.sub_registry_with_prefix("webservicemonitor");
        registry.register("braked", "1 after a round that had to restart nothing", metrics.braked.clone());
        registry.register("rounds", "Rounds by outcome", metrics.rounds.clone());
        registry.register("tools", "Tools with a manifest, by the last decision", metrics.tools.clone());
        registry.register("skipped_tools", "Tools that are not looked after, by reason", metrics.skipped.clone());
        registry.register("starts", "Start commands by outcome", metrics.starts.clone());
        let help = "How long ago the last list was known to be true; NaN when its proxy does not say";
        registry.register_with_unit("list_age", help, Unit::Seconds, metrics.list_age.clone());
        registry.register_with_unit("round", "A round from begin to end", Unit::Seconds, metrics.round.clone());
        let help = "From asking Redis until its answer or failure";
        registry.register_with_unit("redis", help, Unit::Seconds, metrics.redis.clone());
        let outcomes = Brake::OUTCOMES.into_iter().chain(["ok"]);
        start_at_zero(&metrics.rounds, outcomes.map(|outcome| Ended { outcome }));
        start_at_zero(&metrics.starts, StartOutcome::ALL.map(|outcome| Ended { outcome: outcome.name() }));
        start_at_zero(&metrics.tools, Decision::NAMES.map(|decision| Decided { decision }));
        start_at_zero(&metrics.skipped, Skip::REASONS.map(|reason| Reason { reason }));
        metrics
    }

    /// A round has ended; `braked` says by what.
    pub fn round_ended(&self, braked: Option<&'static str>, took: Duration) {
        self.braked.set(i64::from(braked.is_some()));
        debug_assert!(
            braked.is_none_or(|outcome| Brake::OUTCOMES.contains(&outcome)),
            "{braked:?} is not there from the start"
        );
        self.rounds.get_or_create(&Ended { outcome: braked.unwrap_or("ok") }).inc();
        self.round.observe(took.as_secs_f64());
    }

    /// What was decided of all tools, and why some are skipped.
    pub fn decided(&self, decisions: impl Iterator<Item = Decision>, reasons: impl Iterator<Item = &'static str>) {
        let mut counts = Decision::NAMES.map(|name| (name, 0));
        for decision in decisions {
            let count = counts.iter_mut().find(|(name, _)| *name == decision.name());
            count.into_iter().for_each(|(_, count)| *count += 1);
        }
        for (decision, count) in counts {
            self.tools.get_or_create(&Decided { decision }).set(count);
        }
        self.skipped.clear();
        start_at_zero(&self.skipped, Skip::REASONS.map(|reason| Reason { reason }));
        for reason in reasons {
            debug_assert!(Skip::REASONS.contains(&reason), "{reason} is not there from the start");
            self.skipped.get_or_create(&Reason { reason }).inc();
        }
    }

    /// How old the list was, if its proxy says.
    pub fn list_age(&self, age: Option<Duration>) {
        self.list_age.set(age.map_or(f64::NAN, |age| age.as_secs_f64()));
    }

    /// A start command has ended.
    pub fn started(&self, outcome: StartOutcome) {
        self.starts.get_or_create(&Ended { outcome: outcome.name() }).inc();
    }
}
