//! invisible-unicorn as its operator meets it: Redis down, emptied or written by others, old databases, backups, command line.

#[path = "common/domains.rs"]
mod domains;
#[path = "common/http.rs"]
mod http;
#[path = "common/listener.rs"]
mod listener;
#[path = "common/port.rs"]
mod port;
#[path = "common/redis.rs"]
mod redis_server;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;
use std::time::{Duration, Instant};

use domains::{Site, Unicorn, frontends, mappings_in, run, wanted};
use listener::wait_for;
use redis_server::RedisServer;
use rusqlite::Connection;

const A: &str = "http://10.0.0.1:80";
const B: &str = "http://10.0.0.2:8080";

fn start(extra_args: &[&str]) -> (Site, RedisServer, Unicorn) {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let unicorn = site.start(&redis, extra_args);
    (site, redis, unicorn)
}

fn one(domain: &str, backend: &str) -> (String, Vec<String>) {
    (domain.into(), vec![backend.into()])
}

#[track_caller]
fn wait_until_equal(site: &Site, redis: &RedisServer) {
    wait_for("Redis has what the database has", || frontends(redis) == site.mappings());
}

#[test]
fn a_change_is_in_redis_when_it_is_answered() {
    let (_site, redis, unicorn) = start(&[]);
    for number in 0..50 {
        let domain = format!("d{number}.example.org");
        assert_eq!(unicorn.put("tools", &domain, &[A]).header("urlproxy-replicated"), Some("yes"));
        assert_eq!(redis.cli(&["SMEMBERS", &format!("frontend:{domain}")]), A);
    }
    wait_for("counted", || unicorn.metric("invisible_unicorn_domains") == 50.0);
    assert_eq!(unicorn.metric("invisible_unicorn_requests_total{method=\"PUT\",status=\"200\"}"), 50.0);
}

#[test]
fn changes_made_while_redis_is_down_are_there_when_it_is_back() {
    let (site, mut redis, unicorn) = start(&[]);
    unicorn.put("tools", "gone.example.org", &[A]);
    redis.stop();
    unicorn.daemon.wait_for_line(&["WARN", "Redis does not follow the database"]);
    assert_eq!(unicorn.put("tools", "new.example.org", &[B]).header("urlproxy-replicated"), Some("pending"));
    assert_eq!(unicorn.say("DELETE", "/v1/tools/mapping/gone.example.org", ""), (200, "deleted".into()));
    wait_for("counted", || unicorn.metric("invisible_unicorn_waiting_changes") == 2.0);
    assert!(unicorn.is_ready(), "once ready, ready");
    redis.start_again();
    redis.cli(&["SADD", "frontend:gone.example.org", A]);
    wait_until_equal(&site, &redis);
    unicorn.daemon.wait_for_line(&["INFO", "Redis follows the database again"]);
    assert_eq!(unicorn.daemon.log().matches("WARN Redis does not follow").count(), 1);
    wait_for("counted", || unicorn.metric("invisible_unicorn_waiting_changes") == 0.0);
}

#[test]
fn a_server_starts_and_serves_without_redis() {
    let (site, mut redis) = (Site::new(), RedisServer::start(&[]));
    redis.stop();
    let unicorn = site.launch(&redis, &[]);
    assert_eq!(unicorn.put("tools", "a.example.org", &[A]).header("urlproxy-replicated"), Some("pending"));
    assert!(!unicorn.is_ready());
    redis.start_again();
    wait_for("ready", || unicorn.is_ready());
    wait_until_equal(&site, &redis);
}

#[test]
fn a_redis_that_hangs_costs_a_second_and_loses_nothing() {
    let (site, redis, unicorn) = start(&[]);
    redis.signal("STOP");
    let begun = Instant::now();
    let answer = unicorn.put("tools", "a.example.org", &[A]);
    assert_eq!(answer.header("urlproxy-replicated"), Some("pending"));
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    unicorn.daemon.wait_for_line(&["WARN", "Redis does not follow", "no reply within"]);
    unicorn.put("tools", "a.example.org", &[B]);
    redis.signal("CONT");
    wait_until_equal(&site, &redis);
}

#[test]
fn an_emptied_redis_is_filled_again() {
    let (site, mut redis, unicorn) = start(&[]);
    for number in 0..30 {
        unicorn.put("tools", &format!("d{number}.example.org"), &[A, B]);
    }
    let begun = Instant::now();
    redis.cli(&["FLUSHALL"]);
    wait_until_equal(&site, &redis);
    eprintln!("filled again {:?} after FLUSHALL", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(3));
    redis.stop();
    redis.start_again();
    wait_until_equal(&site, &redis);
    unicorn.daemon.wait_for_line(&["INFO", "Redis differed from the database, and was put right", "written=30"]);
}

