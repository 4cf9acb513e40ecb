//! One Lease as the API server keeps it, and the way there, on which anything may happen.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Method, Request, Response};
use kube::Client;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::sleep;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Until it is carried out. It is then even if nobody waits for the answer any more.
    pub there: Duration,
    /// From then until its answer is back.
    pub back: Duration,
    pub fault: Option<Fault>,
}

#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// Nothing comes back, and nothing is done.
    Hang,
    /// It is done, and nothing comes back.
    Lost,
    /// No connection.
    Refused,
    /// Not done.
    Status(u16),
}

impl From<Fault> for Way {
    fn from(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }
}

#[derive(Clone, Default)]
pub struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    lease: Option<Value>,
    version: u64,
    /// Methods of what was carried out, and the status of its answer.
    carried_out: Vec<(Method, u16)>,
}

impl Server {
    pub fn with(lease: Value) -> Self {
        let server = Self::default();
        server.put(lease);
        server
    }

    /// Puts a Lease there, whoever has it.
    pub fn put(&self, lease: Value) {
        self.0.lock().put(lease);
    }

    pub fn delete(&self) {
        self.0.lock().lease = None;
    }

    /// A field of the Lease's spec; null when there is none.
    pub fn spec(&self, field: &str) -> Value {
        self.0.lock().lease.as_ref().map(|lease| lease["spec"][field].clone()).unwrap_or_default()
    }

    pub fn holder(&self) -> String {
        self.spec("holderIdentity").as_str().unwrap_or_default().to_owned()
    }

    /// How many requests of this method were answered with this status.
    pub fn count(&self, method: &Method, status: u16) -> usize {
        self.0.lock().carried_out.iter().filter(|done| (&done.0, done.1) == (method, status)).count()
    }

    /// A client whose requests each go the way that `way` says.
    pub fn client(&self, way: impl FnMut(&Method) -> Way + Send + 'static) -> Client {
        let (server, way) = (self.clone(), Mutex::new(way));
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let way = way.lock()(request.method());
            // A task of its own: it goes on when the client gives up.
            let answer = tokio::spawn(go(server.clone(), way, request));
            async { answer.await.map_err(io::Error::other)? }
        });
        Client::new(service, "default")
    }
}

async fn go(server: Server, way: Way, request: Request<kube::client::Body>) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = to_bytes(Body::new(body), usize::MAX).await.map_err(io::Error::other)?;
    sleep(way.there).await;
    let carry_out = || server.0.lock().carry_out(&head.method, &body);
    let (status, object) = match way.fault {
        None => carry_out(),
        Some(Fault::Status(status)) => (status, json!({"kind": "Status", "code": status, "message": "scripted"})),
        Some(Fault::Refused) => return Err(io::ErrorKind::ConnectionRefused.into()),
        Some(Fault::Hang) => std::future::pending().await,
        Some(Fault::Lost) => {
            carry_out();
            std::future::pending().await
        }
    };
    sleep(way.back).await;
    Response::builder().status(status).body(object.to_string().into()).map_err(io::Error::other)
}

impl State {
    fn put(&mut self, mut lease: Value) {
        self.version += 1;
        if lease["metadata"]["resourceVersion"] != "" {
            lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        }
        lease["metadata"]["name"] = json!("kube2proxy");
        self.lease = Some(lease);
    }

    fn carry_out(&mut self, method: &Method, body: &[u8]) -> (u16, Value) {
        let sent: Value = serde_json::from_slice(body).unwrap_or_default();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        let (status, written) = match (method.as_str(), &self.lease) {
            ("GET", Some(_)) => (200, None),
            ("POST", None) => (201, Some(sent)),
            ("POST", Some(_)) => (409, None),
            ("PUT", Some(lease)) if version(lease) == version(&sent) => (200, Some(sent)),
            ("PUT", Some(_)) => (409, None),
            ("GET" | "PUT", None) => (404, None),
            // Nothing else may be asked for.
            _ => (405, None),
        };
        self.carried_out.push((method.clone(), status));
        if let Some(lease) = written {
            self.put(lease);
        }
        let reason = match status {
            404 => "NotFound",
            405 => "MethodNotAllowed",
            _ if method == Method::POST => "AlreadyExists",
            _ => "Conflict",
        };
        match &self.lease {
            Some(lease) if status < 300 => (status, lease.clone()),
            _ => (status, json!({"kind": "Status", "status": "Failure", "code": status, "reason": reason})),
        }
    }
}
