//! What counts as a mass withdrawal: an emptied store, or a list that lacks most of it, looks the same as a large change.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

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
    /// Whether it is a mass withdrawal that `missing` of `live` are to go. The loss of all is always more than any share.
    pub fn is_mass(&self, missing: u64, live: u64) -> bool {
        live >= self.floor && (missing * 100 > live * u64::from(self.percent) || missing >= live)
    }

    /// For how long in all, however often the time begins anew.
    pub fn longest_hold(&self) -> Duration {
        self.hold.saturating_mul(2)
    }
}

/// When a file was last touched; `None` without one.
pub fn touched_at(path: &Path) -> Option<SystemTime> {
    fs::symlink_metadata(path).and_then(|metadata| metadata.modified()).ok()
}
