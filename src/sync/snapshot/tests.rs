//! A snapshot file is used completely or not at all.

#[path = "../../../tests/support/need.rs"]
#[allow(dead_code, reason = "tests need more of it")]
mod need;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::time::{SystemTime, UNIX_EPOCH};

use proptest::prelude::*;

use need::need_root;

use super::*;
use crate::route::{Pattern, Route, RouteKey};
use crate::table::{Capacity, OwnedTable};

const CAPACITY: Capacity = Capacity { buckets: 16, cells: 200, tools: 64, health: 1, ..Capacity::NONE };

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn filled(synced_at: u64) -> OwnedTable {
    let owned = OwnedTable::new(CAPACITY);
    let (mut writer, _) = Writer::attach(owned.table());
    let route = |pattern: &str, urls: &[&str]| Route {
        pattern: Pattern::try_new(pattern).unwrap(),
        backends: urls.iter().map(|url| url.parse().unwrap()).collect(),
    };
    let key = |kind, text: &str| RouteKey::try_new(kind, text.as_bytes()).unwrap();
    let name = |text| key(Kind::Tool, text);
    let several = [route("^/a\"\\[0-9]+", &["https://[fd00::7]:443"]), route(".*", &["http://exec-1:80"])];
    writer.publish(&name("hello"), &several).unwrap();
    writer.publish(&name("ünïcode tool"), &[route(".*", &["http://10.0.0.1:1", "http://10.0.0.2:2"])]).unwrap();
    writer.publish(&name(""), &[route("/x", &["http://10.0.0.3:3"])]).unwrap();
    writer.publish(&key(Kind::Redirect, "hello"), &[]).unwrap();
    writer.publish(&key(Kind::Domain, "*.a.org"), &[route(".*", &["http://10.0.0.4:4", "http://10.0.0.5:5"])]).unwrap();
    writer.mark_synced(synced_at, 0, &Kind::ALL);
    owned
}

fn records(table: Table<'_>) -> Vec<SnapshotRecord> {
    let mut records = Vec::new();
    table.for_each(&mut Scratch::default(), |record| records.push(describe(&record).unwrap()));
    records.sort_by(|a, b| a.key.cmp(&b.key));
    records
}

fn settings(path: PathBuf) -> SnapshotSettings {
    SnapshotSettings { path, max_age: Duration::from_secs(7 * 86400), owners: vec![] }
}

#[test]
fn a_written_snapshot_is_restored() {
    let (from, to) = (filled(1234), OwnedTable::new(CAPACITY));
    let snapshot = Snapshot::parse(&encode(from.table())).unwrap();
    assert_eq!((snapshot.synced_at, snapshot.records.len()), (1234, 5));
    let mut rejected = Rejected::default();
    let tools = snapshot.restore(&mut Writer::attach(to.table()).0, &Admission::default(), &mut rejected);
    assert_eq!((tools, rejected.count()), (3, 0));
    assert_eq!(records(to.table()), records(from.table()));
    assert_eq!(to.table().header().synced_at(), 1234);
    assert_eq!(to.table().header().age_seconds(1334), Some(100));
    assert_eq!(to.table().header().known(), Kind::ALL);
    assert_eq!(to.table().header().loaded_from(), Some(crate::table::LoadedFrom::Snapshot));
}

#[test]
fn tools_without_built_routes_stay_known() {
    let (from, to) = (OwnedTable::new(CAPACITY), OwnedTable::new(CAPACITY));
    let waiting = RouteKey::try_new(Kind::Tool, b"waiting").unwrap();
    Writer::attach(from.table()).0.publish(&waiting, &[]).unwrap();
    let snapshot = Snapshot::parse(&encode(from.table())).unwrap();
    snapshot.restore(&mut Writer::attach(to.table()).0, &Admission::default(), &mut Rejected::default());
    assert_eq!(records(to.table()), [SnapshotRecord { key: "prefix:waiting".into(), routes: BTreeMap::new() }]);
}

