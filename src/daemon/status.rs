//! What a daemon tells of itself over HTTP: `/metrics` (Prometheus text or OpenMetrics), `/live` and `/ready`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use axum::Router;
use axum::extract::State as Shared;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use super::metrics::{Format, encode};

/// Whether the daemon does its work: `/ready` answers 200 or 503 by it. Begins as "not yet".
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Flags>);

#[derive(Debug, Default)]
struct Flags {
    is_ready: AtomicBool,
    is_ending: AtomicBool,
}

impl Readiness {
    /// From now on it does, or no longer.
    pub fn set(&self, ready: bool) {
        self.0.is_ready.store(ready, Relaxed);
    }

    /// From now on it does not, whatever is set.
    pub fn end(&self) {
        self.0.is_ending.store(true, Relaxed);
    }

    /// What was set last.
    pub fn get(&self) -> bool {
        self.0.is_ready.load(Relaxed) && !self.0.is_ending.load(Relaxed)
    }
}

/// Serves in the background for as long as the runtime lives, and returns where.
///
/// # Errors
/// The system's.
pub fn serve_status(listener: TcpListener, registry: Registry, readiness: Readiness) -> io::Result<SocketAddr> {
    let address = listener.local_addr()?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/live", get(async || "live\n"))
        .route("/ready", get(ready))
        .with_state(Arc::new(Told { registry, readiness }));
    tokio::spawn(async move {
        // Never ends: `axum::serve` tries again when it cannot accept.
        let _ = axum::serve(listener, router).await;
    });
    Ok(address)
}

struct Told {
    registry: Registry,
    readiness: Readiness,
}

async fn metrics(Shared(told): Shared<Arc<Told>>, headers: HeaderMap) -> Result<Response, StatusCode> {
    let accept: Vec<_> = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let format = Format::preferred_by(&accept.join(","));
    let text = encode(&told.registry, format).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(([(CONTENT_TYPE, format.content_type())], text).into_response())
}

async fn ready(Shared(told): Shared<Arc<Told>>) -> (StatusCode, &'static str) {
    if told.readiness.get() { (StatusCode::OK, "ready\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") }
}
