//! proxylistener as its clients, its operator and its Redis see it.

#[path = "common/http.rs"]
mod http;
#[path = "common/listener.rs"]
mod listener;
#[path = "common/port.rs"]
mod port;
#[path = "common/redis.rs"]
mod redis_server;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use listener::{Daemon, Listener, Ports, SOON, ask, hear, identd, identd_by, identd_of, wait_for};
use port::free_port;
use redis_server::RedisServer;

const IDENT_FAILED: &str = "Identd authentication failed. Please contact an administrator";
const NO_TOOL: &str = "This service available only to tool accounts";
const URL: &str = "http://127.0.0.1:8000";

fn start(redis: &RedisServer) -> Listener {
    Listener::start(&redis.url(), identd_of("tools.hello"), &[])
}

fn route(redis: &RedisServer, pattern: &str) -> String {
    redis.cli(&["HGET", "prefix:hello", pattern])
}

#[test]
fn a_tool_registers_and_unregisters() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    assert_eq!(listener.register(".*", URL), "ok");
    assert_eq!(redis.cli(&["HGETALL", "prefix:hello"]), format!(".*\n{URL}"));
    let origin = redis.cli(&["HGET", "origin:hello", ".*"]);
    let origin: urlproxy::registry::Origin = serde_json::from_str(&origin).unwrap();
    assert_eq!((&*origin.source, &*origin.owner, &*origin.host), ("proxylistener", "tools.hello", "127.0.0.1"));
    assert!(origin.since > 1_700_000_000, "{origin:?}");
    listener.daemon.wait_for_line(&[
        "INFO",
        "registered tool=\"hello\" peer=127.0.0.1 pattern=\".*\" destination=\"http://127.0.0.1:8000\"",
    ]);
    assert_eq!(listener.ask("unregister\n.*\n"), "ok");
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
    listener.daemon.wait_for_line(&["unregistered tool=\"hello\" peer=127.0.0.1 pattern=\".*\""]);
    assert_eq!(listener.ask("unregister\n.*\n"), "ok", "nothing was there");
}

#[test]
fn a_canonical_host_comes_and_goes_with_its_pattern() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let redirects = || redis.cli(&["HGETALL", "redirect:hello"]);
    assert_eq!(listener.ask(format!("registerCanonical\n.*\n{URL}\n")), "ok");
    assert_eq!((route(&redis, ".*"), redirects()), (URL.into(), ".*\nhello.toolforge.org".into()));
    assert_eq!(listener.register("/other", URL), "ok");
    assert_eq!(redirects(), ".*\nhello.toolforge.org", "of another pattern");
    assert_eq!(listener.register(".*", URL), "ok");
    assert_eq!(redirects(), "");
    assert_eq!(listener.ask(format!("registerCanonical\n.*\n{URL}\n")), "ok");
    assert_eq!(listener.ask("unregister\n.*\n"), "ok");
    assert_eq!((redirects(), route(&redis, ".*")), (String::new(), String::new()));
}

#[test]
fn only_the_host_that_registered_may_unregister() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let unregister = |host| ask(listener.connect_from(host), "unregister\n.*\n");
    let elsewhere = Ipv4Addr::new(127, 0, 0, 2);
    assert_eq!(listener.register(".*", URL), "ok");
    assert_eq!((unregister(elsewhere), route(&redis, ".*")), ("fail".into(), URL.into()));
    assert_eq!((unregister(Ipv4Addr::LOCALHOST), route(&redis, ".*")), ("ok".into(), String::new()));
    // Without an origin, as the old stack wrote routes, anybody's host will do; with one that says nothing, nobody's.
    redis.cli(&["HSET", "prefix:hello", ".*", URL]);
    assert_eq!((unregister(elsewhere), route(&redis, ".*")), ("ok".into(), String::new()));
    for origin in ["{", "[]", "1", "{}", r#"{"host":null}"#] {
        redis.cli(&["HSET", "prefix:hello", ".*", URL]);
        redis.cli(&["HSET", "origin:hello", ".*", origin]);
        assert_eq!((unregister(elsewhere), route(&redis, ".*")), ("fail".into(), URL.into()), "{origin}");
    }
}

