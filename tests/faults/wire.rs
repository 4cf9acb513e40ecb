//! Faults of the network to Redis: silence, single bytes, corruption.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::proxy::{Mode, Proxy};
use crate::report::Report;
use crate::site::{Plan, Site};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(5);
const FEW: usize = 40;

fn behind_proxy(seed: u64) -> (Site, Proxy) {
    let redis = RedisServer::start(&[]);
    let proxy = Proxy::start(redis.port(), seed);
    let source = Some(proxy.url());
    (Site::with(redis, Plan { source, ..Plan::default() }), proxy)
}

/// Makes the companion reconnect.
fn disconnect(site: &Site) {
    site.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    site.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
}

/// Every reply arrives byte by byte, including login and scan.
pub fn byte_by_byte() -> Report {
    let (site, proxy) = behind_proxy(1);
    proxy.set(Mode::ByteByByte);
    disconnect(&site);
    site.wait_log("in step again after");
    let recovered = site.recovers();
    site.serves_on(200);
    site.finish(recovered, SOON, FEW)
}

pub fn garbage() -> Report {
    let (site, proxy) = behind_proxy(2);
    proxy.set(Mode::Garbage);
    // Pushes and replies, in every state of a connection.
    wait_for("20 corrupted replies", || {
        site.write_to(&site.redis, 0);
        proxy.corrupted() >= 20
    });
    proxy.set(Mode::Clean);
    let recovered = site.recovers();
    let corrupted = proxy.corrupted();
    site.finish(recovered, SOON, 4 * FEW).note(format!("{corrupted} corrupted replies"))
}

pub fn half_gigabyte_announced() -> Report {
    /// Most growth of a worker: the limit of a reply, and copies while its buffer grows.
    const MOST_KIB: u64 = 160 << 10;
    let (site, proxy) = behind_proxy(3);
    let largest = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", site.companion())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0").trim().to_owned();
        line.trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
    };
    let before = largest();
    proxy.set(Mode::HalfGigabyte);
    wait_for("five huge replies", || {
        site.write_to(&site.redis, 0);
        proxy.corrupted() >= 5
    });
    proxy.set(Mode::Clean);
    let recovered = site.recovers();
    let (grown, read) = (largest() - before, proxy.bytes_read() >> 20);
    site.finish(recovered, SOON, FEW)
        .note(format!("{read} MiB read, worker grew by {grown} KiB"))
        .expect(grown < MOST_KIB, format!("the worker grew by {grown} KiB"))
}

/// A network namespace for Redis, connected to ours by a pair of interfaces. The kernel removes it after the server and its
/// last connection end, which takes minutes if the link is cut.
struct Link {
    pid: String,
    ours: String,
    address: String,
}

impl Link {
    fn make(redis: &RedisServer) -> Result<Self, String> {
        let pid = redis.pid().to_string();
        // RFC 2544's networks for tests, four addresses for each process.
        let id = redis.pid() % (1 << 15);
        let net = format!("198.{}.{}.", 18 + (id >> 14), id >> 6 & 255);
        let [here, there] = [1, 2].map(|n| format!("{net}{}", (id & 63) * 4 + n));
        let link = Self { ours: format!("up{pid}"), address: there, pid };
        let ours = link.ours.as_str();
        run(&["ip", "link", "add", ours, "type", "veth", "peer", "name", "eth0", "netns", &link.pid])?;
        run(&["ip", "addr", "add", &format!("{here}/30"), "dev", ours])?;
        run(&["ip", "link", "set", ours, "up"])?;
        link.inside(&["ip", "addr", "add", &format!("{}/30", link.address), "dev", "eth0"])?;
        link.inside(&["ip", "link", "set", "eth0", "up"])?;
        Ok(link)
    }

    fn inside(&self, command: &[&str]) -> Result<(), String> {
        run(&[&["nsenter", "-t", &self.pid, "-n"], command].concat())
    }

    /// Cuts the link: both sides send to an unused MAC address.
    fn cut(&self, here: &str) -> Result<(), String> {
        let unused = ["lladdr", "02:00:00:00:00:99", "nud", "permanent"];
        run(&[&["ip", "neigh", "replace", &self.address, "dev", &self.ours], &unused[..]].concat())?;
        self.inside(&[&["ip", "neigh", "replace", here, "dev", "eth0"], &unused[..]].concat())
    }

    fn restore(&self, here: &str) -> Result<(), String> {
        run(&["ip", "neigh", "del", &self.address, "dev", &self.ours])?;
        self.inside(&["ip", "neigh", "del", here, "dev", "eth0"])
    }

    fn here(&self) -> String {
        let (net, last) = self.address.rsplit_once('.').expect("an address");
        format!("{net}.{}", last.parse::<u8>().expect("a number") - 1)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = run(&["ip", "link", "del", &self.ours]);
    }
}

fn run(command: &[&str]) -> Result<(), String> {
    let output = Command::new(command[0]).args(&command[1..]).stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(format!("{}: {}", command.join(" "), String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => Err(format!("{}: {error}", command[0])),
    }
}

/// Both ends consider their connection open, but no packets pass.
pub fn half_open() -> Report {
    if let Err(why) = run(&["unshare", "-n", "true"]) {
        return Report::needs(format_args!("a network namespace, as root ({why})"));
    }
    let redis = RedisServer::start_under(&["unshare", "-n"], &["--bind", "0.0.0.0", "--protected-mode", "no"]);
    let link = match Link::make(&redis) {
        Ok(link) => link,
        Err(why) => return Report::needs(format_args!("a pair of interfaces, as root ({why})")),
    };
    let source = Some(format!("redis://{}:{}/0", link.address, redis.port()));
    let site = Site::with(redis, Plan { source, ..Plan::default() });
    let here = link.here();
    link.cut(&here).expect("the link is cut");
    let begun = Instant::now();
    site.wait_log("; keeping existing routes");
    let noticed = begun.elapsed();
    site.serves_on(1000);
    let is_half_open = site.companions() >= 1;
    link.restore(&here).expect("the link is restored");
    let recovered = site.recovers();
    site.finish(recovered, SOON, FEW)
        .note(format!("noticed after {:.1} s", noticed.as_secs_f64()))
        .expect(is_half_open, "Redis noticed: nothing was half open")
        .expect(noticed < SOON, format!("noticed only after {noticed:?}"))
}
