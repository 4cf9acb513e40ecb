//! Runs a `redis-server` or `valkey-server` for one test, with its own directory, port and socket. It ends with the test, even
//! after a crash.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

use crate::support::port::free_port;
use crate::support::sentinel::{FakeSentinel, sentinel_configuration};
use crate::support::source::Source;
use crate::support::tls::{certify, tls_args};
use crate::support::wait::SOON;

/// Runs the server, prints its process ID, and kills it when standard input ends: when the test drops it or dies.
const SUPERVISOR: &str = r#"exec 3<&0; "$@" 3<&- >&2 & pid=$!; echo $pid; (read -r _ <&3; kill -9 $pid) & wait $pid"#;

/// Variable with another program than `redis-server`, such as `valkey-server`.
const PROGRAM: &str = "URLPROXY_TEST_SERVER";

/// A running server; killed when dropped.
pub struct RedisServer {
    dir: TempDir,
    port: u16,
    launcher: Vec<String>,
    program: String,
    configuration: Option<PathBuf>,
    args: Vec<String>,
    process: Option<(Child, u32)>,
    /// With a source over TLS.
    tls_port: Option<u16>,
    /// Started by the first [`RedisServer::url`] that needs it.
    sentinel: OnceLock<Sentinel>,
}

/// A Sentinel beside a server.
enum Sentinel {
    Fake(FakeSentinel),
    /// With its TLS port.
    Real(Box<RedisServer>, u16),
}

impl RedisServer {
    /// Starts a server on a free port of 127.0.0.1 and on a unix socket, without persistence unless `extra_args` enable it, and
    /// waits until it answers.
    pub fn start(extra_args: &[&str]) -> Self {
        Self::start_with(None, extra_args)
    }

    /// Like [`start`](Self::start), with a configuration file of this content.
    pub fn start_with(configuration: Option<&str>, extra_args: &[&str]) -> Self {
        let program = std::env::var(PROGRAM).unwrap_or_else(|_| "redis-server".into());
        Self::start_program(&program, configuration, extra_args)
    }

    /// Like [`start_with`](Self::start_with), with another program.
    pub fn start_program(program: &str, configuration: Option<&str>, extra_args: &[&str]) -> Self {
        Self::launch(&[], program, configuration, extra_args)
    }

    /// Like [`start`](Self::start), run by another program that executes the server, e.g. `unshare -n`.
    pub fn start_under(launcher: &[&str], extra_args: &[&str]) -> Self {
        Self::launch(launcher, "redis-server", None, extra_args)
    }

    fn launch(launcher: &[&str], program: &str, configuration: Option<&str>, extra_args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let configuration = configuration.map(|content| {
            let file = dir.path().join("redis.conf");
            fs::write(&file, content).expect("a configuration file");
            file
        });
        let owned = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect();
        let (launcher, mut args): (Vec<_>, Vec<_>) = (owned(launcher), owned(extra_args));
        // A Sentinel, and a server of a test about TLS, gets its TLS from `extra_args`.
        let has_own = extra_args.iter().any(|arg| ["--sentinel", "--tls-port"].contains(arg));
        let tls_port = (Source::of_tests().is_tls() && !has_own).then(free_port);
        if let Some(tls_port) = tls_port {
            certify(dir.path(), "IP:127.0.0.1,DNS:localhost");
            args.extend(tls_args(dir.path(), tls_port));
        }
        let (program, process, sentinel) = (program.into(), None, OnceLock::new());
        let mut server = Self { dir, port: 0, launcher, program, configuration, args, process, tls_port, sentinel };
        for _ in 0..10 {
            server.port = free_port();
            if server.run() {
                return server;
            }
        }
        panic!("{} does not start:\n{}", server.program, server.log());
    }

    /// Whether this is Redis 6, which has fewer rights, options and statistics.
    pub fn is_6(&self) -> bool {
        self.cli(&["INFO", "server"]).contains("redis_version:6.")
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }

    /// The server's working directory; tests may add files.
    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// The URL for daemons, of the kind that `URLPROXY_TEST_SOURCE` asks for.
    pub fn url(&self) -> String {
        let (scheme, reach) = (Source::of_tests().scheme(), self.reach());
        let parameters = if self.tls_port.is_some() {
            let file = |name: &str| self.dir.path().join(name).display().to_string();
            format!("?ca={}&cert={}&key={}", file("ca.pem"), file("cert.pem"), file("key.pem"))
        } else {
            String::new()
        };
        format!("{scheme}://{reach}/0{parameters}")
    }

    /// `redis://127.0.0.1:<port>/0`.
    pub fn plain_url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// The port that daemons connect to.
    pub fn source_port(&self) -> u16 {
        self.tls_port.unwrap_or(self.port)
    }

