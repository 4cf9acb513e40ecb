//! A grid that refuses, hangs or loses jobs, and needs that are missing: each with its reason.

use std::fs;

use crate::site::{Ended, Site};

#[test]
fn missing_needs_submit_nothing() {
    let Some(site) = Site::new() else { return };
    fs::remove_dir(site.home("public_html")).unwrap();
    for (args, words) in [
        (&["lighttpd", "start"][..], "needs the directory"),
        (&["lighttpd-plain", "restart"], "public_html"),
        (&["nodejs", "start"], "package.json"),
        (&["uwsgi-python", "start"], "www/python/src"),
        (&["uwsgi-plain", "start"], "uwsgi.ini"),
        (&["generic", "start"], "runs a command of your own"),
        (&["lighttpd", "start", "x"], "takes no arguments"),
    ] {
        site.run(args).fails(words);
    }
    assert_eq!(site.grid_log(), [""; 0]);
    assert!(!site.home("service.manifest").exists() && !site.home("error.log").exists());
}

#[test]
fn job_that_ends_at_once_is_a_failure_with_its_log() {
    let Some(site) = Site::new() else { return };
    site.write("error.log", "old line\n");
    site.hook("qstat", "if [ -e $DIR/grid/job-1 ]; then mv $DIR/grid/job-1 $DIR/grid/ended; printf 'cannot bind \\033[31m\\n' >> $DIR/home/error.log; fi");
    let failed = site.run(&["start"]).fails("your webservice did not start: it ended at once; the last lines of ");
    assert!(failed.messages.contains("error.log:\n    cannot bind \\u{1b}[31m\n"), "{failed:?}");
    assert!(!failed.messages.contains("old line"), "{failed:?}");
    assert!(site.manifest().contains(&"web: lighttpd".to_owned()), "the monitor tries again");
}

#[test]
fn job_that_runs_for_a_moment_only_is_a_failure() {
    let Some(site) = Site::new() else { return };
    site.hook(
        "qstat",
        "if [ -e $DIR/grid/seen ]; then rm -f $DIR/grid/job-*; fi; ! ls $DIR/grid/job-* >/dev/null 2>&1 || : > $DIR/grid/seen",
    );
    site.run(&["start"]).fails("it ended at once; there is nothing new in ");
    site.write("uwsgi.ini", "");
    fs::remove_file(site.path("grid/seen")).unwrap();
    site.run(&["uwsgi-plain", "start"]).fails("/uwsgi.log; there is nothing new in ");
}

#[test]
fn job_in_error_state_is_a_failure_and_replaced_by_the_next_start() {
    let Some(site) = Site::new() else { return };
    site.set_state("Eqw");
    fs::write(site.path("grid/explanation"), "error reason    1:   can't chdir to /home: No such file\n").unwrap();
    site.run(&["start"]).fails("your webservice did not start: can't chdir to /home: No such file");
    site.set_state("r");
    site.run(&["start"]).succeeds();
    assert_eq!(site.grid_log(), ["submitted lighttpd-hello", "deleted lighttpd-hello", "submitted lighttpd-hello"]);
}

#[test]
fn options_of_qstat_in_the_home_are_refused() {
    let Some(site) = Site::new() else { return };
    site.run(&["start"]).succeeds();
    site.write(".sge_qstat", "-s z");
    // As on a real grid, where qstat finds the file by the account's home.
    site.hook("qstat", "if [ -e $DIR/home/.sge_qstat ]; then echo '<job_info></job_info>'; exit 0; fi");
    for action in ["status", "start", "restart", "stop"] {
        site.run(&[action]).fails("/.sge_qstat\", which may hide your jobs; remove that file");
    }
    assert_eq!(site.grid_log(), ["submitted lighttpd-hello"]);
    fs::remove_file(site.home(".sge_qstat")).unwrap();
    site.run(&["stop"]).succeeds();
    assert_eq!(site.jobs().len(), 0);
}

