//! Runs nginx with the module, tools behind it and clients before it; all end with the test.

use std::fs;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::support::port::free_port;
use crate::support::wait::{SOON, wait_for};

/// The built module: `URLPROXY_MODULE`, or where `cargo build --release` puts it.
pub fn module() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/liburlproxy.so");
    let path = std::env::var_os("URLPROXY_MODULE").map_or_else(default, PathBuf::from);
    fs::canonicalize(&path).unwrap_or_else(|e| panic!("{}: {e}: run cargo build --release first", path.display()))
}

/// Runs nginx, prints its process ID, and ends it when standard input ends: when the test drops it or dies. After a binary
/// upgrade, the pid files name the masters.
const SUPERVISOR: &str = r#"exec 3<&0; cd "$1"; shift; "$@" 3<&- & pid=$!; echo $pid
(read -r _ <&3; kill -TERM $pid $(cat nginx.pid nginx.pid.oldbin 2>/dev/null) 2>/dev/null) & wait $pid"#;

/// A running nginx.
pub struct Nginx {
    dir: TempDir,
    pub port: u16,
    env: Vec<(String, String)>,
    process: Option<Child>,
    master: u32,
    is_daemon: bool,
}

impl Nginx {
    /// Starts nginx in the foreground. `@port@` in `http` stands for its port.
    pub fn start(main: &str, http: &str) -> Self {
        let nginx = Self::prepare(main, http);
        nginx.run()
    }

    /// Like [`start`](Self::start), but does not start nginx.
    pub fn prepare(main: &str, http: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let nginx = Self { dir, port: free_port(), env: Vec::new(), process: None, master: 0, is_daemon: false };
        nginx.configure(main, http);
        nginx
    }

    /// Sets an environment variable for the next start.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.push((name.to_owned(), value.to_owned()));
    }

    /// Makes nginx start as a daemon: only such a master accepts `USR2`.
    pub fn set_daemon(&mut self) {
        self.is_daemon = true;
    }

    /// The directory of the configuration and the log; tests may add files.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Writes another configuration.
    pub fn configure(&self, main: &str, http: &str) {
        let dir = self.dir.path().display();
        let block = format!(
            "http {{
                access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
                fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
                {http}
            }}"
        );
        self.configure_block(main, &block);
    }

    /// Writes another configuration, with `block` instead of an `http` block.
    pub fn configure_block(&self, main: &str, block: &str) {
        // If root starts nginx, its workers run as a user who cannot write the directory.
        let user = if is_root() { "user root;" } else { "" };
        let dir = self.dir.path().display();
        let text = format!(
            "{user} load_module {module}; {main}
            pid {dir}/nginx.pid; error_log {dir}/error.log info;
            events {{ worker_connections 1024; }}
            {block}\n",
            module = module().display(),
            block = block.replace("@port@", &self.port.to_string()),
        );
        fs::write(self.dir.path().join("nginx.conf"), text).unwrap();
    }

    pub fn run(mut self) -> Self {
        self.launch();
        self
    }

    /// Starts nginx after `prepare` or `stop`, and waits until it listens.
    pub fn launch(&mut self) {
        self.launch_until("nginx listens", |nginx| TcpStream::connect((Ipv4Addr::LOCALHOST, nginx.port)).is_ok());
    }

    /// Like [`launch`](Self::launch), with another condition to wait for.
    pub fn launch_until(&mut self, what: &str, is_up: impl Fn(&Self) -> bool) {
        let nginx = self.command(&["-g", if self.is_daemon { "daemon on;" } else { "daemon off;" }]);
        let mut process = Command::new("sh")
            .args(["-c", SUPERVISOR, "sh"])
            .arg(self.dir.path())
            .arg(nginx.get_program())
            .args(nginx.get_args())
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut pid = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut pid).unwrap();
        self.master = pid.trim().parse().unwrap();
        self.process = Some(process);
        wait_for(what, || is_up(self));
        if self.is_daemon {
            wait_for("nginx.pid", || self.pid_in("nginx.pid").is_some());
            self.adopt_master();
        }
    }

    /// Stops nginx like `nginx -s stop`, and waits until all its processes have ended.
    pub fn stop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let ours = self.processes();
        drop(process.stdin.take());
        let deadline = Instant::now() + SOON;
        while ours.iter().any(|pid| is_alive(*pid)) {
            if Instant::now() > deadline {
                let left = ours.iter().filter(|pid| is_alive(**pid)).map(u32::to_string);
                let _ = Command::new("kill").arg("-KILL").args(left).status();
            }
            thread::sleep(Duration::from_millis(1));
        }
        let _ = process.wait();
    }

    /// All masters and workers of this nginx, including those of a binary upgrade.
    fn processes(&self) -> Vec<u32> {
        let mut all: Vec<u32> = ["nginx.pid", "nginx.pid.oldbin"].into_iter().filter_map(|n| self.pid_in(n)).collect();
        all.push(self.master);
        let workers: Vec<_> = all.iter().flat_map(|&master| children(master)).collect();
        all.extend(workers);
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The process ID in a pid file: `nginx.pid`, or during a binary upgrade that of the old master, `nginx.pid.oldbin`.
    pub fn pid_in(&self, file: &str) -> Option<u32> {
        fs::read_to_string(self.dir.path().join(file)).ok()?.trim().parse().ok()
    }

    /// Takes the master from the pid file: after a start as a daemon, or a binary upgrade.
    pub fn adopt_master(&mut self) {
        self.master = self.pid_in("nginx.pid").expect("nginx.pid");
    }

    fn command(&self, args: &[&str]) -> Command {
        let path = std::env::var("TEST_NGINX_BINARY").unwrap_or_else(|_| "/usr/sbin/nginx".into());
        let mut command = Command::new(path);
        command.arg("-p").arg(self.dir.path()).arg("-c").arg("nginx.conf").arg("-e").arg("error.log").args(args);
        command.stderr(Stdio::piped());
        command
    }

    /// `nginx -t`
    pub fn check(&self) -> Output {
        self.command(&["-t"]).output().unwrap()
    }

    /// `nginx -s reload`
    pub fn reload(&self) {
        let output = self.command(&["-s", "reload"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Sends a signal to the master.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.master().to_string()]).status();
        assert!(status.is_ok_and(|s| s.success()), "kill -{name}");
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default()
    }

    pub fn master(&self) -> u32 {
        self.master
    }

    /// The master's workers, of any generation.
    pub fn workers(&self) -> Vec<u32> {
        children(self.master)
    }

    /// The worker in which the companion runs.
    pub fn companion(&self) -> Option<u32> {
        let names = |pid: &u32| -> Vec<String> {
            let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
            tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok()).collect()
        };
        self.workers().into_iter().find(|pid| names(pid).iter().any(|name| name.starts_with("urlproxy ")))
    }

    pub fn get(&self, path: &str) -> Response {
        get(self.port, path)
    }

    /// Requests a path until it is answered with this status; returns how long that took.
    #[track_caller]
    pub fn wait_for_status(&self, path: &str, status: u16) -> Duration {
        wait_for(&format!("{path} answers {status}"), || self.get(path).status == status)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.stop();
        if thread::panicking() {
            eprintln!("--- error.log\n{}", self.log());
        }
    }
}

