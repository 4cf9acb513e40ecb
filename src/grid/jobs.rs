//! The grid's jobs, and the state of each tool's job.

use std::collections::HashMap;
use std::time::Duration;

/// The state of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    /// Finished, and still listed.
    Finished,
    /// In error state: the grid could not start it and does not retry.
    Failed,
    /// Being deleted, whether it runs or waits. A job on a host that is down stays so.
    Deleting,
    /// Waiting to be scheduled, or in an unknown state.
    Pending,
    /// On a host, also if suspended.
    Running,
}

/// A job, or some tasks of an array job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The job's number, if it has one.
    pub number: Option<u64>,
    /// The job's name, `<type>-<tool>` for a web service.
    pub name: String,
    /// The user that the job runs as.
    pub owner: String,
    /// The job's state.
    pub state: JobState,
    /// When it started, in Unix seconds.
    pub since: Option<u64>,
}

/// The state of a tool's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// No job.
    Absent,
    /// See [`JobState::Failed`].
    Failed,
    /// See [`JobState::Deleting`].
    Deleting,
    /// See [`JobState::Pending`].
    Pending,
    /// Running for this time, if known.
    Running(Option<Duration>),
}

/// All jobs by owner and name.
#[derive(Debug, Default)]
pub struct Jobs {
    by_owner: HashMap<(String, String), Presence>,
}

impl Jobs {
    /// Of several jobs with one owner and name the one that got furthest counts; of running ones the youngest.
    pub fn new(jobs: Vec<Job>, now: u64) -> Self {
        let mut all = Self::default();
        for job in jobs {
            // A start in the future comes from another host's clock; take it as now.
            let presence = match job.state {
                JobState::Finished => continue,
                JobState::Failed => Presence::Failed,
                JobState::Deleting => Presence::Deleting,
                JobState::Pending => Presence::Pending,
                JobState::Running => {
                    Presence::Running(job.since.map(|since| Duration::from_secs(now.saturating_sub(since))))
                }
            };
            let known = all.by_owner.entry((job.owner, job.name)).or_insert(presence);
            *known = furthest(*known, presence);
        }
        all
    }

    /// The state of the job with this owner and name.
    pub fn find(&self, owner: &str, name: &str) -> Presence {
        self.by_owner.get(&(owner.to_owned(), name.to_owned())).copied().unwrap_or(Presence::Absent)
    }
}

fn furthest(one: Presence, other: Presence) -> Presence {
    let rank = |presence: Presence| match presence {
        Presence::Absent => 0,
        Presence::Failed => 1,
        Presence::Deleting => 2,
        Presence::Pending => 3,
        Presence::Running(_) => 4,
    };
    match (one, other) {
        (Presence::Running(Some(one)), Presence::Running(Some(other))) => Presence::Running(Some(one.min(other))),
        (Presence::Running(one), Presence::Running(other)) => Presence::Running(one.or(other)),
        _ if rank(one) >= rank(other) => one,
        _ => other,
    }
}

impl JobState {
    /// Letters as in qstat(1): d(eletion), E(rror), h(old), r(unning), R(estarted), s and S(uspended), t(ransferring),
    /// T(hreshold), w(aiting), z(ombie); `group` is the `state` attribute of the `job_list` element.
    pub(super) fn from_letters(letters: &str, group: &str) -> Self {
        let has = |any: &str| letters.contains(|letter| any.contains(letter));
        match () {
            () if has("z") || group == "zombie" => Self::Finished,
            () if has("d") => Self::Deleting,
            () if has("E") => Self::Failed,
            () if has("qw") => Self::Pending,
            () if has("rsSthTR") || group == "running" => Self::Running,
            () => Self::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_letters_map_to_states() {
        use JobState::{Deleting, Failed, Finished, Pending, Running};
        for (letters, want) in [
            ("r", Running),
            ("t", Running),
            ("Rr", Running),
            ("s", Running),
            ("S", Running),
            ("T", Running),
            ("hr", Running),
            ("h", Running),
            ("dr", Deleting),
            ("dt", Deleting),
            ("dRr", Deleting),
            ("dS", Deleting),
            ("dEqw", Deleting),
            ("qw", Pending),
            ("hqw", Pending),
            ("Rq", Pending),
            ("w", Pending),
            ("dqw", Deleting),
            ("Eqw", Failed),
            ("Ehqw", Failed),
            ("z", Finished),
            ("?", Pending),
        ] {
            assert_eq!(JobState::from_letters(letters, ""), want, "{letters}");
        }
        assert_eq!(JobState::from_letters("", "running"), Running);
        assert_eq!(JobState::from_letters("", "pending"), Pending);
        assert_eq!(JobState::from_letters("r", "zombie"), Finished);
    }

    #[test]
    fn furthest_of_several_jobs_counts() {
        let job = |state, since| Job { number: Some(1), name: "a-b".into(), owner: "tools.b".into(), state, since };
        let running = |seconds| Presence::Running(Some(Duration::from_secs(seconds)));
        for (jobs, want) in [
            (vec![], Presence::Absent),
            (vec![job(JobState::Finished, None)], Presence::Absent),
            (vec![job(JobState::Failed, None), job(JobState::Pending, None)], Presence::Pending),
            (vec![job(JobState::Running, Some(90)), job(JobState::Pending, None)], running(10)),
            (vec![job(JobState::Deleting, Some(90)), job(JobState::Pending, None)], Presence::Pending),
            (vec![job(JobState::Deleting, Some(90)), job(JobState::Running, Some(90))], running(10)),
            (vec![job(JobState::Deleting, Some(90)), job(JobState::Failed, None)], Presence::Deleting),
            (vec![job(JobState::Running, Some(40)), job(JobState::Running, Some(90))], running(10)),
            (vec![job(JobState::Running, Some(150))], running(0)),
            (vec![job(JobState::Running, None), job(JobState::Running, Some(90))], running(10)),
        ] {
            let jobs = Jobs::new(jobs, 100);
            assert_eq!(jobs.find("tools.b", "a-b"), want);
            assert_eq!(jobs.find("tools.b", "a-c"), Presence::Absent);
            assert_eq!(jobs.find("tools.c", "a-b"), Presence::Absent);
        }
    }
}
