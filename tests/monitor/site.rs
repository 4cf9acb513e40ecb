//! The real webservicemonitor at a site of its own: tools with accounts, a scripted qstat, a scripted list.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::need::need_root;
use crate::support::program::write_program;

/// Runs a command with the file `$1` as `/etc/passwd`.
const WITH_ACCOUNTS: &str = r#"mount --make-rprivate / && mount --bind "$1" /etc/passwd && shift && exec "$@""#;
/// The uid of the first tool.
const FIRST_UID: u32 = 50_001;

/// The proxy's response to a request for its list.
#[derive(Clone, Debug)]
pub enum Answer {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// Nothing, until the client gives up.
    Silence,
}

/// A site of its own. It needs root, to act as several users.
pub struct Site {
    dir: TempDir,
    tools: Vec<String>,
    answer: Arc<Mutex<Answer>>,
    list: SocketAddr,
    /// The program.
    pub program: PathBuf,
}

impl Site {
    /// A site with these tools, each with a `lighttpd`; `None` without root, if the test may be skipped.
    #[track_caller]
    pub fn with(tools: &[&str]) -> Option<Self> {
        if !need_root() {
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("others may look in");
        fs::create_dir(dir.path().join("project")).expect("a directory");
        let answer = Arc::new(Mutex::new(Answer::Silence));
        let list = serve(Arc::clone(&answer));
        let program = env!("CARGO_BIN_EXE_webservicemonitor").into();
        let mut site = Self { dir, tools: Vec::new(), answer, list, program };
        for tool in tools {
            site.add(tool, b"web: lighttpd\nrelease: bookworm\n");
        }
        site.set_jobs(&[]);
        // Never empty: an empty list suspends the round.
        site.set_list(&["elsewhere"]);
        site.script("start", r#"echo "$@" >> "$DIR/starts""#);
        Some(site)
    }

    /// The path of a file of the test.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// [`Self::path`] as text.
    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// A tool's directory.
    pub fn home(&self, tool: &str) -> PathBuf {
        self.path("project").join(tool)
    }

    /// A tool's uid.
    pub fn uid(&self, tool: &str) -> u32 {
        let index = self.tools.iter().position(|known| known == tool).expect("a tool");
        FIRST_UID + u32::try_from(index).expect("few tools")
    }

    /// Adds a tool with this manifest.
    pub fn add(&mut self, tool: &str, manifest: &[u8]) {
        self.tools.push(tool.into());
        let home = self.home(tool);
        fs::create_dir(&home).expect("a directory");
        fs::write(home.join("service.manifest"), manifest).expect("a manifest");
        self.own(tool, &home);
        self.own(tool, &home.join("service.manifest"));
    }

    /// Makes a tool the owner of a file.
    pub fn own(&self, tool: &str, file: &Path) {
        std::os::unix::fs::lchown(file, Some(self.uid(tool)), Some(self.uid(tool))).expect("root can");
    }

    /// Makes any uid the owner of a file.
    pub fn give(&self, uid: u32, file: &Path) {
        chown(file, Some(uid), Some(uid)).expect("root can");
    }

    /// Sets the grid's jobs: a tool's `lighttpd` job, its state, and its age in seconds.
    pub fn set_jobs(&self, jobs: &[(&str, &str, u64)]) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let jobs: String = jobs.iter().map(|(tool, state, age)| job(tool, state, now - age)).collect();
        let xml = format!("<?xml version='1.0'?>\n<job_info>\n<queue_info>\n{jobs}</queue_info>\n</job_info>\n");
        self.set_qstat_output(xml.as_bytes());
    }

    /// Sets qstat's output.
    pub fn set_qstat_output(&self, output: &[u8]) {
        fs::write(self.path("qstat.xml"), output).expect("written");
        // Grid Engine prints local times.
        self.script("qstat", r#"[ "$TZ" = UTC ] && cat "$DIR/qstat.xml""#);
    }

    /// Sets the tools on the proxy's list.
    pub fn set_list(&self, tools: &[&str]) {
        self.set_answer(200, &list_of(tools));
    }

    /// Sets the status and the body of the proxy's response.
    pub fn set_answer(&self, status: u16, body: &str) {
        let head =
            format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
        self.set_bytes(Answer::Bytes([head.as_bytes(), body.as_bytes()].concat()));
    }

    /// Sets the tools on the proxy's list, and its `Age`.
    pub fn set_aged_list(&self, tools: &[&str], age: &str) {
        self.set_list(tools);
        let mut answer = self.answer.lock().unwrap();
        if let Answer::Bytes(bytes) = &mut *answer {
            let text = String::from_utf8_lossy(bytes).replacen("\r\n", &format!("\r\nAge: {age}\r\n"), 1);
            *bytes = text.into_bytes();
        }
    }

    /// Sets the raw response of the proxy.
    pub fn set_bytes(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// The port of the proxy's list.
    pub fn list_port(&self) -> u16 {
        self.list.port()
    }

    /// Writes a shell script, with the test's directory in `$DIR`.
    pub fn script(&self, name: &str, body: &str) {
        let file = self.path(name);
        // Replaced, not overwritten: it may be running.
        let new = self.path(&format!("{name}.new"));
        write_program(&new, &format!("#!/bin/sh\nDIR={}\n{body}\n", self.dir.path().display()));
        fs::rename(new, file).expect("replaced");
    }

    /// The arguments of all start commands, sorted.
    pub fn starts(&self) -> Vec<String> {
        let mut starts: Vec<_> =
            fs::read_to_string(self.path("starts")).unwrap_or_default().lines().map(str::to_owned).collect();
        starts.sort_unstable();
        starts
    }

    /// Clears [`Self::starts`].
    pub fn forget_starts(&self) {
        let _ = fs::remove_file(self.path("starts"));
    }

    /// A tool's service.log.
    pub fn service_log(&self, tool: &str) -> String {
        fs::read_to_string(self.home(tool).join("service.log")).unwrap_or_default()
    }

    /// Runs one round with these arguments added to the defaults.
    pub fn once(&self, extra_args: &[&str]) -> Ended {
        self.once_in(extra_args, &[])
    }

    /// [`Self::once`] with these variables in the environment.
    pub fn once_in(&self, extra_args: &[&str], environment: &[(&str, &str)]) -> Ended {
        let command = self.command(&[&["--once"], extra_args].concat());
        let output = Command::new("timeout")
            .arg("60")
            .args(command)
            .env_remove("URLPROXY_REDIS")
            .envs(environment.iter().copied())
            .output();
        Ended::of(output.expect("unshare runs"))
    }

    /// Starts the daemon.
    pub fn daemon(&self, extra_args: &[&str], environment: &[(&str, &str)]) -> Daemon {
        let command = self.command(extra_args);
        Daemon::start(&command.iter().map(String::as_str).collect::<Vec<_>>(), environment)
    }

    fn command(&self, extra_args: &[&str]) -> Vec<String> {
        let mut accounts = fs::read_to_string("/etc/passwd").expect("accounts");
        for tool in &self.tools {
            accounts += &format!("tools.{tool}:x:{0}:{0}::/:/bin/sh\n", self.uid(tool));
        }
        fs::write(self.path("passwd"), accounts).expect("written");
        let passwd = self.text("passwd");
        let mut command: Vec<String> =
            ["unshare", "--mount", "sh", "-c", WITH_ACCOUNTS, "sh", &passwd].map(str::to_owned).to_vec();
        command.push(self.program.display().to_string());
        let defaults = [
            ("--project", "tools".to_owned()),
            ("--distribution", "bookworm".into()),
            ("--manifests", self.text("project/*/service.manifest")),
            ("--list-url", format!("http://{}/list", self.list)),
            ("--qstat", self.text("qstat")),
            ("--start-command", format!("{} {{tool}} {{user}} {{release}} {{type}}", self.text("start"))),
            ("--state", self.text("state")),
            ("--accept-file", self.text("accept")),
        ];
        for (option, value) in defaults {
            if !extra_args.contains(&option) {
                command.extend([option.to_owned(), value]);
            }
        }
        command.extend(extra_args.iter().map(|arg| (*arg).to_owned()));
        command
    }
}

/// The result of a round.
pub struct Ended {
    /// The exit status.
    pub status: i32,
    /// Standard output.
    pub printed: String,
    /// Standard error.
    pub log: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { status: output.status.code().unwrap_or(-1), printed: text(output.stdout), log: text(output.stderr) }
    }

    /// The cells of a tool's row in the table of a dry run.
    #[track_caller]
    pub fn line(&self, tool: &str) -> Vec<String> {
        let line = self.printed.lines().find(|line| line.split_whitespace().next() == Some(tool));
        let line = line.unwrap_or_else(|| panic!("no {tool} in\n{}{}", self.printed, self.log));
        line.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    }
}

fn job(tool: &str, state: &str, start: u64) -> String {
    let time = jiff::Timestamp::from_second(start.try_into().expect("a time")).expect("a time");
    let time = time.strftime("%Y-%m-%dT%H:%M:%S");
    let group = if state.contains('q') { "pending" } else { "running" };
    let when = if state.contains('q') { "JB_submission_time" } else { "JAT_start_time" };
    format!(
        "<job_list state=\"{group}\"><JB_job_number>1</JB_job_number><JB_name>lighttpd-{tool}</JB_name>\
         <JB_owner>tools.{tool}</JB_owner><state>{state}</state><{when}>{time}</{when}></job_list>\n"
    )
}

fn serve(answer: Arc<Mutex<Answer>>) -> SocketAddr {
    // Every local address serves the list.
    let port = serve_at(Ipv4Addr::UNSPECIFIED, 0, move || answer.lock().unwrap().clone());
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Answers each connection; returns the port.
fn serve_at(host: Ipv4Addr, port: u16, answer: impl Fn() -> Answer + Send + 'static) -> u16 {
    let listener = TcpListener::bind((host, port)).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer();
            thread::spawn(move || reply(stream, &answer));
        }
    });
    port
}

