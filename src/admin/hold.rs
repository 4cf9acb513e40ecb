//! The removal that the withdrawal guard holds back.

use serde::Serialize;

use super::about::About;
use crate::table::Header;

/// A removal that is held back.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Held {
    /// Number of records.
    pub records: u64,
    /// Unix seconds of the beginning.
    pub since: f64,
    /// Unix seconds of the end; unknown while the source does not answer.
    pub ends_at: Option<f64>,
    /// The file that ends the hold.
    pub accept_file: String,
}

/// The hold of the withdrawal guard, if there is one.
pub fn held(about: &About, header: &Header) -> Option<Held> {
    let (records, guard) = (header.held(), about.guard.as_ref()?);
    if records == 0 {
        return None;
    }
    let now = about.now / 1000;
    let at = |monotonic: u64| (now + monotonic).saturating_sub(about.monotonic_seconds) as f64;
    let first = header.held_first().unwrap_or(about.monotonic_seconds);
    let ends_at = header.held_since().map(|since| {
        let latest = first.saturating_add(guard.longest.as_secs());
        at(since.saturating_add(guard.hold.as_secs()).min(latest))
    });
    Some(Held { records, since: at(first), ends_at, accept_file: guard.accept_file.display().to_string() })
}

/// When the hold of the withdrawal guard ends, in Unix seconds.
pub fn hold_end(about: &About, header: &Header) -> Option<f64> {
    held(about, header)?.ends_at
}
