//! The Redis client against a real Redis.

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

use redis::cmd;
use urlproxy::redis_client::{Connection, ConnectionError, Invalidation, Reply};

use crate::connecting::{LONG, SHORT, ask, open, open_with_short_timeouts, refusal, source, track};
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for};

#[test]
fn logs_in_over_tcp_and_selects_a_database() {
    let server = RedisServer::start(&[]);
    let mut connection = open(&format!("redis://127.0.0.1:{}/3", server.port())).unwrap();
    connection.ping().unwrap();
    let info = ask(&mut connection, &["CLIENT", "INFO"]);
    // Redis 6 reports no protocol.
    let wanted = [" db=3 ", " name=urlproxy ", " resp=3"];
    for want in &wanted[..if server.is_6() { 2 } else { 3 }] {
        assert!(info.contains(want), "{want:?} in {info}");
    }
    assert!(open(&format!("redis://localhost:{}", server.port())).is_ok(), "by name");
    let refused = refusal(open(&format!("redis://127.0.0.1:{}/16", server.port())));
    assert_eq!(refused, "server says ERR DB index is out of range");
}

#[test]
fn logs_in_over_a_unix_socket() {
    let mut server = RedisServer::start(&["--port", "0"]);
    let url = format!("unix://{}?db=1", server.socket().display());
    let mut connection = open(&url).unwrap();
    assert!(ask(&mut connection, &["CLIENT", "INFO"]).contains(" db=1 "));
    server.stop();
    assert!(matches!(connection.ping(), Err(ConnectionError::Closed | ConnectionError::Broken(_))));
    let refused = refusal(open(&url));
    assert!(refused.starts_with("cannot connect to /"), "{refused}");
}

#[test]
fn logs_in_with_a_password() {
    let server = RedisServer::start(&["--requirepass", "s3cret/@"]);
    let at = format!("127.0.0.1:{}", server.port());
    assert!(open(&format!("redis://:s3cret%2F%40@{at}")).unwrap().ping().is_ok());
    let without = format!("redis://{at}");
    let with = source(&without).with_password("s3cret/@");
    assert!(Connection::open(&with, LONG, &|| false).is_ok());
    assert!(refusal(open(&format!("redis://:wr0ng@{at}"))).starts_with("server says WRONGPASS "));
    assert!(refusal(open(&without)).starts_with("server says NOAUTH "));
}

#[test]
fn logs_in_as_an_acl_user() {
    let server = RedisServer::start(&[]);
    server.cli(&[
        "ACL",
        "SETUSER",
        "sync",
        "on",
        ">pw",
        "~prefix:*",
        "+@read",
        "+select",
        "+hello",
        "+ping",
        "+acl|whoami",
    ]);
    server.cli(&["ACL", "SETUSER", "open", "on", "nopass", "+@all"]);
    let at = format!("127.0.0.1:{}", server.port());
    let mut connection = open(&format!("redis://sync:pw@{at}")).expect("CLIENT SETNAME is denied, and not needed");
    assert_eq!(ask(&mut connection, &["ACL", "WHOAMI"]), "sync");
    assert!(ask(&mut connection, &["HSET", "prefix:a", "b", "c"]).starts_with("server says NOPERM "));
    connection.ping().expect("an error reply leaves the connection usable");
    assert!(open(&format!("redis://open@{at}")).is_ok());
    assert!(refusal(open(&format!("redis://sync:no@{at}"))).starts_with("server says WRONGPASS "));
}

#[test]
fn max_clients_is_reported() {
    let server = RedisServer::start(&["--maxclients", "1"]);
    // The server counts the client that waited for its start until it notices the end.
    let mut first = None;
    wait_for("the only client", || {
        first = open(&server.url()).ok();
        first.is_some()
    });
    assert_eq!(refusal(open(&server.url())), "server says ERR max number of clients reached");
}

#[test]
fn pushes_wake_the_waiting_read() {
    let server = RedisServer::start(&[]);
    let mut connection = open(&server.url()).unwrap();
    track(&mut connection);
    let early = Instant::now();
    assert!(!connection.wait_push(early + Duration::from_millis(20)).unwrap(), "nothing has changed yet");
    assert!(early.elapsed() >= Duration::from_millis(20));

    let mut late: Vec<_> = (0..20)
        .map(|i| {
            let key = format!("prefix:{i}");
            thread::scope(|scope| {
                let writing = scope.spawn(|| {
                    server.cli(&["HSET", "other:a", ".*", "http://h:1"]);
                    server.cli(&["HSET", &key, ".*", "http://h:1"]);
                    Instant::now()
                });
                assert!(connection.wait_push(Instant::now() + SOON).unwrap());
                let seen = Instant::now();
                assert_eq!(connection.next_push(), Some(Invalidation::Keys(vec![key.clone().into_bytes()])));
                seen.saturating_duration_since(writing.join().unwrap())
            })
        })
        .collect();
    // A polling read would be late by half of its interval. A busy machine delays some pushes, but not most.
    late.sort();
    let mut trips: Vec<_> = (0..20)
        .map(|_| {
            let begun = Instant::now();
            connection.ping().unwrap();
            begun.elapsed()
        })
        .collect();
    trips.sort();
    assert!(late[5] < Duration::from_millis(10) + 10 * trips[5], "{late:?}, {trips:?}");
    assert_eq!(connection.next_push(), None);

    assert_eq!(server.cli(&["FLUSHALL"]), "OK");
    assert!(connection.wait_push(Instant::now() + SOON).unwrap());
    assert_eq!(connection.next_push(), Some(Invalidation::All));
    connection.ping().unwrap();
}

