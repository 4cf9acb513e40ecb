//! `renew` restores routes, and keeps newer ones.

use super::*;

#[test]
fn renewal_restores_a_flushed_route() {
    let grid = Grid::start(&[]);
    let (_server, port) = grid.server_of("tools.hello");
    let url = url_of(port);
    let renew = |command: &str| grid.ask_as("tools.hello", &format!("{command}\n.*\n{url}\n"));
    assert_eq!(grid.ask_as("tools.hello", &format!("registerCanonical\n.*\n{url}\n")), "ok");
    grid.redis.cli(&["FLUSHALL"]);
    assert_eq!((renew("renewCanonical"), grid.route("hello")), ("ok".into(), url.clone()));
    assert_eq!(grid.redis.cli(&["HGET", "redirect:hello", ".*"]), "hello.toolforge.org");
    let origin = grid.redis.cli(&["HGET", "origin:hello", ".*"]);
    let origin: urlproxy::registry::Origin = serde_json::from_str(&origin).unwrap();
    assert_eq!((&*origin.source, &*origin.owner, &*origin.host), ("proxylistener", "tools.hello", "127.0.0.1"));
    grid.listener.daemon.wait_for_line(&["INFO", "renewed; missing route restored", "tool=\"hello\""]);
    // Again: nothing is written, so no proxy is notified, and nothing is logged.
    let changes = || {
        let info = grid.redis.cli(&["INFO", "persistence"]);
        info.lines().find(|line| line.starts_with("rdb_changes_since_last_save:")).expect("a count").to_owned()
    };
    let before = changes();
    assert_eq!((renew("renewCanonical"), changes()), ("ok".into(), before));
    assert_eq!(grid.listener.daemon.log().matches("renewed").count(), 1);
    assert_eq!((renew("renew"), grid.redis.cli(&["EXISTS", "redirect:hello"])), ("ok".into(), "0".into()));
}

#[test]
fn renewal_keeps_a_newer_route() {
    let grid = Grid::start(&[]);
    let (_old, old) = grid.server_of("tools.hello");
    let (_new, new) = grid.server_of("tools.hello");
    let renew = |port| grid.ask_as("tools.hello", &format!("renew\n.*\n{}\n", url_of(port)));
    assert_eq!(
        (grid.register_as("tools.hello", old), grid.register_as("tools.hello", new)),
        ("ok".into(), "ok".into())
    );
    assert_eq!((renew(old), grid.route("hello")), ("fail".into(), url_of(new)));
    assert_eq!((renew(new), grid.route("hello")), ("ok".into(), url_of(new)));
    // A route of Kubernetes.
    grid.redis.cli(&["HSET", "prefix:hello", ".*", "http://10.96.0.7:80"]);
    assert_eq!((renew(new), grid.route("hello")), ("fail".into(), "http://10.96.0.7:80".into()));
    let log = grid.listener.daemon.log();
    let warned = log.lines().any(|line| line.contains("WARN") && line.contains("refused"));
    assert!(!warned, "no warning each minute in normal operation: {log}");
}

#[test]
fn only_the_tools_own_server_is_renewed() {
    let grid = Grid::start(&[]);
    let renew = |port| grid.ask_as("tools.hello", &format!("renew\n.*\n{}\n", url_of(port)));
    assert_eq!((renew(free_port()), grid.redis.cli(&["KEYS", "*"])), ("fail".into(), String::new()));
    grid.listener.daemon.wait_for_line(&["INFO", "refused", "command=\"renew\"", "nothing listens at 127.0.0.1:"]);
    for user in ["tools.other", "redis", ""] {
        let (_server, port) = grid.server_of(user);
        assert_eq!((renew(port), grid.redis.cli(&["KEYS", "*"])), ("fail".into(), String::new()), "{user:?}");
    }
    // The tool owns the address: another tool that is still routed there loses its route.
    let (_server, port) = grid.server_of("tools.other");
    assert_eq!(grid.register_as("tools.other", port), "ok");
    grid.own(port, "tools.hello");
    assert_eq!((renew(port), grid.route("hello"), grid.route("other")), ("ok".into(), url_of(port), String::new()));
    grid.listener.daemon.wait_for_line(&["WARN", "withdrawn", "tool=\"other\"", "new_tool=\"hello\""]);
}

#[test]
fn renewals_are_checked_like_registrations() {
    let grid = Grid::start(&["--metrics-listen", "127.0.0.1:0"]);
    let status = grid.listener.daemon.address_in("metrics endpoint listening");
    for (pattern, url) in [("(", URL), (".*", "http://127.0.0.2:8000"), (".*", "http://127.0.0.1:8000/x"), (".*", "")] {
        assert_eq!(grid.ask_as("tools.hello", &format!("renew\n{pattern}\n{url}\n")), "fail", "{pattern} {url}");
    }
    assert_eq!(grid.ask_as("root", &format!("renew\n.*\n{URL}\n")), NO_TOOL);
    let refused = http::metric(status, r#"proxylistener_commands_total{command="renew",outcome="refused"}"#);
    assert_eq!(refused, 4.0);
}
