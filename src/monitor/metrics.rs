//! webservicemonitor's metrics.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::decision::Decision;
use super::manifest::SkipReason;
use super::start_outcome::StartOutcome;
use super::suspend_reason::SuspendReason;
use crate::daemon::start_at_zero;

/// Upper bounds of the histograms, in seconds.
const SECONDS: [f64; 11] = [0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct DecisionLabel {
    decision: &'static str,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SkipLabel {
    reason: &'static str,
}

/// webservicemonitor's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// 1 after a suspended round.
    pub suspended: Gauge,
    /// Seconds from a request to Redis until its reply or failure.
    pub redis: Histogram,
    rounds: Family<OutcomeLabel, Counter>,
    tools: Family<DecisionLabel, Gauge>,
    skipped: Family<SkipLabel, Gauge>,
    starts: Family<OutcomeLabel, Counter>,
    round: Histogram,
    list_age: Gauge<f64, AtomicU64>,
}

impl Metrics {
    /// Registers all metrics, at zero.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            suspended: Gauge::default(),
            redis: Histogram::new(SECONDS),
            rounds: Family::default(),
            tools: Family::default(),
            skipped: Family::default(),
            starts: Family::default(),
            round: Histogram::new(SECONDS),
            list_age: Gauge::default(),
        };
        metrics.set_list_age(None);
        let registry = registry.sub_registry_with_prefix("webservicemonitor");
        registry.register("braked", "1 after a suspended round, which restarts nothing", metrics.suspended.clone());
        registry.register("rounds", "Rounds by outcome", metrics.rounds.clone());
        registry.register("tools", "Tools with a manifest, by the last decision", metrics.tools.clone());
        registry.register("skipped_tools", "Tools that are not monitored, by reason", metrics.skipped.clone());
        registry.register("starts", "Start commands by outcome", metrics.starts.clone());
        let help = "Age of the last list; NaN if its proxy does not report one";
        registry.register_with_unit("list_age", help, Unit::Seconds, metrics.list_age.clone());
        registry.register_with_unit("round", "A round from start to end", Unit::Seconds, metrics.round.clone());
        let help = "From a request to Redis until its reply or failure";
        registry.register_with_unit("redis", help, Unit::Seconds, metrics.redis.clone());
        let outcomes = SuspendReason::OUTCOMES.into_iter().chain(["ok"]);
        start_at_zero(&metrics.rounds, outcomes.map(|outcome| OutcomeLabel { outcome }));
        start_at_zero(&metrics.starts, StartOutcome::ALL.map(|outcome| OutcomeLabel { outcome: outcome.name() }));
        start_at_zero(&metrics.tools, Decision::NAMES.map(|decision| DecisionLabel { decision }));
        start_at_zero(&metrics.skipped, SkipReason::REASONS.map(|reason| SkipLabel { reason }));
        metrics
    }

    /// Records the end of a round; `suspended` is the reason of a suspension.
    pub fn record_round(&self, suspended: Option<&'static str>, took: Duration) {
        self.suspended.set(i64::from(suspended.is_some()));
        debug_assert!(
            suspended.is_none_or(|outcome| SuspendReason::OUTCOMES.contains(&outcome)),
            "{suspended:?} has no initial value"
        );
        self.rounds.get_or_create(&OutcomeLabel { outcome: suspended.unwrap_or("ok") }).inc();
        self.round.observe(took.as_secs_f64());
    }

    /// Sets the number of tools by decision, and of skipped tools by reason.
    pub fn set_decisions(
        &self,
        decisions: impl Iterator<Item = Decision>,
        reasons: impl Iterator<Item = &'static str>,
    ) {
        let mut counts = Decision::NAMES.map(|name| (name, 0));
        for decision in decisions {
            let count = counts.iter_mut().find(|(name, _)| *name == decision.name());
            count.into_iter().for_each(|(_, count)| *count += 1);
        }
        for (decision, count) in counts {
            self.tools.get_or_create(&DecisionLabel { decision }).set(count);
        }
        self.skipped.clear();
        start_at_zero(&self.skipped, SkipReason::REASONS.map(|reason| SkipLabel { reason }));
        for reason in reasons {
            debug_assert!(SkipReason::REASONS.contains(&reason), "{reason} has no initial value");
            self.skipped.get_or_create(&SkipLabel { reason }).inc();
        }
    }

    /// Sets the age of the list, if its proxy reports one.
    pub fn set_list_age(&self, age: Option<Duration>) {
        self.list_age.set(age.map_or(f64::NAN, |age| age.as_secs_f64()));
    }

    /// Counts a start command that ended.
    pub fn record_start(&self, outcome: StartOutcome) {
        self.starts.get_or_create(&OutcomeLabel { outcome: outcome.name() }).inc();
    }
}
