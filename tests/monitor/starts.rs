//! webservicemonitor's start commands: which ones count, their order, their environment, and the lock between monitors.

use std::collections::BTreeMap;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::site::Site;
use crate::support::program::copy_program;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// A tool's number of restarts, and the decision.
fn decision(site: &Site, tool: &str, args: &[&str]) -> [String; 2] {
    let line = site.once(&[&["--dry-run"], args].concat()).line(tool);
    [line[4].clone(), line[5].clone()]
}

#[test]
fn hanging_logins_cost_other_tools_neither_restarts_nor_order() {
    let Some(site) = Site::with(&["a-hangs", "b-hangs", "c", "d"]) else { return };
    site.script("start", r#"case $1 in *-hangs) exec sleep 1000;; esac; echo "$@" >> "$DIR/starts""#);
    let args = ["--max-starts", "2", "--start-timeout", "300ms"];
    assert_eq!(site.once(&args).status, 0);
    assert!(site.starts().is_empty(), "the first two hang");
    assert_eq!(site.once(&args).status, 0);
    let started: Vec<_> = site.starts().iter().map(|start| start[..1].to_owned()).collect();
    assert_eq!(started, ["c", "d"], "the others come next");
    for (tool, starts) in [("a-hangs", "0"), ("b-hangs", "0"), ("c", "1"), ("d", "1")] {
        assert_eq!(decision(&site, tool, &[])[0], starts, "{tool}");
    }
    for tool in ["a-hangs", "b-hangs"] {
        let log = site.service_log(tool);
        assert!(log.contains("restarting it, 1 of 3 times") && log.contains("does not count"), "{log}");
    }
}

#[test]
fn tools_not_reached_are_not_counted() {
    let Some(site) = Site::with(&["a", "b"]) else { return };
    site.script("start", r#": > "$DIR/begun"; until [ -e "$DIR/go" ]; do sleep 0.01; done"#);
    let mut daemon = site.daemon(&["--parallel", "1"], &[]);
    wait_for("a start is under way", || site.path("begun").exists());
    daemon.signal("TERM");
    daemon.wait_for_line(&["stopping; waiting for restarts in progress"]);
    fs::write(site.path("go"), "").unwrap();
    assert_eq!(daemon.wait_for_end(), 0);
    assert_eq!(decision(&site, "a", &[])[0], "1");
    assert_eq!(decision(&site, "b", &[]), ["0", "restart"]);
}

#[test]
fn longest_waiting_tool_starts_first() {
    let Some(site) = Site::with(&["a-new", "waiting"]) else { return };
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 100;
    let state = format!(r#"{{"starts":{{"waiting":[{before}]}},"rounds":{{"waiting":{{"waiting":{before}}}}}}}"#);
    fs::write(site.path("state"), state).unwrap();
    assert_eq!(site.once(&["--max-starts", "1"]).status, 0);
    assert_eq!(site.starts(), ["waiting tools.waiting bookworm lighttpd"], "although the other was never restarted");
    assert_eq!(site.once(&["--max-starts", "1"]).status, 0);
    assert_eq!(site.starts().len(), 2);
    assert_eq!(decision(&site, "a-new", &[])[0], "1");
}

#[test]
fn start_counts_once_the_tools_own_command_begins() {
    let Some(site) = Site::with(&["hello"]) else { return };
    site.script("webservice", r#"echo "$@" "$WEBSERVICE_BY_MONITOR" >> "$DIR/starts"; eval "$(cat "$DIR/then")""#);
    let command = format!("{} {{begin}} {} {{tool}} {{type}}", site.text("login"), site.text("webservice"));
    for (case, (login, then, starts, words)) in [
        ("exec sleep 1000", "true", "0", "timed out after 2s and was killed"),
        ("exit 0", "true", "0", "the login ended before the command began"),
        ("echo account expired >&2; exit 1", "true", "0", "exit status: 1: account expired"),
        (r#""$@" extra"#, "true", "1", ""),
        (r#"exec "$@""#, "exec sleep 1000", "1", "Restarting the web service failed: "),
        (r#"exec "$@""#, "exit 7", "1", "exit status: 7: ."),
        (r#"shift 2; exec "$0.gone""#, "true", "0", "exit status: 127"),
    ]
    .into_iter()
    .enumerate()
    {
        site.script("login", login);
        fs::write(site.path("then"), then).unwrap();
        let state = site.text(&format!("state-{case}"));
        let old_len = site.service_log("hello").len();
        let ended = site.once(&["--start-command", &command, "--state", &state, "--start-timeout", "2s"]);
        assert_eq!(ended.status, 0, "{}", ended.log);
        let log = site.service_log("hello").split_off(old_len);
        assert!(log.contains(words), "{login} {then}: {log}");
        assert_eq!(log.contains("does not count"), starts == "0", "{login} {then}: {log}");
        assert_eq!(decision(&site, "hello", &["--state", &state])[0], starts, "{login} {then}");
    }
    assert_eq!(site.starts().len(), 3);
    assert!(site.starts().contains(&"hello lighttpd 1".to_owned()), "{:?}", site.starts());
}

#[test]
fn starts_begin_after_the_program_was_replaced() {
    let Some(mut site) = Site::with(&["hello"]) else { return };
    let installed = site.path("monitor");
    let program = std::mem::replace(&mut site.program, installed);
    copy_program(&program, &site.program);
    site.script("login", r#"exec "$@""#);
    site.set_jobs(&[("hello", "qw", 1)]);
    let command = format!("{} {{begin}} {} {{tool}}", site.text("login"), site.text("start"));
    let daemon = site.daemon(&["--start-command", &command, "--interval", "100ms"], &[]);
    wait_for("a round", || site.path("state").exists());
    // As a package upgrade does.
    copy_program(&program, &site.path("monitor.new"));
    fs::rename(site.path("monitor.new"), &site.program).unwrap();
    site.set_jobs(&[]);
    wait_for("a start", || site.service_log("hello").contains("restarting it"));
    wait_for("its command", || site.starts().first().is_some_and(|start| start == "hello"));
    assert!(!daemon.log().contains("does not count"), "{}", daemon.log());
}

/// The variables that a script has recorded.
fn environment(site: &Site, file: &str) -> BTreeMap<String, String> {
    let text = fs::read_to_string(site.path(file)).unwrap();
    text.lines().filter_map(|line| line.split_once('=')).map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn only_allowed_variables_reach_commands() {
    let Some(site) = Site::with(&["hello"]) else { return };
    site.script("start", r#"env > "$DIR/env.start""#);
    site.script("qstat", r#"env > "$DIR/env.qstat"; cat "$DIR/qstat.xml""#);
    let own = [
        ("URLPROXY_REDIS", "redis://user:secret@127.0.0.1:1/0"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("LANG", "C.UTF-8"),
        ("SGE_ROOT", "/sge"),
        ("KRB5CCNAME", "/tmp/krb"),
    ];
    assert_eq!(site.once_in(&[], &own).status, 0);
    // The shell adds its own.
    let allowed = ["PATH", "LANG", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "OLDPWD", "SHLVL", "_"];
    let given = environment(&site, "env.start");
    assert!(given.keys().all(|name| allowed.contains(&&**name)), "{given:?}");
    assert_eq!(given["LANG"], "C.UTF-8");
    assert!(given.contains_key("PATH"));
    let given = environment(&site, "env.qstat");
    let allowed = [&allowed[..], &["SGE_ROOT", "TZ"]].concat();
    assert!(given.keys().all(|name| allowed.contains(&&**name)), "{given:?}");
    assert_eq!((&*given["SGE_ROOT"], &*given["TZ"]), ("/sge", "UTC"));

    assert_eq!(site.once_in(&["--start-environment", "SGE_ROOT,KRB5CCNAME"], &own).status, 0);
    let given = environment(&site, "env.start");
    assert_eq!((&*given["SGE_ROOT"], &*given["KRB5CCNAME"]), ("/sge", "/tmp/krb"));
    assert!(!given.values().any(|value| value.contains("secret")), "{given:?}");
}

/// Any user can read a process's arguments.
#[test]
fn service_log_lines_are_not_in_arguments() {
    let Some(site) = Site::with(&["hello"]) else { return };
    let args = ["--interval", "1ms", "--max-restarts", "1000"];
    let daemon = site.daemon(&args, &[]);
    let children = format!("/proc/{0}/task", daemon.pid());
    let mut appenders = BTreeMap::new();
    wait_for("ten processes that write", || {
        for task in fs::read_dir(&children).into_iter().flatten().flatten() {
            let pids = fs::read_to_string(task.path().join("children")).unwrap_or_default();
            for pid in pids.split_whitespace() {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let command = String::from_utf8_lossy(&command).replace('\0', " ");
                if command.contains("append-service-log") {
                    appenders.insert(pid.to_owned(), command);
                }
            }
        }
        appenders.len() >= 10
    });
    assert!(appenders.values().all(|command| !command.contains("web service")), "{appenders:?}");
    wait_for("the text", || site.service_log("hello").contains("The web service is not running: restarting it, "));
}

#[test]
fn second_monitor_on_a_redis_stands_by_until_the_first_ends() {
    let Some(site) = Site::with(&["hello"]) else { return };
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    let args = ["--state", "redis", "--redis", &url];
    let mut daemon = site.daemon(&[&args[..], &["--interval", "100ms"]].concat(), &[]);
    wait_for("three restarts", || site.starts().len() == 3);
    let ended = site.once(&args);
    assert_eq!(ended.status, 1);
    assert!(ended.log.contains("another webservicemonitor runs: "), "{}", ended.log);
    assert_eq!(decision(&site, "hello", &args), ["3", "throttled"], "a dry run needs no lock");
    assert!(!daemon.log().contains("round suspended"), "{}", daemon.log());
    // A second daemon waits for the lock.
    let other = site.daemon(&[&args[..], &["--interval", "100ms"]].concat(), &[]);
    other.wait_for_line(&["ERROR", "round suspended", "another webservicemonitor runs"]);
    daemon.signal("TERM");
    assert_eq!(daemon.wait_for_end(), 0);
    other.wait_for_line(&["INFO", "rounds resumed"]);
    assert_eq!(site.starts().len(), 3, "it has the first one's history");

    // After a kill the lock lasts until it expires.
    other.signal("KILL");
    assert_eq!(site.once(&args).status, 1);
    assert!(redis.cli(&["PTTL", "monitor:lock"]).parse::<u64>().unwrap() > 0);
    redis.cli(&["DEL", "monitor:lock"]);
    assert_eq!(site.once(&args).status, 0);
    assert_eq!(redis.cli(&["EXISTS", "monitor:lock"]), "0", "released");
    assert_eq!(site.starts().len(), 3);
}

#[test]
fn two_monitors_share_the_limit_after_one_was_stopped() {
    let Some(site) = Site::with(&["hello"]) else { return };
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    let args = ["--state", "redis", "--redis", &url];
    site.set_jobs(&[("hello", "qw", 1)]);
    let daemon = site.daemon(&[&args[..], &["--interval", "100ms"]].concat(), &[]);
    wait_for("a round", || redis.cli(&["EXISTS", "monitor:rounds"]) == "1");
    daemon.signal("STOP");
    // As if it had been stopped for longer than its lock lasts.
    redis.cli(&["DEL", "monitor:lock"]);
    site.set_jobs(&[]);
    for _ in 0..2 {
        assert_eq!(site.once(&args).status, 0);
    }
    assert_eq!(site.starts().len(), 2);
    daemon.signal("CONT");
    daemon.wait_for_line(&["tool not restarted", "throttled"]);
    assert_eq!(site.starts().len(), 3, "{}", daemon.log());

    // Its own restarts survive the loss of Redis's data.
    redis.cli(&["FLUSHALL"]);
    wait_for("its history is written again", || {
        redis.cli(&["HGET", "monitor:starts", "hello"]).split(',').count() == 3
    });
    assert_eq!(site.starts().len(), 3, "{}", daemon.log());
}

#[test]
fn monitor_without_facts_releases_the_lock() {
    let Some(site) = Site::with(&["hello"]) else { return };
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    let args = ["--state", "redis", "--redis", &url, "--interval", "100ms"];
    site.script("broken", "exit 1");
    let blind = site.daemon(&[&args[..], &["--qstat", &site.text("broken")]].concat(), &[]);
    blind.wait_for_line(&["ERROR", "round suspended", "exit status: 1"]);
    let other = site.daemon(&args, &[]);
    other.wait_for_line(&["tool not restarted", "throttled"]);
    assert_eq!(site.starts().len(), 3);
    // Its facts are back: one of them restarts, and both know all restarts.
    site.script("broken", r#"exec "$DIR/qstat""#);
    blind.wait_for_line(&["ERROR", "round suspended", "another webservicemonitor runs"]);
    other.signal("TERM");
    blind.wait_for_line(&["INFO", "rounds resumed"]);
    assert_eq!(site.starts().len(), 3);
}

#[test]
fn monitor_that_lost_its_lock_writes_and_starts_nothing_more() {
    let Some(site) = Site::with(&["a", "b"]) else { return };
    let redis = RedisServer::start(&[]);
    let url = redis.url();
    site.script(
        "start",
        r#": > "$DIR/begun"; until [ -e "$DIR/go" ]; do sleep 0.01; done; echo "$1" >> "$DIR/starts""#,
    );
    let daemon = site.daemon(&["--state", "redis", "--redis", &url, "--parallel", "1"], &[]);
    wait_for("a start is under way", || site.path("begun").exists());
    let time_left = || redis.cli(&["PTTL", "monitor:lock"]).parse::<i64>().unwrap();
    let least = std::cell::Cell::new(i64::MAX);
    wait_for("the lock is renewed meanwhile", || {
        least.set(least.get().min(time_left()));
        time_left() > least.get() + 2000
    });
    redis.cli(&["SET", "monitor:lock", "elsewhere:1:2", "PX", "60000"]);
    redis.cli(&["HSET", "monitor:starts", "a", "[1,2,3]"]);
    fs::write(site.path("go"), "").unwrap();
    daemon.wait_for_line(&["restart outcome not saved", "elsewhere:1:2"]);
    daemon.wait_for_line(&[
        "WARN tool not restarted; the restart could not be recorded",
        "tool=\"b\"",
        "elsewhere:1:2",
    ]);
    assert_eq!(site.starts(), ["a"]);
    assert_eq!(redis.cli(&["HGET", "monitor:starts", "a"]), "[1,2,3]", "unchanged");
}

#[test]
fn hanging_login_leaves_no_process_behind() {
    let Some(site) = Site::with(&["hello"]) else { return };
    // One in a session of its own, as sudo with a terminal starts it.
    site.script("start", r#"setsid sh -c 'echo $$ > "$0/pid"; exec sleep 1000' "$DIR" & wait"#);
    let pid = || fs::read_to_string(site.path("pid")).ok()?.trim().parse::<u32>().ok();
    assert_eq!(site.once(&["--start-timeout", "2s"]).status, 0);
    let pid = pid().expect("it had begun");
    let is_there = || {
        let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !status.is_empty() && !status.contains(") Z ")
    };
    wait_for("its end", || !is_there());
}
