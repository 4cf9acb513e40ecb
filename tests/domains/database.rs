//! The database of invisible-unicorn: imports, versions, backups, the lock, the audit log.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use rusqlite::Connection;

use crate::site::{A, B, Site, frontends, mappings_in, one, run, start, wait_until_equal, wanted};
use crate::support::redis::RedisServer;

#[test]
fn empty_import_leaves_domains_in_redis_foreign() {
    let (site, redis, unicorn) = start(&[]);
    redis.cli(&["SADD", "frontend:foreign.example.org", A]);
    drop(unicorn);
    site.open().execute_batch("DELETE FROM mark").unwrap();
    let old = site.path("data.db");
    let tables: String = OLD.lines().filter(|line| line.contains("CREATE TABLE")).collect();
    Connection::open(&old).unwrap().execute_batch(&tables).unwrap();
    let (status, output, error) = site.run(&["import", old.to_str().unwrap()]);
    assert_eq!((status, output.as_str()), (0, "0 imported, 0 already present, 0 skipped\n"), "{error}");
    let marks: i64 = site.open().query_row("SELECT count(*) FROM mark", [], |row| row.get(0)).unwrap();
    assert_eq!((marks, frontends(&redis).len()), (0, 1));
}

#[test]
fn backup_never_overwrites_the_database() {
    let (site, _redis, unicorn) = start(&[]);
    unicorn.put("tools", "a.example.org", &[A]);
    std::os::unix::fs::symlink(site.database(), site.path("link.db")).unwrap();
    for name in ["domains.db", "domains.db-wal", "domains.db-shm", "domains.db.lock", "link.db"] {
        let (status, _, error) = site.run(&["backup", site.path(name).to_str().unwrap()]);
        assert!(status == 1 && error.contains("is the database itself"), "{name}: {status} {error}");
    }
    assert_eq!(site.mappings(), [one("a.example.org", A)]);
}

const OLD: &str = "
    PRAGMA foreign_keys = OFF;
    CREATE TABLE project(id INTEGER PRIMARY KEY, name VARCHAR(256) UNIQUE);
    CREATE TABLE route(id INTEGER PRIMARY KEY, domain VARCHAR(256) UNIQUE, project_id INTEGER REFERENCES project(id));
    CREATE TABLE backend(id INTEGER PRIMARY KEY, url VARCHAR(256), route_id INTEGER REFERENCES route(id));
    INSERT INTO project VALUES (1, 'tools'), (2, 'other'), (3, 'no good');
    INSERT INTO route VALUES (1, 'One.example.org', 1), (2, 'a_b.example.org', 1), (3, 'two.example.org', 2),
        (4, 'orphan.example.org', NULL), (5, 'empty.example.org', 1), (6, 'three.example.org', 3),
        (7, 'taken.example.org', 2), (8, 'one.example.org.', 1), (9, NULL, 1), (10, 'local.example.org', 1), (11, 'lost.example.org', 77);
    INSERT INTO backend(url, route_id) VALUES ('HTTP://10.0.0.1/', 1), ('http://10.0.0.1:80', 1), ('http://10.0.0.2', 1),
        ('http://10.0.0.1:80', 2), ('http://10.0.0.1', 3), ('nonsense', 3), ('http://10.0.0.9:80', NULL),
        ('http://10.0.0.9:80', 99), ('http://10.0.0.1:80', 6), ('http://10.0.0.1:80', 7), ('http://10.0.0.1:80', 8),
        ('http://169.254.0.1:80', 10), (NULL, 1), (x'ff', 1);";

