//! Commands that ask nginx: `list`, `lookup`, `explain`, `status`, `rejected`, `watch`; exit statuses, `completions` and `man`.

use std::fs;

use serde_json::{Value, json};

use crate::fake_admin::{FakeAdmin, status};
use crate::program::{ask, command, ctl, fields, finish};

/// A name that attacks terminals.
const HOSTILE: &str = "evil\u{1b}[2J\u{9b}31m\u{202e}\u{7f}";
/// How it is shown.
const SHOWN: &str = "evil\\u{1b}[2J\\u{9b}31m\\u{202e}\\u{7f}";

fn routes() -> Value {
    json!({"table": "tools", "generation": 7, "items": [
        {"kind": "tool", "name": "world", "routes": [{"pattern": "/x", "backends": ["http://10.0.0.2:80"]},
                                                     {"pattern": ".*", "backends": ["http://10.0.0.1:80"]}]},
        {"kind": "redirect", "name": "hello"},
        {"kind": "domain", "name": "www.example.org", "routes": [
            {"pattern": ".*", "backends": ["http://10.0.0.3:80", "http://10.0.0.4:80"]}]},
        {"kind": "tool", "name": HOSTILE, "routes": [{"pattern": "\u{202e}", "backends": ["http://10.0.0.9:80"]}]},
    ], "next": null})
}

#[test]
fn list_prints_records_by_name() {
    let admin = FakeAdmin::start();
    admin.set("/api/routes", routes());
    let run = ask(&admin, &["list"]).expect(0);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines.len(), 6, "{run:?}");
    assert!(lines[0].starts_with("KIND      NAME"), "{run:?}");
    assert!(lines[1].contains(SHOWN) && lines[1].contains("\\u{202e}  http://10.0.0.9:80"), "{run:?}");
    assert!(lines[5].starts_with("domain") && lines[5].ends_with("http://10.0.0.3:80 http://10.0.0.4:80"), "{run:?}");
    assert_eq!(ask(&admin, &["list", "WWW"]).expect(0).stdout.lines().count(), 2);
    assert_eq!(ask(&admin, &["list", "--limit", "1"]).expect(0).stdout.lines().count(), 2);
    let run = ask(&admin, &["list", "nothing"]).expect(1);
    assert_eq!(run.stdout, "");
    let domains = ask(&admin, &["list", "--kind", "domain", "--json"]).expect(0).json();
    assert_eq!(domains["items"].as_array().unwrap().len(), 1);
    assert!(admin.asked().last().unwrap().contains("kind=domain"));
}

#[test]
fn list_has_the_documented_json() {
    let admin = FakeAdmin::start();
    admin.set("/api/routes", routes());
    let list = ask(&admin, &["--json", "list"]).expect(0).json();
    assert_eq!(fields(&list), ["items", "table"]);
    let items = list["items"].as_array().unwrap();
    assert_eq!(items[0]["name"], HOSTILE);
    assert_eq!(fields(&items[1]), ["kind", "name", "routes"]);
    assert_eq!(fields(&items[1]["routes"][0]), ["backends", "pattern"]);
}

#[test]
fn pages_of_routes_are_followed() {
    let admin = FakeAdmin::start();
    let mut page = routes();
    page["next"] = "17-ab".into();
    admin.set("/api/routes", page);
    let mut child = command(&["list", "--json"])
        .env("URLPROXYCTL_ADMIN", admin.url())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    crate::support::wait::wait_for("the second page", || {
        admin.asked().iter().any(|target| target.contains("cursor=17-ab"))
    });
    admin.set("/api/routes", routes());
    assert!(child.wait().unwrap().success());
}

