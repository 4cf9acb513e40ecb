//! `diff`: Redis, the table and the snapshot side by side.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::ctl::admin_client::AdminClient;
use crate::ctl::api::{RejectedList, Status};
use crate::ctl::console::Console;
use crate::ctl::outcome::{Answer, CtlError};
use crate::ctl::redis_entries::{Entry, read_all};
use crate::ctl::settings::Settings;
use crate::ctl::text_table::{BAD, Cell, GOOD, TextTable, WARN};
use crate::daemon::Store;
use crate::registry::{Admission, admit, prefix_of, split_key};
use crate::route::{Kind, RouteKey};
use crate::sync::{Snapshot, read_snapshot_file};
use crate::text::{count, counted};

/// Time for changes in flight to arrive, before differences are compared again.
const SETTLE: Duration = Duration::from_secs(1);
/// How often differences with the snapshot are compared again: nginx writes it at most every five seconds.
const SNAPSHOT_ROUNDS: u32 = 7;

/// Backend URLs by pattern.
type Routes = BTreeMap<String, BTreeSet<String>>;
/// The routes of all keys on one side.
type Side = BTreeMap<(Kind, Vec<u8>), Routes>;

/// A key that differs.
#[derive(Clone, Debug, Serialize)]
struct Difference {
    kind: &'static str,
    name: String,
    /// `missing`, `extra` or `different` in the table compared with Redis; `null` if they are equal.
    table_is: Option<&'static str>,
    /// The same for the snapshot compared with the table.
    snapshot_is: Option<&'static str>,
    /// Whether the module rejects routes of this key.
    rejected: bool,
    redis: Option<Routes>,
    table: Option<Routes>,
    snapshot: Option<Routes>,
}

impl Difference {
    /// Clears what was found between two sides that have both moved on since: the key changes all the time, and the second side
    /// follows the first. Returns whether anything is left.
    fn stays(&mut self, first: &Self) -> bool {
        if first.table_is.is_none() || first.redis != self.redis && first.table != self.table {
            self.table_is = None;
        }
        if first.snapshot_is.is_none() || first.table != self.table && first.snapshot != self.snapshot {
            self.snapshot_is = None;
        }
        self.table_is.is_some() || self.snapshot_is.is_some()
    }
}

/// The three sides at one time.
struct Sides {
    redis: Side,
    table: Side,
    snapshot: Option<Side>,
    rejected: BTreeSet<(Kind, Vec<u8>)>,
    /// Keys in Redis that are too large to be read: nginx serves some of their routes, and rejects the rest.
    too_large: BTreeSet<(Kind, Vec<u8>)>,
}

/// Prints keys that differ; negative if there are any, apart from rejected routes.
pub async fn run(settings: Settings, console: &mut Console, file: Option<PathBuf>) -> Result<Answer, CtlError> {
    let (admin, store) = settings.store()?;
    let status: Status = admin.get_as("api/status", &[]).await?;
    let (path, is_named) = match (file, status.snapshot) {
        (Some(file), _) => (Some(file), true),
        (None, snapshot) => (snapshot.map(|snapshot| PathBuf::from(snapshot.path)), false),
    };
    let snapshot = match path.as_deref().map(|path| read_snapshot(path, is_named)).transpose() {
        Ok(snapshot) => snapshot,
        Err(error) if is_named => return Err(error),
        Err(error) => {
            console.note(format_args!("snapshot not compared: {error}"));
            None
        }
    };
    let mut sides = read(&admin, &store, console, snapshot).await?;
    let first = sides.differences();
    let mut differences = first.clone();
    for round in 0..SNAPSHOT_ROUNDS {
        let is_snapshots = differences.values().any(|difference| difference.snapshot_is.is_some());
        if differences.is_empty() || round > 0 && !is_snapshots {
            break;
        }
        tokio::time::sleep(SETTLE).await;
        let snapshot = match &path {
            Some(path) if sides.snapshot.is_some() => read_snapshot(path, is_named).ok(),
            _ => None,
        };
        sides = read(&admin, &store, console, snapshot).await?;
        let before = differences;
        differences = sides.differences();
        differences.retain(|key, _| before.contains_key(key));
        differences.retain(|key, difference| first.get(key).is_some_and(|first| difference.stays(first)));
    }
    let is_same = differences.values().all(|difference| difference.rejected);
    let listed: Vec<_> = differences.into_values().collect();
    if console.is_json {
        let records = |side: &Side| json!({"records": side.len()});
        console.json(&json!({
            "redis": records(&sides.redis),
            "table": records(&sides.table),
            "snapshot": sides.snapshot.as_ref().map(records),
            "held": status.held.as_ref().map_or(0, |held| held.records),
            "differences": listed,
        }))?;
    } else {
        print(console, &sides, &listed)?;
        if let Some(held) = status.held.filter(|held| held.records > 0) {
            console.note(format_args!("the table holds {} that Redis does not have", counted(held.records, "record")));
        }
    }
    Ok(Answer::positive_if(is_same))
}

