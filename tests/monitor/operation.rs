//! Operating webservicemonitor: rounds, signals, metrics, systemd.

use std::os::unix::net::UnixDatagram;

use crate::site::Site;
use crate::support::http::{get, metric};
use crate::support::wait::{SOON, wait_for};

#[test]
fn rounds_are_reported_in_metrics_and_to_systemd() {
    let Some(site) = Site::with(&["hello", "up"]) else { return };
    site.set_jobs(&[("up", "r", 5000)]);
    site.set_list(&["up"]);
    let socket = UnixDatagram::bind(site.path("notify")).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let notified = || {
        let mut bytes = [0; 64];
        let len = socket.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(bytes[..len].trim_ascii_end()).into_owned()
    };
    let notify = site.text("notify");
    let args = ["--metrics-listen", "127.0.0.1:0", "--interval", "100ms", "--log-format", "json"];
    let mut daemon = site.daemon(&args, &[("NOTIFY_SOCKET", &notify)]);
    assert_eq!(notified(), "READY=1");
    let status = daemon.address_in("metrics endpoint listening");
    wait_for("three restarts", || site.starts().len() == 3);
    for (sample, value) in [
        (r#"webservicemonitor_starts_total{outcome="ok"}"#, 3.0),
        (r#"webservicemonitor_starts_total{outcome="failed"}"#, 0.0),
        (r#"webservicemonitor_tools{decision="throttled"}"#, 1.0),
        (r#"webservicemonitor_tools{decision="up"}"#, 1.0),
        (r#"webservicemonitor_tools{decision="restart"}"#, 0.0),
        ("webservicemonitor_braked", 0.0),
    ] {
        wait_for(sample, || metric(status, sample) == value);
    }
    for sample in ["webservicemonitor_round_seconds_count", r#"webservicemonitor_rounds_total{outcome="ok"}"#] {
        assert!(metric(status, sample) >= 3.0, "{sample}");
    }
    assert_eq!(get(status, "/ready").0, 200);

    site.set_answer(503, "");
    wait_for("not ready", || get(status, "/ready").0 == 503);
    let failed = || metric(status, r#"webservicemonitor_rounds_total{outcome="list_failed"}"#);
    wait_for("several rounds", || failed() > 3.0 && metric(status, "webservicemonitor_braked") == 1.0);
    assert_eq!(daemon.log().matches("round suspended;").count(), 1, "logged once");
    site.set_list(&["up"]);
    daemon.wait_for_line(&["INFO", "rounds resumed"]);
    wait_for("ready", || get(status, "/ready").0 == 200);

    daemon.signal("TERM");
    assert_eq!(notified(), "STOPPING=1");
    assert_eq!(daemon.wait_for_end(), 0);
    assert_eq!(site.starts().len(), 3);
}

#[test]
fn sigterm_finishes_starts_in_progress_and_begins_none() {
    let Some(site) = Site::with(&["one", "two"]) else { return };
    site.script(
        "start",
        r#": > "$DIR/begun"; until [ -e "$DIR/go" ]; do sleep 0.01; done; echo "$1" >> "$DIR/starts""#,
    );
    let mut daemon = site.daemon(&["--parallel", "1"], &[]);
    wait_for("a start is under way", || site.path("begun").exists());
    daemon.signal("TERM");
    daemon.wait_for_line(&["stopping; waiting for restarts in progress"]);
    std::fs::write(site.path("go"), "").unwrap();
    assert_eq!(daemon.wait_for_end(), 0);
    assert_eq!(site.starts().len(), 1);
}

#[test]
fn sigterm_does_not_wait_for_a_hanging_grid() {
    let Some(site) = Site::with(&["one"]) else { return };
    site.script("qstat", r#": > "$DIR/asked"; exec sleep 1000"#);
    let mut daemon = site.daemon(&["--qstat-timeout", "10m"], &[]);
    wait_for("qstat runs", || site.path("asked").exists());
    daemon.signal("TERM");
    assert_eq!(daemon.wait_for_end(), 0);
    assert!(site.starts().is_empty());
}
