//! Holds back what a complete list lacks, if that is much: a cluster that was wiped looks the same as a large change.

use tokio::time::Instant;
use tracing::{info, warn};

use crate::registry::{GuardSettings, touched_at};

/// What is to be done with the routes that the cluster no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They go.
    Withdraw,
    /// They stay for now.
    Hold,
}

/// Remembers whether it holds, and since when.
#[derive(Debug)]
pub struct Guard {
    settings: Option<GuardSettings>,
    hold: Hold,
    touched_before: Option<std::time::SystemTime>,
}

/// Nothing but time, or the operator, ends a hold; and time passes only while the cluster says that it is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    None,
    /// The cluster does not answer: the time begins anew with its next complete list.
    Paused,
    Since(Instant),
}

impl Guard {
    /// A guard with these settings; without any it lets everything through.
    pub fn new(settings: Option<GuardSettings>) -> Self {
        Self { settings, hold: Hold::None, touched_before: None }
    }

    /// Judges one comparison: of the `live` routes that are registered, the cluster lacks `missing`.
    pub fn judge(&mut self, missing: usize, live: usize, now: Instant) -> Verdict {
        let Some(settings) = &self.settings else { return Verdict::Withdraw };
        if missing == 0 || self.hold == Hold::None && !settings.is_mass(missing as u64, live as u64) {
            if std::mem::replace(&mut self.hold, Hold::None) != Hold::None {
                info!("the cluster has all Services again; nothing was withdrawn");
            }
            return Verdict::Withdraw;
        }
        if self.hold == Hold::None {
            self.touched_before = touched_at(&settings.accept);
            let (hold, accept) = (settings.hold, settings.accept.display());
            warn!(missing, live, ?hold, %accept, "the cluster lacks Services; their routes stay unless that file is touched");
            self.hold = Hold::Since(now);
        }
        let outcome = if self.is_accepted() {
            "accepted by the operator"
        } else if self.has_lasted(now) {
            "held long enough"
        } else {
            return Verdict::Hold;
        };
        warn!(missing, live, outcome, "withdrawing the routes of Services that the cluster lacks");
        self.hold = Hold::None;
        Verdict::Withdraw
    }

    /// The cluster does not answer.
    pub fn pause(&mut self) {
        if self.hold != Hold::None {
            self.hold = Hold::Paused;
        }
    }

    /// The cluster has said again what it has, completely.
    pub fn resume(&mut self, now: Instant) {
        if self.hold == Hold::Paused {
            self.hold = Hold::Since(now);
        }
    }

    /// Somebody else has decided meanwhile: what was held counts no more.
    pub fn forget(&mut self) {
        self.hold = Hold::None;
    }

    fn has_lasted(&self, now: Instant) -> bool {
        let Hold::Since(since) = self.hold else { return false };
        self.settings.as_ref().is_some_and(|settings| now.saturating_duration_since(since) >= settings.hold)
    }

    /// Whether a hold has come to its end, so that a comparison should not wait.
    pub fn is_over(&self, now: Instant) -> bool {
        self.hold != Hold::None && (self.has_lasted(now) || self.is_accepted())
    }

    fn is_accepted(&self) -> bool {
        let touched = self.settings.as_ref().and_then(|settings| touched_at(&settings.accept));
        touched.is_some() && touched != self.touched_before
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn guard(dir: &tempfile::TempDir) -> Guard {
        let hold = Duration::from_secs(60);
        Guard::new(Some(GuardSettings { percent: 50, floor: 20, hold, accept: dir.path().join("accept") }))
    }

    #[test]
    fn most_of_many_is_held_and_the_rest_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let now = Instant::now();
        for (missing, live, verdict) in [
            (19, 19, Verdict::Withdraw),
            (10, 20, Verdict::Withdraw),
            (11, 20, Verdict::Hold),
            (20, 20, Verdict::Hold),
            (0, 20, Verdict::Withdraw),
        ] {
            assert_eq!(guard(&dir).judge(missing, live, now), verdict, "{missing} of {live}");
            assert_eq!(Guard::new(None).judge(missing, live, now), Verdict::Withdraw);
        }
    }

    #[test]
    fn a_hold_ends_with_time_by_the_operator_or_when_all_are_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut guard = guard(&dir);
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(61));
        assert_eq!(guard.judge(20, 20, now), Verdict::Hold);
        assert_eq!(guard.judge(1, 20, now), Verdict::Hold, "what is left of a hold is held");
        assert!(!guard.is_over(now) && guard.is_over(later));
        assert_eq!(guard.judge(1, 20, later), Verdict::Withdraw);
        assert_eq!(guard.judge(20, 20, later), Verdict::Hold, "a new one");
        assert_eq!(guard.judge(0, 20, later), Verdict::Withdraw);
        assert_eq!(guard.judge(20, 20, later), Verdict::Hold);
        std::fs::write(dir.path().join("accept"), "").unwrap();
        assert!(guard.is_over(later));
        assert_eq!(guard.judge(20, 20, later), Verdict::Withdraw);
        assert_eq!(guard.judge(20, 20, later), Verdict::Hold, "accepted once");
    }

    #[test]
    fn time_passes_only_while_the_cluster_answers() {
        let dir = tempfile::tempdir().unwrap();
        let mut guard = guard(&dir);
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(guard.judge(20, 20, now), Verdict::Hold);
        guard.pause();
        assert!(!guard.is_over(after(3600)));
        assert_eq!(guard.judge(20, 20, after(3600)), Verdict::Hold);
        guard.resume(after(3600));
        assert_eq!(guard.judge(20, 20, after(3659)), Verdict::Hold);
        assert_eq!(guard.judge(20, 20, after(3661)), Verdict::Withdraw);
        assert_eq!(guard.judge(20, 20, after(3661)), Verdict::Hold);
        guard.forget();
        assert_eq!(guard.judge(20, 20, after(7200)), Verdict::Hold, "a hold of its own");
        guard.forget();
        guard.resume(after(7200));
        assert!(!guard.is_over(after(9999)));
    }
}