#[test]
fn what_is_no_command_fails() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let megabyte = "a".repeat(1 << 20);
    for (bytes, shown) in [
        (megabyte.as_bytes(), "a megabyte without a line end"),
        (format!("register\n{megabyte}").as_bytes(), "a megabyte as pattern"),
        (format!("register\n.*\n{megabyte}").as_bytes(), "a megabyte as URL"),
        (b"\0\n", "NUL bytes"),
        (b"register\n.\0*\nhttp://127.0.0.1:8000\n", "a NUL byte in the pattern"),
        (b"register\n.*\nhttp://127.0.0.1:8000\0\n", "a NUL byte in the URL"),
        (b"register\n\xff\nhttp://127.0.0.1:8000\n", "no UTF-8"),
        (b"list\n", "another command"),
        (b"\n\n\n", "empty lines"),
    ] {
        assert_eq!(listener.ask(bytes), "fail", "{shown}");
    }
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
    assert_eq!(listener.ask(format!("register\n.*\n{URL}\n{megabyte}")), "ok", "what follows a command is not read");
}

#[test]
fn half_a_command_gets_no_reply() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &["--idle-timeout", "300ms"]);
    for bytes in ["", "register", "register\n", "register\n.*\n", &format!("register\n.*\n{URL}"), "unregister\n.*"] {
        let start = Instant::now();
        assert_eq!(listener.ask(bytes), "", "{bytes:?} and silence");
        assert!(start.elapsed() >= Duration::from_millis(300), "{bytes:?}");
        let client = listener.connect();
        (&client).write_all(bytes.as_bytes()).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(hear(client), "", "{bytes:?} and the end");
    }
    // A client that dribbles on is not waited for any longer than one that is silent.
    let mut client = listener.connect();
    wait_for("the end of a dribble", || client.write_all(b"r").is_err() || closed(&mut client));
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
    listener.daemon.wait_for_line(&["closed without a reply", "no whole command in time"]);
    listener.daemon.wait_for_line(&["closed without a reply", "ended within the command"]);
}

/// Whether the other end has closed, without waiting.
fn closed(client: &mut TcpStream) -> bool {
    client.set_nonblocking(true).unwrap();
    let read = client.read(&mut [0]);
    client.set_nonblocking(false).unwrap();
    !read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn pieces_of_a_command_and_a_half_closed_client_are_fine() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let client = listener.connect();
    client.set_nodelay(true).unwrap();
    for byte in format!("register\r\n.*\r\n{URL}\r\n").bytes() {
        (&client).write_all(&[byte]).unwrap();
    }
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!((hear(client), route(&redis, ".*")), ("ok".into(), URL.into()));
}

#[test]
fn a_host_of_thousands_of_connections_starves_nobody() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    urlproxy::daemon::raise_file_limit();
    let mut clients: Vec<_> = (0..2000).map(|_| listener.connect()).collect();
    let other = || ask(listener.connect_from(Ipv4Addr::new(127, 0, 0, 2)), "unregister\n.*\n");
    assert_eq!(other(), "ok");
    // Not even on the same host: who has been silent longest makes room.
    assert_eq!(listener.register(".*", URL), "ok");
    wait_for("all but 64 are closed", || {
        clients.retain_mut(|client| !closed(client));
        clients.len() <= 64
    });
    assert!(clients.len() >= 63, "{}", clients.len());
    assert_eq!(ask(clients.pop().unwrap(), "unregister\n.*\n"), "ok", "those that are in are served");
}

#[test]
fn silent_clients_of_many_hosts_keep_nobody_out() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &["--max-connections", "8"]);
    let host = |last| Ipv4Addr::new(127, 0, 0, last);
    let mut clients: Vec<_> = (0..16).map(|n| listener.connect_from(host(2 + n / 4))).collect();
    assert_eq!(listener.register(".*", URL), "ok");
    wait_for("no more than 8 are in", || {
        clients.retain_mut(|client| !closed(client));
        clients.len() <= 8
    });
}

