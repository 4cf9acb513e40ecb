//! The real proxylistener and its clients, and identds that reply whatever a test wants.
#![allow(dead_code, reason = "each test program uses its part of this")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType, bind, connect, socket};

/// For what is meant to happen, however busy the machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Runs the program, tells its process id, and kills it when standard input ends: when the test drops it or dies.
const SUPERVISOR: &str =
    r#"exec 3<&0; "$@" 3<&- >&2 & pid=$!; echo $pid; (read -r _ <&3; kill -9 $pid) 2>/dev/null & wait $pid"#;

/// A program that logs to standard error. Killed when dropped.
pub struct Daemon {
    supervisor: Child,
    pid: u32,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    /// Starts a command with these variables in its environment.
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

    /// Waits for a line with all these words, and returns it.
    #[track_caller]
    pub fn wait_for_line(&self, words: &[&str]) -> String {
        let find = || self.log().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned);
        let begun = Instant::now();
        loop {
            if let Some(line) = find() {
                return line;
            }
            assert!(begun.elapsed() < SOON, "still not: a line with {words:?} in\n{}", self.log());
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The address that it says in a line with this word.
    #[track_caller]
    pub fn address_in(&self, word: &str) -> SocketAddr {
        let line = self.wait_for_line(&[word, "address"]);
        let (_, rest) = line.split_once("address").expect("just found");
        let inner = |c: char| c.is_ascii_hexdigit() || ".:[]".contains(c);
        let rest = rest.trim_start_matches(|c| "=\":".contains(c));
        rest.split(|c| !inner(c)).next().and_then(|address| address.parse().ok()).expect("an address")
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends a signal: `TERM`, `INT` ...
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.pid.to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} {}", self.pid);
    }

    /// Waits for its end, and returns its exit status.
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

/// A running proxylistener of the project `tools`.
pub struct Listener {
    /// The process.
    pub daemon: Daemon,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Listener {
    /// Starts one, and waits until it listens.
    pub fn start(redis: &str, ident_port: u16, extra_args: &[&str]) -> Self {
        Self::start_with(redis, ident_port, extra_args, &[])
    }

    /// The same with these variables in its environment.
    pub fn start_with(redis: &str, ident_port: u16, extra_args: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start_at("127.0.0.1:0", redis, ident_port, extra_args, environment)
    }

    /// The same at another address.
    pub fn start_at(
        listen: &str,
        redis: &str,
        ident_port: u16,
        extra_args: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let ident_port = ident_port.to_string();
        let mut command = vec![env!("CARGO_BIN_EXE_proxylistener"), "--listen", listen, "--project", "tools"];
        command.extend(["--redis", redis, "--ident-port", &ident_port]);
        command.extend(extra_args);
        let daemon = Daemon::start(&command, environment);
        let address = daemon.address_in("listening");
        Self { daemon, address }
    }

    /// Sends bytes and returns everything that comes until the listener closes.
    #[track_caller]
    pub fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        ask(self.connect(), bytes)
    }

    /// Registers `url` for `pattern`.
    #[track_caller]
    pub fn register(&self, pattern: &str, url: &str) -> String {
        self.ask(format!("register\n{pattern}\n{url}\n"))
    }

    /// A client that says nothing yet.
    #[track_caller]
    pub fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).expect("a connection")
    }

    /// The same from another address of this machine.
    #[track_caller]
    pub fn connect_from(&self, host: Ipv4Addr) -> TcpStream {
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&socket, &SocketAddrV4::new(host, 0)).expect("a port");
        connect(&socket, &self.address).expect("a connection");
        TcpStream::from(socket)
    }
}

/// Sends bytes and returns everything that comes until the other end closes.
#[track_caller]
pub fn ask(mut client: TcpStream, bytes: impl AsRef<[u8]>) -> String {
    client.write_all(bytes.as_ref()).expect("sent");
    hear(client)
}

/// Returns everything that comes until the other end closes.
#[track_caller]
pub fn hear(mut client: TcpStream) -> String {
    client.set_read_timeout(Some(SOON)).expect("a time");
    let mut reply = String::new();
    client.read_to_string(&mut reply).expect("the other end closes in order");
    reply
}

/// What an identd is asked: the client's port, and the listener's.
pub type Ports = (u16, u16);

/// An identd for every address of this machine; `reply` has each connection after its query was read.
pub fn identd(reply: impl Fn(TcpStream, Ports) + Send + Sync + 'static) -> u16 {
    let both = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0));
    let listener = both.or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))).expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let reply = Arc::new(reply);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let reply = Arc::clone(&reply);
            thread::spawn(move || {
                let mut query = String::new();
                let mut lines = BufReader::new(stream);
                if lines.read_line(&mut query).is_err() {
                    return;
                }
                let ports = query.strip_suffix("\r\n").and_then(|query| query.split_once(" , "));
                if let Some(ports) = ports.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?))) {
                    reply(lines.into_inner(), ports);
                }
            });
        }
    });
    port
}

/// An identd that knows every connection as this user's.
pub fn identd_of(user: &'static str) -> u16 {
    identd_by(move |_| user)
}

/// An identd that knows a connection by its port on this side.
pub fn identd_by(user: impl Fn(u16) -> &'static str + Send + Sync + 'static) -> u16 {
    identd(move |mut stream, (client, ours)| {
        let user = user(client);
        let _ = stream.write_all(format!("{client} , {ours} : USERID : UNIX : {user}\r\n").as_bytes());
        let _ = stream.shutdown(Shutdown::Write);
    })
}

/// Waits for a condition.
#[track_caller]
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    wait_within(SOON, what, condition);
}

/// The same for what takes its time.
#[track_caller]
pub fn wait_within(deadline: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < deadline, "still not: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}
