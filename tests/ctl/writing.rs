//! `set` and `delete` in a real Redis.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::program::{change, command, fields, finish};
use crate::support::redis::RedisServer;
use crate::support::sentinel::CutOff;

#[test]
fn set_writes_route_redirect_origin_and_address() {
    let redis = RedisServer::start(&[]);
    let run =
        change(&redis, &["set", "hello", ".*", "HTTP://10.0.0.1/", "--canonical", "Hello.toolforge.org"]).expect(0);
    assert_eq!(run.stdout, "set: hello .* http://10.0.0.1:80\n");
    assert_eq!(redis.cli(&["HGET", "prefix:hello", ".*"]), "http://10.0.0.1:80");
    assert_eq!(redis.cli(&["HGET", "redirect:hello", ".*"]), "hello.toolforge.org");
    assert_eq!(redis.cli(&["HGET", "addresses", "10.0.0.1:80"]), "hello");
    let origin: Value = serde_json::from_str(&redis.cli(&["HGET", "origin:hello", ".*"])).unwrap();
    assert_eq!((&origin["source"], &origin["host"]), (&json!("urlproxyctl"), &json!("10.0.0.1")));
    assert!(origin["owner"].as_str().unwrap().starts_with("user "), "{origin}");
    // Another backend: the index follows. Without --canonical there is no redirect.
    change(&redis, &["set", "hello", ".*", "http://10.0.0.2:80"]).expect(0);
    assert_eq!(redis.cli(&["HGETALL", "addresses"]), "10.0.0.2:80\nhello");
    assert_eq!(redis.cli(&["EXISTS", "redirect:hello"]), "0");
    assert_eq!(
        change(&redis, &["set", "hello", ".*", "http://10.0.0.2"]).expect(0).stdout,
        "unchanged: hello .* http://10.0.0.2:80\n"
    );
}

#[test]
fn set_does_not_take_the_address_of_another_tool() {
    let redis = RedisServer::start(&[]);
    change(&redis, &["set", "first", ".*", "http://10.0.0.1:80"]).expect(0);
    let run = change(&redis, &["set", "second", ".*", "http://10.0.0.1:80"]).expect(1);
    assert_eq!(run.stdout, "refused: tool \"first\" is routed to this backend; --evict removes its route\n");
    let refused = change(&redis, &["set", "second", ".*", "http://10.0.0.1:80", "--json"]).expect(1).json();
    assert_eq!(fields(&refused), ["backend", "canonical", "error", "evicted", "pattern", "result", "tool"]);
    assert_eq!(refused["result"], "refused");
    let set = change(&redis, &["set", "second", ".*", "http://10.0.0.1:80", "--json", "--evict"]).expect(0).json();
    assert_eq!((&set["result"], &set["evicted"], &set["error"]), (&json!("set"), &json!("first"), &Value::Null));
    assert_eq!(redis.cli(&["EXISTS", "prefix:first"]), "0");
}

#[test]
fn invalid_routes_are_not_written() {
    let redis = RedisServer::start(&[]);
    let name = "x".repeat(256);
    for (args, want) in [
        (["a/b", ".*", "http://10.0.0.1:1"], "expected no slash and no control character"),
        ([name.as_str(), ".*", "http://10.0.0.1:1"], "expected at most 255"),
        (["a", "(", "http://10.0.0.1:1"], "unclosed group"),
        (["a", "a++", "http://10.0.0.1:1"], "possessive"),
        (["a", "(a|[ab]).{300}[cd]", "http://10.0.0.1:1"], "too many states"),
        (["a", ".*", "http://10.0.0.1:1/x"], "expected scheme://host:port"),
        (["a", ".*", "http://169.254.169.254:80"], "metadata"),
    ] {
        let run = change(&redis, &["set", args[0], args[1], args[2]]).expect(64);
        assert!(run.stderr.contains(want), "{want}: {run:?}");
    }
    assert_eq!(redis.cli(&["DBSIZE"]), "0");
    redis.cli(&["SADD", "prefix:a", "http://10.0.0.9:9"]);
    let run = change(&redis, &["set", "a", ".*", "http://10.0.0.1:1"]).expect(1);
    assert!(run.stdout.contains("urlproxyctl delete TOOL removes them"), "{run:?}");
}

