//! The audit: checks that each route's port still belongs to its tool, and that a server listens there.
//!
//! A killed job does not unregister, and another tool may get its port; a lost host unregisters nothing. So the audit visits
//! each route that a grid job registered, whichever program wrote it. It withdraws a route at once when its port belongs to another
//! user. It withdraws a route whose port keeps refusing connections, unless most tools' ports do: then the fault is more likely
//! in this host's network. Nothing else withdraws a route; a busy server keeps it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::audit_scan::AuditScan;
use super::history::{DEAD_AUDITS, History, RouteState, UNKNOWN_AUDITS};
use super::metrics::AuditFinding;
use super::registrar::Registrar;
use super::routes::{StoredRoutes, address_of, read_stored_routes};
use super::settings::Policy;
use crate::clock;
use crate::daemon::{GuardMessages, LoggedGuard, StoreError};
use crate::registry::{self, GridRoute, Ownership, Registration, Withdrawal, routes_key};
use crate::route::ToolName;

/// Longest time until the next audit after one that Redis interrupted.
const RETRY: Duration = Duration::from_secs(5);
/// Concurrent changes of the address index.
const REPAIRS_AT_ONCE: usize = 64;

const GUARD_MESSAGES: GuardMessages = GuardMessages {
    lacks: "most tools' ports refuse connections; keeping their routes until the hold ends or the accept file is touched",
    has_all: "no port is dead any more; hold ended, no route withdrawn",
    withdrawing: "withdrawing routes whose ports refuse connections",
};

/// Audits all routes at the interval of the current policy, the first time at once. Never ends.
pub async fn audit(registrar: Arc<Registrar>) {
    let (mut last, mut failing) = (None, false);
    let mut auditor = Auditor::new(registrar);
    loop {
        let registrar = Arc::clone(&auditor.registrar);
        let changed = registrar.reloaded.notified();
        let interval = registrar.live.load().audit_interval;
        let pause = if failing { interval.map(|interval| interval.min(RETRY)) } else { interval };
        let due = pause.map(|pause| last.map_or_else(Instant::now, |last| last + pause));
        tokio::select! {
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            () = changed => continue,
        }
        let begun = Instant::now();
        let outcome = auditor.round().await;
        registrar.metrics.count_round(outcome.is_ok());
        match &outcome {
            Ok(routes) if failing => info!(routes, "audit succeeds again"),
            Ok(routes) => debug!(routes, seconds = begun.elapsed().as_secs_f64(), "audit complete"),
            Err(error) if failing => debug!(%error, "audit failed; retrying"),
            Err(error) => warn!(%error, "audit failed; retrying"),
        }
        (last, failing) = (Some(begun), outcome.is_err());
    }
}

/// State kept from one audit to the next.
struct Auditor {
    registrar: Arc<Registrar>,
    history: History,
    guard: LoggedGuard,
}

/// A route that the address index should contain.
type IndexEntry = (GridRoute, Ownership);

impl Auditor {
    fn new(registrar: Arc<Registrar>) -> Self {
        let guard = LoggedGuard::new(registrar.live.load().dead_guard.clone(), &GUARD_MESSAGES);
        Self { registrar, history: History::default(), guard }
    }

    /// Audits each route once, and returns the number of routes.
    async fn round(&mut self) -> Result<usize, StoreError> {
        let policy = self.registrar.live.load_full();
        if self.guard.settings() != policy.dead_guard.as_ref() {
            self.guard = LoggedGuard::new(policy.dead_guard.clone(), &GUARD_MESSAGES);
        }
        // All routes of an audit get one time, so that ports which fail together are dead together, for the guard.
        let begun = Instant::now();
        let mut stored = read_stored_routes(&self.registrar.store).await?;
        let routes = std::mem::take(&mut stored.grid);
        let total = routes.len();
        let tools = routes.iter().map(|route| &route.tool).collect::<BTreeSet<_>>().len();
        self.history.keep_only(&routes);
        let mut scan = AuditScan::begin(routes, &self.history, Arc::clone(&policy));
        let (mut refusing, mut unindexed) = (Vec::new(), Vec::new());
        let mut outcome = Ok(total);
        while let Some((route, state)) = scan.next().await {
            let is_newly_unknown = self.history.note(&route, &state, begun);
            match self.judge(&route, &state, &policy, is_newly_unknown).await {
                Ok(Some(finding)) => self.registrar.metrics.count_finding(finding, 1),
                Ok(None) => refusing.push(route.clone()),
                Err(error) => outcome = Err(error),
            }
            match stored.missing(&route, &state, &policy) {
                // Proof may be outdated by the end of the audit.
                Some(entry @ (_, Ownership::Proven)) if stored.is_contested(&route) => {
                    outcome = self.index(entry).await.and(outcome);
                }
                Some((route, _)) => unindexed.push(route),
                None => {}
            }
        }
        self.registrar.metrics.unknown_owners.set(self.history.long_unknown() as i64);
        self.withdraw_dead(refusing, tools, begun, &policy).await?;
        self.repair(unindexed, &stored).await?;
        outcome
    }

