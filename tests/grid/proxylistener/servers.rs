//! Owners of the servers that tools register, and addresses that two tools want.

use super::*;

#[test]
fn foreign_server_is_refused() {
    let grid = Grid::start(&[]);
    // A Redis, as on a host of the platform.
    let theirs = RedisServer::start(&[]);
    grid.own(theirs.port(), "redis");
    let (_other, other_port) = grid.server_of("tools.other");
    let (_prefix, prefix_port) = grid.server_of("tools.hello2");
    let (_project, project_port) = grid.server_of("toolsbeta.hello");
    for (port, user) in [
        (theirs.port(), "redis"),
        (other_port, "tools.other"),
        (prefix_port, "tools.hello2"),
        (project_port, "toolsbeta.hello"),
    ] {
        for command in ["register", "registerCanonical", "renew", "renewCanonical"] {
            let reply = grid.ask_as("tools.hello", &format!("{command}\n.*\n{}\n", url_of(port)));
            assert_eq!((&*reply, &*grid.redis.cli(&["KEYS", "*"])), ("fail", ""), "{command} {user}");
        }
        let port = format!("127.0.0.1:{port} belongs to another user");
        grid.listener.daemon.wait_for_line(&["WARN", "refused", "tool=\"hello\"", "command=\"register\"", &port, user]);
    }
}

#[test]
fn server_of_root_is_refused() {
    let grid = Grid::start(&[]);
    let (server, port) = grid.server_of("root");
    // Like sshd: it sends first, and waits.
    std::thread::spawn(move || {
        let mut clients = Vec::new();
        for client in server.incoming().flatten() {
            let _ = (&client).write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n");
            clients.push(client);
        }
    });
    assert_eq!(grid.register_as("tools.hello", port), "fail");
    grid.listener.daemon.wait_for_line(&["WARN", "refused", "belongs to another user", "root"]);
    assert_eq!(grid.redis.cli(&["KEYS", "*"]), "");
}

#[test]
fn server_that_does_not_listen_yet_is_registered() {
    let grid = Grid::start(&[]);
    let port = free_port();
    assert_eq!((grid.register_as("tools.hello", port), grid.route("hello")), ("ok".into(), url_of(port)));
    grid.listener.daemon.wait_for_line(&["INFO", "registered", "server=\"not listening yet\""]);
    let (_server, port) = grid.server_of("tools.hello");
    assert_eq!((grid.register_as("tools.hello", port), grid.route("hello")), ("ok".into(), url_of(port)));
    grid.listener.daemon.wait_for_line(&["INFO", "registered", "server=\"own\""]);
    // The identd knows nothing about it.
    let (_server, port) = grid.server_of("");
    assert_eq!((grid.register_as("tools.hello", port), grid.route("hello")), ("ok".into(), url_of(port)));
    grid.listener.daemon.wait_for_line(&["INFO", "registered", "server=\"identd sent"]);
}

#[test]
fn listening_server_takes_the_address_from_another_tool() {
    let grid = Grid::start(&[]);
    let (server, port) = grid.server_of("tools.hello");
    assert_eq!(grid.ask_as("tools.hello", &format!("registerCanonical\n.*\n{}\n", url_of(port))), "ok");
    assert_eq!(grid.ask_as("tools.hello", &format!("register\n/api\n{URL}\n")), "ok");
    drop(server);
    // Nothing listens now: hello's server may be restarting.
    assert_eq!((grid.register_as("tools.other", port), grid.route("other")), ("fail".into(), String::new()));
    let routed = format!("is routed to 127.0.0.1:{port}");
    grid.listener.daemon.wait_for_line(&[
        "WARN",
        "refused",
        "tool=\"other\"",
        "hello",
        &routed,
        "nothing listens there",
    ]);
    // A server listens, and the identd names no user.
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    grid.own(port, "");
    assert_eq!((grid.register_as("tools.other", port), grid.route("hello")), ("fail".into(), url_of(port)));
    grid.listener.daemon.wait_for_line(&["WARN", "refused", "tool=\"other\"", "identd sent", "hello"]);
    // It belongs to tools.other.
    grid.own(port, "tools.other");
    assert_eq!((grid.register_as("tools.other", port), grid.route("other")), ("ok".into(), url_of(port)));
    assert_eq!(grid.redis.cli(&["HKEYS", "prefix:hello"]), "/api", "what leads elsewhere stays");
    assert_eq!(grid.redis.cli(&["HKEYS", "origin:hello"]), "/api");
    assert_eq!(grid.redis.cli(&["EXISTS", "redirect:hello"]), "0");
    let destination = format!("destination=\"{}\"", url_of(port));
    grid.listener.daemon.wait_for_line(&["WARN", "withdrawn", "tool=\"hello\"", "new_tool=\"other\"", &destination]);
    drop(server);
}

