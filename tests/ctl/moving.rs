//! `export` and `import` with a real Redis.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::program::{Run, change, command, fields, finish};
use crate::support::redis::RedisServer;

/// Redis with a tool of several patterns, a set, a redirect without a route, and a domain.
fn filled() -> RedisServer {
    let redis = RedisServer::start(&[]);
    change(&redis, &["set", "hello", ".*", "http://10.0.0.1:80", "--canonical", "hello.a.org"]).expect(0);
    change(&redis, &["set", "hello", "/\"\u{202e}\\.x", "http://10.0.0.1:81"]).expect(0);
    redis.cli(&["SADD", "prefix:set", "http://10.0.0.2:80", "http://10.0.0.3:80"]);
    redis.cli(&["HSET", "redirect:moved", ".*", "moved.a.org"]);
    redis.cli(&["SADD", "frontend:www.a.org", "http://10.0.0.4:80", "http://10.0.0.5:80"]);
    redis
}

/// Everything in Redis, as text.
fn dump(redis: &RedisServer) -> Vec<String> {
    let mut keys: Vec<String> = redis.cli(&["KEYS", "*"]).lines().map(str::to_owned).collect();
    keys.sort();
    let value = |key: &String| {
        let command = if redis.cli(&["TYPE", key]) == "hash" { "HGETALL" } else { "SMEMBERS" };
        let mut lines: Vec<_> = redis.cli(&[command, key]).lines().map(str::to_owned).collect();
        lines.sort();
        format!("{key} {}", lines.join(" "))
    };
    keys.iter().map(value).collect()
}

