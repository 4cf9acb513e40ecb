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
    /// For how long that job has been seen to be deleted.
    pub deleting_for: Duration,
}

/// What keeps a tool from being restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// A job that is younger may register yet, and one that is deleted for less may still end.
    pub grace: Duration,
    /// The facts are not believed.
    pub is_braked: bool,
    /// It has been restarted as often as it may.
    pub is_spent: bool,
    /// Its last starts never began, and it is not time to try again.
    pub is_backing_off: bool,
    /// As many are restarted in this round as may be.
    pub is_full: bool,
}

impl Limits {
    /// What is right of the facts alone.
    pub fn none(grace: Duration) -> Self {
        Self { grace, is_braked: false, is_spent: false, is_backing_off: false, is_full: false }
    }
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
    /// A job that was deleted, and does not end.
    NotDeleted,
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
    /// Nothing yet: its job is being deleted.
    Deleting,
    /// It is restarted.
    Restart(Cause),
    /// Nothing: it has been restarted too often.
    Throttled(Cause),
    /// Nothing in this round: its last starts never began.
    BackingOff(Cause),
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
        Presence::Deleting if facts.deleting_for < limits.grace => return Decision::Deleting,
        Presence::Deleting => Cause::NotDeleted,
        Presence::Failed => Cause::InError,
        Presence::Absent => Cause::NotRunning,
    };
    match limits {
        Limits { is_braked: true, .. } => Decision::Braked,
        Limits { is_spent: true, .. } => Decision::Throttled(cause),
        Limits { is_backing_off: true, .. } => Decision::BackingOff(cause),
        Limits { is_full: true, .. } => Decision::Deferred(cause),
        _ => Decision::Restart(cause),
    }
}

impl Decision {
    /// All there are, for a metric that names each.
    pub const NAMES: [&str; 10] =
        ["skipped", "up", "young", "pending", "deleting", "restart", "throttled", "backing_off", "deferred", "braked"];

    /// For a table and a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Skipped => "skipped",
            Self::Up => "up",
            Self::Young => "young",
            Self::Pending => "pending",
            Self::Deleting => "deleting",
            Self::Restart(_) => "restart",
            Self::Throttled(_) => "throttled",
            Self::BackingOff(_) => "backing_off",
            Self::Deferred(_) => "deferred",
            Self::Braked => "braked",
        }
    }

    /// Why it should be restarted, if it should.
    pub fn cause(self) -> Option<Cause> {
        match self {
            Self::Restart(cause) | Self::Throttled(cause) | Self::BackingOff(cause) | Self::Deferred(cause) => {
                Some(cause)
            }
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
            Self::NotDeleted => "being deleted on the grid, which does not end",
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
        // The decision without a limit, and that under [cap, back-off and cap, throttle, throttle and all, brake].
        let restart = |cause| {
            let (deferred, throttled) = (Decision::Deferred(cause), Decision::Throttled(cause));
            [Decision::Restart(cause), deferred, Decision::BackingOff(cause), throttled, throttled, Decision::Braked]
        };
        let second = Duration::from_secs(1);
        let table = [
            (Presence::Absent, false, restart(Cause::NotRunning)),
            (Presence::Absent, true, restart(Cause::NotRunning)),
            (Presence::Failed, false, restart(Cause::InError)),
            (Presence::Failed, true, restart(Cause::InError)),
            (Presence::Pending, false, [Decision::Pending; 6]),
            (Presence::Pending, true, [Decision::Pending; 6]),
            (young, false, [Decision::Young; 6]),
            (young, true, [Decision::Up; 6]),
            (old, false, restart(Cause::NotRegistered)),
            (old, true, [Decision::Up; 6]),
            (Presence::Running(None), false, restart(Cause::NotRegistered)),
            (Presence::Running(None), true, [Decision::Up; 6]),
        ];
        let mut cases: Vec<_> = table.map(|(job, listed, want)| (job, Duration::ZERO, listed, want)).into();
        for listed in [false, true] {
            cases.push((Presence::Deleting, GRACE - second, listed, [Decision::Deleting; 6]));
            cases.push((Presence::Deleting, GRACE, listed, restart(Cause::NotDeleted)));
        }
        for (job, deleting_for, is_registered, [free, full, resting, spent, all, braked]) in cases {
            for (is_braked, is_spent, is_backing_off, is_full, want) in [
                (false, false, false, false, free),
                (false, false, false, true, full),
                (false, false, true, true, resting),
                (false, true, false, false, spent),
                (false, true, true, true, all),
                (true, false, false, false, braked),
                (true, false, true, true, braked),
                (true, true, false, false, braked),
                (true, true, true, true, braked),
            ] {
                let limits = Limits { grace: GRACE, is_braked, is_spent, is_backing_off, is_full };
                let facts = Facts { job, is_registered, deleting_for };
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
            Decision::Deleting,
            Decision::Restart(cause),
            Decision::Throttled(cause),
            Decision::BackingOff(cause),
            Decision::Deferred(cause),
            Decision::Braked,
        ];
        assert_eq!(all.map(Decision::name), Decision::NAMES);
    }
}
