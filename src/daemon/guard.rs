//! Holds back what a daemon's source lacks, if that is much: a source that was wiped looks the same as a large change.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::{info, warn};

use super::usage::parse_duration;
use crate::registry::{GuardSettings, touched_at};

/// What a command line says of it; `None` is no guard. A type of its own: clap would take an `Option` for an option left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardOption(pub Option<GuardSettings>);

impl GuardOption {
    /// Reads `SHARE% [floor=NUMBER] [hold=TIME] [accept=FILE]` or `off`; the file is `/run/urlproxy/<daemon>.accept` unless said.
    ///
    /// # Errors
    /// Anything else, shown beside an example of a right one.
    pub fn parse(text: &str, daemon: &str) -> Result<Self, String> {
        let default_accept = format!("/run/urlproxy/{daemon}.accept");
        let example = format!("expected e.g. \"50% floor=20 hold=120s accept={default_accept}\", or \"off\"");
        let mut words = text.split_whitespace();
        let share = words.next().unwrap_or_default();
        if text == "off" {
            return Ok(Self(None));
        }
        let percent =
            share.strip_suffix('%').and_then(|number| number.parse().ok()).filter(|share| (1..=100).contains(share));
        let percent = percent.ok_or_else(|| format!("invalid share {share:?}, {example}"))?;
        let (floor, hold) = (20, Duration::from_secs(120));
        let mut settings = GuardSettings { percent, floor, hold, accept: default_accept.into() };
        for word in words {
            let invalid = || format!("invalid parameter {word:?}, {example}");
            match word.split_once('=').ok_or_else(invalid)? {
                ("floor", value) => settings.floor = value.parse().map_err(|_| invalid())?,
                ("hold", value) => settings.hold = parse_duration(value).map_err(|_| invalid())?,
                ("accept", value) if value.starts_with('/') => settings.accept = value.into(),
                _ => return Err(invalid()),
            }
        }
        Ok(Self(Some(settings)))
    }
}

/// A daemon's words for what its guard does.
#[derive(Debug)]
pub struct GuardWords {
    /// The source lacks what Redis has.
    pub lacks: &'static str,
    /// It does no more.
    pub has_all: &'static str,
    /// What it lacks goes.
    pub withdrawing: &'static str,
}

/// What is to be done with the routes that the source no longer has.
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
    words: &'static GuardWords,
    hold: Hold,
    accept: Option<Acceptance>,
}

/// Whether the operator has touched a file since this was made.
#[derive(Debug)]
pub struct Acceptance {
    file: PathBuf,
    touched_before: Option<SystemTime>,
}

impl Acceptance {
    /// Waits for this file to be touched.
    pub fn of(file: &Path) -> Self {
        Self { file: file.to_owned(), touched_before: touched_at(file) }
    }

    /// It was.
    pub fn is_given(&self) -> bool {
        let touched = touched_at(&self.file);
        touched.is_some() && touched != self.touched_before
    }
}

/// Nothing but time, or the operator, ends a hold; and time passes only while the source says that it is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hold {
    None,
    /// The source does not answer: the time begins anew with its next complete list.
    Paused,
    Since(Instant),
}

impl Guard {
    /// A guard with these settings; without any it lets everything through.
    pub fn new(settings: Option<GuardSettings>, words: &'static GuardWords) -> Self {
        Self { settings, words, hold: Hold::None, accept: None }
    }

    /// Judges one comparison: of the `live` routes that are registered, the source lacks `missing`.
    pub fn judge(&mut self, missing: usize, live: usize, now: Instant) -> Verdict {
        let Some(settings) = &self.settings else { return Verdict::Withdraw };
        if missing == 0 || self.hold == Hold::None && !settings.is_mass(missing as u64, live as u64) {
            if std::mem::replace(&mut self.hold, Hold::None) != Hold::None {
                info!("{}", self.words.has_all);
            }
            return Verdict::Withdraw;
        }
        if self.hold == Hold::None {
            self.accept = Some(Acceptance::of(&settings.accept));
            let (hold, accept) = (settings.hold, settings.accept.display());
            warn!(missing, live, ?hold, %accept, "{}", self.words.lacks);
            self.hold = Hold::Since(now);
        }
        let outcome = if self.is_accepted() {
            "accepted by the operator"
        } else if self.has_lasted(now) {
            "held long enough"
        } else {
            return Verdict::Hold;
        };
        warn!(missing, live, outcome, "{}", self.words.withdrawing);
        self.hold = Hold::None;
        Verdict::Withdraw
    }

    /// The source does not answer.
    pub fn pause(&mut self) {
        if self.hold != Hold::None {
            self.hold = Hold::Paused;
        }
    }

    /// The source has said again what it has, completely.
    pub fn resume(&mut self, now: Instant) {
        if self.hold == Hold::Paused {
            self.hold = Hold::Since(now);
        }
    }

    /// Somebody else has decided meanwhile: what was held counts no more.
    pub fn forget(&mut self) {
        self.hold = Hold::None;
    }

    /// Whether it holds something now.
    pub fn is_holding(&self) -> bool {
        self.hold != Hold::None
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
        self.accept.as_ref().is_some_and(Acceptance::is_given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: GuardWords = GuardWords { lacks: "lacks", has_all: "has all", withdrawing: "withdrawing" };

    fn guard(dir: &tempfile::TempDir) -> Guard {
        let hold = Duration::from_secs(60);
        Guard::new(Some(GuardSettings { percent: 50, floor: 20, hold, accept: dir.path().join("accept") }), &WORDS)
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
            assert_eq!(Guard::new(None, &WORDS).judge(missing, live, now), Verdict::Withdraw);
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
    fn time_passes_only_while_the_source_answers() {
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

    #[test]
    fn options_are_read() {
        let parse = |text: &str| GuardOption::parse(text, "a");
        let guard = |percent, floor, seconds, accept: &str| {
            let (hold, accept) = (Duration::from_secs(seconds), accept.into());
            Ok(GuardOption(Some(GuardSettings { percent, floor, hold, accept })))
        };
        assert_eq!(parse("off"), Ok(GuardOption(None)));
        assert_eq!(parse("7%"), guard(7, 20, 120, "/run/urlproxy/a.accept"));
        assert_eq!(parse(" 50%  floor=0 hold=3s accept=/x "), guard(50, 0, 3, "/x"));
        for text in ["", "50", "0%", "101%", "50% floor=x", "50% hold=0s", "50% accept=x", "50% what", "off floor=1"] {
            assert!(parse(text).unwrap_err().contains("expected e.g."), "{text}");
        }
    }
}
