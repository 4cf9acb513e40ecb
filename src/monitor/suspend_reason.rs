//! Why a round is suspended: it restarts nothing.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use std::{fs, io};

use super::restart_history::{RestartHistory, Touch};
use super::state_error::StateError;
use crate::grid::JobsError;
use crate::proxy_list::ListError;
use crate::subprocess::CommandError;

/// Why a round is suspended.
#[derive(Debug, thiserror::Error)]
pub enum SuspendReason {
    /// The manifests are unreadable.
    #[error("{0} while reading the tools' directories")]
    Manifests(io::Error),
    /// The file system is too slow.
    #[error("reading the tools' directories takes longer than {0:?}")]
    SlowManifests(Duration),
    /// qstat failed or timed out.
    #[error(transparent)]
    Qstat(#[from] CommandError),
    /// qstat's output is invalid.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// No proxy has a valid list.
    #[error(transparent)]
    List(#[from] ListError),
    /// The history cannot be read or saved.
    #[error(transparent)]
    State(#[from] StateError),
    /// The list is empty, and this many tools are wanted.
    #[error("the proxy's list is empty, but {0} tools are wanted")]
    EmptyList(usize),
    /// The list lost more than half of the wanted tools.
    #[error("the proxy lists {now} of the wanted tools, down from {before}")]
    FewListed {
        /// The accepted number.
        before: u64,
        /// The suspect number.
        now: u64,
    },
    /// More than half of the wanted tools disappeared: accounts or directories may be missing.
    #[error("{now} tools want a web service, down from {before}")]
    FewWanted {
        /// The accepted number.
        before: u64,
        /// The suspect number.
        now: u64,
    },
    /// More than half of the jobs disappeared.
    #[error("qstat lists jobs of {now} wanted tools, down from {before}")]
    FewJobs {
        /// The accepted number.
        before: u64,
        /// The suspect number.
        now: u64,
    },
    /// The history was lost; this many seconds of the restart window remain.
    #[error("the restart history was lost; {0} s of the restart window remain")]
    HistoryLost(u64),
}

impl SuspendReason {
    /// All values of [`Self::outcome`].
    pub const OUTCOMES: [&str; 8] = [
        "manifests_failed",
        "qstat_failed",
        "list_failed",
        "list_old",
        "state_failed",
        "state_held",
        "implausible",
        "history_lost",
    ];

    /// The metric's label.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Manifests(_) | Self::SlowManifests(_) => "manifests_failed",
            Self::Qstat(_) | Self::Jobs(_) => "qstat_failed",
            Self::List(ListError::Old { .. }) => "list_old",
            Self::List(_) => "list_failed",
            Self::State(StateError::Held { .. }) => "state_held",
            Self::State(_) => "state_failed",
            Self::EmptyList(_) | Self::FewListed { .. } | Self::FewJobs { .. } | Self::FewWanted { .. } => {
                "implausible"
            }
            Self::HistoryLost(_) => "history_lost",
        }
    }
}

/// The counts of a round.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Tools on the proxy's list.
    pub all_listed: usize,
    /// Wanted tools on the list. Other tools, such as those in Kubernetes, say nothing about the grid.
    pub listed: usize,
    /// Wanted tools with a job.
    pub jobs: usize,
    /// Tools that want a web service.
    pub wanted: usize,
}

/// Judges a complete observation. Touching the file `accept` during a suspension lets one round through, and its numbers become
/// the baseline.
pub fn judge(counts: Counts, history: &mut RestartHistory, now: u64, accept: &Path) -> Option<SuspendReason> {
    let number = |count: usize| count as u64;
    let (listed, jobs, wanted) = (number(counts.listed), number(counts.jobs), number(counts.wanted));
    let rounds = &mut history.rounds;
    let few_listed = rounds.listed.judge(listed, wanted).map(|before| SuspendReason::FewListed { before, now: listed });
    let few_jobs = rounds.jobs.judge(jobs, wanted).map(|before| SuspendReason::FewJobs { before, now: jobs });
    let few_wanted = rounds.wanted.judge(wanted, 0).map(|before| SuspendReason::FewWanted { before, now: wanted });
    let empty = (counts.all_listed == 0 && wanted > 0).then_some(SuspendReason::EmptyList(counts.wanted));
    let lost = rounds.suspended_until.filter(|until| *until > now).map(|until| SuspendReason::HistoryLost(until - now));
    let Some(reason) = few_wanted.or(empty).or(few_listed).or(few_jobs).or(lost) else {
        rounds.suspended_at_touch = None;
        return None;
    };
    let touch = touch_time(accept);
    let before = *rounds.suspended_at_touch.get_or_insert(touch);
    if touch == 0 || touch == before {
        return Some(reason);
    }
    tracing::warn!(%reason, "round accepted by the operator; its numbers are the new baseline");
    rounds.listed.accept(listed);
    rounds.jobs.accept(jobs);
    rounds.wanted.accept(wanted);
    rounds.suspended_until = None;
    rounds.suspended_at_touch = None;
    None
}

