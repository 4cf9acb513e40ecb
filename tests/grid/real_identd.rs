//! A real identd, in a namespace with two tool accounts: `tools.hello`, uid 50001, and `tools.other`, uid 50002.

use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;

use crate::support::daemon::Daemon;
use crate::support::need::{need, need_root};
use crate::support::port::free_port;
use crate::support::wait::wait_for;

const PROGRAM: &str = "/usr/sbin/oidentd";
/// Runs a command with `$1` as /etc/passwd.
const WITH_ACCOUNTS: &str = r#"mount --make-rprivate / && mount --bind "$1" /etc/passwd && shift && exec "$@""#;

/// The process and its port; `None` without root or oidentd, if the test may be skipped.
#[track_caller]
pub fn start(dir: &Path) -> Option<(Daemon, u16)> {
    if !need_root() || !need("oidentd", Path::new(PROGRAM).exists()) {
        return None;
    }
    let accounts = dir.join("passwd");
    let mut known = fs::read_to_string("/etc/passwd").expect("accounts");
    known += "tools.hello:x:50001:50001::/:/bin/sh\ntools.other:x:50002:50002::/:/bin/sh\n";
    fs::write(&accounts, known).expect("a file");
    let port = free_port();
    let port_text = port.to_string();
    let accounts = accounts.to_str().expect("UTF-8");
    let in_namespace = ["unshare", "--mount", "sh", "-c", WITH_ACCOUNTS, "sh", accounts];
    let identd = [PROGRAM, "-i", "-S", "-a", "127.0.0.1", "-p", &port_text, "-u", "root", "-g", "root"];
    let process = Daemon::start(&[&in_namespace[..], &identd].concat(), &[]);
    wait_for("oidentd listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
    Some((process, port))
}
