//! portgrabber, and portreleaser after it.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::job::{GRABBER, NO_TOOL, RELEASER, UNREGISTER, active, file_of, is_claimed, output};
use crate::listener::{Listener, identd_of};
use crate::port::free_port;
use crate::proxy::Proxy;
use crate::redis_server::RedisServer;

#[test]
fn a_grabbed_port_is_known_before_the_command_begins() {
    let redis = RedisServer::start(&[]);
    let listener = Listener::start(&redis.url(), identd_of("tools.hello"), &[]);
    let file = active(&[listener.address]);
    let mut grabber = Command::new(GRABBER)
        .arg("--active-proxy-file")
        .arg(file.path())
        .args([
            "--canonical",
            "hello",
            "sh",
            "-c",
            "echo $$ $PORT $#: $*; read -r _; kill -TERM $$",
            "sh",
            "--a",
            "b c",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(grabber.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let url = redis.cli(&["HGET", "prefix:hello", ".*"]);
    let port: u16 = url.strip_prefix("http://127.0.0.1:").unwrap().parse().unwrap();
    assert_eq!(line, format!("{} {port} 3: --a b c {port}\n", grabber.id()), "the same process");
    assert_eq!(redis.cli(&["HGET", "redirect:hello", ".*"]), "hello.toolforge.org");
    assert!(is_claimed(port));
    drop(grabber.stdin.take());
    assert_eq!(grabber.wait().unwrap().signal(), Some(15), "nothing is between");
    assert!(!is_claimed(port));

    for _ in 0..2 {
        let (status, _, error) = output(&[RELEASER, "--strict", "--active-proxy-file", file.path().to_str().unwrap()]);
        assert!(status == Some(0) && error.contains("unregistered from"), "{error}");
        assert_eq!(redis.cli(&["KEYS", "*"]), "");
    }
}

#[test]
fn a_grabbed_port_that_is_not_told_to_all_is_told_to_none() {
    let agreeing = Proxy::agreeing();
    let refusing = Proxy::start(|_| NO_TOOL.into());
    let file = active(&[agreeing.address, refusing.address]);
    let path = file.path().to_str().unwrap();
    let (status, out, error) = output(&[GRABBER, "--active-proxy-file", path, "hello", "echo", "begun"]);
    assert_eq!((status, &*out), (Some(77), ""), "{error}");
    assert!(error.contains(NO_TOOL) && error.contains(&refusing.address.to_string()), "{error}");
    assert_eq!(agreeing.heard().last().map(String::as_str), Some(UNREGISTER));

    let down = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let file = active(&[down, agreeing.address]);
    let path = file.path().to_str().unwrap();
    let (status, out, error) = output(&[GRABBER, "--active-proxy-file", path, "hello", "echo", "begun"]);
    assert_eq!((status, &*out), (Some(75), ""), "{error}");
    assert!(error.contains(&format!("not registered with {down} within 15s")), "{error}");
    assert_eq!(agreeing.heard().last().map(String::as_str), Some(UNREGISTER));
}

#[test]
fn a_grabbed_port_is_given_back_when_there_is_no_command() {
    for (command, want) in [("/nowhere/at/all", 127), ("/etc/passwd", 126)] {
        let proxy = Proxy::agreeing();
        let file = active(&[proxy.address]);
        let path = file.path().to_str().unwrap();
        let (status, _, error) = output(&[GRABBER, "--active-proxy-file", path, "hello", command]);
        assert_eq!(status, Some(want), "{error}");
        assert!(error.contains(&format!("while starting {command:?}")), "{error}");
        let heard = proxy.heard();
        assert!(heard.len() == 2 && heard[1] == UNREGISTER, "{heard:?}");
    }
}

#[test]
fn a_grabber_waits_for_a_proxy_that_is_back_soon() {
    let asked = AtomicUsize::new(0);
    let proxy = Proxy::start(move |_| if asked.fetch_add(1, Relaxed) == 0 { "fail".into() } else { "ok".into() });
    let file = active(&[proxy.address]);
    let path = file.path().to_str().unwrap();
    let (status, out, error) = output(&[GRABBER, "--active-proxy-file", path, "hello", "echo", "begun"]);
    let port = out.strip_prefix("begun ").and_then(|port| port.trim().parse().ok()).unwrap();
    assert_eq!((status, proxy.heard()), (Some(0), vec![proxy.registration(port); 2]), "{error}");
}

#[test]
fn a_queue_does_not_suffer_from_a_proxy_that_is_down() {
    let agreeing = Proxy::agreeing();
    let failing = Proxy::start(|_| "fail".into());
    let down = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    for (other, why) in [(down, "Connection refused"), (failing.address, "answered \"fail\"")] {
        let file = active(&[other, agreeing.address]);
        let path = file.path().to_str().unwrap();
        for (options, want) in [(&[][..], 0), (&["--strict"], 1)] {
            let (status, _, error) = output(&[&[RELEASER, "--active-proxy-file", path], options].concat());
            assert_eq!(status, Some(want), "{error}");
            assert!(error.contains(&format!("while unregistering from {other}")) && error.contains(why), "{error}");
            assert!(error.contains(&format!("unregistered from {}", agreeing.address)), "{error}");
        }
    }
    assert_eq!(agreeing.heard(), [UNREGISTER; 4]);
    assert!(failing.heard().len() >= 6, "tried again: {:?}", failing.heard());
    let nobody = file_of("\n");
    let (status, _, error) = output(&[RELEASER, "--strict", "--active-proxy-file", nobody.path().to_str().unwrap()]);
    assert!(status == Some(0) && error.contains("nothing to unregister"), "{error}");
}
