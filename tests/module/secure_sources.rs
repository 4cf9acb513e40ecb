//! Sources over TLS: failovers, client certificates, and certificates that are renewed or refused.

use std::path::Path;
use std::time::{Duration, Instant};

use urlproxy::sync::{Journal, load_once};
use urlproxy::table::OwnedTable;

use crate::connecting::{open, open_parsed, refusal, source};
use crate::following::{CAPACITY, following, lines, settings};
use crate::sources::{assert_logged, fill, has, keeping, role, route};
use crate::support::redis::RedisServer;
use crate::support::sentinel::{FakeSentinel, sentinel_configuration};
use crate::support::tls::{Pki, certify, tls_server};
use crate::support::wait::wait_for;

/// Access of Sentinels to each other, and a user for clients who ask for the master's address.
const SENTINEL_USERS: &str = "requirepass s3cret\nsentinel sentinel-pass s3cret\n\
    user watch on >w -@all +sentinel|get-master-addr-by-name";

#[test]
fn a_failover_over_tls_is_followed() {
    let pki = Pki::new();
    std::fs::write(pki.file("sentinel.pass"), "w\n").unwrap();
    let users = ["--user", "sync", "on", ">pw", "~*", "+@all", "--repl-diskless-sync-delay", "0"];
    let (mut master, master_port) = pki.start(None, &users);
    fill(&master);
    let primary = master_port.to_string();
    let (replica, _) = pki.start(None, &[&users[..], &["--replicaof", "127.0.0.1", &primary]].concat());
    wait_for("the replica has a copy", || role(&replica) == "slave connected");
    let configuration = sentinel_configuration(master_port, 2, SENTINEL_USERS);
    let sentinels = [(); 3].map(|()| pki.start(Some(&configuration), &["--sentinel"]));
    let ask_all = |words: &[&str]| {
        let login = ["-a", "s3cret", "--no-auth-warning", "SENTINEL"];
        sentinels.iter().map(|(sentinel, _)| sentinel.cli(&[&login[..], words].concat())).collect::<Vec<_>>()
    };
    let addresses: Vec<_> = sentinels.iter().map(|(_, port)| format!("127.0.0.1:{port}")).collect();
    let url = format!(
        "sentinels://sync:pw@{}/mymaster/0?{}&sentinel_user=watch&sentinel_password_file={}",
        addresses.join(","),
        pki.parameters(),
        pki.path("sentinel.pass"),
    );
    let plain = url.replace("sentinels://", "sentinel://").replace(&format!("{}&", pki.parameters()), "");
    assert!(refusal(open(&plain)).starts_with("no Sentinel knows"), "{}", refusal(open(&plain)));
    let said = following(&settings(&url), |table| {
        keeping(table, || {
            let all = |words: &[&str], is: &dyn Fn(&str) -> bool| ask_all(words).iter().all(|answer| is(answer));
            wait_for("the Sentinels know each other", || {
                all(&["CKQUORUM", "mymaster"], &|answer| answer.starts_with("OK 3 "))
            });
            wait_for("the Sentinels know the replica", || {
                all(&["REPLICAS", "mymaster"], &|answer| answer.contains("master-link-status\nok"))
            });
            let begun = Instant::now();
            master.stop();
            assert!(all(&["SET", "mymaster", "down-after-milliseconds", "500"], &|answer| answer == "OK"));
            wait_for("promoted", || role(&replica) == "master");
            let promoted = begun.elapsed();
            route(&replica, "new", 9);
            wait_for("routed", || has(table, "new", 9));
            println!("failover over TLS: promoted after {promoted:?}, routed after {:?}", begun.elapsed());
        });
    });
    assert_logged(&said, "in step again after ");
    assert!(!said.iter().any(|entry| entry.text.contains("pw@") || entry.text.contains("s3cret")), "{said:#?}");
}

