//! Faults of Redis: it dies, hangs, loses its data, changes it all at once, or refuses the companion.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use redis::cmd;

use crate::report::Report;
use crate::site::{Plan, Site};
use crate::support::redis::RedisServer;
use crate::support::sentinel::start_sentinel;
use crate::support::wait::{wait_for, wait_within};

/// All writes survive a kill.
const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];
/// A change is served within this time after the fault: one backoff, a login and a scan.
const SOON: Duration = Duration::from_secs(3);
/// Most log lines of a start and an outage of some seconds.
const FEW: usize = 40;

/// Finishes a fault with one outage: one warning, and one notice at its end.
fn finish_outage(site: Site, recovered: Duration) -> Report {
    // The worker writes the companion's lines with a delay.
    site.wait_log("in step again after");
    let log = site.nginx.log();
    let count = |level: &str, text: &str| log.lines().filter(|l| l.contains(level) && l.contains(text)).count();
    let (begun, over) = (count("[warn]", "; keeping existing routes"), count("[notice]", "in step again after"));
    let report = site.finish(recovered, SOON, FEW);
    report.expect((begun, over) == (1, 1), format!("{begun} warnings and {over} all-clears for one outage"))
}

pub fn killed() -> Report {
    let mut site = Site::start(DURABLE);
    site.redis.stop();
    site.wait_log("; keeping existing routes");
    site.serves_on(600);
    site.redis.start_again();
    let recovered = site.recovers();
    finish_outage(site, recovered)
}

pub fn stopped_for_30_seconds() -> Report {
    let site = Site::start(&[]);
    site.redis.signal("STOP");
    thread::sleep(Duration::from_secs(30));
    site.redis.signal("CONT");
    let recovered = site.recovers();
    finish_outage(site, recovered)
}

/// The withdrawal guard keeps the old routes; new ones are served nevertheless.
pub fn restarted_empty() -> Report {
    let mut site = Site::start(&[]);
    site.redis.stop();
    site.redis.start_again();
    site.wait_companion();
    site.serves_on(600);
    let recovered = site.recovers();
    site.finish(recovered, SOON, FEW)
}

pub fn restarted_with_other_data() -> Report {
    let mut site = Site::start(&[]);
    let other = RedisServer::start(&[]);
    let generation = site.write_to(&other, 0);
    other.cli(&["SAVE"]);
    site.redis.stop();
    fs::copy(other.dir().join("dump.rdb"), site.redis.dir().join("dump.rdb")).expect("the other data");
    site.redis.start_again();
    let begun = Instant::now();
    site.wait_served(generation);
    let recovered = begun.elapsed();
    site.recovers();
    site.finish(recovered, SOON, FEW)
}

pub fn flushed() -> Report {
    let site = Site::start(&[]);
    site.redis.cli(&["FLUSHALL"]);
    site.serves_on(600);
    let recovered = site.recovers();
    site.finish(recovered, SOON, FEW)
}

/// SWAPDB sends no pushes: only a resync finds it.
fn with_frequent_resyncs() -> Site {
    Site::with(RedisServer::start(&[]), Plan { table: "resync_interval 1s;".to_owned(), ..Plan::default() })
}

pub fn swapped_with_other_data() -> Report {
    let site = with_frequent_resyncs();
    let generation = site.write_to(&site.redis, 1);
    let begun = Instant::now();
    site.redis.cli(&["SWAPDB", "0", "1"]);
    site.wait_served(generation);
    let recovered = begun.elapsed();
    site.recovers();
    site.finish(recovered, SOON, FEW)
}

pub fn swapped_with_empty() -> Report {
    let site = with_frequent_resyncs();
    site.redis.cli(&["SWAPDB", "0", "1"]);
    // More than one resync.
    site.serves_on(800);
    let recovered = site.recovers();
    site.finish(recovered, SOON, FEW)
}

/// While a server loads its file, it allows tracking but not reading.
pub fn loading() -> Report {
    let mut site = Site::start(&[]);
    site.redis.cli(&["EVAL", "for i = 1, 200 do redis.call('SET', 'other:' .. i, string.rep('x', 1000)) end", "0"]);
    site.redis.cli(&["SAVE"]);
    site.redis.stop();
    site.redis.add_args(&["--key-load-delay", "15000", "--loading-process-events-interval-bytes", "1024"]);
    site.redis.start_loading();
    let begun = Instant::now();
    site.wait_log("LOADING");
    wait_for("loaded", || site.redis.cli(&["INFO", "persistence"]).contains("\nloading:0"));
    let loading = begun.elapsed();
    let recovered = site.recovers();
    finish_outage(site, recovered).note(format!("loading for {:.1} s", loading.as_secs_f64()))
}