fn import(redis: &RedisServer, lines: &str, args: &[&str]) -> Run {
    let all: Vec<_> = ["import", "-"].iter().chain(args).copied().collect();
    let mut child = command(&all)
        .env("URLPROXY_REDIS", redis.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { status: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[test]
fn exported_lines_have_the_documented_shape() {
    let redis = filled();
    let run = change(&redis, &["export"]).expect(0);
    let lines: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<_> = lines.iter().map(|line| line["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["hello", "moved", "set", "www.a.org"]);
    assert_eq!(fields(&lines[0]), ["kind", "name", "origin", "redirect", "routes"]);
    assert_eq!(lines[0]["routes"][0], json!({"pattern": ".*", "backends": ["http://10.0.0.1:80"]}));
    assert_eq!(lines[0]["redirect"], json!({".*": "hello.a.org"}));
    assert_eq!(lines[0]["origin"][".*"]["source"], "urlproxyctl");
    assert_eq!(lines[1], json!({"kind": "tool", "name": "moved", "routes": [], "redirect": {".*": "moved.a.org"}}));
    let backends = json!(["http://10.0.0.4:80", "http://10.0.0.5:80"]);
    let routes = json!([{"pattern": ".*", "backends": backends}]);
    assert_eq!(lines[3], json!({"kind": "domain", "name": "www.a.org", "set": true, "routes": routes}));
}

#[test]
fn an_export_restores_an_empty_redis() {
    let redis = filled();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("routes.jsonl");
    let file = file.to_str().unwrap();
    let run = change(&redis, &["export", "--output", file]).expect(0);
    assert!(run.stdout.is_empty() && run.stderr.contains("4 lines exported"), "{run:?}");
    let before = dump(&redis);
    redis.cli(&["FLUSHALL"]);
    let run = change(&redis, &["import", file]).expect(0);
    assert!(run.stdout.ends_with("5 added, 0 changed, 0 removed, 0 unchanged\n"), "{run:?}");
    assert_eq!(dump(&redis), before);
    let run = change(&redis, &["import", file, "--replace"]).expect(0);
    assert_eq!(run.stdout, "0 added, 0 changed, 0 removed, 5 unchanged\n");
    assert_eq!(dump(&redis), before);
}

#[test]
fn sets_with_redirects_and_unreadable_origins_can_be_imported_again() {
    let redis = filled();
    redis.cli(&["HSET", "redirect:set", ".*", "set.a.org", "/x", "set.b.org"]);
    redis.cli(&["HSET", "origin:moved", ".*", r#"{"source":"x","owner":"y","host":"z","since":1e400}"#]);
    let lines = change(&redis, &["export"]).expect(0).stdout;
    redis.cli(&["DEL", "origin:moved"]);
    let before = dump(&redis);
    redis.cli(&["FLUSHALL"]);
    import(&redis, &lines, &[]).expect(0);
    assert_eq!(dump(&redis), before);
    redis.cli(&["HSET", "redirect:set", ".*", "set.c.org", "/y", "set.b.org"]);
    let run = import(&redis, &lines, &["--replace"]).expect(0);
    assert!(run.stdout.contains("0 added, 1 changed, 1 removed, 5 unchanged"), "{run:?}");
    assert_eq!(dump(&redis), before);
}

#[test]
fn redirects_of_another_type_are_found_before_the_first_write() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["SET", "redirect:a", "x"]);
    let lines = ["a", "b"].map(|tool| {
        let url = format!("http://10.0.0.1:{}", tool.len());
        json!({"kind": "tool", "name": tool, "routes": [{"pattern": ".*", "backends": [url]}]}).to_string()
    });
    let run = import(&redis, &lines.join("\n"), &[]).expect(64);
    assert!(run.stderr.contains("line 1: the tool's redirects in Redis are no small hash"), "{run:?}");
    assert_eq!(redis.cli(&["DBSIZE"]), "1");
    let run = change(&redis, &["set", "a", ".*", "http://10.0.0.1:1"]).expect(1);
    assert!(run.stdout.starts_with("refused: the tool's routes or redirects in Redis are no hash"), "{run:?}");
    change(&redis, &["delete", "a", "--yes"]).expect(0);
    import(&redis, &lines[0], &[]).expect(0);
}

#[test]
fn keys_that_cannot_be_exported_are_named() {
    let redis = filled();
    redis.cli(&["SET", "prefix:broken", "x"]);
    let run = change(&redis, &["export"]).expect(1);
    assert_eq!(run.stdout.lines().count(), 4);
    assert!(run.stderr.contains("not exported, see urlproxyctl check: broken"), "{run:?}");
}

const LINES: &str = r#"
{"kind":"tool","name":"hello","routes":[{"pattern":".*","backends":["http://10.0.0.9:80"]},{"pattern":"/new","backends":["http://10.0.0.9:81"]}]}
{"kind":"domain","name":"www.a.org","set":true,"routes":[{"pattern":".*","backends":["http://10.0.0.4:80"]}]}
"#;

#[test]
fn dry_run_writes_nothing() {
    let redis = filled();
    let before = dump(&redis);
    let run = import(&redis, LINES, &["--dry-run"]).expect(0);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(
        lines,
        [
            "~ tool hello .* http://10.0.0.1:80 redirect hello.a.org -> http://10.0.0.9:80",
            "+ tool hello /new http://10.0.0.9:81",
            "dry run, would be: 1 added, 1 changed, 0 removed, 1 unchanged",
        ]
    );
    assert_eq!(dump(&redis), before);
    let run = import(&redis, LINES, &["--dry-run", "--replace", "--json"]).expect(0).json();
    assert_eq!(fields(&run), ["added", "changed", "changes", "dry_run", "refused", "removed", "skipped", "unchanged"]);
    assert_eq!((&run["added"], &run["changed"], &run["removed"]), (&json!(1), &json!(2), &json!(1)));
    let changes = run["changes"].as_array().unwrap();
    assert_eq!(fields(&changes[0]), ["action", "after", "before", "error", "kind", "name", "pattern"]);
    assert_eq!(dump(&redis), before);
}

#[test]
fn routes_outside_the_file_stay_unless_replaced() {
    let redis = filled();
    import(&redis, LINES, &[]).expect(0);
    assert_eq!(redis.cli(&["HLEN", "prefix:hello"]), "3");
    assert_eq!(redis.cli(&["SCARD", "frontend:www.a.org"]), "2");
    assert_eq!(redis.cli(&["EXISTS", "redirect:hello"]), "0");
    let run = import(&redis, LINES, &["--replace"]).expect(0);
    assert!(run.stdout.contains("- tool hello /\"\\u{202e}\\.x http://10.0.0.1:81\n"), "{run:?}");
    assert_eq!(redis.cli(&["HKEYS", "prefix:hello"]).lines().count(), 2);
    assert_eq!(redis.cli(&["SMEMBERS", "frontend:www.a.org"]), "http://10.0.0.4:80");
    assert_eq!(redis.cli(&["HLEN", "addresses"]), "2");
    assert_eq!(redis.cli(&["HMGET", "addresses", "10.0.0.9:80", "10.0.0.9:81"]), "hello\nhello");
    // Others are not touched.
    assert_eq!(redis.cli(&["EXISTS", "prefix:set", "redirect:moved"]), "2");
}

#[test]
fn routes_replace_a_set_and_keep_the_redirects_of_the_file() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "redirect:a", ".*", "a.a.org", "/x", "a.b.org", "/gone", "a.c.org"]);
    redis.cli(&["SADD", "prefix:a", "http://10.0.0.2:80"]);
    let line = r#"{"kind":"tool","name":"a","routes":[{"pattern":"/y","backends":["http://h:1"]}],"redirect":{"/x":"a.b.org"}}"#;
    let run = import(&redis, line, &["--replace"]).expect(0);
    assert_eq!(
        run.stdout.lines().collect::<Vec<_>>(),
        [
            "- tool a .* http://10.0.0.2:80 redirect a.a.org",
            "- tool a /gone redirect a.c.org",
            "+ tool a /y http://h:1",
            "~ tool a /x redirect a.b.org -> redirect a.b.org",
            "1 added, 1 changed, 2 removed, 0 unchanged",
        ]
    );
    assert_eq!(dump(&redis)[2..], ["prefix:a /y http://h:1", "redirect:a /x a.b.org"]);
    // Back to a set.
    let line = r#"{"kind":"tool","name":"a","set":true,"routes":[{"pattern":".*","backends":["http://h:2"]}]}"#;
    let run = import(&redis, line, &["--replace"]).expect(0);
    assert!(run.stdout.starts_with("~ tool a .* (a hash) -> http://h:2\n"), "{run:?}");
}

#[test]
fn a_set_stays_if_a_route_of_the_file_is_invalid() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "redirect:a", "/x", "a.b.org"]);
    redis.cli(&["SADD", "prefix:a", "http://10.0.0.2:80"]);
    let before = dump(&redis);
    let routes = r#"[{"pattern":".*","backends":["http://h:1"]},{"pattern":"/x","backends":["x"]}]"#;
    let line = format!(r#"{{"kind":"tool","name":"a","routes":{routes}}}"#);
    let run = import(&redis, &line, &["--replace", "--skip-invalid"]).expect(1);
    assert!(run.stdout.contains("the key of \"a\" in Redis is a set, and stays until all routes are valid"), "{run:?}");
    assert_eq!(dump(&redis), before);
}

