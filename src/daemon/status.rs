//! What a daemon tells of itself over HTTP: `/metrics` (Prometheus text or OpenMetrics), `/live` and `/ready`.
//!
//! No client can keep others out: few connections are open, each for one request and a few seconds, and the one that is open
//! longest makes room for a new one.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tracing::debug;

use super::accept::Acceptor;
use super::connection_limiter::{ConnectionLimiter, ConnectionMeter, Limits, Permit};
use super::http::{HttpResponse, TEXT_PLAIN, response_with};
use super::metrics::{Format, encode};

/// Monitors ask one after the other, and there are few.
const LIMITS: Limits = Limits { total: 16, per_host: 8, per_owner: 8 };
/// A request's head takes no longer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Nor does a connection, from its beginning until the answer is written.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Nor is a request's head longer.
const MAX_HEAD_LEN: usize = 16 << 10;

/// Whether the daemon does its work: `/ready` answers 200 or 503 by it. Begins as "not yet".
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    is_ready: AtomicBool,
    is_shutting_down: AtomicBool,
}

impl Readiness {
    /// From now on it does, or no longer.
    pub fn set(&self, ready: bool) {
        self.0.is_ready.store(ready, Relaxed);
    }

    /// From now on it does not, whatever is set.
    pub fn shut_down(&self) {
        self.0.is_shutting_down.store(true, Relaxed);
    }

    /// What was set last.
    pub fn get(&self) -> bool {
        self.0.is_ready.load(Relaxed) && !self.0.is_shutting_down.load(Relaxed)
    }
}

/// Serves in the background for as long as the runtime lives, and returns where.
///
/// # Errors
/// The system's.
pub fn serve_status(listener: TcpListener, registry: Registry, readiness: Readiness) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    let status = Arc::new(Status { registry, readiness });
    tokio::spawn(async move {
        let limiter = ConnectionLimiter::<IpAddr>::new(ConnectionMeter::default());
        let mut acceptor = Acceptor::new(listener);
        loop {
            let (stream, peer) = acceptor.accept().await;
            if let Ok(permit) = limiter.admit(peer.ip(), &LIMITS) {
                tokio::spawn(serve_connection(stream, permit, Arc::clone(&status)));
            }
        }
    });
    Ok(address)
}

/// Answers one request. The permit stays idle: to answer takes no time, all the rest is waiting for the client.
async fn serve_connection(stream: TcpStream, permit: Permit<IpAddr>, status: Arc<Status>) {
    let answer = service_fn(move |request| {
        let response = status.answer(&request);
        async { Ok::<_, Infallible>(response) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD_LEN).keep_alive(false);
    let connection = builder.serve_connection(TokioIo::new(stream), answer);
    tokio::select! {
        () = permit.evicted() => debug!("metrics connection evicted for a newer one"),
        // What is wrong with a request is its client's affair.
        _ = timeout(CONNECTION_TIMEOUT, connection) => {}
    }
}

struct Status {
    registry: Registry,
    readiness: Readiness,
}

impl Status {
    fn answer(&self, request: &Request<Incoming>) -> HttpResponse {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed, expected GET or HEAD\n");
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/metrics" => self.metrics(request),
            "/live" => text(StatusCode::OK, "live\n"),
            "/ready" if self.readiness.get() => text(StatusCode::OK, "ready\n"),
            "/ready" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            _ => text(StatusCode::NOT_FOUND, "not found, expected /metrics, /live or /ready\n"),
        }
    }

    fn metrics(&self, request: &Request<Incoming>) -> HttpResponse {
        let accept = request.headers().get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let format = Format::preferred_by(&accept.collect::<Vec<_>>().join(","));
        match encode(&self.registry, format) {
            Ok(metrics) => response_with(format.content_type(), metrics),
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n"),
        }
    }
}

fn text(status: StatusCode, body: &'static str) -> HttpResponse {
    let mut answer = response_with(TEXT_PLAIN, body);
    *answer.status_mut() = status;
    answer
}