fn explanation(result: &str, backends: Value) -> Value {
    json!({"host": "tools.example.org", "uri": "/hello/x?y=1", "table": "tools", "omitted": 0, "decisions": [
        {"server": ["tools.example.org"], "location": "/", "server_matches": true, "location_matches": true,
         "mode": "path", "domain": null,
         "normalized": {"host": "tools.example.org", "path": "/hello/x", "tool": "hello", "rest": "/x"},
         "result": result, "why": "pattern \".*\" of tool \"hello\" matches \"/x\"", "status": null, "redirect": null,
         "tool": "hello", "record": "hello",
         "patterns": [{"record": "hello", "pattern": "^/api", "tested": "/x", "matched": false},
                      {"record": "hello", "pattern": ".*", "tested": "/x", "matched": true}],
         "backends": backends, "origin": {"source": "proxylistener", "owner": HOSTILE, "host": "10.0.0.1", "since": 1790000000}},
        {"server": ["other.example.org"], "location": "/", "server_matches": false, "location_matches": true, "mode": "path",
         "normalized": null, "result": "miss", "why": "other", "patterns": [], "backends": []},
    ]})
}

#[test]
fn lookup_prints_backends_or_says_why_there_are_none() {
    let admin = FakeAdmin::start();
    let url = "https://tools.example.org/hello/x?y=1";
    admin.set(
        "/api/explain",
        explanation("route", json!([{"url": "http://10.0.0.1:8000", "health": "up", "until": null}])),
    );
    let run = ask(&admin, &["lookup", url]).expect(0);
    assert_eq!(run.stdout, "http://10.0.0.1:8000\n");
    assert_eq!(admin.asked().last().unwrap(), "/api/explain?host=tools.example.org&uri=%2Fhello%2Fx%3Fy%3D1");
    assert!(ask(&admin, &["lookup", "/hello/"]).expect(0).stderr.is_empty());
    assert_eq!(admin.asked().last().unwrap(), "/api/explain?uri=%2Fhello%2F");
    let decision = ask(&admin, &["lookup", url, "--json"]).expect(0).json();
    assert_eq!(decision["backends"][0]["url"], "http://10.0.0.1:8000");
    admin.set("/api/explain", explanation("miss", json!([])));
    let run = ask(&admin, &["lookup", url]).expect(1);
    assert!(run.stdout.is_empty() && run.stderr.contains("pattern \".*\""), "{run:?}");
}

#[test]
fn explain_prints_each_step() {
    let admin = FakeAdmin::start();
    let backends = json!([{"url": "http://10.0.0.1:8000", "health": "unavailable", "until": 1790000000},
                          {"url": "http://10.0.0.2:8000", "health": "up", "until": null}]);
    admin.set("/api/explain", explanation("route", backends));
    let run = ask(&admin, &["explain", "http://tools.example.org/hello/x?y=1"]).expect(0);
    for part in [
        "location   / of server tools.example.org\n",
        "request    host \"tools.example.org\", path \"/hello/x\", tool \"hello\", rest \"/x\"",
        "pattern    ^/api of \"hello\" does not match \"/x\"",
        "pattern    .* of \"hello\" matches \"/x\"",
        "result     route: pattern",
        "backend    http://10.0.0.1:8000, unavailable for",
        "backend    http://10.0.0.2:8000, up",
        &format!("origin     proxylistener for {SHOWN} from 10.0.0.1, since 2026-09-21T14:13:20Z"),
    ] {
        assert!(run.stdout.contains(part), "{part}: {run:?}");
    }
    // The location of another server is counted, not shown.
    assert!(!run.stdout.contains("other.example.org") && run.stderr.contains("1 more location"), "{run:?}");
    let json = ask(&admin, &["explain", "/hello/x", "--json"]).expect(0).json();
    assert_eq!(json, explanation("route", json["decisions"][0]["backends"].clone()));
    admin.set("/api/explain", explanation("miss", json!([])));
    ask(&admin, &["explain", "/hello/x"]).expect(1);
}

