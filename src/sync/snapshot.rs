//! The routes on disk, for a start at which the source does not answer, or answers with nothing.
//!
//! JSON lines, so that an operator can read and a later version extend them:
//!
//! ```text
//! {"urlproxy_snapshot":2,"synced_at":1790000000,"kinds":["tool","redirect","domain"],"records":3}
//! {"key":"prefix:hello","routes":{".*":["http://10.0.0.7:8000"]}}
//! {"key":"redirect:hello"}
//! {"key":"frontend:www.example.org","routes":{".*":["http://10.0.0.8:80","http://10.0.0.9:80"]}}
//! {"checksum":"5a94b6f2e0c1d837"}
//! ```
//!
//! The keys are those of the store. Version 1, which is read too, had tools alone: `"tools"` for `"records"`, and
//! `"tool":"hello"` for the key.
//!
//! The checksum is SipHash-1-3 with a key of zeroes over all bytes before its line: against accidents, not against
//! whoever may write the file. A file is believed whole or not at all.

mod file;
mod keeper;

use std::collections::BTreeMap;
use std::hash::Hasher;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

pub(super) use file::read;
pub(super) use keeper::keep;

use super::fit::{build_fully, prepare};
use super::rejected::{Rejected, no_room, rejection};
use crate::registry::{self, Admission, ROUTES_PREFIX, RawRoutes, RejectionReason, parse_key};
use crate::route::{Automata, Kind, RouteKey};
use crate::table::{Record, Scratch, Table, Writer};

/// The number of this format.
const VERSION: u32 = 2;
/// The format in which there were only tools.
const TOOLS_ONLY: u32 = 1;

/// How long a restore may take over patterns that are costly to build. What is left is set aside until the source answers.
const COSTLY_BUILDS: Duration = Duration::from_secs(1);

/// Where the snapshot is, and how old it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotSettings {
    /// The file. Its directory must be there, and writable for nginx's workers.
    pub path: PathBuf,
    /// A snapshot whose last comparison with the source is longer ago is not used.
    pub max_age: Duration,
    /// Users whose file is believed, beside root and this process's own: the workers'.
    pub owners: Vec<u32>,
}

/// Why a snapshot is not used, or was not written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// No file.
    #[error("there is none")]
    Missing,
    /// The file, or its directory, cannot be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Somebody else may have written it.
    #[error("{what} belongs to user {owner}, expected root or the user that nginx runs as")]
    Owner {
        /// The file, or its directory.
        what: &'static str,
        /// Whose it is.
        owner: u32,
    },
    /// Somebody else can write it.
    #[error("others than its owner can write {what} (mode {mode:04o}), expected e.g. {expected}")]
    Writable {
        /// The file, or its directory.
        what: &'static str,
        /// Its permissions.
        mode: u32,
        /// Good ones.
        expected: &'static str,
    },
    /// A directory, a FIFO, a device.
    #[error("it is not a regular file")]
    NotAFile,
    /// More bytes than the table could have come from.
    #[error("it has {bytes} bytes, expected at most {limit}")]
    TooLarge {
        /// What the file has.
        bytes: u64,
        /// What is read at most.
        limit: u64,
    },
    /// Of a later version of this program, or not of this program.
    #[error("it has format {0}, expected {VERSION} or {TOOLS_ONLY}")]
    Version(u32),
    /// Damaged.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// Out of date.
    #[error("it is {} old, expected at most {}", Age(*.0), Age(*.1))]
    TooOld(Duration, Duration),
    /// Another process writes it.
    #[error("another process is writing it")]
    Busy,
}

/// What a snapshot says.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// When the last complete comparison with the source had ended, in Unix seconds.
    pub synced_at: u64,
    /// What the table had all of.
    pub kinds: Vec<Kind>,
    /// What was in the table.
    pub records: Vec<SnapshotRecord>,
}

/// One record of a snapshot.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The key of the store that it was read from.
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

/// What the first version had.
fn only_tools() -> Vec<Kind> {
    vec![Kind::Tool]
}

#[derive(Serialize, Deserialize)]
struct Foot {
    checksum: String,
}

