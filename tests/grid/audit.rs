//! proxylistener's audit withdraws a route when its port belongs to another user, or refuses connections for long, and for no
//! other reason.

mod dead;
mod index;
mod without_origin;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::listener::{Listener, ask, identd, identd_by};
use crate::real_identd;
use crate::support::daemon::Daemon;
use crate::support::http;
use crate::support::port::free_port;
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for};

const FREQUENT_AUDITS: [&str; 4] = ["--audit-interval", "50ms", "--metrics-listen", "127.0.0.1:0"];

/// A server that never calls accept: the kernel accepts for it.
fn backend() -> (TcpListener, u16) {
    let backend = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = backend.local_addr().unwrap().port();
    (backend, port)
}

fn url(port: u16) -> String {
    format!("http://127.0.0.1:{port}")
}

fn route(redis: &RedisServer, pattern: &str) -> String {
    redis.cli(&["HGET", "prefix:hello", pattern])
}

/// Writes a route for all paths with its origin, as registered by the tool from the URL's host.
fn write_registered(redis: &RedisServer, tool: &str, url: &str, since: u64) {
    let host = url.trim_start_matches("http://").rsplit_once(':').unwrap().0.trim_matches(['[', ']']);
    let origin = format!(r#"{{"source":"proxylistener","owner":"tools.{tool}","host":"{host}","since":{since}}}"#);
    redis.cli(&["HSET", &format!("origin:{tool}"), ".*", &origin]);
    redis.cli(&["HSET", &format!("prefix:{tool}"), ".*", url]);
}

/// The number of routes with this finding.
fn found(status: SocketAddr, finding: &str) -> u64 {
    sample(status, &format!("proxylistener_audited_routes_total{{finding=\"{finding}\"}}"))
}

#[track_caller]
fn sample(status: SocketAddr, name: &str) -> u64 {
    let (_, metrics) = http::get(status, "/metrics");
    let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

#[track_caller]
fn wait_for_finding(status: SocketAddr, finding: &str, times: u64) {
    let before = found(status, finding);
    wait_for(finding, || found(status, finding) >= before + times);
}

#[test]
fn route_is_withdrawn_when_its_port_changes_owner() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    let owner = Arc::new(Mutex::new("tools.hello"));
    let current_owner = Arc::clone(&owner);
    let ident_port = identd_by(move |about| if about == port { *current_owner.lock().unwrap() } else { "tools.hello" });
    let listener = Listener::start(&redis.url(), ident_port, &FREQUENT_AUDITS);
    let status = listener.daemon.address_in("metrics endpoint listening");
    assert_eq!(listener.ask(format!("registerCanonical\n.*\n{}\n", url(port))), "ok");
    let (_other_backend, other_port) = self::backend();
    assert_eq!(listener.register("/mine", &url(other_port)), "ok");
    wait_for_finding(status, "own", 4);
    assert_eq!(route(&redis, ".*"), url(port));

    *owner.lock().unwrap() = "tools.other";
    let line = listener.daemon.wait_for_line(&["WARN", "withdrawn"]);
    let destination = format!("destination=\"{}\"", url(port));
    for word in ["tool=\"hello\"", "pattern=\".*\"", &destination, "owner=\"tools.other\""] {
        assert!(line.contains(word), "{line}");
    }
    wait_for_finding(status, "own", 2);
    assert_eq!(redis.cli(&["HGETALL", "prefix:hello"]), format!("/mine\n{}", url(other_port)));
    assert_eq!(redis.cli(&["HKEYS", "origin:hello"]), "/mine");
    assert_eq!(redis.cli(&["EXISTS", "redirect:hello"]), "0");
    assert_eq!(found(status, "withdrawn"), 1);
}

#[test]
fn users_of_another_project_are_foreign() {
    let redis = RedisServer::start(&[]);
    for user in ["tools.hell", "tools.hello2", "toolsbeta.hello", "hello", "www-data"] {
        let (_backend, port) = backend();
        write_registered(&redis, "hello", &url(port), 1);
        let _listener = Listener::start(&redis.url(), identd_by(move |_| user), &FREQUENT_AUDITS);
        wait_for(user, || route(&redis, ".*").is_empty());
    }
}

/// Registers a route, lets `audited` answer identd queries about it, and checks that it stays over several audits with this
/// finding.
#[track_caller]
fn stays(finding: &str, audited: impl Fn(TcpStream, u16, u16) + Send + Sync + 'static) {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    let ident_port = identd(move |mut stream, (about, ours)| {
        if about == port {
            return audited(stream, about, ours);
        }
        let _ = stream.write_all(format!("{about} , {ours} : USERID : UNIX : tools.hello\r\n").as_bytes());
    });
    let args = [&FREQUENT_AUDITS[..], &["--ident-timeout", "100ms"]].concat();
    let listener = Listener::start(&redis.url(), ident_port, &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    assert_eq!(listener.register(".*", &url(port)), "ok");
    wait_for_finding(status, finding, 2);
    assert_eq!(route(&redis, ".*"), url(port), "{finding}");
    assert!(!listener.daemon.log().contains("withdrawn"));
}

