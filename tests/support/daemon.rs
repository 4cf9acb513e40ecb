//! Runs a program until the test ends, and collects its log.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::wait::{SOON, wait_for};

/// Runs the program, prints its process ID, and kills it when standard input ends: when the test drops it or dies.
const SUPERVISOR: &str =
    r#"exec 3<&0; "$@" 3<&- >&2 & pid=$!; echo $pid; (read -r _ <&3; kill -9 $pid) 2>/dev/null & wait $pid"#;

/// A running program that logs to standard error; killed when dropped.
pub struct Daemon {
    supervisor: Child,
    pid: u32,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts a command with these environment variables.
    pub fn start(command: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut supervisor = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .args(command)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("URLPROXY_REDIS")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut pid = String::new();
        BufReader::new(supervisor.stdout.take().expect("a pipe")).read_line(&mut pid).expect("the process id");
        let pid = pid.trim().parse().expect("a process id");
        let log = Arc::new(Mutex::new(String::new()));
        let mut lines = BufReader::new(supervisor.stderr.take().expect("a pipe"));
        let written = Arc::clone(&log);
        thread::spawn(move || {
            let mut line = String::new();
            while lines.read_line(&mut line).is_ok_and(|read| read > 0) {
                written.lock().unwrap().push_str(&std::mem::take(&mut line));
            }
        });
        Self { supervisor, pid, log }
    }

    /// Everything logged until now.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Waits for a log line that contains all these texts, and returns it.
    #[track_caller]
    pub fn wait_for_line(&self, words: &[&str]) -> String {
        let find = || self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned);
        let started = Instant::now();
        loop {
            if let Some(line) = find() {
                return line;
            }
            assert!(started.elapsed() < SOON, "timeout: no line with {words:?} in\n{}", self.log());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The value of the field `address` in the first log line that contains this text.
    #[track_caller]
    pub fn address_in(&self, word: &str) -> SocketAddr {
        let line = self.wait_for_line(&[word, "address"]);
        let (_, rest) = line.split_once("address").expect("just found");
        let inner = |c: char| c.is_ascii_hexdigit() || ".:[]".contains(c);
        let rest = rest.trim_start_matches(|c| "=\":".contains(c));
        rest.split(|c| !inner(c)).next().and_then(|address| address.parse().ok()).expect("an address")
    }

    /// The program's process ID.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal: `TERM`, `INT` ...
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.pid.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} {}", self.pid);
    }

    /// Waits until the program ends, and returns its exit status.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> i32 {
        let mut status = None;
        wait_for("the end of the program", || {
            status = self.supervisor.try_wait().expect("a child");
            status.is_some()
        });
        status.and_then(|status| status.code()).expect("an exit status")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let _ = self.supervisor.wait();
        if thread::panicking() {
            eprintln!("--- log\n{}", self.log());
        }
    }
}
