//! What counts as a mass withdrawal and for how long it is held, and how a directive or a command line says so.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::{Hold, HoldEnd};
use crate::units::parse_duration;

const DEFAULT_PERCENT: u8 = 50;
const DEFAULT_FLOOR: u64 = 20;
const DEFAULT_HOLD: Duration = Duration::from_secs(120);
/// Where a held withdrawal is accepted by default, followed by a name and `.accept`.
const ACCEPT_DIRECTORY: &str = "/run/urlproxy";

/// What is held back, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSettings {
    /// More than so many of a hundred at once are held.
    pub percent: u8,
    /// Fewer are not guarded.
    pub floor: u64,
    /// For how long.
    pub hold: Duration,
    /// Touching this file lets a held withdrawal through at once; names in it let those alone.
    pub accept: PathBuf,
}

impl GuardSettings {
    /// For how long in all, however often the time begins anew.
    pub fn longest_hold(&self) -> Duration {
        self.hold.saturating_mul(2)
    }

    /// Why a hold is over by now, if time has ended it.
    pub(super) fn end_of(&self, hold: Hold, now: Instant) -> Option<HoldEnd> {
        let lasted = now.saturating_duration_since(hold.since?);
        let in_all = now.saturating_duration_since(hold.first);
        if lasted >= self.hold {
            Some(HoldEnd::Lasted)
        } else {
            (in_all >= self.longest_hold()).then_some(HoldEnd::LastedInAll(in_all))
        }
    }
}

/// A guard as it is written: `SHARE% [floor=NUMBER] [hold=TIME] [accept=FILE]`, or `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardOption {
    /// Nothing is held.
    Off,
    /// See [`GuardSettings`].
    On {
        /// From 1 to 100.
        percent: u8,
        /// 20 unless said.
        floor: u64,
        /// 120 s unless said.
        hold: Duration,
        /// An absolute path, if said.
        accept: Option<PathBuf>,
    },
}

/// A word that a guard is not written with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value:?}, expected e.g. {example:?}")]
pub struct GuardOptionError {
    /// What the word should be.
    pub what: &'static str,
    /// The word.
    pub value: String,
    /// A right one.
    pub example: &'static str,
}

impl GuardOption {
    /// What holds unless said otherwise: `50% floor=20 hold=120s`.
    pub const DEFAULT: Self =
        Self::On { percent: DEFAULT_PERCENT, floor: DEFAULT_FLOOR, hold: DEFAULT_HOLD, accept: None };

    /// Reads its words.
    ///
    /// # Errors
    /// The first that is wrong; the empty text if there is none.
    pub fn from_words<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Self, GuardOptionError> {
        let mut words = words.into_iter().peekable();
        let share = words.next().unwrap_or_default();
        if share == "off" && words.peek().is_none() {
            return Ok(Self::Off);
        }
        let invalid = |what, value: &str, example| GuardOptionError { what, value: value.to_owned(), example };
        let percent = share.strip_suffix('%').and_then(|number| number.parse().ok());
        let percent = percent.filter(|percent| (1..=100).contains(percent));
        let percent = percent.ok_or_else(|| invalid("percentage", share, "50%"))?;
        let (mut floor, mut hold, mut accept) = (DEFAULT_FLOOR, DEFAULT_HOLD, None);
        for word in words {
            let wrong = || invalid("parameter", word, "floor=20 hold=120s accept=/run/urlproxy/tools.accept");
            match word.split_once('=').ok_or_else(wrong)? {
                ("floor", value) => floor = value.parse().map_err(|_| wrong())?,
                ("hold", value) => hold = parse_duration(value).ok_or_else(wrong)?,
                ("accept", value) => {
                    let path =
                        Some(PathBuf::from(value)).filter(|path| path.is_absolute() && path.file_name().is_some());
                    let wrong = || invalid("path (absolute)", value, "accept=/run/urlproxy/tools.accept");
                    accept = Some(path.ok_or_else(wrong)?);
                }
                _ => return Err(wrong()),
            }
        }
        Ok(Self::On { percent, floor, hold, accept })
    }

    /// What it means; `None` for no guard. The file to accept with is `/run/urlproxy/<owner>.accept` unless said.
    pub fn into_settings(self, owner: &str) -> Option<GuardSettings> {
        let Self::On { percent, floor, hold, accept } = self else { return None };
        let accept = accept.unwrap_or_else(|| Path::new(ACCEPT_DIRECTORY).join(format!("{owner}.accept")));
        Some(GuardSettings { percent, floor, hold, accept })
    }
}

impl FromStr for GuardOption {
    type Err = GuardOptionError;

    fn from_str(text: &str) -> Result<Self, GuardOptionError> {
        Self::from_words(text.split_whitespace())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_is_read() {
        let guard = |percent, floor, hold, accept: Option<&str>| {
            Ok(GuardOption::On { percent, floor, hold: Duration::from_secs(hold), accept: accept.map(PathBuf::from) })
        };
        for (text, want) in [
            ("off", Ok(GuardOption::Off)),
            ("50%", Ok(GuardOption::DEFAULT)),
            ("7%", guard(7, 20, 120, None)),
            (" 50%  floor=0 hold=3s accept=/x ", guard(50, 0, 3, Some("/x"))),
            ("100% hold=1h30m", guard(100, 20, 5400, None)),
            ("50% hold=0", guard(50, 20, 0, None)),
        ] {
            assert_eq!(text.parse::<GuardOption>(), want, "{text}");
        }
    }

    #[test]
    fn a_wrong_word_is_named() {
        for (text, what, value) in [
            ("", "percentage", ""),
            ("50", "percentage", "50"),
            ("0%", "percentage", "0%"),
            ("101%", "percentage", "101%"),
            ("off floor=1", "percentage", "off"),
            ("50% floor=x", "parameter", "floor=x"),
            ("50% hold=soon", "parameter", "hold=soon"),
            ("50% what", "parameter", "what"),
            ("50% ceiling=1", "parameter", "ceiling=1"),
            ("50% accept=x", "path (absolute)", "x"),
            ("50% accept=/", "path (absolute)", "/"),
        ] {
            let error = text.parse::<GuardOption>().unwrap_err();
            assert_eq!((error.what, &*error.value), (what, value), "{text}");
            assert!(error.to_string().contains(", expected e.g. \""), "{error}");
        }
    }

    #[test]
    fn the_file_to_accept_with_has_its_owner_s_name() {
        let accept = |option: GuardOption| option.into_settings("tools").unwrap().accept;
        assert_eq!(accept(GuardOption::DEFAULT), Path::new("/run/urlproxy/tools.accept"));
        assert_eq!(accept("1% accept=/x/y".parse().unwrap()), Path::new("/x/y"));
        assert_eq!(GuardOption::Off.into_settings("tools"), None);
    }
}
