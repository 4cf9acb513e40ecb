//! The cluster's routes in Redis: compares them with the desired routes and writes the differences, tool by tool.

use std::collections::{BTreeMap, BTreeSet};

use redis::{FromRedisValue, RedisResult, Value};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::desired::{Desired, push_one};
use super::leader_lock::{Candidacy, Heartbeat, LeaderLock};
use super::metrics::Metrics;
use crate::daemon::{LoggedGuard, Reading, Store, StoreError, is_wrong_type};
use crate::registry::{
    self, Applied, CLUSTER, Claim, ClaimOutcome, LOCK_KEY, OLD_LOCK_KEY, Origin, Registered, SERVICES_KEY, ToolChanges,
};
use crate::route::ToolName;

/// Tools in one round trip: some milliseconds of Redis, which the next change waits for.
const MAX_TOOLS_PER_ROUND_TRIP: usize = 100;
/// For more tools than these the log has one line with their number.
const BULK: usize = 100;
/// Why updates stay pending.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Redis failed; the write may have happened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another replica may write; nothing was written.
    #[error("this replica no longer holds the lock; {LOCK_KEY} or {OLD_LOCK_KEY} names the holder")]
    Refused,
}

/// The cluster's routes in Redis, as far as known.
#[derive(Debug)]
pub struct Ledger {
    store: Store,
    lock: LeaderLock,
    host: String,
    metrics: Metrics,
    guard: LoggedGuard,
    /// `None` while the content of Redis is unknown.
    registered: Option<BTreeMap<ToolName, Vec<Registered>>>,
    /// The number of the connection over which `registered` was read. A later one may lead to a new master, which may lack writes
    /// that the former one confirmed.
    read_over: u64,
    /// Tools with changed Services, and when that was noted. These are written first.
    changed: BTreeMap<ToolName, Instant>,
    /// Other tools with routes that may differ, and when that was noted.
    doubtful: BTreeMap<ToolName, Instant>,
    /// The number of routes written without a log line of their own.
    bulk: Option<usize>,
    /// Routes missing from the cluster that the withdrawal guard holds.
    held: BTreeSet<Registered>,
    /// Routes that lost to a more recent registration of another source.
    overridden: BTreeMap<ToolName, BTreeSet<Registered>>,
    /// Tools with keys of a wrong type, each logged once.
    failing: BTreeSet<ToolName>,
}

impl Ledger {
    /// A ledger of unknown content. `lock` is not held; `host` is this machine's name, for origins.
    pub fn new(store: Store, lock: LeaderLock, host: String, guard: LoggedGuard, metrics: Metrics) -> Self {
        Self {
            store,
            lock,
            host,
            metrics,
            guard,
            registered: None,
            read_over: 0,
            changed: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            bulk: None,
            held: BTreeSet::new(),
            overridden: BTreeMap::new(),
            failing: BTreeSet::new(),
        }
    }

    /// Queues a tool with changed Services.
    pub fn note_changed(&mut self, tool: ToolName) {
        self.changed.entry(tool).or_insert_with(Instant::now);
    }

    /// Queues a tool with routes that another writer may have changed.
    pub fn note_written(&mut self, tool: ToolName) {
        self.doubtful.entry(tool).or_insert_with(Instant::now);
    }

    /// The content of Redis is unknown until the next comparison.
    pub fn forget(&mut self) {
        self.registered = None;
    }

    /// Whether a comparison must come first.
    pub fn is_unknown(&self) -> bool {
        self.registered.is_none() || self.read_over != self.store.connections()
    }

    /// Whether there is something to compare or to write.
    pub fn is_pending(&self) -> bool {
        self.is_unknown() || !self.changed.is_empty() || !self.doubtful.is_empty()
    }

    /// Whether the withdrawal guard's hold has ended.
    pub fn is_hold_over(&mut self, now: Instant) -> bool {
        self.guard.is_over(now)
    }

    /// The number of held routes.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The number of routes that another program registered this tool and pattern more recently.
    pub fn overridden(&self) -> usize {
        self.overridden.values().map(BTreeSet::len).sum()
    }

    /// The number of tools with keys of a wrong type.
    pub fn failing(&self) -> usize {
        self.failing.len()
    }

    pub fn guard(&mut self) -> &mut LoggedGuard {
        &mut self.guard
    }

