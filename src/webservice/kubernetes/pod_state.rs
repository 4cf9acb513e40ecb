//! The state of a web service, read from its Deployment and its Pods, with the reason in a maintainer's words.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod};

use super::api::{name_of, one_line};
use super::objects::STARTED_AT;
use crate::webservice::State;

/// Reasons of waiting containers that a maintainer must act on.
const FATAL: [&str; 6] = [
    "ImagePullBackOff",
    "InvalidImageName",
    "CrashLoopBackOff",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// The state of a web service with these Pods, which its Deployment selects.
pub fn state(deployment: Option<&Deployment>, has_service: bool, pods: &[Pod]) -> State {
    let Some(deployment) = deployment else {
        return if pods.is_empty() { State::Stopped } else { State::Stopping };
    };
    if deployment.metadata.deletion_timestamp.is_some() {
        return State::Stopping;
    }
    if !has_service {
        let reason = "its Service is missing, so that no request reaches it";
        return State::Failed { reason: reason.into() };
    }
    rollout(deployment, pods)
}

/// The state of the Pods that were started at this time.
pub fn state_since(deployment: &Deployment, pods: &[Pod], started_at: &str) -> State {
    let is_of_then = |pod: &&Pod| annotation(pod) == Some(started_at);
    let current: Vec<_> = pods.iter().filter(is_of_then).cloned().collect();
    rollout(deployment, &current)
}

fn annotation(pod: &Pod) -> Option<&str> {
    pod.metadata.annotations.as_ref()?.get(STARTED_AT).map(String::as_str)
}

fn rollout(deployment: &Deployment, pods: &[Pod]) -> State {
    let alive: Vec<_> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    if alive.iter().any(|pod| is_ready(pod)) {
        return State::Running;
    }
    // Evicted Pods stay beside those that replace them.
    let (ended, active): (Vec<_>, Vec<_>) = alive.iter().partition(|pod| has_ended(pod));
    let judged: Vec<_> = if active.is_empty() { ended } else { active }.into_iter().map(judge).collect();
    // What is fatal for one Pod matters more than that another waits.
    if let Some(state) = judged.iter().find(|state| matches!(state, State::Failed { .. })) {
        return state.clone();
    }
    if let Some(reason) = condition(deployment, "ReplicaFailure", "True") {
        return State::Failed { reason };
    }
    if deployment.spec.as_ref().and_then(|spec| spec.replicas) == Some(0) {
        return State::Failed { reason: "it is scaled to 0 replicas".into() };
    }
    if let Some(state) = judged.into_iter().next() {
        return state;
    }
    if let Some(reason) = condition(deployment, "Progressing", "False") {
        return State::Failed { reason };
    }
    State::Pending { reason: "no pod yet".into() }
}

/// The message of a condition with this status.
fn condition(deployment: &Deployment, kind: &str, status: &str) -> Option<String> {
    let observed = deployment.status.as_ref()?;
    // A status may be about the Deployment as it was before its last change.
    if observed.observed_generation.is_some_and(|generation| Some(generation) < deployment.metadata.generation) {
        return None;
    }
    let conditions = observed.conditions.as_deref().unwrap_or_default();
    let found = conditions.iter().find(|condition| condition.type_ == kind && condition.status == status)?;
    let reason = found.message.as_deref().or(found.reason.as_deref()).unwrap_or(kind);
    Some(reason_of(reason))
}

/// Whether the Pod takes requests.
pub fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    phase(pod) == "Running"
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// `Pending`, `Running`, `Succeeded`, `Failed` or `Unknown`; empty without a status.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default()
}

/// Whether no container of the Pod runs again.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Why a Pod does not take requests yet.
pub fn judge(pod: &Pod) -> State {
    let status = pod.status.as_ref();
    let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
    if phase(pod) == "Failed" {
        let reason = containers.iter().find_map(ended).or_else(|| {
            let status = status?;
            status.message.as_deref().or(status.reason.as_deref()).map(reason_of)
        });
        return State::Failed { reason: about(pod, &reason.unwrap_or_else(|| "it failed".into())) };
    }
    for container in containers {
        let Some(waiting) = container.state.as_ref().and_then(|state| state.waiting.as_ref()) else { continue };
        let reason = waiting.reason.as_deref().unwrap_or("waiting");
        let last = container.last_state.as_ref().and_then(terminated);
        let detail = match (reason, last) {
            ("CrashLoopBackOff", Some(last)) => {
                format!("{reason}, {last}, restarted {} times; see webservice logs", container.restart_count)
            }
            _ => match waiting.message.as_deref().map(reason_of) {
                Some(message) if !message.is_empty() => format!("{reason}: {message}"),
                _ => reason.to_owned(),
            },
        };
        let reason_text = about(pod, &detail);
        return if FATAL.contains(&reason) {
            State::Failed { reason: reason_text }
        } else {
            State::Pending { reason: reason_text }
        };
    }
    if let Some(last) = containers.iter().find_map(ended) {
        return State::Pending { reason: about(pod, &format!("{last}, and will be restarted; see webservice logs")) };
    }
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let unscheduled = conditions.iter().find(|found| found.type_ == "PodScheduled" && found.status == "False");
    if let Some(condition) = unscheduled {
        let reason = condition.reason.as_deref().unwrap_or("not scheduled");
        let message = condition.message.as_deref().map(reason_of).unwrap_or_default();
        return State::Pending { reason: about(pod, format!("{reason}: {message}").trim_end_matches(": ")) };
    }
    let reason = if phase(pod) == "Running" { "it is not ready yet" } else { "it waits for a node" };
    State::Pending { reason: about(pod, reason) }
}

