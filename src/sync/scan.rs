//! From Redis to the table: the full comparison, and the refresh of single keys.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use redis::cmd;

use super::journal::{Journal, Level};
use super::oversized::Oversized;
use super::recognised::Recognised;
use super::rejected::{Rejected, rejection};
use super::slow_lane::SlowLane;
use super::stop::Stop;
use super::table_guard::TableGuard;
use super::wanting_room::WantingRoom;
use crate::clock;
use crate::redis_client::{Connection, ConnectionError, Invalidation, RedisUrl, Reply, Timeouts};
use crate::registry::{self, Admission, RawRoutes, RejectionReason, parse_key};
use crate::route::Kind;
use crate::table::Writer;

/// Keys asked for at once: enough to hide the round trip, few enough that the replies fit any socket buffer.
const BATCH: usize = 500;

/// What an oversized key may take at most, in Redis's memory, to be asked for again.
const MAX_KEY_BYTES: i64 = 1 << 20;

/// For a key that is asked for alone: others wait meanwhile.
const ALONE: Timeouts =
    Timeouts { connect: Duration::from_secs(1), silence: Duration::from_secs(2), reply: Duration::from_secs(2) };
/// Bytes of a key that a line of the log shows.
const SHOWN_BYTES: usize = 120;

/// How the fields of a hash, whether there is any, and the members of a set, are asked for.
const HASH: &str = "HGETALL";
const LENGTH: &str = "HLEN";
const SET: &str = "SMEMBERS";

/// Why a comparison was broken off. The table keeps what it has.
#[derive(Debug, thiserror::Error)]
pub(super) enum ScanError {
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("unexpected reply {reply} to {command}")]
    Reply { command: &'static str, reply: String },
}

/// What a comparison changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub tools: u64,
    pub inserted: u64,
    pub replaced: u64,
    pub withdrawn: u64,
    /// What the source no longer has, held back.
    pub held: u64,
    /// The source was flushed meanwhile: compare again.
    pub is_flushed: bool,
}

/// What came of a reply about one key.
#[derive(PartialEq)]
enum Found {
    Applied,
    OtherType,
    /// The key is not there.
    Absent,
}

/// What keys turned out to be that held no hash.
#[derive(Default)]
struct Others {
    /// Of another type than the command is for.
    other_type: Vec<Vec<u8>>,
    absent: Vec<Vec<u8>>,
}

/// Everything that a reply may change.
pub(super) struct Follower<'w> {
    pub writer: Writer<'w>,
    pub rejected: Rejected,
    pub admission: Admission,
    pub guard: TableGuard,
    oversized: Oversized,
    /// Keys with something set aside that the running scan has met.
    pub(super) met: HashSet<Box<[u8]>>,
    pub(super) changes: Changes,
    /// Keys that have to wait.
    pub(super) lane: SlowLane,
    /// Whether what is asked for is a key whose turn it is there.
    pub(super) is_turn: bool,
    /// Whether what is asked for is what a comparison has met: nothing says that it has changed.
    pub(super) is_comparing: bool,
    pub(super) recognised: Recognised,
    pub(super) wanting_room: WantingRoom,
    /// By kind, whether the running comparison met keys that this user may not read.
    hidden: [bool; Kind::ALL.len()],
    /// A comparison has ended on this connection, and no push since has said that any key may have changed.
    pub(super) is_in_step: bool,
}

impl<'w> Follower<'w> {
    pub fn new(writer: Writer<'w>, admission: Admission, guard: TableGuard) -> Self {
        Self {
            writer,
            rejected: Rejected::default(),
            admission,
            guard,
            oversized: Oversized::default(),
            met: HashSet::new(),
            changes: Changes::default(),
            lane: SlowLane::default(),
            is_turn: false,
            is_comparing: false,
            recognised: Recognised::default(),
            wanting_room: WantingRoom::default(),
            hidden: [false; Kind::ALL.len()],
            is_in_step: false,
        }
    }

    /// The kinds of which the last comparison has seen everything.
    pub fn known(&self) -> Vec<Kind> {
        Kind::ALL.into_iter().zip(self.hidden).filter(|(_, is_hidden)| !is_hidden).map(|(kind, _)| kind).collect()
    }

    /// Books that the source has answered, and that everything it had pushed before has been applied.
    pub fn note_in_step(&mut self) {
        if self.is_in_step {
            self.writer.note_in_step(clock::unix_seconds());
        }
    }

    /// Compares everything: publishes what is new or different, then withdraws what the source no longer has, unless the
    /// guard holds that back.
    pub fn scan(&mut self, connection: &mut Connection<'_>, journal: &Journal) -> Result<Changes, ScanError> {
        let outcome = self.compare(connection, journal);
        self.is_comparing = false;
        outcome
    }

