//! The audit: whose is the port that a route leads to, now? A route whose port belongs to somebody else is withdrawn.
//!
//! A job that is killed does not unregister, and its port may be the next tool's. So each route that proxylistener wrote
//! is looked at in turns: a short connection is opened to its backend, and the identd of the backend's host is asked whose
//! the other end of it is. Nothing is withdrawn without that answer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::identd::{self, IdentError};
use super::metrics::Finding;
use super::registrar::Registrar;
use super::routes::{grid_routes, registered_tools};
use super::settings::Policy;
use crate::daemon::StoreError;
use crate::registry::{self, GridRoute, Withdrawal};
use crate::route::ToolName;

/// Tools that are looked at at the same time; the routes of one tool on one host are looked at one after the other.
const AT_ONCE: usize = 64;
/// What a tool's routes on one host may take in one audit, so that servers which never answer hold up nobody else's.
const TOOLS_SHARE: Duration = Duration::from_secs(30);
/// Longer than this a backend may not take to accept.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// An identd that did not answer so many times in a row is not asked again until the next audit.
const IDENTD_PATIENCE: u32 = 2;
/// The kernel has a connection until the server accepts it, and identds call that `root`. A server that says anything has
/// accepted; any server says something to this.
const QUESTION: &[u8] = b"HEAD / HTTP/1.0\r\nUser-Agent: proxylistener-audit\r\n\r\n";
/// For a server to say something.
const ANSWER_DEADLINE: Duration = Duration::from_secs(3);
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
    let mut shares: HashMap<(IpAddr, ToolName), Vec<(GridRoute, SocketAddr)>> = HashMap::new();
    let mut total = 0;
    for tool in registered_tools(&registrar.store).await? {
        for route in grid_routes(&registrar.store, tool).await? {
            if let Some(backend) = route.backend.socket_addr() {
                total += 1;
                shares.entry((backend.ip(), route.tool.clone())).or_default().push((route, backend));
            }
        }
    }
    let mut silences: HashMap<IpAddr, Arc<AtomicU32>> = HashMap::new();
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut tools: JoinSet<Result<(), StoreError>> = shares
        .into_iter()
        .map(|((host, _), routes)| {
            let silence = Arc::clone(silences.entry(host).or_default());
            let (registrar, places) = (Arc::clone(registrar), Arc::clone(&places));
            async move {
                // An error means closed, which it never is.
                let _place = places.acquire_owned().await;
                audit_tool(&registrar, routes, &silence).await
            }
        })
        .collect();
    let mut outcome = Ok(total);
    while let Some(tool) = tools.join_next().await {
        if let Ok(Err(error)) = tool {
            outcome = Err(error);
        }
    }
    outcome
}

/// Looks at one tool's routes on one host. `silence` counts how often in a row that host's identd has not answered anybody.
async fn audit_tool(
    registrar: &Registrar,
    routes: Vec<(GridRoute, SocketAddr)>,
    silence: &AtomicU32,
) -> Result<(), StoreError> {
    let policy = registrar.live.load_full();
    let end = Instant::now() + TOOLS_SHARE;
    for (route, backend) in &routes {
        let found = if silence.load(Relaxed) >= IDENTD_PATIENCE {
            Err(Unknown::Silent)
        } else {
            owner_of(*backend, &policy, silence).await
        };
        let finding = match found {
            Ok(owner) if route.is_of(&owner, &policy.project) => Finding::own,
            Ok(owner) => withdraw(registrar, route, &owner).await?,
            Err(unknown) => {
                let (tool, pattern, destination) = (route.tool.as_str(), route.pattern.as_str(), route.url.as_str());
                debug!(tool, pattern, destination, reason = unknown.to_string(), "not audited");
                unknown.finding()
            }
        };
        registrar.metrics.audited(finding, 1);
        if Instant::now() > end {
            let tool = route.tool.as_str();
            info!(tool, host = %backend.ip(), "its servers are slow; its other routes there are not audited this time");
            break;
        }
    }
    Ok(())
}

impl GridRoute {
    /// Whether the owner of a port is the tool, or whoever registered the route.
    fn is_of(&self, owner: &str, project: &str) -> bool {
        let is_tool = owner.strip_prefix(project).and_then(|rest| rest.strip_prefix('.')) == Some(self.tool.as_str());
        is_tool || owner == self.owner
    }
}

async fn withdraw(registrar: &Registrar, route: &GridRoute, owner: &str) -> Result<Finding, StoreError> {
    let gone = registrar.store.commit(&registry::withdraw_if_unchanged(route)).await?;
    if gone != Withdrawal::Removed {
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
    #[error("the host's identd has not answered others")]
    Silent,
    #[error("the connection is {KERNEL}'s, and nothing shows that a server has accepted it")]
    Kernel,
}

impl Unknown {
    fn finding(&self) -> Finding {
        match self {
            Self::Unreachable(_) | Self::ConnectTimeout => Finding::backend_unreachable,
            Self::Ident(_) | Self::Silent | Self::Kernel => Finding::owner_unknown,
        }
    }
}

/// The user whose server answers at `backend`, by that host's identd.
async fn owner_of(backend: SocketAddr, policy: &Policy, silence: &AtomicU32) -> Result<String, Unknown> {
    let connected = timeout(CONNECT_DEADLINE, TcpStream::connect(backend)).await;
    let mut probe = connected.map_err(|_| Unknown::ConnectTimeout)??;
    let local = probe.local_addr()?;
    let ask = async || {
        let owner = identd::ask(backend, local, policy.ident_port, policy.ident_timeout).await;
        if matches!(owner, Err(IdentError::Timeout(_))) {
            silence.fetch_add(1, Relaxed);
        } else {
            silence.store(0, Relaxed);
        }
        owner
    };
    let owner = ask().await?;
    if owner != KERNEL {
        return Ok(owner);
    }
    probe.write_all(QUESTION).await?;
    match timeout(ANSWER_DEADLINE, probe.read(&mut [0; 1])).await {
        // Whose the connection is now, it was accepted by.
        Ok(Ok(1..)) => Ok(ask().await?),
        _ => Err(Unknown::Kernel),
    }
}
