//! Ports that refuse connections.

use std::time::{SystemTime, UNIX_EPOCH};

use super::*;

/// Dead after the fewest audits, in a short time.
const SOON_DEAD: [&str; 6] = ["--audit-interval", "50ms", "--metrics-listen", "127.0.0.1:0", "--dead-after", "100ms"];

#[test]
fn route_to_a_dead_port_is_withdrawn() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &SOON_DEAD);
    let status = listener.daemon.address_in("metrics endpoint listening");
    let (_backend, port) = backend();
    let dead = url(free_port());
    assert_eq!(listener.register("/there", &url(port)), "ok");
    assert_eq!(listener.ask(format!("registerCanonical\n.*\n{dead}\n")), "ok");
    let destination = format!("destination=\"{dead}\"");
    listener.daemon.wait_for_line(&["WARN", "withdrawn", "refuses connections", "tool=\"hello\"", &destination]);
    wait_for_finding(status, "own", 4);
    assert_eq!(redis.cli(&["HKEYS", "prefix:hello"]), "/there");
    assert_eq!(redis.cli(&["HKEYS", "origin:hello"]), "/there");
    assert_eq!((redis.cli(&["EXISTS", "redirect:hello"]), found(status, "dead")), ("0".into(), 1));
    assert_eq!(redis.cli(&["HGETALL", "addresses"]), format!("127.0.0.1:{port}\nhello"));
}

#[test]
fn starting_server_keeps_its_route() {
    let redis = RedisServer::start(&[]);
    let args = ["--audit-interval", "20ms", "--metrics-listen", "127.0.0.1:0", "--dead-after", "10m"];
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    let dead = url(free_port());
    assert_eq!(listener.register(".*", &dead), "ok");
    wait_for_finding(status, "backend_unreachable", 9);
    assert_eq!(route(&redis, ".*"), dead);
}

/// The dead time counts from the registration, whatever earlier audits found.
#[test]
fn new_registration_restarts_the_dead_time() {
    let redis = RedisServer::start(&[]);
    let dead = url(free_port());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    write_registered(&redis, "old", &dead, 1);
    write_registered(&redis, "new", &dead, now + 3600);
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &SOON_DEAD);
    let status = listener.daemon.address_in("metrics endpoint listening");
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"old\""]);
    wait_for_finding(status, "backend_unreachable", 4);
    assert_eq!(redis.cli(&["HGET", "prefix:new", ".*"]), dead);
}

#[test]
fn busy_server_is_not_dead() {
    let redis = RedisServer::start(&[]);
    let full = full();
    write_registered(&redis, "hello", &url(full.2), 1);
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &SOON_DEAD);
    let status = listener.daemon.address_in("metrics endpoint listening");
    // Each probe takes until the connect deadline.
    (0..4).for_each(|_| wait_for_finding(status, "backend_unreachable", 1));
    assert_eq!((route(&redis, ".*"), found(status, "dead")), (url(full.2), 0));
}

#[test]
fn lost_host_loses_its_routes() {
    let redis = RedisServer::start(&[]);
    // The discard prefix of RFC 6666: no host has this address.
    write_registered(&redis, "hello", "http://[100::1]:8000", 1);
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &SOON_DEAD);
    let begun = Instant::now();
    // If the network does not answer, each audit takes two connect deadlines.
    while !listener.daemon.log().contains("route withdrawn; its port refuses connections") {
        assert!(begun.elapsed() < 4 * SOON, "{}", listener.daemon.log());
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(redis.cli(&["EXISTS", "prefix:hello"]), "0");
}

#[test]
fn mass_failure_is_held_until_the_operator_accepts() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    for n in 0..24 {
        write_registered(&redis, &format!("tool{n}"), &url(free_port()), 1);
    }
    write_registered(&redis, "hello", &url(port), 1);
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

/// A tool with most of the routes counts as one tool, and holds back no withdrawal.
#[test]
fn dead_routes_of_one_tool_are_no_mass_failure() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    for n in 0..30 {
        redis.cli(&["HSET", "prefix:hello", &format!("/{n}"), &url(free_port())]);
    }
    write_registered(&redis, "dead", &url(free_port()), 1);
    write_registered(&redis, "there", &url(port), 1);
    // One user has registered several tools, so that one port serves all of them.
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
fn dead_after_off_keeps_dead_routes() {
    let redis = RedisServer::start(&[]);
    let dead = url(free_port());
    write_registered(&redis, "hello", &dead, 1);
    let args = ["--audit-interval", "20ms", "--metrics-listen", "127.0.0.1:0", "--dead-after", "off"];
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &args);
    wait_for_finding(listener.daemon.address_in("metrics endpoint listening"), "backend_unreachable", 9);
    assert_eq!(route(&redis, ".*"), dead);
}