    /// Classifies a route, and withdraws it if its port belongs to another user. `None` for a port that refuses connections:
    /// that is decided when all routes have been probed.
    async fn judge(
        &self,
        route: &GridRoute,
        state: &RouteState,
        policy: &Policy,
        is_newly_unknown: bool,
    ) -> Result<Option<AuditFinding>, StoreError> {
        let (tool, pattern, destination) = (route.tool.as_str(), route.pattern.as_str(), route.url.as_str());
        Ok(Some(match state {
            RouteState::OwnedBy(owner) if policy.is_own(route, owner) => AuditFinding::own,
            RouteState::OwnedBy(owner) if policy.is_foreign(route, owner) => {
                let withdrawn = self.withdraw(route).await?;
                if withdrawn {
                    warn!(tool, pattern, destination, owner, "route withdrawn; its port belongs to another user");
                }
                if withdrawn { AuditFinding::withdrawn } else { AuditFinding::changed }
            }
            RouteState::OwnedBy(owner) => {
                debug!(
                    tool,
                    pattern, destination, owner, "route kept; it has no origin and its port belongs to no tool"
                );
                AuditFinding::no_tools
            }
            RouteState::Refusing(reason) => {
                debug!(tool, pattern, destination, reason, "no server listens");
                return Ok(None);
            }
            RouteState::Busy(reason) => {
                debug!(tool, pattern, destination, reason, "server does not answer now; route kept");
                AuditFinding::backend_unreachable
            }
            RouteState::Unknown(reason) if is_newly_unknown => {
                let audits = UNKNOWN_AUDITS;
                warn!(tool, pattern, destination, audits, reason, "port owner unknown; route kept");
                AuditFinding::owner_unknown
            }
            RouteState::Unknown(reason) => {
                debug!(tool, pattern, destination, reason, "port owner unknown; route kept");
                AuditFinding::owner_unknown
            }
            RouteState::Outside => AuditFinding::outside,
            RouteState::NotReached => AuditFinding::not_reached,
        }))
    }

    /// Withdraws the routes whose ports are dead, unless that is so of most of the audited `tools`. The guard counts tools:
    /// one tool alone could have most of the routes.
    async fn withdraw_dead(
        &mut self,
        refusing: Vec<GridRoute>,
        tools: usize,
        begun: Instant,
        policy: &Policy,
    ) -> Result<(), StoreError> {
        let unix_now = clock::unix_time();
        let is_dead = |route: &GridRoute| {
            policy.dead_after.is_some_and(|dead_after| self.history.is_dead(route, dead_after, begun, unix_now))
        };
        let (dead, alive): (Vec<_>, Vec<_>) = refusing.into_iter().partition(is_dead);
        self.registrar.metrics.count_finding(AuditFinding::backend_unreachable, alive.len() as u64);
        let key_of = |route: &GridRoute| routes_key(route.tool.as_bytes());
        let keys: BTreeSet<Vec<u8>> = dead.iter().map(key_of).collect();
        let verdict = self.guard.judge(&keys.into_iter().collect::<Vec<_>>(), tools, Instant::now());
        let mut held = 0;
        for route in &dead {
            let finding = if !verdict.withdraws(&key_of(route)) {
                held += 1;
                AuditFinding::held
            } else if self.withdraw(route).await? {
                let (tool, pattern, destination) = (route.tool.as_str(), route.pattern.as_str(), route.url.as_str());
                let at_least = policy.dead_after;
                warn!(
                    tool,
                    pattern,
                    destination,
                    audits = DEAD_AUDITS,
                    ?at_least,
                    "route withdrawn; its port refuses connections"
                );
                AuditFinding::dead
            } else {
                AuditFinding::changed
            };
            self.registrar.metrics.count_finding(finding, 1);
        }
        self.registrar.metrics.held_dead.set(held);
        Ok(())
    }