#[test]
fn foreign_port_is_refused_every_time() {
    let grid = Grid::start(&[]);
    let (_server, port) = grid.server_of("tools.hello");
    // Also before its owner has registered.
    assert_eq!((grid.register_as("tools.thief", port), grid.route("thief")), ("fail".into(), String::new()));
    assert_eq!(grid.register_as("tools.hello", port), "ok");
    for _ in 0..20 {
        for command in ["register", "renew"] {
            let command = format!("{command}\n.*\n{}\n", url_of(port));
            assert_eq!(grid.ask_as("tools.thief", &command), "fail");
            assert_eq!((grid.route("thief"), grid.route("hello")), (String::new(), url_of(port)));
        }
    }
    assert_eq!(grid.redis.cli(&["HGETALL", "addresses"]), format!("127.0.0.1:{port}\nhello"));
}

#[test]
fn stalled_servers_delay_no_other_tool() {
    let grid = Grid::start(&["--metrics-listen", "127.0.0.1:0"]);
    // Before Linux 6.16 identds report root for a server that does not accept.
    let slow: Vec<_> = (0..16).map(|_| grid.server_of("root")).collect();
    let waiting: Vec<_> = slow
        .iter()
        .map(|(_, port)| {
            let client = grid.client_of("tools.slow");
            (&client).write_all(format!("register\n/{port}\n{}\n", url_of(*port)).as_bytes()).unwrap();
            client
        })
        .collect();
    let (_server, port) = grid.server_of("tools.hello");
    assert_eq!(grid.register_as("tools.hello", port), "ok");
    // The slow tool's ninth server is not probed, and its registration does not wait.
    grid.listener.daemon.wait_for_line(&["registered", "tool=\"slow\"", "too many concurrent probes"]);
    let replies: Vec<_> = waiting.into_iter().map(read_reply).collect();
    assert_eq!(replies, vec!["ok"; 16]);
}

/// Real users, servers and identd: what each may register.
#[test]
fn real_identd_names_the_servers_owner() {
    let redis = RedisServer::start(&[]);
    let Some((_identd, ident_port)) = real_identd::start(&redis.dir()) else { return };
    let listener = Listener::start(&redis.url(), ident_port, &["--audit-interval", "off"]);
    let become_user = |uid: &'static str| ["setpriv", "--reuid", uid, "--regid", uid, "--clear-groups"];
    let port = free_port();
    let serve = |uid: &'static str| {
        let serve = format!(
            "import http.server as h; h.HTTPServer(('127.0.0.1', {port}), h.BaseHTTPRequestHandler).serve_forever()"
        );
        let daemon = Daemon::start(&[&become_user(uid)[..], &["/usr/bin/python3", "-c", &serve]].concat(), &[]);
        wait_for("the server listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        daemon
    };
    let ask_as = |uid: &'static str, command: &str, port: u16| {
        let script =
            r#"exec 3<>"/dev/tcp/127.0.0.1/$0"; printf '%s\n.*\nhttp://127.0.0.1:%s\n' "$1" "$2" >&3; cat <&3 >&2"#;
        let (listens, port) = (listener.address.port().to_string(), port.to_string());
        let command = [&become_user(uid)[..], &["bash", "-c", script, &listens, command, &port]].concat();
        let mut client = Daemon::start(&command, &[]);
        assert_eq!(client.wait_for_end(), 0);
        wait_for("a reply", || !client.log().is_empty());
        client.log()
    };
    assert_eq!(ask_as("50001", "register", port), "ok", "it does not listen yet");
    assert_eq!(ask_as("50001", "renew", port), "fail");
    assert_eq!(ask_as("50002", "register", port), "fail", "hello is routed there, and other does not listen");
    let mut server = serve("50001");
    assert_eq!((ask_as("50001", "renew", port), ask_as("50002", "register", port)), ("ok".into(), "fail".into()));
    server.signal("KILL");
    server.wait_for_end();
    let _server = serve("50002");
    assert_eq!((ask_as("50001", "renew", port), ask_as("50002", "register", port)), ("fail".into(), "ok".into()));
    assert_eq!(redis.cli(&["KEYS", "prefix:*"]), "prefix:other", "hello no longer is");
}
