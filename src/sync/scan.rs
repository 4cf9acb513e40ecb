//! From Redis to the table: the full scan, and the refresh of single keys.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use redis::cmd;

use super::build_queue::BuildQueue;
use super::change_log::ChangeLog;
use super::deferred::DeferredKeys;
use super::digest_cache::DigestCache;
use super::journal::{Journal, Level};
use super::oversized::Oversized;
use super::pace::Pace;
use super::rejected::{Rejected, rejection};
use super::stop::StopCheck;
use super::table_guard::TableGuard;
use crate::clock;
use crate::redis_client::{Connection, ConnectionError, Invalidation, RedisUrl, Reply, Timeouts};
use crate::registry::{self, Admission, RawRoutes, RejectionReason, parse_key};
use crate::route::Kind;
use crate::table::Writer;

/// Keys per pipeline: enough to hide the round trip, few enough that the replies fit any socket buffer.
const BATCH: usize = 500;

/// An oversized key is fetched again when Redis needs no more memory for it than this.
const MAX_KEY_BYTES: i64 = 1 << 20;

/// Timeouts for a key that is fetched alone, while all others wait.
const ISOLATED_TIMEOUTS: Timeouts =
    Timeouts { connect: Duration::from_secs(1), silence: Duration::from_secs(2), reply: Duration::from_secs(2) };
/// Bytes of a key that a log line shows.
const SHOWN_BYTES: usize = 120;

/// Commands that fetch a hash's fields, check that a hash exists, and fetch a set's members.
const HASH: &str = "HGETALL";
const LENGTH: &str = "HLEN";
const SET: &str = "SMEMBERS";

/// Why a scan failed. The table keeps its routes.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("unexpected reply {reply} to {command}")]
    Reply { command: &'static str, reply: String },
}

/// The result of a scan, in records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub tools: u64,
    pub inserted: u64,
    pub replaced: u64,
    pub withdrawn: u64,
    /// Records that are missing from the source but held.
    pub held: u64,
    /// The source was flushed during the scan, which must be repeated.
    pub is_flushed: bool,
}

/// The result of one reply.
#[derive(PartialEq)]
enum ReplyOutcome {
    Applied,
    OtherType,
    /// The key does not exist.
    Absent,
}

/// Keys without an applicable value.
#[derive(Default)]
struct Unapplied {
    /// Keys of another type than the command expects.
    other_type: Vec<Vec<u8>>,
    absent: Vec<Vec<u8>>,
}

/// Reconciles the table with the source: everything that a reply may change.
pub(super) struct Reconciler<'w> {
    pub writer: Writer<'w>,
    pub rejected: Rejected,
    pub admission: Admission,
    pub guard: TableGuard,
    oversized: Oversized,
    /// Keys that the running scan has found, as far as they may have rejections.
    pub(super) found_keys: HashSet<Box<[u8]>>,
    pub(super) changes: Changes,
    /// Keys that wait for a costly build.
    pub(super) build_queue: BuildQueue,
    /// Whether the current fetch serves a key of the build queue.
    pub(super) is_turn: bool,
    /// Whether the current fetch serves a scan, so that its keys need not have changed.
    pub(super) is_comparing: bool,
    pub(super) digests: DigestCache,
    pub(super) deferred: DeferredKeys,
    pub(super) change_log: ChangeLog,
    /// No push that is not applied yet was received before this.
    pub(super) pushed_at: Instant,
    /// By kind, whether the running scan found keys that our Redis user may not read.
    hidden: [bool; Kind::ALL.len()],
    /// A scan has completed on this connection, and no flush was pushed since.
    pub(super) is_in_step: bool,
}

impl<'w> Reconciler<'w> {
    pub fn new(writer: Writer<'w>, admission: Admission, guard: TableGuard) -> Self {
        Self {
            writer,
            rejected: Rejected::default(),
            admission,
            guard,
            oversized: Oversized::default(),
            found_keys: HashSet::new(),
            changes: Changes::default(),
            build_queue: BuildQueue::default(),
            is_turn: false,
            is_comparing: false,
            digests: DigestCache::default(),
            deferred: DeferredKeys::default(),
            change_log: ChangeLog::default(),
            pushed_at: Instant::now(),
            hidden: [false; Kind::ALL.len()],
            is_in_step: false,
        }
    }