#[test]
fn no_more_than_max_connections_are_served() {
    let redis = RedisServer::start(&[]);
    let (go_on, told) = channel::<()>();
    let told = std::sync::Mutex::new(told);
    let ident_port = identd(move |mut stream, (client, ours)| {
        told.lock().unwrap().recv().unwrap_or_default();
        let _ = stream.write_all(format!("{client} , {ours} : USERID : UNIX : tools.hello{client}\r\n").as_bytes());
    });
    let args = ["--max-connections", "8", "--metrics-listen", "127.0.0.1:0"];
    let listener = Listener::start(&redis.url(), ident_port, &args);
    let status = listener.daemon.address_in("telling of itself");
    let host = |last| Ipv4Addr::new(127, 0, 0, last);
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let mut client = listener.connect_from(host(2 + n / 4));
            client.write_all(b"unregister\n.*\n").unwrap();
            client
        })
        .collect();
    wait_for("8 are in", || http::get(status, "/metrics").1.contains("proxylistener_connections 8"));
    // A command that is there is not given up for another, once it has been read.
    wait_for("one more is not let in", || {
        let mut client = listener.connect_from(host(9));
        client.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        client.read(&mut [0]).is_ok_and(|read| read == 0) && listener.daemon.log().contains("--max-connections")
    });
    drop(go_on);
    let replies: Vec<_> = clients.into_iter().map(hear).collect();
    assert_eq!(replies, vec!["ok"; 8]);
}

#[test]
fn a_client_that_is_gone_may_have_left_its_port_to_another() {
    let redis = RedisServer::start(&[]);
    let ((asking, asked), (go_on, told)) = (channel(), channel::<()>());
    let (asking, told) = (std::sync::Mutex::new(asking), std::sync::Mutex::new(told));
    let ident_port = identd(move |mut stream, (client, ours)| {
        asking.lock().unwrap().send(()).unwrap();
        told.lock().unwrap().recv().unwrap();
        let _ = stream.write_all(format!("{client} , {ours} : USERID : UNIX : tools.hello\r\n").as_bytes());
    });
    let listener = Listener::start(&redis.url(), ident_port, &[]);
    let mut client = listener.connect();
    client.write_all(format!("register\n.*\n{URL}\n").as_bytes()).unwrap();
    asked.recv_timeout(SOON).unwrap();
    // Closing with something unread, or so, is a reset; then the port is free for others at once.
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    go_on.send(()).unwrap();
    listener.daemon.wait_for_line(&["WARN", "refused", "the client was gone"]);
    // One that only has no more to say is still there.
    let client = listener.connect();
    (&client).write_all(format!("register\n.*\n{URL}\n").as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    asked.recv_timeout(SOON).unwrap();
    assert_eq!(redis.cli(&["KEYS", "*"]), "", "of the one that was gone");
    go_on.send(()).unwrap();
    assert_eq!(hear(client), "ok");
}

#[test]
fn a_tool_has_no_more_patterns_than_are_routed() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    for number in 0..32 {
        assert_eq!(listener.register(&format!("/{number}"), URL), "ok");
    }
    assert_eq!(listener.register("/32", URL), "fail");
    listener.daemon.wait_for_line(&["WARN", "refused", "the tool has 32 patterns already"]);
    assert_eq!(listener.register("/31", "http://127.0.0.1:8001"), "ok", "one of the 32");
    assert_eq!(listener.ask("unregister\n/0\n"), "ok");
    assert_eq!(listener.register("/32", URL), "ok");
    assert_eq!(
        (redis.cli(&["HLEN", "prefix:hello"]), redis.cli(&["HLEN", "origin:hello"])),
        ("32".into(), "32".into())
    );
}