#[test]
fn refusals_of_qsub_are_shown_and_leave_no_manifest() {
    let Some(site) = Site::new() else { return };
    for (hook, words) in [
        ("echo 'Unable to run job: unknown resource \"release\".' >&2; exit 1", "unknown resource \"release\""),
        ("printf 'a\\033[2Jb' >&2; exit 3", "exit status: 3: a [2Jb"),
    ] {
        site.hook("qsub", hook);
        site.run(&["start"]).fails(words);
        assert!(!site.home("service.manifest").exists() && !site.home("service.manifest~").exists());
    }
    // Without Grid Engine, but with all that the test itself needs.
    fs::create_dir(site.path("only")).unwrap();
    for program in ["unshare", "sh", "mount", "setpriv", "timeout"] {
        let path = ["/usr/bin", "/bin", "/usr/sbin"].map(|dir| format!("{dir}/{program}"));
        let path = path.iter().find(|path| fs::exists(path).unwrap()).unwrap();
        std::os::unix::fs::symlink(path, site.path("only").join(program)).unwrap();
    }
    let ended = Ended::of(site.command(&["start"]).env("PATH", site.path("only")).output().unwrap());
    ended.fails("No such file or directory (os error 2) while starting \"qstat\"");
}

#[test]
fn tools_own_options_for_qsub_are_named() {
    let Some(site) = Site::new() else { return };
    site.write(".sge_request", "-nonsense");
    site.hook("qsub", "echo 'qsub: Unknown option' >&2; exit 5");
    let refused = site.run(&["start"]).fails("qsub: Unknown option; qsub reads \"");
    assert!(refused.messages.contains("check or remove that file"), "{refused:?}");
    site.hook("qsub", "echo verified; exit 0");
    site.run(&["start"]).fails("qsub prints \"verified\" instead of a job's number; `webservice status` shows whether");
    assert!(!site.home("service.manifest").exists());
}

#[test]
fn qstat_that_fails_starts_and_stops_nothing() {
    let Some(site) = Site::new() else { return };
    for (hook, words) in [
        ("echo 'error: commlib error: got select error' >&2; exit 1", "commlib error"),
        ("echo '<job_info>'; exit 0", "no complete job_info element"),
        ("yes x | head -c 20000000; exit 0", "printed more than 16777216 bytes"),
    ] {
        site.hook("qstat", hook);
        site.run(&["start"]).fails(words);
        site.run(&["status"]).fails(words);
    }
    assert_eq!(site.grid_log(), [""; 0]);
    assert!(!site.home("service.manifest").exists());
    // A stop keeps the web service from being started again, even now.
    site.write("service.manifest", "web: lighttpd\n");
    site.run(&["stop"]).fails("printed more than");
    assert_eq!(site.manifest(), ["backend: gridengine", "version: 4"]);
}

#[test]
fn stop_that_failed_is_repeated_on_the_same_backend() {
    let Some(site) = Site::new() else { return };
    site.configure("default_backend: kubernetes");
    site.run(&["--backend=gridengine", "lighttpd", "start"]).succeeds();
    site.hook("qdel", "echo 'error: commlib error' >&2; exit 1");
    site.run(&["--timeout", "1s", "stop"]).fails("commlib error");
    assert_eq!(site.manifest(), ["backend: gridengine", "version: 4"], "the monitor does not start it again");
    let running = "Your webservice of type lighttpd is running on backend gridengine\n";
    assert_eq!(site.run(&["status"]).succeeds().answer, running);
    site.hook("qdel", "");
    site.run(&["stop"]).succeeds();
    assert_eq!(site.jobs().len(), 0);
    assert_eq!(site.manifest(), ["version: 4"]);
}

#[test]
fn one_failure_of_qstat_while_waiting_is_no_failure() {
    let Some(site) = Site::new() else { return };
    site.hook(
        "qstat",
        "if [ -e $DIR/grid/job-1 ] && mkdir $DIR/grid/once 2>/dev/null; then echo 'commlib error' >&2; exit 1; fi",
    );
    site.run(&["start"]).succeeds();
    assert!(site.path("grid/once").exists());
}

#[test]
fn job_that_cannot_be_deleted_is_named() {
    let Some(site) = Site::new() else { return };
    site.run(&["start"]).succeeds();
    site.hook("qdel", "sed -i 's/^r$/dr/' $DIR/grid/job-1; echo registered; exit 0");
    let stuck = site.run(&["--timeout", "1s", "stop"]).fails("job \"lighttpd-hello\" is still being deleted after 1s");
    assert!(stuck.messages.contains("qdel -f"), "{stuck:?}");
    site.run(&["--timeout", "1s", "restart"]).fails("is still being deleted");
    site.hook("qdel", "echo 'denied: host is down' >&2; exit 1");
    site.set_job_state("r");
    site.run(&["--timeout", "1s", "stop"]).fails("denied: host is down");
    assert_eq!(site.grid_log(), ["submitted lighttpd-hello"]);
}
