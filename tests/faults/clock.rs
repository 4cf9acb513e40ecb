//! Steps of the wall clock while the site runs; only nginx sees them, through libfaketime.

use std::path::Path;
use std::time::Duration;

use crate::report::Report;
use crate::site::{Plan, Site};
use crate::support::nginx::get;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

pub fn stepped_a_day_forward_and_back() -> Report {
    let libraries = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let library = Path::new(&libraries).join(LIBRARY);
    if !library.exists() {
        return Report::needs(format_args!("{}: Debian's package faketime", library.display()));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let clock = directory.path().join("clock");
    let set = |offset: &str| {
        // Renamed into place: each query of the time reads the file.
        let new = directory.path().join("new");
        std::fs::write(&new, offset).and_then(|()| std::fs::rename(&new, &clock)).expect("the clock is set");
    };
    set("+0");
    // A step of the wall clock does not affect the monotonic clock.
    let variables = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAKETIME_TIMESTAMP_FILE", clock.display().to_string()),
        ("FAKETIME_NO_CACHE", "1".to_owned()),
        ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
    ];
    let main = variables.iter().map(|(name, _)| format!("env {name}; ")).collect();
    let table = "resync_interval 1s;".to_owned();
    let plan = Plan { main, table, env: variables.to_vec(), ..Plan::default() };
    let site = Site::with(RedisServer::start(&[]), plan);
    let port = site.nginx.port;
    let (mut slowest, mut steps) = (Duration::ZERO, 0);
    for offset in ["+1d", "+0", "-1d", "+0"] {
        let date =
            || get(port, "/t00/").head.lines().find_map(|l| l.strip_prefix("Date: ").map(|d| d[..16].to_owned()));
        let before = date();
        set(offset);
        wait_for("nginx sees another day", || date() != before);
        steps += 1;
        slowest = slowest.max(site.recovers());
        // Beyond the next resync.
        site.serves_on(300);
    }
    site.finish(slowest, Duration::from_secs(2), 60).note(format!("{steps} steps"))
}
