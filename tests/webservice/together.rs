//! Two commands at once, and commands that are killed.

use std::fs;

use rustix::process::{Pid, Signal, kill_process_group};

use crate::site::{Ended, Site, child_output};
use crate::support::wait::wait_for;

#[test]
fn two_starts_at_once_start_one_job() {
    let Some(site) = Site::new() else { return };
    for round in 0..15 {
        site.forget_grid_log();
        let children: Vec<_> = (0..3).map(|_| site.begin(&["start"])).collect();
        let ended: Vec<_> = children.into_iter().map(|mut child| Ended::of(child_output(&mut child))).collect();
        assert_eq!(site.grid_log(), ["submitted lighttpd-hello"], "round {round}: {ended:?}");
        assert_eq!(ended.iter().filter(|ended| ended.status == 0).count(), 1, "{ended:?}");
        let others = ended.iter().filter(|ended| ended.messages.contains("Your job is already running\n"));
        assert_eq!(others.count(), 2, "{ended:?}");
        site.run(&["stop"]).succeeds();
    }
}

/// Kills the command and all that it has started.
fn kill(site: &Site, mut child: std::process::Child) {
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    // `timeout` leads the group of the command.
    let _ = kill_process_group(pid, Signal::KILL);
    child.wait().unwrap();
    fs::remove_file(site.path("grid/qsub.sh")).unwrap();
}

#[test]
fn start_that_was_killed_before_qsub_is_repeated() {
    let Some(site) = Site::new() else { return };
    site.hook("qsub", ": > $DIR/grid/reached; exec sleep 1000");
    let child = site.begin(&["start"]);
    wait_for("qsub", || site.path("grid/reached").exists());
    assert!(site.home("service.manifest~").exists() && !site.home("service.manifest").exists());
    kill(&site, child);
    assert_eq!(site.run(&["status"]).succeeds().answer, "Your webservice is not running\n");
    site.run(&["start"]).succeeds();
    assert_eq!(site.job_names(), ["lighttpd-hello"]);
    assert!(!site.home("service.manifest~").exists());
}

#[test]
fn start_that_was_killed_after_qsub_is_written_down_later() {
    let Some(site) = Site::new() else { return };
    // The job is there, but qsub does not end.
    site.hook(
        "qsub",
        "mkdir $DIR/grid/number-1; printf 'generic-hello\\nr\\n2026-01-01T00:00:00\\n' > $DIR/grid/job-1; : > $DIR/grid/reached; exec sleep 1000",
    );
    let child = site.begin(&["--release", "bookworm", "generic", "start", "x"]);
    wait_for("qsub", || site.path("grid/reached").exists());
    kill(&site, child);
    assert!(!site.home("service.manifest").exists());
    site.run(&["start"]).fails("Your job is already running");
    let want = ["backend: gridengine", "release: bookworm", "version: 4", "web: generic", "web::extra_args:", "- x"];
    assert_eq!(site.manifest(), want, "the next command has repaired it");
    assert!(!site.home("service.manifest~").exists());
    site.run(&["restart"]).succeeds();
    assert_eq!(site.grid_log(), ["deleted generic-hello", "submitted generic-hello"]);
}

#[test]
fn restart_of_the_monitor_yields_to_a_maintainer() {
    let Some(site) = Site::new() else { return };
    let begin_and_wait = |first: &[&str]| {
        site.hook("qstat", ": > $DIR/grid/reached; until [ -e $DIR/grid/go ]; do sleep 0.01; done");
        let mut first = site.begin(first);
        wait_for("the first command", || site.path("grid/reached").exists());
        let mut second = site.begin(&["--backend=gridengine", "lighttpd", "restart"]);
        let mut message = [0; 7];
        std::io::Read::read_exact(second.stderr.as_mut().unwrap(), &mut message).unwrap();
        assert_eq!(&message, b"Waiting");
        fs::write(site.path("grid/go"), "").unwrap();
        let ended = (Ended::of(child_output(&mut first)), Ended::of(child_output(&mut second)));
        for file in ["grid/go", "grid/reached", "grid/qstat.sh"] {
            fs::remove_file(site.path(file)).unwrap();
        }
        ended
    };
    let (first, second) = begin_and_wait(&["start"]);
    first.succeeds();
    let second = second.succeeds();
    assert!(second.messages.contains(" for another webservice command (process "), "{second:?}");
    assert!(second.messages.contains("has started it meanwhile; not restarting it"), "{second:?}");
    assert_eq!(site.grid_log(), ["submitted lighttpd-hello"]);

    let (first, second) = begin_and_wait(&["stop"]);
    first.succeeds();
    assert!(second.succeeds().messages.contains("has stopped it meanwhile; not starting it"));
    assert_eq!(site.jobs().len(), 0);
    assert_eq!(site.manifest(), ["version: 4"]);
}

#[test]
fn restart_of_the_monitor_starts_only_what_the_manifest_wants() {
    let Some(site) = Site::new() else { return };
    let restart = || {
        let mut command = site.command(&["--backend=gridengine", "lighttpd", "restart"]);
        Ended::of(command.env("WEBSERVICE_BY_MONITOR", "1").output().unwrap())
    };
    // As after a stop while the monitor's login was slow.
    for manifest in [None, Some("version: 4\n"), Some("backend: gridengine\n")] {
        if let Some(manifest) = manifest {
            site.write("service.manifest", manifest);
        }
        let yielded = restart().succeeds();
        assert!(yielded.messages.contains("has stopped it meanwhile; not starting it"), "{manifest:?}: {yielded:?}");
        assert_eq!(site.grid_log(), [""; 0], "{manifest:?}");
    }
    site.write("service.manifest", "web: lighttpd\n");
    restart().succeeds();
    assert_eq!(site.job_names(), ["lighttpd-hello"]);
}