#[test]
fn servers_that_want_a_client_certificate_get_it() {
    let (pki, other) = (Pki::new(), Pki::new());
    for protocol in ["TLSv1.3", "TLSv1.2"] {
        let (_server, port) = pki.start(None, &["--tls-protocols", protocol]);
        let to = |parameters: &str| refusal(open(&format!("rediss://127.0.0.1:{port}/0?{parameters}")));
        assert_eq!(to(&pki.parameters()), "accepted", "{protocol}");
        let none = to(&format!("ca={}", pki.path("ca.pem")));
        let want = "; the server may require a client certificate, expected e.g. \"?cert=/etc/ssl/";
        assert!(none.starts_with("TLS with \"127.0.0.1\" failed: ") && none.contains(want), "{protocol}: {none}");
        let wrong = to(&other.parameters().replace(&other.path("ca.pem"), &pki.path("ca.pem")));
        let want = "; the server does not accept the client certificate";
        assert!(wrong.starts_with("TLS with \"127.0.0.1\" failed: ") && wrong.ends_with(want), "{protocol}: {wrong}");
    }
}

#[test]
fn renewed_client_certificates_are_used_at_the_next_connection() {
    let [own, old, new] = [(); 3].map(|()| Pki::new());
    let install =
        |from: &Pki| ["cert.pem", "key.pem"].map(|file| std::fs::copy(from.file(file), own.file(file)).unwrap());
    let (server, port) = old.start(None, &[]);
    // The server keeps its certificate, and wants clients with one of another CA.
    let want_from =
        |pki: &Pki| assert_eq!(server.cli(&["CONFIG", "SET", "tls-ca-cert-file", &pki.path("ca.pem")]), "OK");
    install(&old);
    let url = format!(
        "rediss://127.0.0.1:{port}/0?ca={}&cert={}&key={}",
        old.path("ca.pem"),
        own.path("cert.pem"),
        own.path("key.pem")
    );
    let url = source(&url);
    let connect = || refusal(open_parsed(&url));
    assert_eq!(connect(), "accepted");
    want_from(&new);
    assert!(connect().ends_with("; the server does not accept the client certificate"), "{}", connect());
    install(&new);
    assert_eq!(connect(), "accepted", "the renewed one");

    // What cannot be used replaces nothing.
    std::fs::write(own.file("key.pem"), "").unwrap();
    assert_eq!(connect(), "accepted", "the last good one");
    std::fs::remove_file(own.file("cert.pem")).unwrap();
    assert_eq!(connect(), "accepted", "the last good one");
    want_from(&old);
    let refused = connect();
    let missing = format!("client certificate file {:?}: No such file", own.file("cert.pem"));
    assert!(refused.contains(&missing) && refused.ends_with("; its earlier content is in use"), "{refused}");
    install(&old);
    assert_eq!(connect(), "accepted");
}

#[test]
fn sentinels_must_name_a_server_that_the_certificate_is_for() {
    let pki = Pki::new();
    let (_server, port) = pki.start(None, &[]);
    let (sentinel, sentinel_port) = pki.start(Some(&sentinel_configuration(port, 1, "")), &["--sentinel"]);
    let url = |host: &str| format!("sentinels://{host}:{sentinel_port}/mymaster/0?{}", pki.parameters());
    assert_eq!(refusal(open(&url("127.0.0.1"))), "accepted");
    let refused = refusal(open(&url("localhost")));
    assert!(refused.contains("TLS with \"localhost\" failed: ") && refused.contains("not valid for name"), "{refused}");
    sentinel.cli(&["SENTINEL", "REMOVE", "mymaster"]);
    assert_eq!(sentinel.cli(&["SENTINEL", "MONITOR", "mymaster", "127.0.0.2", &port.to_string(), "1"]), "OK");
    let refused = refusal(open(&url("127.0.0.1")));
    assert!(refused.starts_with("cannot connect to 127.0.0.2:") || refused.contains("not valid for name"), "{refused}");
}

