//! A private Redis with as many tools, or domains, as a bench asks for.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::child;

/// Registers tool-0 and so on, all different.
const REGISTER: &str = "for i = 0, tonumber(ARGV[1]) - 1 do redis.call('HSET', 'prefix:tool-' .. i, '.*', \
    'http://10.' .. math.floor(i / 65536) .. '.' .. (math.floor(i / 256) % 256) .. '.1:' .. (1024 + i % 60000)) end";

/// The same of host-0.example.org and so on.
const MAP: &str = "for i = 0, tonumber(ARGV[1]) - 1 do redis.call('SADD', 'frontend:host-' .. i .. '.example.org', \
    'http://10.' .. math.floor(i / 65536) .. '.' .. (math.floor(i / 256) % 256) .. '.1:' .. (1024 + i % 60000)) end";

/// A Redis on a unix socket; ends with the value.
pub struct Store {
    server: Child,
    dir: TempDir,
    #[allow(dead_code, reason = "not every bench changes anything")]
    pub connection: redis::Connection,
}

impl Store {
    /// `None` without redis-server, which is said.
    pub fn filled(tools: usize) -> Option<Self> {
        let dir = tempfile::tempdir().ok()?;
        let socket = dir.path().join("redis.sock");
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--dir"]).arg(dir.path()).arg("--unixsocket").arg(&socket);
        let Ok(mut server) = child::spawn(command.stdout(Stdio::null())) else {
            println!("redis-server is not installed: skipped");
            return None;
        };
        let client = redis::Client::open(format!("unix:{}", socket.display())).ok()?;
        let connection = (0..500).find_map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            client.get_connection().ok()
        });
        let Some(mut connection) = connection else {
            let _ = server.kill();
            let _ = server.wait();
            return None;
        };
        redis::cmd("EVAL").arg(REGISTER).arg(0).arg(tools).exec(&mut connection).ok()?;
        Some(Self { server, dir, connection })
    }

    /// Adds domains.
    #[allow(dead_code, reason = "not every bench has domains")]
    pub fn map(&mut self, domains: usize) -> Option<()> {
        redis::cmd("EVAL").arg(MAP).arg(0).arg(domains).exec(&mut self.connection).ok()
    }

    /// As the companion takes it.
    pub fn url(&self) -> String {
        format!("unix:{}", self.dir.path().join("redis.sock").display())
    }

    /// How many bytes it has been sent.
    #[allow(dead_code, reason = "not every bench counts them")]
    pub fn received(&mut self) -> u64 {
        self.number_in("stats", "total_net_input_bytes:").unwrap_or(0)
    }

    /// How long its commands took.
    #[allow(dead_code, reason = "not every bench counts it")]
    pub fn worked(&mut self) -> Duration {
        let info: String = redis::cmd("INFO").arg("commandstats").query(&mut self.connection).unwrap_or_default();
        let scripts = info.lines().filter(|line| line.starts_with("cmdstat_eval"));
        let times = scripts.filter_map(|line| line.split("usec=").nth(1)?.split(',').next()?.parse::<u64>().ok());
        Duration::from_micros(times.sum())
    }

    fn number_in(&mut self, section: &str, name: &str) -> Option<u64> {
        let info: String = redis::cmd("INFO").arg(section).query(&mut self.connection).ok()?;
        info.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// A directory that ends with the store.
    #[allow(dead_code, reason = "not every bench writes files")]
    pub fn directory(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
