//! Several tools at one address, and the index of addresses.

use super::*;

const ARGS: [&str; 6] =
    ["--audit-interval", "50ms", "--metrics-listen", "127.0.0.1:0", "--allow-client", "127.0.0.0/8"];

fn holder(redis: &RedisServer, port: u16) -> String {
    redis.cli(&["HGET", "addresses", &format!("127.0.0.1:{port}")])
}

#[test]
fn owner_of_the_port_keeps_a_shared_address() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    let listener = Listener::start(
        &redis.url(),
        identd_by(move |about| if about == port { "tools.second" } else { "tools.hello" }),
        &ARGS,
    );
    for tool in ["first", "second", "third"] {
        redis.cli(&["HSET", &format!("prefix:{tool}"), ".*", &url(port)]);
    }
    redis.cli(&["HSET", "addresses", &format!("127.0.0.1:{port}"), "third"]);
    wait_for("the others' routes are withdrawn", || redis.cli(&["EXISTS", "prefix:first", "prefix:third"]) == "0");
    wait_for("the index says so", || holder(&redis, port) == "second");
    assert_eq!(redis.cli(&["HGET", "prefix:second", ".*"]), url(port));
    assert!(listener.daemon.log().contains("owner=\"tools.second\""));
}

#[test]
fn index_follows_old_writers() {
    let redis = RedisServer::start(&[]);
    let (_silent, silent) = backend();
    let (one, both, gone) = (free_port(), free_port(), free_port());
    let ident_port = identd(move |mut stream, (about, ours)| {
        let what = if about == silent { "ERROR : NO-USER" } else { "USERID : UNIX : tools.hello" };
        let _ = stream.write_all(format!("{about} , {ours} : {what}\r\n").as_bytes());
    });
    redis.cli(&["HSET", "prefix:silent", ".*", &url(silent)]);
    redis.cli(&["HSET", "prefix:one", ".*", &url(one), "/both", &url(both)]);
    redis.cli(&["HSET", "prefix:other", ".*", &url(both)]);
    // A Service's address, in a route that is not the grid's.
    redis.cli(&["HSET", "prefix:service", ".*", "http://10.0.0.1:80"]);
    redis.cli(&["SADD", "k8s_services", "tool-service/service/.*"]);
    redis.cli(&["HSET", "addresses", "10.0.0.1:80", "service", &format!("127.0.0.1:{gone}"), "one", "nonsense", "one"]);
    let listener = Listener::start(&redis.url(), ident_port, &ARGS);
    wait_for("what is unknown but alone has its address", || holder(&redis, silent) == "silent");
    wait_for("also what does not listen", || holder(&redis, one) == "one");
    wait_for("what is stale is gone", || redis.cli(&["HLEN", "addresses"]) == "3");
    wait_for_finding(listener.daemon.address_in("metrics endpoint listening"), "backend_unreachable", 6);
    assert_eq!(
        (holder(&redis, both), redis.cli(&["HGET", "addresses", "10.0.0.1:80"])),
        (String::new(), "service".into())
    );
}

/// A key of the wrong type counts as empty, and nothing is written to it.
#[test]
fn index_of_the_wrong_type_is_ignored() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    redis.cli(&["SET", "addresses", "text"]);
    redis.cli(&["SET", "k8s_services", "text"]);
    redis.cli(&["SET", "prefix:text", "text"]);
    redis.cli(&["HSET", "prefix:hello", ".*", &url(port)]);
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &ARGS);
    wait_for_finding(listener.daemon.address_in("metrics endpoint listening"), "own", 3);
    assert_eq!(redis.cli(&["GET", "addresses"]), "text");
    assert!(!listener.daemon.log().contains("audit failed"));
}

/// A result early in an audit may be outdated at its end.
#[test]
fn tool_that_gets_a_port_during_the_audit_keeps_it() {
    let redis = RedisServer::start(&[]);
    let ((_backend, port), (_slow, slow)) = (backend(), backend());
    let (is_seconds, (resume, resumed)) = (Arc::new(AtomicBool::new(false)), channel::<()>());
    let (is_second, resumed) = (Arc::clone(&is_seconds), Mutex::new(resumed));
    let ident_port = identd(move |mut stream, (about, ours)| {
        if about == slow {
            let _ = resumed.lock().unwrap().recv();
        }
        let user = if is_second.load(SeqCst) { "tools.second" } else { "tools.first" };
        let _ = stream.write_all(format!("{about} , {ours} : USERID : UNIX : {user}\r\n").as_bytes());
    });
    redis.cli(&["HSET", "prefix:first", ".*", &url(port)]);
    redis.cli(&["HSET", "prefix:slow", ".*", &url(slow)]);
    let args = ["--metrics-listen", "127.0.0.1:0", "--allow-client", "127.0.0.0/8", "--ident-timeout", "1h"];
    let listener = Listener::start(&redis.url(), ident_port, &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    // The first audit may have found it already.
    wait_for("the audit of first", || found(status, "own") == 1);
    is_seconds.store(true, SeqCst);
    assert_eq!(listener.register(".*", &url(port)), "ok");
    assert_eq!(redis.cli(&["HGET", "prefix:second", ".*"]), url(port));
    drop(resume);
    wait_for("the audit has ended", || sample(status, "proxylistener_audit_rounds_total") == 1);
    assert_eq!(redis.cli(&["HGET", "prefix:second", ".*"]), url(port));
}
