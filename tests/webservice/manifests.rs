//! service.manifest: what is written, what is read, and that webservicemonitor reads it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use urlproxy::monitor::parse_manifest;
use urlproxy::tenant::SafeWord;

use crate::site::{Site, UID};

/// What webservicemonitor reads in the manifest: type and release.
fn monitored(site: &Site) -> Option<(String, Option<String>)> {
    let ours = SafeWord::try_new("bookworm");
    let read = parse_manifest(site.read("service.manifest").as_bytes(), ours.as_ref(), ours.as_ref()).ok()?;
    Some((read.web.to_string(), read.release.map(|release| release.to_string())))
}

#[test]
fn started_web_service_is_written_down_for_the_monitor() {
    let Some(site) = Site::new() else { return };
    site.run(&["--release", "bookworm", "generic", "start", "--", "./server", "--x", "it's \"a b\"", "yes"]).succeeds();
    let want = [
        "backend: gridengine",
        "release: bookworm",
        "version: 4",
        "web: generic",
        "web::extra_args:",
        "- \"./server\"",
        "- \"--x\"",
        "- \"it's \\\"a b\\\"\"",
        "- \"yes\"",
    ];
    assert_eq!(site.manifest(), want);
    let status = fs::symlink_metadata(site.home("service.manifest")).unwrap();
    assert_eq!((status.uid(), status.permissions().mode() & 0o777), (UID, 0o644));
    assert!(site.read("service.manifest").lines().take(3).all(|line| line.starts_with("# ")));
    assert!(!site.home("service.manifest~").exists());
    assert_eq!(monitored(&site), Some(("generic".into(), Some("bookworm".into()))));
    site.run(&["stop"]).succeeds();
    assert_eq!(site.manifest(), ["version: 4"], "the file stays");
    assert_eq!(monitored(&site), None);
}

#[test]
fn stop_changes_the_manifest_before_the_job() {
    // In the other order webservicemonitor could start it again in between.
    let Some(site) = Site::new() else { return };
    site.run(&["start"]).succeeds();
    site.hook("qdel", "cp $DIR/home/service.manifest $DIR/grid/manifest-at-qdel");
    site.run(&["stop"]).succeeds();
    let manifest = fs::read_to_string(site.path("grid/manifest-at-qdel")).expect("qdel ran");
    assert!(manifest.contains("version: 4") && !manifest.contains("\nweb:"), "{manifest}");
}

#[test]
fn manifests_of_old_versions_are_restarted_as_they_are() {
    let Some(site) = Site::new() else { return };
    for (old, want) in [
        (
            "version: 2\nweb: lighttpd\ndistribution: bookworm\n",
            "backend: gridengine|release: bookworm|version: 4|web: lighttpd",
        ),
        (
            "# c\nbackend: gridengine\ndistribution: debian\nrelease: bookworm\nversion: 3\nweb: lighttpd-plain\n",
            "backend: gridengine|release: bookworm|version: 4|web: lighttpd-plain",
        ),
        (
            "backend: gridengine\nversion: 4\nweb: generic\nweb::extra_args: [./x, 1]\n",
            "backend: gridengine|version: 4|web: generic|web::extra_args:|- \"./x\"|- \"1\"",
        ),
        (
            "web: lighttpd\nother: {b: [1, true]}\ncron:\n  - a\n",
            "backend: gridengine|cron: [\"a\"]|other: {\"b\": [1, true]}|version: 4|web: lighttpd",
        ),
        ("", "backend: gridengine|version: 4|web: lighttpd"),
    ] {
        site.write("service.manifest", old);
        site.run(&["restart"]).succeeds();
        assert_eq!(site.manifest().join("|"), want, "{old}");
        assert!(site.job_names()[0].starts_with(&monitored(&site).unwrap().0));
        site.run(&["stop"]).succeeds();
    }
    site.write("service.manifest", "web: lighttpd\nother: {b: [1, true]}\n");
    site.run(&["stop"]).succeeds();
    assert_eq!(site.manifest(), ["other: {\"b\": [1, true]}", "version: 4"], "keys of others stay");
}

#[test]
fn command_line_of_the_monitor_restarts() {
    let Some(site) = Site::new() else { return };
    site.write("service.manifest", "web: generic\nrelease: bookworm\nweb::extra_args: [./server, -x]\n");
    let ended = site.run(&["--backend=gridengine", "--release", "bookworm", "generic", "restart"]).succeeds();
    assert_eq!(ended.lines(), ["Your job is not running, starting", "Starting webservice"]);
    let words = site.submitted();
    assert_eq!(words[words.len() - 4..], ["--type", "generic", "./server", "-x"]);
    assert!(words.contains(&"h_vmem=4G,release=bookworm".to_owned()));
}