impl Snapshot {
    /// Parses a whole file.
    ///
    /// # Errors
    /// [`SnapshotError::Version`], [`SnapshotError::Damaged`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SnapshotError> {
        let damaged = |reason: &str| SnapshotError::Damaged(reason.to_owned());
        let is_not_ours = || damaged("its first line is not that of a snapshot");
        let first = bytes.split(|&byte| byte == b'\n').next().unwrap_or_default();
        let head: serde_json::Value = serde_json::from_slice(first).map_err(|_| is_not_ours())?;
        // The version comes before everything else: what follows may be of another shape.
        let version = head.get("urlproxy_snapshot").and_then(serde_json::Value::as_u64).ok_or_else(is_not_ours)?;
        if version != u64::from(VERSION) && version != u64::from(TOOLS_ONLY) {
            return Err(SnapshotError::Version(u32::try_from(version).unwrap_or(u32::MAX)));
        }
        let head: Head = serde_json::from_value(head).map_err(|_| is_not_ours())?;
        let body = bytes.strip_suffix(b"\n").ok_or_else(|| damaged("its end is missing"))?;
        let foot_at = body.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let (body, foot) = body.split_at(foot_at);
        let foot: Foot = serde_json::from_slice(foot).map_err(|_| damaged("its end is missing"))?;
        if foot.checksum != Self::checksum(body) {
            return Err(damaged("its checksum is wrong"));
        }
        let lines = body.get(first.len() + 1..).unwrap_or_default().split_inclusive(|&byte| byte == b'\n');
        let records = lines.map(serde_json::from_slice).collect::<Result<Vec<SnapshotRecord>, _>>();
        let mut records = records.map_err(|error| SnapshotError::Damaged(error.to_string()))?;
        if records.len() as u64 != head.records {
            return Err(SnapshotError::Damaged(format!("it has {} records, expected {}", records.len(), head.records)));
        }
        if head.version == TOOLS_ONLY {
            records.iter_mut().for_each(|record| record.key.insert_str(0, ROUTES_PREFIX));
        }
        Ok(Self { synced_at: head.synced_at, kinds: head.kinds, records })
    }

    /// What the last line says of all bytes before it.
    pub fn checksum(bytes: &[u8]) -> String {
        let mut hasher = SipHasher13::new();
        hasher.write(bytes);
        format!("{:016x}", hasher.finish())
    }

    /// Publishes what the snapshot says, as far as it is still allowed; returns how many tools there are then.
    pub(super) fn restore(&self, writer: &mut Writer<'_>, admission: &Admission, rejected: &mut Rejected) -> u64 {
        let share = writer.table().record_limit();
        let costly_until = Instant::now() + COSTLY_BUILDS;
        let mut build = |texts: &[&str], bytes| {
            Automata::build_quickly(texts, bytes)
                .or_else(|| (Instant::now() < costly_until).then(|| build_fully(texts, bytes, &|| false)))
        };
        for SnapshotRecord { key, routes } in &self.records {
            let key = key.as_bytes();
            let Some(Ok(record)) = parse_key(key) else { continue };
            let raw = match routes.values().next() {
                // Only a set has several backends, and then it is all there is.
                Some(urls) if urls.len() > 1 => RawRoutes::Set(urls.iter().map(String::as_bytes).collect()),
                _ => RawRoutes::Hash(
                    routes.iter().filter_map(|(p, urls)| Some((p.as_bytes(), urls.first()?.as_bytes()))).collect(),
                ),
            };
            let Some(mut prepared) = prepare((key, &record), &raw, admission, share, &mut build) else {
                // Known, but without routes until they are built.
                let _ = writer.publish(&record, &[]);
                rejected.replace(key, vec![rejection(key, RejectionReason::Waiting)]);
                continue;
            };
            // One that has none in the snapshot waited for them.
            if (!prepared.routes.is_empty() || routes.is_empty())
                && let Err(error) = writer.publish_with(&record, &prepared.routes, &prepared.automata)
            {
                prepared.rejected.push(no_room(key, &error));
            }
            rejected.replace(key, prepared.rejected);
        }
        writer.mark_restored(self.synced_at, &self.kinds);
        writer.table().header().live_tools()
    }
}

/// The whole file for what the table holds now.
pub(super) fn encode(table: Table<'_>) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut records = 0;
    let mut scratch = Scratch::default();
    // Before the records: of what changes meanwhile the older state is claimed.
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
    // Neither a vector nor these shapes can fail.
    let _ = serde_json::to_writer(&mut *bytes, line);
    bytes.push(b'\n');
}

/// A duration in the largest unit that leaves something before the point.
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
