//! Servers of one address family, and proxies of the other.

use std::net::Ipv6Addr;

use super::job::{Job, RUNNER, file_of, port_of, runner, start};
use crate::proxy::Proxy;
use crate::support::need::need_root;

/// Listens on `[::]` for IPv6 only, which /proc does not show.
const SERVER: &str = r#"
    use IO::Socket::IP;
    $| = 1;
    my $socket = IO::Socket::IP->new(LocalAddr => "::", LocalPort => $ENV{PORT}, V6Only => 1, Listen => 5) or die "$@\n";
    print "listens on $ENV{PORT}\n";
    while (1) { my $client = $socket->accept or next; print "was connected to\n"; close $client }
"#;

/// A webservice-runner where the name `both` has two addresses; needs root.
fn runner_of_both(proxy: u16, command: &[&str]) -> Job {
    let hosts = file_of("127.0.0.1 both\n::1 both\n");
    let script = r#"mount --bind "$0" /etc/hosts && exec "$@""#;
    let program = [
        "unshare",
        "--mount",
        "sh",
        "-c",
        script,
        hosts.path().to_str().unwrap(),
        RUNNER,
        "--no-error-log",
        "--register-proxy",
    ];
    let options = ["--listen-timeout", "60s"];
    let job = start(&program, &[], file_of(&format!("both:{proxy}\n")), &options, command);
    // The mount is done by then.
    port_of(&job);
    job
}

#[test]
fn ipv6_only_server_is_registered_over_ipv6_only() {
    let proxy = Proxy::start_at((Ipv6Addr::UNSPECIFIED, 0).into(), |_| "ok".into()).expect("IPv6");
    let number = proxy.address.port();
    let options = ["--listen-timeout", "20s"];
    let mut job = runner(file_of(&format!("127.0.0.1:{number}\n")), &options, &["perl", "-e", SERVER]);
    let port = port_of(&job);
    assert_eq!(job.wait_for_end(), 69);
    let reason = format!(
        "the server on port {port} listens on IPv6 only, expected 0.0.0.0, [::] without IPV6_V6ONLY, or 127.0.0.1"
    );
    job.wait_for_line(&["ERROR", &reason, "after 20s"]);
    assert_eq!(proxy.received(), [""; 0]);

    if !need_root() {
        return;
    }
    // The name has both addresses.
    let job = runner_of_both(number, &["perl", "-e", SERVER]);
    let port = port_of(&job);
    job.wait_for_line(&[&format!("INFO registered http://[::1]:{port} with both:{number}")]);
    assert_eq!(proxy.received(), [format!("register\n.*\nhttp://[::1]:{port}\n")]);
}

#[test]
fn ipv4_only_server_is_registered_over_ipv4_only() {
    let proxy = Proxy::start_at((Ipv6Addr::UNSPECIFIED, 0).into(), |_| "ok".into()).expect("IPv6");
    let number = proxy.address.port();
    let server = SERVER.replace("::\"", "0.0.0.0\"").replace("V6Only => 1, ", "");
    let options = ["--listen-timeout", "20s"];
    let mut job = runner(file_of(&format!("[::1]:{number}\n")), &options, &["perl", "-e", &server]);
    let port = port_of(&job);
    assert_eq!(job.wait_for_end(), 69);
    job.wait_for_line(&[
        "ERROR",
        &format!("the server on port {port} listens on 0.0.0.0 only, expected 0.0.0.0, [::] or ::1"),
    ]);
    if !need_root() {
        return;
    }
    let job = runner_of_both(number, &["perl", "-e", &server]);
    let port = port_of(&job);
    job.wait_for_line(&[&format!("INFO registered http://127.0.0.1:{port} with both:{number}")]);
    assert!(!job.log().contains("was connected to"), "no connection where /proc is enough");
}
