//! What is done about one tool: a function of what is known, and of nothing else.

use std::fmt;
use std::time::Duration;

use super::jobs::Presence;

/// What is known of a tool whose web service is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its job.
    pub job: Presence,
    /// Whether the proxy routes to it.
    pub is_registered: bool,
}

/// What keeps a tool from being restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A job that is younger may register yet.
    pub grace: Duration,
    /// The facts are not believed.
    pub is_braked: bool,
    /// It has been restarted as often as it may.
    pub is_spent: bool,
    /// As many are restarted in this round as may be.
    pub is_full: bool,
}

/// Why a tool should be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// No job.
    NotRunning,
    /// A job that the proxy does not know.
    NotRegistered,
    /// A job that the grid could not start.
    InError,
}

/// What is done about a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: its web service is not wanted here.
    Skipped,
    /// Nothing: it runs and is registered.
    Up,
    /// Nothing yet: it may register yet.
    Young,
    /// Nothing yet: its job waits for a place.
    Pending,
    /// It is restarted.
    Restart(Cause),
    /// Nothing: it has been restarted too often.
    Throttled(Cause),
    /// Nothing in this round: enough others are restarted.
    Deferred(Cause),
    /// Nothing: what is known is not believed, or nothing is known.
    Braked,
}

/// Decides; `None` is not known.
pub fn decide(facts: Option<Facts>, limits: Limits) -> Decision {
    let Some(facts) = facts else { return Decision::Braked };
    let cause = match facts.job {
        Presence::Running(_) if facts.is_registered => return Decision::Up,
        Presence::Running(Some(age)) if age < limits.grace => return Decision::Young,
        Presence::Running(_) => Cause::NotRegistered,
        Presence::Pending => return Decision::Pending,
        Presence::Failed => Cause::InError,
        Presence::Absent => Cause::NotRunning,
    };
    match limits {
        Limits { is_braked: true, .. } => Decision::Braked,
        Limits { is_spent: true, .. } => Decision::Throttled(cause),
        Limits { is_full: true, .. } => Decision::Deferred(cause),
        _ => Decision::Restart(cause),
    }
}

impl Decision {
    /// All there are, for a metric that names each.
    pub const NAMES: [&str; 8] = ["skipped", "up", "young", "pending", "restart", "throttled", "deferred", "braked"];

    /// For a table and a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Up => "up",
            Self::Young => "young",
            Self::Pending => "pending",
            Self::Restart(_) => "restart",
            Self::Throttled(_) => "throttled",
            Self::Deferred(_) => "deferred",
            Self::Braked => "braked",
        }
    }

    /// Why it should be restarted, if it should.
    pub fn cause(self) -> Option<Cause> {
        match self {
            Self::Restart(cause) | Self::Throttled(cause) | Self::Deferred(cause) => Some(cause),
            _ => None,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotRunning => "not running",
            Self::NotRegistered => "running, but not known to the proxy",
            Self::InError => "in error state on the grid",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(180);

    /// Every job, registered or not, under every brake, throttle and cap.
    #[test]
    fn every_combination_has_its_decision() {
        let young = Presence::Running(Some(GRACE - Duration::from_secs(1)));
        let old = Presence::Running(Some(GRACE));
        // The decision without a limit, and that under [cap, throttle, throttle and cap, brake].
        let restart = |cause| {
            let (deferred, throttled) = (Decision::Deferred(cause), Decision::Throttled(cause));
            [Decision::Restart(cause), deferred, throttled, throttled, Decision::Braked]
        };
        let table = [
            (Presence::Absent, false, restart(Cause::NotRunning)),
            (Presence::Absent, true, restart(Cause::NotRunning)),
            (Presence::Failed, false, restart(Cause::InError)),
            (Presence::Failed, true, restart(Cause::InError)),
            (Presence::Pending, false, [Decision::Pending; 5]),
            (Presence::Pending, true, [Decision::Pending; 5]),
            (young, false, [Decision::Young; 5]),
            (young, true, [Decision::Up; 5]),
            (old, false, restart(Cause::NotRegistered)),
            (old, true, [Decision::Up; 5]),
            (Presence::Running(None), false, restart(Cause::NotRegistered)),
            (Presence::Running(None), true, [Decision::Up; 5]),
        ];
        for (job, is_registered, [free, full, spent, both, braked]) in table {
            for (is_braked, is_spent, is_full, want) in [
                (false, false, false, free),
                (false, false, true, full),
                (false, true, false, spent),
                (false, true, true, both),
                (true, false, false, braked),
                (true, false, true, braked),
                (true, true, false, braked),
                (true, true, true, braked),
            ] {
                let limits = Limits { grace: GRACE, is_braked, is_spent, is_full };
                let facts = Facts { job, is_registered };
                assert_eq!(decide(Some(facts), limits), want, "{facts:?} {limits:?}");
                assert_eq!(decide(None, limits), Decision::Braked, "nothing is known: {limits:?}");
            }
        }
    }

    #[test]
    fn each_decision_has_a_name() {
        let cause = Cause::NotRunning;
        let all = [
            Decision::Skipped,
            Decision::Up,
            Decision::Young,
            Decision::Pending,
            Decision::Restart(cause),
            Decision::Throttled(cause),
            Decision::Deferred(cause),
            Decision::Braked,
        ];
        assert_eq!(all.map(Decision::name), Decision::NAMES);
    }
}
