//! One scan of all routes: probes the ports of many tools at once, and spends a bounded time on each tool.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::info;

use super::destination::Resolver;
use super::history::{History, RouteState};
use super::identd::IdentError;
use super::probe::{PortState, UnknownOwner, connect, find_owner, host_answers};
use super::settings::Policy;
use crate::registry::{GridRoute, is_special};
use crate::route::{Host, ToolName};

/// Tools probed at the same time, and routes of one tool.
const TOOLS_AT_ONCE: usize = 64;
const ROUTES_AT_ONCE: usize = 4;
/// Longest time that one tool may take in one audit: its servers may never answer. The next audit begins with the routes
/// that were not reached.
const TOOL_BUDGET: Duration = Duration::from_secs(30);
/// After this many timeouts in a row the identd of a host is not asked again in the same audit.
const MAX_IDENT_TIMEOUTS: u32 = 2;

/// A running scan. Dropping it ends the scan.
pub struct AuditScan {
    results: mpsc::Receiver<(GridRoute, RouteState)>,
    _tools: JoinSet<()>,
}

struct Shared {
    policy: Arc<Policy>,
    resolver: Resolver,
    permits: Semaphore,
    /// Timeouts in a row of each host's identd.
    ident_timeouts: Mutex<HashMap<IpAddr, Arc<AtomicU32>>>,
    results: mpsc::Sender<(GridRoute, RouteState)>,
}

impl AuditScan {
    /// Begins a scan: tools in random order, the routes of each by their last audit, oldest first.
    pub fn begin(routes: Vec<GridRoute>, history: &History, policy: Arc<Policy>) -> Self {
        let mut of_tools: HashMap<ToolName, Vec<GridRoute>> = HashMap::new();
        for route in routes {
            of_tools.entry(route.tool.clone()).or_default().push(route);
        }
        let mut of_tools: Vec<_> = of_tools.into_iter().collect();
        let random = RandomState::new();
        of_tools.sort_by_cached_key(|(tool, _)| random.hash_one(tool));
        let (sender, results) = mpsc::channel(TOOLS_AT_ONCE);
        let shared = Arc::new(Shared {
            policy,
            resolver: Resolver::default(),
            permits: Semaphore::new(TOOLS_AT_ONCE),
            ident_timeouts: Mutex::default(),
            results: sender,
        });
        let probe = |(tool, mut routes): (ToolName, Vec<GridRoute>)| {
            routes.sort_by_cached_key(|route| (history.last_audited(route), random.hash_one(&route.url)));
            let shared = Arc::clone(&shared);
            async move {
                // Fails only when closed, which it never is.
                let _permit = shared.permits.acquire().await;
                probe_tool(&shared, &tool, routes).await;
            }
        };
        Self { results, _tools: of_tools.into_iter().map(probe).collect() }
    }

    /// The next result, in any order; `None` after the last.
    pub async fn next(&mut self) -> Option<(GridRoute, RouteState)> {
        self.results.recv().await
    }
}

async fn probe_tool(shared: &Shared, tool: &ToolName, routes: Vec<GridRoute>) {
    let end = Instant::now() + TOOL_BUDGET;
    let mut targets = Vec::new();
    let mut names: HashMap<Box<str>, Result<Vec<IpAddr>, String>> = HashMap::new();
    for route in routes {
        let ips = match &route.backend.host {
            Host::Name(name) if !names.contains_key(name) && Instant::now() < end => {
                let ips = shared.addresses(tool, &route).await;
                names.entry(name.clone()).or_insert(ips).clone()
            }
            Host::Name(name) => names.get(name).cloned().unwrap_or_else(|| Ok(Vec::new())),
            _ => Ok(route.backend.socket_addr().map(|address| address.ip()).into_iter().collect()),
        };
        targets.push((route, ips));
    }
    let not_reached = AtomicU32::new(0);
    let probe = async |(route, ips): (GridRoute, Result<Vec<IpAddr>, String>)| {
        let state = match ips {
            _ if Instant::now() >= end => {
                not_reached.fetch_add(1, Relaxed);
                RouteState::NotReached
            }
            Err(error) => RouteState::Unknown(error),
            Ok(ips) => shared.probe_route(&route, &ips).await,
        };
        // Fails only when the scan was dropped.
        let _ = shared.results.send((route, state)).await;
    };
    stream::iter(targets).for_each_concurrent(ROUTES_AT_ONCE, probe).await;
    let routes = not_reached.into_inner();
    if routes > 0 {
        info!(
            tool = tool.as_str(),
            routes, "tool's servers are slow; its remaining routes come first in the next audit"
        );
    }
}

