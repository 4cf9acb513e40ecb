//! The streams of Pods: logs, and attached terminals.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::WebSocketUpgrade;
use axum::extract::ws::{Message, WebSocket};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::Shared;

/// Between two looks at the state.
const POLL: Duration = Duration::from_millis(5);

/// Until the output for an input that begins with `slow`.
const SLOW: Duration = Duration::from_secs(1);

/// Pieces of output, 4 KiB each: more than a connection holds.
const BURST: u32 = 8192;

/// A line of a log: its time, and its text.
pub type LogLine = (&'static str, String);

/// How attached connections behave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// Output is the input; `exit N` ends the container with that status, the end of the connection with 6. Protocol v4.
    #[default]
    Echo,
    /// The same with protocol v5, which knows the end of the input: then the container ends with status 0.
    EchoV5,
    /// The same, but after the first input, no more is taken until [`BURST`] pieces of output are.
    Burst,
    /// The connection ends at once, and the container runs on.
    Lose,
    /// The server reports a failure.
    Fail,
    /// A container that prints and does not read, until the client has gone.
    Deaf,
}

pub fn log_stream(shared: &Arc<Shared>, pod: &str, query: &HashMap<String, String>) -> Response {
    let state = shared.lock();
    let lines = state.logs.get(pod).map(Vec::len).unwrap_or_default();
    let last = query.get("tailLines").and_then(|count| count.parse().ok()).unwrap_or(usize::MAX);
    let since = query.get("sinceTime").cloned().unwrap_or_default();
    let (first, cuts) = (lines.saturating_sub(last), state.cut_logs);
    drop(state);
    let follows = query.get("follow").is_some_and(|value| value == "true");
    let (shared, pod) = (Arc::clone(shared), pod.to_owned());
    let pieces = stream::unfold(first, move |at| {
        let (shared, pod, since) = (Arc::clone(&shared), pod.clone(), since.clone());
        async move {
            loop {
                {
                    let state = shared.lock();
                    if state.cut_logs != cuts {
                        return Some((Err(std::io::Error::other("cut")), at));
                    }
                    let lines = state.logs.get(&pod).map(Vec::as_slice).unwrap_or_default();
                    if let Some((time, text)) = lines.get(at) {
                        // As the API server, by whole seconds.
                        let line =
                            if time.get(..19) < since.get(..19) { String::new() } else { format!("{time} {text}\n") };
                        return Some((Ok(Bytes::from(line)), at + 1));
                    }
                    if !follows {
                        return None;
                    }
                }
                tokio::time::sleep(POLL).await;
            }
        }
    });
    Body::from_stream(pieces).into_response()
}

pub fn attach(shared: &Arc<Shared>, upgrade: WebSocketUpgrade, namespace: &str, pod: &str) -> Response {
    let how = shared.lock().attach;
    let protocol =
        if matches!(how, Attach::EchoV5 | Attach::Burst) { "v5.channel.k8s.io" } else { "v4.channel.k8s.io" };
    let (shared, namespace, pod) = (Arc::clone(shared), namespace.to_owned(), pod.to_owned());
    upgrade.protocols([protocol]).on_upgrade(async move |socket| {
        if how != Attach::Lose {
            serve(&shared, socket, how, &namespace, &pod).await;
        }
    })
}

fn framed(channel: u8, bytes: &[u8]) -> Message {
    Message::Binary([&[channel], bytes].concat().into())
}

async fn serve(shared: &Arc<Shared>, mut socket: WebSocket, how: Attach, namespace: &str, pod: &str) {
    // As a real one, each channel begins with an empty message.
    for channel in [1, 2, 3] {
        let _ = socket.send(framed(channel, b"")).await;
    }
    if how == Attach::Fail {
        let status = super::status_object(500, "InternalError", "dial tcp 10.0.0.1:10250: connection refused");
        let _ = socket.send(framed(3, status.to_string().as_bytes())).await;
        return;
    }
    if how == Attach::Deaf {
        while socket.send(framed(1, &[b'.'; 1024])).await.is_ok() {}
        return;
    }
    let _ = socket.send(framed(1, b"attached\r\n")).await;
    let (mut line, mut burst) = (Vec::new(), BURST);
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Close(_)) {
            // As stdinOnce asks for: the end of the connection is the end of the input.
            end(shared, namespace, pod, 6);
            return;
        }
        let Message::Binary(bytes) = message else { continue };
        match bytes.split_first() {
            Some((0, input)) => {
                shared.lock().input.extend_from_slice(input);
                if input.starts_with(b"slow") {
                    tokio::time::sleep(SLOW).await;
                }
                if how == Attach::Burst {
                    for _ in 0..std::mem::take(&mut burst) {
                        let _ = socket.send(framed(1, &[b'.'; 4096])).await;
                    }
                    continue;
                }
                let _ = socket.send(framed(1, input)).await;
                line.extend_from_slice(input);
                let text = String::from_utf8_lossy(&line).into_owned();
                if let Some((_, rest)) = text.split_once("exit ")
                    && let Some((code, _)) = rest.split_once(['\n', '\r'])
                {
                    let _ = socket.send(framed(2, b"bye\n")).await;
                    end(shared, namespace, pod, code.parse().expect("a status"));
                    let _ = socket.send(framed(3, br#"{"metadata":{},"status":"Success"}"#)).await;
                    return;
                }
            }
            Some((4, size)) => shared.lock().sizes.push(String::from_utf8_lossy(size).into_owned()),
            Some((255, [0])) => {
                end(shared, namespace, pod, 0);
                return;
            }
            _ => {}
        }
    }
}

/// Ends the container with this status.
fn end(shared: &Arc<Shared>, namespace: &str, pod: &str, code: i32) {
    let mut state = shared.lock();
    let Some(mut object) = state.store.get("pods", namespace, pod) else { return };
    object["status"] = ended(code);
    state.store.put("pods", namespace, object);
}

fn ended(code: i32) -> Value {
    let state = json!({"terminated": {"exitCode": code, "reason": if code == 0 { "Completed" } else { "Error" }}});
    json!({
        "phase": if code == 0 { "Succeeded" } else { "Failed" },
        "containerStatuses": [{"name": "webservice", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}],
    })
}