    /// The kinds that the last scan read completely.
    pub fn known(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().zip(self.hidden).filter(|(_, is_hidden)| !is_hidden).map(|(kind, _)| kind).collect()
    }

    /// Records in the header that the source has answered and all earlier pushes are applied.
    pub fn note_in_step(&mut self) {
        if self.is_in_step {
            self.writer.note_in_step(clock::unix_seconds());
        }
    }

    /// Compares the whole table with the source: publishes new and changed routes, then withdraws missing ones unless the
    /// guard holds them.
    pub fn scan(&mut self, connection: &mut Connection<'_>, journal: &Journal) -> Result<Changes, ScanError> {
        let outcome = self.compare(connection, journal);
        self.is_comparing = false;
        outcome
    }

    fn compare(&mut self, connection: &mut Connection<'_>, journal: &Journal) -> Result<Changes, ScanError> {
        // Pushes from before the scan must not disturb it.
        self.catch_up(connection)?;
        self.changes = Changes::default();
        self.found_keys.clear();
        self.digests.age();
        self.hidden = Default::default();
        self.writer.begin_sweep();
        let live = Kind::ALL.map(|kind| self.writer.table().header().live(kind));
        self.weigh_oversized(connection)?;
        let mut is_flushed = false;
        connection.send(&scan_command(b"0"))?;
        let mut page = receive_page(connection)?;
        let mut pace = Pace::new();
        loop {
            page.keys.retain(|key| !self.is_oversized(key) && !self.is_slow(key));
            // The next page is requested behind this page's keys, so that the server works on it meanwhile.
            let next_wanted = page.cursor != b"0";
            let mut wire = pack(first_command, &page.keys);
            if next_wanted {
                wire.extend(scan_command(&page.cursor));
            }
            pace.ask();
            connection.send(&wire)?;
            self.is_comparing = true;
            let others = self.receive(connection, first_command, &page.keys)?;
            let next = if next_wanted { Some(receive_page(connection)?) } else { None };
            pace.answered();
            self.fetch_others(connection, &others.other_type)?;
            // Changes must not wait for the end of a long scan.
            is_flushed |= !self.catch_up(connection)?;
            self.note_in_step();
            is_flushed |= !self.give_way(connection, &mut pace)?;
            match next {
                Some(next) => page = next,
                None => break,
            }
        }
        // SCAN may miss a key that moved while it ran: keys it did not return are fetched by name.
        let unseen: Vec<Vec<u8>> = self.writer.unseen().iter().map(registry::key_of).collect();
        for keys in unseen.chunks(BATCH) {
            self.is_comparing = true;
            pace.ask();
            self.fetch(connection, keys)?;
            pace.answered();
            is_flushed |= !self.give_way(connection, &mut pace)?;
        }
        // Keys still unseen do not exist. A key that was deleted after the scan saw it has come as a push.
        let missing = self.writer.unseen();
        is_flushed |= connection.is_flush_pending();
        // A flush in mid-scan: some keys were seen before it. The next scan, at once, sees how many are missing.
        if !is_flushed {
            let verdict = self.guard.judge(&mut self.writer, &missing, live, journal);
            for key in missing.iter().map(registry::key_of) {
                if verdict.withdraws(&key) {
                    self.withdraw(&key, Vec::new());
                } else {
                    self.changes.held += 1;
                }
            }
        }
        let found_keys = std::mem::take(&mut self.found_keys);
        self.rejected.retain(|key| found_keys.contains(key));
        self.changes.tools = self.writer.table().header().live_tools();
        self.changes.is_flushed = is_flushed;
        Ok(self.changes)
    }

