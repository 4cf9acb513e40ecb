//! Holds back what a daemon's source lacks, if that is much: a source that was wiped looks the same as a large change.

use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::usage::parse_duration;
use crate::registry::{AcceptFile, Accepted, GuardSettings, Names};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They go.
    Withdraw,
    /// They stay for now.
    Hold,
    /// Those under these keys of the store go, all others stay for now.
    WithdrawOnly(Names),
}

/// Remembers whether it holds, and since when.
#[derive(Debug)]
pub struct Guard {
    settings: Option<GuardSettings>,
    words: &'static GuardWords,
    hold: Hold,
    /// When the hold first began, however often its time has begun anew.
    first: Option<Instant>,
    accept: Option<Acceptance>,
}

/// What the operator has said since this was made, by touching a file.
#[derive(Debug)]
pub struct Acceptance(AcceptFile);

impl Acceptance {
    /// Waits for this file to be touched.
    pub fn of(file: &Path) -> Self {
        Self(AcceptFile::new(file))
    }

    /// Whether the file was touched, and has not changed for a moment.
    pub fn is_given(&mut self, now: Instant) -> bool {
        self.0.is_ready(now.into_std())
    }

    /// What the file accepts, once for each time that it is touched. One that accepts nothing is logged.
    pub fn take(&mut self, now: Instant) -> Option<Accepted> {
        let accepted = self.0.take(now.into_std())?;
        let log =
            |error| warn!(accept = %self.0.path().display(), %error, "the file accepts nothing; everything stays");
        accepted.map_err(log).ok()
    }

