//! Events of nginx: killed workers, good and bad reloads, another zone, another binary.

use std::time::{Duration, Instant};

use crate::churn::Churn;
use crate::report::Report;
use crate::site::{Plan, Site};
use crate::support::nginx::is_alive;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(2);
/// Most log lines of a start.
const START: usize = 10;
/// Most log lines of a worker's start with its companion.
const EACH: usize = 6;

/// Kills workers without the companion.
pub fn killed() -> Report {
    const KILLS: usize = 10;
    let site = Site::start(&[]);
    for _ in 0..KILLS {
        let companion = site.companion();
        let other = site.nginx.workers().into_iter().find(|pid| *pid != companion).expect("a second worker");
        site.kill_worker(other);
        site.serves_on(40);
    }
    let recovered = site.recovers();
    site.finish(recovered, SOON, START).note(format!("{KILLS} kills"))
}

pub fn companion_killed_while_publishing() -> Report {
    const KILLS: usize = 30;
    let site = Site::start(&[]);
    let churn = Churn::start(&site);
    let mut longest = Duration::ZERO;
    for _ in 0..KILLS {
        let companion = site.companion();
        site.serves_on(40);
        let begun = Instant::now();
        site.kill_worker(companion);
        site.companion();
        site.wait_companion();
        longest = longest.max(begun.elapsed());
    }
    let changes = churn.finish();
    let recovered = site.recovers();
    site.finish(recovered, SOON, START + KILLS * EACH)
        .note(format!("{KILLS} kills, {changes} changes; a companion again within {}", crate::report::figure(longest)))
}

pub fn reloaded_100_times() -> Report {
    /// Normal growth of a worker's memory.
    const SLACK_KIB: u64 = 2048;
    const RELOADS: usize = 100;
    let site = Site::start(&[]);
    let churn = Churn::start(&site);
    site.reload();
    let first = resident_kib(&site);
    let mut most_companions = 0;
    for _ in 1..RELOADS {
        site.reload();
        most_companions = most_companions.max(site.companions());
    }
    let last = resident_kib(&site);
    let changes = churn.finish();
    let recovered = site.recovers();
    site.finish(recovered, SOON, START + RELOADS * EACH)
        .note(format!("{changes} changes; workers {first} -> {last} KiB"))
        .expect(most_companions <= 1, format!("{most_companions} companions at once"))
        .expect(last < first + SLACK_KIB, format!("workers grew from {first} to {last} KiB"))
}

/// Private memory of the largest worker.
fn resident_kib(site: &Site) -> u64 {
    let resident = |pid: &u32| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or("0").trim().to_owned();
        line.trim_end_matches(" kB").parse::<u64>().unwrap_or(0)
    };
    site.nginx.workers().iter().map(resident).max().expect("workers")
}

pub fn reload_refused() -> Report {
    const RELOADS: usize = 5;
    let mut site = Site::start(&[]);
    site.configure(|plan| plan.zone = "1y");
    site.tolerated.push("\"zone\" invalid size");
    let said = String::from_utf8_lossy(&site.nginx.check().stderr).into_owned();
    let workers = site.nginx.workers();
    for refused in 1..=RELOADS {
        site.nginx.signal("HUP");
        wait_for("the refusal", || site.logged("[emerg]") > refused);
        site.serves_on(40);
    }
    let is_same = site.nginx.workers() == workers;
    let recovered = site.recovers();
    site.configure(|plan| plan.zone = "1m");
    site.reload();
    site.recovers();
    let want = r#""zone" invalid size (at least 256k) "1y", expected e.g. "16m" in "#;
    site.finish(recovered, SOON, START + RELOADS + EACH)
        .expect(said.contains(want), said)
        .expect(is_same, "workers changed though the configuration was refused")
}