#[test]
fn a_refused_route_that_replaces_a_set_is_reported() {
    let redis = RedisServer::start(&[]);
    change(&redis, &["set", "b", ".*", "http://10.0.0.2:80"]).expect(0);
    redis.cli(&["SADD", "prefix:a", "http://10.0.0.2:80"]);
    let line = r#"{"kind":"tool","name":"a","routes":[{"pattern":".*","backends":["http://10.0.0.2:80"]}]}"#;
    let run = import(&redis, line, &["--replace"]).expect(1);
    let refused = "! tool a .* http://10.0.0.2:80 -> http://10.0.0.2:80: refused, tool \"b\" is routed to this backend";
    assert!(run.stdout.starts_with(refused), "{run:?}");
}

#[test]
fn a_route_that_the_file_lacks_goes_and_its_redirect_stays() {
    let redis = filled();
    let line = r#"{"kind":"tool","name":"hello","routes":[],"redirect":{".*":"hello.a.org"}}"#;
    let run = import(&redis, line, &["--replace"]).expect(0);
    let change = "~ tool hello .* http://10.0.0.1:80 redirect hello.a.org -> redirect hello.a.org\n";
    assert!(run.stdout.contains(change), "{run:?}");
    assert_eq!(redis.cli(&["EXISTS", "prefix:hello"]), "0");
    assert_eq!(redis.cli(&["HGET", "redirect:hello", ".*"]), "hello.a.org");
}

