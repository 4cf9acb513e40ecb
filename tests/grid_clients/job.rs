//! The programs as a test runs them, and what is to be seen of them.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::process::{Command, Output, Stdio};

use tempfile::NamedTempFile;

use crate::listener::Daemon;

pub const RUNNER: &str = env!("CARGO_BIN_EXE_webservice-runner");
pub const GRABBER: &str = env!("CARGO_BIN_EXE_portgrabber");
pub const RELEASER: &str = env!("CARGO_BIN_EXE_portreleaser");

pub const UNREGISTER: &str = "unregister\n.*\n";
pub const NO_TOOL: &str = "This service available only to tool accounts";
pub const IDENT_FAILED: &str = "Identd authentication failed. Please contact an administrator";

/// A server at the address of its argument. It tells of its signals, ends at SIGTERM and stops listening at SIGUSR2.
pub const SERVER: &str = r#"
    use IO::Socket::INET;
    $| = 1;
    my $socket;
    for my $name (qw(HUP INT TERM USR1 USR2)) {
        $SIG{$name} = sub {
            print "got $name\n";
            exit 5 if $name eq "TERM";
            if ($name eq "USR2") { close $socket; print "listens no longer\n"; sleep 1 while 1 }
        };
    }
    $socket = IO::Socket::INET->new(LocalAddr => $ARGV[0], LocalPort => $ENV{PORT}, Listen => 5) or die "$!\n";
    print "listens on $ENV{PORT}\n";
    while (1) { my $client = $socket->accept or next; print $client "hello\n"; close $client }
"#;

pub fn server(address: &str) -> [&str; 4] {
    ["perl", "-e", SERVER, address]
}

pub fn file_of(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(content.as_bytes()).expect("written");
    file
}

pub fn active(proxies: &[SocketAddr]) -> NamedTempFile {
    file_of(&proxies.iter().map(|address| format!("{address}\n")).collect::<String>())
}

/// A webservice-runner, and the file that it tells the proxies of.
pub struct Job {
    daemon: Daemon,
    _file: NamedTempFile,
}

impl Deref for Job {
    type Target = Daemon;

    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Job {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}

pub fn runner(file: NamedTempFile, options: &[&str], command: &[&str]) -> Job {
    let path = file.path().to_str().unwrap();
    let all = [&[RUNNER, "--register-proxy", "--active-proxy-file", path], options, &["--"], command].concat();
    Job { daemon: Daemon::start(&all, &[]), _file: file }
}

pub fn port_of(daemon: &Daemon) -> u16 {
    number_after(daemon, "listens on ").try_into().expect("a port")
}

/// The number in the first line with this text before it.
#[track_caller]
pub fn number_after(daemon: &Daemon, text: &str) -> u32 {
    let line = daemon.wait_for_line(&[text]);
    let number = line.split_once(text).unwrap().1;
    number.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().expect("a number")
}

/// Whether a process has ended, though nobody may have taken notice.
pub fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    matches!(state, None | Some(Some('Z' | 'X')))
}

pub fn group_of(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().parse().unwrap()
}

/// The status, what is printed, and what is logged. In a `PATH` all of which anybody may look at: execvp(3) says EACCES
/// otherwise, for what is not there.
pub fn output(command: &[&str]) -> (Option<i32>, String, String) {
    let (program, args) = command.split_first().unwrap();
    let run = Command::new(program).args(args).env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = run.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Whether somebody holds the name of the port: unix(7), abstract.
pub fn is_claimed(port: u16) -> bool {
    let name = format!(" @urlproxy-port-{port}");
    fs::read_to_string("/proc/net/unix").unwrap().lines().any(|line| line.ends_with(&name))
}
