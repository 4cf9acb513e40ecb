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

use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::identd::IdentError;
use super::metrics::Finding;
use super::probe::{Listener, Unknown, who_listens};
use super::registrar::Registrar;
use super::routes::{grid_routes, registered_tools};
use crate::daemon::StoreError;
use crate::registry::{self, GridRoute, Withdrawal};
use crate::route::ToolName;

/// Tools that are looked at at the same time; the routes of one tool on one host are looked at one after the other.
const AT_ONCE: usize = 64;
/// What a tool's routes on one host may take in one audit, so that servers which never answer hold up nobody else's.
const TOOLS_SHARE: Duration = Duration::from_secs(30);
/// An identd that did not answer so many times in a row is not asked again until the next audit.
const IDENTD_PATIENCE: u32 = 2;
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
        let unaudited = |reason: &str| {
            let (tool, pattern, destination) = (route.tool.as_str(), route.pattern.as_str(), route.url.as_str());
            debug!(tool, pattern, destination, reason, "not audited");
        };
        let finding = if silence.load(Relaxed) >= IDENTD_PATIENCE {
            unaudited("the host's identd has not answered others");
            Finding::owner_unknown
        } else {
            let found = who_listens(*backend, &route.tool, &policy).await;
            match &found {
                Listener::Unknown(Unknown::Ident(IdentError::Timeout(_))) => _ = silence.fetch_add(1, Relaxed),
                Listener::Nothing | Listener::Unknown(Unknown::Unreachable(_) | Unknown::ConnectTimeout) => {}
                Listener::User(_) | Listener::Unknown(_) => silence.store(0, Relaxed),
            }
            match found {
                Listener::User(owner) if route.is_of(&owner, &policy.project) => Finding::own,
                Listener::User(owner) => withdraw(registrar, route, &owner).await?,
                Listener::Nothing => Finding::backend_unreachable,
                Listener::Unknown(unknown) => {
                    unaudited(&unknown.to_string());
                    match unknown {
                        Unknown::Unreachable(_) | Unknown::ConnectTimeout => Finding::backend_unreachable,
                        Unknown::Ident(_) | Unknown::NotAccepted | Unknown::Closed => Finding::owner_unknown,
                    }
                }
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
