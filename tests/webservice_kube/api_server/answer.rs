//! Answers requests.

use crate::support::http::decoded;
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Request as HttpRequest, WebSocketUpgrade};
use axum::http::header::{CONTENT_TYPE, LOCATION, RETRY_AFTER, USER_AGENT};
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};

use super::store::{Refusal, not_found};
use super::streams::{attach, log_stream};
use super::{ALWAYS, Fault, Shared, status_object};

/// Items in one answer of a list: few, so that a test soon has more.
const MAX_PAGE: usize = 2;
/// The largest request body.
const MAX_BODY: usize = 2 << 20;

pub async fn answer(shared: Arc<Shared>, request: HttpRequest) -> Response {
    let fault = {
        let mut state = shared.lock();
        let line = format!("{} {}", request.method(), request.uri());
        state.requests.push(line);
        let agent =
            request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("none").to_owned();
        if !state.user_agents.contains(&agent) {
            state.user_agents.push(agent);
        }
        let (method, path) = (request.method().as_str(), request.uri().to_string());
        let is_hit = |(of, part, _, times): &&mut (&str, String, Fault, usize)| {
            *of == method && path.contains(&**part) && *times > 0
        };
        state.faults.iter_mut().find(is_hit).map(|(_, _, fault, times)| {
            if *times != ALWAYS {
                *times -= 1;
            }
            fault.clone()
        })
    };
    match fault {
        None => execute(&shared, request).await,
        Some(Fault::Status(code, message)) => refused((code, reason(code), message.to_owned())),
        Some(Fault::Busy(seconds)) => {
            let mut response = refused((429, "TooManyRequests", "too many requests".into()));
            response.headers_mut().insert(RETRY_AFTER, seconds.into());
            response
        }
        Some(Fault::DoneBut(code)) => {
            execute(&shared, request).await;
            refused((code, reason(code), "etcdserver: request timed out".into()))
        }
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Garbage) => page(StatusCode::OK),
        Some(Fault::Missing) => page(StatusCode::NOT_FOUND),
        Some(Fault::Redirect) => (StatusCode::FOUND, [(LOCATION, "https://login.example.org/")]).into_response(),
        Some(Fault::Cut) => {
            let pieces = [Ok(Bytes::from_static(b"{\"kind\":")), Err(std::io::Error::other("cut"))];
            Body::from_stream(stream::iter(pieces)).into_response()
        }
        Some(Fault::Large(bytes)) => {
            let piece = Bytes::from(vec![b' '; 1 << 16]);
            let pieces = (0..bytes.div_ceil(1 << 16)).map(move |_| Ok::<_, Infallible>(piece.clone()));
            Body::from_stream(stream::iter(pieces)).into_response()
        }
    }
}

fn page(code: StatusCode) -> Response {
    (code, [(CONTENT_TYPE, "text/html")], "<html><title>It works!</title></html>\n").into_response()
}

fn reason(code: u16) -> &'static str {
    match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        409 => "Conflict",
        504 => "Timeout",
        _ => "InternalError",
    }
}

/// The parts of `/api/v1/namespaces/NAMESPACE/PLURAL[/NAME[/SUBRESOURCE]]`.
struct Target {
    namespace: String,
    plural: String,
    name: Option<String>,
    subresource: Option<String>,
}

impl Target {
    fn read(uri: &Uri) -> Option<Self> {
        let mut parts = uri.path().split('/').skip_while(|part| *part != "namespaces").skip(1).map(str::to_owned);
        let (namespace, plural) = (parts.next()?, parts.next()?);
        Some(Self { namespace, plural, name: parts.next(), subresource: parts.next() })
    }
}

async fn execute(shared: &Arc<Shared>, request: HttpRequest) -> Response {
    let Some(target) = Target::read(request.uri()) else {
        return refused((404, "NotFound", "the server could not find the requested resource".into()));
    };
    let query: HashMap<String, String> = query_of(request.uri());
    let method = request.method().as_str().to_owned();
    if let (Some(name), Some(subresource)) = (&target.name, &target.subresource) {
        if shared.lock().store.get(&target.plural, &target.namespace, name).is_none() {
            return refused(not_found(&target.plural, name));
        }
        if subresource == "log" {
            return log_stream(shared, name, &query);
        }
        let (mut head, _) = request.into_parts();
        let upgrade = WebSocketUpgrade::from_request_parts(&mut head, &()).await;
        return match upgrade {
            Ok(upgrade) => attach(shared, upgrade, &target.namespace, name),
            Err(error) => error.into_response(),
        };
    }
    let body = to_bytes(request.into_body(), MAX_BODY).await.unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let mut state = shared.lock();
    let (plural, namespace) = (&*target.plural, &*target.namespace);
    let outcome = match (&*method, &target.name) {
        ("GET", None) => {
            let selector = query.get("labelSelector").map(String::as_str).unwrap_or_default();
            let items = state.store.list(plural, namespace, selector);
            let number = |name: &str| query.get(name).and_then(|value| value.parse().ok());
            let first = number("continue").unwrap_or(0);
            let end = items.len().min(first + number("limit").unwrap_or(usize::MAX).min(MAX_PAGE));
            let metadata = if end < items.len() { json!({"continue": end.to_string()}) } else { json!({}) };
            Ok(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items[first..end]}))
        }
        ("GET", Some(name)) => state.store.get(plural, namespace, name).ok_or_else(|| not_found(plural, name)),
        ("POST", None) => {
            let mut body = body;
            if plural == "pods" {
                body["status"] = state.new_pod.clone();
            }
            state.store.create(plural, namespace, body)
        }
        ("PUT", Some(name)) => state.store.replace(plural, namespace, name, body),
        ("DELETE", Some(name)) => state.store.delete(plural, namespace, name, &body),
        _ => Err((405, "MethodNotAllowed", "the server does not allow this method on the requested resource".into())),
    };
    outcome.map_or_else(refused, |object| json_response(StatusCode::OK, &object))
}

fn query_of(uri: &Uri) -> HashMap<String, String> {
    let pairs = uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

fn json_response(code: StatusCode, object: &Value) -> Response {
    (code, [(CONTENT_TYPE, "application/json")], object.to_string()).into_response()
}

fn refused((code, reason, message): Refusal) -> Response {
    json_response(StatusCode::from_u16(code).expect("a status"), &status_object(code, reason, &message))
}