/// Redis is stopped, so the routes in the new zone must come from the old one.
fn zone_changed_without_redis(change: impl FnOnce(&mut Plan)) -> Report {
    let mut site = Site::start(&[]);
    site.redis.signal("STOP");
    site.configure(|plan| {
        plan.table = "wait_for_routes 100ms;".to_owned();
        change(plan);
    });
    site.reload();
    site.serves_on(200);
    let carried = site.log_lines(&["carried over to the new zone", " tools=60"]);
    site.redis.signal("CONT");
    let recovered = site.recovers();
    site.finish(recovered, Duration::from_secs(3), START + 3 * EACH)
        .expect(carried == 1, format!("carried over {carried} times"))
}

pub fn zone_grown_without_redis() -> Report {
    zone_changed_without_redis(|plan| plan.zone = "4m")
}

pub fn zone_shrunk_without_redis() -> Report {
    zone_changed_without_redis(|plan| plan.zone = "256k")
}

pub fn table_renamed_without_redis() -> Report {
    zone_changed_without_redis(|plan| plan.name = "webtools")
}

/// The zone's content does not fit the new zone: the reload fails, and nothing changes.
pub fn zone_shrunk_too_far() -> Report {
    let mut site = Site::start(&[]);
    let fill = "for i = 0, 3999 do redis.call('HSET', string.format('prefix:a%04d', i), '.*', ARGV[1]) end";
    site.redis.cli(&["EVAL", fill, "0", &site.other_url()]);
    site.recovers();
    let listed = site.listed();
    let workers = site.nginx.workers();
    site.configure(|plan: &mut Plan| plan.zone = "256k");
    site.tolerated.push("urlproxy_table tools: no room for tool ");
    site.nginx.signal("HUP");
    site.wait_log("[emerg]");
    site.serves_on(200);
    let recovered = site.recovers();
    let (is_same, are_kept) = (site.nginx.workers() == workers, site.listed() == listed);
    site.finish(recovered, SOON, START + EACH)
        .expect(is_same, "workers changed though the reload failed")
        .expect(are_kept && listed.len() == 4060, format!("{} tools listed", listed.len()))
}

/// `USR2`: for a while two masters serve from two tables; then the old one quits.
pub fn binary_upgraded() -> Report {
    let mut site = Site::with(RedisServer::start(&[]), Plan { is_daemon: true, ..Plan::default() });
    let old = site.nginx.master();
    upgrade(&site);
    wait_for("its companion beside the old one", || site.companions() == 2);
    site.serves_on(200);
    let both = site.recovers();
    site.nginx.signal("QUIT");
    wait_for("the old master is gone", || !is_alive(old));
    site.nginx.adopt_master();
    wait_for("one companion", || site.companions() == 1);
    site.traffic.allow_older(false);
    let recovered = site.recovers();
    site.serves_on(100);
    let workers = site.nginx.workers().len();
    site.finish(recovered, SOON, 2 * START)
        .expect(workers == 2, format!("{workers} workers under the new master"))
        .note(format!("{} with both", crate::report::figure(both)))
}

/// The new master has its own empty table, and starts from the snapshot.
pub fn binary_upgraded_without_redis() -> Report {
    let directory = tempfile::tempdir().expect("a directory");
    let snapshot = directory.path().join("tools.snapshot");
    let table = format!("snapshot {}; wait_for_routes 100ms;", snapshot.display());
    let mut site = Site::with(RedisServer::start(&[]), Plan { table, is_daemon: true, ..Plan::default() });
    wait_for("a snapshot", || snapshot.exists());
    site.redis.signal("STOP");
    let old = site.nginx.master();
    upgrade(&site);
    site.serves_on(100);
    site.nginx.signal("QUIT");
    wait_for("the old master is gone", || !is_alive(old));
    site.nginx.adopt_master();
    site.companion();
    site.serves_on(200);
    site.redis.signal("CONT");
    let recovered = site.recovers();
    site.finish(recovered, Duration::from_secs(3), 3 * START)
}

/// Starts a new master beside the running one.
fn upgrade(site: &Site) {
    let old = site.nginx.master();
    site.traffic.allow_older(true);
    site.nginx.signal("USR2");
    let new = || site.nginx.pid_in("nginx.pid").filter(|pid| *pid != old);
    wait_for("a new master", || new().is_some() && site.nginx.pid_in("nginx.pid.oldbin") == Some(old));
}