fn says(reply: &'static str) -> impl Fn(TcpStream, u16, u16) + Send + Sync {
    move |mut stream, about, ours| {
        let reply = reply.replace("{about}", &about.to_string()).replace("{ours}", &ours.to_string());
        let _ = stream.write_all(reply.as_bytes());
    }
}

#[test]
fn uninformative_identd_withdraws_nothing() {
    stays("owner_unknown", says("{about} , {ours} : ERROR : NO-USER\r\n"));
    stays("owner_unknown", says("{about} , {ours} : ERROR : HIDDEN-USER\r\n"));
    stays("owner_unknown", says("{about} , 1 : USERID : UNIX : tools.other\r\n"));
    stays("owner_unknown", says("{about} , {ours} : USERID : UNIX : tools.oth"));
    stays("owner_unknown", says("\0\r\n"));
    stays("owner_unknown", says(""));
    let (_never, silence) = channel::<()>();
    let silence = Mutex::new(silence);
    stays("owner_unknown", move |_held, _, _| silence.lock().unwrap().recv().unwrap_or_default());
}

/// A connection that its server has not accepted belongs to the kernel, which identds report as root.
#[test]
fn unaccepted_connection_keeps_the_route() {
    stays("owner_unknown", says("{about} , {ours} : USERID : UNIX : root\r\n"));
}

/// A server that sends a reply to each client, and keeps the connection open.
fn talker() -> u16 {
    let (backend, port) = backend();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for mut stream in backend.incoming().flatten() {
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n");
            open.push(stream);
        }
    });
    port
}

#[test]
fn root_counts_only_for_accepted_connections() {
    let redis = RedisServer::start(&[]);
    let (tools, roots) = (talker(), talker());
    let asked = Mutex::new(0);
    let ident_port = identd_by(move |about| {
        let mut asked = asked.lock().unwrap();
        if about == tools {
            *asked += 1;
        }
        // First the kernel owns it, then the server.
        if about == roots || about == tools && *asked % 2 == 1 { "root" } else { "tools.hello" }
    });
    let listener = Listener::start(&redis.url(), ident_port, &FREQUENT_AUDITS);
    let status = listener.daemon.address_in("metrics endpoint listening");
    write_registered(&redis, "hello", &url(tools), 1);
    write_registered(&redis, "roots", &url(roots), 1);
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"roots\"", "owner=\"root\""]);
    wait_for_finding(status, "own", 2);
    assert_eq!(redis.cli(&["KEYS", "prefix:*"]), "prefix:hello");
}

/// A server with a full backlog: connecting takes until the deadline.
fn full() -> (TcpListener, Vec<TcpStream>, u16) {
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let soon = Duration::from_millis(200);
    let waiting: Vec<_> = (0..8).map_while(|_| TcpStream::connect_timeout(&address, soon).ok()).collect();
    (listener, waiting, address.port())
}