    /// Reads the registered routes, lets the withdrawal guard judge those missing from the cluster, and queues every tool.
    pub async fn compare(&mut self, desired: &Desired, now: Instant) -> Result<(), LedgerError> {
        let mut command = redis::cmd("SMEMBERS");
        command.arg(SERVICES_KEY);
        let members: Vec<Vec<u8>> = self.store.commit(&Reading::new(command)).await?;
        let mut registered: BTreeMap<ToolName, Vec<Registered>> = BTreeMap::new();
        for member in members.iter().filter_map(|member| Registered::parse(std::str::from_utf8(member).ok()?)) {
            if let Ok(tool) = ToolName::try_new(member.name.as_bytes()) {
                push_one(registered.entry(tool).or_default(), member);
            }
        }
        let mut missing = BTreeSet::new();
        for (tool, members) in &registered {
            let routes = desired.routes_of(tool).routes;
            let lacks = |member: &&Registered| !routes.iter().any(|(wanted, ..)| wanted == *member);
            missing.extend(members.iter().filter(lacks).cloned());
        }
        let live = registered.values().map(Vec::len).sum();
        let key = |member: &Registered| registry::routes_key(member.name.as_bytes());
        let keys: Vec<Vec<u8>> = missing.iter().map(key).collect();
        let verdict = self.guard.judge(&keys, live, now);
        self.held = missing.into_iter().filter(|member| !verdict.withdraws(&key(member))).collect();
        for tool in desired.tools().chain(registered.keys()) {
            self.doubtful.entry(tool.clone()).or_insert(now);
        }
        // A tool with overridden routes and no Service left may still have registrations to remove.
        for tool in self.overridden.keys() {
            self.doubtful.entry(tool.clone()).or_insert(now);
        }
        self.failing.retain(|tool| desired.has(tool));
        self.registered = Some(registered);
        self.read_over = self.store.connections();
        Ok(())
    }

    /// Writes the differences of a batch of tools, first of those with changed Services, while the lock is held. Others may
    /// still be [pending](Self::is_pending), and stay so after an error.
    pub async fn apply(&mut self, desired: &Desired) -> Result<(), LedgerError> {
        if self.changed.is_empty() && self.doubtful.is_empty() {
            return Ok(());
        }
        if !self.lock.renew(&self.store).await? {
            return Err(LedgerError::Refused);
        }
        let held = self.lock.held().ok_or(LedgerError::Refused)?;
        let are_many_changed = self.changed.len() > BULK;
        if are_many_changed || self.doubtful.len() > BULK {
            self.bulk.get_or_insert_default();
        }
        let is_bulk = self.bulk.is_some();
        let changed = self.changed.keys().map(|tool| (tool, are_many_changed));
        let others = self.doubtful.keys().filter(|tool| !self.changed.contains_key(*tool)).map(|tool| (tool, is_bulk));
        let update = |(tool, is_bulk)| (self.update(tool, desired), is_bulk);
        let updates: Vec<(ToolUpdate, bool)> =
            changed.chain(others).take(MAX_TOOLS_PER_ROUND_TRIP).map(update).collect();
        let settlements: Vec<ToolChanges<'_>> = updates
            .iter()
            .map(|(update, _)| ToolChanges { tool: &update.tool, claims: &update.claims, gone: &update.gone })
            .collect();
        let replies = Reading::<_, Vec<RedisResult<Value>>>::new(registry::apply(&settlements, held));
        let mut replies = self.store.commit(&replies).await?.into_iter();
        // The reply to loading the script.
        replies.next().transpose().map_err(StoreError::from)?;
        for ((update, is_bulk), reply) in updates.into_iter().zip(replies) {
            match reply.and_then(|reply| Ok(Applied::from_redis_value(reply)?)) {
                Ok(Applied::Refused) => return Err(LedgerError::Refused),
                Ok(Applied::Done(outcomes)) => self.note(update, outcomes, is_bulk),
                // Only this tool's keys have a wrong type; other tools continue.
                Err(error) if is_wrong_type(&error) => self.note_failing(&update.tool, &error),
                Err(error) => return Err(StoreError::from(error).into()),
            }
        }
        if self.changed.is_empty()
            && self.doubtful.is_empty()
            && let Some(routes @ 1..) = self.bulk.take()
        {
            info!(routes, "routes registered");
        }
        Ok(())
    }

    /// Removes a tool from the pending ones. Returns when it was noted.
    fn remove(&mut self, tool: &ToolName) -> Option<Instant> {
        [self.changed.remove(tool), self.doubtful.remove(tool)].into_iter().flatten().min()
    }

