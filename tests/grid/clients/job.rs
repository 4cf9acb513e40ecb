//! Runs the programs, and inspects their processes.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::process::{Command, Output, Stdio};

use tempfile::NamedTempFile;

use crate::support::daemon::Daemon;

pub const RUNNER: &str = env!("CARGO_BIN_EXE_webservice-runner");
pub const GRABBER: &str = env!("CARGO_BIN_EXE_portgrabber");
pub const RELEASER: &str = env!("CARGO_BIN_EXE_portreleaser");

pub const UNREGISTER: &str = "unregister\n.*\n";
/// What an old listener receives from a client that tries the new command first.
pub const UNKNOWN: &str = "unregisterUrl\n";
pub const NO_TOOL: &str = "This service available only to tool accounts";
pub const IDENT_FAILED: &str = "Identd authentication failed. Please contact an administrator";

/// A server on the address of its argument. It prints its signals, exits at SIGTERM and stops listening at SIGUSR2.
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

/// A running program, and its active-proxy file.
pub struct Job {
    daemon: Daemon,
    pub file: NamedTempFile,
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

/// A webservice-runner. SIGHUP has its default action, and renewals are rare unless `options` set their interval.
pub fn runner(file: NamedTempFile, options: &[&str], command: &[&str]) -> Job {
    runner_in(&[], file, options, command)
}

/// The same with these variables in its environment.
pub fn runner_in(environment: &[(&str, &str)], file: NamedTempFile, options: &[&str], command: &[&str]) -> Job {
    start(&[RUNNER, "--no-error-log", "--register-proxy"], environment, file, options, &[&["--"], command].concat())
}

/// A portgrabber of the tool `hello`.
pub fn grabber(file: NamedTempFile, options: &[&str], command: &[&str]) -> Job {
    grabber_in(&[], file, options, command)
}

/// The same with these variables in its environment.
pub fn grabber_in(environment: &[(&str, &str)], file: NamedTempFile, options: &[&str], command: &[&str]) -> Job {
    start(&[GRABBER], environment, file, options, &[&["hello"], command].concat())
}

/// Starts any of the programs.
pub fn start(
    program: &[&str],
    environment: &[(&str, &str)],
    file: NamedTempFile,
    options: &[&str],
    rest: &[&str],
) -> Job {
    let path = file.path().to_str().unwrap();
    let seldom: &[&str] = if options.contains(&"--renew-interval") { &[] } else { &["--renew-interval", "1h"] };
    let by_default = ["env", "--default-signal=HUP"];
    let all = [&by_default, program, &["--active-proxy-file", path], seldom, options, rest].concat();
    Job { daemon: Daemon::start(&all, environment), file }
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

/// Whether a process has ended, even if it is a zombie.
pub fn is_gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").map(|(_, rest)| rest.chars().next());
    matches!(state, None | Some(Some('Z' | 'X')))
}

/// portgrabber's watcher process for this port, if it runs.
pub fn watcher_of(port: u16) -> Option<u32> {
    let argument = format!("\0watch:{port}\0");
    let is_it = |pid: &u32| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&argument))
    };
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).find(is_it)
}

pub fn kill(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([format!("-{signal}"), pid.to_string()]).status().unwrap().success());
}

pub fn group_of(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(2).unwrap().parse().unwrap()
}

/// The status, standard output and standard error. All directories of `PATH` are readable: otherwise execvp(3) gives EACCES for
/// a missing program.
pub fn output(command: &[&str]) -> (Option<i32>, String, String) {
    let (program, args) = command.split_first().unwrap();
    let run = Command::new(program).args(args).env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = run.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

/// Whether a process holds the abstract socket name of the port, unix(7).
pub fn is_reserved(port: u16) -> bool {
    let name = format!(" @urlproxy-port-{port}");
    fs::read_to_string("/proc/net/unix").unwrap().lines().any(|line| line.ends_with(&name))
}
