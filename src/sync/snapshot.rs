//! The snapshot: the routes on disk, for a start while the source is down or empty.
//!
//! JSON lines, which operators can read and later versions extend:
//!
//! ```text
//! {"urlproxy_snapshot":2,"synced_at":1790000000,"kinds":["tool","redirect","domain"],"records":3}
//! {"key":"prefix:hello","routes":{".*":["http://10.0.0.7:8000"]}}
//! {"key":"redirect:hello"}
//! {"key":"frontend:www.example.org","routes":{".*":["http://10.0.0.8:80","http://10.0.0.9:80"]}}
//! {"checksum":"5a94b6f2e0c1d837"}
//! ```
//!
//! The keys are Redis keys. Version 1, which is still read, had only tools: `"tools"` for `"records"`, and
//! `"tool":"hello"` for the key.
//!
//! The checksum is SipHash-1-3 with a key of zeroes over all bytes before its line: it detects damage, not forgery. A file
//! is used completely or not at all.

mod file;
mod snapshot_writer;

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

pub(super) use file::read;
pub use file::read_snapshot_file;
pub(super) use snapshot_writer::SnapshotWriter;

use super::prepare::{build_fully, prepare};
use super::rejected::{Rejected, rejection, table_full};
use crate::registry::{self, Admission, ROUTES_PREFIX, RawRoutes, RejectionReason, parse_key};
use crate::route::{Automata, Kind, RouteKey};
use crate::table::{Record, Scratch, Table, Writer};

/// The version of this format.
const VERSION: u32 = 2;
/// The version that had only tools.
const TOOLS_ONLY: u32 = 1;

/// Time budget of a restore for costly patterns. Tools beyond it have no routes until the source answers.
const RESTORE_BUILD_BUDGET: Duration = Duration::from_secs(1);

/// Configuration of the snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// The file. Its directory must exist and be writable for nginx's workers.
    pub path: PathBuf,
    /// A snapshot last verified more than `max_age` ago is ignored.
    pub max_age: Duration,
    /// Trusted owners of the file, besides root and this process's user: the workers' user.
    pub owners: Vec<u32>,
}

/// Why a snapshot cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No file.
    #[error("no such file")]
    Missing,
    /// The file, or its directory, cannot be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Another user may have written the file.
    #[error("{what} belongs to user {owner}, expected root or the user that nginx runs as")]
    Owner {
        /// The file or its directory.
        what: &'static str,
        /// User id of the owner.
        owner: u32,
    },
    /// Other users can write the file.
    #[error("{what} is writable for users other than its owner (mode {mode:04o}), expected e.g. {expected}")]
    Writable {
        /// The file or its directory.
        what: &'static str,
        /// Its mode bits.
        mode: u32,
        /// A safe mode.
        expected: &'static str,
    },
    /// A directory, a FIFO, a device.
    #[error("not a regular file")]
    NotAFile,
    /// Larger than any snapshot of this table.
    #[error("{bytes} bytes, expected at most {limit}")]
    TooLarge {
        /// Size of the file.
        bytes: u64,
        /// Largest size that is read.
        limit: u64,
    },
    /// An unknown version.
    #[error("format version {0}, expected {VERSION} or {TOOLS_ONLY}")]
    Version(u32),
    /// Not a snapshot, or damaged.
    #[error("damaged: {0}")]
    Damaged(String),
    /// Older than `max_age`.
    #[error("{} old, expected at most {}", Age(*.0), Age(*.1))]
    TooOld(Duration, Duration),
    /// Another process holds the lock of the temporary file.
    #[error("another process is writing it")]
    Busy,
}

/// A parsed snapshot.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// When the last full scan of the source ended, in Unix seconds.
    pub synced_at: u64,
    /// Kinds that the table had completely.
    pub kinds: Vec<Kind>,
    /// The table's records.
    pub records: Vec<SnapshotRecord>,
}

/// One record of a snapshot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The record's Redis key.
    #[serde(alias = "tool")]
    pub key: String,
    /// Backend URLs by pattern.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub routes: BTreeMap<String, Vec<String>>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    #[serde(rename = "urlproxy_snapshot")]
    version: u32,
    synced_at: u64,
    #[serde(default = "only_tools")]
    kinds: Vec<Kind>,
    #[serde(alias = "tools")]
    records: u64,
}

/// Default of version 1.
fn only_tools() -> Vec<Kind> {
    vec![Kind::Tool]
}

#[derive(Serialize, Deserialize)]
struct Foot {
    checksum: String,
}

