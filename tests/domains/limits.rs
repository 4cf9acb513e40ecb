//! Limits of invisible-unicorn, so that no client, project or backend harms the others.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, connect, socket, sockopt};

use crate::site::{A, B, Site, Unicorn, frontends, one, start, wanted};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// Requests with more response bytes than the kernel buffers for a client that does not read.
const MANY: usize = 500;

/// A connection from another address of this machine, with a small receive buffer.
fn connect_from(last: u8, unicorn: &Unicorn) -> TcpStream {
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 4096).unwrap();
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, last), 0)).unwrap();
    let SocketAddr::V4(address) = unicorn.address else { panic!("an IPv4 address") };
    connect(&socket, &address).unwrap();
    TcpStream::from(socket)
}

/// Sends many requests, and reads no response.
fn ask_and_do_not_read(last: u8, unicorn: &Unicorn) -> TcpStream {
    let mut stream = connect_from(last, unicorn);
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    // The first request reads the database.
    stream.write_all((ask("/v1/tools/mapping") + &ask("/openapi.json").repeat(MANY)).as_bytes()).unwrap();
    stream
}

/// Reads and discards until the other end closes.
fn wait_for_end(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(120))).unwrap();
    let mut bytes = [0; 65536];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
                return;
            }
        }
    }
}

#[test]
fn clients_that_do_not_read_are_evicted() {
    let (_site, redis, unicorn) = start(&["--max-connections", "8"]);
    let mut silent: Vec<_> =
        [2, 3, 4, 5].iter().flat_map(|last| [*last; 2]).map(|last| ask_and_do_not_read(last, &unicorn)).collect();
    wait_for("all are connected", || unicorn.metric("invisible_unicorn_connections") == 8.0);
    // If the server works for all of them at one instant, another one is refused, and retries.
    let is_put = |domain: &str| {
        let answer = unicorn.try_ask("PUT", "/v1/tools/mapping", &[], &wanted(domain, &[A]));
        answer.is_ok_and(|answer| answer.status == 200)
    };
    for number in 0..4 {
        wait_for("an answer", || is_put(&format!("d{number}.example.org")));
    }
    assert_eq!(frontends(&redis).len(), 4);
    assert!(unicorn.metric("invisible_unicorn_connections_refused_total{by=\"waited_longest\"}") >= 1.0);
    // The longest idle one is evicted.
    wait_for_end(&mut silent[0]);
    // One address gets at most half; its own oldest connection is evicted.
    let _many: Vec<_> = (0..20).map(|_| connect_from(9, &unicorn)).collect();
    wait_for("at most half", || unicorn.metric("invisible_unicorn_connections") <= 8.0);
    wait_for("an answer", || is_put("last.example.org"));
}

#[test]
fn responses_that_are_not_read_in_time_are_aborted() {
    let (_site, _redis, unicorn) = start(&[]);
    let _silent = ask_and_do_not_read(2, &unicorn);
    wait_for("it is connected", || unicorn.metric("invisible_unicorn_connections") == 1.0);
    let started = std::time::Instant::now();
    let is_gone = || unicorn.metric("invisible_unicorn_connections") == 0.0;
    while !is_gone() {
        assert!(started.elapsed() < Duration::from_secs(180), "the connection stays open");
        std::thread::sleep(Duration::from_millis(200));
    }
    unicorn.daemon.wait_for_line(&["DEBUG", "connection failed"]);
}

#[test]
fn total_domains_are_limited() {
    let (site, _redis, unicorn) = start(&["--max-total-domains", "3"]);
    for number in 0..3 {
        unicorn.put(&format!("p{number}"), &format!("d{number}.example.org"), &[A]);
    }
    let put = || unicorn.say("PUT", "/v1/more/mapping", &wanted("more.example.org", &[A]));
    assert_eq!(put(), (403, "Too many domains: all projects together may have 3".into()));
    // Existing domains can be changed.
    unicorn.put("p0", "d0.example.org", &[B]);
    assert_eq!(unicorn.say("POST", "/v1/p0/mapping/d0.example.org", &wanted("e0.example.org", &[B])).0, 200);
    assert_eq!(site.run(&["domain", "remove", "d1.example.org"]).0, 0);
    assert_eq!(put(), (200, String::new()));
    assert_eq!(site.mappings().len(), 3);
}