async fn read(
    admin: &AdminClient,
    store: &Store,
    console: &Console,
    snapshot: Option<Side>,
) -> Result<Sides, CtlError> {
    let progress = console.progress("keys read", None);
    let (mut redis, mut too_large) = (Side::new(), BTreeSet::new());
    for ((kind, name), entry) in read_all(store, |keys| progress.inc(keys)).await? {
        if matches!(entry, Entry::TooLarge(_)) {
            too_large.insert((kind, name));
        } else if let Some(routes) = routes_of(kind, &name, &entry) {
            redis.insert((kind, name), routes);
        }
    }
    let mut table = Side::new();
    admin
        .routes(&[], |page| {
            progress.inc(page.items.len() as u64);
            for item in page.items {
                let routes = item.routes.into_iter();
                let routes = routes.map(|route| (route.pattern, route.backends.into_iter().collect())).collect();
                table.insert((item.kind, item.name.into_bytes()), routes);
            }
        })
        .await?;
    let rejected: RejectedList = admin.get_as("api/rejected", &[]).await?;
    let rejected = rejected.items.iter().filter_map(|item| split_key(item.key.as_bytes()));
    let rejected = rejected.map(|(kind, name)| (kind, name.to_vec())).collect();
    progress.finish_and_clear();
    Ok(Sides { redis, table, snapshot, rejected, too_large })
}

/// The routes that a key should have in the table; `None` for a key that has no place there.
fn routes_of(kind: Kind, name: &[u8], entry: &Entry) -> Option<Routes> {
    RouteKey::try_new(kind, name).ok()?;
    let raw = match (kind, entry) {
        (Kind::Redirect, Entry::Hash(_)) => return Some(Routes::new()),
        (Kind::Tool, _) | (Kind::Domain, Entry::Set(_)) => entry.as_raw()?,
        (Kind::Redirect | Kind::Domain, _) => return None,
    };
    let key = [prefix_of(kind).as_bytes(), name].concat();
    let routes = admit(&key, &raw, &Admission::default()).routes.into_iter();
    let urls = |backends: Vec<crate::route::Backend>| backends.iter().map(ToString::to_string).collect();
    Some(routes.map(|route| (route.pattern.as_str().to_owned(), urls(route.backends))).collect())
}

fn read_snapshot(path: &Path, is_named: bool) -> Result<Side, CtlError> {
    let failed = |error: &dyn std::fmt::Display| {
        let option = if is_named { " (--snapshot)" } else { "" };
        CtlError::failed(format!("{error} while reading the snapshot {path:?}{option}"))
    };
    let Snapshot { records, .. } = read_snapshot_file(path).map_err(|error| failed(&error))?;
    let mut side = Side::new();
    for record in records {
        if let Some((kind, name)) = split_key(record.key.as_bytes()) {
            let routes = record.routes.into_iter().map(|(pattern, urls)| (pattern, urls.into_iter().collect()));
            side.insert((kind, name.to_vec()), routes.collect());
        }
    }
    Ok(side)
}

