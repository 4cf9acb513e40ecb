//! `check` and `diff` with a real Redis.

use std::fs;

use serde_json::{Value, json};

use crate::fake_admin::{FakeAdmin, status};
use crate::program::{change, compare, fields};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

#[test]
fn check_finds_what_the_module_refuses_or_treats_differently() {
    let redis = RedisServer::start(&[]);
    let hash = |key: &str, fields: &[(&str, &str)]| {
        let fields = fields.iter().flat_map(|(field, value)| [*field, *value]);
        redis.cli(&["HSET", key].into_iter().chain(fields).collect::<Vec<_>>());
    };
    let (a, b) = ("http://10.0.0.1:80", "http://10.0.0.2:80");
    hash("prefix:fine", &[(".*", a)]);
    hash(
        "prefix:mixed",
        &[("a++", a), ("(?=x)", a), ("/path", "http://10.0.0.1:80/x"), ("/meta", "http://169.254.169.254")],
    );
    hash("prefix:order", &[(".*", a), ("/x", b)]);
    hash("prefix:end", &[("\\.php$", a)]);
    hash("prefix:escape", &[("\\v", a)]);
    hash("prefix:evil\u{1b}[2J", &[(".*", a)]);
    hash("prefix:\u{202e}evil", &[("(", "\u{202e}")]);
    let large: Vec<_> = (0..40).map(|i| (format!("/{i:02}"), a)).collect();
    hash("prefix:many", &large.iter().map(|(pattern, url)| (pattern.as_str(), *url)).collect::<Vec<_>>());
    redis.cli(&["SADD", "prefix:set", a]);
    redis.cli(&["SET", "prefix:string", "x"]);
    redis.cli(&["SADD", "frontend:WWW.a.org", a]);
    redis.cli(&["SADD", "frontend:www.a.org", a]);
    hash("frontend:hash.a.org", &[(".*", a)]);
    hash("redirect:order", &[(".*", "order.a.org")]);
    hash("redirect:end", &[(".*", "other.a.org")]);
    hash("redirect:no.host", &[(".*", "no.host.a.org")]);
    let run = change(&redis, &["check", "--json"]).expect(1).json();
    assert_eq!(fields(&run), ["findings", "keys"]);
    assert_eq!(run["keys"], 16);
    let findings = run["findings"].as_array().unwrap();
    assert_eq!(fields(&findings[0]), ["effect", "finding", "key", "kind", "name", "pattern", "text"]);
    let found: Vec<_> = findings
        .iter()
        .map(|finding| {
            let text = |name: &str| finding[name].as_str().unwrap_or("-");
            format!("{} {} {} {}", text("effect"), text("finding"), text("key"), text("pattern"))
        })
        .collect();
    assert_eq!(
        found,
        [
            "refused backend prefix:mixed /path",
            "refused name frontend:WWW.a.org -",
            "refused name prefix:evil\u{1b}[2J -",
            "refused name redirect:no.host -",
            "refused not_allowed prefix:mixed /meta",
            "refused pattern prefix:mixed (?=x)",
            "refused pattern prefix:mixed a++",
            "refused pattern prefix:\u{202e}evil (",
            "refused too_many prefix:many -",
            "refused wrong_type frontend:hash.a.org -",
            "refused wrong_type prefix:string -",
            "differs end_anchor prefix:end \\.php$",
            "differs escape prefix:escape \\v",
            "differs order prefix:order -",
            "differs redirect_host redirect:end .*",
            "differs set prefix:set -",
        ]
    );
    let text = change(&redis, &["check"]).expect(1);
    assert!(text.stdout.contains("prefix:\\u{202e}evil"), "{text:?}");
    assert!(text.stdout.ends_with("refused too_many: 1, refused wrong_type: 2\n"), "{text:?}");
    let ignored = [
        "check",
        "--ignore",
        "backend,name,not_allowed,pattern,too_many,wrong_type,end_anchor,escape,order,redirect_host,set",
    ];
    assert_eq!(change(&redis, &ignored).expect(0).stdout, "16 keys checked, no findings\n");
}

