//! One look at every route: who listens there, of many tools at once, and of none for longer than its share.

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

/// Tools that are looked at at the same time, and routes of one of them.
const TOOLS_AT_ONCE: usize = 64;
const ROUTES_AT_ONCE: usize = 4;
/// What a tool's routes may take in one audit, so that servers which never answer hold up nobody else's. Those that are not
/// reached are the first in the next audit.
const TOOL_BUDGET: Duration = Duration::from_secs(30);
/// An identd that did not answer so many times in a row is not asked again until the next audit.
const MAX_IDENT_TIMEOUTS: u32 = 2;

/// A scan under way. It ends when this is dropped.
pub struct AuditScan {
    results: mpsc::Receiver<(GridRoute, RouteState)>,
    _tools: JoinSet<()>,
}

struct Shared {
    policy: Arc<Policy>,
    resolver: Resolver,
    places: Semaphore,
    /// How often in a row the identd of a host has not answered.
    ident_timeouts: Mutex<HashMap<IpAddr, Arc<AtomicU32>>>,
    results: mpsc::Sender<(GridRoute, RouteState)>,
}

impl AuditScan {
    /// Begins to look, at the tools in a random order, at the routes of each by how long ago they were looked at.
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
            places: Semaphore::new(TOOLS_AT_ONCE),
            ident_timeouts: Mutex::default(),
            results: sender,
        });
        let look = |(tool, mut routes): (ToolName, Vec<GridRoute>)| {
            routes.sort_by_cached_key(|route| (history.last_audited(route), random.hash_one(&route.url)));
            let shared = Arc::clone(&shared);
            async move {
                // An error means closed, which it never is.
                let _place = shared.places.acquire().await;
                probe_tool(&shared, &tool, routes).await;
            }
        };
        Self { results, _tools: of_tools.into_iter().map(look).collect() }
    }

    /// The next route, in no order; `None` after the last.
    pub async fn next(&mut self) -> Option<(GridRoute, RouteState)> {
        self.results.recv().await
    }
}

async fn probe_tool(shared: &Shared, tool: &ToolName, routes: Vec<GridRoute>) {
    let end = Instant::now() + TOOL_BUDGET;
    let mut looks = Vec::new();
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
        looks.push((route, ips));
    }
    let not_reached = AtomicU32::new(0);
    let look = async |(route, ips): (GridRoute, Result<Vec<IpAddr>, String>)| {
        let state = match ips {
            _ if Instant::now() >= end => {
                not_reached.fetch_add(1, Relaxed);
                RouteState::NotReached
            }
            Err(error) => RouteState::Unknown(error),
            Ok(ips) => shared.look(&route, &ips).await,
        };
        // An error means that nobody waits for it.
        let _ = shared.results.send((route, state)).await;
    };
    stream::iter(looks).for_each_concurrent(ROUTES_AT_ONCE, look).await;
    let routes = not_reached.into_inner();
    if routes > 0 {
        info!(
            tool = tool.as_str(),
            routes, "the tool's servers are slow; its other routes are audited first next time"
        );
    }
}

impl Shared {
    async fn addresses(&self, tool: &ToolName, route: &GridRoute) -> Result<Vec<IpAddr>, String> {
        let backends = self.resolver.at_addresses(tool, &route.backend).await.map_err(|error| error.to_string())?;
        Ok(backends.iter().filter_map(|backend| Some(backend.socket_addr()?.ip())).collect())
    }

    /// Of several addresses the first that does not refuse counts.
    async fn look(&self, route: &GridRoute, ips: &[IpAddr]) -> RouteState {
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
                Ok(_) => return RouteState::Unknown("the host's identd has not answered others".into()),
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

/// Others say something about this machine.
fn is_host_unreachable(error: ErrorKind) -> bool {
    matches!(error, ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable | ErrorKind::TimedOut)
}

impl Policy {
    /// Whether a host could have registered a route, were it to do so now. Addresses such as loopback only if they are listed.
    fn may_be_client(&self, host: IpAddr) -> bool {
        let listed = [&self.allowed_clients, &self.allowed];
        if listed.iter().all(|networks| networks.is_empty()) {
            return !is_special(host);
        }
        listed.into_iter().flatten().any(|network| network.contains(&host))
    }
}