impl Sides {
    fn differences(&self) -> BTreeMap<(Kind, Vec<u8>), Difference> {
        let snapshot_keys = self.snapshot.iter().flat_map(BTreeMap::keys);
        let keys: BTreeSet<_> = self.redis.keys().chain(self.table.keys()).chain(snapshot_keys).collect();
        keys.into_iter().filter_map(|key| Some((key.clone(), self.difference(key)?))).collect()
    }

    fn difference(&self, key: &(Kind, Vec<u8>)) -> Option<Difference> {
        let (redis, table) = (self.redis.get(key), self.table.get(key));
        let snapshot = self.snapshot.as_ref().map(|side| side.get(key));
        let table_is = compared(redis.filter(|routes| has_place(key.0, routes)), table);
        let snapshot_is = snapshot.and_then(|snapshot| compared(table, snapshot));
        (table_is.is_some() || snapshot_is.is_some()).then(|| Difference {
            kind: key.0.as_str(),
            name: String::from_utf8_lossy(&key.1).into_owned(),
            table_is,
            snapshot_is,
            rejected: snapshot_is.is_none() && self.is_rejected(key),
            redis: redis.cloned(),
            table: table.cloned(),
            snapshot: snapshot.flatten().cloned(),
        })
    }

    /// Whether the module rejects routes of the key, and the table has no others than Redis.
    fn is_rejected(&self, key: &(Kind, Vec<u8>)) -> bool {
        if self.too_large.contains(key) {
            return true;
        }
        let (Some(redis), true) = (self.redis.get(key), self.rejected.contains(key)) else { return false };
        let is_known = |(pattern, urls): (&String, &BTreeSet<String>)| {
            redis.get(pattern).is_some_and(|expected| urls.is_subset(expected))
        };
        self.table.get(key).is_none_or(|table| table.iter().all(is_known))
    }
}

/// A tool or domain whose routes are all invalid may be missing from the table, or be there without routes.
fn has_place(kind: Kind, routes: &Routes) -> bool {
    kind == Kind::Redirect || !routes.is_empty()
}

/// What `found` is, compared with `expected`.
fn compared(expected: Option<&Routes>, found: Option<&Routes>) -> Option<&'static str> {
    match (expected, found) {
        (None, Some(found)) if found.is_empty() => None,
        (None, Some(_)) => Some("extra"),
        (Some(_), None) => Some("missing"),
        (Some(expected), Some(found)) if expected != found => Some("different"),
        _ => None,
    }
}

fn print(console: &mut Console, sides: &Sides, differences: &[Difference]) -> Result<(), CtlError> {
    let mut table = TextTable::new(&["KIND", "NAME", "WHERE", "IS", "REDIS", "TABLE", "SNAPSHOT"]);
    for difference in differences {
        let routes = [&difference.redis, &difference.table, &difference.snapshot].map(shown);
        for (side, is) in [("table", difference.table_is), ("snapshot", difference.snapshot_is)] {
            let Some(is) = is else { continue };
            let is = match difference.rejected {
                true => Cell::text("rejected").styled(WARN),
                false => Cell::text(is).styled(BAD),
            };
            let name = [difference.kind, &difference.name, side].map(Cell::text);
            table.add(name.into_iter().chain([is]).chain(routes.iter().map(Cell::text)));
        }
    }
    if !table.is_empty() {
        console.table(&table)?;
        console.line("")?;
    }
    let snapshot = sides.snapshot.as_ref().map(|side| format!(", snapshot {}", count(side.len() as u64)));
    let sizes = format!(
        "records: Redis {}, table {}{}",
        count(sides.redis.len() as u64),
        count(sides.table.len() as u64),
        snapshot.unwrap_or_default()
    );
    let differing = differences.iter().filter(|difference| !difference.rejected).count() as u64;
    // A key without any valid route is no difference, but explains why Redis has more records.
    let rejected = match sides.rejected.len() as u64 {
        0 => String::new(),
        number => format!("; {} with rejected routes, see: urlproxyctl rejected", counted(number, "record")),
    };
    match differing {
        0 => console.line(format_args!("{GOOD}in step{GOOD:#}; {sizes}{rejected}"))?,
        number => console.line(format_args!("{BAD}{}{BAD:#}; {sizes}{rejected}", counted(number, "difference")))?,
    }
    Ok(())
}

