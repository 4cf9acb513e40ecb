//! A Redis on a port of its own that can be stopped and started again with its data.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::child;

/// Registers tool-0 and so on, all different.
const REGISTER: &str = "for i = tonumber(ARGV[1]), tonumber(ARGV[2]) - 1 do redis.call('HSET', 'prefix:tool-' .. i, '.*', \
    'http://10.' .. math.floor(i / 65536) .. '.' .. (math.floor(i / 256) % 256) .. '.1:' .. (1024 + i % 60000)) end";
/// Tools per call of the script.
const BATCH: usize = 10_000;

/// Ends with the value.
pub struct Server {
    child: Child,
    port: u16,
    args: Vec<String>,
    dir: TempDir,
    pub connection: redis::Connection,
}

impl Server {
    /// `None` without redis-server, which is said.
    pub fn start(args: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let port = free_port();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let Some(child) = spawn(port, &dir, &args) else {
            println!("redis-server is not installed: skipped");
            return None;
        };
        let connection = connect(port);
        Some(Self { child, port, args, dir, connection })
    }

    pub fn fill(&mut self, tools: usize) {
        for first in (0..tools).step_by(BATCH) {
            let last = (first + BATCH).min(tools);
            let done = redis::cmd("EVAL").arg(REGISTER).arg(0).arg(first).arg(last).exec(&mut self.connection);
            done.unwrap_or_else(|e| panic!("{e}"));
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Another connection.
    pub fn connect(&self) -> redis::Connection {
        connect(self.port)
    }

    /// Stops it and starts it again with its data; returns once it answers.
    pub fn restart(&mut self) {
        redis::cmd("SAVE").exec(&mut self.connection).unwrap_or_else(|e| panic!("{e}"));
        self.stop();
        self.child = spawn(self.port, &self.dir, &self.args).unwrap_or_else(|| panic!("redis-server does not start"));
        self.connection = connect(self.port);
    }

    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    fn info(&mut self, section: &str, name: &str) -> Option<String> {
        let info: String = redis::cmd("INFO").arg(section).query(&mut self.connection).ok()?;
        info.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    }

    /// A number in INFO.
    pub fn number(&mut self, section: &str, name: &str) -> f64 {
        let value = self.info(section, name).and_then(|value| value.parse().ok());
        value.unwrap_or_else(|| panic!("no {name} in INFO {section}"))
    }

    /// Time on a processor until now, in seconds.
    pub fn cpu_seconds(&mut self) -> f64 {
        self.number("cpu", "used_cpu_user") + self.number("cpu", "used_cpu_sys")
    }

    /// A replica of it that has a copy of all data.
    pub fn replica(&self) -> Option<Self> {
        let mut replica = Self::start(&["--replicaof", "127.0.0.1", &self.port.to_string()])?;
        while replica.info("replication", "master_link_status").as_deref() != Some("up") {
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(replica)
    }

    fn is_master(&mut self) -> bool {
        // The Sentinel closes all connections of a server that it promotes.
        self.connection = connect(self.port);
        self.info("replication", "role").as_deref() == Some("master")
    }

    /// Closes these connections.
    pub fn disconnect(&mut self, ids: &[i64]) {
        let mut kills = redis::pipe();
        ids.iter().for_each(|id| _ = kills.cmd("CLIENT").arg("KILL").arg("ID").arg(*id).ignore());
        kills.exec(&mut self.connection).unwrap_or_else(|e| panic!("{e}"));
    }

    /// The ids of the companions' connections.
    pub fn companions(&mut self) -> Vec<i64> {
        let list: String =
            redis::cmd("CLIENT").arg("LIST").query(&mut self.connection).unwrap_or_else(|e| panic!("{e}"));
        let lines = list.lines().filter(|line| line.contains(" name=urlproxy "));
        lines.filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap_or_else(|e| panic!("{e}"));
    listener.local_addr().unwrap_or_else(|e| panic!("{e}")).port()
}

fn spawn(port: u16, dir: &TempDir, args: &[String]) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--save", "", "--maxclients", "4000", "--dir"]).arg(dir.path());
    child::spawn(command.args(args).stdout(Stdio::null())).ok()
}

/// Waits until the server answers and has loaded its data.
fn connect(port: u16) -> redis::Connection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/0")).unwrap_or_else(|e| panic!("{e}"));
    let begun = Instant::now();
    loop {
        if let Ok(mut connection) = client.get_connection()
            && redis::cmd("DBSIZE").exec(&mut connection).is_ok()
        {
            return connection;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "redis-server does not answer");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A Sentinel that watches one master as `mymaster`; ends with the value.
pub struct Sentinel {
    child: Child,
    port: u16,
    _dir: TempDir,
    connection: redis::Connection,
}

impl Sentinel {
    pub fn start(master: &Server) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
        let (file, port) = (dir.path().join("sentinel.conf"), free_port());
        let text = format!("port {port}\nmaxclients 4000\nsentinel monitor mymaster 127.0.0.1 {} 1\n", master.port);
        std::fs::write(&file, text).unwrap_or_else(|e| panic!("{e}"));
        let mut command = Command::new("redis-server");
        let child = child::spawn(command.arg(&file).arg("--sentinel").stdout(Stdio::null())).ok()?;
        let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).unwrap_or_else(|e| panic!("{e}"));
        let connection = (0..1000).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            client.get_connection().ok()
        });
        Some(Self { child, port, _dir: dir, connection: connection? })
    }

    pub fn url(&self) -> String {
        format!("sentinel://127.0.0.1:{}/mymaster/0", self.port)
    }

    /// Promotes the replica; returns once it is the master.
    pub fn fail_over_to(&mut self, replica: &mut Server) {
        let begun = Instant::now();
        while !replica.is_master() {
            // Refused until the Sentinel has found the replica, and while it promotes it.
            let _: redis::RedisResult<()> =
                redis::cmd("SENTINEL").arg("FAILOVER").arg("mymaster").exec(&mut self.connection);
            assert!(begun.elapsed() < Duration::from_secs(60), "the Sentinel does not promote the replica");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
