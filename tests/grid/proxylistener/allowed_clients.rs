//! `--allow-client`: which hosts may be clients.

use super::*;

#[test]
fn hosts_outside_allow_client_are_refused_without_an_identd_query() {
    let redis = RedisServer::start(&[]);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let ident_port = identd_by(move |_| {
        count.fetch_add(1, SeqCst);
        "tools.hello"
    });
    let file = redis.dir().join("settings");
    std::fs::write(&file, "allow-client 10.0.0.0/8 127.0.0.1\nallow-client ::ffff:127.0.0.5\n").unwrap();
    let args =
        ["--settings-file", file.to_str().unwrap(), "--metrics-listen", "127.0.0.1:0", "--audit-interval", "off"];
    let listener = Listener::start(&redis.url(), ident_port, &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    assert!(!listener.daemon.log().contains("--allow-client"), "{}", listener.daemon.log());
    let refused = || http::metric(status, r#"proxylistener_connections_refused_total{by="allow_client"}"#);
    assert_eq!(refused(), 0.0);
    let from = |last| ask(listener.connect_from(Ipv4Addr::new(127, 0, 0, last)), "unregister\n.*\n");
    assert_eq!((from(1), from(5)), ("ok".into(), "ok".into()));
    assert_eq!(asked.load(SeqCst), 2);
    for _ in 0..3 {
        assert_eq!(from(2), "fail");
    }
    assert_eq!((from(3), asked.load(SeqCst)), ("fail".into(), 2));
    listener.daemon.wait_for_line(&["WARN", "peer=127.0.0.3", "host is not in --allow-client"]);
    assert_eq!(listener.daemon.log().matches("host is not in --allow-client").count(), 2, "once for each host");
    assert_eq!(refused(), 4.0);
    // A flood of silent denied connections does not keep allowed clients out.
    let _silent: Vec<_> = (0..200).map(|n| listener.connect_from(Ipv4Addr::new(127, 0, 1, n))).collect();
    assert_eq!(from(1), "ok");

    std::fs::write(&file, "allow-client 127.0.0.2\n").unwrap();
    listener.daemon.signal("HUP");
    listener.daemon.wait_for_line(&["INFO", "settings reloaded", "changed=true"]);
    assert_eq!((from(2), from(1)), ("ok".into(), "fail".into()));
    std::fs::write(&file, "").unwrap();
    listener.daemon.signal("HUP");
    listener.daemon.wait_for_line(&["WARN", "--allow-client is not set"]);
    wait_for("any host is a client", || from(9) == "ok");
}

#[test]
fn missing_allow_client_is_warned_about() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    listener.daemon.wait_for_line(&["WARN", "--allow-client is not set; any host", "can register for any tool"]);
    assert_eq!(ask(listener.connect_from(ELSEWHERE), "unregister\n.*\n"), "ok");
}

#[test]
fn ipv4_client_of_a_dual_stack_socket_counts_as_ipv4() {
    let redis = RedisServer::start(&[]);
    let args = ["--allow-client", "127.0.0.0/8"];
    let listener = Listener::start_at("[::]:0", &redis.url(), identd_of("tools.hello"), &args, &[]);
    let from = |host: IpAddr| {
        let client = TcpStream::connect(SocketAddr::new(host, listener.address.port())).unwrap();
        ask(client, "unregister\n.*\n")
    };
    assert_eq!((from(Ipv4Addr::LOCALHOST.into()), from(Ipv6Addr::LOCALHOST.into())), ("ok".into(), "fail".into()));
}