/// A server that accepts late and sends nothing: until then its connections belong to the kernel.
#[test]
fn owner_of_a_late_server_is_found() {
    let redis = RedisServer::start(&[]);
    let (backend, port) = backend();
    let accepted = Arc::new(Mutex::new(Vec::new()));
    let known = Arc::clone(&accepted);
    std::thread::spawn(move || {
        for stream in backend.incoming().flatten() {
            std::thread::sleep(Duration::from_millis(500));
            known.lock().unwrap().push(stream);
        }
    });
    let ident_port = identd(move |mut stream, (about, ours)| {
        let is_this = |held: &TcpStream| held.peer_addr().is_ok_and(|peer| peer.port() == ours);
        let user = match accepted.lock().unwrap().iter().any(is_this) {
            _ if about != port => "tools.hello",
            true => "tools.other",
            false => "root",
        };
        let _ = stream.write_all(format!("{about} , {ours} : USERID : UNIX : {user}\r\n").as_bytes());
    });
    let listener = Listener::start(&redis.url(), ident_port, &FREQUENT_AUDITS);
    write_registered(&redis, "hello", &url(port), 1);
    listener.daemon.wait_for_line(&["withdrawn", "owner=\"tools.other\""]);
}

#[test]
fn lasting_unknown_owner_is_counted_and_logged_once() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    let ident_port = identd(move |mut stream, (about, ours)| {
        let what = if about == port { "ERROR : HIDDEN-USER" } else { "USERID : UNIX : tools.hello" };
        let _ = stream.write_all(format!("{about} , {ours} : {what}\r\n").as_bytes());
    });
    let listener = Listener::start(&redis.url(), ident_port, &FREQUENT_AUDITS);
    let status = listener.daemon.address_in("metrics endpoint listening");
    assert_eq!(sample(status, "proxylistener_owner_unknown_routes"), 0);
    assert_eq!(listener.register(".*", &url(port)), "ok");
    listener.daemon.wait_for_line(&["WARN", "port owner unknown", "tool=\"hello\"", "audits=3", "HIDDEN-USER"]);
    wait_for("the gauge", || sample(status, "proxylistener_owner_unknown_routes") == 1);
    wait_for_finding(status, "owner_unknown", 4);
    assert_eq!(listener.daemon.log().matches("WARN port owner unknown").count(), 1, "{}", listener.daemon.log());
    assert_eq!(listener.ask("unregister\n.*\n"), "ok");
    wait_for("the gauge falls", || sample(status, "proxylistener_owner_unknown_routes") == 0);
}

#[test]
fn stalled_servers_do_not_delay_other_tools() {
    let redis = RedisServer::start(&[]);
    let (one, two) = (full(), full());
    let (_backend, port) = backend();
    let ident_port = identd_by(move |about| if about == port { "tools.zebra" } else { "tools.hello" });
    let args = ["--audit-interval", "200ms"];
    let listener = Listener::start(&redis.url(), ident_port, &args);
    let origin = r#"{"source":"proxylistener","owner":"tools.zoo","host":"127.0.0.1","since":1}"#;
    redis.cli(&["HSET", "prefix:zoo", ".*", &url(port)]);
    assert_eq!(listener.register("/one", &url(one.2)), "ok");
    assert_eq!(listener.register("/two", &url(two.2)), "ok");
    // Their probes are running by now, or come first.
    redis.cli(&["HSET", "origin:zoo", ".*", origin]);
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"zoo\"", "owner=\"tools.zebra\""]);
    assert_eq!(redis.cli(&["HLEN", "prefix:hello"]), "2");
}

#[test]
fn changed_project_withdraws_nothing() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    let file = redis.dir().join("project");
    std::fs::write(&file, "tools\n").unwrap();
    let ident_port = identd_by(|_| "tools.hello").to_string();
    let args = [env!("CARGO_BIN_EXE_proxylistener"), "--listen", "127.0.0.1:0", "--redis", &redis.url()];
    let more = ["--ident-port", &ident_port, "--project-file", file.to_str().unwrap()];
    let daemon = Daemon::start(&[&args[..], &more, &FREQUENT_AUDITS].concat(), &[]);
    let (address, status) =
        (daemon.address_in("listening for registrations"), daemon.address_in("metrics endpoint listening"));
    let client = TcpStream::connect(address).unwrap();
    assert_eq!(ask(client, format!("register\n.*\n{}\n", url(port))), "ok");
    std::fs::write(&file, "toolsbeta\n").unwrap();
    daemon.signal("HUP");
    daemon.wait_for_line(&["settings reloaded", "changed=true"]);
    wait_for_finding(status, "own", 2);
    assert_eq!(route(&redis, ".*"), url(port));
}