#[test]
fn check_knows_the_operators_limits() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:80"]);
    change(&redis, &["check"]).expect(0);
    let run = change(&redis, &["check", "--allow-backend", "192.168.0.0/16"]).expect(1);
    assert!(run.stdout.contains("outside the allowed networks"), "{run:?}");
    let pattern = format!("/{}", "\\.x".repeat(300));
    for i in 0..4 {
        redis.cli(&["HSET", "prefix:b", &format!("/{i}{pattern}"), "http://10.0.0.1:81"]);
    }
    change(&redis, &["check"]).expect(0);
    let run = change(&redis, &["check", "--zone", "1m"]).expect(1);
    assert!(run.stdout.contains("exceed their share of the table, 4096 bytes"), "{run:?}");
}

#[test]
fn a_missing_right_is_no_finding() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:80"]);
    redis.cli(&["ACL", "SETUSER", "reader", "on", ">pw", "~redirect:*", "+@all"]);
    let url = redis.url().replace("://", "://reader:pw@");
    let run = crate::program::ctl(&["check", "--redis", &url]).expect(2);
    assert!(run.stderr.contains("no permissions to access") && !run.stderr.contains("pw@"), "{run:?}");
}

/// A page of routes.
fn table(items: &Value) -> Value {
    json!({"table": "tools", "generation": 1, "items": items, "next": null})
}

fn tool(name: &str, url: &str) -> Value {
    json!({"kind": "tool", "name": name, "routes": [{"pattern": ".*", "backends": [url]}]})
}

#[test]
fn diff_lists_missing_extra_and_different_keys() {
    let redis = RedisServer::start(&[]);
    let admin = FakeAdmin::start();
    for (name, url) in
        [("same", "http://10.0.0.1:80"), ("moved", "http://10.0.0.2:80"), ("new\u{202e}", "http://10.0.0.3:80")]
    {
        redis.cli(&["HSET", &format!("prefix:{name}"), ".*", url]);
    }
    redis.cli(&["HSET", "redirect:same", ".*", "same.a.org"]);
    redis.cli(&["SADD", "frontend:www.a.org", "http://10.0.0.4:80", "HTTP://10.0.0.5/"]);
    redis.cli(&["HSET", "prefix:bad", "(", "http://10.0.0.1:81"]);
    let domain = json!({"kind": "domain", "name": "www.a.org", "routes": [
        {"pattern": ".*", "backends": ["http://10.0.0.5:80", "http://10.0.0.4:80"]}]});
    let equal = [tool("same", "http://10.0.0.1:80"), json!({"kind": "redirect", "name": "same"}), domain];
    let with = |others: &[Value]| table(&json!([&equal[..], others].concat()));
    let (moved, new) = (tool("moved", "http://10.0.0.2:80"), tool("new\u{202e}", "http://10.0.0.3:80"));
    admin.set("/api/routes", with(&[moved.clone(), new]));
    let run = compare(&redis, &admin, &["diff"]).expect(0);
    assert_eq!(run.stdout, "in step; records: Redis 6, table 5\n");

    admin.set("/api/routes", with(&[tool("moved", "http://10.9.9.9:80"), tool("held", "http://10.0.0.7:80")]));
    let run = compare(&redis, &admin, &["diff"]).expect(1);
    let lines: Vec<_> = run.stdout.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    assert_eq!(
        lines,
        [
            "KIND NAME WHERE IS REDIS TABLE SNAPSHOT",
            "tool held table extra - .* http://10.0.0.7:80 -",
            "tool moved table different .* http://10.0.0.2:80 .* http://10.9.9.9:80 -",
            "tool new\\u{202e} table missing .* http://10.0.0.3:80 - -",
            "",
            "3 differences; records: Redis 6, table 5",
        ]
    );
    let json = compare(&redis, &admin, &["diff", "--json"]).expect(1).json();
    assert_eq!(fields(&json), ["differences", "held", "redis", "snapshot", "table"]);
    assert_eq!((&json["redis"]["records"], &json["table"]["records"]), (&json!(6), &json!(5)));
    let first = &json["differences"][0];
    assert_eq!(fields(first), ["kind", "name", "redis", "rejected", "snapshot", "snapshot_is", "table", "table_is"]);
    assert_eq!((&first["name"], &first["table_is"]), (&json!("held"), &json!("extra")));
    assert_eq!(first["table"], json!({".*": ["http://10.0.0.7:80"]}));
}

