//! When and how a service is registered.

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::job::{
    IDENT_FAILED, NO_TOOL, RUNNER, SERVER, UNKNOWN, UNREGISTER, active, file_of, number_after, output, port_of, runner,
    server,
};
use crate::listener::{Listener, identd_of};
use crate::proxy::Proxy;
use crate::support::need::{need, need_root};
use crate::support::port::free_port;
use crate::support::redis::RedisServer;

#[test]
fn service_is_routed_while_it_listens() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &[]);
    for (options, host) in [(&[][..], ""), (&["--canonical"], ".*\nhello.toolforge.org")] {
        let mut job = runner(active(&[listener.address]), options, &server("0.0.0.0"));
        let url = format!("http://127.0.0.1:{}", port_of(&job));
        job.wait_for_line(&["INFO registered", &url, &format!("with {}", listener.address)]);
        assert_eq!(redis.cli(&["HGETALL", "prefix:hello"]), format!(".*\n{url}"));
        assert_eq!(redis.cli(&["HGETALL", "redirect:hello"]), host);
        let mut reply = String::new();
        TcpStream::connect(url.trim_start_matches("http://")).unwrap().read_to_string(&mut reply).unwrap();
        assert_eq!(reply, "hello\n");
        job.signal("TERM");
        assert_eq!(job.wait_for_end(), 5);
        assert_eq!(redis.cli(&["KEYS", "*"]), "");
    }
}

#[test]
fn commands_are_those_of_old_clients() {
    for (options, name) in [(&[][..], "register"), (&["--canonical"], "registerCanonical")] {
        let proxy = Proxy::old(|_| "ok".into());
        let mut job = runner(active(&[proxy.address]), options, &server("0.0.0.0"));
        let register = format!("{name}\n.*\nhttp://127.0.0.1:{}\n", port_of(&job));
        proxy.wait_for(&[&register]);
        job.wait_for_line(&["INFO registered"]);
        job.signal("TERM");
        job.wait_for_end();
        assert_eq!(proxy.received_once(), [&register, UNKNOWN, UNREGISTER]);
    }
}

#[test]
fn ipv6_proxy_gets_an_ipv6_address() {
    let proxy = Proxy::start_at((Ipv6Addr::LOCALHOST, 0).into(), |_| "ok".into());
    if !need("IPv6", proxy.is_ok()) {
        return;
    }
    let proxy = proxy.unwrap();
    let v6_server = SERVER.replace("IO::Socket::INET", "IO::Socket::IP");
    let job = runner(active(&[proxy.address]), &[], &["perl", "-e", &v6_server, "::"]);
    proxy.wait_for(&[&format!("register\n.*\nhttp://[::1]:{}\n", port_of(&job))]);
}

#[test]
fn proxies_are_registered_with_independently() {
    let (agreeing, mute) = (Proxy::agreeing(), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let down = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let file = active(&[mute.local_addr().unwrap(), down, agreeing.address, agreeing.address]);
    let mut job = runner(file, &[], &server("0.0.0.0"));
    let port = port_of(&job);
    let register = agreeing.registration(port);
    agreeing.wait_for(&[&register]);
    job.wait_for_line(&["WARN", "Connection refused", &down.to_string(), "retrying"]);
    let late = Proxy::start_at(down, |_| "ok".into()).unwrap();
    late.wait_for(&[&register]);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 5);
    for proxy in [&agreeing, &late] {
        assert_eq!(proxy.received(), [proxy.registration(port), proxy.unregistration(port)]);
    }
    assert_eq!(job.log().matches("Connection refused").count(), 1, "logged once, not for each try");
}

#[test]
fn refusal_is_logged_once_and_retried() {
    for answer in ["fail", IDENT_FAILED, "", "something else"] {
        let asked = AtomicUsize::new(0);
        let proxy = Proxy::start(move |_| if asked.fetch_add(1, Relaxed) < 2 { answer.into() } else { "ok".into() });
        let job = runner(active(&[proxy.address]), &[], &server("0.0.0.0"));
        let register = proxy.registration(port_of(&job));
        job.wait_for_line(&["INFO registered"]);
        assert_eq!(proxy.received(), [&*register, &register, &register], "{answer:?}");
        let line = format!("reply {answer:?}, expected ok while registering with {}; retrying", proxy.address);
        assert_eq!(job.log().matches(&line).count(), 1, "{answer:?}");
    }
}