#[test]
fn routes_no_longer_admitted_are_not_restored() {
    let to = OwnedTable::new(CAPACITY);
    let snapshot = Snapshot::parse(&encode(filled(1).table())).unwrap();
    let admission = Admission { networks: vec!["10.0.0.2/31".parse().unwrap()], own_sockets: vec![] };
    let mut rejected = Rejected::default();
    snapshot.restore(&mut Writer::attach(to.table()).0, &admission, &mut rejected);
    let kept: Vec<_> = records(to.table()).into_iter().map(|record| (record.key, record.routes)).collect();
    let routes = |pattern: &str, url: &str| BTreeMap::from([(pattern.to_owned(), vec![url.to_owned()])]);
    assert_eq!(
        kept,
        [
            ("prefix:".to_owned(), routes("/x", "http://10.0.0.3:3")),
            ("prefix:ünïcode tool".to_owned(), routes(".*", "http://10.0.0.2:2")),
            ("redirect:hello".to_owned(), BTreeMap::new()),
        ]
    );
    assert_eq!(rejected.count(), 5);
}

#[test]
fn unusable_files_are_refused_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    let table = filled(now());
    let good = encode(table.table());
    let text = String::from_utf8(good.clone()).unwrap();
    let path = |name: &str| dir.path().join(name);
    let refused = |name: &str| read(&settings(path(name)), table.table()).unwrap_err().to_string();
    assert_eq!(refused("nowhere"), "no such file");
    fs::create_dir(path("dir")).unwrap();
    assert_eq!(refused("dir"), "not a regular file");
    rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), rustix::fs::Mode::RUSR).unwrap();
    assert_eq!(refused("fifo"), "not a regular file");
    symlink("/dev/zero", path("link")).unwrap();
    assert!(refused("link").starts_with("Too many levels of symbolic links"), "{}", refused("link"));
    fs::write(path("large"), "").unwrap();
    fs::File::options().write(true).open(path("large")).unwrap().set_len(1 << 40).unwrap();
    assert!(refused("large").starts_with("1099511627776 bytes, expected at most "), "{}", refused("large"));
    for (name, bytes, want) in [
        ("empty", String::new(), "damaged: the first line is not a snapshot's header"),
        ("other", "hello\n".into(), "damaged: the first line is not a snapshot's header"),
        ("shadow", "root:*:1::\nx".into(), "damaged: the first line is not a snapshot's header"),
        ("later", text.replace("snapshot\":2", "snapshot\":3"), "format version 3, expected 2 or 1"),
        ("changed", text.replace("10.0.0.1", "10.0.0.9"), "damaged: wrong checksum"),
        ("short", text[..text.len() - 1].into(), "damaged: truncated"),
        ("half", text[..text.len() / 2].into(), "damaged: truncated"),
        ("old", text.replace(&now().to_string(), "1000000000"), "damaged: wrong checksum"),
    ] {
        fs::write(path(name), bytes).unwrap();
        assert_eq!(refused(name), want, "{name}");
    }
    fs::write(path("old"), encode(filled(now() - 8 * 86400).table())).unwrap();
    assert_eq!(refused("old"), "8.0 d old, expected at most 7.0 d");
    fs::write(path("future"), encode(filled(now() + 86400).table())).unwrap();
    let (_, age) = read(&settings(path("future")), table.table()).unwrap();
    assert_eq!(age, Duration::ZERO, "a clock that was set back does not age a snapshot");
    fs::write(path("good"), &good).unwrap();
    assert_eq!(read(&settings(path("good")), table.table()).unwrap().0.records.len(), 5);
}

