//! What is created, replaced and deleted.

use serde_json::{Value, json};
use urlproxy::webservice::{Console, Service, State};

use crate::api_server::{ALWAYS, Fault, NAMESPACE};
use crate::site::{Site, ready, service, web_labels};
use crate::support::wait::SOON;

fn container(site: &Site) -> Value {
    site.api.get("deployments", "hello")["spec"]["template"]["spec"]["containers"][0].clone()
}

#[tokio::test]
async fn start_creates_a_deployment_and_a_service() {
    let site = Site::new();
    let extra = ["--flag", "a b", "$(x)", "$$PORT"].map(str::to_owned).into();
    let wanted =
        Service { extra, replicas: Some(2), memory: Some("1Gi".into()), cpu: Some("1".into()), ..service("jdk17") };
    let kubernetes = site.connect().await;
    assert_eq!(kubernetes.check(&wanted).await.unwrap(), None);
    let started_at = kubernetes.start(&wanted).await.unwrap();
    assert_eq!(site.api.names(), ["deployments/hello", "services/hello"]);
    assert_eq!(site.started_at(), started_at.as_str());

    let deployment = site.api.get("deployments", "hello");
    let selector = json!({
        "toolforge": "tool", "name": "hello",
        "app.kubernetes.io/component": "web", "app.kubernetes.io/managed-by": "webservice",
    });
    assert_eq!(deployment["metadata"]["labels"], web_labels());
    assert_eq!(deployment["spec"]["replicas"], 2);
    assert_eq!(deployment["spec"]["selector"], json!({"matchLabels": selector}));
    assert_eq!(deployment["spec"]["template"]["metadata"]["labels"], web_labels());
    assert_eq!(deployment["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    let want = json!({
        "name": "webservice",
        "image": "registry.example.org/jdk",
        "command": ["webservice-runner", "--type", "generic", "--port", "8000", "--", "--flag", "a b", "$$(x)", "$$$$PORT"],
        "workingDir": site.tool.home.to_str().unwrap(),
        "ports": [{"name": "http", "containerPort": 8000, "protocol": "TCP"}],
        "resources": {"limits": {"memory": "1Gi", "cpu": "1"}, "requests": {"memory": "512Mi", "cpu": "500m"}},
    });
    assert_eq!(container(&site), want);

    let spec = &site.api.get("services", "hello")["spec"];
    assert_eq!(site.api.get("services", "hello")["metadata"]["labels"], web_labels());
    assert_eq!(spec["selector"], selector);
    assert_eq!(spec["ports"], json!([{"name": "http", "port": 8000, "targetPort": 8000, "protocol": "TCP"}]));
    assert_eq!(site.api.user_agents(), ["webservice"]);
    assert_eq!(kubernetes.running_type().await.unwrap().as_deref(), Some("jdk17"));
}

#[tokio::test]
async fn defaults_are_the_sites_and_the_types() {
    let site = Site::new();
    let limits = async |web: &str| {
        site.connect().await.start(&service(web)).await.unwrap();
        container(&site)["resources"].clone()
    };
    let want = json!({"limits": {"memory": "512Mi", "cpu": "500m"}, "requests": {"memory": "256Mi", "cpu": "125m"}});
    assert_eq!(limits("php8.2").await, want);
    let want = json!({"limits": {"memory": "1Gi", "cpu": "500m"}, "requests": {"memory": "256Mi", "cpu": "125m"}});
    assert_eq!(limits("jdk17").await, want);
    let warning = site.connect().await.check(&service("php7.4")).await.unwrap();
    assert_eq!(warning.unwrap(), "type php7.4 is deprecated; change to a newer one soon");
}

#[tokio::test]
async fn own_image_starts_by_itself() {
    let site = Site::new();
    let own = Service {
        buildservice_image: Some("tool-hello/web:v1".into()),
        extra: vec!["-v".into()],
        ..Service::default()
    };
    site.connect().await.start(&own).await.unwrap();
    let container = container(&site);
    assert_eq!(container["image"], "registry.example.org/builds/tool-hello/web:v1");
    assert_eq!(container["env"], json!([{"name": "PORT", "value": "8000"}]));
    assert_eq!(container["args"], json!(["-v"]));
    assert_eq!((&container["command"], &container["workingDir"]), (&Value::Null, &Value::Null));
    assert_eq!(site.connect().await.running_type().await.unwrap().as_deref(), Some("buildservice"));
}

