//! Runs a `redis-server` or `valkey-server` for one test, with its own directory, port and socket. It ends with the test, even
//! after a crash.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use tempfile::TempDir;

use crate::support::port::free_port;
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
        let (launcher, args) = (owned(launcher), owned(extra_args));
        let mut server = Self { dir, port: 0, launcher, program: program.into(), configuration, args, process: None };
        for _ in 0..10 {
            server.port = free_port();
            if server.run() {
                return server;
            }
        }
        panic!("{program} does not start:\n{}", server.log());
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

    /// `redis://127.0.0.1:<port>/0`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
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
            .args(["--logfile", "redis.log", "--dir"])
            .arg(self.dir.path())
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