    fn compare(&mut self, connection: &mut Connection<'_>, journal: &Journal) -> Result<Changes, ScanError> {
        // What was pushed before cannot spoil this comparison.
        self.catch_up(connection)?;
        self.changes = Changes::default();
        self.met.clear();
        self.recognised.age();
        self.hidden = Default::default();
        self.writer.begin_sweep();
        let live = Kind::ALL.map(|kind| self.writer.table().header().live(kind));
        self.weigh_oversized(connection)?;
        let mut is_flushed = false;
        connection.send(&scan_command(b"0"))?;
        let mut page = receive_page(connection)?;
        loop {
            page.keys.retain(|key| !self.is_oversized(key) && !self.is_slow(key));
            // The next page is asked for behind this one's keys, so that the server works on it meanwhile.
            let next_wanted = page.cursor != b"0";
            let mut wire = pack(first_command, &page.keys);
            if next_wanted {
                wire.extend(scan_command(&page.cursor));
            }
            connection.send(&wire)?;
            self.is_comparing = true;
            let others = self.receive(connection, first_command, &page.keys)?;
            let next = if next_wanted { Some(receive_page(connection)?) } else { None };
            self.fetch_others(connection, &others.other_type)?;
            // A change must not wait for the end of a long comparison.
            is_flushed |= !self.catch_up(connection)?;
            self.note_in_step();
            match next {
                Some(next) => page = next,
                None => break,
            }
        }
        // A scan may miss a key that moved while it ran: what it did not meet is asked for by name.
        let unseen: Vec<Vec<u8>> = self.writer.unseen().iter().map(registry::key_of).collect();
        self.is_comparing = true;
        self.fetch(connection, &unseen)?;
        // What is still not seen is not there. What was met and is gone since has come as a push.
        let missing = self.writer.unseen();
        is_flushed |= connection.is_flush_pending();
        // With a flush, a part of the keys was met before it: only the next comparison, at once, sees how much is gone.
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
        let met = std::mem::take(&mut self.met);
        self.rejected.retain(|key| met.contains(key));
        self.changes.tools = self.writer.table().header().live_tools();
        self.changes.is_flushed = is_flushed;
        Ok(self.changes)
    }

    /// Applies the pushes that have come; `false` when one of them says that any key may have changed.
    pub fn catch_up(&mut self, connection: &mut Connection<'_>) -> Result<bool, ScanError> {
        self.is_comparing = false;
        let mut keys = BTreeSet::new();
        let mut is_whole = true;
        while let Some(push) = connection.next_push() {
            match push {
                Invalidation::Keys(pushed) => keys.extend(pushed),
                Invalidation::All => is_whole = false,
            }
        }
        if !is_whole {
            self.lane.restart();
            self.is_in_step = false;
        }
        let now = Instant::now();
        let (slow, keys): (Vec<_>, Vec<_>) = keys.into_iter().partition(|key| self.lane.must_wait(key, now));
        slow.iter().for_each(|key| self.wait(key, true));
        let absent = self.fetch(connection, &keys)?;
        // After a flush, keys are absent because all are: that is for the comparison to judge.
        if is_whole && !connection.is_flush_pending() {
            for key in &absent {
                self.withdraw(key, Vec::new());
            }
        }
        self.tend(connection)?;
        Ok(is_whole)
    }

    /// Applies what the source has under these keys; returns those it has nothing under.
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

    /// Keys that are of another type than their kind usually is: tools' sets, or something that is set aside. Returns those
    /// that are gone meanwhile.
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