#[test]
fn status_is_negative_unless_in_step() {
    let admin = FakeAdmin::start();
    let run = ask(&admin, &["status"]).expect(0);
    for part in [
        "In step with Redis: 2 tools, last change 2 s ago.\n",
        "table      tools: 2 tools, 0 redirects, 0 domains, 2 routes",
        "source     redis://127.0.0.1:6379/0, connected since 2026-09-21T11:26:40Z, 2 h ago",
        "compared   2026-09-21T14:13:10Z, 10 s ago",
    ] {
        assert!(run.stdout.contains(part), "{part}: {run:?}");
    }
    assert_eq!(ask(&admin, &["status", "--json"]).expect(0).json(), status());
    let mut bad = crate::fake_admin::status_held(2900, "/run/urlproxy/tools.accept");
    bad["source"]["connected"] = false.into();
    bad["source"]["error"] = HOSTILE.into();
    bad["snapshot"] = json!({"path": "/var/lib/urlproxy/tools.snapshot", "written_at": 1789999700.0, "failed": true});
    bad["rejected"]["routes"] = 3.into();
    admin.set("/api/status", bad);
    let run = ask(&admin, &["status"]).expect(1);
    for part in [
        SHOWN,
        "held       removal of 2,900 records held back until 2026-09-21T14:15:10Z, in 109 s; accept it with: urlproxyctl accept-",
        "snapshot   /var/lib/urlproxy/tools.snapshot, written 2026-09-21T14:08:20Z, 5 min ago, the last write failed",
        "rejected   3 routes; list them with: urlproxyctl rejected",
    ] {
        assert!(run.stdout.contains(part), "{part}: {run:?}");
    }
}

#[test]
fn rejected_routes_are_listed() {
    let admin = FakeAdmin::start();
    assert_eq!(ask(&admin, &["rejected"]).expect(0).stdout, "");
    let item = json!({"key": format!("prefix:{HOSTILE}"), "kind": "tool", "name": HOSTILE, "pattern": "(", "reason": "pattern", "text": "unclosed"});
    let list = json!({"table": "tools", "total": 3, "items": [item]});
    admin.set("/api/rejected", list.clone());
    let run = ask(&admin, &["rejected"]).expect(1);
    assert!(run.stdout.contains(&format!("prefix:{SHOWN}  (        pattern  unclosed\n")), "{run:?}");
    assert!(run.stdout.ends_with("and 2 routes that nginx does not list\n"), "{run:?}");
    assert_eq!(ask(&admin, &["rejected", "--json"]).expect(1).json(), list);
}

#[test]
fn watch_prints_changes_and_says_what_was_missed() {
    let admin = FakeAdmin::start();
    let item = |seq: u64, change: &str, name: &str| {
        json!({"seq": seq, "at": 1790000000.25, "change": change, "kind": "tool", "name": name, "routes": 2,
               "backend": "http://10.0.0.1:8000"})
    };
    let items = [item(8, "added", "hello"), item(9, "removed", HOSTILE)];
    admin.set("/api/changes", json!({"table": "tools", "now": 1.0, "last": 9, "items": items, "missed": 4}));
    let run = ask(&admin, &["watch", "--after", "3", "--count", "2"]).expect(0);
    assert_eq!(admin.asked()[0], "/api/changes?after=3&limit=1000");
    assert!(run.stderr.contains("4 changes missed"), "{run:?}");
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!(lines[0], "2026-09-21T14:13:20Z added    tool hello http://10.0.0.1:8000 and 1 more route");
    assert!(lines[1].contains(&format!("removed  tool {SHOWN}")), "{run:?}");
    let run = ask(&admin, &["watch", "--after", "3", "--count", "2", "--json"]).expect(0);
    let printed: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(printed, items);
}

