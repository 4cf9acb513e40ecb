//! Answers requests.

use crate::support::http::decoded;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::Request as HttpRequest;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use super::cluster::{Selector, WriteError};
use super::fault::{Fault, Request};
use super::watching::watch;
use super::{ServerState, Shared};

/// The largest request body.
const MAX_BODY: usize = 1 << 20;

/// A request, parsed from method and path.
enum Operation {
    List { selector: String, limit: usize, token: Option<String> },
    Watch { selector: String, version: u64, timeout: Duration, bookmarks: bool },
    CreateEvent(String),
    PatchEvent(String, String),
    Other,
}

pub async fn answer(shared: Arc<Shared>, request: HttpRequest) -> Response {
    let (head, body) = request.into_parts();
    let operation = Operation::read(&head.method, &head.uri);
    let kind = operation.kind();
    let fault = {
        let mut state = shared.lock();
        let ServerState { script, .. } = &mut *state;
        script.note(kind);
        let token = head.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if script.token.is_some() && script.token.as_deref() != token {
            script.unauthorized += 1;
            return status(401);
        }
        if kind == Request::Other {
            script.unexpected.push(format!("{} {}", head.method, head.uri.path()));
        }
        let is_failing = |selector: &String| operation.lists_by(selector);
        let by_selector = script.failing_selector.as_ref().filter(|text| is_failing(text)).map(|_| Fault::Status(500));
        by_selector.or_else(|| script.next_fault(kind))
    };
    let response = async {
        let body = to_bytes(body, MAX_BODY).await.unwrap_or_default();
        operation.execute(&shared, serde_json::from_slice(&body).unwrap_or_default())
    };
    match fault {
        None => response.await,
        Some(Fault::Status(code)) => status(code),
        Some(Fault::Busy(seconds)) => {
            let mut response = with_details(429, json!({"retryAfterSeconds": seconds}));
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
            response
        }
        Some(Fault::Slow(time)) => {
            tokio::time::sleep(time).await;
            response.await
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Empty) => ([(CONTENT_TYPE, "application/json")], "").into_response(),
        Some(Fault::Silent) => {
            let nothing = Body::from_stream(stream::pending::<Result<Bytes, Infallible>>());
            ([(CONTENT_TYPE, "application/json")], nothing).into_response()
        }
        Some(Fault::Garbage) => {
            ([(CONTENT_TYPE, "text/html")], "<html><title>It works!</title></html>\n").into_response()
        }
        Some(Fault::Cut) => cut(response.await).await,
    }
}

/// The first half, with the length of the whole.
async fn cut(response: Response) -> Response {
    let (head, body) = response.into_parts();
    let whole = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let half = whole.slice(..whole.len() / 2);
    let end = stream::once(async { Err(std::io::Error::other("cut")) });
    Response::from_parts(head, Body::from_stream(stream::once(async { Ok(half) }).chain(end)))
}

impl Operation {
    fn read(method: &Method, uri: &Uri) -> Self {
        let path: Vec<_> = uri.path().split('/').skip(1).map(decoded).collect();
        let path: Vec<_> = path.iter().map(String::as_str).collect();
        let parameter = |name: &str| {
            let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
            pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
        };
        let number = |name: &str| parameter(name).and_then(|value| value.parse().ok());
        match (method.as_str(), &path[..]) {
            ("GET", ["api", "v1", "services"]) => {
                let selector = parameter("labelSelector").unwrap_or_default();
                if parameter("watch").is_some_and(|value| ["true", "1"].contains(&&*value)) {
                    return Self::Watch {
                        selector,
                        version: number("resourceVersion").unwrap_or(0),
                        timeout: Duration::from_secs(number("timeoutSeconds").unwrap_or(1800)),
                        bookmarks: parameter("allowWatchBookmarks").is_some_and(|value| value == "true"),
                    };
                }
                let limit = number("limit").and_then(|limit| usize::try_from(limit).ok());
                let limit = limit.filter(|&limit| limit > 0).unwrap_or(usize::MAX);
                Self::List { selector, limit, token: parameter("continue").filter(|token| !token.is_empty()) }
            }
            (method, ["apis", "events.k8s.io", "v1", "namespaces", namespace, "events", rest @ ..]) => {
                let namespace = (*namespace).to_owned();
                match (method, rest) {
                    ("POST", []) => Self::CreateEvent(namespace),
                    ("PATCH", [name]) => Self::PatchEvent(namespace, (*name).into()),
                    _ => Self::Other,
                }
            }
            _ => Self::Other,
        }
    }

    fn lists_by(&self, text: &str) -> bool {
        matches!(self, Self::List { selector, .. } if selector.contains(text))
    }

    fn kind(&self) -> Request {
        match self {
            Self::List { token: None, .. } => Request::List,
            Self::List { .. } => Request::NextPage,
            Self::Watch { .. } => Request::Watch,
            Self::CreateEvent(_) | Self::PatchEvent(..) => Request::Event,
            Self::Other => Request::Other,
        }
    }

    fn execute(self, shared: &Arc<Shared>, body: Value) -> Response {
        let created = |outcome| (StatusCode::CREATED, written(outcome)).into_response();
        match self {
            Self::List { selector, limit, token } => {
                let Some(selector) = Selector::parse(&selector) else { return status(400) };
                match shared.lock().cluster.list(&selector, limit, token.as_deref()) {
                    Some(list) => json_response(&list),
                    None => status(410),
                }
            }
            Self::Watch { selector, version, timeout, bookmarks } => match Selector::parse(&selector) {
                Some(selector) => watch(shared, selector, version, timeout, bookmarks),
                None => status(400),
            },
            Self::CreateEvent(namespace) => match shared.change(|cluster| cluster.create_event(&namespace, body)) {
                Ok(event) => created(Ok(event)),
                refused => written(refused),
            },
            Self::PatchEvent(namespace, name) => {
                written(shared.change(|cluster| cluster.patch_event(&namespace, &name, &body)))
            }
            Self::Other => status(404),
        }
    }
}

fn written(outcome: Result<Value, WriteError>) -> Response {
    match outcome {
        Ok(object) => json_response(&object),
        Err(WriteError::NotFound) => status(404),
        Err(WriteError::Invalid(field)) => with_details(422, json!({"causes": [{"field": field}]})),
    }
}

fn json_response(object: &Value) -> Response {
    ([(CONTENT_TYPE, "application/json")], object.to_string()).into_response()
}

fn status(code: u16) -> Response {
    with_details(code, json!({}))
}

fn with_details(code: u16, details: Value) -> Response {
    let status = StatusCode::from_u16(code).expect("a status");
    (status, json_response(&status_object(code, details))).into_response()
}

/// The API's error object.
pub fn status_object(code: u16, details: Value) -> Value {
    let (reason, message) = match code {
        400 => ("BadRequest", "the server could not understand the request"),
        401 => ("Unauthorized", "Unauthorized"),
        403 => ("Forbidden", "forbidden: User \"scripted\" cannot do that"),
        404 => ("NotFound", "not found"),
        409 => ("Conflict", "the object has been modified; please apply your changes to the latest version"),
        410 => ("Expired", "too old resource version"),
        422 => ("Invalid", "invalid"),
        429 => ("TooManyRequests", "too many requests, please try again later"),
        500 => ("InternalError", "etcdserver: request timed out"),
        503 => ("ServiceUnavailable", "apiserver is shutting down"),
        504 => ("Timeout", "the request did not complete within the allotted timeout"),
        _ => ("", "scripted"),
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "details": details, "code": code,
    })
}
