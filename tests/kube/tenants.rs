//! Bounds on what one tenant's Services cost kube2proxy, and so other tenants.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::api_server::{ApiServer, web_service};
use crate::kube2proxy::{Kube2proxy, url_of};
use crate::support::redis::RedisServer;
use crate::support::wait::wait_for;

/// The peak memory, in MiB.
fn peak_mebibytes(kube2proxy: &Kube2proxy) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", kube2proxy.daemon.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

#[test]
fn largest_services_do_not_exhaust_the_memory() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("hello", "hello", web_service("10.96.0.1", 80));
    let mut large = web_service("10.96.0.2", 80);
    // A real Service is as large with many labels or ports.
    large["metadata"]["labels"]["much"] = json!("x".repeat(1 << 20));
    for number in 0..60 {
        api.apply("tool-evil", &format!("evil{number}"), large.clone());
    }
    let kube2proxy = Kube2proxy::start(&api, &redis, &["--watch-timeout", "30s"]);
    assert_eq!(url_of(&redis, "hello"), "http://10.96.0.1:80");
    let peak = peak_mebibytes(&kube2proxy);
    eprintln!("60 Services of 1 MiB: {peak} MiB at most");
    // The limit of the Deployment is 256.
    assert!(peak < 100, "{peak} MiB");
    for port in 81..84 {
        large["spec"]["ports"][0]["port"] = json!(port);
        for number in 0..60 {
            api.apply("tool-evil", &format!("evil{number}"), large.clone());
        }
    }
    api.apply("hello", "hello", web_service("10.96.0.1", 81));
    wait_for("a change after them", || url_of(&redis, "hello") == "http://10.96.0.1:81");
    let peak = peak_mebibytes(&kube2proxy);
    eprintln!("and 180 changes of them: {peak} MiB at most");
    assert!(peak < 100, "{peak} MiB");
}

#[test]
fn rejections_are_limited_per_namespace() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    for number in 0..3000 {
        api.apply("tool-evil", &format!("evil{number}"), web_service("10.96.0.2", 80));
    }
    api.apply("zz", "another", web_service("10.96.0.3", 80));
    let kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    wait_for("another tenant's Event", || api.reasons("zz", "another") == ["NamespaceNotAllowed"]);
    let lines = || kube2proxy.daemon.log().matches("not routed").count();
    eprintln!("{} lines, {} Events", lines(), api.events().len());
    assert!(lines() < 100, "{} lines", lines());
    assert!(api.events().len() < 100, "{} Events", api.events().len());
    let rejected = || kube2proxy.metric("kube2proxy_rejected_services{reason=\"NamespaceNotAllowed\"}");
    wait_for("all are counted", || rejected() > 0.0);
    assert_eq!(rejected(), 3001.0, "all or none");
    // Many more changes, as fast as possible.
    for number in 0..3000 {
        api.delete("tool-evil", &format!("evil{number}"));
        api.apply("tool-evil", &format!("evil{number}"), web_service("10.96.0.2", 80));
    }
    api.apply("zz", "third", web_service("10.96.0.3", 80));
    wait_for("another tenant's Event", || api.reasons("zz", "third") == ["NamespaceNotAllowed"]);
    assert!(lines() < 100, "{} lines", lines());
}

#[test]
fn continuous_changes_of_a_service_are_rate_limited() {
    let (api, redis) = (ApiServer::start(), RedisServer::start(&[]));
    api.apply("evil", "evil", web_service("10.96.0.2", 80));
    let kube2proxy = Kube2proxy::start(&api, &redis, &[]);
    let begun = Instant::now();
    let mut changes = 0;
    while begun.elapsed() < Duration::from_secs(5) {
        changes += 1;
        api.apply("evil", "evil", web_service("10.96.0.2", 1000 + changes % 2));
        std::thread::sleep(Duration::from_millis(2));
    }
    api.apply("evil", "evil", web_service("10.96.0.2", 99));
    wait_for("the last change", || url_of(&redis, "evil") == "http://10.96.0.2:99");
    let seconds = begun.elapsed().as_secs_f64();
    let writes = kube2proxy.metric("kube2proxy_routes_written_total");
    eprintln!("{changes} changes, {writes} writes in {seconds:.1} s");
    assert!(writes <= 2.0 * seconds + 5.0, "{writes} writes in {seconds} s");
}