impl Shared {
    async fn addresses(&self, tool: &ToolName, route: &GridRoute) -> Result<Vec<IpAddr>, String> {
        let backends = self.resolver.at_addresses(tool, &route.backend).await.map_err(|error| error.to_string())?;
        Ok(backends.iter().filter_map(|backend| Some(backend.socket_addr()?.ip())).collect())
    }

    /// Probes a route's addresses until one does not refuse connections.
    async fn probe_route(&self, route: &GridRoute, ips: &[IpAddr]) -> RouteState {
        let mut state = RouteState::Outside;
        let is_audited = |ip: &&IpAddr| route.registrant.is_some() || self.policy.may_be_client(**ip);
        for &ip in ips.iter().filter(is_audited) {
            state = self.probe_address(SocketAddr::new(ip, route.backend.port), &route.tool).await;
            if !matches!(state, RouteState::Refusing(_)) {
                break;
            }
        }
        state
    }

    async fn probe_address(&self, address: SocketAddr, tool: &ToolName) -> RouteState {
        let timeouts = Arc::clone(self.ident_timeouts.lock().entry(address.ip()).or_default());
        let found = if timeouts.load(Relaxed) < MAX_IDENT_TIMEOUTS {
            find_owner(address, tool, &self.policy).await
        } else {
            match connect(address).await {
                Ok(_) => return RouteState::Unknown("the host's identd timed out earlier in this audit".into()),
                Err(found) => found,
            }
        };
        match found {
            PortState::OwnedBy(owner) => {
                timeouts.store(0, Relaxed);
                RouteState::OwnedBy(owner)
            }
            PortState::Closed => RouteState::Refusing("connection refused".into()),
            PortState::Unknown(unknown) => {
                let reason = unknown.to_string();
                match unknown {
                    UnknownOwner::Ident(IdentError::Timeout(_)) => {
                        timeouts.fetch_add(1, Relaxed);
                        RouteState::Unknown(reason)
                    }
                    UnknownOwner::Ident(_) | UnknownOwner::NotAccepted | UnknownOwner::Closed => {
                        timeouts.store(0, Relaxed);
                        RouteState::Unknown(reason)
                    }
                    UnknownOwner::ConnectTimeout => self.busy_or_refusing(address.ip(), reason).await,
                    UnknownOwner::Unreachable(error) if is_host_unreachable(error.kind()) => {
                        self.busy_or_refusing(address.ip(), reason).await
                    }
                    UnknownOwner::Unreachable(_) => RouteState::Busy(reason),
                }
            }
        }
    }

    async fn busy_or_refusing(&self, host: IpAddr, reason: String) -> RouteState {
        if host_answers(host, &self.policy).await { RouteState::Busy(reason) } else { RouteState::Refusing(reason) }
    }
}

/// Other errors may come from this host.
fn is_host_unreachable(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::TimedOut)
}

impl Policy {
    /// Whether a host would be allowed to register a route now. Special addresses, such as loopback, only if they are listed.
    fn may_be_client(&self, host: IpAddr) -> bool {
        let listed = [&self.allowed_clients, &self.allowed];
        if listed.iter().all(|networks| networks.is_empty()) {
            return !is_special(host);
        }
        listed.into_iter().flatten().any(|network| network.contains(&host))
    }
}
