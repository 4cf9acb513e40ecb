//! kube2proxy as its operator meets it: several at once, rights, command line.

#[path = "common/api_server.rs"]
mod api_server;
#[path = "common/http.rs"]
mod http;
#[path = "common/kube2proxy.rs"]
mod kube2proxy;
#[path = "common/listener.rs"]
mod listener;
#[path = "common/port.rs"]
mod port;
#[path = "common/redis.rs"]
mod redis_server;

use std::process::Command;
use std::time::{Duration, Instant};

use api_server::{ApiServer, web_service};
use kube2proxy::{Kube2proxy, members, url_of};
use listener::wait_for;
use redis_server::RedisServer;

#[test]
fn of_two_writers_the_later_writes_and_the_other_waits() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let first = Kube2proxy::start(&api, &redis, &[]);
    let mut second = Kube2proxy::start(&api, &redis, &[]);
    first.daemon.wait_for_line(&["ERROR", "another kube2proxy writes"]);
    wait_for("the first is not ready", || !first.is_ready());
    let writer = redis.cli(&["GET", "k8s_writer"]);
    for port in 81..90 {
        api.apply("hello", "hello", web_service("10.96.0.1", port));
        wait_for("a change", || url_of(&redis, "hello") == format!("http://10.96.0.1:{port}"));
        assert_eq!(redis.cli(&["GET", "k8s_writer"]), writer, "no to and fro");
    }
    assert_eq!(first.daemon.log().matches("another kube2proxy writes").count(), 1);
    second.daemon.signal("TERM");
    assert_eq!(second.daemon.wait_for_end(), 0);
    first.wait_until_ready();
    first.daemon.wait_for_line(&["INFO", "nobody else writes any more"]);
    api.apply("hello", "hello", web_service("10.96.0.1", 90));
    wait_for("a change", || url_of(&redis, "hello") == "http://10.96.0.1:90");
}

#[test]
fn of_several_replicas_one_leads_and_another_takes_over() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let lease = ["--lease", "urlproxy/kube2proxy"];
    let mut first = Kube2proxy::start(&api, &redis, &lease);
    first.daemon.wait_for_line(&["INFO", "leading"]);
    let mut second = Kube2proxy::start(&api, &redis, &lease);
    let leads = |replica: &Kube2proxy| replica.metric("kube2proxy_leading") == 1.0;
    assert!(leads(&first) && !leads(&second));
    // In order: the lease is given back.
    let begun = Instant::now();
    first.daemon.signal("TERM");
    assert_eq!(first.daemon.wait_for_end(), 0);
    wait_for("the second leads", || leads(&second));
    eprintln!("taken over {:?} after SIGTERM", begun.elapsed());
    api.apply("hello", "hello", web_service("10.96.0.1", 81));
    wait_for("a change", || url_of(&redis, "hello") == "http://10.96.0.1:81");
    // Killed: the lease runs out.
    let third = Kube2proxy::start(&api, &redis, &lease);
    let begun = Instant::now();
    second.daemon.signal("KILL");
    let _ = second.daemon.wait_for_end();
    api.apply("hello", "hello", web_service("10.96.0.1", 82));
    let deadline = Instant::now() + Duration::from_secs(40);
    while !leads(&third) {
        assert!(Instant::now() < deadline, "nobody takes over");
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("taken over {:?} after SIGKILL", begun.elapsed());
    wait_for("the change", || url_of(&redis, "hello") == "http://10.96.0.1:82");
}

#[test]
fn a_user_of_redis_needs_no_more_rights_than_the_manual_says() {
    let manual = include_str!("../README.md");
    let line = manual.lines().find(|line| line.starts_with("ACL SETUSER kube2proxy ")).expect("a line in the manual");
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    assert_eq!(redis.cli(&line.split_whitespace().collect::<Vec<_>>()), "OK");
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    redis.cli(&["SADD", "k8s_services", "gone/gone/.*"]);
    let url = redis.url().replace("//", "//kube2proxy:password@");
    let mut kube2proxy = Kube2proxy::start(&api, &redis, &["--redis", &url]);
    assert_eq!(members(&redis), ["hello/hello/.*"]);
    api.delete("hello", "hello");
    wait_for("withdrawn", || members(&redis).is_empty());
    std::thread::sleep(Duration::from_millis(1100));
    kube2proxy.daemon.signal("TERM");
    assert_eq!(kube2proxy.daemon.wait_for_end(), 0);
    let log = kube2proxy.daemon.log();
    assert!(!log.contains("password") && !log.contains("NOPERM") && !log.contains("not written"), "{log}");
    assert_eq!(redis.cli(&["EXISTS", "k8s_writer"]), "0", "given back");
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kube2proxy"))
        .args(args)
        .env_remove("URLPROXY_REDIS")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn the_command_line_teaches() {
    let (status, help, _) = run(&["--help"]);
    assert_eq!(status, Some(0));
    let manual = include_str!("../README.md");
    let described = manual.split_once("### kube2proxy").and_then(|(_, rest)| rest.split_once("\n## ")).unwrap().0;
    let lines = help.lines().filter(|line| line.starts_with("      --"));
    let options: Vec<_> = lines.filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(options.len(), 14, "{options:?}");
    for option in options {
        assert!(described.contains(&format!("| `{option}")), "the manual lacks {option}");
    }
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join("kube2proxy.yaml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let missing = dir.path().join("missing").to_str().unwrap().to_owned();
    for (args, want) in [
        (vec!["--no-such-option".to_owned()], "unexpected argument"),
        (vec![], "neither --config nor --kubeconfig, and not in a cluster"),
        (vec!["--config".into(), missing.clone()], "while reading"),
        (vec!["--kubeconfig".into(), missing.clone()], "invalid --kubeconfig"),
        (vec!["--lease".into(), "kube2proxy".into()], "NAMESPACE/NAME"),
        (vec!["--withdrawal-guard".into(), "half".into()], "expected e.g. \"50% floor=20"),
        (vec!["--namespace-template".into(), "tools".into()], "expected a name with"),
        (
            vec![
                "--redis".into(),
                "http://h:password@x".into(),
                "--config".into(),
                file("kubernetes: {master: 'http://h'}"),
            ],
            "expected e.g. redis://",
        ),
    ] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (status, _, error) = run(&args);
        assert_eq!(status, Some(64), "{args:?}: {error}");
        assert!(error.contains(want) && !error.contains("password"), "{args:?}: {error}");
    }
    for (text, want) in [
        ("kubernetes: [", "invalid --config"),
        ("redis: localhost:6379", "kubernetes"),
        ("kubernetes: {master: 'http://h', tokens: x}", "tokens"),
        ("kubernetes: {master: 'h:6443'}", "expected e.g. https://10.0.0.1:6443"),
        ("kubernetes: {master: 'https://h', certificate_authority: /nowhere}", "/nowhere"),
        ("kubernetes: {master: 'https://h', token_file: /nowhere}", "/nowhere"),
    ] {
        let (status, _, error) = run(&["--config", &file(text)]);
        assert_eq!(status, Some(64), "{text:?}: {error}");
        assert!(error.contains(want), "{text:?}: {error}");
    }
}
