//! Users of clients, as identds name them.

use super::*;

#[test]
fn disconnected_client_is_not_authenticated() {
    let redis = RedisServer::start(&[]);
    let ((asking, asked), (resume, resumed)) = (channel(), channel::<()>());
    let (asking, resumed) = (std::sync::Mutex::new(asking), std::sync::Mutex::new(resumed));
    let ident_port = identd(move |mut stream, (client, ours)| {
        asking.lock().unwrap().send(()).unwrap();
        resumed.lock().unwrap().recv().unwrap();
        let _ = stream.write_all(format!("{client} , {ours} : USERID : UNIX : tools.hello\r\n").as_bytes());
    });
    let listener = Listener::start(&redis.url(), ident_port, &[]);
    let mut client = listener.connect();
    client.write_all(format!("register\n.*\n{URL}\n").as_bytes()).unwrap();
    asked.recv_timeout(SOON).unwrap();
    // A reset frees the client's port for other users at once.
    rustix::net::sockopt::set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    resume.send(()).unwrap();
    listener.daemon.wait_for_line(&["WARN", "refused", "the client disconnected"]);
    // A half-closed client is still connected.
    let client = listener.connect();
    (&client).write_all(format!("register\n.*\n{URL}\n").as_bytes()).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    asked.recv_timeout(SOON).unwrap();
    assert_eq!(redis.cli(&["KEYS", "*"]), "", "of the one that was gone");
    resume.send(()).unwrap();
    assert_eq!(read_reply(client), "ok");
}

#[test]
fn identd_failures_are_logged() {
    let redis = RedisServer::start(&[]);
    let asked = format!("register\n.*\n{URL}\n");
    let reply_of = |ident_port: u16, why: &str| {
        let listener = Listener::start(&redis.url(), ident_port, &["--ident-timeout", "500ms"]);
        assert_eq!(listener.ask(&asked), IDENT_FAILED, "{why}");
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
        ("", "incomplete line"),
        ("hello\r\n", "expected port , port"),
        ("\0\0\0\r\n", "expected port , port"),
        ("{client} , {ours} : ERROR : NO-USER\r\n", "NO-USER"),
        ("{client} , {ours} : ERROR : HIDDEN-USER\r\n", "HIDDEN-USER"),
        ("{ours} , {client} : USERID : UNIX : tools.hello\r\n", "other ports"),
        ("1 , {ours} : USERID : UNIX : tools.hello\r\n", "other ports"),
        ("{client} , 1 : USERID : UNIX : tools.hello\r\n", "other ports"),
        ("{client} , {ours} : USERID : UNIX : tools.hello", "incomplete line"),
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

/// Debian's oidentd closes its eleventh connection.
#[test]
fn overloaded_identd_is_asked_again() {
    let redis = RedisServer::start(&[]);
    let asked = AtomicUsize::new(0);
    let ident_port = identd(move |mut stream, (client, ours)| {
        if asked.fetch_add(1, SeqCst) % 4 == 3 {
            let _ = stream.write_all(format!("{client} , {ours} : USERID : UNIX : tools.hello\r\n").as_bytes());
        }
    });
    let listener = Listener::start(&redis.url(), ident_port, &["--audit-interval", "off"]);
    for _ in 0..3 {
        assert_eq!(listener.register(".*", URL), "ok");
    }
    assert_eq!(route(&redis, ".*"), URL);
}

#[test]
fn identd_is_asked_from_the_address_that_the_client_connected_to() {
    let (asked, asked_from) = channel();
    let ident_port =
        identd(move |stream, _| asked.send(stream.peer_addr().unwrap().ip().to_canonical()).unwrap()).to_string();
    let args = [env!("CARGO_BIN_EXE_proxylistener"), "--listen", "127.0.0.3:0", "--project", "tools"];
    let daemon = Daemon::start(&[&args[..], &["--ident-port", &ident_port, "--audit-interval", "off"]].concat(), &[]);
    let line = daemon.wait_for_line(&["listening for registrations"]);
    let address = line.split_once("address=").unwrap().1.split_once(' ').unwrap().0;
    assert_eq!(ask(TcpStream::connect(address).unwrap(), "unregister\n.*\n"), IDENT_FAILED);
    assert_eq!(asked_from.recv_timeout(SOON).unwrap(), Ipv4Addr::new(127, 0, 0, 3));
}

#[test]
fn users_outside_the_project_are_refused() {
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
fn real_identd_replies_are_parsed() {
    let installed = Command::new("oidentd").arg("--version").env("PATH", "/usr/sbin:/usr/bin").output().is_ok();
    if !need("oidentd", installed) {
        return;
    }
    let redis = RedisServer::start(&[]);
    let root = rustix::process::geteuid().is_root();
    // First the user's own name, which is no tool account; then a name that the configuration forces.
    let forced = redis.dir().join("forced.conf");
    std::fs::write(&forced, "default {\n  default {\n    force reply \"tools.hello\"\n  }\n}\n").unwrap();
    let plain = redis.dir().join("plain.conf");
    std::fs::write(&plain, "").unwrap();
    for (configuration, reply) in [(&plain, NO_TOOL), (&forced, "ok")] {
        let port = free_port();
        let (port_text, path) = (port.to_string(), configuration.to_str().unwrap());
        let mut command = vec!["/usr/sbin/oidentd", "-i", "-S", "-a", "127.0.0.1", "-p", &port_text, "-C", path];
        if root {
            // Otherwise it drops its privileges and cannot read the configuration.
            command.extend(["-u", "root", "-g", "root"]);
        }
        let identd = Daemon::start(&command, &[]);
        wait_for("oidentd listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        let listener = Listener::start(&redis.url(), port, &[]);
        assert_eq!(listener.register(".*", URL), reply, "{}", identd.log());
    }
    assert_eq!(route(&redis, ".*"), URL);
}
