//! webservicemonitor's facts: the age of a list, a job that is being deleted, a manifest without a release.

use crate::site::Site;
use crate::support::http::metric;
use crate::support::wait::wait_for;

#[test]
fn old_list_suspends_the_round() {
    let Some(site) = Site::with(&["hello"]) else { return };
    for (age, args, is_old) in [
        ("181", &[][..], true),
        ("4294967296000", &[], true),
        ("7", &["--max-list-age", "6s"], true),
        ("soon", &[], true),
        ("-1", &[], true),
        ("180", &[], false),
        ("0", &["--max-list-age", "1s"], false),
        ("30", &["--interval", "1s"], false),
    ] {
        site.set_aged_list(&["elsewhere"], age);
        site.forget_starts();
        let state = site.text(&format!("state-{age}"));
        let ended = site.once(&[args, &["--state", &state]].concat());
        assert_eq!((ended.status, site.starts().is_empty()), (i32::from(is_old), is_old), "{age}: {}", ended.log);
        assert_eq!(ended.log.contains("ERROR round suspended; nothing is restarted"), is_old, "{age}: {}", ended.log);
    }
    site.set_aged_list(&["elsewhere"], "181");
    assert!(site.once(&[]).log.contains("is 181s old, more than 180s"));
}

#[test]
fn old_list_is_logged_once_and_measured() {
    let Some(site) = Site::with(&["hello"]) else { return };
    site.set_aged_list(&["elsewhere"], "600");
    let daemon = site.daemon(&["--metrics-listen", "127.0.0.1:0", "--interval", "100ms"], &[]);
    let status = daemon.address_in("metrics endpoint listening");
    let value = |sample: &str| metric(status, sample);
    wait_for("some rounds", || value(r#"webservicemonitor_rounds_total{outcome="list_old"}"#) >= 3.0);
    assert_eq!(value("webservicemonitor_list_age_seconds"), 600.0);
    assert_eq!(value("webservicemonitor_braked"), 1.0);
    assert_eq!(value(r#"webservicemonitor_starts_total{outcome="not_begun"}"#), 0.0, "present before the first one");
    assert_eq!(daemon.log().matches("round suspended;").count(), 1, "{}", daemon.log());
    site.set_aged_list(&["elsewhere"], "0");
    daemon.wait_for_line(&["INFO", "rounds resumed"]);
    wait_for("a new list", || value("webservicemonitor_list_age_seconds") == 0.0);
    site.set_list(&["elsewhere"]);
    wait_for("a list without an age", || value("webservicemonitor_list_age_seconds").is_nan());
    wait_for("restarts", || site.starts().len() == 3);
}

#[test]
fn deleted_job_is_waited_for_until_the_grace_time_ends() {
    let Some(site) = Site::with(&["hello"]) else { return };
    for list in [&["elsewhere"][..], &["elsewhere", "hello"]] {
        site.set_list(list);
        for state in ["dr", "dt", "dRr", "dqw"] {
            site.set_jobs(&[("hello", state, 5000)]);
            let line = site.once(&["--dry-run"]).line("hello");
            assert_eq!((&*line[2], &*line[5]), ("deleting", "deleting"), "{state}");
        }
    }
    site.set_jobs(&[("hello", "dr", 5000)]);
    assert_eq!(site.once(&[]).status, 0);
    assert!(site.starts().is_empty());
    // A new job beside it counts.
    site.set_jobs(&[("hello", "dr", 5000), ("hello", "qw", 1)]);
    assert_eq!(site.once(&["--dry-run"]).line("hello")[5], "pending");
    site.set_jobs(&[("hello", "dr", 5000)]);
    wait_for("the end of the grace time", || {
        assert_eq!(site.once(&["--grace", "1s"]).status, 0);
        !site.starts().is_empty()
    });
    let log = site.service_log("hello");
    assert!(log.contains("The web service is stuck in deletion on the grid: restarting it"), "{log}");
}

#[test]
fn default_release_applies_to_manifests_without_one() {
    let Some(mut site) = Site::with(&["hello"]) else { return };
    site.add("old", b"web: generic\n");
    let line = site.once(&["--dry-run"]).line("old");
    assert_eq!(line[5..], ["skipped", "the manifest names no release"]);
    let line = site.once(&["--dry-run", "--default-release", "buster"]).line("old");
    assert_eq!(line[5..], ["skipped", "the release is \"buster\""]);
    assert_eq!(site.once(&["--default-release", "bookworm"]).status, 0);
    assert_eq!(site.starts(), ["hello tools.hello bookworm lighttpd", "old tools.old bookworm generic"]);
}