impl Snapshot {
    /// Parses a complete file.
    ///
    /// # Errors
    /// [`SnapshotError::Version`], [`SnapshotError::Damaged`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let damaged = |reason: &str| SnapshotError::Damaged(reason.to_owned());
        let is_not_ours = || damaged("the first line is not a snapshot's header");
        let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let head: serde_json::Value = serde_json::from_slice(first).map_err(|_| is_not_ours())?;
        // Check the version first: other versions may differ in everything else.
        let version = head.get("urlproxy_snapshot").and_then(serde_json::Value::as_u64).ok_or_else(is_not_ours)?;
        if version != u64::from(VERSION) && version != u64::from(TOOLS_ONLY) {
            return Err(SnapshotError::Version(u32::try_from(version).unwrap_or(u32::MAX)));
        }
        let head: Head = serde_json::from_value(head).map_err(|_| is_not_ours())?;
        let body = bytes.strip_suffix(b"\n").ok_or_else(|| damaged("truncated"))?;
        let foot_at = body.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let (body, foot) = body.split_at(foot_at);
        let foot: Foot = serde_json::from_slice(foot).map_err(|_| damaged("truncated"))?;
        if foot.checksum != Self::checksum(body) {
            return Err(damaged("wrong checksum"));
        }
        let lines = body.get(first.len() + 1..).unwrap_or_default().split_inclusive(|&byte| byte == b'\n');
        let records = lines.map(serde_json::from_slice).collect::<Result<Vec<SnapshotRecord>, _>>();
        let mut records = records.map_err(|error| SnapshotError::Damaged(error.to_string()))?;
        if records.len() as u64 != head.records {
            return Err(SnapshotError::Damaged(format!("{} records, expected {}", records.len(), head.records)));
        }
        if head.version == TOOLS_ONLY {
            records.iter_mut().for_each(|record| record.key.insert_str(0, ROUTES_PREFIX));
        }
        Ok(Self { synced_at: head.synced_at, kinds: head.kinds, records })
    }

    /// The checksum for the last line, over all bytes before it.
    pub fn checksum(bytes: &[u8]) -> String {
        let mut hasher = SipHasher13::new();
        hasher.write(bytes);
        format!("{:016x}", hasher.finish())
    }

    /// As [`restore`](Self::restore), with any backend admitted.
    #[doc(hidden)]
    pub fn restore_all(&self, writer: &mut Writer<'_>) -> u64 {
        self.restore(writer, &Admission::default(), &mut Rejected::default())
    }

    /// Publishes the snapshot's routes that are still admitted; returns the number of tools.
    pub(super) fn restore(&self, writer: &mut Writer<'_>, admission: &Admission, rejected: &mut Rejected) -> u64 {
        let share = writer.table().record_limit();
        let costly_until = Instant::now() + RESTORE_BUILD_BUDGET;
        let mut build = |texts: &[&str], bytes| {
            Automata::build_quickly(texts, bytes)
                .or_else(|| (Instant::now() < costly_until).then(|| build_fully(texts, bytes, &|| false)))
        };
        for SnapshotRecord { key, routes } in &self.records {
            let key = key.as_bytes();
            let Some(Ok(record)) = parse_key(key) else { continue };
            let raw = match routes.values().next() {
                // Only a set has several backends, and it has a single route.
                Some(urls) if urls.len() > 1 => RawRoutes::Set(urls.iter().map(String::as_bytes).collect()),
                _ => RawRoutes::Hash(
                    routes.iter().filter_map(|(p, urls)| Some((p.as_bytes(), urls.first()?.as_bytes()))).collect(),
                ),
            };
            let Some(mut prepared) = prepare((key, &record), &raw, admission, share, &mut build) else {
                // The key is known, but has no routes until they are built.
                let _ = writer.publish(&record, &[]);
                rejected.replace(key, vec![rejection(key, RejectionReason::Waiting)]);
                continue;
            };
            // A record without routes was still waiting for its build when the snapshot was written.
            if (!prepared.routes.is_empty() || routes.is_empty())
                && let Err(error) = writer.publish_with(&record, &prepared.routes, &prepared.automata)
            {
                prepared.rejected.push(table_full(key, &error));
            }
            rejected.replace(key, prepared.rejected);
        }
        writer.mark_restored(self.synced_at, &self.kinds);
        writer.table().header().live_tools()
    }
}

/// Encodes the table's current content as a complete file.
pub fn encode(table: Table<'_>) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut records = 0;
    let mut scratch = Scratch::default();
    // Read before the records, so that the time is never later than the content.
    let (synced_at, kinds) = (table.header().synced_at(), table.header().known());
    table.for_each(&mut scratch, |record| {
        if let Some(record) = describe(&record) {
            write_line(&mut lines, &record);
            records += 1;
        }
    });
    let mut bytes = Vec::with_capacity(lines.len() + 200);
    write_line(&mut bytes, &Head { version: VERSION, synced_at, kinds, records });
    bytes.append(&mut lines);
    let foot = Foot { checksum: Snapshot::checksum(&bytes) };
    write_line(&mut bytes, &foot);
    bytes
}

fn describe(record: &Record<'_>) -> Option<SnapshotRecord> {
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).ok().map(str::to_owned);
    let routes = record.routes().map(|route| {
        Some((text(route.pattern)?, route.backends().map(|backend| backend.to_string()).collect::<Vec<_>>()))
    });
    let key = registry::key_of(&RouteKey::from_table(record.key()).ok()?);
    Some(SnapshotRecord { key: text(&key)?, routes: routes.collect::<Option<_>>()? })
}

fn write_line(bytes: &mut Vec<u8>, line: &impl Serialize) {
    // Serializing these types into a vector cannot fail.
    let _ = serde_json::to_writer(&mut *bytes, line);
    bytes.push(b'\n');
}

/// Formats a duration in its largest unit.
pub(super) struct Age(pub Duration);

impl std::fmt::Display for Age {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.0.as_secs_f64();
        match seconds {
            ..60.0 => write!(f, "{seconds:.0} s"),
            ..3600.0 => write!(f, "{:.0} min", seconds / 60.0),
            ..86400.0 => write!(f, "{:.1} h", seconds / 3600.0),
            _ => write!(f, "{:.1} d", seconds / 86400.0),
        }
    }
}

#[cfg(test)]
mod tests;