#[test]
fn user_without_tool_account_is_not_registered() {
    let proxy = Proxy::start(|_| NO_TOOL.into());
    let mut job = runner(active(&[proxy.address]), &[], &server("0.0.0.0"));
    let register = proxy.registration(port_of(&job));
    assert_eq!(job.wait_for_end(), 77);
    job.wait_for_line(&["ERROR", NO_TOOL]);
    job.wait_for_line(&["got TERM"]);
    assert_eq!(proxy.received(), [register], "there is nothing to unregister");
}

#[test]
fn command_runs_without_a_proxy() {
    let command = ["sh", "-c", "echo port $PORT; exit 3"];
    for content in ["", "# none now\n\n"] {
        let mut job = runner(file_of(content), &[], &command);
        assert_eq!(job.wait_for_end(), 3);
        assert!(number_after(&job, "port ") >= 10_000);
        assert_eq!(job.log().matches("not registering").count(), 1, "{content:?}");
    }
    // Without --register-proxy the file is not read.
    let command = [&[RUNNER, "--no-error-log", "--active-proxy-file", "/nowhere"], &command[..]].concat();
    let (status, out, _) = output(&command);
    assert!(status == Some(3) && out.starts_with("port "), "{out}");
}

#[test]
fn command_that_does_not_listen_in_time_is_ended() {
    let proxy = Proxy::agreeing();
    let script = r#"$| = 1; $SIG{TERM} = sub { print "got TERM\n"; exit 0 }; sleep 1 while 1"#;
    let mut job = runner(active(&[proxy.address]), &["--listen-timeout", "300ms"], &["perl", "-e", script]);
    assert_eq!(job.wait_for_end(), 69);
    job.wait_for_line(&["ERROR no usable server after 300ms: nothing listens on port"]);
    job.wait_for_line(&["got TERM"]);
    assert_eq!(proxy.received(), [""; 0]);
}

#[test]
fn unreachable_server_is_reported() {
    let proxy = Proxy::agreeing();
    let mut job = runner(active(&[proxy.address]), &["--listen-timeout", "5s"], &server("127.0.0.2"));
    assert_eq!(job.wait_for_end(), 69);
    job.wait_for_line(&["ERROR", "listens on 127.0.0.2 only, expected 0.0.0.0, [::] or 127.0.0.1"]);
    assert_eq!(proxy.received(), [""; 0]);

    // Connecting a UDP socket shows this host's address, and sends nothing.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let own = socket.connect("192.0.2.1:9").and_then(|()| socket.local_addr()).map(|address| address.ip());
    let own = own.ok().filter(|own| !own.is_loopback());
    if !need("network", own.is_some()) {
        return;
    }
    let own = own.unwrap();
    let proxy = Proxy::start_at((own, 0).into(), |_| "ok".into()).unwrap();
    let mut job = runner(active(&[proxy.address]), &["--listen-timeout", "5s"], &server("127.0.0.1"));
    assert_eq!(job.wait_for_end(), 69);
    job.wait_for_line(&["ERROR", &format!("listens on 127.0.0.1 only, expected 0.0.0.0, [::] or {own}")]);
    assert_eq!(proxy.received(), [""; 0]);
    let job = runner(active(&[proxy.address]), &[], &server(&own.to_string()));
    proxy.wait_for(&[&proxy.registration(port_of(&job))]);
}

#[test]
fn foreign_server_is_not_registered() {
    if !need_root() {
        return;
    }
    let proxy = Proxy::agreeing();
    let other_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    for address in ["0.0.0.0", "127.0.0.1"] {
        let command = [&other_user[..], &server(address)].concat();
        let port = free_port().to_string();
        let options = ["--listen-timeout", "5s", "--port", &port];
        let mut job = runner(active(&[proxy.address]), &options, &command);
        assert_eq!(job.wait_for_end(), 69);
        job.wait_for_line(&[&format!("port {port} is taken by a server of another user, uid 65534"), "after 5s"]);
    }
    assert_eq!(proxy.received(), [""; 0]);
}

#[test]
fn server_that_stops_before_the_proxy_starts_is_not_registered() {
    let down = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let job = runner(active(&[down]), &[], &server("0.0.0.0"));
    job.wait_for_line(&["Connection refused"]);
    job.signal("USR2");
    job.wait_for_line(&["listens no longer"]);
    let proxy = Proxy::start_at(down, |_| "ok".into()).unwrap();
    job.wait_for_line(&["WARN nothing listens on port", "retrying"]);
    assert_eq!(proxy.received(), [""; 0]);
}