    fn update(&self, tool: &ToolName, desired: &Desired) -> ToolUpdate {
        let routes = desired.routes_of(tool).routes;
        let registered = self.registered.as_ref().and_then(|registered| registered.get(tool));
        let overridden = self.overridden.get(tool).into_iter().flatten();
        let known: BTreeSet<&Registered> = registered.into_iter().flatten().chain(overridden).collect();
        let is_gone =
            |member: &Registered| !self.held.contains(member) && !routes.iter().any(|(wanted, ..)| wanted == member);
        let gone = known.into_iter().filter(|member| is_gone(member)).cloned().collect();
        let claim = |(registered, url, since): &(Registered, String, u64)| {
            let (owner, host) = (registered.owner(), self.host.clone());
            let origin = Origin {
                source: CLUSTER.into(),
                owner: owner.clone(),
                host,
                since: *since,
                destination: Some(url.clone()),
            };
            Claim {
                pattern: registered.pattern.clone(),
                url: url.clone(),
                // Strings and numbers always serialize.
                origin: serde_json::to_string(&origin).unwrap_or_default(),
                owner,
                member: registered.to_string(),
                since: *since,
            }
        };
        let claims = routes.iter().map(claim).collect();
        ToolUpdate {
            tool: tool.clone(),
            members: routes.into_iter().map(|(registered, ..)| registered).collect(),
            claims,
            gone,
        }
    }

    fn note(&mut self, update: ToolUpdate, outcomes: Vec<ClaimOutcome>, is_bulk: bool) {
        let changed_at = self.remove(&update.tool);
        let tool = update.tool.as_str();
        let registered = self.registered.get_or_insert_default().entry(update.tool.clone()).or_default();
        let mut overridden = self.overridden.remove(&update.tool).unwrap_or_default();
        for gone in &update.gone {
            overridden.remove(gone);
            if take_from(registered, gone) {
                info!(tool, service = gone.owner(), pattern = gone.pattern, "route withdrawn");
                self.metrics.withdrawn.inc();
            }
        }
        for ((member, claim), outcome) in update.members.into_iter().zip(&update.claims).zip(outcomes) {
            let (service, pattern, destination) = (&*claim.owner, &*claim.pattern, &*claim.url);
            match outcome {
                ClaimOutcome::Unchanged => {}
                ClaimOutcome::Written { evicted } => {
                    if let Some(evicted) = evicted {
                        warn!(
                            tool,
                            service,
                            destination,
                            evicted,
                            "another tool was routed to this address; its routes there are withdrawn"
                        );
                    }
                    if is_bulk {
                        *self.bulk.get_or_insert_default() += 1;
                        debug!(tool, service, pattern, destination, "route registered");
                    } else {
                        info!(tool, service, pattern, destination, "route registered");
                    }
                    self.metrics.written.inc();
                    if let Some(changed_at) = changed_at {
                        self.metrics.writes.observe(changed_at.elapsed().as_secs_f64());
                    }
                }
                ClaimOutcome::Overridden => {
                    if overridden.insert(member.clone()) {
                        info!(
                            tool,
                            service,
                            pattern,
                            "route not registered; another program registered this tool and pattern more recently"
                        );
                    }
                    take_from(registered, &member);
                    continue;
                }
            }
            overridden.remove(&member);
            if !registered.contains(&member) {
                push_one(registered, member);
            }
        }
        if registered.is_empty() {
            self.registered.get_or_insert_default().remove(&update.tool);
        }
        if !overridden.is_empty() {
            self.overridden.insert(update.tool.clone(), overridden);
        }
        self.failing.remove(&update.tool);
    }

    /// Gives up on a tool until the next comparison.
    fn note_failing(&mut self, tool: &ToolName, error: &redis::RedisError) {
        self.remove(tool);
        if self.failing.insert(tool.clone()) {
            warn!(tool = tool.as_str(), %error, "routes not registered; retrying at the next resync");
        }
    }

    /// Checks the lock. After acquiring it, the content of Redis is unknown.
    pub async fn heartbeat(&mut self, candidacy: Candidacy) -> Result<Heartbeat, StoreError> {
        let heartbeat = self.lock.heartbeat(&self.store, candidacy).await;
        match &heartbeat {
            Ok(Heartbeat::Acquired) => {
                self.forget();
                self.changed.clear();
                self.doubtful.clear();
                self.bulk = None;
                self.overridden.clear();
                self.guard.forget();
            }
            Ok(Heartbeat::Unchanged) => {}
            _ => self.forget(),
        }
        heartbeat
    }

    /// Whether this replica holds the lock, as of the last check.
    pub fn has_lock(&self) -> bool {
        self.lock.held().is_some()
    }

    /// Whether another replica holds the lock, as of the last check.
    pub fn is_standby(&self) -> bool {
        self.lock.is_held_by_other()
    }

    /// Releases the lock, so that another replica can write at once.
    pub async fn release(&mut self) -> Result<(), StoreError> {
        self.lock.release(&self.store).await
    }
}

/// Removes a registration. Returns whether it existed.
fn take_from(registered: &mut Vec<Registered>, member: &Registered) -> bool {
    let index = registered.iter().position(|known| known == member);
    index.map(|index| registered.swap_remove(index)).is_some()
}

/// The writes for one tool.
struct ToolUpdate {
    tool: ToolName,
    /// The registration of each claim.
    members: Vec<Registered>,
    claims: Vec<Claim>,
    gone: Vec<Registered>,
}
