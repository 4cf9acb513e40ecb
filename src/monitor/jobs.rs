//! The jobs on the grid, and what there is of each tool's.

use std::collections::HashMap;
use std::time::Duration;

/// What a job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobState {
    /// Gone; it is only remembered.
    Over,
    /// The grid could not start it, and will not try again.
    Failed,
    /// It is being deleted, whether it runs or waits: neither there for long, nor gone. One on a host that is down stays so.
    Deleting,
    /// It waits for a place, or nobody knows.
    Pending,
    /// On a host, if suspended.
    Running,
}

/// A job, or some tasks of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// What it is called.
    pub name: String,
    /// Whose it is.
    pub owner: String,
    /// What it does.
    pub state: JobState,
    /// Since when it runs, in Unix seconds.
    pub since: Option<u64>,
}

/// What there is of a tool's job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// None.
    Absent,
    /// In error state.
    Failed,
    /// Is being deleted.
    Deleting,
    /// Waits.
    Pending,
    /// Runs, for so long if that is known.
    Running(Option<Duration>),
}

/// All jobs by owner and name.
#[derive(Debug, Default)]
pub struct Jobs {
    by_owner: HashMap<(String, String), Presence>,
}

impl Jobs {
    /// Of several jobs of one owner and name the one that is further counts; of those that run the youngest.
    pub fn new(jobs: Vec<Job>, now: u64) -> Self {
        let mut all = Self::default();
        for job in jobs {
            // A start in the future is another host's clock: it has just begun, for all that is known.
            let presence = match job.state {
                JobState::Over => continue,
                JobState::Failed => Presence::Failed,
                JobState::Deleting => Presence::Deleting,
                JobState::Pending => Presence::Pending,
                JobState::Running => {
                    Presence::Running(job.since.map(|since| Duration::from_secs(now.saturating_sub(since))))
                }
            };
            let known = all.by_owner.entry((job.owner, job.name)).or_insert(presence);
            *known = further(*known, presence);
        }
        all
    }

    /// What there is of that owner and name.
    pub fn find(&self, owner: &str, name: &str) -> Presence {
        self.by_owner.get(&(owner.to_owned(), name.to_owned())).copied().unwrap_or(Presence::Absent)
    }
}

fn further(one: Presence, other: Presence) -> Presence {
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
    /// T(hreshold), w(aiting), z(ombie); `group` is what they are listed under.
    pub(super) fn of(letters: &str, group: &str) -> Self {
        let has = |any: &str| letters.contains(|letter| any.contains(letter));
        match () {
            () if has("z") || group == "zombie" => Self::Over,
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
    fn every_state_has_its_meaning() {
        use JobState::{Deleting, Failed, Over, Pending, Running};
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
            ("z", Over),
            ("?", Pending),
        ] {
            assert_eq!(JobState::of(letters, ""), want, "{letters}");
        }
        assert_eq!(JobState::of("", "running"), Running);
        assert_eq!(JobState::of("", "pending"), Pending);
        assert_eq!(JobState::of("r", "zombie"), Over);
    }

    #[test]
    fn of_several_jobs_the_one_that_is_further_counts() {
        let job = |state, since| Job { name: "a-b".into(), owner: "tools.b".into(), state, since };
        let running = |seconds| Presence::Running(Some(Duration::from_secs(seconds)));
        for (jobs, want) in [
            (vec![], Presence::Absent),
            (vec![job(JobState::Over, None)], Presence::Absent),
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
