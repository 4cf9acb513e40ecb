//! Which routes `unregister` and `unregisterUrl` remove.

use super::*;

#[test]
fn only_the_registering_host_may_unregister() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let unregister = |host| ask(listener.connect_from(host), "unregister\n.*\n");
    // The caller has no route, so the reply is `ok`: an epilog that fails puts its queue into error state.
    assert_eq!(listener.register(".*", URL), "ok");
    assert_eq!((unregister(ELSEWHERE), route(&redis, ".*")), ("ok".into(), URL.into()));
    listener.daemon.wait_for_line(&["INFO", "nothing to unregister", "another host's", "peer=127.0.0.2"]);
    assert_eq!((unregister(Ipv4Addr::LOCALHOST), route(&redis, ".*")), ("ok".into(), String::new()));
    assert_eq!(unregister(Ipv4Addr::LOCALHOST), "ok");
    listener.daemon.wait_for_line(&["INFO", "nothing to unregister; no such route"]);
    // Without an origin, as the old stack writes routes, or with one that says nothing, the destination's host decides.
    for origin in ["", "{", "[]", "1", "{}", r#"{"host":null}"#] {
        redis.cli(&["HSET", "prefix:hello", ".*", URL]);
        if !origin.is_empty() {
            redis.cli(&["HSET", "origin:hello", ".*", origin]);
        }
        assert_eq!((unregister(ELSEWHERE), route(&redis, ".*")), ("ok".into(), URL.into()), "{origin}");
        assert_eq!((unregister(Ipv4Addr::LOCALHOST), route(&redis, ".*")), ("ok".into(), String::new()), "{origin}");
        assert_eq!(redis.cli(&["KEYS", "*"]), "", "{origin}");
    }
}

#[test]
fn routes_of_another_writer_are_not_unregistered() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &["--allow-destination", "10.68.0.0/16"]);
    assert_eq!(listener.register(".*", URL), "ok");
    // Old writers do not write origins.
    redis.cli(&["HSET", "prefix:hello", ".*", "http://10.96.0.7:80"]);
    assert_eq!((listener.ask("unregister\n.*\n"), route(&redis, ".*")), ("ok".into(), "http://10.96.0.7:80".into()));
    // A route that the caller registered for another host is the caller's.
    assert_eq!(listener.register(".*", "http://10.68.0.1:80"), "ok");
    assert_eq!((listener.ask("unregister\n.*\n"), route(&redis, ".*")), ("ok".into(), String::new()));
    assert_eq!(listener.register(".*", "http://10.68.0.1:80"), "ok");
    redis.cli(&["HSET", "prefix:hello", ".*", "http://10.68.0.2:80"]);
    assert_eq!((listener.ask("unregister\n.*\n"), route(&redis, ".*")), ("ok".into(), "http://10.68.0.2:80".into()));
    // Another spelling is the same destination.
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
    assert_eq!((listener.ask("unregister\n.*\n"), route(&redis, ".*")), ("ok".into(), "http://127.0.0.2".into()));
}

#[test]
fn route_of_an_old_listener_belongs_to_its_destination_host() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let unregister = |host| ask(listener.connect_from(host), "unregister\n.*\n");
    // The job has moved and registered with an old listener: the origin is still that of the first host.
    for url in ["http://127.0.0.2:8000", "http://127.0.0.2:8000/", "http://[::ffff:127.0.0.2]:8000"] {
        assert_eq!(listener.register(".*", URL), "ok");
        redis.cli(&["HSET", "prefix:hello", ".*", url]);
        assert_eq!((unregister(Ipv4Addr::LOCALHOST), route(&redis, ".*")), ("ok".into(), url.into()));
        assert_eq!((unregister(ELSEWHERE), route(&redis, ".*")), ("ok".into(), String::new()), "{url}");
    }
    // A name, as old clients send it and the old listener wrote it.
    let named = "http://localhost:8000";
    assert_eq!(ask(listener.connect_from(ELSEWHERE), "register\n.*\nhttp://127.0.0.2:8000\n"), "ok");
    redis.cli(&["HSET", "prefix:hello", ".*", named]);
    assert_eq!((unregister(ELSEWHERE), route(&redis, ".*")), ("ok".into(), named.into()));
    assert_eq!((unregister(Ipv4Addr::LOCALHOST), route(&redis, ".*")), ("ok".into(), String::new()));
}

