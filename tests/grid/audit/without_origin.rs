//! Routes that an old writer wrote, which says nothing of origins.

use super::*;

const LOCAL: [&str; 2] = ["--allow-client", "127.0.0.0/8,::1"];

#[test]
fn another_tools_port_is_no_longer_routed_whoever_wrote_the_route() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    redis.cli(&[
        "HSET",
        "prefix:hello",
        ".*",
        &format!("HTTP://127.0.0.1:{port}/"),
        "/name",
        &format!("http://localhost:{port}"),
    ]);
    redis.cli(&["HSET", "redirect:hello", ".*", "hello.toolforge.org"]);
    let args = [&SOMETIMES[..], &LOCAL].concat();
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.other"), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"hello\"", "pattern=\".*\"", "owner=\"tools.other\""]);
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"hello\"", "pattern=\"/name\""]);
    assert_eq!(redis.cli(&["EXISTS", "prefix:hello", "redirect:hello"]), "0");
    assert_eq!(found(status, "withdrawn"), 2);
}

#[test]
fn a_user_that_is_no_tool_changes_nothing() {
    let redis = RedisServer::start(&[]);
    let args = [&SOMETIMES[..], &LOCAL].concat();
    for user in ["www-data", "toolsbeta.other", "root.other", "tools."] {
        let (_backend, port) = backend();
        redis.cli(&["HSET", "prefix:hello", ".*", &url(port)]);
        let listener = Listener::start(&redis.url(), identd_by(move |_| user), &args);
        wait_for_finding(listener.daemon.address_in("metrics endpoint listening"), "no_tools", 2);
        assert_eq!(route(&redis, ".*"), url(port), "{user}");
    }
}

#[test]
fn a_dead_one_is_withdrawn_too() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:hello", ".*", &url(free_port())]);
    let args = [&SOMETIMES[..], &LOCAL, &["--dead-after", "100ms"]].concat();
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &args);
    listener.daemon.wait_for_line(&["withdrawn", "refuses connections", "tool=\"hello\""]);
    assert_eq!(redis.cli(&["EXISTS", "prefix:hello"]), "0");
}

/// The cluster's, and what leads to no client's host, is not the grid's.
#[test]
fn what_others_wrote_is_left_alone() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    redis.cli(&["HSET", "prefix:hello", "/api.*", &url(port), "/grid", &url(port)]);
    redis.cli(&["SADD", "k8s_services", "tool-hello/hello/api.*"]);
    redis.cli(&["HSET", "prefix:elsewhere", ".*", &format!("http://127.1.0.1:{port}")]);
    redis.cli(&["SADD", "prefix:set", &url(port)]);
    let args = [&SOMETIMES[..], &["--allow-client", "127.0.0.0/24", "--dead-after", "100ms"]].concat();
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.other"), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    listener.daemon.wait_for_line(&["withdrawn", "pattern=\"/grid\""]);
    wait_for_finding(status, "outside", 4);
    assert_eq!(redis.cli(&["HKEYS", "prefix:hello"]), "/api.*");
    assert_eq!(redis.cli(&["EXISTS", "prefix:elsewhere", "prefix:set"]), "2");
    assert_eq!(found(status, "withdrawn") + found(status, "dead"), 1);
}

/// Without lists anybody may be a client, but nobody's address is none.
#[test]
fn loopback_is_audited_only_where_it_is_listed() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    redis.cli(&["HSET", "prefix:hello", ".*", &url(port)]);
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.other"), &SOMETIMES);
    wait_for_finding(listener.daemon.address_in("metrics endpoint listening"), "outside", 2);
    assert_eq!(route(&redis, ".*"), url(port));
}

/// An old writer wrote over a signed route: the signature is about another destination.
#[test]
fn a_route_that_was_written_over_is_an_old_writers() {
    let redis = RedisServer::start(&[]);
    let ((_first, first), (_second, second)) = (backend(), backend());
    let args = [&SOMETIMES[..], &LOCAL].concat();
    let origin = |port| {
        let destination = url(port);
        format!(
            r#"{{"source":"proxylistener","owner":"www-data","host":"127.0.0.2","since":1,"destination":"{destination}"}}"#
        )
    };
    redis.cli(&["HSET", "prefix:hello", ".*", &url(second)]);
    redis.cli(&["HSET", "origin:hello", ".*", &origin(first)]);
    let listener = Listener::start(&redis.url(), identd_by(|_| "www-data"), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    wait_for_finding(status, "no_tools", 2);
    redis.cli(&["HSET", "origin:hello", ".*", &origin(second)]);
    wait_for_finding(status, "own", 2);
}