    /// Applies received pushes; `false` if one reports a flush.
    pub fn catch_up(&mut self, connection: &mut Connection<'_>) -> Result<bool, ScanError> {
        self.is_comparing = false;
        let mut keys = BTreeSet::new();
        let mut is_complete = true;
        while let Some(push) = connection.next_push() {
            match push {
                Invalidation::Keys(pushed) => keys.extend(pushed),
                Invalidation::All => is_complete = false,
            }
        }
        if !is_complete {
            self.build_queue.restart();
            self.is_in_step = false;
        }
        let now = Instant::now();
        let (slow, keys): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| self.build_queue.must_wait(key, now));
        slow.iter().for_each(|key| self.wait(key, true));
        let absent = self.fetch(connection, &keys)?;
        // After a flush all keys are absent; the guard judges that after the next scan.
        if is_complete && !connection.is_flush_pending() {
            for key in &absent {
                self.withdraw(key, Vec::new());
            }
        }
        if !keys.is_empty() {
            self.note_propagated(keys.len() as u64, self.pushed_at.elapsed());
        }
        self.run_build_queue(connection)?;
        self.pushed_at = Instant::now();
        Ok(is_complete)
    }

    /// Counts pushed keys whose values are now in the table.
    pub(super) fn note_propagated(&self, keys: u64, time: Duration) {
        self.writer.table().source().note_propagated(keys, time, clock::unix_milliseconds());
    }

    /// Fetches these keys and applies their values; returns the keys that do not exist.
    pub(super) fn fetch(
        &mut self,
        connection: &mut Connection<'_>,
        keys: &[Vec<u8>],
    ) -> Result<Vec<Vec<u8>>, ScanError> {
        let keys: Vec<_> = keys.iter().filter(|key| !self.oversized.contains(key)).cloned().collect();
        let mut absent = Vec::new();
        for keys in keys.chunks(BATCH) {
            connection.send(&pack(first_command, keys))?;
            let others = self.receive(connection, first_command, keys)?;
            absent.extend(others.absent);
            absent.extend(self.fetch_others(connection, &others.other_type)?);
        }
        Ok(absent)
    }

    /// Handles keys that are not of their kind's usual type: tools' sets are fetched, all others rejected. Returns keys that
    /// no longer exist.
    fn fetch_others(&mut self, connection: &mut Connection<'_>, keys: &[Vec<u8>]) -> Result<Vec<Vec<u8>>, ScanError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let of_tools = |key: &&Vec<u8>| registry::split_key(key).is_some_and(|(kind, _)| kind == Kind::Tool);
        let (maybe_sets, mut wrong): (Vec<_>, Vec<_>) = keys.iter().partition(of_tools);
        let maybe_sets: Vec<Vec<u8>> = maybe_sets.into_iter().cloned().collect();
        connection.send(&pack(|_| SET, &maybe_sets))?;
        let others = self.receive(connection, |_| SET, &maybe_sets)?;
        wrong.extend(&others.other_type);
        for key in wrong {
            let expected = match registry::split_key(key) {
                Some((Kind::Redirect, _)) => "no hash",
                Some((Kind::Domain, _)) => "no set",
                _ => "neither a hash nor a set",
            };
            self.withdraw(key, vec![rejection(key, RejectionReason::WrongType(expected))]);
        }
        Ok(others.absent)
    }

    /// Applies one reply per key; returns the keys without an applicable value.
    fn receive(
        &mut self,
        connection: &mut Connection<'_>,
        command: impl Fn(&[u8]) -> &'static str,
        keys: &[Vec<u8>],
    ) -> Result<Unapplied, ScanError> {
        let mut others = Unapplied::default();
        for key in keys {
            match connection.reply(|reply| self.apply(command(key), key, reply)) {
                Ok(found) => match found? {
                    ReplyOutcome::Applied => {}
                    ReplyOutcome::OtherType => others.other_type.push(key.clone()),
                    ReplyOutcome::Absent => others.absent.push(key.clone()),
                },
                Err(error @ (ConnectionError::Resp(_) | ConnectionError::Slow(_))) => {
                    // The connection is lost. The next one first checks the key's size.
                    self.oversized.mark_suspect(key);
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(others)
    }

    /// Releases keys that are now small enough or gone, and withdraws keys that are too large. A key of unknown size keeps its
    /// routes until [`Self::try_oversized`] fetches it alone.
    fn weigh_oversized(&mut self, connection: &mut Connection<'_>) -> Result<(), ScanError> {
        for key in self.oversized.keys() {
            let mut is_small = Self::weigh(connection, &key, &[])?;
            // MEMORY USAGE samples a few elements and may miss the large one. Exact is cheap for a small key.
            if is_small == Some(true) {
                is_small = Self::weigh(connection, &key, &["SAMPLES", "0"])?;
            }
            match is_small {
                Some(true) => self.oversized.release(&key),
                Some(false) => self.set_oversized(&key),
                None => {}
            }
        }
        Ok(())
    }

    /// Whether a key is small enough; `None` if the server does not say.
    fn weigh(connection: &mut Connection<'_>, key: &[u8], samples: &[&str]) -> Result<Option<bool>, ConnectionError> {
        connection.send(&cmd("MEMORY").arg("USAGE").arg(key).arg(samples).get_packed_command())?;
        connection.reply(|reply| match reply {
            Reply::Integer(bytes) => Some(bytes <= MAX_KEY_BYTES),
            Reply::Null => Some(true),
            _ => None,
        })
    }

    /// Fetches one due oversized key on a separate connection, so that a reply that is too large or too slow breaks only that.
    pub fn try_oversized(&mut self, source: &RedisUrl, stop: StopCheck<'_>, journal: &Journal) {
        let begun = Instant::now();
        let Some(key) = self.oversized.due(begun) else { return };
        let shown = String::from_utf8_lossy(key.get(..SHOWN_BYTES).unwrap_or(&key)).escape_debug().to_string();
        let outcome =
            Connection::open(source, ISOLATED_TIMEOUTS, stop).map_err(ScanError::from).and_then(|mut connection| {
                connection.check_role()?;
                connection.send(&pack(first_command, std::slice::from_ref(&key)))?;
                let others = self.receive(&mut connection, first_command, std::slice::from_ref(&key))?;
                self.fetch_others(&mut connection, &others.other_type)
            });
        match outcome {
            Ok(_) => {
                // If the key is gone, the next scan withdraws it, subject to the guard.
                self.oversized.release(&key);
                journal.log(Level::Notice, format!("key readable again, key=\"{shown}\""));
            }
            Err(_) if stop() => {}
            Err(error) => {
                // `receive` has already marked the key after a broken reply.
                if !matches!(error, ScanError::Connection(ConnectionError::Resp(_) | ConnectionError::Slow(_))) {
                    self.oversized.mark_suspect(&key);
                }
                journal.log(
                    Level::Warn,
                    format!("reading key failed: {error}; keeping its routes, retrying later, key=\"{shown}\""),
                );
            }
        }
        self.oversized.rest(begun);
    }

    fn set_oversized(&mut self, key: &[u8]) {
        self.oversized.mark_too_large(key);
        self.withdraw(key, vec![rejection(key, RejectionReason::TooLarge)]);
    }

    /// Whether the scan skips the key as oversized; marks the key and its record as seen then.
    fn is_oversized(&mut self, key: &[u8]) -> bool {
        let is_oversized = self.oversized.contains(key);
        if is_oversized {
            self.found_keys.insert(key.into());
            if let Some(Ok(record)) = parse_key(key) {
                self.writer.confirm(record.as_bytes());
            }
        }
        is_oversized
    }

    /// Rejects a key that our Redis user may not read; its record stays, and its kind counts as not fully known. False for a
    /// tool's key: without access to tools the scan fails.
    fn reject_unreadable(&mut self, key: &[u8]) -> bool {
        let Some((kind, _)) = registry::split_key(key).filter(|&(kind, _)| kind != Kind::Tool) else { return false };
        if let Some(hidden) = self.hidden.get_mut(kind as usize) {
            *hidden = true;
        }
        if let Some(Ok(record)) = parse_key(key) {
            self.writer.confirm(record.as_bytes());
        }
        self.note_rejections(key, vec![rejection(key, RejectionReason::Hidden)]);
        true
    }

    /// Applies a reply to its key's record.
    fn apply(&mut self, command: &'static str, key: &[u8], reply: Reply<'_>) -> Result<ReplyOutcome, ScanError> {
        let raw = match reply {
            Reply::Error(text) if text.starts_with(b"WRONGTYPE") => return Ok(ReplyOutcome::OtherType),
            // An ACL from the time when only tools existed: those are followed all the same.
            Reply::Error(text) if text.starts_with(b"NOPERM") && self.reject_unreadable(key) => {
                return Ok(ReplyOutcome::Applied);
            }
            Reply::Integer(0) => return Ok(ReplyOutcome::Absent),
            // Only a redirect's existence counts: the operator configures its destination.
            Reply::Integer(_) => RawRoutes::Hash(Vec::new()),
            Reply::Map(fields) if fields.is_empty() => return Ok(ReplyOutcome::Absent),
            Reply::Array(members) if members.is_empty() => return Ok(ReplyOutcome::Absent),
            Reply::Map(fields) => {
                RawRoutes::Hash(fields.iter().filter_map(|(f, v)| Some((text(f)?, text(v)?))).collect())
            }
            Reply::Array(members) => RawRoutes::Set(members.iter().filter_map(text).collect()),
            reply => return Err(ScanError::unexpected(command, &reply)),
        };
        match parse_key(key) {
            Some(Ok(record)) => self.publish(key, &record, &raw),
            Some(Err(reason)) => self.withdraw(key, vec![rejection(key, reason.into())]),
            None => {}
        }
        Ok(ReplyOutcome::Applied)
    }
}

/// One page of keys and the cursor of the next; the last page has the cursor `0`.
struct Page {
    cursor: Vec<u8>,
    keys: Vec<Vec<u8>>,
}

fn scan_command(cursor: &[u8]) -> Vec<u8> {
    cmd("SCAN").arg(cursor).arg("MATCH").arg(registry::FOLLOWED_GLOB).arg("COUNT").arg(BATCH).get_packed_command()
}

fn receive_page(connection: &mut Connection<'_>) -> Result<Page, ScanError> {
    connection.reply(|reply| {
        if let Reply::Array(parts) = &reply
            && let [Reply::Text(cursor), Reply::Array(keys)] = parts.as_slice()
        {
            let followed = |key: &&[u8]| registry::split_key(key).is_some();
            let keys = keys.iter().filter_map(text).filter(followed).map(<[u8]>::to_vec).collect();
            return Ok(Page { cursor: cursor.to_vec(), keys });
        }
        Err(ScanError::unexpected("SCAN", &reply))
    })?
}

/// The command that fetches a key of its kind's usual type.
fn first_command(key: &[u8]) -> &'static str {
    match registry::split_key(key) {
        Some((Kind::Domain, _)) => SET,
        Some((Kind::Redirect, _)) => LENGTH,
        _ => HASH,
    }
}

fn pack(command: impl Fn(&[u8]) -> &'static str, keys: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    keys.iter().for_each(|key| cmd(command(key)).arg(key).write_packed_command(&mut wire));
    wire
}

fn text<'a>(reply: &Reply<'a>) -> Option<&'a [u8]> {
    match reply {
        Reply::Text(text) => Some(text),
        _ => None,
    }
}

impl ScanError {
    fn unexpected(command: &'static str, reply: &Reply<'_>) -> Self {
        let reply = match reply {
            Reply::Error(text) => text.get(..120).unwrap_or(text).escape_ascii().to_string(),
            other => format!("{other:?}").chars().take(120).collect(),
        };
        Self::Reply { command, reply }
    }
}
