//! Behavior that all daemons share: metrics, signals, logs, the connection to Redis.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::http::{get, get_with, metric};
use crate::support::redis::RedisServer;
use crate::support::sentinel::{FakeSentinel, sentinel_configuration, start_sentinel};
use crate::support::tls::{Pki, tls_server};
use crate::support::wait::wait_for;

/// The daemons, by the prefixes of their metrics.
pub const DAEMONS: [&str; 4] = ["proxylistener", "kube2proxy", "webservicemonitor", "invisible_unicorn"];
/// A URL where nothing listens.
const NO_REDIS: &str = "redis://127.0.0.1:1/0";

/// The command line of a daemon that finds none of its services.
fn command_of(daemon: &str, dir: &TempDir) -> Vec<String> {
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("kube2proxy.yaml"), "kubernetes:\n  master: http://127.0.0.1:1\n  token: secret\n").unwrap();
    let (program, args) = match daemon {
        "proxylistener" => {
            (env!("CARGO_BIN_EXE_proxylistener"), format!("--listen 127.0.0.1:0 --project tools --redis {NO_REDIS}"))
        }
        "kube2proxy" => {
            (env!("CARGO_BIN_EXE_kube2proxy"), format!("--config {} --redis {NO_REDIS}", path("kube2proxy.yaml")))
        }
        "webservicemonitor" => (
            env!("CARGO_BIN_EXE_webservicemonitor"),
            format!(
                "--project tools --distribution bookworm --list-url http://127.0.0.1:1/list --qstat false \
                 --active-proxy-file {} --state {} --manifests {}",
                path("nowhere"),
                path("state"),
                path("*/service.manifest")
            ),
        ),
        "invisible_unicorn" => (
            env!("CARGO_BIN_EXE_invisible-unicorn"),
            format!("--listen 127.0.0.1:0 --database {} --redis {NO_REDIS}", path("domains.db")),
        ),
        other => panic!("no daemon {other}"),
    };
    [program].into_iter().chain(args.split_whitespace()).map(str::to_owned).collect()
}

/// Starts a daemon; returns it with the address of its metrics endpoint.
pub fn start(daemon: &str, dir: &TempDir) -> (Daemon, SocketAddr) {
    start_under(&[], daemon, dir)
}

/// Like [`start`], run by another program.
fn start_under(launcher: &[&str], daemon: &str, dir: &TempDir) -> (Daemon, SocketAddr) {
    let command = command_of(daemon, dir);
    let mut words: Vec<&str> = launcher.to_vec();
    words.extend(command.iter().map(String::as_str));
    words.extend(["--metrics-listen", "127.0.0.1:0"]);
    let process = Daemon::start(&words, &[]);
    let status = process.address_in("metrics endpoint listening");
    (process, status)
}

/// The names and types of families, and the names of samples without labels, in the text format.
pub fn names(text: &str) -> (BTreeSet<(String, String)>, BTreeSet<String>) {
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let samples = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next());
    (families.map(|(name, kind)| (name.into(), kind.into())).collect(), samples.map(str::to_owned).collect())
}