#[test]
fn what_others_do_to_domains_is_undone() {
    let (site, redis, unicorn) = start(&[]);
    unicorn.put("tools", "a.example.org", &[A, B]);
    unicorn.put("tools", "b.example.org", &[A]);
    let undone = |command: &[&str]| {
        let begun = Instant::now();
        redis.cli(command);
        wait_until_equal(&site, &redis);
        eprintln!("{:?} after {command:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(4), "{command:?}");
    };
    for command in [
        &["SADD", "frontend:a.example.org", "http://10.6.6.6:80"][..],
        &["SREM", "frontend:a.example.org", A],
        &["DEL", "frontend:a.example.org"],
        &["SET", "frontend:a.example.org", "x"],
        &["RENAME", "frontend:b.example.org", "frontend:stranger.example.org"],
        &["PEXPIRE", "frontend:a.example.org", "1"],
        &["SADD", "frontend:stranger.example.org", A],
        &["SADD", "frontend:", A],
        &["SADD", "frontend:\\xff", A],
    ] {
        undone(command);
    }
    redis.cli(&["SADD", "prefix:tool", "x"]);
    assert_eq!(redis.cli(&["SMEMBERS", "prefix:tool"]), "x", "no domain's");
    unicorn.daemon.wait_for_line(&["WARN", "somebody else writes domains in this Redis", "a.example.org"]);
    assert_eq!(unicorn.daemon.log().matches("WARN somebody else").count(), 1);
}

#[test]
fn two_servers_on_one_redis_do_not_hold_changes_up() {
    let (site, redis, unicorn) = start(&[]);
    let other_site = Site::new();
    unicorn.put("tools", "a.example.org", &[A]);
    let other = other_site.launch(&redis, &[]);
    other.put("tools", "a.example.org", &[B]);
    for server in [&unicorn, &other] {
        server.daemon.wait_for_line(&["WARN", "somebody else writes domains in this Redis"]);
    }
    let written = || unicorn.metric("invisible_unicorn_differences_total{kind=\"written\"}");
    wait_for("a fight of ten rounds", || written() > 10.0);
    let (begun, before) = (Instant::now(), written());
    for number in 0..20 {
        let answer = unicorn.put("tools", &format!("d{number}.example.org"), &[A]);
        assert_eq!(answer.header("urlproxy-replicated"), Some("yes"));
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert!(written() - before < 20.0 + 10.0 * took.as_secs_f64(), "they slow down");
    assert_eq!(unicorn.daemon.log().matches("WARN somebody else").count(), 1);
    drop(other);
    wait_until_equal(&site, &redis);
}

#[test]
fn what_no_push_tells_of_is_found_by_the_comparison() {
    let (site, redis, unicorn) = start(&["--resync-interval", "500ms"]);
    unicorn.put("tools", "a.example.org", &[A]);
    assert_eq!(redis.cli(&["SWAPDB", "0", "1"]), "OK");
    wait_until_equal(&site, &redis);
}

#[test]
fn a_start_puts_right_what_differs_both_ways() {
    let (site, redis, unicorn) = start(&[]);
    for name in ["a", "b", "c"] {
        unicorn.put("tools", &format!("{name}.example.org"), &[A]);
    }
    wait_until_equal(&site, &redis);
    drop(unicorn);
    redis.cli(&["DEL", "frontend:a.example.org"]);
    redis.cli(&["SADD", "frontend:b.example.org", B]);
    redis.cli(&["SADD", "frontend:stranger.example.org", B]);
    let unicorn = site.start(&redis, &[]);
    assert_eq!(frontends(&redis), site.mappings());
    unicorn.daemon.wait_for_line(&["put right", "written=2", "withdrawn=1", "domains=3"]);
    assert_eq!(unicorn.metric("invisible_unicorn_differences_total{kind=\"withdrawn\"}"), 1.0);
}

#[test]
fn a_database_that_never_held_a_domain_removes_nothing() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let stranger = one("stranger.example.org", A);
    redis.cli(&["SADD", "frontend:stranger.example.org", A]);
    let unicorn = site.start(&redis, &["--resync-interval", "200ms"]);
    unicorn.daemon.wait_for_line(&["WARN", "Redis has domains that this database never had", "strangers=1"]);
    // Nor when it has got one.
    unicorn.put("tools", "a.example.org", &[A]);
    let compared = || unicorn.daemon.log().matches("Redis agrees with the database").count();
    let before = compared();
    wait_for("five more comparisons", || compared() > before + 5);
    assert_eq!(frontends(&redis), [one("a.example.org", A), stranger]);
    assert_eq!(unicorn.daemon.log().matches("WARN Redis has domains").count(), 1);
    assert_eq!(unicorn.metric("invisible_unicorn_held_domains"), 1.0);
    fs::write(site.accept(), "").unwrap();
    wait_until_equal(&site, &redis);
    assert_eq!(frontends(&redis), [one("a.example.org", A)]);
    unicorn.daemon.wait_for_line(&["WARN", "accepted by the operator"]);
    // From now on it is the database's own.
    redis.cli(&["SADD", "frontend:stranger.example.org", A]);
    wait_until_equal(&site, &redis);
}

#[test]
fn most_domains_at_once_are_held_back() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let guard = format!("50% floor=5 hold=1h accept={}", site.accept().display());
    let args = ["--withdrawal-guard", &guard, "--resync-interval", "200ms"];
    let unicorn = site.start(&redis, &args);
    for number in 0..10 {
        unicorn.put("tools", &format!("d{number}.example.org"), &[A]);
    }
    drop(unicorn);
    // A database of yesterday: most are missing.
    site.open().execute_batch("PRAGMA foreign_keys = ON; DELETE FROM domain WHERE name > 'd1'").unwrap();
    assert_eq!(site.mappings().len(), 1);
    let unicorn = site.start(&redis, &args);
    unicorn.daemon.wait_for_line(&["WARN", "the database lacks domains that Redis has", "missing=9", "live=10"]);
    // What a project deletes goes at once, hold or no hold.
    assert_eq!(unicorn.say("DELETE", "/v1/tools/mapping/d0.example.org", "").0, 200);
    assert_eq!(frontends(&redis).len(), 9);
    assert_eq!(unicorn.metric("invisible_unicorn_held_domains"), 9.0);
    fs::write(site.accept(), "").unwrap();
    wait_until_equal(&site, &redis);
    unicorn.daemon.wait_for_line(&["WARN", "withdrawing the domains that the database lacks", "accepted"]);
}