    /// False if the route has changed since it was read.
    async fn withdraw(&self, route: &GridRoute) -> Result<bool, StoreError> {
        let withdrawal = self.registrar.store.commit(&registry::withdraw_if_unchanged(route)).await?;
        Ok(withdrawal == Withdrawal::Removed)
    }

    /// Enters the address of a route and its tool into the index.
    async fn index(&self, (route, ownership): IndexEntry) -> Result<(), StoreError> {
        let registration = self.registrar.store.commit(&registry::index_address(&route, ownership)).await?;
        if let Registration::Done { evicted: Some(evicted), .. } = registration {
            let (tool, destination) = (route.tool.as_str(), route.url.as_str());
            warn!(
                tool,
                destination, evicted, "another tool was routed to this address; its routes there are withdrawn"
            );
        }
        Ok(())
    }

    /// Adds missing entries to the address index, unless another tool has the address by now, and removes stale ones.
    async fn repair(&self, unindexed: Vec<GridRoute>, stored: &StoredRoutes) -> Result<(), StoreError> {
        let store = &self.registrar.store;
        let index = |route| self.index((route, Ownership::Unproven));
        let mut outcomes = stream::iter(unindexed).map(index).buffer_unordered(REPAIRS_AT_ONCE);
        while let Some(outcome) = outcomes.next().await {
            outcome?;
        }
        let release = async |(address, tool): (&String, ToolName)| {
            store.commit(&registry::unindex_address(&tool, address)).await.map(|_| ())
        };
        let mut outcomes = stream::iter(stored.stale()).map(release).buffer_unordered(REPAIRS_AT_ONCE);
        while let Some(outcome) = outcomes.next().await {
            outcome?;
        }
        Ok(())
    }
}

impl StoredRoutes {
    /// The entry that the index lacks for this route. An address belongs to its proven owner, else to the only tool that is
    /// routed there.
    fn missing(&self, route: &GridRoute, state: &RouteState, policy: &Policy) -> Option<IndexEntry> {
        let address = address_of(&route.backend);
        if self.index.get(&address).is_some_and(|tool| tool == route.tool.as_str()) {
            return None;
        }
        let is_proven =
            matches!(state, RouteState::OwnedBy(owner) if policy.tool_of(owner).as_ref() == Some(&route.tool));
        let is_only = self.tools_at.get(&address).is_some_and(|tools| tools.len() == 1);
        let ownership = if is_proven { Ownership::Proven } else { Ownership::Unproven };
        let is_foreign = matches!(state, RouteState::OwnedBy(owner) if policy.is_foreign(route, owner));
        (is_proven || is_only && !is_foreign).then(|| (route.clone(), ownership))
    }

    /// Whether other tools are routed to the same address.
    fn is_contested(&self, route: &GridRoute) -> bool {
        self.tools_at.get(&address_of(&route.backend)).is_some_and(|tools| tools.len() > 1)
    }

    /// Entries of the index whose tool is not routed to the address.
    fn stale(&self) -> impl Iterator<Item = (&String, ToolName)> {
        let is_routed =
            |address: &String, tool: &ToolName| self.tools_at.get(address).is_some_and(|tools| tools.contains(tool));
        self.index.iter().filter_map(move |(address, tool)| {
            let tool = ToolName::try_new(tool.as_bytes()).ok()?;
            (!is_routed(address, &tool)).then_some((address, tool))
        })
    }
}

impl Policy {
    /// Whether the owner of a port is the tool, or the user who registered the route.
    fn is_own(&self, route: &GridRoute, owner: &str) -> bool {
        let is_tool = owner.strip_prefix(self.project.as_str()).and_then(|rest| rest.strip_prefix('.'));
        is_tool == Some(route.tool.as_str())
            || route.registrant.as_ref().is_some_and(|registrant| registrant.owner == owner)
    }

    /// Whether the port's owner proves the route wrong. For a route without an origin, only another tool does.
    fn is_foreign(&self, route: &GridRoute, owner: &str) -> bool {
        !self.is_own(route, owner) && (route.registrant.is_some() || self.tool_of(owner).is_some())
    }
}
