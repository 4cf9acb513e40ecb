//! How an operator runs proxylistener: command line, signals, settings, metrics, systemd.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::channel;

use crate::listener::{Listener, ask, identd, identd_of, read_reply};
use crate::support::daemon::Daemon;
use crate::support::http::{get, is_ready, metric};
use crate::support::port::free_port;
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for};

const IDENT_FAILED: &str = "Identd authentication failed. Please contact an administrator";
const NO_TOOL: &str = "This service available only to tool accounts";
const URL: &str = "http://127.0.0.1:8000";

#[test]
fn sighup_reloads_the_settings() {
    let redis = RedisServer::start(&[]);
    let file = redis.dir().join("settings");
    let write = |text: &str| fs::write(&file, text).unwrap();
    write("idle-timeout 10s\n");
    let args = ["--settings-file", file.to_str().unwrap()];
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &args);
    let elsewhere = "http://10.68.0.1:80";
    assert_eq!(listener.register(".*", elsewhere), "fail");
    let client = listener.connect();

    write("allow-destination 10.68.0.0/16\nidle-timeout 300ms\n");
    listener.daemon.signal("HUP");
    listener.daemon.wait_for_line(&["INFO", "settings reloaded", "changed=true"]);
    assert_eq!(ask(client, format!("register\n.*\n{elsewhere}\n")), "ok", "open connections get the new settings");
    assert_eq!(read_reply(listener.connect()), "", "closed in less than 10 s");

    write("allow-destination 10.68.0.0/16\nidle-timeout soon\n");
    listener.daemon.signal("HUP");
    listener.daemon.wait_for_line(&["WARN", "reload failed", ":2: invalid value 'soon'", "expected e.g."]);
    let again = || ask(listener.connect_from(Ipv4Addr::new(127, 0, 0, 4)), format!("register\n.*\n{elsewhere}\n"));
    wait_for("the current settings stay", || again() == "ok");

    write("listen 127.0.0.1:1\nmetrics-listen 127.0.0.1:0\nredis redis://h/0\n");
    listener.daemon.signal("HUP");
    // The command line overrides the other two.
    listener.daemon.wait_for_line(&["WARN", "restart to apply it", "--metrics-listen"]);
    assert_eq!(listener.daemon.log().matches("restart to apply it").count(), 1);
    wait_for("options removed from the file have their default", || again() == "fail");
}

