//! The decision for one tool: a pure function of facts and constraints.

use std::fmt;
use std::time::Duration;

use crate::grid::Presence;

/// The facts of a tool that wants a web service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The state of its job.
    pub job: Presence,
    /// Whether the proxy lists the tool.
    pub is_registered: bool,
    /// Time since the job was first seen being deleted.
    pub deleting_for: Duration,
}

/// Constraints on restarting a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constraints {
    /// The time for a new job to register, and for a deleted one to end.
    pub grace: Duration,
    /// The round is suspended.
    pub is_suspended: bool,
    /// The tool reached its limit of restarts.
    pub is_throttled: bool,
    /// The tool's last starts never began, and the next attempt is not due.
    pub is_backing_off: bool,
    /// The round reached its limit of restarts.
    pub is_round_full: bool,
}

impl Constraints {
    /// No constraints but the grace time.
    pub fn none(grace: Duration) -> Self {
        Self { grace, is_suspended: false, is_throttled: false, is_backing_off: false, is_round_full: false }
    }
}

/// Why a tool should be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// It has no job.
    NotRunning,
    /// Its job runs, but the proxy does not list the tool.
    NotRegistered,
    /// The grid could not start its job.
    InError,
    /// Its job is being deleted for longer than the grace time.
    StuckInDeletion,
}

/// The decision for a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The tool wants no web service here, or its manifest is invalid.
    Skipped,
    /// The job runs and is registered.
    Up,
    /// The job is new and may still register.
    Young,
    /// The job waits to be scheduled.
    Pending,
    /// The job is being deleted.
    Deleting,
    /// The tool is restarted.
    Restart(Cause),
    /// The tool reached its limit of restarts.
    Throttled(Cause),
    /// The tool's last starts never began; a later round tries again.
    BackingOff(Cause),
    /// The round reached its limit of restarts; a later round tries again.
    Deferred(Cause),
    /// The round is suspended, or facts are missing.
    Suspended,
}

/// Decides on a tool; without facts the decision is [`Decision::Suspended`].
pub fn decide(facts: Option<Facts>, constraints: Constraints) -> Decision {
    let Some(facts) = facts else { return Decision::Suspended };
    let cause = match facts.job {
        Presence::Running(_) if facts.is_registered => return Decision::Up,
        Presence::Running(Some(age)) if age < constraints.grace => return Decision::Young,
        Presence::Running(_) => Cause::NotRegistered,
        Presence::Pending => return Decision::Pending,
        Presence::Deleting if facts.deleting_for < constraints.grace => return Decision::Deleting,
        Presence::Deleting => Cause::StuckInDeletion,
        Presence::Failed => Cause::InError,
        Presence::Absent => Cause::NotRunning,
    };
    match constraints {
        Constraints { is_suspended: true, .. } => Decision::Suspended,
        Constraints { is_throttled: true, .. } => Decision::Throttled(cause),
        Constraints { is_backing_off: true, .. } => Decision::BackingOff(cause),
        Constraints { is_round_full: true, .. } => Decision::Deferred(cause),
        _ => Decision::Restart(cause),
    }
}

impl Decision {
    /// All values of [`Self::name`].
    pub const NAMES: [&str; 10] =
        ["skipped", "up", "young", "pending", "deleting", "restart", "throttled", "backing_off", "deferred", "braked"];

    /// The metric's label, also shown by `--dry-run`.
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
            Self::Suspended => "braked",
        }
    }

    /// Why the tool should be restarted; `None` if it should not.
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
            Self::NotRegistered => "running, but not registered with the proxy",
            Self::InError => "in error state on the grid",
            Self::StuckInDeletion => "stuck in deletion on the grid",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(180);

    /// Every job, registered or not, under every combination of constraints.
    #[test]
    fn every_combination_has_its_decision() {
        let young = Presence::Running(Some(GRACE - Duration::from_secs(1)));
        let old = Presence::Running(Some(GRACE));
        // Without constraints, then under [full, back-off and full, throttled, throttled and all, suspended].
        let restart = |cause| {
            let (deferred, throttled) = (Decision::Deferred(cause), Decision::Throttled(cause));
            [Decision::Restart(cause), deferred, Decision::BackingOff(cause), throttled, throttled, Decision::Suspended]
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
            cases.push((Presence::Deleting, GRACE, listed, restart(Cause::StuckInDeletion)));
        }
        for (job, deleting_for, is_registered, [free, full, backing_off, throttled, all, suspended]) in cases {
            for (is_suspended, is_throttled, is_backing_off, is_round_full, want) in [
                (false, false, false, false, free),
                (false, false, false, true, full),
                (false, false, true, true, backing_off),
                (false, true, false, false, throttled),
                (false, true, true, true, all),
                (true, false, false, false, suspended),
                (true, false, true, true, suspended),
                (true, true, false, false, suspended),
                (true, true, true, true, suspended),
            ] {
                let constraints =
                    Constraints { grace: GRACE, is_suspended, is_throttled, is_backing_off, is_round_full };
                let facts = Facts { job, is_registered, deleting_for };
                assert_eq!(decide(Some(facts), constraints), want, "{facts:?} {constraints:?}");
                assert_eq!(decide(None, constraints), Decision::Suspended, "without facts: {constraints:?}");
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
            Decision::Suspended,
        ];
        assert_eq!(all.map(Decision::name), Decision::NAMES);
    }
}
