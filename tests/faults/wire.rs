//! What the network can do between Redis and us: fall silent, dribble, lie.

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

/// Makes the companion connect anew.
fn disconnect(site: &Site) {
    site.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    site.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
}

/// Every reply comes in pieces of one byte, the login and the comparison too.
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
    // Pushes and replies both, in every state of a connection.
    wait_for("a lot of it", || {
        site.write_to(&site.redis, 0);
        proxy.spoilt() >= 20
    });
    proxy.set(Mode::Clean);
    let recovered = site.recovers();
    let spoilt = proxy.spoilt();
    site.finish(recovered, SOON, 4 * FEW).note(format!("{spoilt} times"))
}

pub fn half_gigabyte_announced() -> Report {
    /// What a worker may take for it: the limit of a reply, and the copies while its buffer grows.
    const MOST_KIB: u64 = 160 << 10;
    let (site, proxy) = behind_proxy(3);
    let largest = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", site.companion())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0").trim().to_owned();
        line.trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
    };
    let before = largest();
    proxy.set(Mode::HalfGigabyte);
    wait_for("some of them", || {
        site.write_to(&site.redis, 0);
        proxy.spoilt() >= 5
    });
    proxy.set(Mode::Clean);
    let recovered = site.recovers();
    let (grown, taken) = (largest() - before, proxy.taken() >> 20);
    site.finish(recovered, SOON, FEW)
        .note(format!("{taken} MiB taken, worker grew by {grown} KiB"))
        .expect(grown < MOST_KIB, format!("the worker grew by {grown} KiB"))
}

/// A network of its own for Redis, joined to ours by a pair of interfaces. It vanishes once the server and the last of its
/// connections have, which can take minutes when they cannot say goodbye.
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

    /// From now on what either side sends goes to a card that nobody has.
    fn cut(&self, here: &str) -> Result<(), String> {
        let nobody = ["lladdr", "02:00:00:00:00:99", "nud", "permanent"];
        run(&[&["ip", "neigh", "replace", &self.address, "dev", &self.ours], &nobody[..]].concat())?;
        self.inside(&[&["ip", "neigh", "replace", here, "dev", "eth0"], &nobody[..]].concat())
    }

    fn mend(&self, here: &str) -> Result<(), String> {
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

/// Both ends believe in their connection, and nothing passes any more.
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
    link.cut(&here).expect("no way any more");
    let begun = Instant::now();
    site.wait_log("the table serves on");
    let noticed = begun.elapsed();
    site.serves_on(1000);
    let is_half_open = site.companions() >= 1;
    link.mend(&here).expect("a way again");
    let recovered = site.recovers();
    site.finish(recovered, SOON, FEW)
        .note(format!("noticed after {:.1} s", noticed.as_secs_f64()))
        .expect(is_half_open, "Redis noticed: nothing was half open")
        .expect(noticed < SOON, format!("noticed only after {noticed:?}"))
}
