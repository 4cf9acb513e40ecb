//! webservicemonitor and what it takes for true: how old a list may be, a job that is being deleted, a manifest without a release.

use crate::site::Site;
use crate::support::http::metric;
use crate::support::wait::wait_for;

#[test]
fn a_list_that_is_too_old_restarts_nothing() {
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
        assert_eq!(ended.log.contains("ERROR nothing is restarted"), is_old, "{age}: {}", ended.log);
    }
    site.set_aged_list(&["elsewhere"], "181");
    assert!(site.once(&[]).log.contains("was last known to be true 181s ago, more than 180s"));
}

#[test]
fn an_old_list_is_said_once_and_measured() {
    let Some(site) = Site::with(&["hello"]) else { return };
    site.set_aged_list(&["elsewhere"], "600");
    let daemon = site.daemon(&["--metrics-listen", "127.0.0.1:0", "--interval", "100ms"], &[]);
    let status = daemon.address_in("metrics endpoint listening");
    let value = |sample: &str| metric(status, sample);
    wait_for("some rounds", || value(r#"webservicemonitor_rounds_total{outcome="list_old"}"#) >= 3.0);
    assert_eq!(value("webservicemonitor_list_age_seconds"), 600.0);
    assert_eq!(value("webservicemonitor_braked"), 1.0);
    assert_eq!(value(r#"webservicemonitor_starts_total{outcome="not_begun"}"#), 0.0, "there before it is needed");
    assert_eq!(daemon.log().matches("nothing is restarted").count(), 1, "{}", daemon.log());
    site.set_aged_list(&["elsewhere"], "0");
    daemon.wait_for_line(&["INFO", "restarting again what should run"]);
    wait_for("young", || value("webservicemonitor_list_age_seconds") == 0.0);
    site.set_list(&["elsewhere"]);
    wait_for("not told", || value("webservicemonitor_list_age_seconds").is_nan());
    wait_for("restarts", || site.starts().len() == 3);
}

#[test]
fn a_job_that_is_being_deleted_is_waited_for_but_not_for_ever() {
    let Some(site) = Site::with(&["hello"]) else { return };
    for list in [&["elsewhere"][..], &["elsewhere", "hello"]] {
        site.set_list(list);
        for state in ["dr", "dt", "dRr", "dqw"] {
            site.set_jobs(&[("hello", state, 5000)]);
            let line = site.once(&["--dry-run"]).line("hello");
            assert_eq!((&*line[2], &*line[5]), ("is deleted", "deleting"), "{state}");
        }
    }
    site.set_jobs(&[("hello", "dr", 5000)]);
    assert_eq!(site.once(&[]).status, 0);
    assert!(site.starts().is_empty());
    // A new one beside it counts.
    site.set_jobs(&[("hello", "dr", 5000), ("hello", "qw", 1)]);
    assert_eq!(site.once(&["--dry-run"]).line("hello")[5], "pending");
    site.set_jobs(&[("hello", "dr", 5000)]);
    wait_for("the end of its time", || {
        assert_eq!(site.once(&["--grace", "1s"]).status, 0);
        !site.starts().is_empty()
    });
    let log = site.service_log("hello");
    assert!(log.contains("The web service is being deleted on the grid, which does not end: restarting it"), "{log}");
}

#[test]
fn a_manifest_without_a_release_has_the_default_one() {
    let Some(mut site) = Site::with(&["hello"]) else { return };
    site.add("old", b"web: generic\n");
    let line = site.once(&["--dry-run"]).line("old");
    assert_eq!(line[5..], ["skipped", "it names no release"]);
    let line = site.once(&["--dry-run", "--default-release", "buster"]).line("old");
    assert_eq!(line[5..], ["skipped", "its release is \"buster\""]);
    assert_eq!(site.once(&["--default-release", "bookworm"]).status, 0);
    assert_eq!(site.starts(), ["hello tools.hello bookworm lighttpd", "old tools.old bookworm generic"]);
}