#[test]
fn everything_is_validated_before_the_first_write() {
    let redis = RedisServer::start(&[]);
    let good = r#"{"kind":"tool","name":"good","routes":[{"pattern":".*","backends":["http://10.0.0.1:1"]}]}"#;
    let route = |pattern: &str, url: &str| json!([{"pattern": pattern, "backends": [url]}]).to_string();
    let any = route(".*", "http://10.0.0.1:2");
    let bad = [
        ("{".to_owned(), "EOF"),
        (r#"{"kind":"other","name":"a"}"#.into(), "unknown variant `other`"),
        (r#"{"kind":"redirect","name":"a"}"#.into(), "expected \"tool\" or \"domain\""),
        (r#"{"kind":"tool","name":"a","route":[]}"#.into(), "unknown field `route`"),
        (format!(r#"{{"kind":"tool","name":"a/b","routes":{any}}}"#), "expected no slash"),
        (format!(r#"{{"kind":"tool","name":"a","routes":{}}}"#, route("(", "http://10.0.0.1:1")), "unclosed group"),
        (format!(r#"{{"kind":"tool","name":"b","routes":{}}}"#, route(".*", "http://h/x")), "scheme://host:port"),
        (
            format!(r#"{{"kind":"tool","name":"c","set":true,"routes":{}}}"#, route("/x", "http://h:1")),
            "expected \".*\"",
        ),
        (format!(r#"{{"kind":"domain","name":"A.org","set":true,"routes":{any}}}"#), "expected \"a.org\""),
        (
            format!(r#"{{"kind":"tool","name":"a.b","routes":{any},"redirect":{{".*":"a.org"}}}}"#),
            "cannot have its own host",
        ),
        (good.to_owned(), "has a line already"),
    ];
    let lines: Vec<&str> = [good].into_iter().chain(bad.iter().map(|(line, _)| line.as_str())).collect();
    let run = import(&redis, &lines.join("\n"), &[]).expect(64);
    for (number, (line, want)) in bad.iter().enumerate() {
        let start = format!("line {}: ", number + 2);
        let error = run.stderr.lines().find(|line| line.starts_with(&start));
        assert!(error.is_some_and(|error| error.contains(want)), "{line}: {run:?}");
    }
    assert!(run.stderr.contains("11 errors in \"-\", nothing written"), "{run:?}");
    assert_eq!(redis.cli(&["DBSIZE"]), "0");
    let run = import(&redis, &lines.join("\n"), &["--skip-invalid"]).expect(1);
    assert!(run.stdout.ends_with("1 added, 0 changed, 0 removed, 0 unchanged, 11 left out as invalid\n"), "{run:?}");
    assert_eq!(redis.cli(&["HGET", "prefix:good", ".*"]), "http://10.0.0.1:1");
}

#[test]
fn an_invalid_route_does_not_keep_others_of_its_tool_out_of_a_restored_redis() {
    let redis = filled();
    redis.cli(&["HSET", "prefix:hello", "^/(?=a)", "http://10.0.0.6:80", "/bad", "http://10.0.0.7/x"]);
    let lines = change(&redis, &["export"]).expect(0).stdout;
    let run = import(&redis, &lines, &["--skip-invalid", "--replace"]).expect(1);
    assert!(run.stdout.ends_with("0 added, 0 changed, 0 removed, 5 unchanged, 2 left out as invalid\n"), "{run:?}");
    redis.cli(&["FLUSHALL"]);
    let run = import(&redis, &lines, &["--skip-invalid"]).expect(1);
    assert!(run.stdout.contains("! line 1: pattern \"^/(?=a)\" does not compile"), "{run:?}");
    assert!(run.stdout.ends_with("5 added, 0 changed, 0 removed, 0 unchanged, 2 left out as invalid\n"), "{run:?}");
    assert_eq!(redis.cli(&["HGET", "prefix:hello", ".*"]), "http://10.0.0.1:80");
    assert_eq!(redis.cli(&["HLEN", "prefix:hello"]), "2");
}

#[test]
fn refused_and_conflicting_routes_are_reported() {
    let redis = RedisServer::start(&[]);
    change(&redis, &["set", "first", ".*", "http://10.0.0.1:1"]).expect(0);
    let lines = r#"{"kind":"tool","name":"second","routes":[{"pattern":".*","backends":["http://10.0.0.1:1"]}]}"#;
    let run = import(&redis, lines, &[]).expect(1);
    assert!(run.stdout.contains("! tool second .* http://10.0.0.1:1: refused, tool \"first\" is routed"), "{run:?}");
    redis.cli(&["SADD", "prefix:third", "http://10.0.0.3:1"]);
    let lines = lines.replace("second", "third").replace("0.1:1", "0.4:1");
    let run = import(&redis, &lines, &[]).expect(64);
    assert!(run.stderr.contains("the key of \"third\" in Redis is a set; --replace replaces it"), "{run:?}");
    import(&redis, &lines, &["--replace"]).expect(0);
    assert_eq!(redis.cli(&["HGET", "prefix:third", ".*"]), "http://10.0.0.4:1");
}

#[test]
fn a_large_redis_survives_a_round_trip() {
    let (redis, other) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let fill = "for i = 1, 3000 do redis.call('HSET', 'prefix:tool-' .. i, '.*', 'http://10.0.' .. math.floor(i / 250) .. '.' .. (i % 250) .. ':80') end";
    redis.cli(&["EVAL", fill, "0"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("routes");
    let file = file.to_str().unwrap();
    change(&redis, &["export", "--output", file]).expect(0);
    assert_eq!(fs::read_to_string(file).unwrap().lines().count(), 3000);
    finish(command(&["import", file, "--json"]).env("URLPROXY_REDIS", other.url())).expect(0);
    assert_eq!(other.cli(&["HLEN", "addresses"]), "3000");
}