#[test]
fn what_another_writer_has_put_there_is_not_the_callers_to_remove() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &["--allow-destination", "10.68.0.0/16"]);
    assert_eq!(listener.register(".*", URL), "ok");
    // The old stack's writers say nothing of origins.
    redis.cli(&["HSET", "prefix:hello", ".*", "http://10.96.0.7:80"]);
    assert_eq!((listener.ask("unregister\n.*\n"), route(&redis, ".*")), ("fail".into(), "http://10.96.0.7:80".into()));
    // What was registered for another machine is.
    assert_eq!(listener.register(".*", "http://10.68.0.1:80"), "ok");
    assert_eq!((listener.ask("unregister\n.*\n"), route(&redis, ".*")), ("ok".into(), String::new()));
    assert_eq!(listener.register(".*", "http://10.68.0.1:80"), "ok");
    redis.cli(&["HSET", "prefix:hello", ".*", "http://10.68.0.2:80"]);
    assert_eq!(listener.ask("unregister\n.*\n"), "fail");
    // The same destination in another spelling is no other one.
    for (registered, spelling) in [
        ("http://10.68.0.1:80", "HTTP://10.68.0.1/"),
        (URL, "http://127.0.0.1:08000/"),
        ("https://127.0.0.1", "https://127.0.0.1"),
    ] {
        assert_eq!(listener.register(".*", registered), "ok");
        redis.cli(&["HSET", "prefix:hello", ".*", spelling]);
        assert_eq!((listener.ask("unregister\n.*\n"), route(&redis, ".*")), ("ok".into(), String::new()), "{spelling}");
    }
    assert_eq!(listener.register(".*", URL), "ok");
    redis.cli(&["HSET", "prefix:hello", ".*", "http://127.0.0.2"]);
    assert_eq!(listener.ask("unregister\n.*\n"), "fail");
}

#[test]
fn a_key_of_another_type_is_not_half_written() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    for key in ["prefix:hello", "origin:hello", "redirect:hello"] {
        redis.cli(&["SADD", key, "member"]);
        assert_eq!(listener.ask(format!("registerCanonical\n.*\n{URL}\n")), "fail", "{key}");
        assert_eq!(redis.cli(&["KEYS", "*"]), key);
        redis.cli(&["DEL", key]);
    }
}

#[test]
fn an_identd_that_does_not_tell_is_told_of() {
    let redis = RedisServer::start(&[]);
    let asked = format!("register\n.*\n{URL}\n");
    let reply_of = |ident_port: u16, why: &str| {
        let listener = Listener::start(&redis.url(), ident_port, &["--ident-timeout", "500ms"]);
        let start = Instant::now();
        assert_eq!(listener.ask(&asked), IDENT_FAILED, "{why}");
        assert!(start.elapsed() < SOON / 2, "{why}: {:?}", start.elapsed());
        listener.daemon.wait_for_line(&["WARN", "refused", why]);
        assert_eq!(listener.ask("unregister\n.*\n"), IDENT_FAILED, "{why}");
    };
    reply_of(free_port(), "Connection refused");
    let (quiet, end) = channel::<()>();
    let end = std::sync::Mutex::new(end);
    reply_of(identd(move |_held, _| end.lock().unwrap().recv().unwrap_or_default()), "no reply within 500ms");
    drop(quiet);
    reply_of(identd(|mut stream, _| while stream.write_all(b"6").is_ok() {}), "more than 1000 bytes");
    for (reply, why) in [
        ("", "no whole line"),
        ("hello\r\n", "expected port , port"),
        ("\0\0\0\r\n", "expected port , port"),
        ("{client} , {ours} : ERROR : NO-USER\r\n", "NO-USER"),
        ("{client} , {ours} : ERROR : HIDDEN-USER\r\n", "HIDDEN-USER"),
        ("{ours} , {client} : USERID : UNIX : tools.hello\r\n", "not asked for"),
        ("1 , {ours} : USERID : UNIX : tools.hello\r\n", "not asked for"),
        ("{client} , 1 : USERID : UNIX : tools.hello\r\n", "not asked for"),
        ("{client} , {ours} : USERID : UNIX : tools.hello", "no whole line"),
        ("{client} , {ours} : USERID : UNIX :\r\n", "expected port , port"),
    ] {
        let port = identd(move |mut stream, (client, ours): Ports| {
            let reply = reply.replace("{client}", &client.to_string()).replace("{ours}", &ours.to_string());
            let _ = stream.write_all(reply.as_bytes());
        });
        reply_of(port, why);
    }
    let megabyte = identd(|mut stream, (client, ours)| {
        let user = "a".repeat(1 << 20);
        let _ = stream.write_all(format!("{client} , {ours} : USERID : UNIX : {user}\r\n").as_bytes());
    });
    reply_of(megabyte, "more than 1000 bytes");
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
}