#[test]
fn import_takes_valid_rows_and_reports_the_others() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let old = site.path("data.db");
    Connection::open(&old).unwrap().execute_batch(OLD).unwrap();
    let before = fs::read(&old).unwrap();
    let old = old.to_str().unwrap();
    // Written by the old API.
    redis.cli(&["SADD", "frontend:two.example.org", A]);
    redis.cli(&["SADD", "frontend:a_b.example.org", A]);
    let unicorn = site.start(&redis, &[]);
    unicorn.daemon.wait_for_line(&["WARN", "import the old database"]);
    unicorn.put("tools", "taken.example.org", &[B]);
    let (status, output, error) = site.run(&["import", old]);
    assert_eq!(status, 0, "{error}");
    for line in [
        "imported domain \"One.example.org\" of project \"tools\"",
        "imported domain \"two.example.org\" of project \"other\"",
        "skipped backend \"nonsense\" of domain \"two.example.org\": backend \"nonsense\" has no scheme",
        "skipped domain \"a_b.example.org\" of project \"tools\": domain \"a_b.example.org\" is not a host name (RFC 1123)",
        "skipped domain \"orphan.example.org\": it belongs to no project",
        "skipped domain \"lost.example.org\": it belongs to no project",
        "skipped domain \"empty.example.org\" of project \"tools\": it has no backends",
        "skipped domain \"three.example.org\" of project \"no good\": invalid project",
        "skipped domain \"taken.example.org\" of project \"other\": Domain is taken",
        "skipped backend \"http://169.254.0.1:80\" of domain \"local.example.org\": backend http://169.254.0.1:80 is a link-local",
        "skipped backend \"http://10.0.0.9:80\": it belongs to no route",
        "skipped route number 9: it has no domain",
        "it has no URL",
        "2 imported, 1 already present, 14 skipped",
    ] {
        assert!(output.contains(line), "{line:?} in {output}");
    }
    let imported = [
        ("one.example.org".to_owned(), vec![A.to_owned(), "http://10.0.0.2:80".to_owned()]),
        one("taken.example.org", B),
        one("two.example.org", A),
    ];
    assert_eq!(site.mappings(), imported);
    // The server notices the import; domains that it refused are removed.
    wait_until_equal(&site, &redis);
    assert_eq!(fs::read(old).unwrap(), before, "the old database is unchanged");
    let (status, output, _) = site.run(&["import", old]);
    assert_eq!((status, output.contains("0 imported, 3 already present, 14 skipped")), (0, true), "{output}");
    assert_eq!(site.mappings(), imported);
    // Another import does not undo later changes.
    assert_eq!(unicorn.say("POST", "/v1/tools/mapping/one.example.org", &wanted("one.example.org", &[B])).0, 200);
    assert_eq!(site.run(&["import", old]).0, 0);
    assert_eq!(site.mappings()[0], one("one.example.org", B));
    let (status, _, error) = site.run(&["import", site.path("missing.db").to_str().unwrap()]);
    assert!(status == 1 && error.contains("expected the old API's data.db"), "{error}");
    // The old database cannot be served.
    let (status, _, error) = run(&["--database", old, "token", "list"]);
    assert!(
        status == 1 && error.contains("is not a database of invisible-unicorn") && error.contains("import"),
        "{error}"
    );
    assert_eq!(fs::read(old).unwrap(), before);
}

/// A database of the first version.
const VERSION_1: &str = include_str!("../samples/domains/version_1.sql");

#[test]
fn databases_of_earlier_versions_are_migrated() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    site.open().execute_batch(VERSION_1).unwrap();
    let unicorn = site.start(&redis, &[]);
    assert_eq!(frontends(&redis), [one("a.example.org", A)]);
    assert_eq!(site.open().query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0)).unwrap(), 3);
    unicorn.put("tools", "a.example.org", &[B]);
    assert!(site.run(&["audit"]).1.contains("\tput\ta.example.org\t"));
}

#[test]
fn databases_of_later_versions_and_other_files_are_refused() {
    let site = Site::new();
    assert_eq!(site.run(&["token", "create", "tools"]).0, 0);
    site.open().execute_batch("PRAGMA user_version = 4").unwrap();
    let before = fs::read(site.database()).unwrap();
    let redis = RedisServer::start(&[]);
    let (status, _, error) = site.run(&["--listen", "127.0.0.1:0", "--redis", &redis.url()]);
    assert!(status == 1 && error.contains("has version 4, expected at most 3"), "{error}");
    assert_eq!(fs::read(site.database()).unwrap(), before);
    fs::write(site.database(), "nonsense ".repeat(1000)).unwrap();
    let (status, _, error) = site.run(&["token", "list"]);
    assert!(status == 1 && error.contains("not a database"), "{error}");
}