#[test]
fn exit_status_tells_usage_from_unreachable() {
    // Nothing listens on port 1.
    let run = ctl(&["status", "--admin", "http://127.0.0.1:1/"]).expect(2);
    assert!(
        run.stderr.contains("Connection refused") && run.stderr.contains("http://127.0.0.1:1/api/status (--admin)"),
        "{run:?}"
    );
    let run = ctl(&["export", "--redis", "redis://127.0.0.1:1"]).expect(2);
    assert!(
        run.stderr.starts_with("urlproxyctl: ") && run.stderr.contains("at redis://127.0.0.1:1/0 (--redis)"),
        "{run:?}"
    );
    for args in [
        &["status", "--admin", "ftp://x"][..],
        &["export", "--redis", "nonsense"],
        &["--config", "/does/not/exist", "status"],
        &["explain", "nonsense"],
        &["set", "a/b", ".*", "http://10.0.0.1:1"],
        &["set", "a", "(", "http://10.0.0.1:1"],
        &["set", "a", ".*", "10.0.0.1:1"],
        &["set", "a", ".*", "http://10.0.0.1:1", "--canonical", "*.x"],
        &["delete", "a\nb"],
        &["nonsense"],
        &[],
    ] {
        let run = ctl(args).expect(64);
        let has_reason = ["expected", "does not compile", "while reading the settings file"]
            .iter()
            .any(|part| run.stderr.contains(part));
        assert!(has_reason || args.len() < 2, "{run:?}");
    }
    let admin = FakeAdmin::start();
    admin.fail("/api/routes", 503, json!({"error": "the table was never loaded"}));
    let run = ask(&admin, &["list"]).expect(2);
    assert!(run.stderr.contains("answers 503: the table was never loaded"), "{run:?}");
    admin.set("/api/status", json!("something else"));
    let run = ask(&admin, &["status"]).expect(2);
    assert!(run.stderr.contains("is that the location with \"urlproxy_admin\"?"), "{run:?}");
}

#[test]
fn settings_file_names_the_servers() {
    let admin = FakeAdmin::start();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("urlproxyctl.toml");
    fs::write(&file, format!("admin = \"{}\"\n", admin.url())).unwrap();
    let file = file.to_str().unwrap();
    ctl(&["--config", file, "status"]).expect(0);
    // Variables come before the file.
    finish(command(&["--config", file, "status"]).env("URLPROXYCTL_ADMIN", "http://127.0.0.1:1")).expect(2);
    fs::write(file, "other = 1\n").unwrap();
    let run = ctl(&["--config", file, "status"]).expect(64);
    assert!(run.stderr.contains("unknown field `other`"), "{run:?}");
}

#[test]
fn a_reader_may_leave() {
    let admin = FakeAdmin::start();
    let tools: Vec<_> = (0..20_000).map(|i| json!({"kind": "redirect", "name": format!("tool-{i}")})).collect();
    admin.set("/api/routes", json!({"table": "tools", "items": tools, "next": null}));
    let line = format!("{} list --admin {} | head -1; echo ${{PIPESTATUS[0]}}", crate::program::PROGRAM, admin.url());
    let run = finish(std::process::Command::new("bash").args(["-c", &line]));
    assert!(run.stdout.ends_with("\n0\n") && run.stderr.is_empty(), "{run:?}");
}

#[test]
fn completions_and_pages_exist_for_all_programs() {
    for program in [
        "urlproxyctl",
        "proxylistener",
        "kube2proxy",
        "webservicemonitor",
        "webservice-runner",
        "portgrabber",
        "portreleaser",
        "invisible-unicorn",
    ] {
        for shell in ["bash", "zsh", "fish"] {
            let run = ctl(&["completions", shell, program]).expect(0);
            assert!(run.stdout.contains(program), "{shell} {program}");
        }
        let page = ctl(&["man", program]).expect(0).stdout;
        for part in [".TH ", ".SH NAME", ".SH OPTIONS", "\\-\\-help"] {
            assert!(page.contains(part), "{program} {part}:\n{page}");
        }
    }
    let page = ctl(&["man"]).expect(0).stdout;
    assert!(page.contains(".SH \"URLPROXYCTL ACCEPT-WITHDRAWAL\"") && page.contains("\\-\\-timeout"), "{page}");
    // The script is one that the shell accepts.
    let script = ctl(&["completions", "bash"]).expect(0).stdout;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("completion");
    fs::write(&file, script).unwrap();
    assert!(std::process::Command::new("bash").arg("-n").arg(&file).status().unwrap().success());
}