pub fn out_of_clients() -> Report {
    let site = Site::start(&[]);
    let client = redis::Client::open(site.redis.url()).expect("an address");
    let mut operator = client.get_connection().expect("a connection");
    // Existing clients stay, new ones are refused: one outage, not several.
    let _: () = cmd("CONFIG").arg("SET").arg("maxclients").arg(1).query(&mut operator).expect("maxclients");
    let list: String = cmd("CLIENT").arg("LIST").query(&mut operator).expect("CLIENT LIST");
    let companion = list.lines().find(|line| line.contains("name=urlproxy ")).expect("the companion's connection");
    let id = companion.split(' ').next().and_then(|id| id.strip_prefix("id=")).expect("an id");
    let _: i64 = cmd("CLIENT").arg("KILL").arg("ID").arg(id).query(&mut operator).expect("CLIENT KILL");
    site.wait_log("max number of clients reached");
    site.serves_on(600);
    let _: () = cmd("CONFIG").arg("SET").arg("maxclients").arg(10_000).query(&mut operator).expect("maxclients");
    let recovered = site.recovers();
    finish_outage(site, recovered)
}

/// Revokes first the commands, then the password and the connection.
pub fn access_revoked() -> Report {
    let redis = RedisServer::start(&[]);
    let allow = || redis.cli(&["ACL", "SETUSER", "companion", "reset", "on", ">secret", "~prefix:*", "+@all"]);
    allow();
    let source = format!("redis://companion:secret@127.0.0.1:{}/0", redis.port());
    let site = Site::with(redis, Plan { source: Some(source), ..Plan::default() });
    let redis = &site.redis;
    redis.cli(&["ACL", "SETUSER", "companion", "-@all"]);
    site.wait_log("NOPERM");
    site.serves_on(200);
    redis.cli(&["ACL", "SETUSER", "companion", "reset", "on", ">other", "~prefix:*", "+@all"]);
    redis.cli(&["CLIENT", "KILL", "USER", "companion"]);
    site.wait_log("WRONGPASS");
    site.serves_on(600);
    redis.cli(&["ACL", "SETUSER", "companion", "resetpass", ">secret"]);
    let recovered = site.recovers();
    let log = site.nginx.log();
    finish_outage(site, recovered).expect(!log.contains("secret"), "the password is in the log")
}

/// Three Sentinels, of which one dies before the failover; the old master returns as a master.
pub fn failed_over_by_sentinel() -> Report {
    /// Sentinels discover each other within one to ten seconds.
    const DISCOVERY: Duration = Duration::from_secs(40);
    let master = RedisServer::start(&[]);
    let replica = RedisServer::start(&["--replicaof", &format!("127.0.0.1 {}", master.port())]);
    let mut sentinels: Vec<_> =
        (0..3).map(|_| start_sentinel(master.port(), 2, "sentinel down-after-milliseconds mymaster 500")).collect();
    let addresses: Vec<_> = sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port())).collect();
    let source = format!("sentinel://{}/mymaster/0", addresses.join(","));
    let site = Site::with(master, Plan { source: Some(source), ..Plan::default() });
    for sentinel in &sentinels {
        wait_within(DISCOVERY, "every sentinel knows all others", || {
            let said = sentinel.cli(&["SENTINEL", "MASTER", "mymaster"]);
            said.contains("num-slaves\n1\n") && said.contains("num-other-sentinels\n2\n")
        });
    }
    wait_for("the replica has everything", || replica.cli(&["DBSIZE"]) == site.redis.cli(&["DBSIZE"]));
    site.redis.signal("STOP");
    sentinels.remove(0);
    let promoted = wait_within(DISCOVERY, "the replica is promoted", || replica.cli(&["ROLE"]).starts_with("master"));
    let begun = Instant::now();
    let generation = site.write_to(&replica, 0);
    site.wait_served(generation);
    let recovered = begun.elapsed();
    for sentinel in &sentinels {
        // On a busy machine the new master may be silent for 500 ms; the Sentinels would then promote the old one.
        sentinel.cli(&["SENTINEL", "SET", "mymaster", "down-after-milliseconds", "60000"]);
    }
    site.redis.signal("CONT");
    site.serves_on(600);
    site.finish(recovered, Duration::from_secs(10), FEW).note(format!("promoted after {:.1} s", promoted.as_secs_f64()))
}
