//! A Kubernetes API server with scripted faults, over plain HTTP, in this process: a store of objects without controllers, and
//! the streams of Pods.
//!
//! As a real one it checks names, versions and immutable fields, and assigns uids and cluster addresses.

mod answer;
mod store;
mod streams;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use answer::answer;
use store::Store;
pub use streams::{Attach, LogLine};

/// The namespace of the tool in these tests.
pub const NAMESPACE: &str = "tool-hello";
/// For [`ApiServer::fail`]: until [`ApiServer::recover`].
pub const ALWAYS: usize = usize::MAX;

/// A fault in place of an answer, or before it.
#[derive(Clone, Debug)]
pub enum Fault {
    /// This status and message, as the API says it.
    Status(u16, &'static str),
    /// 429, with a Retry-After of so many seconds.
    Busy(u64),
    /// The request is executed, and answered with this status.
    DoneBut(u16),
    /// No answer, on a connection that stays open.
    Hang,
    /// 200, and a page.
    Garbage,
    /// 404, and a page.
    Missing,
    /// 302 to another place.
    Redirect,
    /// The end of the connection within the answer.
    Cut,
    /// An answer of so many bytes.
    Large(usize),
}

#[derive(Default)]
struct Shared {
    state: Mutex<ServerState>,
}

#[derive(Default)]
pub struct ServerState {
    store: Store,
    faults: Vec<(&'static str, String, Fault, usize)>,
    requests: Vec<String>,
    user_agents: Vec<String>,
    /// The status of each new Pod.
    new_pod: Value,
    attach: Attach,
    /// Bytes that were sent to containers.
    input: Vec<u8>,
    /// The terminal's sizes that were sent.
    sizes: Vec<String>,
    logs: std::collections::HashMap<String, Vec<LogLine>>,
    cut_logs: u64,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// A server on a port of 127.0.0.1. Gone when dropped.
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl ApiServer {
    /// Starts an empty server.
    pub fn start() -> Self {
        let shared: Arc<Shared> = Arc::default();
        let (listening, address) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let state = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
                let _ = listening.send(listener.local_addr().expect("an address"));
                let router = Router::new().fallback(entrance).with_state(state);
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    _ = stopped => {}
                }
            });
            // Dropping the runtime breaks all connections.
        });
        Self { shared, address: address.recv().expect("an address"), running: Some((stop, thread)) }
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates or replaces an object: `services`, `deployments`, `replicasets`, `pods` or `configmaps`.
    pub fn put(&self, plural: &str, namespace: &str, object: Value) {
        self.shared.lock().store.put(plural, namespace, object);
    }

    /// An object of the tool's namespace; null without one.
    pub fn get(&self, plural: &str, name: &str) -> Value {
        self.shared.lock().store.get(plural, NAMESPACE, name).unwrap_or_default()
    }

    /// The names of the objects in the tool's namespace: `pods/hello-1`, sorted.
    pub fn names(&self) -> Vec<String> {
        self.shared.lock().store.names(NAMESPACE)
    }

    /// Removes an object, as a controller does.
    pub fn remove(&self, plural: &str, name: &str) {
        self.shared.lock().store.remove(plural, NAMESPACE, name);
    }

    /// Scripts a fault for the next requests with this method, whose path contains this text.
    pub fn fail(&self, method: &'static str, path: &str, fault: Fault, times: usize) {
        self.shared.lock().faults.push((method, path.to_owned(), fault, times));
    }

    /// Removes all faults.
    pub fn recover(&self) {
        self.shared.lock().faults.clear();
    }

    /// `METHOD /path` of all requests.
    pub fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.clone()
    }

    /// The number of requests with this method, whose path contains this text.
    pub fn count(&self, method: &str, path: &str) -> usize {
        let is_such = |request: &&String| request.starts_with(method) && request.contains(path);
        self.requests().iter().filter(is_such).count()
    }

    /// The header `User-Agent` of all requests, without repetitions.
    pub fn user_agents(&self) -> Vec<String> {
        self.shared.lock().user_agents.clone()
    }

    /// The status of Pods that are created from now on.
    pub fn set_new_pod(&self, status: Value) {
        self.shared.lock().new_pod = status;
    }

    /// How attached connections behave from now on.
    pub fn set_attach(&self, attach: Attach) {
        self.shared.lock().attach = attach;
    }

    /// What was sent to containers.
    pub fn input(&self) -> String {
        String::from_utf8_lossy(&self.shared.lock().input).into_owned()
    }

    /// The sizes that were sent for terminals.
    pub fn sizes(&self) -> Vec<String> {
        self.shared.lock().sizes.clone()
    }

    /// Appends lines to the log of a Pod.
    pub fn log(&self, pod: &str, lines: &[LogLine]) {
        self.shared.lock().logs.entry(pod.to_owned()).or_default().extend_from_slice(lines);
    }

    /// Breaks the streams of logs that are open.
    pub fn cut_logs(&self) {
        self.shared.lock().cut_logs += 1;
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        let Some((stop, thread)) = self.running.take() else { return };
        drop(stop);
        thread.join().expect("the API server's thread ends");
    }
}

async fn entrance(State(shared): State<Arc<Shared>>, request: HttpRequest) -> axum::response::Response {
    answer(shared, request).await
}

/// The API's error object.
fn status_object(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
}