fn shown(routes: &Option<Routes>) -> String {
    let Some(routes) = routes else { return "-".into() };
    if routes.is_empty() {
        return "yes".into();
    }
    let shown = routes.iter().map(|(pattern, urls)| {
        let urls: Vec<_> = urls.iter().map(String::as_str).collect();
        format!("{pattern} {}", urls.join(","))
    });
    shown.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(url: &str) -> Routes {
        Routes::from([(".*".to_owned(), BTreeSet::from([url.to_owned()]))])
    }

    fn side(names: &[(&str, &str)]) -> Side {
        names.iter().map(|(name, url)| ((Kind::Tool, name.as_bytes().to_vec()), routes(url))).collect()
    }

    #[test]
    fn keys_are_missing_extra_or_different() {
        let sides = Sides {
            redis: side(&[("same", "a"), ("moved", "a"), ("new", "a"), ("bad", "a")]),
            table: side(&[("same", "a"), ("moved", "b"), ("held", "a"), ("large", "a")]),
            snapshot: Some(side(&[("same", "a"), ("moved", "b"), ("old", "a"), ("large", "a")])),
            rejected: BTreeSet::from([(Kind::Tool, b"bad".to_vec())]),
            too_large: BTreeSet::from([(Kind::Tool, b"large".to_vec())]),
        };
        let found: Vec<_> = sides
            .differences()
            .into_values()
            .map(|difference| (difference.name, difference.table_is, difference.snapshot_is, difference.rejected))
            .collect();
        let found: Vec<_> = found.iter().map(|(name, t, s, r)| (name.as_str(), *t, *s, *r)).collect();
        assert_eq!(
            found,
            [
                ("bad", Some("missing"), None, true),
                ("held", Some("extra"), Some("missing"), false),
                ("large", Some("extra"), None, true),
                ("moved", Some("different"), None, false),
                ("new", Some("missing"), None, false),
                ("old", None, Some("extra"), false),
            ]
        );
    }

    #[test]
    fn a_side_that_follows_is_no_difference() {
        let difference = |redis: &str, table: &str, snapshot: &str| {
            let sides = Sides {
                redis: side(&[("a", redis)]),
                table: side(&[("a", table)]),
                snapshot: Some(side(&[("a", snapshot)])),
                rejected: BTreeSet::new(),
                too_large: BTreeSet::new(),
            };
            sides.differences().into_values().next().unwrap()
        };
        let found = |first: Difference, mut later: Difference| {
            later.stays(&first).then_some((later.table_is, later.snapshot_is))
        };
        let different = Some("different");
        assert_eq!(found(difference("2", "1", "0"), difference("4", "3", "2")), None);
        assert_eq!(found(difference("2", "1", "0"), difference("4", "1", "1")), Some((different, None)));
        assert_eq!(found(difference("2", "2", "0"), difference("4", "4", "0")), Some((None, different)));
        assert_eq!(found(difference("2", "1", "1"), difference("2", "1", "1")), Some((different, None)));
    }

    #[test]
    fn expected_routes_are_those_that_the_module_admits() {
        let hash = |fields: &[(&str, &str)]| {
            Entry::Hash(fields.iter().map(|(f, v)| (f.as_bytes().to_vec(), v.as_bytes().to_vec())).collect())
        };
        let found = routes_of(Kind::Tool, b"a", &hash(&[(".*", "HTTP://10.0.0.1/"), ("(", "http://h:1")]));
        assert_eq!(found, Some(routes("http://10.0.0.1:80")));
        assert_eq!(routes_of(Kind::Redirect, b"a", &hash(&[(".*", "a.b")])), Some(Routes::new()));
        assert_eq!(routes_of(Kind::Redirect, b"A.b", &hash(&[(".*", "a.b")])), None);
        assert_eq!(routes_of(Kind::Domain, b"a.b", &hash(&[(".*", "http://h:1")])), None);
        assert_eq!(routes_of(Kind::Tool, b"a", &Entry::WrongType), None);
    }
}
