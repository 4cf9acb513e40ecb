//! webservicemonitor's rounds: what they restart and log, and when they are suspended.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::site::{Answer, Site};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

const MOST: &[&str] = &["up", "young", "waits", "stuck", "unlisted", "gone"];

/// One tool in each state.
fn site_of_all_states() -> Option<Site> {
    let site = Site::with(MOST)?;
    site.set_jobs(&[
        ("up", "r", 5000),
        ("young", "r", 60),
        ("waits", "qw", 5000),
        ("stuck", "Eqw", 5000),
        ("unlisted", "r", 5000),
        ("other", "r", 1),
    ]);
    site.set_list(&["up"]);
    Some(site)
}

#[test]
fn wanted_services_that_are_down_are_restarted() {
    let Some(site) = site_of_all_states() else { return };
    let ended = site.once(&[]);
    assert_eq!(ended.status, 0, "{}", ended.log);
    let start = |tool: &str| format!("{tool} tools.{tool} bookworm lighttpd");
    assert_eq!(site.starts(), [start("gone"), start("stuck"), start("unlisted")]);
    for (tool, words) in [
        ("gone", "webservicemonitor: The web service is not running: restarting it, 1 of 3 times within 1 h.\n"),
        ("stuck", ": The web service is in error state on the grid: restarting it, "),
        ("unlisted", ": The web service is running, but not registered with the proxy: restarting it, "),
    ] {
        let log = site.service_log(tool);
        assert!(log.contains(words) && log.lines().count() == 1, "{log}");
        let metadata = fs::metadata(site.home(tool).join("service.log")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&metadata), site.uid(tool));
    }
    for tool in ["up", "young", "waits"] {
        assert_eq!(site.service_log(tool), "", "{tool}");
    }
}

#[test]
fn dry_run_prints_all_decisions_and_changes_nothing() {
    let Some(site) = site_of_all_states() else { return };
    let ended = site.once(&["--dry-run"]);
    assert_eq!(ended.status, 0, "{}", ended.log);
    for (tool, cells) in [
        ("up", &["up", "lighttpd", "runs 83m", "yes", "0", "up"][..]),
        ("young", &["young", "lighttpd", "runs 60s", "no", "0", "young"]),
        ("waits", &["waits", "lighttpd", "waits", "no", "0", "pending"]),
        ("stuck", &["stuck", "lighttpd", "error", "no", "0", "restart", "in error state on the grid"]),
        (
            "unlisted",
            &["unlisted", "lighttpd", "runs 83m", "no", "0", "restart", "running, but not registered with the proxy"],
        ),
        ("gone", &["gone", "lighttpd", "none", "no", "0", "restart", "not running"]),
    ] {
        let line = ended.line(tool);
        // The job may have aged by a second.
        let is_same = |(a, b): (&String, &&str)| a == b || a.starts_with("runs 6") && b.starts_with("runs 6");
        assert!(line.len() == cells.len() && line.iter().zip(cells).all(is_same), "{line:?}");
    }
    assert!(site.starts().is_empty() && site.service_log("gone").is_empty() && !site.path("state").exists());
    site.set_answer(503, "");
    let ended = site.once(&["--dry-run"]);
    assert_eq!(ended.line("gone"), ["gone", "lighttpd", "none", "?", "0", "braked"]);
    assert_eq!(ended.status, 1);
}

#[test]
fn tool_that_keeps_dying_is_throttled_and_notified_once() {
    let Some(site) = Site::with(&["hello"]) else { return };
    for _ in 0..6 {
        assert_eq!(site.once(&[]).status, 0);
    }
    assert_eq!(site.starts().len(), 3);
    let log = site.service_log("hello");
    assert_eq!(log.lines().count(), 4, "{log}");
    assert!(log.contains("3 of 3 times within 1 h"), "{log}");
    assert!(log.contains("was restarted 3 times within 1 h: no more restarts until 2"), "{log}");
    assert_eq!(site.once(&["--dry-run"]).line("hello")[4..6], ["3", "throttled"]);
    // Three restarts were in the long window; none is in the short one.
    wait_for("the window is over", || {
        let ended = site.once(&["--dry-run", "--restart-window", "1s"]);
        ended.line("hello")[4..6] == ["0", "restart"]
    });
}