#[test]
fn empty_projects_are_removed_at_the_limit() {
    let (site, _redis, unicorn) = start(&["--max-total-domains", "4"]);
    assert_eq!(site.run(&["token", "create", "locked"]).0, 0);
    unicorn.put("kept", "kept.example.org", &[A]);
    for number in 0..10 {
        unicorn.put(&format!("p{number}"), "a.example.org", &[A]);
        let path = format!("/v1/p{number}/mapping");
        assert_eq!(unicorn.say("DELETE", &format!("{path}/a.example.org"), "").0, 200);
        assert_eq!(unicorn.say("GET", &path, "").0, 200, "known for a while");
    }
    let database = site.open();
    let mut query = database.prepare("SELECT name FROM project ORDER BY id").unwrap();
    let names: Vec<String> = query.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert!(names.len() <= 4 && names.starts_with(&["locked".into(), "kept".into()]), "{names:?}");
    assert_eq!(unicorn.say("GET", "/v1/locked/mapping", "").0, 401);
}

#[test]
fn own_addresses_are_refused_as_backends() {
    let site = Site::new();
    let redis = RedisServer::start(&[]);
    // Both have port 0: the ports are known only after binding.
    let unicorn = site.start(&redis, &["--allow-backend", "127.0.0.0/8", "10.0.0.0/8"]);
    let redis_port = redis.source_port();
    let put = |unicorn: &Unicorn, backend: &str| {
        unicorn.say("PUT", "/v1/tools/mapping", &wanted("a.example.org", &[backend]))
    };
    for port in [unicorn.address.port(), unicorn.status.port(), redis_port] {
        for host in ["127.0.0.1", "[::ffff:127.0.0.1]"] {
            let backend = format!("http://{host}:{port}");
            let (status, body) = put(&unicorn, &backend);
            assert!(
                status == 400 && body.contains("is this API, its metrics endpoint or its Redis"),
                "{backend}: {body}"
            );
        }
    }
    assert_eq!(put(&unicorn, "http://127.0.0.1:80").0, 200);
    assert_eq!(site.mappings(), [one("a.example.org", "http://127.0.0.1:80")]);
    // Nor by the command line, which has the same options.
    let (url, backend) = (redis.url(), format!("http://127.0.0.1:{redis_port}"));
    let map = ["--redis", &url, "domain", "map", "tools", "b.example.org", &backend, "--allow-backend", "127.0.0.0/8"];
    let (status, _, error) = site.run(&map);
    assert!(status == 1 && error.contains("or its Redis"), "{status} {error}");
    drop(unicorn);
    // Also by name: a Redis at a loopback address may listen on all addresses of the machine.
    let url = redis.url().replace("127.0.0.1", "localhost");
    let unicorn = site.start(&redis, &["--redis", &url, "--allow-backend", "127.0.0.0/8", "10.0.0.0/8"]);
    for host in ["127.0.0.1", "127.0.0.2"] {
        let (status, body) = put(&unicorn, &format!("http://{host}:{redis_port}"));
        assert!(status == 400 && body.contains("is this API, its metrics endpoint or its Redis"), "{host}: {body}");
    }
    assert_eq!(put(&unicorn, "http://127.0.0.2:80").0, 200);
    drop(unicorn);

    // Without networks: loopback addresses in any notation, and names that resolve to one.
    let unicorn = site.start(&redis, &["--redis", &url]);
    for backend in [
        "http://127.0.0.1:80",
        "http://127.1.2.3:80",
        "http://[::1]:80",
        "http://localhost:80",
        "http://LOCALHOST.:80",
        "http://a.localhost:80",
        &format!("http://localhost:{redis_port}"),
        // Embedded in IPv6.
        "http://[64:ff9b::127.0.0.1]:80",
        "http://[64:ff9b::169.254.169.254]:80",
        "http://[2002:7f00:1::1]:80",
        "http://[2002:a9fe:a9fe::1]:80",
        "http://[::127.0.0.1]:80",
    ] {
        let (status, body) = put(&unicorn, backend);
        assert_eq!(status, 400, "{backend}: {body}");
    }
    assert_eq!(put(&unicorn, "http://no-such-name.invalid:80").0, 200, "a name without an address is allowed");
    let answer = unicorn.ask(
        "PUT",
        "/v1/tools/mapping",
        &["Accept: application/json"],
        &wanted("a.example.org", &["http://localhost:80"]),
    );
    let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(problem["title"], "Invalid backend");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.starts_with("backend http://localhost:80 resolves to an address that is not allowed"), "{detail}");
}

