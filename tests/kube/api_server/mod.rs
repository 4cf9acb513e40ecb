//! A Kubernetes API server whose faults a test scripts: Services and Events, over plain HTTP, in this process.
//!
//! It does what a real one does as far as kube2proxy can tell: pages of a list are one snapshot, each change has a
//! resourceVersion of its own, and a watch continues after any of them.

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

/// Labels as webservice gives them now.
pub const NEW_LABELS: [(&str, &str); 2] =
    [("app.kubernetes.io/component", "web"), ("app.kubernetes.io/managed-by", "webservice")];

/// A Service as `kubectl expose` makes it, with [`WEB_SERVICE`].
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

/// What the threads share.
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
    /// Starts one with nothing in it.
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

    /// Closes all connections and refuses new ones. What is in the cluster stays, and may be changed meanwhile.
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

    /// Creates or replaces a Service. What each has is filled in unless it is there: name, namespace, uid, time of
    /// creation (now, or as before), resourceVersion. Anything else may be missing or wrong.
    pub fn apply(&self, namespace: &str, name: &str, service: Value) {
        self.shared.change(|cluster| cluster.apply(namespace, name, service));
    }

    /// Deletes a Service, which must be there.
    #[track_caller]
    pub fn delete(&self, namespace: &str, name: &str) {
        assert!(self.shared.change(|cluster| cluster.delete(namespace, name)), "no Service {namespace}/{name}");
    }

    /// Deletes a Service without an event: only another list can tell.
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

    /// Lets what is in the cluster now be all that is known: a watch from any resourceVersion before it is told 410.
    pub fn forget_history(&self) {
        self.shared.change(Cluster::forget_history);
    }

    /// No page of a list has more items than this, whatever is asked for.
    pub fn set_page_size(&self, items: usize) {
        self.shared.lock().cluster.page_size = items;
    }

    /// The next so many of these requests meet this fault; [`ALWAYS`] is until [`Self::recover`]. Faults of one kind of
    /// request that are scripted one after the other are met one after the other.
    pub fn fail(&self, request: Request, fault: Fault, times: usize) {
        self.shared.lock().script.add(request, fault, times);
    }

    /// Lists whose selector has this text are answered with 500 until [`Self::recover`].
    pub fn fail_lists_by(&self, selector: &str) {
        self.shared.lock().script.failing_selector = Some(selector.to_owned());
    }

    /// Meets no more scripted faults. Requests that hang stay so.
    pub fn recover(&self) {
        self.shared.lock().script.clear();
    }

    /// Does this to all watches that are open now.
    pub fn break_watches(&self, how: Break) {
        self.shared.change(|cluster| cluster.break_watches(how));
    }

    /// From now on, requests without this bearer token are answered with 401; `None` asks for none.
    pub fn require_token(&self, token: Option<&str>) {
        self.shared.lock().script.token = token.map(str::to_owned);
    }

    /// How many of these requests came, whatever became of them.
    pub fn count(&self, request: Request) -> usize {
        self.shared.lock().script.count(request)
    }

    /// How many lists were begun: their first pages.
    pub fn lists(&self) -> usize {
        self.count(Request::List)
    }

    /// How many watches were begun.
    pub fn watches(&self) -> usize {
        self.count(Request::Watch)
    }

    /// How many watches are open now, silent ones included.
    pub fn open_watches(&self) -> usize {
        self.shared.open_watches.load(Relaxed)
    }

    /// How many requests were answered with 401 for their token.
    pub fn unauthorized(&self) -> usize {
        self.shared.lock().script.unauthorized
    }

    /// Methods and paths of requests that there is no answer to: what kube2proxy should not need.
    pub fn unexpected(&self) -> Vec<String> {
        self.shared.lock().script.unexpected.clone()
    }

    /// The Events that were created, each with the latest patch of it.
    pub fn events(&self) -> Vec<Value> {
        self.shared.lock().cluster.events.clone()
    }

    /// The reasons of the Events about one Service.
    pub fn reasons(&self, namespace: &str, name: &str) -> Vec<String> {
        let about = |event: &&Value| event["regarding"]["namespace"] == namespace && event["regarding"]["name"] == name;
        self.events().iter().filter(about).map(|event| event["reason"].as_str().unwrap_or_default().into()).collect()
    }

    /// Returns when it listens; false when it can't.
    fn run(&mut self) -> bool {
        let (listening, told) = std::sync::mpsc::channel();
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
            // With the runtime all connections end, in the middle of whatever they are at.
        });
        self.running = Some((stop, thread));
        let listens = told.recv().unwrap_or(false);
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