/// A message of the cluster within a sentence of ours.
fn reason_of(message: &str) -> String {
    one_line(message).trim_end_matches('.').to_owned()
}

/// One line: names and reasons in an answer need not be those that Kubernetes has.
fn about(pod: &Pod, reason: &str) -> String {
    one_line(&format!("pod {}: {reason}", name_of(&pod.metadata)))
}

/// How the container has ended, if it does not run now.
fn ended(container: &ContainerStatus) -> Option<String> {
    container.state.as_ref().and_then(terminated)
}

fn terminated(state: &ContainerState) -> Option<String> {
    let ended = state.terminated.as_ref()?;
    let reason = ended.reason.as_deref().unwrap_or_default();
    let how = match (ended.signal.filter(|&signal| signal != 0), ended.exit_code) {
        (Some(signal), _) => format!("ended by signal {signal}"),
        // A shell's form of a signal.
        (None, code @ 129..=192) => format!("ended with status {code}, signal {}", code - 128),
        (None, code) => format!("ended with status {code}"),
    };
    match reason {
        "OOMKilled" => Some(format!("{how} (OOMKilled: it needed more memory than its limit; see --mem)")),
        "" | "Error" | "Completed" => Some(how),
        reason => Some(format!("{how} ({})", reason_of(reason))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(status: Value) -> Pod {
        let metadata = json!({"name": "hello-1", "annotations": {STARTED_AT: "now"}});
        serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
    }

    fn waiting(reason: &str, message: Value) -> Pod {
        let state = json!({"waiting": {"reason": reason, "message": message}});
        pod(json!({"phase": "Pending", "containerStatuses": [container(state, json!({}))]}))
    }

    fn container(state: Value, last: Value) -> Value {
        json!({"name": "webservice", "image": "", "imageID": "", "ready": false, "restartCount": 4, "state": state, "lastState": last})
    }

    #[test]
    fn reasons_are_on_one_line() {
        let ended = container(json!({"terminated": {"exitCode": 1, "reason": "Err\nor"}}), json!({}));
        for pod in [
            waiting("ImagePull\nBackOff", json!("a\nb")),
            pod(json!({"phase": "Failed", "containerStatuses": [ended]})),
            pod(json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "a\nb"}]})),
        ] {
            let (State::Pending { reason } | State::Failed { reason }) = judge(&pod) else { panic!("{pod:?}") };
            assert!(!reason.contains('\n'), "{reason:?}");
        }
    }

    fn ready() -> Pod {
        pod(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}))
    }

    fn deployment(extra: Value) -> Deployment {
        let mut value = json!({
            "metadata": {"name": "hello"},
            "spec": {"replicas": 1, "selector": {}, "template": {}},
        });
        value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        serde_json::from_value(value).unwrap()
    }

    /// `state: reason`.
    fn text(state: &State) -> String {
        format!("{}: {}", state.as_str(), state.reason().unwrap_or_default())
    }

    #[test]
    fn state_is_that_of_deployment_service_and_pods() {
        let there = deployment(json!({}));
        let deleted = deployment(json!({"metadata": {"name": "hello", "deletionTimestamp": "2026-01-01T00:00:00Z"}}));
        let mut ending = ready();
        ending.metadata.deletion_timestamp = deleted.metadata.deletion_timestamp.clone();
        for (deployment, has_service, pods, want) in [
            (None, false, vec![], "stopped: "),
            (None, true, vec![], "stopped: "),
            (None, false, vec![ready()], "stopping: "),
            (Some(&deleted), true, vec![ready()], "stopping: "),
            (Some(&there), true, vec![ready()], "running: "),
            (Some(&there), true, vec![], "pending: no pod yet"),
            (Some(&there), true, vec![ending], "pending: no pod yet"),
            (Some(&there), false, vec![ready()], "failed: its Service is missing, so that no request reaches it"),
        ] {
            assert_eq!(text(&state(deployment, has_service, &pods)), want);
        }
    }

    #[test]
    fn reasons_say_what_a_maintainer_can_do() {
        let crashed = |exit_code: i32, reason: &str| {
            let state = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting"}});
            let last = json!({"terminated": {"exitCode": exit_code, "reason": reason}});
            pod(json!({"phase": "Running", "containerStatuses": [container(state, last)]}))
        };
        let ended = json!({"terminated": {"exitCode": 3, "reason": "Error"}});
        let restarting = pod(json!({"phase": "Running", "containerStatuses": [container(ended, json!({}))]}));
        let message = "0/3 nodes are available:\n3 Insufficient memory.";
        let condition =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
        let unschedulable = pod(json!({"phase": "Pending", "conditions": [condition]}));
        let evicted =
            pod(json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}));
        for (pod, want) in [
            (pod(json!({})), "pending: pod hello-1: it waits for a node"),
            (pod(json!({"phase": "Running"})), "pending: pod hello-1: it is not ready yet"),
            (unschedulable, "pending: pod hello-1: Unschedulable: 0/3 nodes are available: 3 Insufficient memory"),
            (waiting("ContainerCreating", Value::Null), "pending: pod hello-1: ContainerCreating"),
            (waiting("ErrImagePull", json!("timeout")), "pending: pod hello-1: ErrImagePull: timeout"),
            (
                waiting("ImagePullBackOff", json!("Back-off pulling image \"x\"")),
                "failed: pod hello-1: ImagePullBackOff: Back-off pulling image \"x\"",
            ),
            (waiting("InvalidImageName", Value::Null), "failed: pod hello-1: InvalidImageName"),
            (
                crashed(1, "Error"),
                "failed: pod hello-1: CrashLoopBackOff, ended with status 1, restarted 4 times; see webservice logs",
            ),
            (
                crashed(139, "Error"),
                "failed: pod hello-1: CrashLoopBackOff, ended with status 139, signal 11, restarted 4 times; see webservice logs",
            ),
            (
                crashed(137, "OOMKilled"),
                "failed: pod hello-1: CrashLoopBackOff, ended with status 137, signal 9 (OOMKilled: it needed more memory than its limit; see --mem), restarted 4 times; see webservice logs",
            ),
            (restarting, "pending: pod hello-1: ended with status 3, and will be restarted; see webservice logs"),
            (evicted, "failed: pod hello-1: The node was low on resource: memory"),
        ] {
            assert_eq!(text(&rollout(&deployment(json!({})), &[pod])), want);
        }
    }

    #[test]
    fn evicted_pods_count_only_without_others() {
        let evicted = pod(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        let pods = [evicted, waiting("ContainerCreating", Value::Null)];
        assert_eq!(text(&rollout(&deployment(json!({})), &pods)), "pending: pod hello-1: ContainerCreating");
        assert_eq!(text(&rollout(&deployment(json!({})), &pods[..1])), "failed: pod hello-1: low on memory");
    }

    #[test]
    fn conditions_of_the_deployment_are_reasons() {
        let with = |kind: &str, status: &str, message: &str| {
            deployment(json!({"status": {"conditions": [{"type": kind, "status": status, "message": message}]}}))
        };
        let quota = "pods \"hello-1\" is forbidden: exceeded quota: tool-hello,\n requested: limits.memory=8Gi";
        for (deployment, want) in [
            (
                with("ReplicaFailure", "True", quota),
                "failed: pods \"hello-1\" is forbidden: exceeded quota: tool-hello, requested: limits.memory=8Gi",
            ),
            (with("Progressing", "False", "it has timed out progressing."), "failed: it has timed out progressing"),
            (with("Progressing", "True", "fine"), "pending: no pod yet"),
            (
                deployment(json!({"spec": {"replicas": 0, "selector": {}, "template": {}}})),
                "failed: it is scaled to 0 replicas",
            ),
        ] {
            assert_eq!(text(&rollout(&deployment, &[])), want);
        }
        assert_eq!(rollout(&with("ReplicaFailure", "True", quota), &[ready()]), State::Running);
        let mut stale = with("ReplicaFailure", "True", quota);
        stale.metadata.generation = Some(2);
        stale.status.as_mut().unwrap().observed_generation = Some(1);
        assert_eq!(text(&rollout(&stale, &[])), "pending: no pod yet");
    }

    #[test]
    fn pods_of_another_time_do_not_count() {
        let there = deployment(json!({}));
        assert_eq!(state_since(&there, &[ready()], "now"), State::Running);
        assert_eq!(text(&state_since(&there, &[ready()], "later")), "pending: no pod yet");
    }
}