#[test]
fn redis_stores_the_history_too() {
    let Some(site) = Site::with(&["hello"]) else { return };
    let mut redis = RedisServer::start(&[]);
    // With the documented rights only.
    let page = include_str!("../../docs/webservicemonitor.md").lines();
    let user = page.into_iter().find(|line| line.starts_with("ACL SETUSER webservicemonitor ")).expect("a line");
    redis.create_user(user);
    let url = redis.url().replace("//", "//webservicemonitor:password@");
    let args = ["--state", "redis", "--redis", &url];
    for _ in 0..5 {
        assert_eq!(site.once(&args).status, 0);
    }
    assert_eq!(site.starts().len(), 3);
    let kept: Vec<u64> = serde_json::from_str(&redis.cli(&["HGET", "monitor:starts", "hello"])).unwrap();
    assert_eq!(kept.len(), 3);

    redis.cli(&["HSET", "monitor:starts", "hello", "soon"]);
    let ended = site.once(&args);
    assert_eq!(ended.status, 1);
    assert!(
        ended.log.contains("nothing is restarted for one window, or until the accept file is touched"),
        "{}",
        ended.log
    );
    redis.stop();
    let ended = site.once(&args);
    assert!(ended.status == 1 && ended.log.contains("while asking Redis"), "{}", ended.log);
    assert_eq!(site.starts().len(), 3);
}

/// Runs a round that must be suspended, with these words in the log.
#[track_caller]
fn assert_suspended(site: &Site, args: &[&str], words: &str) {
    let ended = site.once(args);
    assert!(
        ended.log.contains("ERROR round suspended; nothing is restarted") && ended.log.contains(words),
        "{words}: {}",
        ended.log
    );
    assert_eq!(ended.status, 1, "{words}");
    assert_eq!(site.starts(), [""; 0], "{words}");
    assert_eq!(site.service_log("gone"), "", "{words}");
}

#[test]
fn missing_list_suspends_the_round() {
    let Some(site) = site_of_all_states() else { return };
    let quick = ["--list-timeout", "300ms"];
    site.set_list(&[]);
    assert_suspended(&site, &quick, "the proxy's list is empty, but 6 tools are wanted");
    for (status, body) in [(503, "{\"up\":{\"status\":\"active\"}}"), (404, "{}"), (301, ""), (204, "")] {
        site.set_answer(status, body);
        assert_suspended(&site, &quick, &format!("responds with status {status}"));
    }
    for body in ["", "[]", "null", "<html>", "{\"up\":{\"status\":\"active\"}", "{\"up\":1}"] {
        site.set_answer(200, body);
        assert_suspended(&site, &quick, "in the list of 127.0.0.1");
    }
    let cut_short = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"up\":{\"status\":\"active\"}}";
    for bytes in [cut_short, "HTTP/1.1 200 OK\r\n", "hello\r\n\r\n", ""] {
        site.set_bytes(Answer::Bytes(bytes.into()));
        assert_suspended(&site, &quick, "while fetching the list of 127.0.0.1");
    }
    site.set_bytes(Answer::Silence);
    assert_suspended(&site, &quick, "no complete response within 300ms");
    assert_suspended(&site, &["--list-url", "http://127.0.0.1:1/list"], "while fetching the list of 127.0.0.1");
    site.set_list(&["up"]);
    assert_eq!(site.once(&quick).status, 0);
    assert_eq!(site.starts().len(), 3);
}

