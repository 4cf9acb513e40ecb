//! Ownership of domains, public suffixes, reserved domains, and operators' commands.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::site::{A, B, Site, Unicorn, frontends, one, start, wait_until_equal, wanted};
use crate::support::need::need;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

const TAKEN: &str = "Domain is taken";
const RESERVED: &str = "Domain is reserved for the operators";

fn put(unicorn: &Unicorn, project: &str, domain: &str) -> (u16, String) {
    unicorn.say("PUT", &format!("/v1/{project}/mapping"), &wanted(domain, &[A]))
}

#[track_caller]
fn assert_put(unicorn: &Unicorn, project: &str, domain: &str, status: u16) {
    let (found, body) = put(unicorn, project, domain);
    assert_eq!(found, status, "{project} {domain}: {body}");
    let text = match status {
        200 => "",
        409 => TAKEN,
        400 => "Invalid domain",
        _ => RESERVED,
    };
    assert_eq!(body, text, "{project} {domain}");
}

#[test]
fn domains_above_and_below_another_projects_are_refused() {
    let (_site, redis, unicorn) = start(&["--protected-suffixes", "none"]);
    for domain in ["site.example.org", "*.apps.example.org", "www.deep.owner.example.org"] {
        assert_put(&unicorn, "tools", domain, 200);
    }
    let before = frontends(&redis);
    for domain in [
        "www.site.example.org",
        "*.site.example.org",
        "a.b.site.example.org",
        "*.www.site.example.org",
        "apps.example.org",
        "login.apps.example.org",
        "a.login.apps.example.org",
        "*.login.apps.example.org",
        // Above: these would match the other project's domain, or keep it from mapping more.
        "*.deep.owner.example.org",
        "owner.example.org",
        "*.owner.example.org",
        "example.org",
        "*.example.org",
    ] {
        assert_put(&unicorn, "other", domain, 409);
        let plain = unicorn.ask("PUT", "/v1/new/mapping", &[], &wanted(domain, &[A]));
        assert_eq!((plain.status, &*plain.body), (409, TAKEN), "{domain}");
    }
    assert_eq!(frontends(&redis), before);
    // A rename does not bypass the check.
    assert_put(&unicorn, "other", "other.example.org", 200);
    for domain in ["www.site.example.org", "*.example.org", "owner.example.org"] {
        let renamed = unicorn.say("POST", "/v1/other/mapping/other.example.org", &wanted(domain, &[A]));
        assert_eq!(renamed, (409, TAKEN.into()), "{domain}");
    }
    // The owner may map all of these, and others unrelated domains.
    for domain in ["www.site.example.org", "*.site.example.org", "apps.example.org", "owner.example.org"] {
        assert_put(&unicorn, "tools", domain, 200);
    }
    for domain in ["mysite.example.org", "site.example.com", "other2.example.org", "*.other3.example.org"] {
        assert_put(&unicorn, "other", domain, 200);
    }
    // Without related domains, the domain is free again.
    for domain in ["site.example.org", "www.site.example.org"] {
        assert_eq!(unicorn.say("DELETE", &format!("/v1/tools/mapping/{domain}"), "").0, 200);
        assert_put(&unicorn, "other", "www.site.example.org", 409);
    }
    assert_eq!(unicorn.say("DELETE", "/v1/tools/mapping/*.site.example.org", "").0, 200);
    assert_put(&unicorn, "other", "www.site.example.org", 200);
}

#[test]
fn debians_public_suffix_list_is_used_if_installed() {
    if !need("publicsuffix", Path::new("/usr/share/publicsuffix/public_suffix_list.dat").exists()) {
        return;
    }
    let (site, redis, unicorn) = start(&[]);
    for domain in ["github.io", "*.github.io", "co.uk", "*.co.uk", "uk"] {
        assert_put(&unicorn, "tools", domain, 400);
    }
    // Siblings below a public suffix are unrelated.
    assert_put(&unicorn, "tools", "shop.github.io", 200);
    assert_put(&unicorn, "other", "blog.github.io", 200);
    assert_put(&unicorn, "other", "www.shop.github.io", 409);
    assert_put(&unicorn, "tools", "*.shop.github.io", 200);
    drop(unicorn);
    let unicorn = site.start(&redis, &["--protected-suffixes", "none"]);
    assert_put(&unicorn, "tools", "co.uk", 200);
    assert_put(&unicorn, "tools", "uk", 400);
    // Other projects have domains below.
    assert_put(&unicorn, "third", "github.io", 409);
    drop(unicorn);
    let list = site.path("suffixes");
    std::fs::write(&list, "example.org\n").unwrap();
    let unicorn = site.start(&redis, &["--protected-suffixes", list.to_str().unwrap()]);
    assert_put(&unicorn, "tools", "example.org", 400);
    assert_put(&unicorn, "tools", "a.example.org", 200);
    assert_put(&unicorn, "other", "b.example.org", 200);
    // A suffix that was mapped earlier does not keep other projects from domains below it.
    assert_eq!(site.mappings().len(), 6);
}

