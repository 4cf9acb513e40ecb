//! Runs invisible-unicorn with its own database, and a client that sends exactly what a test wants.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rusqlite::Connection;
use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::http;
use crate::support::redis::RedisServer;
use crate::support::wait::{SOON, wait_for};

/// The program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_invisible-unicorn");

/// Backends of tests.
pub const A: &str = "http://10.0.0.1:80";
pub const B: &str = "http://10.0.0.2:8080";

/// Starts a server with an empty database and a Redis, and waits until it is ready.
pub fn start(extra_args: &[&str]) -> (Site, RedisServer, Unicorn) {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let unicorn = site.start(&redis, extra_args);
    (site, redis, unicorn)
}

/// A domain with one backend, in the form of [`Site::mappings`].
pub fn one(domain: &str, backend: &str) -> (String, Vec<String>) {
    (domain.into(), vec![backend.into()])
}

#[track_caller]
pub fn wait_until_equal(site: &Site, redis: &RedisServer) {
    wait_for("Redis matches the database", || frontends(redis) == site.mappings());
}

/// A running server.
pub struct Unicorn {
    pub daemon: Daemon,
    /// Address of the API.
    pub address: SocketAddr,
    /// Address of the metrics endpoint.
    pub status: SocketAddr,
}

/// A response of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    /// Lower-case names.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }
}

/// A directory for a database.
pub struct Site {
    dir: TempDir,
}

impl Site {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a directory") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn database(&self) -> PathBuf {
        self.path("domains.db")
    }

    /// Path of the accept file.
    pub fn accept(&self) -> PathBuf {
        self.path("accept")
    }

    /// Starts a server on the database, and waits until Redis matches it.
    pub fn start(&self, redis: &RedisServer, extra_args: &[&str]) -> Unicorn {
        let unicorn = self.launch(redis, extra_args);
        wait_for("ready", || unicorn.is_ready());
        unicorn
    }

    /// Like [`start`](Self::start), without waiting for Redis.
    pub fn launch(&self, redis: &RedisServer, extra_args: &[&str]) -> Unicorn {
        self.launch_under(&[], redis, extra_args)
    }

    /// Like [`launch`](Self::launch), run by another program.
    pub fn launch_under(&self, launcher: &[&str], redis: &RedisServer, extra_args: &[&str]) -> Unicorn {
        let (database, url) = (self.database(), redis.url());
        let guard = format!("50% floor=20 hold=120s accept={}", self.accept().display());
        let mut command: Vec<&str> = launcher.to_vec();
        command.extend([PROGRAM, "--listen", "127.0.0.1:0", "--log-level", "debug"]);
        command.extend(["--database", database.to_str().expect("UTF-8")]);
        let metrics_listen = "127.0.0.1:0";
        for (option, value) in
            [("--redis", &*url), ("--withdrawal-guard", &guard), ("--metrics-listen", metrics_listen)]
        {
            if !extra_args.contains(&option) {
                command.extend([option, value]);
            }
        }
        command.extend(extra_args);
        let daemon = Daemon::start(&command, &[]);
        let status = daemon.address_in("metrics endpoint listening");
        let address = daemon.address_in("API listening");
        Unicorn { daemon, address, status }
    }

    /// Runs a command on the database; returns exit status, standard output, standard error.
    pub fn run(&self, args: &[&str]) -> (i32, String, String) {
        run(&[&["--database", self.database().to_str().expect("UTF-8")], args].concat())
    }

    /// Opens the database in the test.
    pub fn open(&self) -> Connection {
        Connection::open(self.database()).expect("a database")
    }

    /// All mappings in the database: domain and sorted backends.
    pub fn mappings(&self) -> Vec<(String, Vec<String>)> {
        mappings_in(&self.database())
    }
}

/// All mappings of a database: domain and sorted backends.
pub fn mappings_in(path: &Path) -> Vec<(String, Vec<String>)> {
    let connection = Connection::open(path).expect("a database");
    let mut query = connection
        .prepare("SELECT d.name, b.url FROM domain d JOIN backend b ON b.domain = d.id ORDER BY d.name, b.url")
        .expect("a query");
    let rows = query.query_map([], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))).expect("rows");
    let mut mappings: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let (domain, url) = row.expect("a row");
        match mappings.last_mut() {
            Some((last, urls)) if *last == domain => urls.push(url),
            _ => mappings.push((domain, vec![url])),
        }
    }
    mappings
}

/// All mappings in Redis: domain and sorted backends.
pub fn frontends(redis: &RedisServer) -> Vec<(String, Vec<String>)> {
    const ALL: &str = "local all = {}
        for _, key in ipairs(redis.call('KEYS', 'frontend:*')) do
            local kind = redis.call('TYPE', key).ok
            local members = kind == 'set' and redis.call('SMEMBERS', key) or {kind}
            table.sort(members)
            all[#all + 1] = key:sub(10) .. ' ' .. table.concat(members, ' ')
        end
        table.sort(all)
        return all";
    let mut all: Vec<_> = redis.cli(&["EVAL", ALL, "0"]).lines().map(str::to_owned).collect();
    all.retain(|line| !line.is_empty());
    let split = |line: &String| {
        let mut words = line.split(' ').map(str::to_owned);
        (words.next().unwrap_or_default(), words.collect())
    };
    all.iter().map(split).collect()
}

/// Runs the program; returns exit status, standard output, standard error.
pub fn run(args: &[&str]) -> (i32, String, String) {
    // A program that serves by mistake must not block the test.
    let output = Command::new("timeout")
        .args(["60", PROGRAM])
        .args(args)
        .stdin(Stdio::null())
        .env_remove("URLPROXY_REDIS")
        .output();
    let output = output.expect("the program runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code().expect("an exit status"), text(output.stdout), text(output.stderr))
}

/// The body of a request.
pub fn wanted(domain: &str, backends: &[&str]) -> String {
    serde_json::json!({ "domain": domain, "backends": backends }).to_string()
}

impl Unicorn {
    /// Sends a request with these header lines.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        self.try_ask(method, path, headers, body).expect("an answer")
    }

    /// Like [`ask`](Self::ask), for a server that may be down.
    pub fn try_ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> std::io::Result<Answer> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(SOON))?;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n");
        stream.write_all(format!("{head}{headers}\r\n{body}").as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8(answer).expect("UTF-8");
        let cut_short = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut_short)?;
        let mut lines = head.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.into(), value.into()));
        Ok(Answer { status: status.ok_or_else(cut_short)?, headers: headers.collect(), body: body.into() })
    }

    /// Sends a request without headers; returns status and body.
    #[track_caller]
    pub fn say(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let answer = self.ask(method, path, &[], body);
        (answer.status, answer.body)
    }

    /// Maps a domain for a project; the answer must be 200.
    #[track_caller]
    pub fn put(&self, project: &str, domain: &str, backends: &[&str]) -> Answer {
        let answer = self.ask("PUT", &format!("/v1/{project}/mapping"), &[], &wanted(domain, backends));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    }

    pub fn is_ready(&self) -> bool {
        http::is_ready(self.status)
    }

    /// The value of a metric sample, which must exist.
    #[track_caller]
    pub fn metric(&self, sample: &str) -> f64 {
        http::metric(self.status, sample)
    }
}
