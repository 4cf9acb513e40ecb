//! Registrations, and their limits.

use super::*;

#[test]
fn tool_registers_and_unregisters() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    assert_eq!(listener.register(".*", URL), "ok");
    assert_eq!(redis.cli(&["HGETALL", "prefix:hello"]), format!(".*\n{URL}"));
    let origin = redis.cli(&["HGET", "origin:hello", ".*"]);
    let origin: urlproxy::registry::Origin = serde_json::from_str(&origin).unwrap();
    assert_eq!((&*origin.source, &*origin.owner, &*origin.host), ("proxylistener", "tools.hello", "127.0.0.1"));
    assert!(origin.since > 1_700_000_000, "{origin:?}");
    listener.daemon.wait_for_line(&[
        "INFO",
        "registered tool=\"hello\" peer=127.0.0.1 pattern=\".*\" destination=\"http://127.0.0.1:8000\"",
    ]);
    assert_eq!(listener.ask("unregister\n.*\n"), "ok");
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
    listener.daemon.wait_for_line(&["unregistered tool=\"hello\" peer=127.0.0.1 pattern=\".*\""]);
    assert_eq!(listener.ask("unregister\n.*\n"), "ok", "nothing was there");
}

#[test]
fn canonical_host_follows_its_pattern() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let redirects = || redis.cli(&["HGETALL", "redirect:hello"]);
    assert_eq!(listener.ask(format!("registerCanonical\n.*\n{URL}\n")), "ok");
    assert_eq!((route(&redis, ".*"), redirects()), (URL.into(), ".*\nhello.toolforge.org".into()));
    assert_eq!(listener.register("/other", URL), "ok");
    assert_eq!(redirects(), ".*\nhello.toolforge.org", "of another pattern");
    assert_eq!(listener.register(".*", URL), "ok");
    assert_eq!(redirects(), "");
    assert_eq!(listener.ask(format!("registerCanonical\n.*\n{URL}\n")), "ok");
    assert_eq!(listener.ask("unregister\n.*\n"), "ok");
    assert_eq!((redirects(), route(&redis, ".*")), (String::new(), String::new()));
}

#[test]
fn patterns_per_tool_are_limited() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    for number in 0..32 {
        assert_eq!(listener.register(&format!("/{number}"), URL), "ok");
    }
    assert_eq!(listener.register("/32", URL), "fail");
    listener.daemon.wait_for_line(&["WARN", "refused", "the tool already has 32 patterns"]);
    assert_eq!(listener.register("/31", "http://127.0.0.1:8001"), "ok", "one of the 32");
    assert_eq!(listener.ask("unregister\n/0\n"), "ok");
    assert_eq!(listener.register("/32", URL), "ok");
    assert_eq!(
        (redis.cli(&["HLEN", "prefix:hello"]), redis.cli(&["HLEN", "origin:hello"])),
        ("32".into(), "32".into())
    );
}

#[test]
fn invalid_patterns_are_refused() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let long = "a".repeat(1025);
    for pattern in ["(", "a++", "a(?=b)", r"(a)\1", "[0-9]{1000}{1000}", "/a\u{85}b", "/a\tb", &long] {
        assert_eq!(listener.register(pattern, URL), "fail", "{pattern}");
        // The caller has no such route.
        assert_eq!(listener.ask(format!("unregister\n{pattern}\n")), "ok", "{pattern}");
    }
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
    listener.daemon.wait_for_line(&["WARN", "refused", "tool=\"hello\"", "pattern=\"a++\"", "possessive"]);
}

#[test]
fn key_of_the_wrong_type_is_not_half_written() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    for key in ["prefix:hello", "origin:hello", "redirect:hello"] {
        redis.cli(&["SADD", key, "member"]);
        assert_eq!(listener.ask(format!("registerCanonical\n.*\n{URL}\n")), "fail", "{key}");
        assert_eq!(redis.cli(&["KEYS", "*"]), key);
        redis.cli(&["DEL", key]);
    }
}