    /// Logs names in the file that are not among `keys`.
    pub fn log_others<'k>(&self, names: &Names, keys: impl IntoIterator<Item = &'k [u8]>) {
        let others = names.beyond(keys);
        if !others.is_empty() {
            let accept = self.0.path().display();
            warn!(%accept, names = %others, "the file names what is not held back; that stays as it is");
        }
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
        Self { settings, words, hold: Hold::None, first: None, accept: None }
    }

    /// Judges one comparison: of the `live` routes that are registered, the source lacks those under the keys `lacking`, which
    /// are so many as there are routes.
    pub fn judge(&mut self, lacking: &[Vec<u8>], live: usize, now: Instant) -> Verdict {
        let Some(settings) = &self.settings else { return Verdict::Withdraw };
        let missing = lacking.len();
        if missing == 0 || self.hold == Hold::None && !settings.is_mass(missing as u64, live as u64) {
            if std::mem::replace(&mut self.hold, Hold::None) != Hold::None {
                info!("{}", self.words.has_all);
            }
            return Verdict::Withdraw;
        }
        if self.hold == Hold::None {
            self.accept = Some(Acceptance::of(&settings.accept));
            let (hold, at_most, accept) = (settings.hold, settings.longest_hold(), settings.accept.display());
            warn!(missing, live, ?hold, ?at_most, %accept, "{}", self.words.lacks);
            self.hold = Hold::Since(now);
            self.first = Some(now);
        }
        let outcome = match self.accept.as_mut().and_then(|file| file.take(now)) {
            Some(Accepted::All) => "accepted by the operator",
            _ if self.has_lasted(now) => "held long enough",
            _ if self.has_lasted_in_all(now) => "held long enough in all, silence of the source included",
            Some(Accepted::Only(names)) => {
                self.accept.iter().for_each(|file| file.log_others(&names, lacking.iter().map(Vec::as_slice)));
                let going = lacking.iter().filter(|key| names.contains(key)).count();
                if going > 0 {
                    let (outcome, held) = ("named by the operator", missing - going);
                    warn!(missing = going, live, outcome, held, "{}", self.words.withdrawing);
                }
                if going == missing {
                    self.hold = Hold::None;
                }
                return Verdict::WithdrawOnly(names);
            }
            None => return Verdict::Hold,
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

    /// It ends even if the time begins anew again and again, with the next list.
    fn has_lasted_in_all(&self, now: Instant) -> bool {
        let (Hold::Since(_), Some(first)) = (self.hold, self.first) else { return false };
        self.settings.as_ref().is_some_and(|settings| now.saturating_duration_since(first) >= settings.longest_hold())
    }

    fn has_lasted(&self, now: Instant) -> bool {
        let Hold::Since(since) = self.hold else { return false };
        self.settings.as_ref().is_some_and(|settings| now.saturating_duration_since(since) >= settings.hold)
    }

    /// Whether a hold has come to its end, so that a comparison should not wait.
    pub fn is_over(&mut self, now: Instant) -> bool {
        self.hold != Hold::None
            && (self.has_lasted(now)
                || self.has_lasted_in_all(now)
                || self.accept.as_mut().is_some_and(|file| file.is_given(now)))
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

    fn judge(guard: &mut Guard, missing: usize, live: usize, now: Instant) -> Verdict {
        let keys: Vec<_> = (0..missing).map(|n| format!("prefix:t{n}").into_bytes()).collect();
        guard.judge(&keys, live, now)
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
            assert_eq!(judge(&mut guard(&dir), missing, live, now), verdict, "{missing} of {live}");
            assert_eq!(judge(&mut Guard::new(None, &WORDS), missing, live, now), Verdict::Withdraw);
        }
    }

    #[test]
    fn a_hold_ends_with_time_by_the_operator_or_when_all_are_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut guard = guard(&dir);
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(61));
        assert_eq!(judge(&mut guard, 20, 20, now), Verdict::Hold);
        assert_eq!(judge(&mut guard, 1, 20, now), Verdict::Hold, "what is left of a hold is held");
        assert!(!guard.is_over(now) && guard.is_over(later));
        assert_eq!(judge(&mut guard, 1, 20, later), Verdict::Withdraw);
        assert_eq!(judge(&mut guard, 20, 20, later), Verdict::Hold, "a new one");
        assert_eq!(judge(&mut guard, 0, 20, later), Verdict::Withdraw);
        assert_eq!(judge(&mut guard, 20, 20, later), Verdict::Hold);
        let accept = dir.path().join("accept");
        let settled = later + Duration::from_secs(1);
        std::fs::write(&accept, "t1\nt2\nt20\n").unwrap();
        assert!(!guard.is_over(later) && guard.is_over(settled));
        let Verdict::WithdrawOnly(names) = judge(&mut guard, 20, 20, settled) else { panic!("not those alone") };
        assert!(names.contains(b"prefix:t2") && !names.contains(b"prefix:t3"));
        assert_eq!(judge(&mut guard, 18, 18, settled), Verdict::Hold, "the others");
        std::fs::write(&accept, "").unwrap();
        assert!(!guard.is_over(later) && guard.is_over(settled));
        assert_eq!(judge(&mut guard, 18, 18, settled), Verdict::Withdraw);
        assert_eq!(judge(&mut guard, 20, 20, settled), Verdict::Hold, "accepted once");
    }

    #[test]
    fn time_begins_anew_when_the_source_answers_again_but_not_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let mut guard = guard(&dir);
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!(judge(&mut guard, 20, 20, now), Verdict::Hold);
        guard.pause();
        assert!(!guard.is_over(after(50)));
        guard.resume(after(50));
        assert!(!guard.is_over(after(109)) && guard.is_over(after(110)), "60 s after that");
        for second in (59..119).step_by(20) {
            guard.pause();
            assert!(!guard.is_over(after(3600)), "nothing is known while the source does not answer");
            guard.resume(after(second));
            assert_eq!(judge(&mut guard, 20, 20, after(second)), Verdict::Hold);
        }
        assert!(!guard.is_over(after(119)) && guard.is_over(after(120)), "twice 60 s in all");
        assert_eq!(judge(&mut guard, 20, 20, after(120)), Verdict::Withdraw);
        assert_eq!(judge(&mut guard, 20, 20, after(121)), Verdict::Hold);
        guard.forget();
        assert_eq!(judge(&mut guard, 20, 20, after(7200)), Verdict::Hold, "a hold of its own");
        assert!(!guard.is_over(after(7259)));
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
