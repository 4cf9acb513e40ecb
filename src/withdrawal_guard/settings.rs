//! Settings of the withdrawal guard, and their notation in directives and on command lines.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::{Hold, HoldEnd};
use crate::units::parse_duration;

const DEFAULT_PERCENT: u8 = 50;
const DEFAULT_FLOOR: u64 = 20;
const DEFAULT_HOLD: Duration = Duration::from_secs(120);
/// Directory of the default accept files, `<owner>.accept`.
pub const ACCEPT_DIRECTORY: &str = "/run/urlproxy";

/// Which losses are held, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardSettings {
    /// A loss of more than this percentage at once is held.
    pub percent: u8,
    /// Fewer records are not guarded.
    pub floor: u64,
    /// How long a loss is held.
    pub hold: Duration,
    /// Touching this file ends a hold at once; names in it release those records alone.
    pub accept: PathBuf,
}

impl GuardSettings {
    /// The longest total time of a hold, however often its clock restarts.
    pub fn longest_hold(&self) -> Duration {
        self.hold.saturating_mul(2)
    }

    /// Why a hold has ended by `now`, if its time has passed.
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

/// A guard as written: `SHARE% [floor=NUMBER] [hold=TIME] [accept=FILE]`, or `off`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuardOption {
    /// No guard.
    Off,
    /// The fields of [`GuardSettings`].
    On {
        /// From 1 to 100.
        percent: u8,
        /// 20 by default.
        floor: u64,
        /// 120 s by default.
        hold: Duration,
        /// An absolute path.
        accept: Option<PathBuf>,
    },
}

/// An invalid word in a guard's notation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value:?}, expected e.g. {example:?}")]
pub struct GuardOptionError {
    /// What the word should be, e.g. "percentage".
    pub what: &'static str,
    /// The invalid word.
    pub value: String,
    /// A valid example.
    pub example: &'static str,
}

impl GuardOption {
    /// The default: `50% floor=20 hold=120s`.
    pub const DEFAULT: Self =
        Self::On { percent: DEFAULT_PERCENT, floor: DEFAULT_FLOOR, hold: DEFAULT_HOLD, accept: None };

    /// Parses the words of a guard.
    ///
    /// # Errors
    /// The first invalid word; the empty text if there is no word.
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

    /// The settings; `None` for `off`. The accept file is `/run/urlproxy/<owner>.accept` by default.
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
    fn guards_are_parsed() {
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
    fn errors_name_the_invalid_word() {
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
    fn default_accept_file_is_named_after_the_owner() {
        let accept = |option: GuardOption| option.into_settings("tools").unwrap().accept;
        assert_eq!(accept(GuardOption::DEFAULT), Path::new("/run/urlproxy/tools.accept"));
        assert_eq!(accept("1% accept=/x/y".parse().unwrap()), Path::new("/x/y"));
        assert_eq!(GuardOption::Off.into_settings("tools"), None);
    }
}