fn touch_time(file: &Path) -> Touch {
    let modified = fs::symlink_metadata(file).and_then(|metadata| metadata.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(reason: Option<SuspendReason>) -> &'static str {
        reason.map_or("none", |reason| reason.outcome())
    }

    fn counts(listed: usize, jobs: usize) -> Counts {
        Counts { all_listed: listed + usize::from(listed > 0) * 100, listed, jobs, wanted: 30 }
    }

    #[test]
    fn sudden_drops_suspend_a_round() {
        let nowhere = Path::new("/nowhere/accept");
        let judged = |now: Counts| {
            let mut history = RestartHistory::default();
            assert_eq!(outcome(judge(counts(30, 30), &mut history, 0, nowhere)), "none");
            outcome(judge(now, &mut history, 0, nowhere))
        };
        for (listed, jobs, want) in
            [(15, 15, "none"), (14, 30, "implausible"), (30, 14, "implausible"), (0, 30, "implausible")]
        {
            assert_eq!(judged(counts(listed, jobs)), want, "{listed} {jobs}");
        }
    }

    #[test]
    fn loss_of_all_wanted_tools_suspends_a_round() {
        let mut history = RestartHistory::default();
        let nowhere = Path::new("/nowhere/accept");
        assert_eq!(outcome(judge(counts(30, 30), &mut history, 0, nowhere)), "none");
        let none = Counts { all_listed: 130, listed: 0, jobs: 0, wanted: 0 };
        assert_eq!(outcome(judge(none, &mut history, 0, nowhere)), "implausible");
    }

    #[test]
    fn empty_list_never_becomes_plausible_by_time() {
        let mut history = RestartHistory::default();
        for _ in 0..20 {
            let few = Counts { all_listed: 0, listed: 0, jobs: 1, wanted: 1 };
            assert_eq!(outcome(judge(few, &mut history, 0, Path::new("/nowhere/accept"))), "implausible");
        }
        let none = Counts { all_listed: 0, listed: 0, jobs: 0, wanted: 0 };
        assert_eq!(outcome(judge(none, &mut history, 0, Path::new("/nowhere/accept"))), "none");
    }

    #[test]
    fn operator_lets_one_round_through() {
        let dir = tempfile::tempdir().unwrap();
        let accept = dir.path().join("accept");
        let touch = || std::fs::write(&accept, format!("{:?}", std::time::Instant::now())).unwrap();
        touch();
        let mut history = RestartHistory::lost(0, Duration::from_secs(3600));
        let judge = |history: &mut RestartHistory, counts| outcome(judge(counts, history, 10, &accept));
        assert_eq!(judge(&mut history, counts(30, 30)), "history_lost", "touched before");
        assert_eq!(judge(&mut history, counts(30, 30)), "history_lost");
        touch_again(&accept);
        assert_eq!(judge(&mut history, counts(30, 30)), "none");
        assert_eq!(judge(&mut history, counts(0, 30)), "implausible", "accepted once");
        touch_again(&accept);
        assert_eq!(judge(&mut history, counts(0, 30)), "none");
        assert_eq!(judge(&mut history, counts(0, 30)), "implausible", "accepted once");
    }

    /// Touches a file until its time changes: a file system's clock has coarse steps.
    fn touch_again(file: &Path) {
        let before = touch_time(file);
        while touch_time(file) == before {
            std::fs::write(file, "").unwrap();
        }
    }
}