#[test]
fn a_larger_database_of_another_redis_does_not_empty_this_one() {
    let (site, elsewhere, redis) = (Site::new(), RedisServer::start(&[]), RedisServer::start(&[]));
    let guard = format!("50% floor=5 hold=1h accept={}", site.accept().display());
    let args = ["--withdrawal-guard", &guard, "--resync-interval", "200ms"];
    let unicorn = site.start(&elsewhere, &args);
    for number in 0..12 {
        unicorn.put("tools", &format!("d{number}.example.org"), &[A]);
        redis.cli(&["SADD", &format!("frontend:other{number}.example.org"), A]);
    }
    drop(unicorn);
    redis.cli(&["SREM", "frontend:other0.example.org", A]);
    let unicorn = site.start(&redis, &args);
    unicorn.daemon.wait_for_line(&["WARN", "the database lacks domains that Redis has", "missing=11", "live=11"]);
    assert_eq!(frontends(&redis).len(), 23);
}

#[test]
fn an_import_of_nothing_does_not_make_redis_the_databases() {
    let (site, redis, unicorn) = start(&[]);
    redis.cli(&["SADD", "frontend:stranger.example.org", A]);
    drop(unicorn);
    site.open().execute_batch("DELETE FROM mark").unwrap();
    let old = site.path("data.db");
    let tables: String = OLD.lines().filter(|line| line.contains("CREATE TABLE")).collect();
    Connection::open(&old).unwrap().execute_batch(&tables).unwrap();
    let (status, told, error) = site.run(&["import", old.to_str().unwrap()]);
    assert_eq!((status, told.as_str()), (0, "0 imported, 0 there already, 0 skipped\n"), "{error}");
    let marks: i64 = site.open().query_row("SELECT count(*) FROM mark", [], |row| row.get(0)).unwrap();
    assert_eq!((marks, frontends(&redis).len()), (0, 1));
}

