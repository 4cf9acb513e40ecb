//! Routes without an origin: old writers do not write origins.

use super::*;

const LOCAL: [&str; 2] = ["--allow-client", "127.0.0.0/8,::1"];

#[test]
fn route_without_origin_to_another_tools_port_is_withdrawn() {
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
    let args = [&FREQUENT_AUDITS[..], &LOCAL].concat();
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.other"), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"hello\"", "pattern=\".*\"", "owner=\"tools.other\""]);
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"hello\"", "pattern=\"/name\""]);
    assert_eq!(redis.cli(&["EXISTS", "prefix:hello", "redirect:hello"]), "0");
    assert_eq!(found(status, "withdrawn"), 2);
}

#[test]
fn port_of_a_non_tool_user_changes_nothing() {
    let redis = RedisServer::start(&[]);
    let args = [&FREQUENT_AUDITS[..], &LOCAL].concat();
    for user in ["www-data", "toolsbeta.other", "root.other", "tools."] {
        let (_backend, port) = backend();
        redis.cli(&["HSET", "prefix:hello", ".*", &url(port)]);
        let listener = Listener::start(&redis.url(), identd_by(move |_| user), &args);
        wait_for_finding(listener.daemon.address_in("metrics endpoint listening"), "no_tools", 2);
        assert_eq!(route(&redis, ".*"), url(port), "{user}");
    }
}

#[test]
fn dead_route_without_origin_is_withdrawn() {
    let redis = RedisServer::start(&[]);
    redis.cli(&["HSET", "prefix:hello", ".*", &url(free_port())]);
    let args = [&FREQUENT_AUDITS[..], &LOCAL, &["--dead-after", "100ms"]].concat();
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &args);
    listener.daemon.wait_for_line(&["withdrawn", "refuses connections", "tool=\"hello\""]);
    assert_eq!(redis.cli(&["EXISTS", "prefix:hello"]), "0");
}

/// Routes of the cluster, and to hosts that cannot be clients, are not the grid's.
#[test]
fn routes_of_other_writers_stay() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    redis.cli(&["HSET", "prefix:hello", "/api.*", &url(port), "/grid", &url(port)]);
    redis.cli(&["SADD", "k8s_services", "tool-hello/hello/api.*"]);
    redis.cli(&["HSET", "prefix:elsewhere", ".*", &format!("http://127.1.0.1:{port}")]);
    redis.cli(&["SADD", "prefix:set", &url(port)]);
    let args = [&FREQUENT_AUDITS[..], &["--allow-client", "127.0.0.0/24", "--dead-after", "100ms"]].concat();
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.other"), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    listener.daemon.wait_for_line(&["withdrawn", "pattern=\"/grid\""]);
    wait_for_finding(status, "outside", 4);
    assert_eq!(redis.cli(&["HKEYS", "prefix:hello"]), "/api.*");
    assert_eq!(redis.cli(&["EXISTS", "prefix:elsewhere", "prefix:set"]), "2");
    assert_eq!(found(status, "withdrawn") + found(status, "dead"), 1);
}

/// Without lists any host may be a client, but special addresses are not.
#[test]
fn loopback_is_audited_only_if_listed() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    redis.cli(&["HSET", "prefix:hello", ".*", &url(port)]);
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.other"), &FREQUENT_AUDITS);
    wait_for_finding(listener.daemon.address_in("metrics endpoint listening"), "outside", 2);
    assert_eq!(route(&redis, ".*"), url(port));
}

/// An old writer has overwritten a route: the origin names another destination.
#[test]
fn overwritten_route_counts_as_without_origin() {
    let redis = RedisServer::start(&[]);
    let ((_first, first), (_second, second)) = (backend(), backend());
    let args = [&FREQUENT_AUDITS[..], &LOCAL].concat();
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
