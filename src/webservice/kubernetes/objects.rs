//! The Deployment, the Service and the interactive Pod, as webservice creates them.
//!
//! No volume mounts the tool's home: on clusters that share homes, a mutating webhook mounts them into Pods with the label
//! `toolforge: tool`.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Pod, Service};
use serde_json::{Value, json};

use super::labels::{self, Labels};
use super::workload::{PORT, Workload};

/// At the Deployment and its Pods: when the web service was last started.
pub const STARTED_AT: &str = "toolforge.org/started-at";
/// At the Deployment: the type of web service.
pub const TYPE: &str = "toolforge.org/webservice-type";
/// The name of the container, and of the interactive one.
pub const CONTAINER: &str = "webservice";
/// The name of the port.
const PORT_NAME: &str = "http";
/// The longest life of an interactive Pod, even if its client is lost: a day.
const SHELL_SECONDS: u32 = 86_400;
/// The shell's time to end.
const SHELL_GRACE_SECONDS: u32 = 5;

/// The Deployment. Its Pods have `kept` too, the labels that an existing one selects by.
pub fn deployment(tool: &str, home: &str, workload: &Workload, started_at: &str, kept: &Labels) -> Deployment {
    let mut pod_labels = labels::web(tool);
    pod_labels.extend(kept.clone());
    let selected_by = if kept.is_empty() { labels::selected_by(tool) } else { kept.clone() };
    let mut container = json!({
        "name": CONTAINER,
        "image": workload.image,
        "ports": [{"name": PORT_NAME, "containerPort": PORT, "protocol": "TCP"}],
        "resources": workload.resources.to_requirements(),
    });
    match workload.command() {
        Some(command) => {
            container["command"] = words(&command);
            container["workingDir"] = json!(home);
        }
        None => container["env"] = json!([{"name": "PORT", "value": PORT.to_string()}]),
    }
    if let Some(arguments) = workload.arguments() {
        container["args"] = words(&arguments);
    }
    object(json!({
        "metadata": {
            "name": tool,
            "labels": labels::web(tool),
            "annotations": {STARTED_AT: started_at, TYPE: workload.type_name},
        },
        "spec": {
            "replicas": workload.replicas,
            "selector": {"matchLabels": selected_by},
            "template": {
                "metadata": {"labels": pod_labels, "annotations": {STARTED_AT: started_at}},
                "spec": {
                    // The variables of another Service could have the name of one that the web server reads.
                    "enableServiceLinks": false,
                    "containers": [container],
                },
            },
        },
    }))
}

/// The Service.
pub fn service(tool: &str) -> Service {
    object(json!({
        "metadata": {"name": tool, "labels": labels::web(tool)},
        "spec": {
            "type": "ClusterIP",
            "selector": labels::selected_by(tool),
            "ports": [{"name": PORT_NAME, "port": PORT, "targetPort": PORT, "protocol": "TCP"}],
        },
    }))
}

/// An interactive Pod. It ends when its client is gone, and after a day at the latest.
pub fn shell(name: &str, home: &str, workload: &Workload, command: &[String], has_terminal: bool) -> Pod {
    object(json!({
        "metadata": {"name": name, "labels": labels::shell(name)},
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": SHELL_SECONDS,
            "terminationGracePeriodSeconds": SHELL_GRACE_SECONDS,
            "enableServiceLinks": false,
            "containers": [{
                "name": CONTAINER,
                "image": workload.image,
                "command": words(command),
                "workingDir": home,
                "stdin": true,
                "stdinOnce": true,
                "tty": has_terminal,
                "resources": workload.resources.to_requirements(),
            }],
        },
    }))
}

/// Words that reach the program as they are: Kubernetes replaces `$(NAME)`, and `$$` by `$`.
fn words(words: &[String]) -> Value {
    words.iter().map(|word| word.replace('$', "$$")).collect()
}

/// An object of constants and texts, which always has the type's form; a test builds each.
fn object<K: serde::de::DeserializeOwned + Default>(value: Value) -> K {
    serde_json::from_value(value).unwrap_or_default()
}