#[test]
fn the_identd_is_asked_from_the_address_that_the_client_knows() {
    let (told, asked_from) = channel();
    let ident_port =
        identd(move |stream, _| told.send(stream.peer_addr().unwrap().ip().to_canonical()).unwrap()).to_string();
    let args = [env!("CARGO_BIN_EXE_proxylistener"), "--listen", "127.0.0.3:0", "--project", "tools"];
    let daemon = Daemon::start(&[&args[..], &["--ident-port", &ident_port, "--audit-interval", "off"]].concat(), &[]);
    let line = daemon.wait_for_line(&["listening"]);
    let address = line.split_once("address=").unwrap().1.split_once(' ').unwrap().0;
    assert_eq!(ask(TcpStream::connect(address).unwrap(), "unregister\n.*\n"), IDENT_FAILED);
    assert_eq!(asked_from.recv_timeout(SOON).unwrap(), Ipv4Addr::new(127, 0, 0, 3));
}

#[test]
fn users_outside_the_project_are_told_so() {
    let redis = RedisServer::start(&[]);
    for user in
        ["root", "tools", "tools.", "toolsbeta.hello", "Tools.hello", "hello.tools", "tools.a/b", "tools.a\u{85}b"]
    {
        let listener = Listener::start(&redis.url(), identd_of(user), &[]);
        assert_eq!(listener.register(".*", URL), NO_TOOL, "{user}");
        assert_eq!(listener.ask("unregister\n.*\n"), NO_TOOL, "{user}");
    }
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
}

#[test]
fn patterns_that_do_not_compile_fail() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let long = "a".repeat(1025);
    for pattern in ["(", "a++", "a(?=b)", r"(a)\1", "[0-9]{1000}{1000}", "/a\u{85}b", "/a\tb", &long] {
        assert_eq!(listener.register(pattern, URL), "fail", "{pattern}");
        // Nothing of the caller's is there.
        assert_eq!(listener.ask(format!("unregister\n{pattern}\n")), "ok", "{pattern}");
    }
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
    listener.daemon.wait_for_line(&["WARN", "refused", "tool=\"hello\"", "pattern=\"a++\"", "possessive"]);
}

#[test]
fn destinations_that_are_not_the_tools_own_fail() {
    let redis = RedisServer::start(&[]);
    let networks = ["--allow-destination", "10.68.0.0/16", "127.0.0.0/8", "169.254.0.0/16"];
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &networks);
    for url in [
        "http://127.0.0.1:8000//",
        "http://127.0.0.1:8000/path",
        "http://127.0.0.1:8000?query",
        "http://user@127.0.0.1:8000",
        "http://127.0.0.1:0",
        "http://127.0.0.1:",
        "http://127.0.0.1/x",
        "http://127.0.0.1:65536",
        "ftp://127.0.0.1:8000",
        "",
        "http://no-such-name.invalid:8000",
        "http://2130706433:8000",
        "http://127.0.0.2:8000",
        "http://[::1]:8000",
        "http://0.0.0.0:8000",
        "http://10.69.0.1:8000",
        "http://169.254.169.254:80",
        "http://[::ffff:169.254.169.254]:80",
        "http://[fe80::1]:80",
    ] {
        assert_eq!(listener.register(".*", url), "fail", "{url}");
    }
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
    for (url, written) in [
        ("http://10.68.255.255:1", "http://10.68.255.255:1"),
        ("https://127.0.0.1:65535", "https://127.0.0.1:65535"),
        ("HTTP://127.0.0.1/", "http://127.0.0.1:80"),
        ("https://127.0.0.1", "https://127.0.0.1:443"),
    ] {
        assert_eq!(listener.register(".*", url), "ok", "{url}");
        assert_eq!(route(&redis, ".*"), written);
    }
}