#[test]
fn names_are_resolved_only_after_authorization() {
    let (_site, _redis, unicorn) = start(&["--require-tokens"]);
    let (status, body) = unicorn.say("PUT", "/v1/tools/mapping", &wanted("a.example.org", &["http://localhost:80"]));
    assert_eq!(status, 401, "{body}");
}

#[test]
fn changes_are_answered_while_another_process_writes() {
    let (site, _redis, unicorn) = start(&[]);
    let other = site.open();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    // One after the other, they would exceed a client's timeout.
    thread::scope(|scope| {
        let answers: Vec<_> = (0..12)
            .map(|number| {
                let body = wanted(&format!("a{number}.example.org"), &[A]);
                let unicorn = &unicorn;
                scope.spawn(move || unicorn.say("PUT", "/v1/tools/mapping", &body))
            })
            .collect();
        for answer in answers {
            assert_eq!(answer.join().unwrap(), (503, "Database unavailable".into()));
        }
    });
    other.execute_batch("ROLLBACK").unwrap();
    unicorn.put("tools", "a.example.org", &[A]);
}

#[test]
fn changes_continue_during_pruning() {
    let (site, redis, unicorn) = start(&[]);
    unicorn.put("tools", "a.example.org", &[A]);
    drop(unicorn);
    site.open()
        .execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
             INSERT INTO audit(at, who, project, action, domain, after)
             SELECT unixepoch(), 'w', 'p', 'put', 'd', hex(zeroblob(1000)) FROM n;",
        )
        .unwrap();
    let unicorn = site.start(&redis, &["--audit-size", "1MiB"]);
    let bytes = || {
        site.open()
            .query_row("SELECT number FROM total WHERE name = 'audit_bytes'", [], |row| row.get::<_, i64>(0))
            .unwrap()
    };
    let is_pruned = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            let mut changes = 0;
            while !is_pruned.load(Relaxed) {
                for backend in [A, B] {
                    let body = wanted("a.example.org", &[backend]);
                    let answer = unicorn.ask("POST", "/v1/tools/mapping/a.example.org", &[], &body);
                    assert_eq!((answer.status, answer.header("urlproxy-replicated")), (200, Some("yes")));
                    changes += 1;
                }
            }
            changes
        });
        // Not `wait_for`: the changing thread must end even if the pruning does not.
        let started = std::time::Instant::now();
        while bytes() > 1 << 20 && started.elapsed() < Duration::from_secs(120) {
            std::thread::sleep(Duration::from_millis(20));
        }
        is_pruned.store(true, Relaxed);
        let changes = changing.join().unwrap();
        println!("{changes} changes meanwhile");
        assert!(changes > 10 && bytes() <= 2 << 20, "{changes} changes, {} bytes", bytes());
    });
    unicorn.daemon.wait_for_line(&["INFO", "old entries removed from the audit log", "rows="]);
    let rows: i64 = site.open().query_row("SELECT count(*) FROM audit", [], |row| row.get(0)).unwrap();
    // Some 500 large rows, or more of the small ones that the changes added meanwhile.
    assert!((100..10_000).contains(&rows), "{rows}");
    assert!(site.run(&["audit", "--limit", "1"]).1.contains("\treplace\ta.example.org\t"), "the latest stay");
    assert!(unicorn.metric("invisible_unicorn_audit_bytes") > 0.0);
}
