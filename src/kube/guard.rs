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

/// Remembers since when it holds.
#[derive(Debug)]
pub struct Guard {
    settings: Option<GuardSettings>,
    since: Option<Instant>,
    touched_before: Option<std::time::SystemTime>,
}

impl Guard {
    /// A guard with these settings; without any it lets everything through.
    pub fn new(settings: Option<GuardSettings>) -> Self {
        Self { settings, since: None, touched_before: None }
    }

    /// Judges one comparison: of the `live` routes that are registered, the cluster lacks `missing`.
    pub fn judge(&mut self, missing: usize, live: usize, now: Instant) -> Verdict {
        let Some(settings) = &self.settings else { return Verdict::Withdraw };
        if missing == 0 || self.since.is_none() && !settings.is_mass(missing as u64, live as u64) {
            if self.since.take().is_some() {
                info!("the cluster has all Services again; nothing was withdrawn");
            }
            return Verdict::Withdraw;
        }
        let since = match self.since {
            Some(since) => since,
            None => {
                self.touched_before = touched_at(&settings.accept);
                let (hold, accept) = (settings.hold, settings.accept.display());
                warn!(missing, live, ?hold, %accept, "the cluster lacks Services; their routes stay unless that file is touched");
                *self.since.insert(now)
            }
        };
        let outcome = if self.is_accepted() {
            "accepted by the operator"
        } else if now.saturating_duration_since(since) >= settings.hold {
            "held long enough"
        } else {
            return Verdict::Hold;
        };
        warn!(missing, live, outcome, "withdrawing the routes of Services that the cluster lacks");
        self.since = None;
        Verdict::Withdraw
    }

    /// Whether a hold has come to its end, so that a comparison should not wait.
    pub fn is_over(&self, now: Instant) -> bool {
        let (Some(since), Some(settings)) = (self.since, &self.settings) else { return false };
        now.saturating_duration_since(since) >= settings.hold || self.is_accepted()
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
}