#[test]
fn a_backup_never_takes_the_place_of_the_database() {
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
    INSERT INTO backend(url, route_id) VALUES ('http://10.0.0.1:80', 1), ('http://10.0.0.1:80', 1), ('http://10.0.0.2:80', 1),
        ('http://10.0.0.1:80', 2), ('http://10.0.0.1:80', 3), ('nonsense', 3), ('http://10.0.0.9:80', NULL),
        ('http://10.0.0.9:80', 99), ('http://10.0.0.1:80', 6), ('http://10.0.0.1:80', 7), ('http://10.0.0.1:80', 8),
        ('http://169.254.0.1:80', 10), (NULL, 1), (x'ff', 1);";

#[test]
fn an_old_database_is_imported_as_far_as_it_may_be() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let old = site.path("data.db");
    Connection::open(&old).unwrap().execute_batch(OLD).unwrap();
    let before = fs::read(&old).unwrap();
    let old = old.to_str().unwrap();
    // What the old API wrote.
    redis.cli(&["SADD", "frontend:two.example.org", A]);
    redis.cli(&["SADD", "frontend:a_b.example.org", A]);
    let unicorn = site.start(&redis, &[]);
    unicorn.daemon.wait_for_line(&["WARN", "import the old database"]);
    unicorn.put("tools", "taken.example.org", &[B]);
    let (status, told, error) = site.run(&["import", old]);
    assert_eq!(status, 0, "{error}");
    for line in [
        "imported domain \"One.example.org\" of project \"tools\"",
        "imported domain \"two.example.org\" of project \"other\"",
        "skipped backend \"nonsense\" of domain \"two.example.org\": backend \"nonsense\" has no scheme",
        "skipped domain \"a_b.example.org\" of project \"tools\": domain \"a_b.example.org\" is no name by RFC 1123",
        "skipped domain \"orphan.example.org\": it belongs to no project",
        "skipped domain \"lost.example.org\": it belongs to no project",
        "skipped domain \"empty.example.org\" of project \"tools\": it has no backends",
        "skipped domain \"three.example.org\" of project \"no good\": invalid project",
        "skipped domain \"taken.example.org\" of project \"other\": Domain is taken",
        "skipped backend \"http://169.254.0.1:80\" of domain \"local.example.org\": backend http://169.254.0.1:80 is a link-local",
        "skipped backend \"http://10.0.0.9:80\": it belongs to no route",
        "skipped route number 9: it has no domain",
        "it has no URL",
        "2 imported, 1 there already, 14 skipped",
    ] {
        assert!(told.contains(line), "{line:?} in {told}");
    }
    let imported = [
        ("one.example.org".to_owned(), vec![A.to_owned(), "http://10.0.0.2:80".to_owned()]),
        one("taken.example.org", B),
        one("two.example.org", A),
    ];
    assert_eq!(site.mappings(), imported);
    // The server notices without being told; what the old API had and this one refuses goes.
    wait_until_equal(&site, &redis);
    assert_eq!(fs::read(old).unwrap(), before, "it stays as it is");
    let (status, told, _) = site.run(&["import", old]);
    assert_eq!((status, told.contains("0 imported, 3 there already, 14 skipped")), (0, true), "{told}");
    assert_eq!(site.mappings(), imported);
    // A project's later changes are not undone by another import.
    assert_eq!(unicorn.say("POST", "/v1/tools/mapping/one.example.org", &wanted("one.example.org", &[B])).0, 200);
    assert_eq!(site.run(&["import", old]).0, 0);
    assert_eq!(site.mappings()[0], one("one.example.org", B));
    let (status, _, error) = site.run(&["import", site.path("missing.db").to_str().unwrap()]);
    assert!(status == 1 && error.contains("expected the old API's data.db"), "{error}");
    // The old database is no new one.
    let (status, _, error) = run(&["--database", old, "token", "list"]);
    assert!(
        status == 1 && error.contains("is no database of invisible-unicorn") && error.contains("import"),
        "{error}"
    );
    assert_eq!(fs::read(old).unwrap(), before);
}

/// What the first version made.
const VERSION_1: &str = include_str!("samples/domains/version_1.sql");

#[test]
fn a_database_of_an_earlier_version_is_brought_up_to_date() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    site.open().execute_batch(VERSION_1).unwrap();
    let unicorn = site.start(&redis, &[]);
    assert_eq!(frontends(&redis), [one("a.example.org", A)]);
    assert_eq!(site.open().query_row("PRAGMA user_version", [], |row| row.get::<_, i32>(0)).unwrap(), 2);
    unicorn.put("tools", "a.example.org", &[B]);
    assert!(site.run(&["audit"]).1.contains("\tput\ta.example.org\t"));
}

#[test]
fn a_database_of_a_later_version_or_of_nobody_is_refused() {
    let site = Site::new();
    assert_eq!(site.run(&["token", "create", "tools"]).0, 0);
    site.open().execute_batch("PRAGMA user_version = 3").unwrap();
    let before = fs::read(site.database()).unwrap();
    let redis = RedisServer::start(&[]);
    let (status, _, error) = site.run(&["--listen", "127.0.0.1:0", "--redis", &redis.url()]);
    assert!(status == 1 && error.contains("has version 3, expected at most 2"), "{error}");
    assert_eq!(fs::read(site.database()).unwrap(), before);
    fs::write(site.database(), "nonsense ".repeat(1000)).unwrap();
    let (status, _, error) = site.run(&["token", "list"]);
    assert!(status == 1 && error.contains("not a database"), "{error}");
}