#[tokio::test]
async fn types_of_the_site_configuration_need_no_config_map() {
    let types = "types: {own: {command: [x], image: 'registry.example.org/own', runner_type: generic, memory: 1Gi}}\n";
    let site = Site::with_config(types);
    let image = async |web: &str| {
        site.connect().await.start(&service(web)).await.unwrap();
        container(&site)["image"].clone()
    };
    assert_eq!(image("php8.2").await, "registry.example.org/php");
    assert_eq!(image("own").await, "registry.example.org/own");
    assert_eq!(container(&site)["resources"]["limits"]["memory"], "1Gi");
    site.api.fail(
        "GET",
        "/configmaps/",
        Fault::Status(403, "configmaps is forbidden: User \"hello\" cannot get it"),
        ALWAYS,
    );
    assert_eq!(image("own").await, "registry.example.org/own");
    assert_eq!(site.refusal(&service("php8.2")).await, "unknown type \"php8.2\", expected one of: own");
    site.api.recover();
    site.api.fail("GET", "/configmaps/", Fault::Status(404, "configmaps \"image-config\" not found"), ALWAYS);
    assert_eq!(image("own").await, "registry.example.org/own");
}

#[tokio::test]
async fn needs_of_the_runners_type_are_checked() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    let error = kubernetes.check(&service("jdk17")).await.unwrap_err().to_string();
    assert!(error.contains("generic") && error.contains("command"), "{error}");
    std::fs::remove_dir(site.tool.home.join("public_html")).unwrap();
    let error = kubernetes.check(&service("php8.2")).await.unwrap_err().to_string();
    assert!(error.contains("public_html") && !error.contains('\n'), "{error}");
}

#[tokio::test]
async fn nothing_is_created_for_invalid_requests() {
    let site = Site::new();
    let with = |change: fn(&mut Service)| {
        let mut wanted = service("php8.2");
        change(&mut wanted);
        wanted
    };
    for (wanted, want) in [
        (service("perl"), "unknown type \"perl\", expected one of: jdk17, php8.2"),
        (service("generic"), "unknown type \"generic\", expected one of: jdk17, php8.2"),
        (service("buildservice"), "type \"buildservice\" needs an image; add --buildservice-image IMAGE"),
        (
            with(|wanted| wanted.memory = Some("512m".into())),
            "memory \"512m\" is less than 4Mi, in which nothing runs; expected e.g. \"512Mi\" or \"2Gi\"",
        ),
        (
            with(|wanted| wanted.cpu = Some("a lot".into())),
            "invalid cpu \"a lot\": not a number with a unit such as m, M, Mi, G or Gi; expected e.g. \"0.5\", \"250m\" or \"2\"",
        ),
        (with(|wanted| wanted.replicas = Some(0)), "0 replicas are not possible, expected 1 to 10"),
        (
            with(|wanted| wanted.replicas = Some(4_000_000_000)),
            "4000000000 replicas are not possible, expected 1 to 10",
        ),
        (
            with(|wanted| wanted.extra = vec!["x".repeat(1 << 20)]),
            "the arguments have 1048577 bytes, expected at most 65536; put them into a file of the tool",
        ),
        (
            with(|wanted| wanted.buildservice_image = Some("tool-other/web".into())),
            "image \"tool-other/web\" is not of this tool, expected e.g. \"tool-hello/hello:latest\", or with its repository: \"registry.example.org/builds/PROJECT/NAME:TAG\"",
        ),
    ] {
        assert_eq!(site.refusal(&wanted).await, want);
    }
    assert_eq!(site.api.count("POST", ""), 0);
}

#[tokio::test]
async fn restart_changes_the_annotation_and_keeps_the_address() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    let first = kubernetes.start(&service("php8.2")).await.unwrap();
    let before = site.api.get("services", "hello");
    // A maintainer limits the route, and a controller counts revisions.
    let mut labeled = before.clone();
    labeled["metadata"]["labels"]["toollabs-proxy-path"] = json!("api");
    site.api.put("services", NAMESPACE, labeled);
    let mut revised = site.api.get("deployments", "hello");
    revised["metadata"]["annotations"]["deployment.kubernetes.io/revision"] = json!("7");
    site.api.put("deployments", NAMESPACE, revised);

    let second = kubernetes.start(&service("jdk17")).await.unwrap();
    assert_ne!(first, second);
    assert_eq!(site.started_at(), second.as_str());
    let after = site.api.get("services", "hello");
    assert_eq!(after["spec"]["clusterIP"], before["spec"]["clusterIP"]);
    assert_eq!(after["metadata"]["labels"]["toollabs-proxy-path"], "api");
    let deployment = site.api.get("deployments", "hello");
    assert_eq!(deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"], "7");
    assert_eq!(container(&site)["image"], "registry.example.org/jdk");
}

