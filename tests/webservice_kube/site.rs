//! A tool with credentials for a scripted API server, and the site's configuration.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;
use urlproxy::web_type::SiteConfig;
use urlproxy::webservice::kubernetes::{Kubernetes, KubernetesError};
use urlproxy::webservice::{Service, Tool};

use crate::api_server::{ApiServer, NAMESPACE};

/// A tool in a cluster.
pub struct Site {
    /// The API server.
    pub api: ApiServer,
    /// The tool `hello`.
    pub tool: Tool,
    /// The configuration.
    pub config: SiteConfig,
    _home: TempDir,
}

/// The types of the ConfigMap.
const IMAGES: &str = "
php8.2:
  state: stable
  variants: {webservice: {image: 'registry.example.org/php', extra: {wstype: lighttpd}}}
php7.4:
  state: deprecated
  variants: {webservice: {image: 'registry.example.org/old-php', extra: {wstype: lighttpd}}}
jdk17:
  state: stable
  variants: {webservice: {image: 'registry.example.org/jdk', extra: {wstype: generic, resources: jdk}}}
";

impl Site {
    /// A cluster with the ConfigMap of types, without objects of the tool.
    pub fn new() -> Self {
        Self::with_config("buildservice_repository: registry.example.org/builds\n")
    }

    /// The same with this site configuration.
    pub fn with_config(config: &str) -> Self {
        let api = ApiServer::start();
        let metadata = json!({"name": "image-config"});
        api.put("configmaps", "tf-public", json!({"metadata": metadata, "data": {"images-v1.yaml": IMAGES}}));
        let home = tempfile::Builder::new().prefix("a home ").tempdir().expect("a directory");
        fs::create_dir(home.path().join(".kube")).expect("a directory");
        fs::create_dir(home.path().join("public_html")).expect("a directory");
        let kubeconfig = json!({
            "current-context": "x",
            "clusters": [{"name": "c", "cluster": {"server": api.url()}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        });
        fs::write(home.path().join(".kube/config"), kubeconfig.to_string()).expect("a file");
        let home_path = home.path().to_owned();
        let tool = Tool { name: "hello".into(), account: "tools.hello".into(), home: home_path, uid: 50_001 };
        Self { api, tool, config: SiteConfig::parse(config).expect("a configuration"), _home: home }
    }

    /// The tool's part of the cluster.
    pub async fn connect(&self) -> Kubernetes<'_> {
        Kubernetes::connect(&self.tool, &self.config).await.expect("credentials")
    }

    /// The error of starting this.
    pub async fn refusal(&self, service: &Service) -> String {
        let error: KubernetesError = self.connect().await.start(service).await.expect_err("refused");
        error.to_string()
    }

    /// Creates a Pod of the web service with this status.
    pub fn put_pod(&self, name: &str, started_at: &str, status: &Value) {
        let annotations = json!({"toolforge.org/started-at": started_at});
        let owner =
            json!({"kind": "ReplicaSet", "name": "hello-abc", "controller": true, "apiVersion": "apps/v1", "uid": "x"});
        let metadata =
            json!({"name": name, "labels": web_labels(), "annotations": annotations, "ownerReferences": [owner]});
        self.api.put("pods", NAMESPACE, json!({"metadata": metadata, "status": status}));
    }

    /// When the Deployment was last started.
    pub fn started_at(&self) -> String {
        let deployment = self.api.get("deployments", "hello");
        let in_pods = &deployment["spec"]["template"]["metadata"]["annotations"]["toolforge.org/started-at"];
        assert_eq!(*in_pods, deployment["metadata"]["annotations"]["toolforge.org/started-at"]);
        in_pods.as_str().expect("a time").to_owned()
    }
}

/// What starts with a type and its defaults.
pub fn service(web: &str) -> Service {
    Service { web: web.into(), ..Service::default() }
}

/// The labels of the web service's objects.
pub fn web_labels() -> Value {
    json!({
        "toolforge": "tool",
        "name": "hello",
        "app.kubernetes.io/component": "web",
        "app.kubernetes.io/managed-by": "webservice",
        "tools.wmflabs.org/webservice": "true",
        "tools.wmflabs.org/webservice-version": "1",
    })
}

/// The status of a Pod that takes requests.
pub fn ready() -> Value {
    json!({
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [running(0)],
    })
}

/// The status of a running container.
pub fn running(restarts: u32) -> Value {
    json!({
        "name": "webservice", "image": "", "imageID": "", "ready": true, "restartCount": restarts,
        "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
    })
}
