//! Port reservations.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};

use super::job::{GRABBER, RUNNER, SERVER, active, file_of, is_reserved, number_after, output, runner};
use crate::proxy::Proxy;
use crate::support::daemon::Daemon;
use crate::support::need::need_root;
use crate::support::port::free_port;

#[test]
fn fifty_jobs_get_fifty_ports_outside_the_ephemeral_range() {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let low: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    let empty = file_of("");
    let script = "echo $PORT; read -r _";
    let jobs: Vec<Child> = (0..50)
        .map(|number| {
            let mut command = Command::new(if number % 2 == 0 { RUNNER } else { GRABBER });
            if number % 2 == 0 {
                command.arg("--no-error-log");
            } else {
                command.arg("--active-proxy-file").arg(empty.path()).arg("hello");
            }
            command.args(["sh", "-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            command.spawn().unwrap()
        })
        .collect();
    let mut ports = HashSet::new();
    let mut ended = Vec::new();
    for mut job in jobs {
        let mut line = String::new();
        BufReader::new(job.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().parse().unwrap();
        assert!((10_000..low).contains(&port), "{port}");
        assert!(is_reserved(port), "{port}");
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
        assert!(ports.insert(port), "{port} was given twice");
        ended.push(job);
    }
    for mut job in ended {
        drop(job.stdin.take());
        job.wait().unwrap();
    }
    assert!(!ports.into_iter().any(is_reserved), "reservations end with their jobs");
}

#[test]
fn requested_port_must_be_free() {
    let port = free_port();
    let number = port.to_string();
    let mut job =
        Daemon::start(&[RUNNER, "--no-error-log", "--port", &number, "sh", "-c", "echo port $PORT; sleep 1000"], &[]);
    assert_eq!(number_after(&job, "port "), u32::from(port));
    let (status, out, error) = output(&[RUNNER, "--no-error-log", "--port", &number, "echo", "begun"]);
    assert_eq!((status, &*out), (Some(69), ""), "{error}");
    assert!(error.contains(&format!("port {port} is reserved by another job")), "{error}");
    job.signal("TERM");
    job.wait_for_end();
    let _server = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (status, out, error) = output(&[RUNNER, "--no-error-log", "--port", &number, "echo", "begun"]);
    assert_eq!((status, &*out), (Some(69), ""), "{error}");
    assert!(error.contains(&format!("port {port} is already used by a server of uid ")), "{error}");
}

/// A script where another user's server takes the port first, `times` times; the file `$1` counts the starts.
fn usurped(times: usize, own: &str) -> String {
    format!(
        r#"n=$(cat "$1" 2>/dev/null || echo 0); echo $((n + 1)) >"$1"
        if [ "$n" -lt {times} ]; then
            setpriv --reuid=65534 --regid=65534 --clear-groups setsid timeout 60 perl -e "$0" 127.0.0.1 >&2 &
            while ! grep -q ":$(printf %04X $PORT) .* 0A " /proc/net/tcp; do sleep 0.01; done
        fi
        {own}"#
    )
}

#[test]
fn command_restarts_on_another_port_when_its_port_is_taken() {
    if !need_root() {
        return;
    }
    // The command fails, or keeps running.
    for own in [r#"exec perl -e "$0" 0.0.0.0"#, r#"perl -e "$0" 0.0.0.0 || exec sleep 1000"#] {
        let (proxy, count) = (Proxy::agreeing(), file_of("0"));
        let command = ["sh", "-c", &usurped(2, own), SERVER, count.path().to_str().unwrap()];
        let mut job = runner(active(&[proxy.address]), &[], &command);
        job.wait_for_line(&["INFO registered"]);
        let log = job.log();
        let ports = log.lines().filter_map(|line| line.split_once("started \"sh\" on port "));
        let ports: HashSet<_> = ports.map(|(_, port)| port).collect();
        assert_eq!(ports.len(), 3, "{log}");
        let restarts = log.lines().filter(|line| line.contains("uid 65534; restarting \"sh\" on another port"));
        assert_eq!(restarts.count(), 2, "{log}");
        let [registered] = &proxy.received()[..] else { panic!("{:?}", proxy.received()) };
        let port = log.lines().rfind(|line| line.contains("started")).and_then(|line| line.rsplit(' ').next()).unwrap();
        assert_eq!(*registered, proxy.registration(port.parse().unwrap()));
        job.signal("TERM");
        job.wait_for_end();
    }
}

#[test]
fn restarts_are_limited_to_taken_ports_and_ten_starts() {
    if !need_root() {
        return;
    }
    let (proxy, count) = (Proxy::agreeing(), file_of("0"));
    let path = count.path().to_str().unwrap();
    let command = ["sh", "-c", &usurped(1000, "exit 3"), SERVER, path];
    let mut job = runner(active(&[proxy.address]), &[], &command);
    assert_eq!(job.wait_for_end(), 3);
    assert_eq!(fs::read_to_string(path).unwrap().trim(), "10");
    // A requested port is never changed.
    fs::write(path, "0").unwrap();
    let number = free_port().to_string();
    let mut job = runner(active(&[proxy.address]), &["--port", &number], &command);
    assert_eq!(job.wait_for_end(), 3);
    assert_eq!(fs::read_to_string(path).unwrap().trim(), "1");
    fs::write(path, "0").unwrap();
    let mut job = runner(active(&[proxy.address]), &[], &["sh", "-c", &usurped(0, "exit 3"), SERVER, path]);
    assert_eq!(job.wait_for_end(), 3);
    assert_eq!(fs::read_to_string(path).unwrap().trim(), "1");
    assert_eq!(proxy.received(), [""; 0]);
}

#[test]
fn signal_prevents_a_restart_on_another_port() {
    if !need_root() {
        return;
    }
    let (proxy, count) = (Proxy::agreeing(), file_of("0"));
    let script = format!("trap 'echo got TERM' TERM\n{}", usurped(1000, "while :; do sleep 0.1; done"));
    let command = ["sh", "-c", &script, SERVER, count.path().to_str().unwrap()];
    let mut job = runner(active(&[proxy.address]), &["--grace", "1s"], &command);
    job.wait_for_line(&["got TERM"]);
    job.signal("TERM");
    assert_eq!(job.wait_for_end(), 137);
    assert_eq!(fs::read_to_string(count.path()).unwrap().trim(), "1");
    assert_eq!(proxy.received(), [""; 0]);
}
