//! A Kubernetes API server with scripted faults: Services and Events, over plain HTTP, in this process.
//!
//! To kube2proxy it behaves as a real one: the pages of a list are one snapshot, each change has its own resourceVersion, and a
//! watch continues after any of them.

mod answer;
mod cluster;
mod fault;
mod watching;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use axum::Router;
use axum::extract::{Request as HttpRequest, State};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::support::port::free_port;

use answer::answer;
use cluster::Cluster;
use fault::Script;

pub use fault::{ALWAYS, Break, Fault, Request};

/// The label of Services that are tools.
pub const WEB_SERVICE: &str = "tools.wmflabs.org/webservice";

/// The labels that webservice sets.
pub const NEW_LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/component", "web"), ("app.kubernetes.io/managed-by", "webservice")];

/// A Service as `kubectl expose` creates it, with [`WEB_SERVICE`].
pub fn web_service(cluster_ip: &str, port: u16) -> Value {
    json!({
        "metadata": {"labels": {WEB_SERVICE: "true"}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ports": [{"name": "http", "port": port, "protocol": "TCP", "targetPort": port}],
            "selector": {"name": "web"},
        },
    })
}

/// State shared by the threads.
#[derive(Default)]
struct Shared {
    state: Mutex<ServerState>,
    /// Woken after each change of the cluster.
    changed: watch::Sender<()>,
    open_watches: AtomicUsize,
}

#[derive(Default)]
struct ServerState {
    cluster: Cluster,
    script: Script,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, ServerState> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn change<T>(&self, change: impl FnOnce(&mut Cluster) -> T) -> T {
        let changed = change(&mut self.lock().cluster);
        self.changed.send_replace(());
        changed
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
        let mut server = Self { shared: Arc::default(), address: (Ipv4Addr::LOCALHOST, 0).into(), running: None };
        for _ in 0..10 {
            server.address.set_port(free_port());
            if server.run() {
                return server;
            }
        }
        panic!("no port for the API server");
    }

    /// Closes all connections and refuses new ones. The cluster's content stays, and can be changed meanwhile.
    pub fn stop(&mut self) {
        let Some((stop, thread)) = self.running.take() else { return };
        drop(stop);
        thread.join().expect("the API server's thread ends");
    }

    /// Starts a stopped server again, on the same port.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "the API server still runs");
        assert!(self.run(), "the API server's port is taken");
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Creates or replaces a Service. Missing metadata is filled in: name, namespace, uid, creation time (now, or as before),
    /// resourceVersion. Anything else may be missing or invalid.
    pub fn apply(&self, namespace: &str, name: &str, service: Value) {
        self.shared.change(|cluster| cluster.apply(namespace, name, service));
    }

    /// Deletes an existing Service.
    #[track_caller]
    pub fn delete(&self, namespace: &str, name: &str) {
        assert!(self.shared.change(|cluster| cluster.delete(namespace, name)), "no Service {namespace}/{name}");
    }

    /// Deletes a Service without an event: only a list shows it.
    #[track_caller]
    pub fn delete_silently(&self, namespace: &str, name: &str) {
        let deleted = self.shared.change(|cluster| cluster.delete_silently(namespace, name));
        assert!(deleted, "no Service {namespace}/{name}");
    }

    /// Creates or replaces a Service without an event.
    pub fn apply_silently(&self, namespace: &str, name: &str, service: Value) {
        self.shared.change(|cluster| cluster.apply_silently(namespace, name, service));
    }

    /// Sends a bookmark to the open watches that allow them.
    pub fn bookmark(&self) {
        self.shared.change(Cluster::bookmark);
    }

    /// Forgets the history: a watch from any earlier resourceVersion gets 410.
    pub fn forget_history(&self) {
        self.shared.change(Cluster::forget_history);
    }

    /// Limits the items in a page of a list.
    pub fn set_page_size(&self, items: usize) {
        self.shared.lock().cluster.page_size = items;
    }

    /// Scripts a fault for the next requests of a kind; [`ALWAYS`] lasts until [`Self::recover`]. Faults for the same kind of
    /// request queue up.
    pub fn fail(&self, request: Request, fault: Fault, times: usize) {
        self.shared.lock().script.add(request, fault, times);
    }

    /// Answers lists by a selector with this text with 500 until [`Self::recover`].
    pub fn fail_lists_by(&self, selector: &str) {
        self.shared.lock().script.failing_selector = Some(selector.to_owned());
    }

    /// Removes all scripted faults. Hanging requests keep hanging.
    pub fn recover(&self) {
        self.shared.lock().script.clear();
    }

    /// Breaks all open watches.
    pub fn break_watches(&self, how: Break) {
        self.shared.change(|cluster| cluster.break_watches(how));
    }

    /// Answers requests without this bearer token with 401; `None` accepts all requests.
    pub fn require_token(&self, token: Option<&str>) {
        self.shared.lock().script.token = token.map(str::to_owned);
    }

    /// The number of requests of a kind, failed ones included.
    pub fn count(&self, request: Request) -> usize {
        self.shared.lock().script.count(request)
    }

    /// The number of lists, counted by their first pages.
    pub fn lists(&self) -> usize {
        self.count(Request::List)
    }

    /// The number of watches, ended ones included.
    pub fn watches(&self) -> usize {
        self.count(Request::Watch)
    }

    /// The number of open watches, silent ones included.
    pub fn open_watches(&self) -> usize {
        self.shared.open_watches.load(Relaxed)
    }

    /// The number of requests answered with 401.
    pub fn unauthorized(&self) -> usize {
        self.shared.lock().script.unauthorized
    }

    /// Methods and paths of unsupported requests, which kube2proxy should not send.
    pub fn unexpected(&self) -> Vec<String> {
        self.shared.lock().script.unexpected.clone()
    }

    /// The created Events, each with its latest patch.
    pub fn events(&self) -> Vec<Value> {
        self.shared.lock().cluster.events.clone()
    }

    /// The reasons of the Events about one Service.
    pub fn reasons(&self, namespace: &str, name: &str) -> Vec<String> {
        let about = |event: &&Value| event["regarding"]["namespace"] == namespace && event["regarding"]["name"] == name;
        self.events().iter().filter(about).map(|event| event["reason"].as_str().unwrap_or_default().into()).collect()
    }

    /// Waits until the server listens; false if it cannot.
    fn run(&mut self) -> bool {
        let (listening, result) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let (shared, address) = (Arc::clone(&self.shared), self.address);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind(address).await;
                let _ = listening.send(listener.is_ok());
                let Ok(listener) = listener else { return };
                let router = Router::new().fallback(entrance).with_state(shared);
                tokio::select! {
                    _ = axum::serve(listener, router) => {}
                    _ = stopped => {}
                }
            });
            // Dropping the runtime breaks all connections.
        });
        self.running = Some((stop, thread));
        let listens = result.recv().unwrap_or(false);
        if !listens {
            self.stop();
        }
        listens
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn entrance(State(shared): State<Arc<Shared>>, request: HttpRequest) -> axum::response::Response {
    answer(shared, request).await
}