    /// The address in [`RedisServer::url`], as daemons log it.
    pub fn reach(&self) -> String {
        let named = self.source_port();
        if !Source::of_tests().has_sentinels() {
            return format!("127.0.0.1:{named}");
        }
        let sentinel = self.sentinel.get_or_init(|| match self.tls_port {
            None => Sentinel::Fake(FakeSentinel::start("127.0.0.1", named)),
            Some(tls_port) => {
                let port = free_port();
                let args = tls_args(self.dir.path(), port);
                let args: Vec<_> =
                    args.iter().map(String::as_str).chain(["--tls-replication", "yes", "--sentinel"]).collect();
                let configuration = sentinel_configuration(tls_port, 1, "");
                Sentinel::Real(Box::new(Self::start_with(Some(&configuration), &args)), port)
            }
        });
        let port = match sentinel {
            Sentinel::Fake(sentinel) => sentinel.port,
            Sentinel::Real(_, port) => *port,
        };
        format!("127.0.0.1:{port}/mymaster")
    }

    /// Creates a user by a documented `ACL SETUSER` line; with Sentinels, its documented addition.
    #[track_caller]
    pub fn create_user(&self, line: &str) {
        let mut words: Vec<_> = line.split_whitespace().collect();
        if Source::of_tests().has_sentinels() {
            words.push("+role");
        }
        assert_eq!(self.cli(&words), "OK");
    }

    /// Runs a command with redis-cli over the unix socket; returns its output without the last line end.
    pub fn cli(&self, args: &[&str]) -> String {
        let output = self.redis_cli(args);
        String::from_utf8_lossy(&output).trim_end().to_owned()
    }

    /// The server's process ID.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").1
    }

    /// Sends a signal to the server: `STOP`, `CONT`, `KILL` ...
    pub fn signal(&self, name: &str) {
        let pid = self.pid();
        let status = Command::new("kill").args([format!("-{name}"), pid.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} {pid}");
    }

    /// Kills the server with SIGKILL and waits for its end; does nothing if it does not run.
    pub fn stop(&mut self) {
        let Some((mut process, _)) = self.process.take() else { return };
        drop(process.stdin.take());
        process.wait().expect("the supervisor ends");
    }

    /// Adds arguments for the next start.
    pub fn add_args(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(|arg| (*arg).to_owned()));
    }

    /// Restarts a stopped server with the same port and directory, and waits until it has loaded its data.
    pub fn start_again(&mut self) {
        self.start_loading();
        while self.cli(&["PING"]).starts_with("LOADING") {
            thread::yield_now();
        }
    }

    /// Like [`start_again`](Self::start_again), but returns as soon as the server answers anything.
    pub fn start_loading(&mut self) {
        assert!(self.process.is_none(), "the server still runs");
        assert!(self.run(), "{} does not start again:\n{}", self.program, self.log());
    }

    /// The server's log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("redis.log")).unwrap_or_default()
    }

    /// Starts the process; false if it ends instead of answering, e.g. because its port is taken.
    fn run(&mut self) -> bool {
        let _ = fs::remove_file(self.socket());
        let mut process = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .args(&self.launcher)
            .arg(&self.program)
            .args(&self.configuration)
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--port", &self.port.to_string()])
            .arg("--unixsocket")
            .arg(self.socket())
            // Redis 6 opens the log first if that comes first.
            .arg("--dir")
            .arg(self.dir.path())
            .args(["--logfile", "redis.log"])
            .args(&self.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        let mut pid = String::new();
        let stdout = process.stdout.take().expect("a pipe");
        BufReader::new(stdout).read_line(&mut pid).expect("the process id");
        self.process = Some((process, pid.trim().parse().expect("a process id")));
        let deadline = Instant::now() + SOON;
        while Instant::now() < deadline {
            // NOAUTH: the server has a password and is up. LOADING: it is up and reads its file.
            let answer = String::from_utf8_lossy(&self.redis_cli(&["PING"])).into_owned();
            if ["PONG", "NOAUTH", "LOADING"].iter().any(|word| answer.starts_with(word)) {
                return true;
            }
            let (process, _) = self.process.as_mut().expect("just started");
            if process.try_wait().is_ok_and(|status| status.is_some()) {
                break;
            }
            thread::yield_now();
        }
        self.stop();
        false
    }

    fn redis_cli(&self, args: &[&str]) -> Vec<u8> {
        let mut command = Command::new("redis-cli");
        command.arg("-s").arg(self.socket()).args(args).stdin(Stdio::null()).env_remove("REDISCLI_AUTH");
        command.output().expect("redis-cli runs").stdout
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}
