//! Allowed destinations.

use super::*;

#[test]
fn foreign_destinations_are_refused() {
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
fn names_are_written_as_addresses() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    // Old clients send the name of their host.
    assert_eq!(listener.register(".*", "http://localhost:8000"), "ok");
    assert_eq!(route(&redis, ".*"), URL);
    listener.daemon.wait_for_line(&["registered", "destination=\"http://127.0.0.1:8000\""]);
    let elsewhere = ask(listener.connect_from(Ipv4Addr::new(127, 0, 0, 2)), "register\n/x\nhttp://localhost:8000\n");
    assert_eq!((&*elsewhere, &*route(&redis, "/x")), ("fail", ""));
    listener.daemon.wait_for_line(&["refused", "peer=127.0.0.2", "is a loopback"]);
}

#[test]
fn ipv6_clients_are_served() {
    let redis = RedisServer::start(&[]);
    let ident_port = identd_of("tools.hello");
    let listener = Listener::start_at("[::1]:0", &redis.url(), ident_port, &[], &[]);
    let url = "http://[::1]:8000";
    assert_eq!((listener.register(".*", url), route(&redis, ".*")), ("ok".into(), url.into()));
    assert_eq!(listener.register(".*", "http://[::2]:8000"), "fail");
    assert_eq!(listener.ask("unregister\n.*\n"), "ok");
    // On a dual-stack socket IPv4 clients count as IPv4.
    let listener = Listener::start_at("[::]:0", &redis.url(), ident_port, &[], &[]);
    let both = [(Ipv6Addr::LOCALHOST.into(), url), (Ipv4Addr::LOCALHOST.into(), URL)];
    for (host, url) in both {
        let client = TcpStream::connect(SocketAddr::new(host, listener.address.port())).unwrap();
        assert_eq!(ask(client, format!("register\n.*\n{url}\n")), "ok", "{url}");
        assert_eq!(route(&redis, ".*"), url);
    }
}