/// README, docs and packaging.
fn documents() -> Vec<(PathBuf, String)> {
    fn collect(path: &Path, found: &mut Vec<(PathBuf, String)>) {
        if path.is_dir() {
            fs::read_dir(path).unwrap().for_each(|entry| collect(&entry.unwrap().path(), found));
        } else {
            found.push((path.to_owned(), fs::read_to_string(path).unwrap()));
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    ["README.md", "docs", "packaging"].iter().for_each(|name| collect(&root.join(name), &mut found));
    found
}

#[test]
fn metrics_follow_the_conventions_and_exist_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for daemon in DAEMONS {
        let (_process, status) = start(daemon, &dir);
        let (code, text) = get(status, "/metrics");
        assert_eq!(code, 200);
        let (families, samples) = names(&text);
        assert_eq!(metric(status, &format!("{daemon}_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))), 1.0);
        for (name, kind) in &families {
            let own = name.strip_prefix(&format!("{daemon}_"));
            let inner =
                own.or_else(|| name.strip_prefix("process_")).unwrap_or_else(|| panic!("{name} has another prefix"));
            assert!(!DAEMONS.iter().any(|other| inner.starts_with(other)), "{name} has two prefixes");
            assert_eq!(kind == "counter", inner.ends_with("_total"), "{name} is a {kind}");
            assert!(
                kind != "histogram" || ["_seconds", "_bytes"].iter().any(|unit| inner.ends_with(unit)),
                "{name}: unit"
            );
            for part in inner.split('_') {
                assert!(
                    !["ms", "milliseconds", "minutes", "hours", "kb", "mb"].contains(&part),
                    "{name}: no base unit"
                );
            }
            let sample = if kind == "histogram" { format!("{name}_count") } else { name.clone() };
            assert!(samples.contains(&sample), "{name} has no sample at the start");
        }
        for name in ["cpu_seconds_total", "start_time_seconds", "resident_memory_bytes", "open_fds", "max_fds"] {
            assert!(metric(status, &format!("process_{name}")) > 0.0, "{daemon}: {name}");
        }
    }
}

#[test]
fn documents_list_exactly_the_metrics_that_exist() {
    let dir = tempfile::tempdir().unwrap();
    let mut known = BTreeSet::new();
    let mut families = BTreeSet::new();
    for daemon in DAEMONS {
        let (_process, status) = start(daemon, &dir);
        let (of_one, samples) = names(&get(status, "/metrics").1);
        families.extend(of_one.into_iter().map(|(name, _)| name));
        known.extend(samples);
    }
    known.extend(families.iter().cloned());
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let mut named = 0;
    for (path, text) in documents() {
        for word in text.split(|c| !is_name(c)) {
            let of_ours = DAEMONS.iter().chain(&["process"]).any(|prefix| word.starts_with(&format!("{prefix}_")));
            if of_ours {
                named += 1;
                assert!(known.contains(word), "{}: no daemon has a metric {word}", path.display());
            }
        }
    }
    assert!(named > 50, "only {named} names found: this test searches the wrong files");
    let pages: String = documents().into_iter().map(|(_, text)| text).collect();
    for name in families {
        let is_listed = pages.contains(&format!("`{name}`"));
        let of_all = DAEMONS.iter().find_map(|daemon| name.strip_prefix(daemon));
        let is_of_all = of_all.is_some_and(|rest| pages.contains(&format!("`<daemon>{rest}`")));
        assert!(is_listed || is_of_all, "no page lists {name}");
    }
}

#[test]
fn accept_header_selects_the_metrics_format() {
    let dir = tempfile::tempdir().unwrap();
    let (_process, status) = start("kube2proxy", &dir);
    for (accept, kind, is_open_metrics) in [
        ("", "text/plain; version=0.0.4; charset=utf-8", false),
        ("Accept: text/plain\r\n", "text/plain; version=0.0.4; charset=utf-8", false),
        (
            "Accept: application/openmetrics-text;version=1.0.0\r\nAccept: text/plain;q=0.5\r\n",
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            true,
        ),
    ] {
        let (head, body) = get_with(status, "/metrics", accept);
        assert!(head.contains(&format!("\r\ncontent-type: {kind}\r\n")), "{accept:?}: {head}");
        assert_eq!(body.ends_with("# EOF\n"), is_open_metrics, "{accept:?}");
        let family = if is_open_metrics { "kube2proxy_watch_failures" } else { "kube2proxy_watch_failures_total" };
        assert!(body.contains(&format!("# TYPE {family} counter\n")), "{accept:?}");
        assert!(body.contains("\nkube2proxy_watch_failures_total "), "{accept:?}");
    }
}

#[test]
fn daemons_survive_sighup() {
    let dir = tempfile::tempdir().unwrap();
    for daemon in DAEMONS {
        let (mut process, status) = start(daemon, &dir);
        process.signal("HUP");
        let words = if daemon == "proxylistener" { ["INFO", "settings reloaded"] } else { ["WARN", "SIGHUP ignored"] };
        process.wait_for_line(&words);
        assert_eq!(get(status, "/live").0, 200, "{daemon}");
        process.signal("TERM");
        assert_eq!(process.wait_for_end(), 0, "{daemon}");
    }
}

#[test]
fn bind_errors_name_the_option_and_the_address() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let _listener = TcpListener::bind(taken).unwrap();
    let taken = taken.to_string();
    for (daemon, option) in DAEMONS
        .map(|daemon| (daemon, "--metrics-listen"))
        .into_iter()
        .chain([("proxylistener", "--listen"), ("invisible_unicorn", "--listen")])
    {
        let mut command = command_of(daemon, &dir);
        match command.iter_mut().skip_while(|word| *word != option).nth(1) {
            Some(value) => value.clone_from(&taken),
            None => command.extend([option.to_owned(), taken.clone()]),
        }
        let mut process = Daemon::start(&command.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
        assert_eq!(process.wait_for_end(), 1, "{daemon} {option}");
        process.wait_for_line(&["ERROR startup failed", "in use", &format!("while binding {option} {taken}")]);
    }
}

#[test]
fn journal_lines_have_priorities_and_no_timestamp() {
    // As systemd connects standard error to the journal, but with a pipe.
    const TO_JOURNAL: [&str; 3] = ["sh", "-c", r#"JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$0" "$@""#];
    let dir = tempfile::tempdir().unwrap();
    for daemon in DAEMONS {
        let (mut process, _) = start_under(&TO_JOURNAL, daemon, &dir);
        process.signal("HUP");
        process.wait_for_line(&[if daemon == "proxylistener" { "<6>INFO settings" } else { "<4>WARN SIGHUP" }]);
        process.signal("TERM");
        assert_eq!(process.wait_for_end(), 0);
        let log = process.log();
        let is_prefixed =
            |line: &str| ["<3>ERROR ", "<4>WARN ", "<6>INFO "].iter().any(|begin| line.starts_with(begin));
        assert!(log.lines().all(is_prefixed), "{log}");
    }
    // An inherited variable does not count if standard error is not the journal.
    let elsewhere = Daemon::start(
        &[
            "sh",
            "-c",
            r#"JOURNAL_STREAM=1:1 exec "$0" "$@""#,
            env!("CARGO_BIN_EXE_portreleaser"),
            "--active-proxy-file",
            "/nowhere",
        ],
        &[],
    );
    assert!(elsewhere.wait_for_line(&["/nowhere"]).starts_with("20"), "{}", elsewhere.log());
    let mut words = TO_JOURNAL.to_vec();
    words.extend([env!("CARGO_BIN_EXE_portreleaser"), "--active-proxy-file", "/nowhere"]);
    let client = Daemon::start(&words, &[]);
    assert!(client.wait_for_line(&["/nowhere"]).starts_with("<3>ERROR "), "{}", client.log());
    // Usage errors have the priority of errors.
    let mut words = TO_JOURNAL.to_vec();
    words.extend([env!("CARGO_BIN_EXE_kube2proxy"), "--no-such-option"]);
    let mut wrong = Daemon::start(&words, &[]);
    assert_eq!(wrong.wait_for_end(), 64);
    wrong.wait_for_line(&["<3>error: unexpected argument"]);
    assert!(wrong.log().lines().all(|line| line.starts_with("<3>")), "{}", wrong.log());
}

/// Whether the other end has closed.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(1..) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            // Reset: the other end has not read everything.
            Ok(0) | Err(_) => return true,
        }
    }
}

#[test]
fn clients_cannot_lock_monitors_out() {
    std::thread::scope(|scope| {
        for daemon in DAEMONS {
            scope.spawn(move || assert_open_to_monitors(daemon));
        }
    });
}

fn assert_open_to_monitors(daemon: &str) {
    let dir = tempfile::tempdir().unwrap();
    let (_process, status) = start(daemon, &dir);
    let before = metric(status, "process_open_fds");
    let open = |sent: &[u8]| {
        let mut stream = TcpStream::connect(status).unwrap();
        let _ = stream.write_all(sent);
        stream.set_nonblocking(true).unwrap();
        stream
    };
    // Silent clients, clients in the middle of a request, and clients that do not read responses.
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let sent = [b"" as &[u8], b"GET /metrics HTTP/1.1\r\nHost:", request.as_bytes()];
    let mut held: Vec<_> = (0..60).map(|number| open(sent[number % 3])).collect();
    for _ in 0..10 {
        assert_eq!(get(status, "/live").0, 200, "{daemon}");
    }
    // Plus the connection of this request.
    assert!(metric(status, "process_open_fds") <= before + 16.0, "{daemon}: few are open at once");
    wait_for("all are closed", || held.iter_mut().all(is_closed));
    // A client that keeps sending header lines is closed as well.
    let mut dripping = open(b"GET /live HTTP/1.1\r\n");
    wait_for("it is closed", || {
        let is_refused = dripping.write_all(b"x: y\r\n").is_err();
        std::thread::sleep(Duration::from_millis(100));
        is_refused || is_closed(&mut dripping)
    });
}

#[test]
fn metrics_endpoint_refuses_unknown_paths_and_methods() {
    let dir = tempfile::tempdir().unwrap();
    let (_process, status) = start("kube2proxy", &dir);
    assert_eq!(get(status, "/").0, 404);
    assert_eq!(get(status, "/metrics?x").0, 200);
    let mut client = TcpStream::connect(status).unwrap();
    client.write_all(b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.contains("\r\nallow: GET, HEAD\r\n"), "{answer}");
}

/// Starts invisible-unicorn, as a program that writes to Redis; returns it with the address of its API.
fn start_writer(dir: &TempDir, redis: &[&str]) -> (Daemon, SocketAddr) {
    start_writer_in(&[], dir, redis)
}

/// Like [`start_writer`], with these environment variables.
fn start_writer_in(environment: &[(&str, &str)], dir: &TempDir, redis: &[&str]) -> (Daemon, SocketAddr) {
    let database = dir.path().join("domains.db").display().to_string();
    let program = env!("CARGO_BIN_EXE_invisible-unicorn");
    let command = [&[program, "--listen", "127.0.0.1:0", "--database", &database][..], redis].concat();
    let process = Daemon::start(&command, environment);
    let address = process.address_in("API listening");
    (process, address)
}

/// Maps a domain to a backend, and waits until that Redis has it.
fn map(api: SocketAddr, domain: &str, smembers: impl Fn(&str) -> String) {
    let body = format!(r#"{{"domain":"{domain}","backends":["http://10.0.0.1:80"]}}"#);
    let mut stream = TcpStream::connect(api).unwrap();
    let head = format!("PUT /v1/tools/mapping HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    write!(stream, "{head}Connection: close\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    wait_for("Redis has it", || smembers(&format!("frontend:{domain}")) == "http://10.0.0.1:80");
}

#[test]
fn redis_is_written_over_tls_with_a_password_from_a_file() {
    let (server, dir, port) = tls_server("IP:127.0.0.1", &[]);
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("redis.pass"), "pw\n").unwrap();
    let url = format!("rediss://127.0.0.1:{port}/2?ca={}", path("ca.pem"));
    let (_process, api) = start_writer(&dir, &["--redis", &url, "--redis-password-file", &path("redis.pass")]);
    map(api, "a.example.org", |key| server.cli(&["-a", "pw", "--no-auth-warning", "-n", "2", "SMEMBERS", key]));
}

#[test]
fn an_authority_of_the_system_that_cannot_be_read_is_left_out() {
    let (server, dir, port) = tls_server("IP:127.0.0.1", &[]);
    let path = |name: &str| dir.path().join(name).display().to_string();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    fs::write(path("system.pem"), format!("{broken}{}", fs::read_to_string(path("ca.pem")).unwrap())).unwrap();
    for (number, parameter) in [String::new(), format!("?ca={}", path("ca.pem"))].iter().enumerate() {
        let url = format!("rediss://:pw@127.0.0.1:{port}/{number}{parameter}");
        let (_process, api) = start_writer_in(&[("SSL_CERT_FILE", &path("system.pem"))], &dir, &["--redis", &url]);
        let number = number.to_string();
        map(api, "a.example.org", |key| server.cli(&["-a", "pw", "--no-auth-warning", "-n", &number, "SMEMBERS", key]));
    }
}

#[test]
fn redis_is_not_written_to_a_server_with_a_certificate_for_another_name() {
    let (_server, dir, port) = tls_server("DNS:redis.example.org", &[]);
    let url = format!("rediss://:pw@127.0.0.1:{port}/0?ca={}", dir.path().join("ca.pem").display());
    let (process, _) = start_writer(&dir, &["--redis", &url]);
    process.wait_for_line(&["replication to Redis failing", "not valid for name"]);
}

#[test]
fn redis_is_written_over_a_unix_socket() {
    let server = RedisServer::start(&["--port", "0"]);
    let dir = tempfile::tempdir().unwrap();
    let (_process, api) = start_writer(&dir, &["--redis", &format!("unix:{}?db=1", server.socket().display())]);
    map(api, "a.example.org", |key| server.cli(&["-n", "1", "SMEMBERS", key]));
}

#[test]
fn sentinels_lead_to_the_master_also_after_a_failover() {
    let master = RedisServer::start(&["--repl-diskless-sync-delay", "0"]);
    let port = master.port().to_string();
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &port]);
    wait_for("a complete copy", || replica.cli(&["INFO", "replication"]).contains("master_link_status:up"));
    let sentinel = start_sentinel(master.port(), 1, "");
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sentinel://127.0.0.1:{}/mymaster/0", sentinel.port());
    let (_process, api) = start_writer(&dir, &["--redis", &url]);
    map(api, "a.example.org", |key| master.cli(&["SMEMBERS", key]));
    wait_for("failing over", || sentinel.cli(&["SENTINEL", "FAILOVER", "mymaster"]) == "OK");
    wait_for("promoted", || replica.cli(&["ROLE"]).starts_with("master"));
    map(api, "b.example.org", |key| replica.cli(&["SMEMBERS", key]));
}

#[test]
fn redis_is_written_over_tls_to_the_master_that_sentinels_name() {
    let (pki, dir) = (Pki::new(), tempfile::tempdir().unwrap());
    let (master, port) = pki.start(None, &[]);
    let (_sentinel, sentinel) = pki.start(Some(&sentinel_configuration(port, 1, "")), &["--sentinel"]);
    let url = format!("sentinels://127.0.0.1:{sentinel}/mymaster/1?{}", pki.parameters());
    let (_process, api) = start_writer(&dir, &["--redis", &url]);
    map(api, "a.example.org", |key| master.cli(&["-n", "1", "SMEMBERS", key]));
    let without = format!("rediss://127.0.0.1:{port}/0?ca={}", pki.path("ca.pem"));
    let (process, _) = start_writer(&tempfile::tempdir().unwrap(), &["--redis", &without]);
    process.wait_for_line(&["replication to Redis failing", "the server may require a client certificate"]);
}

#[test]
fn replicas_that_sentinels_name_as_master_are_refused() {
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", "1"]);
    let sentinel = FakeSentinel::start("127.0.0.1", replica.port());
    let dir = tempfile::tempdir().unwrap();
    let (process, _) = start_writer(&dir, &["--redis", &format!("sentinel://127.0.0.1:{}/mymaster", sentinel.port)]);
    let refused = format!("127.0.0.1:{} is a replica, expected the master", replica.port());
    process.wait_for_line(&["replication to Redis failing", &refused]);
}