/// Whether a process runs; zombies do not.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['Z', 'X']))
}

/// The child processes of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// A server's response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// Sends one request on its own connection; status 0 means no response.
pub fn get(port: u16, path: &str) -> Response {
    let unanswered = |error: io::Error| Response { status: 0, head: error.to_string(), body: String::new() };
    try_get(port, path, SOON).unwrap_or_else(unanswered)
}

/// Like [`get`], but returns errors.
///
/// # Errors
/// Those of the socket; `UnexpectedEof` if the connection ended before the response was complete.
pub fn try_get(port: u16, path: &str, timeout: Duration) -> io::Result<Response> {
    try_get_from(port, "test", path, timeout)
}

/// Like [`try_get`], with this `Host`.
pub fn try_get_from(port: u16, host: &str, path: &str, timeout: Duration) -> io::Result<Response> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(timeout))?;
    stream.write_all(
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: test\r\nConnection: close\r\n\r\n").as_bytes(),
    )?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").ok_or(ErrorKind::UnexpectedEof)?;
    let (head, body) = (String::from_utf8_lossy(&bytes[..end]), &bytes[end + 4..]);
    let is_chunked = head.lines().any(|line| line == "Transfer-Encoding: chunked");
    let body = if is_chunked { unchunked(body).ok_or(ErrorKind::UnexpectedEof)? } else { body.to_vec() };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    if length.and_then(|n| n.parse().ok()).is_some_and(|length: usize| body.len() < length) {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or(ErrorKind::InvalidData)?;
    Ok(Response { status, head: head.into_owned(), body: String::from_utf8_lossy(&body).into_owned() })
}

/// A body without its `chunked` coding (RFC 9112, section 7.1); `None` if it is incomplete.
fn unchunked(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        rest = &rest[end + 2..];
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..length)?);
        rest = rest.get(length + 2..)?;
    }
}

/// A tool: an HTTP server in this process that responds to every request with its name.
pub struct Tool {
    port: u16,
}

impl Tool {
    pub fn start(name: &'static str) -> Self {
        Self::listen(Ipv4Addr::LOCALHOST, move |_| name.to_owned())
    }

    /// Many tools: one server on the same port of every loopback address that responds with the requested address.
    pub fn everywhere() -> Self {
        Self::listen(Ipv4Addr::UNSPECIFIED, |stream| {
            stream.local_addr().map_or_else(|e| e.to_string(), |addr| addr.ip().to_string())
        })
    }

    fn listen(ip: Ipv4Addr, name: impl Fn(&TcpStream) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let name = name(&stream);
                thread::spawn(move || serve(stream, &name));
            }
        });
        Self { port }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

fn serve(mut stream: TcpStream, name: &str) -> std::io::Result<()> {
    let mut pending = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        let read = stream.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        pending.extend_from_slice(&chunk[..read]);
        while let Some(end) = pending.windows(4).position(|w| w == b"\r\n\r\n") {
            pending.drain(..end + 4);
            // In one write: several would wait for each other's acknowledgment.
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
            stream.write_all(answer.as_bytes())?;
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