#[test]
fn failed_qstat_suspends_the_round() {
    let Some(site) = site_of_all_states() else { return };
    let whole = fs::read(site.path("qstat.xml")).unwrap();
    let quick = ["--qstat-timeout", "300ms"];
    for (script, words) in [
        (r#"cat "$DIR/qstat.xml"; echo no commd >&2; exit 1"#, "no commd"),
        ("exec sleep 1000", "timed out after 300ms and was killed"),
        (r#"cat "$DIR/qstat.xml"; exec sleep 1000"#, "timed out after 300ms and was killed"),
        ("kill -9 $$", "signal: 9"),
        ("echo 'error: commlib error'", "no complete job_info"),
        ("true", "no complete job_info"),
        (r#"head -c 200 "$DIR/qstat.xml""#, "qstat"),
    ] {
        site.script("qstat", script);
        assert_suspended(&site, &quick, words);
    }
    assert_suspended(&site, &["--qstat", "/nowhere/qstat -xml"], "while starting");
    site.set_qstat_output(&whole);
    assert_eq!(site.once(&quick).status, 0);
    assert_eq!(site.starts().len(), 3);
}

#[test]
fn unreadable_manifests_or_state_suspend_the_round() {
    let Some(site) = site_of_all_states() else { return };
    let elsewhere = site.text("nowhere/*/service.manifest");
    let ended = site.once(&["--manifests", &elsewhere]);
    assert!(ended.status == 1 && ended.log.contains("while reading the tools' directories"), "{}", ended.log);
    fs::create_dir(site.path("state.new")).unwrap();
    assert_suspended(&site, &[], "while writing");
    fs::remove_dir(site.path("state.new")).unwrap();
    fs::remove_file(site.path("state")).ok();
    fs::create_dir(site.path("state")).unwrap();
    assert_suspended(&site, &[], "while reading");
    fs::remove_dir(site.path("state")).unwrap();
    assert_eq!(site.once(&[]).status, 0);
    assert_eq!(site.starts().len(), 3);
}

#[test]
fn corrupt_history_suspends_for_one_window() {
    let Some(site) = site_of_all_states() else { return };
    fs::write(site.path("state"), "{\"starts\":").unwrap();
    assert_suspended(&site, &[], "restart history is corrupt");
    assert_eq!(fs::read_to_string(site.path("state.corrupt")).unwrap(), "{\"starts\":");
    assert_suspended(&site, &[], "the restart history was lost");
    fs::write(site.path("accept"), "").unwrap();
    assert_eq!(site.once(&[]).status, 0, "accepted by the operator");
    assert_eq!(site.starts().len(), 3);
}

#[test]
fn clock_set_back_lifts_no_limit() {
    let Some(site) = Site::with(&["hello"]) else { return };
    let later = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 86_400;
    fs::write(site.path("state"), format!("{{\"starts\":{{\"hello\":[{later},{later},{later}]}},\"rounds\":{{}}}}"))
        .unwrap();
    assert_eq!(site.once(&["--dry-run"]).line("hello")[5], "throttled");
    assert_eq!(site.once(&[]).status, 0);
    assert!(site.starts().is_empty());
    let kept = fs::read_to_string(site.path("state")).unwrap();
    assert!(!kept.contains(&later.to_string()), "the limit lasts no day: {kept}");
}

fn names(from: usize, to: usize) -> Vec<String> {
    (from..to).map(|number| format!("tool-{number:02}")).collect()
}

fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

#[test]
fn sudden_drop_is_accepted_only_when_it_lasts() {
    let all = names(0, 30);
    let Some(site) = Site::with(&borrowed(&all)) else { return };
    let up = |names: &[String]| site.set_jobs(&names.iter().map(|name| (&**name, "r", 5000)).collect::<Vec<_>>());
    let listed = |names: &[String]| site.set_list(&borrowed(names));
    up(&all);
    listed(&all);
    assert_eq!(site.once(&[]).status, 0);

    listed(&all[..14]);
    for _ in 0..3 {
        let ended = site.once(&[]);
        assert!(ended.status == 1 && ended.log.contains("lists 14 of the wanted tools, down from 30"), "{}", ended.log);
    }
    listed(&all);
    assert_eq!(site.once(&[]).status, 0, "the drop is over");
    up(&all[..14]);
    for _ in 0..3 {
        let ended = site.once(&[]);
        assert!(
            ended.status == 1 && ended.log.contains("lists jobs of 14 wanted tools, down from 30"),
            "{}",
            ended.log
        );
    }
    assert!(site.starts().is_empty());
    assert_eq!(site.once(&[]).status, 0, "the drop lasts");
    assert_eq!(site.starts().len(), 10, "--max-starts");

    site.forget_starts();
    assert_eq!(site.once(&[]).status, 0);
    let firsts: Vec<_> = site.starts().iter().map(|start| start.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(firsts.len(), 10);
    assert!(names(24, 30).iter().all(|name| firsts.contains(name)), "those restarted least come first: {firsts:?}");
}

#[test]
fn operator_lets_a_drop_through() {
    let all = names(0, 30);
    let Some(site) = Site::with(&borrowed(&all)) else { return };
    site.set_jobs(&all.iter().map(|name| (&**name, "r", 5000)).collect::<Vec<_>>());
    site.set_list(&borrowed(&all));
    assert_eq!(site.once(&[]).status, 0);
    site.set_list(&[]);
    for _ in 0..5 {
        assert_eq!(site.once(&[]).status, 1, "never by itself");
    }
    fs::write(site.path("accept"), "").unwrap();
    let ended = site.once(&["--max-starts", "2"]);
    assert!(ended.status == 0 && ended.log.contains("accepted by the operator"), "{}", ended.log);
    assert_eq!(site.starts().len(), 2);
    assert_eq!(site.once(&[]).status, 1, "once");
}

#[test]
fn failed_start_counts_and_hanging_start_does_not() {
    let Some(site) = Site::with(&["hello"]) else { return };
    site.script("start", r#"echo "$1" >> "$DIR/starts"; printf 'quota\033[1m\nexceeded\n' >&2; exit 7"#);
    let ended = site.once(&[]);
    assert_eq!(ended.status, 0);
    assert!(
        ended.log.contains("WARN restart failed; it counts") && ended.log.contains("exit status: 7"),
        "{}",
        ended.log
    );
    let log = site.service_log("hello");
    assert!(
        log.contains("Restarting the web service failed") && log.contains("exit status: 7: quota [1m exceeded"),
        "{log}"
    );

    site.script("start", r#"echo "$1" >> "$DIR/starts"; exec sleep 1000"#);
    let ended = site.once(&["--start-timeout", "300ms"]);
    assert!(ended.log.contains("timed out after 300ms and was killed"), "{}", ended.log);
    assert!(
        site.service_log("hello").contains("failed before its command began, and does not count: "),
        "{}",
        site.service_log("hello")
    );
    assert_eq!(site.once(&["--start-command", "/nowhere/start {tool}"]).status, 0);
    assert_eq!(site.once(&["--dry-run"]).line("hello")[4..6], ["1", "backing_off"], "only the first counts");
    assert_eq!(site.once(&[]).status, 0);
    assert_eq!(site.starts().len(), 2, "it backs off");
    site.script("start", r#"echo "$1" >> "$DIR/starts""#);
    wait_for("the end of two short rounds", || {
        assert_eq!(site.once(&["--interval", "1ms"]).status, 0);
        site.starts().len() == 3
    });
}

#[test]
fn parallel_starts_are_limited() {
    let all = names(0, 8);
    let Some(site) = Site::with(&borrowed(&all)) else { return };
    // Each runs until two have run at a time, and notes how many run.
    site.script(
        "start",
        r#"mkdir -p "$DIR/now"; : > "$DIR/now/$1"
        until [ -e "$DIR/met" ]; do [ "$(ls "$DIR/now" | wc -l)" -ge 2 ] && : > "$DIR/met"; sleep 0.01; done
        ls "$DIR/now" | wc -l >> "$DIR/starts"; rm "$DIR/now/$1""#,
    );
    assert_eq!(site.once(&["--parallel", "2"]).status, 0);
    let counts = site.starts();
    assert!(
        counts.len() == 8 && site.path("met").exists() && counts.iter().all(|n| n == "1" || n == "2"),
        "{counts:?}"
    );
}

#[test]
fn web_service_that_was_stopped_meanwhile_is_not_restarted() {
    let all = names(0, 2);
    let Some(site) = Site::with(&borrowed(&all)) else { return };
    // The first start stops all web services.
    site.script("start", r#"echo "$1" >> "$DIR/starts"; for home in "$DIR"/project/*/; do echo 'version: 4' > "$home/service.manifest"; done"#);
    assert_eq!(site.once(&["--parallel", "1"]).status, 0);
    assert_eq!(site.starts().len(), 1);
}

#[test]
fn first_active_proxy_with_a_list_counts() {
    let Some(site) = site_of_all_states() else { return };
    let url = format!("http://HOST:{}/list", site.list_port());
    let file = site.text("active-proxy");
    let args = ["--list-url", &url, "--active-proxy-file", &file, "--list-timeout", "2s"];
    assert_suspended(&site, &args, "while reading the active-proxy file");
    fs::write(&file, "# none\n").unwrap();
    assert_suspended(&site, &args, "no proxy in the active-proxy file");
    fs::write(&file, "no-such-host.invalid\n127.0.0.1\n").unwrap();
    assert_eq!(site.once(&args).status, 0);
    assert_eq!(site.starts().len(), 3);
}

#[test]
fn usage_errors_exit_with_64() {
    for (args, words) in [
        (&["--list-url", "https://HOST/list"][..], "expected e.g."),
        (&["--manifests", "/data/*"], "expected e.g."),
        (&["--start-command", "x {toll}"], "expected {tool}"),
        (&["--project", "a/b", "--distribution", "bookworm"], "invalid project"),
        (&["--project", "tools"], "requires --distribution"),
        (&["--interval", "0s"], "invalid duration"),
        (&["append-service-log"], "unexpected argument"),
    ] {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_webservicemonitor"));
        if args[0] != "--list-url" {
            command.args(["--list-url", "http://HOST:8081/list"]);
        }
        let output = command.args(args).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(64) && error.contains(words), "{args:?}: {error}");
    }
}

#[test]
fn state_file_belongs_to_one_monitor() {
    let Some(site) = Site::with(&["hello"]) else { return };
    site.set_jobs(&[("hello", "qw", 5)]);
    let daemon = site.daemon(&["--metrics-listen", "127.0.0.1:0"], &[]);
    daemon.wait_for_line(&["metrics endpoint listening"]);
    wait_for("the first round is kept", || site.path("state").exists());
    let ended = site.once(&[]);
    assert!(ended.status == 1 && ended.log.contains("another webservicemonitor runs"), "{}", ended.log);
    assert_eq!(site.once(&["--dry-run"]).line("hello")[5], "pending", "a dry run needs no lock");
}