#[test]
fn files_writable_for_other_users_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let table = filled(now());
    let path = dir.path().join("tools.snapshot");
    file::replace(&path, &encode(table.table())).unwrap();
    let outcome = |owners: &[u32]| {
        let settings = SnapshotSettings { owners: owners.into(), ..settings(path.clone()) };
        read(&settings, table.table()).map(|_| ()).map_err(|error| error.to_string())
    };
    let chmod = |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o600, 0o640, 0o644, 0o444, 0o755] {
        chmod(&path, mode);
        assert_eq!(outcome(&[]), Ok(()), "{mode:o}");
    }
    for mode in [0o620, 0o602, 0o666] {
        chmod(&path, mode);
        assert_eq!(
            outcome(&[]),
            Err(format!("the file is writable for users other than its owner (mode {mode:04o}), expected e.g. 0640"))
        );
    }
    chmod(&path, 0o640);
    for mode in [0o770, 0o707, 0o2775] {
        chmod(dir.path(), mode);
        let want =
            format!("its directory is writable for users other than its owner (mode {mode:04o}), expected e.g. 0755");
        assert_eq!(outcome(&[]), Err(want));
    }
    // Like /tmp.
    chmod(dir.path(), 0o1777);
    assert_eq!(outcome(&[]), Ok(()));
    // Only root can give files away.
    if !need_root() {
        return;
    }
    let want = |what: &str| Err(format!("{what} belongs to user 12345, expected root or the user that nginx runs as"));
    chown(&path, Some(12345), None).unwrap();
    assert_eq!((outcome(&[]), outcome(&[1]), outcome(&[1, 12345])), (want("the file"), want("the file"), Ok(())));
    chown(&path, Some(0), None).unwrap();
    chown(dir.path(), Some(12345), None).unwrap();
    assert_eq!((outcome(&[]), outcome(&[12345])), (want("its directory"), Ok(())));
}

#[test]
fn symbolic_links_are_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let table = filled(now());
    let path = dir.path().join("tools.snapshot");
    file::replace(&path, &encode(table.table())).unwrap();
    symlink(&path, dir.path().join("link")).unwrap();
    assert!(read(&settings(path), table.table()).is_ok());
    let error = read(&settings(dir.path().join("link")), table.table()).unwrap_err().to_string();
    assert!(error.starts_with("Too many levels of symbolic links"), "{error}");
}

#[test]
fn files_are_replaced_atomically() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tools.snapshot");
    file::replace(&path, b"one").unwrap();
    file::replace(&path, b"two").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    // A link in place of the temporary file is not followed.
    let victim = dir.path().join("victim");
    fs::write(&victim, "mine").unwrap();
    symlink(&victim, dir.path().join("tools.snapshot.tmp")).unwrap();
    assert!(matches!(file::replace(&path, b"three"), Err(SnapshotError::Io(_))));
    assert_eq!((fs::read(&victim).unwrap(), fs::read(&path).unwrap()), (b"mine".to_vec(), b"two".to_vec()));
    fs::remove_file(dir.path().join("tools.snapshot.tmp")).unwrap();
    let held = fs::File::create(dir.path().join("tools.snapshot.tmp")).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    assert!(matches!(file::replace(&path, b"four"), Err(SnapshotError::Busy)));
    drop(held);
    file::replace(&path, b"five").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"five");
    assert!(matches!(file::replace(&dir.path().join("no/dir"), b"six"), Err(SnapshotError::Io(_))));
}

#[test]
fn version_1_is_read() {
    let body = concat!(
        "{\"urlproxy_snapshot\":1,\"synced_at\":1234,\"tools\":1}\n",
        "{\"tool\":\"hello\",\"routes\":{\".*\":[\"http://10.0.0.7:8000\"]}}\n"
    );
    let foot = format!("{{\"checksum\":\"{}\"}}\n", Snapshot::checksum(body.as_bytes()));
    let snapshot = Snapshot::parse(format!("{body}{foot}").as_bytes()).unwrap();
    let to = OwnedTable::new(CAPACITY);
    let (admission, mut rejected) = (Admission::default(), Rejected::default());
    assert_eq!(snapshot.restore(&mut Writer::attach(to.table()).0, &admission, &mut rejected), 1);
    assert_eq!(records(to.table())[0].key, "prefix:hello");
    // Version 1 had no other kinds, so nothing is known about them.
    assert_eq!(to.table().header().known(), [Kind::Tool]);
}

proptest! {
    #[test]
    fn damaged_files_are_refused(at in any::<prop::sample::Index>(), flip in 1u8..=255, cut in any::<bool>()) {
        let mut bytes = encode(filled(1234).table());
        let at = at.index(bytes.len());
        if cut {
            bytes.truncate(at);
        } else {
            bytes[at] ^= flip;
        }
        prop_assert!(Snapshot::parse(&bytes).is_err());
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = Snapshot::parse(&bytes);
    }
}