#[test]
fn reserved_domains_are_for_operators() {
    let site = Site::new();
    let file = site.path("reserved");
    std::fs::write(&file, "# ours\nwmcloud.org   # and all below\n").unwrap();
    let redis = RedisServer::start(&[]);
    let file = file.to_str().unwrap();
    let args = ["--reserve-domain", "Toolforge.org", "login.example.org", "--reserved-domains", file];
    let unicorn = site.start(&redis, &[&args[..], &["--protected-suffixes", "none"]].concat());
    for domain in
        ["toolforge.org", "a.toolforge.org", "*.toolforge.org", "a.b.WMCloud.org", "login.example.org", "*.example.org"]
    {
        assert_put(&unicorn, "tools", domain, 403);
    }
    assert_put(&unicorn, "tools", "example.org", 200);
    let renamed = unicorn.say("POST", "/v1/tools/mapping/example.org", &wanted("x.toolforge.org", &[A]));
    assert_eq!(renamed, (403, RESERVED.into()));
    // An operator maps one for a project; the project may change its backends, but map nothing else below.
    let map = |domain: &str| site.run(&["domain", "map", "tools", domain, A, "--reserve-domain", "toolforge.org"]);
    let (status, output, error) = map("hello.toolforge.org");
    assert_eq!((status, &*output), (0, "mapped hello.toolforge.org of project tools\n"), "{error}");
    wait_until_equal(&site, &redis);
    assert_eq!(unicorn.say("PUT", "/v1/tools/mapping", &wanted("hello.toolforge.org", &[B])), (200, String::new()));
    let post = unicorn.say("POST", "/v1/tools/mapping/hello.toolforge.org", &wanted("hello.toolforge.org", &[B]));
    assert_eq!(post, (200, "OK".into()));
    assert_put(&unicorn, "tools", "www.hello.toolforge.org", 403);
    for (args, want) in [
        (["--reserve-domain", "*.toolforge.org"], "\"*.toolforge.org\" cannot be reserved"),
        (["--reserved-domains", "/nowhere"], "while reading --reserved-domains \"/nowhere\""),
    ] {
        let (status, _, error) = site.run(&[&args[..], &["check"]].concat());
        assert!(status == 64 && error.contains(want), "{args:?}: {status} {error}");
    }
}

#[test]
fn old_path_prefix_gets_the_same_responses() {
    let (_site, redis, unicorn) = start(&[]);
    let old = |method: &str, path: &str, body: &str| unicorn.say(method, &format!("/dynamicproxy-api{path}"), body);
    assert_eq!(old("PUT", "/v1/tools/mapping", &wanted("a.example.org", &[A])), (200, String::new()));
    assert_eq!(frontends(&redis), [one("a.example.org", A)]);
    for path in ["/v1/tools/mapping", "/v1/tools/mapping/a.example.org", "/openapi.json", "/v1/other/mapping", "/v2"] {
        assert_eq!(old("GET", path, ""), unicorn.say("GET", path, ""), "{path}");
    }
    let post = old("POST", "/v1/tools/mapping/a.example.org", &wanted("b.example.org", &[B]));
    assert_eq!(post, (200, "OK".into()));
    assert_eq!(old("DELETE", "/v1/tools/mapping/b.example.org", ""), (200, "deleted".into()));
    assert_eq!(old("BREW", "/v1/tools/mapping", "").0, 405);
    let document: Value = serde_json::from_str(&old("GET", "/openapi.json", "").1).unwrap();
    let servers: Vec<_> = document["servers"].as_array().unwrap().iter().map(|server| &server["url"]).collect();
    assert_eq!(servers, ["/", "/dynamicproxy-api"]);
}

