//! Services as the API server lists them: any object gives a route of its namespace's tool, or a reason why it has none.

use serde_json::{Value, json};
use urlproxy::kube::{NamespaceTemplate, route_of};

pub fn check(bytes: &[u8]) {
    let templates = ["{tool}", "tool-{tool}"].map(|text| NamespaceTemplate::parse(text).expect("a template"));
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return };
    // As a whole object, and as parts of one that is valid otherwise.
    let metadata = |labels: &Value| json!({"name": "hello", "namespace": "tool-hello", "labels": labels});
    let spec = json!({"clusterIP": "10.0.0.1", "ports": [{"port": 80}]});
    // The API server accepts no longer label, and long patterns take milliseconds.
    let label = value.as_str().filter(|text| text.len() <= 63).map(|text| json!({"toollabs-proxy-path": text}));
    for object in [
        json!({"metadata": metadata(&json!({})), "spec": &value}),
        json!({"metadata": metadata(&value), "spec": &spec}),
        json!({"metadata": metadata(&label.into()), "spec": &spec}),
        value,
    ] {
        let Ok(service) = serde_json::from_value(object) else { continue };
        match route_of(&service, &templates) {
            Ok(route) => {
                let namespace = service.metadata.namespace.as_deref().unwrap_or_default();
                let tool = route.tool.as_str();
                assert!(namespace == tool || namespace == format!("tool-{tool}"), "{tool} in {namespace}");
                assert!(route.backend.port > 0 && route.backend.socket_addr().is_some());
            }
            Err(rejection) => assert!(!rejection.reason().is_empty() && !rejection.to_string().is_empty()),
        }
    }
}