#[tokio::test]
async fn objects_of_the_old_command_are_replaced_with_their_selector() {
    let site = Site::new();
    let old = json!({"name": "hello", "toolforge": "tool", "tools.wmflabs.org/webservice": "true", "tools.wmflabs.org/webservice-version": "1"});
    let pods = json!({"metadata": {"labels": old}, "spec": {"containers": [{"name": "webservice", "command": ["/usr/bin/webservice-runner", "--type", "lighttpd"]}]}});
    let spec = json!({"replicas": 1, "selector": {"matchLabels": old}, "template": pods});
    site.api.put("deployments", NAMESPACE, json!({"metadata": {"name": "hello", "labels": old}, "spec": spec}));
    let spec = json!({"clusterIP": "10.96.7.7", "selector": {"name": "hello"}, "ports": [{"port": 8000}]});
    site.api.put("services", NAMESPACE, json!({"metadata": {"name": "hello", "labels": old}, "spec": spec}));
    let kubernetes = site.connect().await;
    assert_eq!(kubernetes.running_type().await.unwrap().as_deref(), Some("lighttpd"));
    kubernetes.start(&service("php8.2")).await.unwrap();
    let deployment = site.api.get("deployments", "hello");
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], old);
    assert_eq!(deployment["spec"]["template"]["metadata"]["labels"], web_labels());
    let service = site.api.get("services", "hello");
    assert_eq!(service["spec"]["clusterIP"], "10.96.7.7");
    assert_eq!(service["spec"]["selector"], json!({"name": "hello"}));
    assert_eq!(service["spec"]["ports"][0]["name"], "http");
}

#[tokio::test]
async fn objects_that_cannot_become_the_wanted_ones_are_created_again() {
    let site = Site::new();
    for selector in [
        json!({"matchLabels": {"app": "mine"}}),
        json!({"matchLabels": {"name": "other"}}),
        json!({"matchLabels": {"name": "hello"}, "matchExpressions": [{"key": "a", "operator": "Exists"}]}),
    ] {
        let metadata = json!({"name": "hello", "uid": "old"});
        site.api.put(
            "deployments",
            NAMESPACE,
            json!({"metadata": metadata, "spec": {"selector": selector, "template": {}}}),
        );
        for spec in [json!({"clusterIP": "None"}), json!({"type": "ExternalName", "externalName": "evil.example.org"})]
        {
            site.api.put("services", NAMESPACE, json!({"metadata": {"name": "hello", "uid": "old"}, "spec": spec}));
            site.connect().await.start(&service("php8.2")).await.unwrap();
            for plural in ["deployments", "services"] {
                assert_ne!(site.api.get(plural, "hello")["metadata"]["uid"], "old", "{plural} {selector} {spec}");
            }
        }
    }
}

#[tokio::test]
async fn orphans_are_replaced() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    kubernetes.start(&service("php8.2")).await.unwrap();
    site.api.remove("deployments", "hello");
    assert_eq!(kubernetes.state().await.unwrap(), State::Stopped);
    kubernetes.start(&service("php8.2")).await.unwrap();
    site.api.remove("services", "hello");
    assert!(
        matches!(kubernetes.state().await.unwrap(), State::Failed { reason } if reason.contains("Service is missing"))
    );
    kubernetes.start(&service("php8.2")).await.unwrap();
    assert_eq!(site.api.names(), ["deployments/hello", "services/hello"]);
}

#[tokio::test]
async fn refused_deployment_leaves_no_service() {
    let site = Site::new();
    let quota =
        "deployments.apps \"hello\" is forbidden: exceeded quota: tool-hello, requested: count/deployments.apps=1";
    site.api.fail("POST", "/deployments", Fault::Status(403, quota), 2);
    let error = site.refusal(&service("php8.2")).await;
    assert!(
        error.starts_with(quota) && error.contains("(403) while creating Deployment \"hello\"; ask for less"),
        "{error}"
    );
    assert!(site.api.names().is_empty(), "{:?}", site.api.names());
    // A Service that was there stays: it has the tool's address.
    site.connect().await.start(&service("php8.2")).await.unwrap_err();
    site.connect().await.start(&service("php8.2")).await.unwrap();
    site.api.remove("deployments", "hello");
    site.api.fail("POST", "/deployments", Fault::Status(403, quota), 1);
    site.refusal(&service("php8.2")).await;
    assert_eq!(site.api.names(), ["services/hello"]);
}

#[tokio::test]
async fn conflicts_and_lost_answers_are_overcome() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    site.api.fail("POST", "/services", Fault::DoneBut(504), 1);
    site.api.fail("POST", "/deployments", Fault::Cut, 1);
    kubernetes.start(&service("php8.2")).await.unwrap();
    site.api.fail("PUT", "/services/", Fault::Status(409, "the object has been modified"), 2);
    site.api.fail("PUT", "/deployments/", Fault::Status(409, "the object has been modified"), 2);
    site.api.fail("PUT", "/deployments/", Fault::DoneBut(500), 1);
    let started_at = kubernetes.start(&service("jdk17")).await.unwrap();
    assert_eq!(site.started_at(), started_at.as_str());
    site.api.fail("PUT", "/deployments/", Fault::Status(409, "the object has been modified"), ALWAYS);
    let error = kubernetes.start(&service("jdk17")).await.unwrap_err().to_string();
    assert_eq!(error, "the object has been modified (409) while replacing Deployment \"hello\"");
}

