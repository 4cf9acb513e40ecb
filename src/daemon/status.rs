//! The metrics endpoint of a daemon: `/metrics` (Prometheus text or OpenMetrics), `/live` and `/ready` over HTTP.
//!
//! Clients cannot lock others out: each connection serves one request within seconds, and at the connection limit the oldest one
//! is evicted.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use std::{fmt, io};

use hyper::body::Incoming;
use hyper::header::{ACCEPT, ALLOW, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tracing::debug;

use super::accept::Acceptor;
use super::connection_limiter::{ConnectionLimiter, ConnectionMeter, Limits, Permit};
use super::http::{HttpResponse, TEXT_PLAIN, response_with};
use super::metrics::{Format, encode};

/// Few monitors connect, one after the other.
const LIMITS: Limits = Limits { total: 16, per_host: 8, per_owner: 8 };
/// Time to receive a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time from accepting a connection until its response is written.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's head.
const MAX_HEAD_LEN: usize = 16 << 10;

/// Whether the daemon is ready: `/ready` answers 200 or 503. Starts as not ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    is_ready: AtomicBool,
    is_shutting_down: AtomicBool,
}

impl Readiness {
    /// Sets the state.
    pub fn set(&self, ready: bool) {
        self.0.is_ready.store(ready, Relaxed);
    }

    /// Makes the daemon not ready for good, whatever is set later.
    pub fn shut_down(&self) {
        self.0.is_shutting_down.store(true, Relaxed);
    }

    /// Whether the daemon is ready.
    pub fn get(&self) -> bool {
        self.0.is_ready.load(Relaxed) && !self.0.is_shutting_down.load(Relaxed)
    }
}

impl Collector for Readiness {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let gauge = ConstGauge::new(i64::from(self.get()));
        gauge.encode(encoder.encode_descriptor("ready", "1 while /ready answers 200", None, gauge.metric_type())?)
    }
}

/// Serves the endpoint in the background until the runtime ends, and returns its address.
///
/// # Errors
/// The listener's address is unavailable.
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

/// Answers one request. The permit stays idle: the response takes no time, the rest is waiting for the client.
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
        // Errors of a connection concern only its client.
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
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "metrics cannot be encoded\n"),
        }
    }
}

fn text(status: StatusCode, body: &'static str) -> HttpResponse {
    let mut answer = response_with(TEXT_PLAIN, body);
    *answer.status_mut() = status;
    answer
}
