//! API servers that misbehave, and tools that cannot run in Kubernetes.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;
use urlproxy::webservice::State;
use urlproxy::webservice::kubernetes::Kubernetes;

use crate::api_server::{ALWAYS, Fault};
use crate::site::{Site, service};

#[tokio::test]
async fn busy_server_is_asked_again_when_it_says() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    site.api.fail("GET", "/deployments/", Fault::Busy(1), 1);
    site.api.fail("POST", "/services", Fault::Busy(1), 1);
    let begun = Instant::now();
    assert_eq!(kubernetes.state().await.unwrap(), State::Stopped);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    kubernetes.start(&service("php8.2")).await.unwrap();
    assert_eq!(site.api.count("POST", "/services"), 2);
    // Longer than anybody waits.
    for seconds in [3600, u64::MAX] {
        site.api.fail("GET", "/deployments/", Fault::Busy(seconds), ALWAYS);
        let error = kubernetes.state().await.unwrap_err().to_string();
        assert_eq!(error, "too many requests (429) while reading Deployment \"hello\"; try again later");
        site.api.recover();
    }
}

#[tokio::test]
async fn token_that_no_header_can_have_is_refused() {
    let site = Site::new();
    let path = site.tool.home.join(".kube/config");
    let text = fs::read_to_string(&path).unwrap().replace("\"secret\"", "\"a\\nb\"");
    fs::write(&path, text).unwrap();
    let error = Kubernetes::connect(&site.tool, &site.config).await.err().unwrap().to_string();
    assert!(error.contains("invalid bearer token") && error.ends_with("in ~/.kube/config"), "{error}");
}

#[tokio::test]
async fn short_outages_are_overcome() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    for fault in [Fault::Status(503, "apiserver is shutting down"), Fault::Cut, Fault::Status(504, "timeout")] {
        site.api.fail("GET", "/deployments/", fault, 1);
        assert_eq!(kubernetes.state().await.unwrap(), State::Stopped);
    }
    // Not executed: sent again. Perhaps executed: looked at first.
    site.api.fail("POST", "/services", Fault::Status(503, "apiserver is shutting down"), 1);
    kubernetes.start(&service("php8.2")).await.unwrap();
}

#[tokio::test]
async fn silent_server_does_not_hang_the_command() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    site.api.fail("GET", "/deployments/", Fault::Hang, ALWAYS);
    let error = kubernetes.state().await.unwrap_err().to_string();
    let want = "within 10 s while reading Deployment \"hello\"; try again later";
    assert!(error.starts_with("no answer from the API server http://127.0.0.1:") && error.ends_with(want), "{error}");
}

#[tokio::test]
async fn unreachable_server_is_named() {
    let mut site = Site::new();
    site.tool.home = tempfile::tempdir().unwrap().keep();
    fs::create_dir(site.tool.home.join(".kube")).unwrap();
    let kubeconfig = json!({
        "current-context": "x",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
    });
    fs::write(site.tool.home.join(".kube/config"), kubeconfig.to_string()).unwrap();
    let error = site.connect().await.state().await.unwrap_err().to_string();
    fs::remove_dir_all(&site.tool.home).unwrap();
    assert!(error.contains("refused") && error.contains("at the API server http://127.0.0.1:1"), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[tokio::test]
async fn unusable_types_are_the_operators_business() {
    let site = Site::new();
    let put = |data: serde_json::Value| {
        site.api.put("configmaps", "tf-public", json!({"metadata": {"name": "image-config"}, "data": data}));
    };
    for (data, want) in [
        (json!({}), "ConfigMap tf-public/image-config has no key \"images-v1.yaml\"; tell the operators"),
        (json!({"images-v1.yaml": "a: &x 1\nb: *x"}), "unsupported or invalid YAML in \"images-v1.yaml\""),
        (json!({"images-v1.yaml": " ".repeat(2 << 20)}), "has more than 1048576 bytes; tell the operators"),
        (
            json!({"images-v1.yaml": " ".repeat(10 << 20)}),
            "has more than 8388608 bytes while reading ConfigMap \"image-config\"",
        ),
        (json!({"images-v1.yaml": ""}), "unknown type \"php8.2\": the site has no types with an image"),
    ] {
        put(data);
        let error = site.refusal(&service("php8.2")).await;
        assert!(error.contains(want), "{error}");
    }
    assert_eq!(site.api.count("POST", ""), 0);
}

#[tokio::test]
async fn names_that_no_service_can_have_are_refused() {
    let mut site = Site::new();
    for name in ["Hello", "a_b", "-x", &"x".repeat(60), "../kube-system", ""] {
        site.tool.name = name.to_owned();
        let Err(error) = Kubernetes::connect(&site.tool, &site.config).await else { panic!("{name}") };
        let error = error.to_string();
        assert!(error.starts_with(&format!("tool {name:?} cannot run in Kubernetes")), "{error}");
        assert!(error.ends_with("use --backend=gridengine"), "{error}");
    }
    assert!(site.api.requests().is_empty());
}