    /// Applies one reply per key; returns the keys for which there was nothing to apply.
    fn receive(
        &mut self,
        connection: &mut Connection<'_>,
        command: impl Fn(&[u8]) -> &'static str,
        keys: &[Vec<u8>],
    ) -> Result<Others, ScanError> {
        let mut others = Others::default();
        for key in keys {
            match connection.reply(|reply| self.apply(command(key), key, reply)) {
                Ok(found) => match found? {
                    Found::Applied => {}
                    Found::OtherType => others.other_type.push(key.clone()),
                    Found::Absent => others.absent.push(key.clone()),
                },
                Err(error @ (ConnectionError::Resp(_) | ConnectionError::Slow(_))) => {
                    // The connection is lost with it. Whether the key is to blame, the next one asks before anything else.
                    self.oversized.suspect(key);
                    return Err(error.into());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(others)
    }

    /// Takes up again what is small enough, or gone; what is too large is withdrawn. What the server does not tell keeps its routes
    /// until it is [tried](Self::try_oversized).
    fn weigh_oversized(&mut self, connection: &mut Connection<'_>) -> Result<(), ScanError> {
        for key in self.oversized.keys() {
            let mut is_small = Self::weigh(connection, &key, &[])?;
            // That is a guess from a few of its elements, and the large one may be another. So few are soon weighed all.
            if is_small == Some(true) {
                is_small = Self::weigh(connection, &key, &["SAMPLES", "0"])?;
            }
            match is_small {
                Some(true) => self.oversized.acquit(&key),
                Some(false) => self.set_oversized(&key),
                None => {}
            }
        }
        Ok(())
    }

    /// Whether a key is small enough; `None` when the server does not tell.
    fn weigh(connection: &mut Connection<'_>, key: &[u8], samples: &[&str]) -> Result<Option<bool>, ConnectionError> {
        connection.send(&cmd("MEMORY").arg("USAGE").arg(key).arg(samples).get_packed_command())?;
        connection.reply(|reply| match reply {
            Reply::Integer(bytes) => Some(bytes <= MAX_KEY_BYTES),
            Reply::Null => Some(true),
            _ => None,
        })
    }

    /// Asks for one key whose reply broke a connection, if it is time, on a connection of its own: one that is too large, or slow,
    /// breaks that one alone.
    pub fn try_oversized(&mut self, source: &RedisUrl, stop: Stop<'_>, journal: &Journal) {
        let begun = Instant::now();
        let Some(key) = self.oversized.due(begun) else { return };
        let shown = String::from_utf8_lossy(key.get(..SHOWN_BYTES).unwrap_or(&key)).escape_debug().to_string();
        let outcome = Connection::open(source, ALONE, stop).map_err(ScanError::from).and_then(|mut connection| {
            connection.check_role()?;
            connection.send(&pack(first_command, std::slice::from_ref(&key)))?;
            let others = self.receive(&mut connection, first_command, std::slice::from_ref(&key))?;
            self.fetch_others(&mut connection, &others.other_type)
        });
        match outcome {
            Ok(_) => {
                // A key that is gone is withdrawn by the next comparison, which the guard judges.
                self.oversized.acquit(&key);
                journal.log(Level::Notice, format!("the key \"{shown}\" is read again"));
            }
            Err(_) if stop() => {}
            Err(error) => {
                // A broken reply has made it a suspect again by itself.
                if !matches!(error, ScanError::Connection(ConnectionError::Resp(_) | ConnectionError::Slow(_))) {
                    self.oversized.suspect(&key);
                }
                journal.log(
                    Level::Warn,
                    format!("{error} while reading the key \"{shown}\" alone; its routes stay as they are, it is tried again later"),
                );
            }
        }
        self.oversized.rest(begun);
    }

    fn set_oversized(&mut self, key: &[u8]) {
        self.oversized.convict(key);
        self.withdraw(key, vec![rejection(key, RejectionReason::TooLarge)]);
    }

    /// Whether the key is passed over; that counts as met, and as seen if it is still in the table.
    fn is_oversized(&mut self, key: &[u8]) -> bool {
        let is_oversized = self.oversized.contains(key);
        if is_oversized {
            self.met.insert(key.into());
            if let Some(Ok(record)) = parse_key(key) {
                self.writer.confirm(record.as_bytes());
            }
        }
        is_oversized
    }

    /// Sets a key aside that this user may not read; what is in the table stays, and of its kind nothing is known. False for a
    /// tool's: without those there is nothing to follow.
    fn hide(&mut self, key: &[u8]) -> bool {
        let Some((kind, _)) = registry::split_key(key).filter(|&(kind, _)| kind != Kind::Tool) else { return false };
        if let Some(hidden) = self.hidden.get_mut(kind as usize) {
            *hidden = true;
        }
        if let Some(Ok(record)) = parse_key(key) {
            self.writer.confirm(record.as_bytes());
        }
        self.set_aside(key, vec![rejection(key, RejectionReason::Hidden)]);
        true
    }

    /// Makes the table's record what the reply says its key holds.
    fn apply(&mut self, command: &'static str, key: &[u8], reply: Reply<'_>) -> Result<Found, ScanError> {
        let raw = match reply {
            Reply::Error(text) if text.starts_with(b"WRONGTYPE") => return Ok(Found::OtherType),
            // A Redis user of the time when there were tools alone: they are followed all the same.
            Reply::Error(text) if text.starts_with(b"NOPERM") && self.hide(key) => return Ok(Found::Applied),
            Reply::Integer(0) => return Ok(Found::Absent),
            // Of a redirect nothing counts but that it is there: where it leads, the operator says.
            Reply::Integer(_) => RawRoutes::Hash(Vec::new()),
            Reply::Map(fields) if fields.is_empty() => return Ok(Found::Absent),
            Reply::Array(members) if members.is_empty() => return Ok(Found::Absent),
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
        Ok(Found::Applied)
    }
}

/// One page of keys, and where the next begins; the last has the cursor `0`.
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

/// How a key's value is asked for at first, by what its kind usually is.
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
