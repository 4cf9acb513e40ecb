//! The state of a web service, and waiting for it.

use std::time::Duration;

use serde_json::json;
use urlproxy::webservice::{Console, State};

use crate::api_server::{Fault, NAMESPACE};
use crate::site::{Site, ready, running, service};
use crate::support::wait::SOON;

#[tokio::test]
async fn state_follows_the_pods() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    assert_eq!(kubernetes.state().await.unwrap(), State::Stopped);
    let started_at = kubernetes.start(&service("php8.2")).await.unwrap();
    assert_eq!(kubernetes.state().await.unwrap(), State::Pending { reason: "no pod yet".into() });
    site.put_pod("hello-1", started_at.as_str(), &json!({"phase": "Pending"}));
    assert_eq!(kubernetes.state().await.unwrap(), State::Pending { reason: "pod hello-1: it waits for a node".into() });
    site.put_pod("hello-1", started_at.as_str(), &ready());
    assert_eq!(kubernetes.state().await.unwrap(), State::Running);
    // Only Pods that the Deployment selects.
    site.api.remove("pods", "hello-1");
    site.api.put(
        "pods",
        NAMESPACE,
        json!({"metadata": {"name": "cron", "labels": {"name": "hello"}}, "status": ready()}),
    );
    assert_eq!(kubernetes.state().await.unwrap(), State::Pending { reason: "no pod yet".into() });
}

#[tokio::test]
async fn wait_is_for_pods_of_that_moment() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    let first = kubernetes.start(&service("php8.2")).await.unwrap();
    site.put_pod("hello-1", first.as_str(), &ready());
    let mut wait = Console::new().wait("Restarting");
    assert_eq!(kubernetes.wait_until_running(&first, SOON, &mut wait).await.unwrap(), State::Running);
    let second = kubernetes.start(&service("php8.2")).await.unwrap();
    let briefly = Duration::from_millis(10);
    let state = kubernetes.wait_until_running(&second, briefly, &mut wait).await.unwrap();
    assert_eq!(state, State::Pending { reason: "no pod yet".into() });
    assert_eq!(kubernetes.state().await.unwrap(), State::Running, "the old pod runs");
    let replaced = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        site.put_pod("hello-2", second.as_str(), &ready());
    };
    let (state, ()) = tokio::join!(kubernetes.wait_until_running(&second, SOON, &mut wait), replaced);
    assert_eq!(state.unwrap(), State::Running);
}

#[tokio::test]
async fn wait_ends_early_with_the_reason_of_a_failure() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    let started_at = kubernetes.start(&service("php8.2")).await.unwrap();
    let mut container = running(3);
    container["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    container["lastState"] = json!({"terminated": {"exitCode": 127, "reason": "Error"}});
    site.put_pod("hello-1", started_at.as_str(), &json!({"phase": "Running", "containerStatuses": [container]}));
    let mut wait = Console::new().wait("Starting");
    let state = kubernetes.wait_until_running(&started_at, SOON * 10, &mut wait).await.unwrap();
    let want = "pod hello-1: CrashLoopBackOff, ended with status 127, restarted 3 times; see webservice logs";
    assert_eq!(state, State::Failed { reason: want.into() });
}

#[tokio::test]
async fn unanswered_question_is_no_state() {
    let site = Site::new();
    let kubernetes = site.connect().await;
    kubernetes.start(&service("php8.2")).await.unwrap();
    for (fault, want) in [
        (Fault::Missing, "404 Not Found (404) while reading Deployment \"hello\"; if http://"),
        (
            Fault::Status(403, "deployments is forbidden: User \"x\" cannot get resource"),
            "ask the operators for the rights of a tool",
        ),
        (Fault::Status(401, "Unauthorized"), "~/.kube/config has no valid credentials"),
        (Fault::Garbage, "unexpected answer of http://"),
        (Fault::Redirect, "redirects to \"https://login.example.org/\""),
        (Fault::Large(9 << 20), "has more than 8388608 bytes"),
    ] {
        site.api.fail("GET", "/deployments/", fault.clone(), 1);
        let error = kubernetes.state().await.expect_err("no answer").to_string();
        assert!(error.contains(want) && !error.contains('\n'), "{fault:?}: {error}");
        site.api.recover();
    }
}
