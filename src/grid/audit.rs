//! The audit: whose is the port that a route leads to, now? A route whose port belongs to somebody else is withdrawn.
//!
//! A job that is killed does not unregister, and its port may be the next tool's. So each route that proxylistener wrote
//! is looked at in turns: a short connection is opened to its backend, and the identd of the backend's host is asked whose
//! the other end of it is. Nothing is withdrawn without that answer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::identd::{self, IdentError};
use super::metrics::Finding;
use super::registrar::Registrar;
use super::routes::{grid_routes, registered_tools};
use super::settings::Policy;
use crate::daemon::StoreError;
use crate::registry::{self, GridRoute};

/// Hosts that are asked at the same time; the routes of one host are asked one after the other.
const HOSTS_AT_ONCE: usize = 32;
/// Longer than this a backend may not take to accept.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// A host that did not answer so many times in a row is left alone until the next audit.
const HOST_PATIENCE: u32 = 2;
/// The kernel has a connection until the server accepts it, and identds call that `root`. A server that has not accepted
/// after these times may be root's or just busy.
const ACCEPT_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1)];
/// As which user identds show the kernel.
const KERNEL: &str = "root";
/// Between two tries when Redis does not answer.
const RETRY: Duration = Duration::from_secs(5);

/// Audits all routes as often as the policy in force says, the first time at once. Never ends.
pub async fn audit(registrar: Arc<Registrar>) {
    let mut last = None;
    let mut failing = false;
    loop {
        let changed = registrar.reloaded.notified();
        let interval = registrar.live.load().audit_interval;
        let pause = if failing { interval.map(|interval| interval.min(RETRY)) } else { interval };
        let due = pause.map(|pause| last.map_or_else(Instant::now, |last| last + pause));
        tokio::select! {
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            () = changed => continue,
        }
        let begun = Instant::now();
        let outcome = round(&registrar).await;
        registrar.metrics.audit_ended(outcome.is_ok());
        match &outcome {
            Ok(routes) if failing => info!(routes, "audited again"),
            Ok(routes) => debug!(routes, seconds = begun.elapsed().as_secs_f64(), "audited"),
            Err(error) if failing => debug!(%error, "no audit"),
            Err(error) => warn!(%error, "no audit"),
        }
        (last, failing) = (Some(begun), outcome.is_err());
    }
}

/// Looks at each route once, and returns how many there are.
async fn round(registrar: &Arc<Registrar>) -> Result<usize, StoreError> {
    let mut hosts: HashMap<IpAddr, Vec<(GridRoute, SocketAddr)>> = HashMap::new();
    let mut total = 0;
    for tool in registered_tools(&registrar.store).await? {
        for route in grid_routes(&registrar.store, tool).await? {
            if let Some(backend) = route.backend.socket_addr() {
                total += 1;
                hosts.entry(backend.ip()).or_default().push((route, backend));
            }
        }
    }
    let places = Arc::new(Semaphore::new(HOSTS_AT_ONCE));
    let mut hosts: JoinSet<Result<(), StoreError>> = hosts
        .into_values()
        .map(|routes| {
            let (registrar, places) = (Arc::clone(registrar), Arc::clone(&places));
            async move {
                // An error means closed, which it never is.
                let _place = places.acquire_owned().await;
                audit_host(&registrar, routes).await
            }
        })
        .collect();
    let mut outcome = Ok(total);
    while let Some(host) = hosts.join_next().await {
        if let Ok(Err(error)) = host {
            outcome = Err(error);
        }
    }
    outcome
}

async fn audit_host(registrar: &Registrar, routes: Vec<(GridRoute, SocketAddr)>) -> Result<(), StoreError> {
    let policy = registrar.live.load_full();
    let mut silent = 0;
    for (index, (route, backend)) in routes.iter().enumerate() {
        let found = owner_of(*backend, &policy).await;
        silent = if matches!(&found, Err(unknown) if unknown.is_silence()) { silent + 1 } else { 0 };
        let finding = match found {
            Ok(owner) if owner == format!("{}.{}", policy.project, route.tool) => Finding::own,
            Ok(owner) => withdraw(registrar, route, &owner).await?,
            Err(unknown) => {
                let (tool, pattern) = (route.tool.as_str(), route.pattern.as_str());
                debug!(tool, pattern, destination = route.url, reason = %unknown, "not audited");
                unknown.finding()
            }
        };
        registrar.metrics.audited(finding, 1);
        if silent == HOST_PATIENCE {
            let left = routes.len() - index - 1;
            info!(host = %backend.ip(), routes = left, "the host does not answer; its other routes are not audited");
            registrar.metrics.audited(Finding::backend_unreachable, left as u64);
            break;
        }
    }
    Ok(())
}

async fn withdraw(registrar: &Registrar, route: &GridRoute, owner: &str) -> Result<Finding, StoreError> {
    let gone = registrar.store.commit(&registry::withdraw_if_unchanged(route)).await?;
    if !gone {
        return Ok(Finding::changed);
    }
    let (tool, pattern, destination) = (route.tool.as_str(), route.pattern.as_str(), route.url.as_str());
    warn!(tool, pattern, destination, owner, "withdrawn: the port is somebody else's now");
    Ok(Finding::withdrawn)
}

/// Why it is not known whose a port is.
#[derive(Debug, thiserror::Error)]
enum Unknown {
    #[error("{0} while connecting")]
    Unreachable(#[from] std::io::Error),
    #[error("no connection within {CONNECT_DEADLINE:?}")]
    ConnectTimeout,
    #[error(transparent)]
    Ident(#[from] IdentError),
    #[error("the connection is {KERNEL}'s, which may mean that the server has not accepted it")]
    Kernel,
}

impl Unknown {
    /// Whether it took a deadline to learn nothing.
    fn is_silence(&self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::Ident(IdentError::Timeout(_)))
    }

    fn finding(&self) -> Finding {
        match self {
            Self::Unreachable(_) | Self::ConnectTimeout => Finding::backend_unreachable,
            Self::Ident(_) | Self::Kernel => Finding::owner_unknown,
        }
    }
}

/// The user whose server answers at `backend`, by that host's identd.
async fn owner_of(backend: SocketAddr, policy: &Policy) -> Result<String, Unknown> {
    let connected = timeout(CONNECT_DEADLINE, TcpStream::connect(backend)).await;
    let probe = connected.map_err(|_| Unknown::ConnectTimeout)??;
    let local = probe.local_addr()?;
    for pause in ACCEPT_PAUSES {
        sleep(pause).await;
        let owner = identd::ask(backend, local, policy.ident_port, policy.ident_timeout).await?;
        if owner != KERNEL {
            return Ok(owner);
        }
    }
    Err(Unknown::Kernel)
}