#[tokio::test]
async fn stop_deletes_the_web_service_and_nothing_else() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    kubernetes.start(&service("php8.2")).await.unwrap();
    // More than one page of a list.
    for number in 1..=5 {
        site.put_pod(&format!("hello-abc-{number}"), "now", &ready());
    }
    let set = json!({"name": "hello-abc", "labels": web_labels(), "ownerReferences": [{"kind": "Deployment", "name": "hello", "controller": true}]});
    site.api.put("replicasets", NAMESPACE, json!({"metadata": set, "spec": {"selector": {}}}));
    let old = json!({"name": "hello", "toolforge": "tool", "tools.wmflabs.org/webservice": "true", "tools.wmflabs.org/webservice-version": "1"});
    site.api.put("pods", NAMESPACE, json!({"metadata": {"name": "hello-old", "labels": old}}));
    // Other things of the tool, some with labels of its web service.
    let job = json!([{"kind": "Job", "name": "cron", "controller": true, "apiVersion": "batch/v1", "uid": "x"}]);
    for (name, labels, owners) in [
        ("cron-1", web_labels(), job.clone()),
        ("cron-2", json!({"toolforge": "tool", "name": "hello"}), job),
        (
            "shell-1",
            json!({"toolforge": "tool", "name": "shell-1", "app.kubernetes.io/component": "shell", "app.kubernetes.io/managed-by": "webservice"}),
            json!(null),
        ),
        ("mine", json!({"app": "mine"}), json!(null)),
    ] {
        site.api.put(
            "pods",
            NAMESPACE,
            json!({"metadata": {"name": name, "labels": labels, "ownerReferences": owners}}),
        );
    }
    site.api.put("services", NAMESPACE, json!({"metadata": {"name": "database", "labels": {"toolforge": "tool"}}}));
    site.api.put("deployments", NAMESPACE, json!({"metadata": {"name": "worker", "labels": {"toolforge": "tool"}}}));
    kubernetes.stop().await.unwrap();
    let want = ["deployments/worker", "pods/cron-1", "pods/cron-2", "pods/mine", "pods/shell-1", "services/database"];
    assert_eq!(site.api.names(), want);
    assert_eq!(kubernetes.state().await.unwrap(), State::Stopped);
    let deleted: Vec<_> = site.api.requests().into_iter().filter(|request| request.starts_with("DELETE")).collect();
    assert!(deleted[0].contains("/services/") && deleted[1].contains("/deployments/"), "{deleted:?}");
    // There is nothing more to delete.
    kubernetes.stop().await.unwrap();
    assert!(kubernetes.wait_until_stopped(SOON, &mut Console::new().wait("Stopping")).await.unwrap());
}

#[tokio::test]
async fn stop_spares_what_a_deployment_merely_selects() {
    let site = Site::new();
    let name = json!({"name": "hello"});
    site.api.put(
        "deployments",
        NAMESPACE,
        json!({"metadata": {"name": "hello"}, "spec": {"selector": {"matchLabels": name}, "template": {"metadata": {"labels": name}}}}),
    );
    site.api.put("pods", NAMESPACE, json!({"metadata": {"name": "cron-1", "labels": name}}));
    site.connect().await.stop().await.unwrap();
    assert_eq!(site.api.names(), ["pods/cron-1"]);
}

#[tokio::test]
async fn stop_waits_for_pods_and_deletes_late_ones() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    kubernetes.start(&service("php8.2")).await.unwrap();
    let metadata = json!({"name": "hello-held", "labels": web_labels(), "finalizers": ["held"]});
    site.api.put("pods", NAMESPACE, json!({"metadata": metadata}));
    kubernetes.stop().await.unwrap();
    assert_eq!(site.api.names(), ["pods/hello-held"]);
    assert_eq!(kubernetes.state().await.unwrap(), State::Stopping);
    let mut wait = Console::new().wait("Stopping");
    let briefly = std::time::Duration::from_millis(10);
    assert!(!kubernetes.wait_until_stopped(briefly, &mut wait).await.unwrap());
    assert_eq!(site.api.count("DELETE", "/pods/hello-held"), 1, "it is being deleted already");
    // A ReplicaSet's controller had not noticed yet.
    site.put_pod("hello-late", "now", &ready());
    let gone = async {
        while site.api.names().iter().any(|name| name == "pods/hello-late") {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        site.api.remove("pods", "hello-held");
    };
    let (stopped, ()) = tokio::join!(kubernetes.wait_until_stopped(SOON, &mut wait), gone);
    assert!(stopped.unwrap());
    assert!(site.api.names().is_empty());
}