fn user() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    format!("user {}", String::from_utf8(output.stdout).unwrap().trim())
}

#[test]
fn operators_list_move_and_remove_any_domain() {
    let (site, redis, unicorn) = start(&[]);
    unicorn.put("shop", "www.example.org", &[A, B]);
    unicorn.put("museum", "old.example.com", &[A]);
    let domain = |args: &[&str]| site.run(&[&["domain"], args].concat());
    let (status, output, error) = domain(&["list"]);
    let both = format!("PROJECT\tDOMAIN\tBACKENDS\nmuseum\told.example.com\t{A}\nshop\twww.example.org\t{A} {B}\n");
    assert_eq!((status, output), (0, both), "{error}");
    let listed = |args: &[&str]| -> Value {
        let (status, output, error) = domain(&[&["list", "--json"], args].concat());
        assert_eq!(status, 0, "{error}");
        serde_json::from_str(&output).unwrap()
    };
    let shops = json!([{"project": "shop", "domain": "www.example.org", "backends": [A, B]}]);
    assert_eq!(listed(&["--project", "shop"]), shops);

    // To a project with a token, which is required from then on.
    let (_, token, _) = site.run(&["token", "create", "blog"]);
    let (status, output, error) = domain(&["move", "WWW.example.org.", "blog"]);
    assert_eq!((status, &*output), (0, "moved www.example.org from project shop to project blog\n"), "{error}");
    assert_eq!(unicorn.say("GET", "/v1/shop/mapping", "").1, r#"{"project":"shop","routes":[]}"#);
    assert_eq!(unicorn.say("DELETE", "/v1/shop/mapping/www.example.org", "").0, 400);
    assert_eq!(unicorn.say("DELETE", "/v1/blog/mapping/www.example.org", "").0, 401);
    let header = format!("Authorization: Bearer {}", token.trim());
    let body = wanted("www.example.org", &[B]);
    assert_eq!(unicorn.ask("POST", "/v1/blog/mapping/www.example.org", &[&header], &body).status, 200);
    assert_eq!(frontends(&redis), [one("old.example.com", A), one("www.example.org", B)]);

    let (status, output, error) = domain(&["remove", "old.example.com"]);
    assert_eq!((status, &*output), (0, "removed old.example.com of project museum\n"), "{error}");
    wait_for("Redis without it", || frontends(&redis) == [one("www.example.org", B)]);
    for args in [&["remove", "old.example.com"][..], &["move", "old.example.com", "blog"], &["remove", "a b"]] {
        let (status, _, error) = domain(args);
        assert!(status == 1 && error.contains("expected one of `domain list`"), "{args:?}: {status} {error}");
    }
    let (status, _, error) = domain(&["map", "blog", "x.example.net", "http://127.0.0.1:80"]);
    assert!(status == 1 && error.contains("\"x.example.net\" was not changed: backend http://127.0.0.1:80 is a loop"));
    assert!(error.contains("loopback"), "{error}");

    // The audit logs of both projects have the move and the user.
    let audit = |project: &str| -> Vec<(Value, Value, bool)> {
        let (status, output, error) = site.run(&["audit", "--json", "--project", project]);
        assert_eq!(status, 0, "{error}");
        let rows: Vec<Value> = serde_json::from_str(&output).unwrap();
        let of_user = |row: &Value| row["who"].as_str().unwrap().starts_with(&user());
        rows.iter().map(|row| (row["action"].clone(), row["before"]["domain"].clone(), of_user(row))).collect()
    };
    let www = || json!("www.example.org");
    assert_eq!(audit("shop"), [(json!("put"), Value::Null, false), (json!("move away"), www(), true)]);
    assert_eq!(audit("museum")[1], (json!("delete"), json!("old.example.com"), true));
    let blog = [
        (json!("create token"), Value::Null, true),
        (json!("move here"), Value::Null, true),
        (json!("replace"), www(), false),
    ];
    assert_eq!(audit("blog"), blog);
}

#[test]
fn existing_conflicts_stay_and_are_reported() {
    let (site, redis, unicorn) = start(&["--protected-suffixes", "none"]);
    unicorn.put("tools", "site.example.org", &[A]);
    drop(unicorn);
    site.open()
        .execute_batch(
            "INSERT INTO project(name) VALUES ('other');
             INSERT INTO domain(name, project) SELECT 'www.site.example.org', id FROM project WHERE name = 'other';
             INSERT INTO domain(name, project) SELECT 'co.uk', id FROM project WHERE name = 'other';
             INSERT INTO backend(domain, url) SELECT id, 'http://127.0.0.1:80' FROM domain WHERE name <> 'site.example.org';",
        )
        .unwrap();
    let unicorn = site.start(&redis, &["--protected-suffixes", "none"]);
    wait_until_equal(&site, &redis);
    // The owner may change it, but neither project may map more there.
    let post = unicorn.say("POST", "/v1/other/mapping/www.site.example.org", &wanted("www.site.example.org", &[B]));
    assert_eq!(post, (200, "OK".into()));
    assert_put(&unicorn, "other", "api.site.example.org", 409);
    assert_put(&unicorn, "tools", "*.site.example.org", 409);
    let check = |args: &[&str]| {
        let (status, output, error) = site.run(&[&["check", "--protected-suffixes"], args].concat());
        assert_eq!(status, 0, "{error}");
        output
    };
    let conflict = "conflict\tother\twww.site.example.org\tbelongs to site.example.org of project tools";
    let loopback =
        "backend\tother\tco.uk\tbackend http://127.0.0.1:80 is a loopback address, expected a server's address";
    assert_eq!(check(&["none"]), format!("KIND\tPROJECT\tDOMAIN\tWHY\n{conflict}\n{loopback}\n"));
    let suffixes = site.path("suffixes");
    std::fs::write(&suffixes, "co.uk\n").unwrap();
    let found: Value =
        serde_json::from_str(&check(&[suffixes.to_str().unwrap(), "--reserve-domain", "example.org", "--json"]))
            .unwrap();
    let found: Vec<_> = found.as_array().unwrap().iter().map(|f| [&f["kind"], &f["domain"]]).collect();
    let want = [
        ["conflict", "www.site.example.org"],
        ["reserved", "site.example.org"],
        ["reserved", "www.site.example.org"],
        ["domain", "co.uk"],
        ["backend", "co.uk"],
    ];
    assert_eq!(found, want);
    // An operator resolves the conflict.
    let (status, output, error) = site.run(&["domain", "move", "www.site.example.org", "tools"]);
    assert_eq!((status, &*output), (0, "moved www.site.example.org from project other to project tools\n"), "{error}");
    assert_put(&unicorn, "tools", "*.site.example.org", 200);
    let (_, output, _) = site.run(&["domain", "map", "other", "api.site.example.org", A]);
    assert!(output.contains("note: another project has a domain above or below it"), "{output}");
}

#[test]
fn import_keeps_conflicts_and_reports_them() {
    let (site, redis) = (Site::new(), RedisServer::start(&[]));
    let old = site.path("data.db");
    rusqlite::Connection::open(&old)
        .unwrap()
        .execute_batch(
            "CREATE TABLE project(id INTEGER PRIMARY KEY, name VARCHAR(256) UNIQUE);
             CREATE TABLE route(id INTEGER PRIMARY KEY, domain VARCHAR(256) UNIQUE, project_id INTEGER);
             CREATE TABLE backend(id INTEGER PRIMARY KEY, url VARCHAR(256), route_id INTEGER);
             INSERT INTO project VALUES (1, 'tools'), (2, 'other');
             INSERT INTO route VALUES (1, 'site.example.org', 1), (2, 'www.site.example.org', 2);
             INSERT INTO backend(url, route_id) VALUES ('http://10.0.0.1:80', 1), ('http://10.0.0.1:80', 2);",
        )
        .unwrap();
    let (status, output, error) = site.run(&["import", old.to_str().unwrap()]);
    assert_eq!(status, 0, "{error}");
    let note = "note: domain \"www.site.example.org\" of project \"other\" is above or below another project's";
    assert!(output.contains(note) && output.contains("2 imported, 0 already present, 0 skipped"), "{output}");
    let _unicorn = site.start(&redis, &[]);
    assert_eq!(frontends(&redis), [one("site.example.org", A), one("www.site.example.org", A)]);
}