/// One of several proxies, with an answer of its own.
pub struct Proxy {
    pub port: u16,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
}

impl Proxy {
    pub fn start(host: Ipv4Addr, port: u16) -> Self {
        let (answer, asked) = (Arc::new(Mutex::new(Answer::Silence)), Arc::new(AtomicUsize::new(0)));
        let (current, counter) = (Arc::clone(&answer), Arc::clone(&asked));
        let port = serve_at(host, port, move || {
            counter.fetch_add(1, SeqCst);
            current.lock().unwrap().clone()
        });
        Self { port, answer, asked }
    }

    pub fn set(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// Sets the tools on the list, and its `Age`.
    pub fn set_list(&self, tools: &[&str], age: &str) {
        let body = list_of(tools);
        let head = format!("HTTP/1.1 200 OK\r\nAge: {age}\r\nContent-Length: {}\r\n\r\n", body.len());
        self.set(Answer::Bytes([head.as_bytes(), body.as_bytes()].concat()));
    }

    /// The number of requests so far.
    pub fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

fn list_of(tools: &[&str]) -> String {
    let entries: Vec<_> = tools.iter().map(|tool| format!("\"{tool}\":{{\"status\":\"active\"}}")).collect();
    format!("{{{}}}", entries.join(","))
}

fn reply(mut stream: TcpStream, answer: &Answer) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => request.push(byte[0]),
            _ => return,
        }
    }
    match answer {
        Answer::Bytes(bytes) => {
            assert!(request.starts_with(b"GET /list HTTP/1.1\r\n"));
            let _ = stream.write_all(bytes);
        }
        // Until the client gives up.
        Answer::Silence => {
            let _ = stream.read(&mut byte);
        }
    }
}
