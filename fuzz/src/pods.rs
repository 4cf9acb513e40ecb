//! A Deployment and its Pods as the API server returns them, one JSON value per line: any give a state with a reason on one line.

use serde_json::{Value, json};
use urlproxy::webservice::State;
use urlproxy::webservice::kubernetes::{state, type_of};

pub fn check(bytes: &[u8]) {
    let mut values = bytes.split(|&byte| byte == b'\n').map(|line| serde_json::from_slice::<Value>(line).ok());
    let deployment = values.next().flatten().and_then(|value| serde_json::from_value(value).ok());
    let mut pods = Vec::new();
    for value in values.flatten() {
        // As a whole Pod, as a status, and as the state of a container.
        let container = |state: &Value| json!({"name": "web", "ready": false, "restartCount": 1, "image": "", "imageID": "", "state": state});
        let waiting = json!({"status": {"phase": "Pending", "containerStatuses": [container(&value)]}});
        let with_status = json!({"metadata": {"name": "p"}, "status": &value});
        pods.extend([waiting, with_status, value].into_iter().filter_map(|value| serde_json::from_value(value).ok()));
    }
    for has_service in [true, false] {
        if let State::Failed { reason } | State::Pending { reason } = state(deployment.as_ref(), has_service, &pods) {
            assert!(!reason.contains('\n') && reason.chars().count() < 3000, "{reason:?}");
        }
    }
    if let Some(deployment) = &deployment {
        let _ = type_of(deployment);
    }
}
