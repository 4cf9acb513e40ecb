//! The API of invisible-unicorn from a client's view, old clients included.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::site::{A, Answer, B, Site, frontends, start, wanted};
use crate::support::redis::RedisServer;

const FORMAT: &str = "Valid JSON but invalid format. Needs domain string and backends array";

fn answer(status: u16, body: &str) -> (u16, String) {
    (status, body.to_owned())
}

#[test]
fn responses_equal_those_of_the_old_api() {
    let (_site, redis, unicorn) = start(&[]);
    let say = |method: &str, path: &str, body: &str| unicorn.say(method, path, body);
    assert_eq!(say("GET", "/v1/tools/mapping", ""), answer(400, "No such project"));
    assert_eq!(say("GET", "/v1/tools/mapping/a.example.org", ""), answer(400, "No such project"));
    assert_eq!(say("DELETE", "/v1/tools/mapping/a.example.org", ""), answer(400, "No such project"));
    assert_eq!(say("POST", "/v1/tools/mapping/a.example.org", "{}"), answer(400, "No such project"));

    assert_eq!(say("PUT", "/v1/tools/mapping", &wanted("a.example.org", &[A])), answer(200, ""));
    assert_eq!(frontends(&redis), [("a.example.org".into(), vec![A.into()])]);
    assert_eq!(say("PUT", "/v1/tools/mapping", &wanted("a.example.org", &[B])), answer(200, ""));
    assert_eq!(frontends(&redis), [("a.example.org".into(), vec![A.into(), B.into()])]);
    assert_eq!(say("PUT", "/v1/tools/mapping", &wanted("b.example.org", &[B])), answer(200, ""));

    let a = format!(r#"{{"domain":"a.example.org","backends":["{A}","{B}"]}}"#);
    let b = format!(r#"{{"domain":"b.example.org","backends":["{B}"]}}"#);
    assert_eq!(say("GET", "/v1/tools/mapping/a.example.org", ""), answer(200, &a));
    let all = format!(r#"{{"project":"tools","routes":[{a},{b}]}}"#);
    assert_eq!(say("GET", "/v1/tools/mapping", ""), answer(200, &all));
    for method in ["GET", "DELETE"] {
        assert_eq!(say(method, "/v1/tools/mapping/c.example.org", ""), answer(400, "No such domain"), "{method}");
    }
    let post = |domain: &str, body: &str| say("POST", &format!("/v1/tools/mapping/{domain}"), body);
    assert_eq!(post("c.example.org", &wanted("c.example.org", &[A])), answer(400, "No such domain"));
    assert_eq!(post("a.example.org", "{}"), answer(400, FORMAT));
    assert_eq!(post("a.example.org", &wanted("a_b.example.org", &[A])), answer(400, "Invalid domain"));

    assert_eq!(post("a.example.org", &wanted("a.example.org", &[B])), answer(200, "OK"));
    assert_eq!(frontends(&redis)[0], ("a.example.org".into(), vec![B.into()]));
    assert_eq!(post("a.example.org", &wanted("z.example.org", &[A])), answer(200, "OK"));
    assert_eq!(frontends(&redis), [("b.example.org".into(), vec![B.into()]), ("z.example.org".into(), vec![A.into()])]);
    assert_eq!(say("GET", "/v1/tools/mapping/a.example.org", ""), answer(400, "No such domain"));

    assert_eq!(say("DELETE", "/v1/tools/mapping/b.example.org", ""), answer(200, "deleted"));
    assert_eq!(say("DELETE", "/v1/tools/mapping/z.example.org", ""), answer(200, "deleted"));
    assert_eq!(say("GET", "/v1/tools/mapping", ""), answer(200, r#"{"project":"tools","routes":[]}"#));
    assert_eq!(frontends(&redis), []);
}

#[test]
fn domains_are_canonicalized() {
    let (_site, redis, unicorn) = start(&[]);
    unicorn.put("tools", "WWW.Example.ORG.", &["http://Web.Example.:80", "http://web.example:80"]);
    unicorn.put("tools", "*.Example.org", &[A]);
    let stored = vec!["http://web.example:80".to_owned()];
    assert_eq!(frontends(&redis), [("*.example.org".into(), vec![A.into()]), ("www.example.org".into(), stored)]);
    for path in ["www.example.org", "WWW.EXAMPLE.ORG", "www.example.org.", "%77ww.example.org"] {
        let (status, body) = unicorn.say("GET", &format!("/v1/tools/mapping/{path}"), "");
        assert_eq!((status, body.contains(r#""domain":"www.example.org""#)), (200, true), "{path}: {body}");
    }
    assert_eq!(unicorn.say("GET", "/v1/tools/mapping/%2A.EXAMPLE.org", "").0, 200);
    assert_eq!(unicorn.say("DELETE", "/v1/tools/mapping/WWW.example.org.", ""), answer(200, "deleted"));
    assert_eq!(frontends(&redis).len(), 1);
}

#[test]
fn invalid_requests_are_refused_and_change_nothing() {
    let (site, redis, unicorn) = start(&["--max-backends", "2", "--max-domains", "2"]);
    unicorn.put("tools", "a.example.org", &[A]);
    unicorn.put("other", "taken.example.org", &[A]);
    let (before, stored) = (frontends(&redis), site.mappings());
    let deep = "[".repeat(20_000);
    let put = |body: &str, status, text: &str| ("PUT", "/v1/tools/mapping", body.to_owned(), status, text.to_owned());
    let post = |path, body: &str, status, text: &str| ("POST", path, body.to_owned(), status, text.to_owned());
    let (get, delete) = (|path, status, text: &str| ("GET", path, String::new(), status, text.to_owned()), "DELETE");
    let mapping = "/v1/tools/mapping/a.example.org";
    let (taken, no_domain, too_many) = ("Domain is taken", "No such domain", "Too many backends: a domain may have 2");
    for (method, path, body, status, text) in [
        put("", 400, "Invalid JSON"),
        put("{", 400, "Invalid JSON"),
        put(&deep, 400, "Invalid JSON"),
        put("[]", 400, FORMAT),
        put(r#"{"domain":"x.example.org"}"#, 400, FORMAT),
        put(r#"{"domain":1,"backends":[]}"#, 400, FORMAT),
        put(r#"{"domain":"x.example.org","backends":"http://10.0.0.1:80"}"#, 400, FORMAT),
        put(r#"{"domain":"x.example.org","backends":[1]}"#, 400, FORMAT),
        put(&wanted("x_y.example.org", &[A]), 400, "Invalid domain"),
        put(&wanted("10.0.0.1", &[A]), 400, "Invalid domain"),
        put(&wanted("[::1]", &[A]), 400, "Invalid domain"),
        put(&wanted("org", &[A]), 400, "Invalid domain"),
        put(&wanted("*.org", &[A]), 400, "Invalid domain"),
        put(&wanted("*.*.example.org", &[A]), 400, "Invalid domain"),
        put(&wanted("x.example.org\0", &[A]), 400, "Invalid domain"),
        put(&wanted("bücher.example", &[A]), 400, "Invalid domain"),
        put(&wanted(&format!("{}.org", "a".repeat(64)), &[A]), 400, "Invalid domain"),
        put(&wanted("x.example.org", &[]), 400, "backends are empty, expected at least one"),
        put(&wanted("x.example.org", &["10.0.0.1:80"]), 400, "backend \"10.0.0.1:80\" has no scheme"),
        put(&wanted("x.example.org", &["http://10.0.0.1:80/x"]), 400, "backend \"http://10.0.0.1:80/x\" has more"),
        put(
            &wanted("x.example.org", &[A, "http://169.254.169.254:80"]),
            400,
            "backend http://169.254.169.254:80 is a link-local",
        ),
        put(&wanted("x.example.org", &["http://169.254.169.254:80"]), 400, "backend http://169.254.169.254:80 is"),
        put(&wanted("x.example.org", &[A, B, "http://10.0.0.3:80"]), 403, too_many),
        put(&wanted("a.example.org", &[B, "http://10.0.0.3:80"]), 403, too_many),
        put(&wanted("taken.example.org", &[A]), 409, taken),
        put(&wanted("TAKEN.example.org.", &[A]), 409, taken),
        post(mapping, &wanted("taken.example.org", &[A]), 409, taken),
        post(mapping, &wanted("a.example.org", &[A, B, "http://10.0.0.3:80"]), 403, too_many),
        post(mapping, &wanted("a.example.org", &[]), 400, "backends are empty"),
        post(mapping, "{", 400, "Invalid JSON"),
        post("/v1/tools/mapping/taken.example.org", &wanted("taken.example.org", &[A]), 400, no_domain),
        (delete, "/v1/tools/mapping/taken.example.org", String::new(), 400, no_domain.into()),
        get("/v1/tools/mapping/taken.example.org", 400, no_domain),
        get("/v1/tools/mapping/a_b", 400, no_domain),
        get("/v1/tools/mapping/a%2Fb", 400, no_domain),
        get("/v1/tools/mapping/%ff", 400, "Invalid path"),
        get("/v1/tools/mapping/%", 400, "Invalid path"),
        get("/v1/%00/mapping", 400, "Invalid path"),
        get("/v1/a%20b/mapping", 400, "No such project"),
        ("PUT", "/v1/a%20b/mapping", wanted("x.example.org", &[A]), 400, "Invalid project".into()),
        ("PUT", "/v1/../mapping", wanted("x.example.org", &[A]), 400, "Invalid project".into()),
        get("/", 404, "No such resource"),
        get("/v1/tools/mapping/", 404, "No such resource"),
        get("/v1//mapping", 404, "No such resource"),
        ("POST", "/v1/tools/mapping", String::new(), 405, "Method not allowed".into()),
        ("PUT", mapping, String::new(), 405, "Method not allowed".into()),
        ("BREW", mapping, String::new(), 405, "Method not allowed".into()),
        ("OPTIONS", "/openapi.json", String::new(), 405, "Method not allowed".into()),
        put(&"x".repeat(65_537), 413, "Body too large: at most 65536 bytes"),
        put(&"x".repeat(900_000), 413, "Body too large: at most 65536 bytes"),
    ] {
        let shown = format!("{method} {path} {body:.80}");
        let plain = unicorn.ask(method, path, &[], &body);
        assert_eq!(plain.status, status, "{shown}: {plain:?}");
        let is_whole = ["Invalid domain", FORMAT, no_domain, "No such project", taken].contains(&&*text);
        assert!(if is_whole { plain.body == text } else { plain.body.starts_with(&text) }, "{shown}: {plain:?}");
        assert_eq!(plain.header("content-type"), Some("text/plain; charset=utf-8"), "{shown}");
        assert_eq!(plain.header("allow").is_some(), status == 405, "{shown}");
        assert_problem(&unicorn.ask(method, path, &["Accept: application/problem+json"], &body), status, &shown);
    }
    assert!(before == frontends(&redis) && stored == site.mappings());
    // At the quota of domains, existing domains can still be changed.
    unicorn.put("tools", "b.example.org", &[A]);
    assert_eq!(
        unicorn.say("PUT", "/v1/tools/mapping", &wanted("c.example.org", &[A])),
        answer(403, "Too many domains: a project may have 2")
    );
    let post = |domain| unicorn.say("POST", "/v1/tools/mapping/b.example.org", &wanted(domain, &[B]));
    assert_eq!(post("a.example.org"), answer(409, taken), "its own other domain");
    assert_eq!(post("c.example.org"), answer(200, "OK"));
}

#[test]
fn equal_backends_in_other_spellings_count_once() {
    let (_site, redis, unicorn) = start(&[]);
    unicorn.put("tools", "a.example.org", &["http://h"]);
    for again in ["http://h:80", "HTTP://H/", "http://h.:80/"] {
        unicorn.put("tools", "a.example.org", &[again]);
    }
    unicorn.put("tools", "a.example.org", &["HTTPS://h", "https://h:443/"]);
    let stored = vec!["http://h:80".to_owned(), "https://h:443".to_owned()];
    assert_eq!(frontends(&redis), [("a.example.org".into(), stored)]);
    let mapping = "/v1/tools/mapping/a.example.org";
    let shown = r#"{"domain":"a.example.org","backends":["http://h:80","https://h:443"]}"#;
    assert_eq!(unicorn.say("GET", mapping, ""), answer(200, shown));
    let same = wanted("a.example.org", &["http://h/", "https://H"]);
    assert_eq!(unicorn.say("POST", mapping, &same), answer(200, "OK"));
    assert_eq!(unicorn.say("GET", mapping, ""), answer(200, shown));
    for refused in ["http://h/x", "http://h//", "http://u@h", "http://h?", "http://h:"] {
        assert_eq!(unicorn.say("PUT", "/v1/tools/mapping", &wanted("a.example.org", &[refused])).0, 400, "{refused}");
    }
}

#[track_caller]
fn assert_problem(answer: &Answer, status: u16, shown: &str) {
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{shown}");
    let problem: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert_eq!(problem["status"], status, "{shown}");
    assert_eq!(problem["type"], "about:blank", "{shown}");
    assert!(problem["title"].is_string() && problem["detail"].is_string(), "{shown}: {problem}");
    assert_eq!(problem.as_object().map(serde_json::Map::len), Some(4), "{shown}");
}

#[test]
fn problem_details_name_the_value_and_what_was_expected() {
    let (_site, _redis, unicorn) = start(&[]);
    for (body, title, detail) in [
        (
            wanted("a_b.example.org", &[A]),
            "Invalid domain",
            "domain \"a_b.example.org\" is not a host name (RFC 1123), expected",
        ),
        (wanted("*.org", &[A]), "Invalid domain", "domain \"*.org\" is a public suffix"),
        (wanted("a.example.org", &["x"]), "Invalid backend", "backend \"x\" has no scheme, expected http://host:port"),
        ("{".into(), "Invalid JSON", "Invalid JSON: EOF"),
    ] {
        let answer = unicorn.ask("PUT", "/v1/tools/mapping", &["Accept: application/json"], &body);
        let problem: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem["title"], title);
        assert!(problem["detail"].as_str().unwrap().starts_with(detail), "{problem}");
    }
}

#[test]
fn operators_choose_suffixes_and_networks() {
    let site = Site::new();
    std::fs::write(site.path("suffixes"), "// ours\nco.uk\n*.ck\n!www.ck\n").unwrap();
    let redis = RedisServer::start(&[]);
    let suffixes = site.path("suffixes");
    let args = ["--protected-suffixes", suffixes.to_str().unwrap(), "--allow-backend", "127.0.0.0/8", "10.0.0.0/24"];
    let unicorn = site.start(&redis, &args);
    let status = |domain, backend| unicorn.say("PUT", "/v1/tools/mapping", &wanted(domain, &[backend])).0;
    for (domain, want) in [
        ("co.uk", 400),
        ("*.co.uk", 400),
        ("uk", 400),
        ("a.co.uk", 200),
        ("*.a.co.uk", 200),
        ("x.ck", 400),
        ("www.ck", 200),
    ] {
        assert_eq!(status(domain, A), want, "{domain}");
    }
    for (backend, want) in [
        ("http://127.0.0.1:80", 200),
        ("http://10.0.0.255:80", 200),
        ("http://10.0.1.0:80", 400),
        ("http://web.example:80", 400),
        ("http://[::1]:80", 400),
    ] {
        assert_eq!(status("a.example.org", backend), want, "{backend}");
    }
}

#[test]
fn projects_with_a_token_need_one_of_their_own() {
    let (site, redis, unicorn) = start(&[]);
    unicorn.put("tools", "a.example.org", &[A]);
    unicorn.put("other", "b.example.org", &[A]);
    let token = |project: &str| {
        let (status, token, error) = site.run(&["token", "create", project]);
        assert_eq!(status, 0, "{error}");
        token.trim().to_owned()
    };
    let (ours, theirs) = (token("tools"), token("other"));
    assert!(ours.len() > 64 && ours != theirs);
    let status = |method, path: &str, token: &str| {
        let header = format!("Authorization: Bearer {token}");
        let body = if method == "GET" { String::new() } else { wanted("a.example.org", &[B]) };
        let headers: &[&str] = if token.is_empty() { &[] } else { &[&header] };
        let answer = unicorn.ask(method, path, headers, &body);
        assert_eq!(answer.header("www-authenticate"), (answer.status == 401).then_some("Bearer"));
        answer.status
    };
    let mapping = "/v1/tools/mapping/a.example.org";
    for (method, path) in
        [("GET", "/v1/tools/mapping"), ("PUT", "/v1/tools/mapping"), ("GET", mapping), ("POST", mapping)]
    {
        assert_eq!(status(method, path, ""), 401, "{method} {path}");
        assert_eq!(status(method, path, "wrong"), 401, "{method} {path}");
        assert_eq!(status(method, path, &"x".repeat(5000)), 401, "{method} {path}");
        assert_eq!(status(method, path, &theirs), 403, "{method} {path}");
        assert_eq!(status(method, path, &ours), 200, "{method} {path}");
    }
    assert_eq!(unicorn.ask("DELETE", mapping, &[], "").status, 401);
    assert_eq!(unicorn.say("GET", "/v1/third/mapping", ""), answer(400, "No such project"), "needs no token");
    let (_, list, _) = site.run(&["token", "list"]);
    assert!(list.contains("1\ttools\t") && !list.contains(&ours), "{list}");
    assert!(!std::fs::read(site.database()).unwrap().windows(ours.len()).any(|bytes| bytes == ours.as_bytes()));
    // The audit log names the token.
    let (_, audit, _) = site.run(&["audit", "--project", "tools"]);
    assert!(audit.contains("\ttoken 1\ttools\treplace\t") || audit.contains("\ttoken 1\ttools\tput\t"), "{audit}");
    assert_eq!(site.run(&["token", "revoke", "1"]).0, 0);
    assert_eq!(status("GET", mapping, &ours), 401, "at once");
    assert_eq!(status("GET", mapping, ""), 401, "revoking the last token does not open a project");
    assert_ne!(site.run(&["token", "revoke", "1"]).0, 0);
    assert_eq!(frontends(&redis).len(), 2);
}

#[test]
fn require_tokens_applies_to_all_projects() {
    let (site, _redis, unicorn) = start(&["--require-tokens"]);
    assert_eq!(unicorn.say("GET", "/v1/tools/mapping", "").0, 401);
    assert_eq!(unicorn.say("PUT", "/v1/tools/mapping", &wanted("a.example.org", &[A])).0, 401);
    assert_eq!(unicorn.say("GET", "/openapi.json", "").0, 200);
    let (_, token, _) = site.run(&["token", "create", "tools"]);
    let header = format!("Authorization: bearer {}", token.trim());
    assert_eq!(unicorn.ask("PUT", "/v1/tools/mapping", &[&header], &wanted("a.example.org", &[A])).status, 200);
    assert_eq!(unicorn.ask("GET", "/v1/tools/mapping", &[&header], "").status, 200);
    assert_eq!(unicorn.ask("PUT", "/v1/other/mapping", &[&header], &wanted("b.example.org", &[A])).status, 403);
}

#[test]
fn read_only_server_refuses_changes() {
    let (site, redis, unicorn) = start(&[]);
    unicorn.put("tools", "a.example.org", &[A]);
    drop(unicorn);
    let unicorn = site.start(&redis, &["--read-only"]);
    assert_eq!(unicorn.say("GET", "/v1/tools/mapping/a.example.org", "").0, 200);
    for (method, path) in [
        ("PUT", "/v1/tools/mapping"),
        ("POST", "/v1/tools/mapping/a.example.org"),
        ("DELETE", "/v1/tools/mapping/a.example.org"),
    ] {
        let answer = unicorn.ask(method, path, &[], &wanted("b.example.org", &[A]));
        assert_eq!((answer.status, &*answer.body), (503, "Read-only"), "{method}");
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
    assert_eq!(frontends(&redis), [("a.example.org".into(), vec![A.into()])]);
}

#[test]
fn openapi_document_lists_all_methods() {
    let (_site, _redis, unicorn) = start(&[]);
    let answer = unicorn.ask("GET", "/openapi.json", &[], "");
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    let document: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let known: Vec<_> = methods.as_object().unwrap().keys().filter(|key| *key != "parameters").collect();
        let path = path.replace("{project}", "tools").replace("{domain}", "a.example.org");
        let answer = unicorn.ask("BREW", &path, &[], "");
        let mut allowed: Vec<_> = answer.header("allow").unwrap().split(", ").map(str::to_lowercase).collect();
        allowed.retain(|method| method != "head");
        allowed.sort_unstable();
        assert_eq!(known, allowed.iter().collect::<Vec<_>>(), "{path}");
    }
}

#[test]
fn head_is_get_without_a_body() {
    let (_site, _redis, unicorn) = start(&[]);
    unicorn.put("tools", "a.example.org", &[A]);
    let answer = unicorn.ask("HEAD", "/v1/tools/mapping", &[], "");
    assert_eq!((answer.status, &*answer.body), (200, ""));
    assert!(answer.header("content-length").is_some_and(|length| length != "0"));
}

#[test]
fn malformed_requests_do_no_harm() {
    let (_site, _redis, unicorn) = start(&[]);
    for bytes in [
        &b"\0\x01\xff\n\n"[..],
        b"GET /v1/\xff/mapping HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PUT /v1/a/mapping HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"PUT /v1/a/mapping HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PUT http://a:b@c/v1/a/mapping HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(unicorn.address).unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.is_empty() || reply.starts_with("HTTP/1.1 4"), "{}: {reply}", bytes.escape_ascii());
    }
    unicorn.put("tools", "a.example.org", &[A]);
}

#[test]
fn slow_bodies_do_not_delay_other_clients() {
    let (_site, _redis, unicorn) = start(&[]);
    let put_beside_slow_ones = || {
        let slow: Vec<_> = (0..100)
            .map(|_| {
                let mut stream = TcpStream::connect(unicorn.address).unwrap();
                stream.write_all(b"PUT /v1/a/mapping HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{").unwrap();
                stream
            })
            .collect();
        unicorn.put("tools", "a.example.org", &[A]);
        slow.into_iter().next().unwrap()
    };
    let has_answer = |stream: &TcpStream| {
        stream.set_nonblocking(true).unwrap();
        let has_answer = stream.peek(&mut [0]).is_ok();
        stream.set_nonblocking(false).unwrap();
        has_answer
    };
    // On a busy machine, the slow ones may have timed out meanwhile, which proves nothing.
    let mut first =
        (0..10).map(|_| put_beside_slow_ones()).find(|first| !has_answer(first)).expect("a PUT before the timeout");
    let mut head = [0; 12];
    first.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 408");
}

#[test]
fn unchanged_mappings_are_pending_while_redis_is_down() {
    let (_site, mut redis, unicorn) = start(&[]);
    let put = || unicorn.put("tools", "a.example.org", &[A]).header("urlproxy-replicated").map(str::to_owned);
    assert_eq!(put().as_deref(), Some("yes"));
    redis.stop();
    assert_eq!(put().as_deref(), Some("pending"));
}
