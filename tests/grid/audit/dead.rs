//! Ports that refuse connections.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

/// The fewest audits, and soon.
const SOON_DEAD: [&str; 6] = ["--audit-interval", "50ms", "--metrics-listen", "127.0.0.1:0", "--dead-after", "100ms"];

#[test]
fn a_port_that_refuses_for_long_is_no_longer_routed() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &SOON_DEAD);
    let status = listener.daemon.address_in("metrics endpoint listening");
    let (_backend, port) = backend();
    let nobody = url(free_port());
    assert_eq!(listener.register("/there", &url(port)), "ok");
    assert_eq!(listener.ask(format!("registerCanonical\n.*\n{nobody}\n")), "ok");
    let destination = format!("destination=\"{nobody}\"");
    listener.daemon.wait_for_line(&["WARN", "withdrawn", "refuses connections", "tool=\"hello\"", &destination]);
    wait_for_finding(status, "own", 4);
    assert_eq!(redis.cli(&["HKEYS", "prefix:hello"]), "/there");
    assert_eq!(redis.cli(&["HKEYS", "origin:hello"]), "/there");
    assert_eq!((redis.cli(&["EXISTS", "redirect:hello"]), found(status, "dead")), ("0".into(), 1));
    assert_eq!(redis.cli(&["HGETALL", "addresses"]), format!("127.0.0.1:{port}\nhello"));
}

#[test]
fn a_server_that_does_not_listen_yet_keeps_its_route() {
    let redis = RedisServer::start(&[]);
    let args = ["--audit-interval", "20ms", "--metrics-listen", "127.0.0.1:0", "--dead-after", "10m"];
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    let nobody = url(free_port());
    assert_eq!(listener.register(".*", &nobody), "ok");
    wait_for_finding(status, "backend_unreachable", 9);
    assert_eq!(route(&redis, ".*"), nobody);
}

/// A registration counts from its own time, whatever was seen before.
#[test]
fn a_port_that_is_registered_again_gets_its_time_again() {
    let redis = RedisServer::start(&[]);
    let nobody = url(free_port());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    signed(&redis, "old", &nobody, 1);
    signed(&redis, "new", &nobody, now + 3600);
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &SOON_DEAD);
    let status = listener.daemon.address_in("metrics endpoint listening");
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"old\""]);
    wait_for_finding(status, "backend_unreachable", 4);
    assert_eq!(redis.cli(&["HGET", "prefix:new", ".*"]), nobody);
}

#[test]
fn a_server_that_is_busy_is_not_dead() {
    let redis = RedisServer::start(&[]);
    let full = full();
    signed(&redis, "hello", &url(full.2), 1);
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &SOON_DEAD);
    let status = listener.daemon.address_in("metrics endpoint listening");
    // Each takes until the deadline of connecting.
    (0..4).for_each(|_| wait_for_finding(status, "backend_unreachable", 1));
    assert_eq!((route(&redis, ".*"), found(status, "dead")), (url(full.2), 0));
}

#[test]
fn a_host_that_is_gone_loses_its_routes() {
    let redis = RedisServer::start(&[]);
    // An address of RFC 6666, where nobody ever is.
    signed(&redis, "hello", "http://[100::1]:8000", 1);
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &SOON_DEAD);
    let begun = Instant::now();
    // Without an answer of the network each audit takes two deadlines of connecting.
    while !listener.daemon.log().contains("withdrawn: the port refuses connections") {
        assert!(begun.elapsed() < 4 * SOON, "{}", listener.daemon.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(redis.cli(&["EXISTS", "prefix:hello"]), "0");
}

#[test]
fn most_routes_at_once_are_kept_until_the_operator_says_so() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    for n in 0..24 {
        signed(&redis, &format!("tool{n}"), &url(free_port()), 1);
    }
    signed(&redis, "hello", &url(port), 1);
    let accept = redis.dir().join("accept");
    let guard = format!("50% floor=20 hold=1h accept={}", accept.display());
    let args = [&SOON_DEAD[..], &["--withdrawal-guard", &guard]].concat();
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    assert_eq!(sample(status, "proxylistener_held_dead_routes"), 0);
    let line =
        listener.daemon.wait_for_line(&["WARN", "most tools' ports refuse connections", "missing=24", "live=25"]);
    assert!(line.contains(accept.to_str().unwrap()), "{line}");
    wait_for_finding(status, "held", 48);
    assert_eq!((found(status, "dead"), sample(status, "proxylistener_held_dead_routes")), (0, 24));
    std::fs::write(&accept, "tool7\n").unwrap();
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"tool7\""]);
    wait_for_finding(status, "held", 46);
    assert_eq!(found(status, "dead"), 1);
    std::fs::write(&accept, "").unwrap();
    wait_for("all others are withdrawn", || found(status, "dead") == 24);
    wait_for("nothing is held", || sample(status, "proxylistener_held_dead_routes") == 0);
    assert_eq!(redis.cli(&["KEYS", "prefix:*"]), "prefix:hello");
}

/// A tool that has most routes is one tool, and holds back nobody's withdrawal.
#[test]
fn one_tools_dead_routes_are_not_most() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    for n in 0..30 {
        redis.cli(&["HSET", "prefix:hello", &format!("/{n}"), &url(free_port())]);
    }
    signed(&redis, "dead", &url(free_port()), 1);
    signed(&redis, "there", &url(port), 1);
    // Registered by one user for several tools, so that one port is right for all.
    let origin = r#"{"source":"proxylistener","owner":"tools.there","host":"127.0.0.1","since":1}"#;
    for n in 0..5 {
        redis.cli(&["HSET", &format!("origin:there{n}"), ".*", origin]);
        redis.cli(&["HSET", &format!("prefix:there{n}"), ".*", &url(port)]);
    }
    let args =
        [&SOON_DEAD[..], &["--allow-client", "127.0.0.0/8", "--withdrawal-guard", "50% floor=3 hold=1h"]].concat();
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.there"), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    wait_for("they are withdrawn", || found(status, "dead") >= 31);
    assert_eq!(redis.cli(&["EXISTS", "prefix:hello", "prefix:dead"]), "0");
}

#[test]
fn off_keeps_them_for_ever() {
    let redis = RedisServer::start(&[]);
    let nobody = url(free_port());
    signed(&redis, "hello", &nobody, 1);
    let args = ["--audit-interval", "20ms", "--metrics-listen", "127.0.0.1:0", "--dead-after", "off"];
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &args);
    wait_for_finding(listener.daemon.address_in("metrics endpoint listening"), "backend_unreachable", 9);
    assert_eq!(route(&redis, ".*"), nobody);
}
