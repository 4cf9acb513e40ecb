//! Connection limits.

use super::*;

#[test]
fn host_with_thousands_of_connections_starves_no_other() {
    let redis = RedisServer::start(&[]);
    let listener = start(&redis);
    urlproxy::daemon::raise_fd_limit();
    let mut clients: Vec<_> = (0..2000).map(|_| listener.connect()).collect();
    let other = || ask(listener.connect_from(Ipv4Addr::new(127, 0, 0, 2)), "unregister\n.*\n");
    assert_eq!(other(), "ok");
    // Not even one on the same host: the longest silent client is evicted.
    assert_eq!(listener.register(".*", URL), "ok");
    wait_for("all but 64 are closed", || {
        clients.retain_mut(|client| !closed(client));
        clients.len() <= 64
    });
    assert!(clients.len() >= 63, "{}", clients.len());
    assert_eq!(ask(clients.pop().unwrap(), "unregister\n.*\n"), "ok", "open connections are served");
}

#[test]
fn silent_clients_of_many_hosts_keep_no_other_client_out() {
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
fn max_connections_limits_served_and_waiting_clients() {
    let redis = RedisServer::start(&[]);
    let (resume, resumed) = channel::<()>();
    let resumed = std::sync::Mutex::new(resumed);
    let ident_port = identd(move |mut stream, (client, ours)| {
        resumed.lock().unwrap().recv().unwrap_or_default();
        let _ = stream.write_all(format!("{client} , {ours} : USERID : UNIX : tools.hello{client}\r\n").as_bytes());
    });
    let args =
        ["--max-connections", "8", "--metrics-listen", "127.0.0.1:0", "--ident-timeout", "1m", "--idle-timeout", "1m"];
    let listener = Listener::start(&redis.url(), ident_port, &args);
    let status = listener.daemon.address_in("metrics endpoint listening");
    let host = |last| Ipv4Addr::new(127, 0, 0, last);
    let clients: Vec<_> = (0..8)
        .map(|n| {
            let mut client = listener.connect_from(host(2 + n / 4));
            client.write_all(b"unregister\n.*\n").unwrap();
            client
        })
        .collect();
    wait_for("8 are in", || http::metric(status, "proxylistener_connections") == 8.0);
    // A client with a command is not evicted for another, which waits; 4 of a host may wait, and 8 in all.
    let waiting: Vec<_> = (0..12)
        .map(|n| {
            let mut client = listener.connect_from(host(9 + n / 6));
            client.write_all(b"unregister\n.*\n").unwrap();
            client
        })
        .collect();
    wait_for("8 wait", || http::metric(status, "proxylistener_waiting_connections") == 8.0);
    listener.daemon.wait_for_line(&["connection limit reached", "--max-connections"]);
    assert_eq!(http::metric(status, "proxylistener_connections"), 8.0);
    drop(resume);
    let replies: Vec<_> = clients.into_iter().map(read_reply).collect();
    assert_eq!(replies, vec!["ok"; 8]);
    let served = waiting.into_iter().filter_map(|mut client| {
        client.set_read_timeout(Some(SOON)).unwrap();
        let mut reply = String::new();
        client.read_to_string(&mut reply).is_ok_and(|_| reply == "ok").then_some(())
    });
    assert_eq!(served.count(), 8);
}