#[test]
fn waiting_does_not_spin() {
    let server = RedisServer::start(&[]);
    let checks = Cell::new(0);
    let stop = || checks.replace(checks.get() + 1) == usize::MAX;
    let mut connection = Connection::open(&source(&server.url()), LONG, &stop).unwrap();
    checks.set(0);
    assert!(!connection.wait_push(Instant::now() + Duration::from_millis(250)).unwrap());
    assert!((1..=10).contains(&checks.get()), "{} checks of stop", checks.get());
}

#[test]
fn pushes_between_replies_are_queued() {
    let server = RedisServer::start(&[]);
    let mut connection = open(&server.url()).unwrap();
    track(&mut connection);
    let mut packed = Vec::new();
    (0..1000).for_each(|i| cmd("HSET").arg(format!("prefix:{i}")).arg("f").arg(i).write_packed_command(&mut packed));
    (0..1000).for_each(|i| cmd("HGET").arg(format!("prefix:{i}")).arg("f").write_packed_command(&mut packed));
    connection.send(&packed).unwrap();
    for _ in 0..1000 {
        assert!(connection.reply(|reply| reply == Reply::Integer(1)).unwrap());
    }
    for i in 0..1000 {
        let value = connection.reply(|reply| reply == Reply::Text(i.to_string().as_bytes())).unwrap();
        assert!(value, "the reply for {i}");
    }
    connection.ping().unwrap();
    let mut keys = Vec::new();
    while keys.len() < 1000 && connection.wait_push(Instant::now() + SOON).unwrap() {
        match connection.next_push() {
            Some(Invalidation::Keys(some)) => keys.extend(some),
            other => panic!("{other:?}"),
        }
    }
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 1000);
}

#[test]
fn errors_of_a_killed_connection_are_permanent() {
    let server = RedisServer::start(&[]);
    let mut connection = open(&server.url()).unwrap();
    track(&mut connection);
    server.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
    assert!(matches!(connection.wait_push(Instant::now() + SOON), Err(ConnectionError::Closed)));
    assert!(matches!(connection.ping(), Err(ConnectionError::GivenUp)));
    assert!(matches!(connection.wait_push(Instant::now()), Err(ConnectionError::GivenUp)));
}

#[test]
fn silent_servers_time_out() {
    let server = RedisServer::start(&[]);
    let mut connection = open_with_short_timeouts(&server.url()).unwrap();
    server.signal("STOP");
    let begun = Instant::now();
    let outcome = connection.ping();
    server.signal("CONT");
    assert!(matches!(outcome, Err(ConnectionError::Silent(_))), "{outcome:?}");
    assert!(begun.elapsed() >= SHORT.silence, "{:?}", begun.elapsed());
    assert!(matches!(connection.ping(), Err(ConnectionError::GivenUp)), "a late PONG must not answer the next");
}

#[test]
fn large_replies_are_complete() {
    let server = RedisServer::start(&[]);
    let fill = "for i = 1, 200000 do redis.call('HSET', KEYS[1], i, 'http://10.0.0.1:' .. i) end return 'filled'";
    assert_eq!(server.cli(&["EVAL", fill, "1", "prefix:big"]), "filled");
    let mut connection = open(&server.url()).unwrap();
    let packed = cmd("HGETALL").arg("prefix:big").get_packed_command();
    let pairs = connection.ask(&packed, |reply| if let Reply::Map(pairs) = reply { pairs.len() } else { 0 });
    assert_eq!(pairs.unwrap(), 200_000);
}

#[cfg(feature = "tls")]
mod tls {
    use super::*;
    use crate::support::tls::tls_server;

    #[test]
    fn private_authorities_are_trusted_if_configured() {
        let (server, dir, port) = tls_server("IP:127.0.0.1", &[]);
        let ca = dir.path().join("ca.pem").display().to_string();
        let mut connection = open(&format!("rediss://:pw@127.0.0.1:{port}/2?ca={ca}")).unwrap();
        assert!(ask(&mut connection, &["CLIENT", "INFO"]).contains(" db=2 "));

        track(&mut connection);
        server.cli(&["-a", "pw", "--no-auth-warning", "-n", "2", "HSET", "prefix:a", "b", "c"]);
        assert!(connection.wait_push(Instant::now() + SOON).unwrap());
        assert_eq!(connection.next_push(), Some(Invalidation::Keys(vec![b"prefix:a".to_vec()])));

        let mut packed = Vec::new();
        let big = "x".repeat(100_000);
        (0..100).for_each(|_| cmd("ECHO").arg(&big).write_packed_command(&mut packed));
        connection.send(&packed).unwrap();
        for _ in 0..100 {
            assert!(connection.reply(|reply| reply == Reply::Text(big.as_bytes())).unwrap());
        }

        server.cli(&["-a", "pw", "--no-auth-warning", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
        assert!(connection.wait_push(Instant::now() + SOON).is_err());

        let refused = refusal(open(&format!("rediss://:pw@127.0.0.1:{port}")));
        assert!(
            refused.starts_with("TLS with \"127.0.0.1\" failed: "),
            "the system knows no such authority: {refused}"
        );
        let refused = refusal(open_with_short_timeouts(&format!("rediss://:pw@127.0.0.1:{}?ca={ca}", server.port())));
        assert!(refused.starts_with("TLS with \"127.0.0.1\" failed: "), "a port without TLS: {refused}");
        assert!(open(&format!("redis://:pw@127.0.0.1:{port}")).is_err(), "a TLS port without TLS");
    }

    #[test]
    fn certificates_for_other_names_are_refused() {
        let (_server, dir, port) = tls_server("DNS:redis.example.org", &[]);
        let ca = dir.path().join("ca.pem").display().to_string();
        let refused = refusal(open(&format!("rediss://:pw@127.0.0.1:{port}?ca={ca}")));
        assert!(refused.contains("not valid for name"), "{refused}");
    }
}
