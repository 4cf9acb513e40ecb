//! urlproxyctl with a real nginx and a real Redis.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::thread;

use serde_json::{Value, json};

use crate::live::Pty;
use crate::program::{Run, change, command, fields, finish};
use crate::support::nginx::{Nginx, Tool};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// nginx and Redis, with a location for the admin API.
struct Site {
    nginx: Nginx,
    redis: RedisServer,
}

impl Site {
    fn start() -> Self {
        Self::with("")
    }

    /// Starts both, with further lines in the table's block.
    fn with(table: &str) -> Self {
        let redis = RedisServer::start(&[]);
        let http = format!(
            "urlproxy_table tools {{ zone 2m; redis {}; {table} }}
            upstream backends {{ urlproxy_peers; }}
            server {{
                listen 127.0.0.1:@port@;
                server_name tools.example.org;
                location /admin/ {{ urlproxy_admin tools; }}
                location / {{ urlproxy tools path; proxy_pass http://backends; }}
            }}",
            redis.url()
        );
        let nginx = Nginx::start("", &http);
        let site = Self { nginx, redis };
        wait_for("a table in step", || {
            let run = site.ctl(&["status"]);
            assert!(!run.stdout.contains("nreachable"), "connecting is no outage: {run:?}");
            run.status == 0
        });
        site
    }

    fn command(&self, args: &[&str]) -> std::process::Command {
        let mut command = command(args);
        command.env("URLPROXY_REDIS", self.redis.url());
        command.env("URLPROXYCTL_ADMIN", format!("http://127.0.0.1:{}/admin", self.nginx.port));
        command
    }

    fn ctl(&self, args: &[&str]) -> Run {
        finish(&mut self.command(args))
    }

    /// Repeats a command until it ends with this status.
    #[track_caller]
    fn wait_for(&self, args: &[&str], status: i32) -> Run {
        let mut last = None;
        wait_for(&format!("{args:?} ends with {status}"), || {
            let run = self.ctl(args);
            let is_there = run.status == status;
            last = Some(run);
            is_there
        });
        last.unwrap().expect(status)
    }

    fn set(&self, tool: &str, pattern: &str, url: &str) {
        change(&self.redis, &["set", tool, pattern, url]).expect(0);
    }
}

#[test]
fn a_route_is_set_seen_explained_and_deleted() {
    let site = Site::start();
    let server = Tool::start("hello");
    let url = format!("http://tools.example.org:{}/hello/x?y=1", site.nginx.port);
    let run = site.ctl(&["lookup", &url]).expect(1);
    assert!(run.stderr.contains("hello"), "{run:?}");
    site.set("hello", ".*", &server.url());
    site.set("hello", "^/api", "http://192.0.2.1:80");
    site.nginx.wait_for_status("/hello/x", 200);
    let run = site.wait_for(&["lookup", &url], 0);
    assert_eq!(run.stdout, format!("{}\n", server.url()));
    let run = site.ctl(&["explain", &url]).expect(0);
    for part in [
        "of server tools.example.org",
        "^/api of \"hello\" does not match \"/x\"",
        ".* of \"hello\" matches \"/x\"",
        "result     route: ",
    ] {
        assert!(run.stdout.contains(part), "{part}: {run:?}");
    }
    let explained = site.ctl(&["explain", &url, "--json"]).expect(0).json();
    assert_eq!(fields(&explained), ["decisions", "host", "omitted", "table", "uri"]);
    let listed = site.ctl(&["list", "--json"]).expect(0).json();
    assert_eq!(listed["items"][0]["routes"][1]["pattern"], ".*");
    let run = site.ctl(&["diff"]).expect(0);
    assert_eq!(run.stdout, "in step; records: Redis 1, table 1\n");
    site.ctl(&["delete", "hello", "--yes"]).expect(0);
    site.wait_for(&["lookup", &url], 1);
    site.ctl(&["list"]).expect(1);
}

#[test]
fn hostile_names_reach_no_terminal() {
    let site = Site::start();
    let name = "a\u{202e}\"<b>'é工%2f\\";
    site.set(name, "\u{202e}\"", "http://192.0.2.1:80");
    site.redis.cli(&["HSET", "prefix:evil\u{1b}[2J", ".*", "http://192.0.2.1:80"]);
    site.redis.cli(&["HSET", "prefix:bad", "(\u{202e}", "http://192.0.2.1:81"]);
    let run = site.wait_for(&["list"], 0);
    assert!(run.stdout.contains("a\\u{202e}\"<b>'é工%2f\\"), "{run:?}");
    wait_for("rejected routes", || {
        let listed = site.ctl(&["rejected", "--json"]).json();
        listed["items"].as_array().unwrap().len() == 2
    });
    site.ctl(&["rejected"]).expect(1);
    let listed = site.ctl(&["rejected", "--json"]).expect(1).json();
    assert_eq!(fields(&listed), ["items", "table", "total"]);
    assert_eq!(fields(&listed["items"][0]), ["key", "kind", "name", "pattern", "reason", "text"]);
    let path = "/a%E2%80%AE%22%3Cb%3E'%C3%A9%E5%B7%A5%252f%5C/%E2%80%AE%22";
    let run = site.ctl(&["explain", path]).expect(0);
    assert!(run.stdout.contains("backend    http://192.0.2.1:80"), "{run:?}");
    site.ctl(&["diff"]).expect(0);
    site.ctl(&["top", "--count", "1"]).expect(0);
    let check = site.ctl(&["check", "--json"]).expect(1).json();
    let rejected: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| item["reason"].clone()).collect();
    let found = check["findings"].as_array().unwrap().iter().filter(|finding| finding["effect"] == "refused");
    let mut found: Vec<Value> = found.map(|finding| finding["finding"].clone()).collect();
    // check names the same reasons as nginx.
    let mut rejected = rejected;
    rejected.sort_by_key(Value::to_string);
    found.sort_by_key(Value::to_string);
    assert_eq!(found, rejected);
}

#[test]
fn status_has_the_documented_json_and_tells_an_outage() {
    let mut site = Site::start();
    let status = site.ctl(&["status", "--json"]).expect(0).json();
    for field in
        ["table", "now", "summary", "counts", "capacity", "generation", "source", "held", "snapshot", "rejected"]
    {
        assert!(status.get(field).is_some(), "{field}: {status}");
    }
    assert_eq!(status["summary"]["state"], "in_step");
    site.redis.stop();
    let run = site.wait_for(&["status"], 1);
    assert!(run.stdout.contains("unreachable since"), "{run:?}");
    site.ctl(&["diff"]).expect(2);
}

#[test]
fn watch_sees_changes() {
    let site = Site::start();
    let mut child =
        site.command(&["watch", "--json", "--count", "2", "--after", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (sender, seen) = mpsc::channel::<Value>();
    thread::spawn(move || {
        lines.map_while(Result::ok).for_each(|line| sender.send(serde_json::from_str(&line).unwrap()).unwrap())
    });
    site.set("hello", ".*", "http://192.0.2.1:80");
    let added = seen.recv_timeout(crate::support::wait::SOON).unwrap();
    assert_eq!(fields(&added), ["at", "backend", "change", "kind", "name", "routes", "seq"]);
    assert_eq!((added["change"].as_str(), added["name"].as_str()), (Some("added"), Some("hello")));
    change(&site.redis, &["delete", "hello", ".*"]).expect(0);
    assert_eq!(seen.recv_timeout(crate::support::wait::SOON).unwrap()["change"], "removed");
    assert!(child.wait().unwrap().success());
}

#[test]
fn accepted_removals_are_withdrawn() {
    let dir = tempfile::tempdir().unwrap();
    let accept = dir.path().join("accept");
    let file = accept.to_str().unwrap();
    let site =
        Site::with(&format!("withdrawal_guard 50% floor=20 hold=1h accept={}; resync_interval 1s;", accept.display()));
    let fill = "for i = 1, 40 do redis.call('HSET', 'prefix:t' .. i, '.*', 'http://192.0.2.1:' .. i) end";
    site.redis.cli(&["EVAL", fill, "0"]);
    wait_for("all tools", || site.ctl(&["list"]).stdout.lines().count() == 41);
    site.ctl(&["accept-withdrawal", "--file", file]).expect(1);
    site.redis.cli(&["FLUSHALL"]);
    let run = site.wait_for(&["status"], 1);
    assert!(run.stdout.contains("removal of 40 records held back"), "{run:?}");
    let run = site.ctl(&["diff"]).expect(1);
    assert!(run.stdout.contains("extra") && run.stderr.contains("the table holds 40 records"), "{run:?}");
    let run = site.ctl(&["accept-withdrawal", "--file", file, "t7"]).expect(0);
    assert_eq!(run.stdout, "accepted: 1 record no longer held; 39 records still held\n");
    assert!(!site.ctl(&["list"]).expect(0).stdout.contains(" t7 "));
    let run = site.ctl(&["accept-withdrawal", "--file", file]).expect(0);
    assert_eq!(run.stdout, "accepted: 39 records no longer held\n");
    site.ctl(&["list"]).expect(1);
    site.wait_for(&["status"], 0);
}

#[test]
fn diff_reads_the_snapshot_of_nginx() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::with(&format!("snapshot {}/tools.snapshot;", dir.path().display()));
    site.set("hello", ".*", "http://192.0.2.1:80");
    wait_for("a compared snapshot", || {
        site.ctl(&["diff"]).stdout == "in step; records: Redis 1, table 1, snapshot 1\n"
    });
}

#[test]
fn top_shows_traffic() {
    let site = Site::start();
    let server = Tool::start("hello");
    site.set("hello", ".*", &server.url());
    site.nginx.wait_for_status("/hello/", 200);
    let mut pty = Pty::start(site.command(&["top", "--interval", "100ms"]));
    pty.wait_for("hello");
    for _ in 0..20 {
        site.nginx.get("/hello/");
    }
    pty.wait_for(&server.url());
    wait_for("the requests", || {
        let top = site.ctl(&["top", "--count", "1", "--json"]).expect(0).json();
        top["items"][0]["requests"][1].as_u64().unwrap() >= 20
    });
    pty.write("q");
    assert_eq!(pty.wait_for_end(), Some(0));
}

#[test]
fn a_proxy_drains_and_returns() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("out-of-service");
    let path = file.to_str().unwrap();
    let site = Site::with(&format!("drain_file {path};"));
    let server = Tool::start("hello");
    site.set("hello", ".*", &server.url());
    site.nginx.wait_for_status("/hello/", 200);
    assert_eq!(site.nginx.get("/admin/ready").status, 200);
    let run = site.ctl(&["drain", "--file", path]).expect(0);
    let why = format!("draining, because {path} exists");
    assert_eq!(run.stdout, format!("created {path}; /ready of table tools answers 503: {why}\n"));
    assert_eq!(site.nginx.get("/admin/ready").status, 503);
    let run = site.ctl(&["status"]).expect(1);
    assert!(run.stdout.starts_with(&format!("Not ready: {why}. In step with Redis: 1 tool")), "{run:?}");
    assert_eq!(site.ctl(&["status", "--json"]).expect(1).json()["summary"]["state"], "not_ready");
    assert_eq!(site.nginx.get("/hello/").status, 200, "requests are served on");
    let json = site.ctl(&["drain", "--undo", "--file", path, "--json"]).expect(0).json();
    let want = json!({"file": path, "action": "removed", "ready": true, "draining": false, "not_ready_because": null, "error": null});
    assert_eq!(json, want);
    site.ctl(&["status"]).expect(0);
}