#[test]
fn one_database_has_one_server_and_one_owner() {
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
fn a_backup_is_of_one_moment_while_others_write() {
    let (site, _redis, unicorn) = start(&["--max-domains", "100000"]);
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
            let (status, told, error) = site.run(&["backup", copy.to_str().unwrap()]);
            assert_eq!(status, 0, "{error}");
            assert!(told.contains("pages copied to"), "{told}");
            // It does not begin anew for what others write meanwhile.
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
fn the_audit_log_says_who_did_what() {
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
}

fn wanted_in_order(domain: &str, backends: &[&str]) -> String {
    format!(
        "{{\"domain\":{domain:?},\"backends\":[{}]}}",
        backends.iter().map(|b| format!("{b:?}")).collect::<Vec<_>>().join(",")
    )
}

#[test]
fn sigterm_lets_requests_end_and_redis_follow() {
    let (site, redis, mut unicorn) = start(&[]);
    unicorn.put("tools", "a.example.org", &[A]);
    unicorn.daemon.signal("TERM");
    assert_eq!(unicorn.daemon.wait_for_end(), 0);
    unicorn.daemon.wait_for_line(&["INFO", "ended"]);
    assert!(unicorn.try_ask("GET", "/openapi.json", &[], "").is_err());
    assert_eq!(frontends(&redis), site.mappings());
    // Also while Redis is down.
    let (_site, mut redis, mut unicorn) = start(&[]);
    redis.stop();
    unicorn.put("tools", "a.example.org", &[A]);
    unicorn.daemon.signal("INT");
    assert_eq!(unicorn.daemon.wait_for_end(), 0);
}

/// As in the manual.
const ACL: &str = "ACL SETUSER invisible-unicorn on >password resetkeys ~frontend:* +select +ping +client|tracking +scan +del +sadd +smismember +scard +multi +exec";

#[test]
fn a_user_of_redis_needs_no_more_rights_than_the_manual_says() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    assert_eq!(redis.cli(&ACL.split_whitespace().collect::<Vec<_>>()), "OK");
    let url = redis.url().replace("//", "//invisible-unicorn:password@");
    let unicorn = site.start(&redis, &["--redis", &url]);
    unicorn.put("tools", "a.example.org", &[A, B]);
    redis.cli(&["SADD", "frontend:stranger.example.org", A]);
    redis.cli(&["DEL", "frontend:a.example.org"]);
    wait_until_equal(&site, &redis);
    assert_eq!(unicorn.say("DELETE", "/v1/tools/mapping/a.example.org", "").0, 200);
    assert_eq!(frontends(&redis), []);
    let log = unicorn.daemon.log();
    assert!(!log.contains("password") && !log.contains("NOPERM") && !log.contains("does not follow"), "{log}");
}

#[test]
fn the_command_line_teaches() {
    let (status, help, _) = run(&["--help"]);
    assert_eq!(status, 0);
    let lines = help.lines().filter(|line| line.trim_start().starts_with("--"));
    let options: Vec<_> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(options.len(), 15, "{options:?}");
    assert!(run(&["--version"]).1.starts_with("invisible-unicorn "));
    for (args, want) in [
        (&["--no-such-option"][..], "unexpected argument"),
        (&["--listen", "here"], "invalid socket address"),
        (&["--redis", "http://h:password@x"], "expected e.g. redis://"),
        (&["--allow-backend", "10.0.0.0/99"], "invalid value '10.0.0.0/99'"),
        (&["--max-backends", "65"], "expected 1 to 64"),
        (&["--withdrawal-guard", "half"], "expected e.g. \"50% floor=20"),
        (&["--protected-suffixes", "/nowhere"], "while reading --protected-suffixes \"/nowhere\""),
        (&["token", "create", "a b"], "invalid project \"a b\""),
        (&["token"], "create"),
        (&["import"], "required"),
    ] {
        let (status, _, error) = run(args);
        assert_eq!(status, 64, "{args:?}: {error}");
        assert!(error.contains(want) && !error.contains("password"), "{args:?}: {error}");
    }
    let (status, _, error) = run(&["--database", "/nowhere/x.db"]);
    assert!(status == 1 && error.contains("while opening database \"/nowhere/x.db\""), "{error}");
}
