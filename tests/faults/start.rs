//! Starts while Redis is down, without and with a snapshot.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::report::Report;
use crate::site::{Plan, Site};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

const SOON: Duration = Duration::from_secs(3);
const FEW: usize = 40;
const DURABLE: &[&str] = &["--appendonly", "yes", "--appendfsync", "always"];

/// Until the first load, requests receive 503 with `Retry-After`, never a miss.
pub fn without_redis() -> Report {
    let mut redis = RedisServer::start(DURABLE);
    redis.stop();
    let plan = Plan { table: "wait_for_routes 100ms;".to_owned(), is_cold: true, ..Plan::default() };
    let mut site = Site::with(redis, plan);
    site.serves_on(600);
    let list = site.nginx.get("/list");
    // The routes exist before the companion can connect.
    let mut other = RedisServer::start(&[]);
    let generation = site.write_to(&other, 0);
    other.cli(&["SAVE"]);
    other.stop();
    fs::remove_dir_all(site.redis.dir().join("appendonlydir")).expect("an empty log of changes");
    fs::copy(other.dir().join("dump.rdb"), site.redis.dir().join("dump.rdb")).expect("the routes");
    site.redis.add_args(&["--appendonly", "no"]);
    site.redis.start_again();
    site.wait_served(generation);
    site.traffic.must_be_ready();
    let recovered = site.recovers();
    let miss = site.nginx.get("/none/");
    let report = site.finish(recovered, SOON, FEW);
    let unready = report.count.unready;
    report
        .note(format!("{unready} times 503 with Retry-After"))
        .expect(unready > 300, format!("only {unready} requests before the first load"))
        .expect(list.status == 503 && list.head.contains("Retry-After: 1"), format!("/list answered {list:?}"))
        .expect(miss.status == 503 && !miss.head.contains("Retry-After"), format!("a miss answered {miss:?}"))
}

fn with_snapshot(directory: &Path) -> Site {
    let path = directory.join("tools.snapshot");
    let table = format!("snapshot {} max_age=7d; wait_for_routes 200ms;", path.display());
    Site::with(RedisServer::start(DURABLE), Plan { table, ..Plan::default() })
}

/// Restarts nginx while Redis is down; the first request must find its route.
fn start_cold(site: &mut Site) {
    site.redis.stop();
    let nginx = &mut site.nginx;
    site.traffic.pause(|| {
        nginx.stop();
        nginx.launch();
    });
}

pub fn without_redis_from_snapshot() -> Report {
    let directory = tempfile::tempdir().expect("a directory");
    let mut site = with_snapshot(directory.path());
    wait_for("a snapshot", || directory.path().join("tools.snapshot").exists());
    start_cold(&mut site);
    site.serves_on(600);
    site.redis.start_again();
    let recovered = site.recovers();
    site.finish(recovered, SOON, FEW)
}

/// A small file system, unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Result<Self, String> {
        let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"])
            .arg(directory.path())
            .output()
            .map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
        }
        Ok(Self(directory))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).status();
    }
}

/// A snapshot that cannot be written is logged, harms nothing, and leaves the previous file intact.
pub fn disk_full_for_the_snapshot() -> Report {
    let disk = match SmallDisk::mount() {
        Ok(disk) => disk,
        Err(why) => return Report::needs(format_args!("a small file system, as root ({why})")),
    };
    let (ballast, snapshot) = (disk.0.path().join("ballast"), disk.0.path().join("tools.snapshot"));
    let mut site = with_snapshot(disk.0.path());
    wait_for("a snapshot", || snapshot.exists());
    let before = fs::read(&snapshot).expect("the snapshot");
    // As much as fits.
    let _ = fs::write(&ballast, vec![0; 1 << 20]);
    let recovered = site.recovers();
    site.wait_log("snapshot");
    wait_for("the failure is logged", || site.nginx.log().contains("No space left on device"));
    site.serves_on(400);
    let is_intact = fs::read(&snapshot).expect("the snapshot") == before;
    fs::remove_file(&ballast).expect("free space");
    site.recovers();
    wait_for("a new snapshot", || fs::read(&snapshot).is_ok_and(|now| now != before));
    start_cold(&mut site);
    site.serves_on(200);
    site.redis.start_again();
    site.recovers();
    site.finish(recovered, SOON, FEW).expect(is_intact, "the old snapshot was damaged")
}
