//! Why a whole round restarts nothing.

use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use std::{fs, io};

use super::command::CommandError;
use super::keeper_error::KeeperError;
use super::listing::ListError;
use super::memory::{Memory, Touch};
use super::qstat::JobsError;

/// What is wrong with the whole picture.
#[derive(Debug, thiserror::Error)]
pub enum Brake {
    /// No manifests.
    #[error("{0} while reading the tools' directories")]
    Manifests(io::Error),
    /// The file system hangs.
    #[error("the tools' directories have not been read within {0:?}")]
    SlowManifests(Duration),
    /// qstat hangs, or fails.
    #[error(transparent)]
    Qstat(#[from] CommandError),
    /// qstat prints something else.
    #[error(transparent)]
    Jobs(#[from] JobsError),
    /// The proxy's list.
    #[error(transparent)]
    List(#[from] ListError),
    /// The memory is not there, or not kept.
    #[error(transparent)]
    State(#[from] KeeperError),
    /// Too good a chance that the list is wrong.
    #[error("the proxy lists no tool at all, and {0} are wanted")]
    EmptyList(usize),
    /// The same of fewer than half.
    #[error("the proxy lists {now} of the wanted tools, and had {before}")]
    FewListed {
        /// What was believed.
        before: u64,
        /// What is not.
        now: u64,
    },
    /// The same of what is wanted: accounts or directories may be missing.
    #[error("the web services of {now} tools are wanted, and were of {before}")]
    FewWanted {
        /// What was believed.
        before: u64,
        /// What is not.
        now: u64,
    },
    /// The same of the grid.
    #[error("qstat lists jobs of {now} wanted tools, and had {before}")]
    FewJobs {
        /// What was believed.
        before: u64,
        /// What is not.
        now: u64,
    },
    /// The memory was lost.
    #[error("the history of restarts was lost, {0} s of its window are left")]
    Lost(u64),
}

impl Brake {
    /// All that [`Self::outcome`] may say.
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

    /// For a metric.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Manifests(_) | Self::SlowManifests(_) => "manifests_failed",
            Self::Qstat(_) | Self::Jobs(_) => "qstat_failed",
            Self::List(ListError::Old { .. }) => "list_old",
            Self::List(_) => "list_failed",
            Self::State(KeeperError::Held { .. }) => "state_held",
            Self::State(_) => "state_failed",
            Self::EmptyList(_) | Self::FewListed { .. } | Self::FewJobs { .. } | Self::FewWanted { .. } => {
                "implausible"
            }
            Self::Lost(_) => "history_lost",
        }
    }
}

/// What a round has counted.
#[derive(Clone, Copy, Debug)]
pub struct Counts {
    /// Tools on the proxy's list, whoever's.
    pub all_listed: usize,
    /// Wanted ones on it: what others, Kubernetes' too, have there says nothing of the grid's.
    pub listed: usize,
    /// Wanted ones that have a job.
    pub jobs: usize,
    /// Tools whose web service is wanted.
    pub wanted: usize,
}

/// Judges a picture that is whole. Touching `accept` while a brake lasts lets one round through, whose numbers are believed
/// from then on.
pub fn judge(counts: Counts, memory: &mut Memory, now: u64, accept: &Path) -> Option<Brake> {
    let number = |count: usize| count as u64;
    let (listed, jobs, wanted) = (number(counts.listed), number(counts.jobs), number(counts.wanted));
    let rounds = &mut memory.rounds;
    let few_listed = rounds.listed.judge(listed, wanted).map(|before| Brake::FewListed { before, now: listed });
    let few_jobs = rounds.jobs.judge(jobs, wanted).map(|before| Brake::FewJobs { before, now: jobs });
    let few_wanted = rounds.wanted.judge(wanted, 0).map(|before| Brake::FewWanted { before, now: wanted });
    let empty = (counts.all_listed == 0 && wanted > 0).then_some(Brake::EmptyList(counts.wanted));
    let lost = rounds.held_until.filter(|until| *until > now).map(|until| Brake::Lost(until - now));
    let Some(brake) = few_wanted.or(empty).or(few_listed).or(few_jobs).or(lost) else {
        rounds.braked_at_touch = None;
        return None;
    };
    let touch = touch_of(accept);
    let before = *rounds.braked_at_touch.get_or_insert(touch);
    if touch == 0 || touch == before {
        return Some(brake);
    }
    tracing::warn!(%brake, "accepted by the operator");
    rounds.listed.accept(listed);
    rounds.jobs.accept(jobs);
    rounds.wanted.accept(wanted);
    rounds.held_until = None;
    rounds.braked_at_touch = None;
    None
}

fn touch_of(file: &Path) -> Touch {
    let modified = fs::symlink_metadata(file).and_then(|metadata| metadata.modified()).ok();
    let since = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(brake: Option<Brake>) -> &'static str {
        brake.map_or("none", |brake| brake.outcome())
    }

    fn counts(listed: usize, jobs: usize) -> Counts {
        Counts { all_listed: listed + usize::from(listed > 0) * 100, listed, jobs, wanted: 30 }
    }

    #[test]
    fn what_cannot_be_true_brakes() {
        let nowhere = Path::new("/nowhere/accept");
        let seen = |now: Counts| {
            let mut memory = Memory::default();
            assert_eq!(outcome(judge(counts(30, 30), &mut memory, 0, nowhere)), "none");
            outcome(judge(now, &mut memory, 0, nowhere))
        };
        for (listed, jobs, want) in
            [(15, 15, "none"), (14, 30, "implausible"), (30, 14, "implausible"), (0, 30, "implausible")]
        {
            assert_eq!(seen(counts(listed, jobs)), want, "{listed} {jobs}");
        }
    }

    #[test]
    fn tools_that_are_wanted_no_more_all_at_once_brake() {
        let mut memory = Memory::default();
        let nowhere = Path::new("/nowhere/accept");
        assert_eq!(outcome(judge(counts(30, 30), &mut memory, 0, nowhere)), "none");
        let none = Counts { all_listed: 130, listed: 0, jobs: 0, wanted: 0 };
        assert_eq!(outcome(judge(none, &mut memory, 0, nowhere)), "implausible");
    }

    #[test]
    fn an_empty_list_never_becomes_plausible_by_time() {
        let mut memory = Memory::default();
        for _ in 0..20 {
            let few = Counts { all_listed: 0, listed: 0, jobs: 1, wanted: 1 };
            assert_eq!(outcome(judge(few, &mut memory, 0, Path::new("/nowhere/accept"))), "implausible");
        }
        let nobody = Counts { all_listed: 0, listed: 0, jobs: 0, wanted: 0 };
        assert_eq!(outcome(judge(nobody, &mut memory, 0, Path::new("/nowhere/accept"))), "none");
    }

    #[test]
    fn the_operator_lets_one_round_through() {
        let dir = tempfile::tempdir().unwrap();
        let accept = dir.path().join("accept");
        let touch = || std::fs::write(&accept, format!("{:?}", std::time::Instant::now())).unwrap();
        touch();
        let mut memory = Memory::lost(0, Duration::from_secs(3600));
        let judge = |memory: &mut Memory, counts| outcome(judge(counts, memory, 10, &accept));
        assert_eq!(judge(&mut memory, counts(30, 30)), "history_lost", "touched before");
        assert_eq!(judge(&mut memory, counts(30, 30)), "history_lost");
        wait_for_another_time(&accept);
        assert_eq!(judge(&mut memory, counts(30, 30)), "none");
        assert_eq!(judge(&mut memory, counts(0, 30)), "implausible", "accepted once");
        wait_for_another_time(&accept);
        assert_eq!(judge(&mut memory, counts(0, 30)), "none");
        assert_eq!(judge(&mut memory, counts(0, 30)), "implausible", "accepted once");
    }

    /// Touches a file until that shows: a file system's clock goes in steps.
    fn wait_for_another_time(file: &Path) {
        let before = touch_of(file);
        while touch_of(file) == before {
            std::fs::write(file, "").unwrap();
        }
    }
}