#[test]
fn a_name_is_written_as_the_address_that_it_has_now() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    // As clients of old do, with the name of their host.
    assert_eq!(listener.register(".*", "http://localhost:8000"), "ok");
    assert_eq!(route(&redis, ".*"), URL);
    listener.daemon.wait_for_line(&["registered", "destination=\"http://127.0.0.1:8000\""]);
    let elsewhere = ask(listener.connect_from(Ipv4Addr::new(127, 0, 0, 2)), "register\n/x\nhttp://localhost:8000\n");
    assert_eq!((&*elsewhere, &*route(&redis, "/x")), ("fail", ""));
    listener.daemon.wait_for_line(&["refused", "peer=127.0.0.2", "is a loopback"]);
}

#[test]
fn ipv6_clients_are_as_good_as_others() {
    let redis = RedisServer::start(&[]);
    let ident_port = identd_of("tools.hello");
    let listener = Listener::start_at("[::1]:0", &redis.url(), ident_port, &[], &[]);
    let url = "http://[::1]:8000";
    assert_eq!((listener.register(".*", url), route(&redis, ".*")), ("ok".into(), url.into()));
    assert_eq!(listener.register(".*", "http://[::2]:8000"), "fail");
    assert_eq!(listener.ask("unregister\n.*\n"), "ok");
    // A socket for both families: an IPv4 client is one there too.
    let listener = Listener::start_at("[::]:0", &redis.url(), ident_port, &[], &[]);
    let both = [(Ipv6Addr::LOCALHOST.into(), url), (Ipv4Addr::LOCALHOST.into(), URL)];
    for (host, url) in both {
        let client = TcpStream::connect(SocketAddr::new(host, listener.address.port())).unwrap();
        assert_eq!(ask(client, format!("register\n.*\n{url}\n")), "ok", "{url}");
        assert_eq!(route(&redis, ".*"), url);
    }
}

#[test]
fn without_redis_nothing_is_ok_and_with_it_again_everything_is() {
    let mut redis = RedisServer::start(&[]);
    let listener = start(&redis);
    assert_eq!(listener.register(".*", URL), "ok");
    redis.stop();
    assert_eq!(listener.register(".*", URL), "fail");
    assert_eq!(listener.ask("unregister\n.*\n"), "fail");
    redis.start_again();
    assert_eq!(listener.register(".*", URL), "ok");
    // The connection that it kept is dead, and the first client after that does not notice.
    redis.stop();
    redis.start_again();
    assert_eq!(listener.register(".*", URL), "ok");
    redis.stop();
    redis.start_again();
    assert_eq!(listener.ask("unregister\n.*\n"), "ok");
}

#[test]
fn a_redis_that_hangs_is_a_failure_after_two_seconds() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    assert_eq!(listener.register("/warm", URL), "ok");
    redis.signal("STOP");
    for command in ["unregister\n/warm\n", "unregister\n/cold\n"] {
        let start = Instant::now();
        assert_eq!(listener.ask(command), "fail");
        assert!((Duration::from_millis(1900)..SOON / 2).contains(&start.elapsed()), "{:?}", start.elapsed());
    }
    redis.signal("CONT");
    assert_eq!(listener.register(".*", URL), "ok");
}

#[test]
fn a_redis_that_refuses_to_write_is_a_failure() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let register = || (listener.register(".*", URL), listener.ask("unregister\n.*\n"));
    let (good, bad) = (("ok".to_owned(), "ok".to_owned()), ("fail".to_owned(), "fail".to_owned()));
    assert_eq!(register(), good);
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(register(), bad, "read-only");
    listener.daemon.wait_for_line(&["WARN", "refused", "read only replica"]);
    redis.cli(&["REPLICAOF", "NO", "ONE"]);
    assert_eq!(register(), good);
    redis.cli(&["SADD", "prefix:hello", URL]);
    assert_eq!(register(), bad, "of the wrong type");
    listener.daemon.wait_for_line(&["WARN", "refused", "wrong kind of value"]);
    redis.cli(&["DEL", "prefix:hello"]);
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(listener.register(".*", URL), "fail", "out of memory");
}