#[test]
fn rejected_routes_are_no_differences() {
    let redis = RedisServer::start(&[]);
    let admin = FakeAdmin::start();
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:80", "/x", "http://192.0.2.1:80"]);
    admin.set("/api/routes", table(&json!([tool("a", "http://10.0.0.1:80")])));
    compare(&redis, &admin, &["diff"]).expect(1);
    let item =
        json!({"key": "prefix:a", "kind": "tool", "name": "a", "pattern": "/x", "reason": "not_allowed", "text": "x"});
    admin.set("/api/rejected", json!({"table": "tools", "total": 1, "items": [item]}));
    let run = compare(&redis, &admin, &["diff"]).expect(0);
    let sums = "in step; records: Redis 1, table 1; 1 record with rejected routes, see: urlproxyctl rejected\n";
    assert!(run.stdout.ends_with(sums), "{run:?}");
    // Without any valid route, a key has no place in the table.
    redis.cli(&["HSET", "prefix:a", ".*", "x"]);
    redis.cli(&["HDEL", "prefix:a", "/x"]);
    admin.set("/api/routes", table(&json!([])));
    let run = compare(&redis, &admin, &["diff"]).expect(0);
    assert_eq!(run.stdout, sums.replace("table 1", "table 0"));
    // A stale route is one, whatever is rejected.
    admin.set("/api/routes", table(&json!([tool("a", "http://10.0.0.99:80")])));
    compare(&redis, &admin, &["diff"]).expect(1);
}

#[test]
fn a_change_in_flight_is_no_difference() {
    let redis = RedisServer::start(&[]);
    let admin = FakeAdmin::start();
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:80"]);
    let mut command = crate::program::command(&["diff"]);
    command.env("URLPROXY_REDIS", redis.url()).env("URLPROXYCTL_ADMIN", admin.url());
    let child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    wait_for("the first comparison", || admin.asked().iter().any(|target| target.starts_with("/api/rejected")));
    admin.set("/api/routes", table(&json!([tool("a", "http://10.0.0.1:80")])));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("in step"));
}

#[test]
fn snapshot_is_compared_with_the_table() {
    let redis = RedisServer::start(&[]);
    let admin = FakeAdmin::start();
    redis.cli(&["HSET", "prefix:a", ".*", "http://10.0.0.1:80"]);
    admin.set("/api/routes", table(&json!([tool("a", "http://10.0.0.1:80")])));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tools.snapshot");
    let write = |records: &[&str]| {
        let head =
            json!({"urlproxy_snapshot": 2, "synced_at": 1790000000, "kinds": ["tool"], "records": records.len()});
        let mut text = format!("{head}\n");
        records.iter().for_each(|record| text += &format!("{record}\n"));
        let checksum = urlproxy::sync::Snapshot::checksum(text.as_bytes());
        fs::write(&file, format!("{text}{}\n", json!({"checksum": checksum}))).unwrap();
    };
    write(&[r#"{"key":"prefix:a","routes":{".*":["http://10.0.0.1:80"]}}"#]);
    let path = file.to_str().unwrap();
    let run = compare(&redis, &admin, &["diff", "--snapshot", path]).expect(0);
    assert_eq!(run.stdout, "in step; records: Redis 1, table 1, snapshot 1\n");
    let mut named = status();
    named["snapshot"] = json!({"path": path, "written_at": 1790000000.0, "failed": false});
    admin.set("/api/status", named.clone());
    write(&[r#"{"key":"prefix:a","routes":{".*":["http://10.0.0.9:80"]}}"#]);
    let json = compare(&redis, &admin, &["diff", "--json"]).expect(1).json();
    let difference = &json["differences"][0];
    assert_eq!((&difference["table_is"], &difference["snapshot_is"]), (&Value::Null, &json!("different")));
    fs::write(&file, "nonsense").unwrap();
    let run = compare(&redis, &admin, &["diff"]).expect(0);
    assert!(run.stderr.contains("snapshot not compared: damaged"), "{run:?}");
    let run = compare(&redis, &admin, &["diff", "--snapshot", path]).expect(2);
    assert!(run.stderr.contains("damaged") && run.stderr.contains("(--snapshot)"), "{run:?}");
}