#[test]
fn names_that_sentinels_announce_count_instead_of_addresses() {
    let pki = Pki::of("DNS:localhost");
    let (_server, port) = pki.start(None, &[]);
    let names = "sentinel resolve-hostnames yes\nsentinel announce-hostnames yes";
    let configuration = format!("{names}\n{}", sentinel_configuration(port, 1, "").replace("127.0.0.1", "localhost"));
    let (_sentinel, sentinel_port) = pki.start(Some(&configuration), &["--sentinel"]);
    let url = |host: &str| format!("sentinels://{host}:{sentinel_port}/mymaster/0?{}", pki.parameters());
    assert_eq!(refusal(open(&url("localhost"))), "accepted");
    let refused = refusal(open(&url("127.0.0.1")));
    assert!(refused.contains("TLS with \"127.0.0.1\" failed: ") && refused.contains("not valid for name"), "{refused}");
}

#[test]
fn lies_of_sentinels_are_refused() {
    let server = RedisServer::start(&[]);
    let sentinel = FakeSentinel::start("127.0.0.1", server.port());
    let url = format!("sentinel://127.0.0.1:{}/mymaster/0", sentinel.port);
    assert_eq!(refusal(open(&url)), "accepted");
    for host in ["0.0.0.0", "255.255.255.255", "::", "h\n[emerg] no", ""] {
        sentinel.set_master(host, server.port());
        let refused = refusal(open(&url));
        assert!(refused.contains(": invalid address of the master: host \"") && !refused.contains('\n'), "{refused}");
    }
    for length in [70_000, 1_000_000] {
        sentinel.set_reply(format!("*2\r\n${length}\r\n{}\r\n$1\r\n1\r\n", "x".repeat(length)));
        let refused = refusal(open(&url));
        assert!(refused.contains(": unexpected reply of more than 65536 bytes"), "{refused}");
    }
}

#[test]
fn certificates_of_another_authority_cause_an_outage() {
    let (mut server, dir, port) = tls_server("IP:127.0.0.1", &["--appendonly", "yes"]);
    let [own, other] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    certify(other.path(), "IP:127.0.0.1");
    let install = |from: &Path, to: &Path| {
        ["ca.pem", "cert.pem", "key.pem"].map(|file| std::fs::copy(from.join(file), to.join(file)).unwrap())
    };
    install(dir.path(), own.path());
    // The tests' redis-cli has no password.
    let open_up = ["-a", "pw", "--no-auth-warning", "CONFIG", "SET", "requirepass", ""];
    assert_eq!(server.cli(&open_up), "OK");
    fill(&server);
    let url = |ca: &Path| format!("rediss://127.0.0.1:{port}/0?ca={}", ca.join("ca.pem").display());
    let owned = OwnedTable::new(CAPACITY);
    let (journal, reader) = Journal::new(100);
    let soon = Instant::now() + Duration::from_millis(300);
    assert!(!load_once(owned.table(), &settings(&url(other.path())), soon, &journal));
    let said = lines(&reader);
    assert!(said[0].text.contains("TLS with \"127.0.0.1\" failed: invalid peer certificate: "), "{said:?}");

    let said = following(&settings(&url(own.path())), |table| {
        keeping(table, || {
            route(&server, "new", 9);
            wait_for("routed", || has(table, "new", 9));
            server.stop();
            let refusals = |server: &RedisServer| server.log().matches("Error accepting a client connection").count();
            let before = refusals(&server);
            install(other.path(), dir.path());
            server.start_again();
            wait_for("refused", || refusals(&server) > before);
            assert!(has(table, "new", 9));
            let begun = Instant::now();
            server.stop();
            install(own.path(), dir.path());
            server.start_again();
            assert_eq!(server.cli(&open_up), "OK");
            route(&server, "new", 10);
            wait_for("routed", || has(table, "new", 10));
            println!("with the right certificate again a change arrived after {:?}", begun.elapsed());
        });
    });
    assert_logged(&said, "TLS with \"127.0.0.1\" failed: invalid peer certificate: ");
}