#[test]
fn database_has_one_server_and_mode_0600() {
    let (site, redis, unicorn) = start(&[]);
    let mode = |name: &str| fs::metadata(site.path(name)).unwrap().permissions().mode() & 0o777;
    unicorn.put("tools", "a.example.org", &[A]);
    for name in ["domains.db", "domains.db-wal", "domains.db-shm", "domains.db.lock"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    let (status, _, error) = site.run(&["--listen", "127.0.0.1:0", "--redis", &redis.url()]);
    assert!(status == 1 && error.contains("another invisible-unicorn serves database"), "{error}");
    drop(unicorn);
    let _again = site.start(&redis, &[]);
}

#[test]
fn backup_is_consistent_during_writes() {
    let (site, _redis, unicorn) = start(&["--max-domains", "100000", "--max-total-domains", "1000000"]);
    // Large enough for several steps.
    site.open()
        .execute_batch(
            "INSERT INTO project(name) VALUES ('many');
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 240000)
             INSERT INTO domain(name, project) SELECT 'd' || i || '.example.org', 1 FROM n;
             INSERT INTO backend(domain, url) SELECT id, 'http://10.0.0.1:80' FROM domain;",
        )
        .unwrap();
    let copy = site.path("copy.db");
    thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for number in 0..200 {
                unicorn.put("tools", "pair-a.example.org", &[&format!("http://10.1.0.1:{}", number + 1)]);
                let body = wanted("pair-a.example.org", &[A]);
                assert_eq!(unicorn.say("POST", "/v1/tools/mapping/pair-a.example.org", &body).0, 200);
            }
        });
        for _ in 0..3 {
            let (status, output, error) = site.run(&["backup", copy.to_str().unwrap()]);
            assert_eq!(status, 0, "{error}");
            assert!(output.contains("pages copied to"), "{output}");
            // Writes do not restart it.
            let steps: Vec<u64> =
                error.lines().map(|line| line.split(' ').next().unwrap().parse().expect("a number")).collect();
            assert!(steps.len() > 4 && steps.is_sorted_by(|a, b| a < b), "{steps:?}");
            let connection = Connection::open(&copy).unwrap();
            let integrity: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
            assert_eq!(integrity, "ok");
            drop(connection);
            assert!(mappings_in(&copy).len() >= 240_000);
            assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        }
        writing.join().unwrap();
    });
    let left = fs::read_dir(copy.parent().unwrap()).unwrap().flatten();
    assert!(left.map(|entry| entry.file_name()).all(|name| !name.to_string_lossy().contains("tmp")));
    let (status, _, error) = site.run(&["backup", "/nowhere/copy.db"]);
    assert!(status == 1 && error.contains("/nowhere/copy.db"), "{error}");
}

#[test]
fn audit_log_says_who_did_what() {
    let (site, _redis, unicorn) = start(&[]);
    unicorn.put("tools", "a.example.org", &[A]);
    unicorn.put("tools", "a.example.org", &[A]);
    unicorn.put("tools", "a.example.org", &[B]);
    assert_eq!(unicorn.say("POST", "/v1/tools/mapping/a.example.org", &wanted("b.example.org", &[B])).0, 200);
    assert_eq!(unicorn.say("DELETE", "/v1/tools/mapping/b.example.org", "").0, 200);
    unicorn.put("other", "c.example.org", &[A]);
    assert_eq!(unicorn.say("PUT", "/v1/tools/mapping", &wanted("c.example.org", &[A])).0, 409);
    let json = |domain: &str, backends: &[&str]| wanted_in_order(domain, backends);
    let audit = |args: &[&str]| {
        let (status, text, error) = site.run(&[&["audit"], args].concat());
        assert_eq!(status, 0, "{error}");
        // Without the time.
        text.lines().map(|line| line.split_once('\t').unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    let all = [
        format!("127.0.0.1\ttools\tput\ta.example.org\t-\t{}", json("a.example.org", &[A])),
        format!(
            "127.0.0.1\ttools\tput\ta.example.org\t{}\t{}",
            json("a.example.org", &[A]),
            json("a.example.org", &[A, B])
        ),
        format!(
            "127.0.0.1\ttools\trename\ta.example.org\t{}\t{}",
            json("a.example.org", &[A, B]),
            json("b.example.org", &[B])
        ),
        format!("127.0.0.1\ttools\tdelete\tb.example.org\t{}\t-", json("b.example.org", &[B])),
        format!("127.0.0.1\tother\tput\tc.example.org\t-\t{}", json("c.example.org", &[A])),
    ];
    assert_eq!(audit(&[]), all);
    assert_eq!(audit(&["--project", "tools"]), all[..4]);
    assert_eq!(audit(&["--domain", "b.example.org"]), all[2..4]);
    assert_eq!(audit(&["--limit", "1"]), all[4..]);
    unicorn.daemon.wait_for_line(&[
        "INFO",
        "changed",
        "project=\"tools\"",
        "action=\"rename\"",
        "to=\"b.example.org\"",
        "who=",
    ]);
    unicorn.daemon.wait_for_line(&["INFO", "refused", "status=409"]);
    // Tokens too.
    for args in [&["token", "create", "bank"][..], &["token", "revoke", "1"]] {
        assert_eq!(site.run(args).0, 0);
    }
    let user = std::process::Command::new("id").arg("-un").output().unwrap().stdout;
    let user = String::from_utf8(user).unwrap();
    let row = |action: &str| format!("user {}\tbank\t{action} token\ttoken 1\t-\t-", user.trim());
    assert_eq!(audit(&["--project", "bank"]), [row("create"), row("revoke")]);
}

fn wanted_in_order(domain: &str, backends: &[&str]) -> String {
    format!(
        "{{\"domain\":{domain:?},\"backends\":[{}]}}",
        backends.iter().map(|b| format!("{b:?}")).collect::<Vec<_>>().join(",")
    )
}
