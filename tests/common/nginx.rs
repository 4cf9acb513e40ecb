//! A real nginx with the module, real tools behind it, and clients before it; all gone when the test is.
#![allow(dead_code, reason = "each test program uses its part of this")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// So long anything may take that is to happen at all.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// The built module: `URLPROXY_MODULE`, or where `cargo build --release` puts it.
pub fn module() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/release/liburlproxy.so");
    let path = std::env::var_os("URLPROXY_MODULE").map_or_else(default, PathBuf::from);
    fs::canonicalize(&path).unwrap_or_else(|e| panic!("{}: {e}: run cargo build --release first", path.display()))
}

/// A running nginx.
pub struct Nginx {
    dir: TempDir,
    pub port: u16,
    process: Option<Child>,
}

impl Nginx {
    /// Starts nginx in the foreground. In `http`, `@port@` stands for the port it is to listen on.
    pub fn start(main: &str, http: &str) -> Self {
        let nginx = Self::prepare(main, http);
        nginx.run()
    }

    /// The same, without the start.
    pub fn prepare(main: &str, http: &str) -> Self {
        let nginx = Self { dir: tempfile::tempdir().unwrap(), port: free_port(), process: None };
        nginx.configure(main, http);
        nginx
    }

    /// Writes another configuration.
    pub fn configure(&self, main: &str, http: &str) {
        // As root, workers run as somebody who can't write the directory.
        let user = if is_root() { "user root;" } else { "" };
        let dir = self.dir.path().display();
        let text = format!(
            "{user} load_module {module}; {main}
            pid {dir}/nginx.pid; error_log {dir}/error.log info;
            events {{ worker_connections 1024; }}
            http {{
                access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;
                fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
                {http}
            }}\n",
            module = module().display(),
            http = http.replace("@port@", &self.port.to_string()),
        );
        fs::write(self.dir.path().join("nginx.conf"), text).unwrap();
    }

    pub fn run(mut self) -> Self {
        let process = self.command(&["-g", "daemon off;"]).stdin(Stdio::null()).spawn().unwrap();
        self.process = Some(process);
        let port = self.port;
        wait_for("nginx listens", || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok());
        self
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
        self.process.as_ref().unwrap().id()
    }

    /// The processes that the master has, whatever generation.
    pub fn workers(&self) -> Vec<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.master());
        fs::read_to_string(children).unwrap_or_default().split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    pub fn get(&self, path: &str) -> Response {
        get(self.port, path)
    }

    /// Asks for a path until it is answered with this status; how long that took.
    #[track_caller]
    pub fn wait_for_status(&self, path: &str, status: u16) -> Duration {
        wait_for(&format!("{path} answers {status}"), || self.get(path).status == status)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        let _ = Command::new("kill").args(["-TERM", &process.id().to_string()]).status();
        let deadline = Instant::now() + Duration::from_secs(5);
        while process.try_wait().is_ok_and(|s| s.is_none()) {
            if Instant::now() > deadline {
                let _ = process.kill();
            }
            thread::yield_now();
        }
        if thread::panicking() {
            eprintln!("--- error.log\n{}", self.log());
        }
    }
}

/// What a server answered.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

/// One request on a connection of its own; status 0 when it was not answered.
pub fn get(port: u16, path: &str) -> Response {
    let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    let exchange = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.write_all(request.as_bytes())?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let text = exchange().unwrap_or_default();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Response { status, head: head.to_owned(), body: body.to_owned() }
}

/// A tool: an HTTP server in this process that answers every request with its name.
pub struct Tool {
    addr: SocketAddr,
}

impl Tool {
    pub fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || serve(stream, name));
            }
        });
        Self { addr }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
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
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())?;
        }
    }
}

/// wrk under way; each request on a connection of its own, because a server may close an idle one at any time.
pub struct Load {
    process: Child,
}

/// What wrk counted.
#[derive(Debug)]
pub struct LoadReport {
    pub requests: u64,
    pub failed: u64,
    pub text: String,
}

impl Load {
    /// Until [`Self::finish`], or two minutes at most.
    pub fn start(port: u16, path: &str) -> Self {
        let process = Command::new("wrk")
            .args(["-t1", "-c16", "--timeout", "10s", "-H", "Connection: close", "-d120s"])
            .arg(format!("http://127.0.0.1:{port}{path}"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("wrk runs");
        Self { process }
    }

    pub fn is_running(&mut self) -> bool {
        self.process.try_wait().is_ok_and(|s| s.is_none())
    }

    /// Ends the load; wrk reports what it has done so far.
    pub fn finish(self) -> LoadReport {
        let _ = Command::new("kill").args(["-INT", &self.process.id().to_string()]).status();
        let output = self.process.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let number = |word: &str| word.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap_or(0);
        let line = |start: &str| text.lines().map(str::trim).find(|l| l.contains(start)).unwrap_or_default();
        let requests = number(line(" requests in ").split(' ').next().unwrap_or_default());
        let errors: u64 = line("Socket errors:").split(',').map(number).sum();
        let failed = errors + number(line("Non-2xx or 3xx responses:"));
        LoadReport { requests, failed, text }
    }
}

#[track_caller]
pub fn wait_for(what: &str, condition: impl Fn() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "still not: {what}");
        thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

/// A port that was free a moment ago, below those the kernel gives to clients.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 10_000 + (std::process::id() % 400) as u16 * 50;
    loop {
        let port = start + NEXT.fetch_add(1, Relaxed) % 50;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