#[test]
fn unreachable_backend_keeps_its_route() {
    let redis = RedisServer::start(&[]);
    let dead = url(free_port());
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.hello"), &FREQUENT_AUDITS);
    let status = listener.daemon.address_in("metrics endpoint listening");
    assert_eq!(listener.register(".*", &dead), "ok");
    wait_for_finding(status, "backend_unreachable", 3);
    assert_eq!(route(&redis, ".*"), dead);
}

#[test]
fn missing_identd_withdraws_nothing() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    write_registered(&redis, "hello", &url(port), 1);
    let listener = Listener::start(&redis.url(), free_port(), &FREQUENT_AUDITS);
    wait_for_finding(listener.daemon.address_in("metrics endpoint listening"), "owner_unknown", 3);
    assert_eq!(route(&redis, ".*"), url(port));
}

#[test]
fn routes_of_other_writers_are_not_audited() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    let listener = Listener::start(&redis.url(), identd_by(|_| "tools.other"), &FREQUENT_AUDITS);
    let status = listener.daemon.address_in("metrics endpoint listening");
    let origin = |source: &str| format!(r#"{{"source":"{source}","owner":"o","host":"127.0.0.1","since":1}}"#);
    for (pattern, origin) in
        [("/kubernetes", origin("kube2proxy")), ("/broken", "{".into()), ("/grid", origin("proxylistener"))]
    {
        redis.cli(&["HSET", "origin:hello", pattern, &origin]);
    }
    redis.cli(&["HSET", "origin:odd", ".*", &origin("proxylistener")]);
    redis.cli(&["SADD", "prefix:odd", &url(port)]);
    redis.cli(&["SET", "origin:text", "text"]);
    for pattern in ["/kubernetes", "/broken", "/without", "/grid"] {
        redis.cli(&["HSET", "prefix:hello", pattern, &url(port)]);
    }
    // The grid's route shows that an audit has passed.
    wait_for("the grid's route is withdrawn", || found(status, "withdrawn") == 1);
    redis.cli(&["HSET", "origin:hello", "/grid", &origin("proxylistener")]);
    redis.cli(&["HSET", "prefix:hello", "/grid", &url(port)]);
    wait_for("and again, by a later audit", || found(status, "withdrawn") == 2);
    let mut left: Vec<_> = redis.cli(&["HKEYS", "prefix:hello"]).lines().map(str::to_owned).collect();
    left.sort_unstable();
    assert_eq!(left, ["/broken", "/kubernetes", "/without"]);
    assert_eq!(redis.cli(&["SCARD", "prefix:odd"]), "1");
}

#[test]
fn route_changed_during_the_audit_stays() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    let ((asking, asked), (resume, resumed)) = (channel(), channel::<()>());
    let (asking, resumed) = (Mutex::new(asking), Mutex::new(resumed));
    let is_registered = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&is_registered);
    let ident_port = identd(move |mut stream, (about, ours)| {
        let is_lost = about == port && is_over.load(SeqCst);
        let user = if is_lost { "tools.other" } else { "tools.hello" };
        if is_lost {
            asking.lock().unwrap().send(()).unwrap_or_default();
            resumed.lock().unwrap().recv().unwrap_or_default();
        }
        let _ = stream.write_all(format!("{about} , {ours} : USERID : UNIX : {user}\r\n").as_bytes());
    });
    let listener = Listener::start(&redis.url(), ident_port, &FREQUENT_AUDITS);
    let status = listener.daemon.address_in("metrics endpoint listening");
    assert_eq!(listener.register(".*", &url(port)), "ok");
    is_registered.store(true, SeqCst);
    asked.recv().unwrap();
    // The tool comes back on another port while the audit asks about the old one.
    let (_new_backend, new_port) = backend();
    assert_eq!(listener.register(".*", &url(new_port)), "ok");
    drop(resume);
    wait_for("the change is noticed", || found(status, "changed") >= 1);
    wait_for("the new port is the tool's", || found(status, "own") >= 1);
    assert_eq!((route(&redis, ".*"), found(status, "withdrawn")), (url(new_port), 0));
}