#[test]
fn delete_removes_one_route_or_all() {
    let redis = RedisServer::start(&[]);
    for (pattern, url) in [(".*", "http://10.0.0.1:1"), ("/x", "http://10.0.0.1:2"), ("/y", "http://10.0.0.1:3")] {
        change(&redis, &["set", "hello", pattern, url, "--canonical", "hello.a.org"]).expect(0);
    }
    assert_eq!(change(&redis, &["delete", "hello", "/x"]).expect(0).stdout, "deleted: hello /x\n");
    let keys = |key: &str| redis.cli(&["HKEYS", key]).lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let set = |items: [&str; 2]| BTreeSet::from(items.map(str::to_owned));
    assert_eq!((keys("origin:hello"), keys("redirect:hello")), (set([".*", "/y"]), set([".*", "/y"])));
    assert_eq!(keys("addresses"), set(["10.0.0.1:1", "10.0.0.1:3"]));
    let run = change(&redis, &["delete", "hello", "/x"]).expect(1);
    assert_eq!(run.stdout, "tool \"hello\" has no route with the pattern \"/x\"\n");
    // A script must say that it means all of them.
    let run = change(&redis, &["delete", "hello"]).expect(64);
    assert!(run.stderr.contains("--yes") && redis.cli(&["HLEN", "prefix:hello"]) == "2", "{run:?}");
    let removed = change(&redis, &["delete", "hello", "--yes", "--json"]).expect(0).json();
    assert_eq!(removed, json!({"tool": "hello", "removed": [".*", "/y"]}));
    assert_eq!(redis.cli(&["DBSIZE"]), "0");
    assert_eq!(change(&redis, &["delete", "hello", "--yes"]).expect(1).stdout, "tool \"hello\" has no route\n");
}

#[test]
fn delete_removes_what_is_invalid_or_of_another_type() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:a", "(\u{202e}", "nonsense"]);
    redis.cli(&["SADD", "prefix:b", "http://10.0.0.1:1"]);
    redis.cli(&["SET", "prefix:c", "x"]);
    redis.cli(&["HSET", "redirect:d", ".*", "d.a.org"]);
    assert_eq!(change(&redis, &["delete", "a", "(\u{202e}"]).expect(0).stdout, "deleted: a (\\u{202e}\n");
    change(&redis, &["delete", "b", ".*"]).expect(0);
    for tool in ["c", "d"] {
        change(&redis, &["delete", tool, "--yes"]).expect(0);
    }
    assert_eq!(redis.cli(&["DBSIZE"]), "0");
}

#[test]
fn delete_asks_on_a_terminal() {
    let redis = RedisServer::start(&[]);
    for (typed, left) in [("n\n", "1"), ("\n", "1"), ("y\n", "0")] {
        redis.cli(&["HSET", "prefix:hello", ".*", "http://10.0.0.1:1"]);
        let mut delete = command(&["delete", "hello"]);
        delete.env("URLPROXY_REDIS", redis.url());
        let mut pty = crate::live::Pty::start(delete);
        pty.wait_for("Delete 1 route of tool \"hello\" (.*)? [y/N]");
        pty.write(typed);
        pty.wait_for_end();
        assert_eq!(redis.cli(&["EXISTS", "prefix:hello"]), left, "{typed:?}");
    }
}

#[test]
fn master_with_too_few_replicas_is_named_as_the_reason() {
    let redis = RedisServer::start(&["--min-replicas-to-write", "1"]);
    let file = redis.dir().join("lines");
    let line =
        json!({"kind": "tool", "name": "hello", "routes": [{"pattern": ".*", "backends": ["http://10.0.0.1:80"]}]});
    std::fs::write(&file, format!("{line}\n")).unwrap();
    for args in [&["set", "hello", ".*", "http://10.0.0.1:80"][..], &["import", file.to_str().unwrap()]] {
        let run = change(&redis, args).expect(2);
        assert!(run.stderr.contains("the master refuses writes, because fewer replicas"), "{run:?}");
        assert!(run.stderr.contains("min-replicas-to-write"), "{run:?}");
    }
    assert_eq!(redis.cli(&["EXISTS", "prefix:hello"]), "0");
}

#[test]
fn changes_go_to_the_master_that_sentinels_name_now() {
    let servers = CutOff::start();
    let set = |port: &str| {
        let url = format!("http://10.0.0.1:{port}");
        finish(command(&["set", "hello", ".*", &url]).env("URLPROXY_REDIS", servers.url())).expect(0);
    };
    set("80");
    servers.fail_over();
    set("81");
    assert_eq!(servers.former.cli(&["HGET", "prefix:hello", ".*"]), "http://10.0.0.1:80");
    assert_eq!(servers.promoted.cli(&["HGET", "prefix:hello", ".*"]), "http://10.0.0.1:81");
    // A master that hangs is no reason to hang.
    servers.promoted.signal("STOP");
    let mut hanging = command(&["set", "hello", ".*", "http://10.0.0.1:82"]);
    let run = finish(hanging.env("URLPROXY_REDIS", servers.url())).expect(2);
    assert!(run.stderr.contains("no reply within 2s while asking Redis"), "{run:?}");
}