#[test]
fn a_user_of_redis_needs_no_more_rights_than_the_manual_says() {
    let manual = include_str!("../README.md");
    let line =
        manual.lines().find(|line| line.starts_with("ACL SETUSER proxylistener ")).expect("a line in the manual");
    let redis = RedisServer::start(&[]);
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(redis.cli(&words), "OK");
    let url = redis.url().replace("//", "//proxylistener:password@");
    let backend = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = backend.local_addr().unwrap().port();
    let ident_port = identd_by(move |about| if about == port { "tools.other" } else { "tools.hello" });
    let listener = Listener::start(&url, ident_port, &["--audit-interval", "50ms"]);
    assert_eq!(listener.register("/lost", &format!("http://127.0.0.1:{port}")), "ok");
    assert_eq!(listener.register(".*", URL), "ok");
    assert_eq!(listener.ask(format!("registerCanonical\n.*\n{URL}\n")), "ok");
    assert_eq!(listener.ask("unregister\n.*\n"), "ok");
    listener.daemon.wait_for_line(&["withdrawn", "tool=\"hello\"", "owner=\"tools.other\""]);
    let log = listener.daemon.log();
    assert!(!log.contains("password") && !log.contains("NOPERM"), "{log}");
}

#[test]
fn a_hostile_text_stays_within_its_line_of_the_log() {
    let redis = RedisServer::start(&[]);
    for (format, escaped) in [("text", r"\u{1b}J"), ("json", r"\u001bJ")] {
        let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &["--log-format", format]);
        assert_eq!(listener.ask("register\n\u{1b}J\r\u{85} (\nhttp://127.0.0.1:80/x\n"), "fail");
        assert_eq!(listener.ask("\u{1b}[2J\n"), "fail");
        assert_eq!(listener.register("\u{1b}J", URL), "fail");
        listener.daemon.wait_for_line(&["refused", escaped, "more than a host and a port"]);
        listener.daemon.wait_for_line(&["refused", "control character"]);
        listener.daemon.wait_for_line(&["refused", "unknown command", r"\u{1b}[2J"]);
        let log = listener.daemon.log();
        assert!(!log.contains(|c: char| c.is_control() && c != '\n' && c != '\u{85}'), "{log:?}");
        for line in log.lines().filter(|_| format == "json") {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(line["level"].is_string() && line["message"].is_string(), "{line}");
        }
    }
}

#[test]
fn a_real_identd_is_understood() {
    let installed = Command::new("oidentd").arg("--version").env("PATH", "/usr/sbin:/usr/bin").output().is_ok();
    if !installed {
        eprintln!("skipped: there is no oidentd");
        return;
    }
    let redis = RedisServer::start(&[]);
    let root = rustix::process::geteuid().is_root();
    // The user's own name, which is no tool's, and then a name that a configuration makes it reply.
    let forced = redis.dir().join("forced.conf");
    std::fs::write(&forced, "default {\n  default {\n    force reply \"tools.hello\"\n  }\n}\n").unwrap();
    let plain = redis.dir().join("plain.conf");
    std::fs::write(&plain, "").unwrap();
    for (configuration, reply) in [(&plain, NO_TOOL), (&forced, "ok")] {
        let port = free_port();
        let (port_text, path) = (port.to_string(), configuration.to_str().unwrap());
        let mut command = vec!["/usr/sbin/oidentd", "-i", "-S", "-a", "127.0.0.1", "-p", &port_text, "-C", path];
        if root {
            // It gives its rights up otherwise, and could not read the configuration.
            command.extend(["-u", "root", "-g", "root"]);
        }
        let identd = Daemon::start(&command, &[]);
        wait_for("oidentd listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        let listener = Listener::start(&redis.url(), port, &[]);
        assert_eq!(listener.register(".*", URL), reply, "{}", identd.log());
    }
    assert_eq!(route(&redis, ".*"), URL);
}