#[test]
fn each_job_of_a_tool_unregisters_its_own_url() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    let (first, second) = ("http://127.0.0.1:8001", "http://127.0.0.1:8002");
    let unregister = |url: &str| listener.ask(format!("unregisterUrl\n.*\n{url}\n"));
    assert_eq!((listener.register(".*", first), listener.register(".*", second)), ("ok".into(), "ok".into()));
    assert_eq!((unregister(first), route(&redis, ".*")), ("ok".into(), second.into()), "the late epilog");
    listener.daemon.wait_for_line(&[
        "INFO",
        "nothing to unregister",
        "leads elsewhere",
        "url=\"http://127.0.0.1:8001\"",
    ]);
    assert_eq!((unregister("http://localhost:8002/"), route(&redis, ".*")), ("ok".into(), String::new()), "a spelling");
    assert_eq!(unregister(second), "ok", "nothing is there");
    assert_eq!(redis.cli(&["KEYS", "*"]), "");
    // From any host: the tool counts, not the host.
    assert_eq!(listener.ask(format!("registerCanonical\n.*\n{first}\n")), "ok");
    let from_elsewhere = ask(listener.connect_from(ELSEWHERE), format!("unregisterUrl\n.*\n{first}\n"));
    assert_eq!((from_elsewhere, redis.cli(&["KEYS", "*"])), ("ok".into(), String::new()));
    for url in ["", "127.0.0.1:8001", "http://127.0.0.1:8001/x", "ftp://127.0.0.1"] {
        assert_eq!(unregister(url), "fail", "{url:?}");
    }
}

/// A dual-stack host, with the test's own names.
#[test]
fn dual_stack_host_may_unregister_over_either_family() {
    if !need_root() {
        return;
    }
    let redis = RedisServer::start(&[]);
    let (hosts, services) = (redis.dir().join("hosts"), redis.dir().join("nsswitch.conf"));
    // 127.0.0.3 is another host.
    let known = "127.0.0.1 exec-1\n::1 exec-1\n127.0.0.3 exec-3\n";
    std::fs::write(&hosts, known).unwrap();
    std::fs::write(&services, "hosts: files\n").unwrap();
    let mounted = r#"mount --make-rprivate / && mount --bind "$1" /etc/hosts && mount --bind "$2" /etc/nsswitch.conf && shift 2 && exec "$@""#;
    let (hosts, services) = (hosts.to_str().unwrap(), services.to_str().unwrap());
    let ident_port = identd_of("tools.hello").to_string();
    let url = redis.url();
    let daemon = Daemon::start(
        &[
            &["unshare", "--mount", "sh", "-c", mounted, "sh", hosts, services][..],
            &[env!("CARGO_BIN_EXE_proxylistener"), "--listen", "[::]:0", "--project", "tools"],
            &["--redis", &url, "--ident-port", &ident_port, "--audit-interval", "off"],
        ]
        .concat(),
        &[],
    );
    let port = daemon.address_in("listening for registrations").port();
    let (v4, v6) = (Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    let ask_from = |host: IpAddr, command: &str| {
        let to = if host.is_ipv4() { v4 } else { v6 };
        ask(connect_between(host, SocketAddr::new(to, port)), command)
    };
    for (at, registers, unregisters) in [("127.0.0.1", v4, v6), ("[::1]", v6, v4)] {
        let url = format!("http://{at}:8000");
        assert_eq!(ask_from(registers, &format!("register\n.*\n{url}\n")), "ok");
        assert_eq!(route(&redis, ".*"), url);
        assert_eq!(
            (ask_from(unregisters, "unregister\n.*\n"), route(&redis, ".*")),
            ("ok".into(), String::new()),
            "{at}"
        );
    }
    // Another host, which shares no name.
    assert_eq!(ask_from(v6, "register\n.*\nhttp://[::1]:8000\n"), "ok");
    let other = Ipv4Addr::new(127, 0, 0, 3).into();
    assert_eq!((ask_from(other, "unregister\n.*\n"), route(&redis, ".*")), ("ok".into(), "http://[::1]:8000".into()));
}

#[test]
fn mapped_ipv4_address_equals_ipv4() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start_at("[::]:0", &redis.url(), identd_of("tools.hello"), &[], &[]);
    let client = || TcpStream::connect((Ipv4Addr::LOCALHOST, listener.address.port())).unwrap();
    assert_eq!(ask(client(), "register\n.*\nhttp://[::ffff:127.0.0.1]:8000\n"), "ok");
    assert_eq!(redis.cli(&["HGETALL", "prefix:hello"]), format!(".*\n{URL}"));
    // As an earlier version may have written it.
    redis.cli(&[
        "HSET",
        "origin:hello",
        ".*",
        r#"{"source":"proxylistener","owner":"o","host":"::ffff:127.0.0.1","since":1}"#,
    ]);
    assert_eq!((ask(client(), "unregister\n.*\n"), route(&redis, ".*")), ("ok".into(), String::new()));
}
