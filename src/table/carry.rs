//! Copies a table into a zone of another size, before the new zone serves requests.

use super::atomic::{Edge, Ordering::Relaxed, release};

use super::reader::Scratch;
use super::writer::{PublishError, Writer};
use super::{Table, Tally};
use crate::route::RouteKey;

/// Copies all records of `from`, which may be written meanwhile, into `to`, which is not in use yet: routes, counters and the
/// state of the source. Returns the number of tools. The next scan repairs changes missed here, and records too large for a
/// smaller zone.
///
/// # Errors
/// [`PublishError::TableFull`] if `to` is too small; `to` is then incomplete.
pub fn carry_over(from: Table<'_>, to: Table<'_>) -> Result<u64, PublishError> {
    let (mut writer, _) = Writer::attach(to);
    let mut scratch = Scratch::default();
    let mut outcome = Ok(());
    from.for_each(&mut scratch, |record| {
        let Ok(key) = RouteKey::from_table(record.key()) else { return };
        let tally = from.counters(record.counters()).map_or_else(Tally::default, |line| line.tally());
        if outcome.is_ok() {
            outcome = match writer.adopt(&key, &record, &tally) {
                Ok(_) | Err(PublishError::TooLarge { .. }) => Ok(()),
                Err(error) => Err(error),
            };
        }
    });
    outcome?;
    let words = [
        (&from.header.synced_at, &to.header.synced_at),
        (&from.header.in_step_at, &to.header.in_step_at),
        (&from.header.rejected, &to.header.rejected),
        (&from.header.held, &to.header.held),
        (&from.header.held_since, &to.header.held_since),
        (&from.header.held_first, &to.header.held_first),
        (&from.header.known, &to.header.known),
    ];
    words.iter().for_each(|(from, to)| to.store(from.load(Relaxed), Relaxed));
    to.header.loaded.store(from.header.loaded.load(Relaxed), release(Edge::E5));
    Ok(to.header().live_tools())
}