#[test]
fn metrics_and_health_are_served_over_http() {
    let redis = RedisServer::start(&[]);
    let args = ["--metrics-listen", "127.0.0.1:0", "--audit-interval", "50ms"];
    let mut listener = Listener::start(&redis.url(), identd_of("tools.hello"), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    assert_eq!(get(status, "/live"), (200, "live\n".into()));
    wait_for("ready", || get(status, "/ready") == (200, "ready\n".into()));
    assert_eq!(get(status, "/other").0, 404);
    let free = free_port();
    let url = format!("http://127.0.0.1:{free}");
    assert_eq!(listener.register(".*", &url), "ok");
    assert_eq!(listener.register(".*", "http://192.0.2.1:80"), "fail");
    assert_eq!(listener.ask("unregister\n(\n"), "ok", "nothing of it is there");
    assert_eq!(listener.ask("hello\n"), "fail");
    let idle = listener.connect();
    for (sample, value) in [
        (r#"proxylistener_commands_total{command="register",outcome="ok"}"#, 1.0),
        (r#"proxylistener_commands_total{command="register",outcome="refused"}"#, 1.0),
        (r#"proxylistener_commands_total{command="register",outcome="redis_failed"}"#, 0.0),
        (r#"proxylistener_commands_total{command="unregister",outcome="ok"}"#, 1.0),
        (r#"proxylistener_commands_total{command="unknown",outcome="refused"}"#, 1.0),
        ("proxylistener_ident_seconds_count", 3.0),
        ("proxylistener_connections", 1.0),
        (r#"proxylistener_connections_refused_total{by="waited_longest"}"#, 0.0),
    ] {
        wait_for(sample, || metric(status, sample) == value);
    }
    let sample = r#"proxylistener_audited_routes_total{finding="backend_unreachable"}"#;
    wait_for(sample, || metric(status, sample) > 0.0);
    assert!(metric(status, r#"proxylistener_redis_seconds_bucket{le="+Inf"}"#) > 0.0);
    listener.daemon.signal("TERM");
    wait_for("not ready while it drains", || get(status, "/ready").0 == 503);
    drop(idle);
    assert_eq!(listener.daemon.wait_for_end(), 0);
}

#[test]
fn readiness_follows_redis_writability() {
    let mut redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &["--metrics-listen", "127.0.0.1:0"]);
    let status = listener.daemon.address_in("metrics endpoint listening");
    let wait_until = |ready: bool, what: &str| wait_for(what, || is_ready(status) == ready);
    wait_until(true, "ready");
    assert_eq!(redis.cli(&["DBSIZE"]), "0", "asking writes nothing");
    assert_eq!(redis.cli(&["REPLICAOF", "127.0.0.1", "1"]), "OK");
    wait_until(false, "a replica takes no writes");
    listener.daemon.wait_for_line(&["WARN Redis does not accept writes", "read only"]);
    assert_eq!(redis.cli(&["REPLICAOF", "NO", "ONE"]), "OK");
    wait_until(true, "a master does");
    listener.daemon.wait_for_line(&["INFO Redis accepts writes again"]);
    assert_eq!(redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "1"]), "OK");
    wait_until(false, "too few replicas");
    assert_eq!(redis.cli(&["CONFIG", "SET", "min-replicas-to-write", "0"]), "OK");
    wait_until(true, "enough");
    redis.signal("STOP");
    wait_until(false, "it hangs");
    redis.signal("CONT");
    wait_until(true, "it goes on");
    redis.stop();
    wait_until(false, "it is gone");
    redis.start_again();
    wait_until(true, "it is back");
    assert_eq!(listener.daemon.log().matches("WARN Redis does not accept writes").count(), 4, "once each");
}

#[test]
fn closed_log_changes_nothing() {
    let redis = RedisServer::start(&[]);
    let ident_port = identd_of("tools.hello").to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_proxylistener"));
    command.args([
        "--listen",
        "127.0.0.1:0",
        "--project",
        "tools",
        "--redis",
        &redis.url(),
        "--ident-port",
        &ident_port,
    ]);
    let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(process.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("listening for registrations") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it does not listen");
    }
    let address = line.split_once("address=").unwrap().1.split_once(' ').unwrap().0.to_owned();
    drop(log);
    for _ in 0..3 {
        assert_eq!(ask(TcpStream::connect(&address).unwrap(), format!("register\n.*\n{URL}\n")), "ok");
    }
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn debug_log_has_repeats_and_reasons() {
    let redis = RedisServer::start(&[]);
    let url = format!("http://127.0.0.1:{}", free_port());
    for (level, is_debug) in [("info", false), ("debug", true)] {
        let args = ["--audit-interval", "50ms", "--log-level", level];
        let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &args);
        assert_eq!(listener.register(".*", &url), "ok");
        if is_debug {
            listener.daemon.wait_for_line(&["DEBUG", "no server listens", "tool=\"hello\"", "connection refused"]);
        } else {
            assert!(!listener.daemon.log().contains("DEBUG"));
        }
    }
}

#[test]
fn systemd_watchdog_is_fed() {
    let redis = RedisServer::start(&[]);
    let path = redis.dir().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(SOON)).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "20000")];
    let _listener = Listener::start_with(&redis.url(), free_port(), &[], &environment);
    let mut fed = 0;
    while fed < 3 {
        let mut bytes = [0; 64];
        let len = systemd.recv(&mut bytes).expect("notified in time");
        fed += usize::from(bytes[..len].trim_ascii_end() == b"WATCHDOG=1");
    }
}

#[test]
fn shutdown_drains_open_connections() {
    let redis = RedisServer::start(&[]);
    for signal in ["TERM", "INT"] {
        let (resume, resumed) = channel::<()>();
        let (asking, asked) = channel::<()>();
        let resumed = std::sync::Mutex::new(resumed);
        let ident_port = identd(move |mut stream, (client, ours)| {
            asking.send(()).unwrap();
            resumed.lock().unwrap().recv().unwrap();
            let _ = stream.write_all(format!("{client} , {ours} : USERID : UNIX : tools.hello\r\n").as_bytes());
        });
        let mut listener = Listener::start(&redis.url(), ident_port, &[]);
        let idle = listener.connect();
        let client = listener.connect();
        (&client).write_all(format!("register\n.*\n{URL}\n").as_bytes()).unwrap();
        asked.recv_timeout(SOON).unwrap();
        listener.daemon.signal(signal);
        listener.daemon.wait_for_line(&["draining open connections", "clients=2"]);
        assert!(TcpStream::connect(listener.address).is_err(), "no new connection is accepted");
        resume.send(()).unwrap();
        assert_eq!(read_reply(client), "ok");
        assert_eq!(read_reply(idle), "");
        assert_eq!(listener.daemon.wait_for_end(), 0);
        listener.daemon.wait_for_line(&["shutdown complete"]);
    }
}

#[test]
fn systemd_is_notified_of_start_and_stop() {
    let redis = RedisServer::start(&[]);
    let path = redis.dir().join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(SOON)).unwrap();
    let received = || {
        let mut bytes = [0; 64];
        let len = systemd.recv(&mut bytes).expect("notified in time");
        String::from_utf8_lossy(bytes[..len].trim_ascii_end()).into_owned()
    };
    // A period of 0 means no watchdog.
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "0")];
    let mut listener = Listener::start_with(&redis.url(), free_port(), &[], &environment);
    assert_eq!(received(), "READY=1");
    listener.daemon.signal("TERM");
    assert_eq!(received(), "STOPPING=1");
    assert_eq!(listener.daemon.wait_for_end(), 0);
    assert!(!listener.daemon.log().contains("panicked"), "{}", listener.daemon.log());
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_proxylistener")).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn usage_errors_exit_64_and_help_lists_the_replies() {
    let (status, help, _) = run(&["--help"]);
    assert_eq!(status, Some(0));
    let page = include_str!("../../docs/proxylistener.md");
    for reply in [IDENT_FAILED, NO_TOOL] {
        assert!(help.contains(reply) && page.contains(reply), "{reply}");
    }
    let (status, version, _) = run(&["--version"]);
    assert_eq!((status, &*version), (Some(0), concat!("proxylistener ", env!("CARGO_PKG_VERSION"), "\n")));
    for args in [
        &["--no-such-option"][..],
        &["--project", "a b"],
        &["--project", "a", "--ident-timeout", "soon"],
        &["--project", "a", "--redis", "redis://h:password@:x"],
        &["--project-file", "/nowhere"],
        &["--project", "a", "--project-file", "/b"],
    ] {
        let (status, _, error) = run(args);
        assert_eq!(status, Some(64), "{args:?}: {error}");
        assert!(error.contains("error: ") && !error.contains("password"), "{args:?}: {error}");
    }
}

#[test]
fn taken_port_exits_1() {
    let redis = RedisServer::start(&[]);
    let (status, _, error) = run(&["--project", "tools", "--listen", &format!("127.0.0.1:{}", redis.port())]);
    assert_eq!(status, Some(1));
    assert!(error.contains("startup failed") && error.contains("in use"), "{error}");
}

#[test]
fn redis_url_may_come_from_the_environment() {
    let redis = RedisServer::start(&[]);
    let args = [env!("CARGO_BIN_EXE_proxylistener"), "--listen", "127.0.0.1:0", "--project", "tools"];
    let daemon = Daemon::start(&args, &[("URLPROXY_REDIS", &redis.url())]);
    daemon.wait_for_line(&["listening for registrations", &format!("redis=\"{}\"", redis.reach())]);
}
