//! Operating kube2proxy: rights, command line, proxies.

use std::process::Command;
use std::time::Duration;

use crate::api_server::{ApiServer, web_service};
use crate::kube2proxy::{Kube2proxy, members, url_of};
use crate::proxy_server::ProxyServer;
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

#[test]
fn documented_redis_rights_suffice() {
    let page = include_str!("../../docs/kube2proxy.md");
    let line = page.lines().find(|line| line.starts_with("ACL SETUSER kube2proxy ")).expect("a line in the page");
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    redis.create_user(line);
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
    assert!(!log.contains("password") && !log.contains("NOPERM") && !log.contains("Redis request failed"), "{log}");
    assert!(redis.cli(&["GET", "k8s_lock"]).ends_with(" -"), "released");
}

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kube2proxy"))
        .args(args)
        .env_remove("URLPROXY_REDIS")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env("HTTPS_PROXY", "ftp://user:password@proxy")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn usage_errors_show_what_is_expected() {
    let dir = tempfile::tempdir().unwrap();
    let file = |text: &str| {
        let path = dir.path().join("kube2proxy.yaml");
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let missing = dir.path().join("missing").to_str().unwrap().to_owned();
    for (args, want) in [
        (vec!["--no-such-option".to_owned()], "unexpected argument"),
        (vec![], "neither --config nor --kubeconfig given, and not in a cluster"),
        (vec!["--config".into(), missing.clone()], "while reading"),
        (vec!["--kubeconfig".into(), missing.clone()], "invalid --kubeconfig"),
        (vec!["--withdrawal-guard".into(), "half".into()], "expected e.g. \"50% floor=20"),
        (vec!["--namespace-template".into(), "tools".into()], "expected a name with"),
        (
            vec![
                "--redis".into(),
                "http://h:password@x".into(),
                "--config".into(),
                file("kubernetes: {master: 'http://h'}"),
            ],
            "expected e.g. \"redis://",
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
        ("kubernetes: {master: 'http://h', token_file: /nowhere}", "/nowhere"),
        ("kubernetes: {master: 'https://h'}", "invalid HTTPS_PROXY, expected e.g. http://proxy.example.org:3128"),
    ] {
        let (status, _, error) = run(&["--config", &file(text)]);
        assert_eq!(status, Some(64), "{text:?}: {error}");
        assert!(error.contains(want), "{text:?}: {error}");
    }
}

#[test]
fn proxy_of_the_environment_is_used() {
    let (api, redis, proxy) = (ApiServer::start(), RedisServer::start(&[]), ProxyServer::start());
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let port = api.url().rsplit_once(':').unwrap().1.to_owned();
    proxy.name("kubernetes.test", api.url().strip_prefix("http://").unwrap());
    let cluster = format!("  master: http://kubernetes.test:{port}\n  token: secret\n");
    for (variables, is_used) in [
        (vec![("HTTP_PROXY", proxy.url())], true),
        (vec![("http_proxy", proxy.url()), ("NO_PROXY", "other.test,.kubernetes.test,10.0.0.0/8".into())], true),
        (vec![("HTTP_PROXY", proxy.url()), ("no_proxy", "kubernetes.test".into())], false),
        (vec![("HTTPS_PROXY", proxy.url())], false),
    ] {
        let environment: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let requested = proxy.targets().len();
        let kube2proxy = Kube2proxy::launch_in(&cluster, &redis, &[], &environment);
        if is_used {
            kube2proxy.wait_until_ready();
            assert_eq!(url_of(&redis, "hello"), "http://10.96.0.1:80");
            assert_eq!(proxy.targets().last().unwrap(), &format!("kubernetes.test:{port}"));
        } else {
            kube2proxy.daemon.wait_for_line(&["WARN", "watch failed"]);
            assert_eq!(proxy.targets().len(), requested, "{variables:?}");
        }
    }
}

#[test]
fn proxy_of_the_kubeconfig_overrides_the_environment() {
    let (api, redis, proxy) = (ApiServer::start(), RedisServer::start(&[]), ProxyServer::start());
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let file = redis.dir().join("kubeconfig");
    let kubeconfig = |proxy: &str| {
        let cluster = serde_json::json!({"name": "c", "cluster": {"server": api.url(), "proxy-url": proxy}});
        let context = serde_json::json!({"name": "x", "context": {"cluster": "c", "user": "u"}});
        let user = serde_json::json!({"name": "u", "user": {"token": "secret"}});
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": [cluster], "contexts": [context], "users": [user],
        });
        std::fs::write(&file, text.to_string()).unwrap();
    };
    kubeconfig(&proxy.url());
    let args = ["--kubeconfig", file.to_str().unwrap(), "--redis", &redis.url()];
    let environment = [("HTTP_PROXY", "http://127.0.0.1:1"), ("NO_PROXY", "*")];
    let kube2proxy = Kube2proxy::launch_by(&args, &environment);
    kube2proxy.wait_until_ready();
    assert_eq!(url_of(&redis, "hello"), "http://10.96.0.1:80");
    assert!(!proxy.targets().is_empty());
    kubeconfig("ftp://proxy");
    let (status, _, error) = run(&args[..2]);
    assert_eq!(status, Some(64), "{error}");
    assert!(error.contains("invalid proxy-url in the kubeconfig"), "{error}");
}

#[test]
fn lease_option_has_no_effect() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    let kube2proxy = Kube2proxy::start(&api, &redis, &["--lease", "urlproxy/kube2proxy"]);
    kube2proxy.daemon.wait_for_line(&["WARN", "--lease has no effect"]);
    assert!(api.unexpected().is_empty(), "{:?}", api.unexpected());
}