#[test]
fn audit_without_redis_is_logged_and_repeated() {
    let mut redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    let listener = Listener::start(
        &redis.url(),
        identd_by(move |about| if about == port { "tools.other" } else { "tools.hello" }),
        &FREQUENT_AUDITS,
    );
    redis.stop();
    listener.daemon.wait_for_line(&["WARN", "audit failed", "while asking Redis"]);
    redis.start_again();
    write_registered(&redis, "hello", &url(port), 1);
    listener.daemon.wait_for_line(&["withdrawn"]);
}

#[test]
fn interval_off_disables_the_audit() {
    let redis = RedisServer::start(&[]);
    let (_backend, port) = backend();
    let owner = move |about| if about == port { "tools.other" } else { "tools.hello" };
    let file = redis.dir().join("settings");
    std::fs::write(&file, "audit-interval off\n").unwrap();
    let args = ["--settings-file", file.to_str().unwrap(), "--metrics-listen", "127.0.0.1:0"];
    let listener = Listener::start(&redis.url(), identd_by(owner), &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    write_registered(&redis, "hello", &url(port), 1);
    assert!(http::get(status, "/metrics").1.contains("proxylistener_audit_rounds_total 0"));
    std::fs::write(&file, "audit-interval 1h\n").unwrap();
    listener.daemon.signal("HUP");
    listener.daemon.wait_for_line(&["withdrawn"]);
}

/// Real users, servers and identd: the second tool takes over the port of the first, which crashed.
#[test]
fn route_is_withdrawn_before_a_new_owner_serves_it_long() {
    const INTERVAL: Duration = Duration::from_secs(1);
    let redis = RedisServer::start(&[]);
    let Some((_identd, ident_port)) = real_identd::start(&redis.dir()) else { return };
    let interval = format!("{}s", INTERVAL.as_secs());
    let args = ["--audit-interval", &interval, "--metrics-listen", "127.0.0.1:0"];
    let listener = Listener::start(&redis.url(), ident_port, &args);
    let status = listener.daemon.address_in("metrics endpoint listening");

    let port = free_port();
    let port_text = port.to_string();
    let become_user = |uid: &'static str| ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"];
    let serve = |uid: &'static str, says: &str| {
        let server = format!(
            "import http.server as h\nclass S(h.BaseHTTPRequestHandler):\n def do_GET(s):\n  s.send_response(200); \
             s.end_headers(); s.wfile.write(b'{says}')\nh.HTTPServer(('127.0.0.1', {port_text}), S).serve_forever()"
        );
        let daemon = Daemon::start(&[&become_user(uid)[..], &["/usr/bin/python3", "-c", &server]].concat(), &[]);
        let answers = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
        wait_for("the server listens", answers);
        daemon
    };
    let register = |uid: &'static str| {
        let script =
            r#"exec 3<>"/dev/tcp/127.0.0.1/$0"; printf 'register\n.*\nhttp://127.0.0.1:%s\n' "$1" >&3; cat <&3 >&2"#;
        let listens = listener.address.port().to_string();
        let command = [&become_user(uid)[..], &["bash", "-c", script, &listens, &port_text]].concat();
        let mut client = Daemon::start(&command, &[]);
        assert_eq!(client.wait_for_end(), 0);
        wait_for("a reply", || !client.log().is_empty());
        client.log()
    };

    let mut first = serve("50001", "hello");
    assert_eq!(register("50001"), "ok");
    wait_for_finding(status, "own", 1);
    first.signal("KILL");
    first.wait_for_end();
    wait_for_finding(status, "backend_unreachable", 1);
    assert_eq!(route(&redis, ".*"), url(port), "nothing listens yet");

    let _second = serve("50002", "other");
    let begun = Instant::now();
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("other"), "what hello's users would see: {answer}");
    wait_for("hello is withdrawn", || route(&redis, ".*").is_empty());
    eprintln!("withdrawn {:?} after the other tool's server began, audited every {INTERVAL:?}", begun.elapsed());
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"hello\"", "owner=\"tools.other\""]);

    assert_eq!(register("50002"), "ok");
    wait_for_finding(status, "own", 2);
    assert_eq!(redis.cli(&["HGET", "prefix:other", ".*"]), url(port));
}
