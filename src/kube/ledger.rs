//! What Redis has of the cluster's routes, and settling what differs, tool by tool.

use std::collections::{BTreeMap, BTreeSet};

use redis::{FromRedisValue, RedisResult, Value};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::desired::{Desired, push_one};
use super::lock::{Beat, Candidacy, Lock};
use super::metrics::Metrics;
use crate::daemon::{LoggedGuard, Reading, Store, StoreError, is_wrong_type};
use crate::registry::{
    self, CLUSTER, Claim, ClaimOutcome, LOCK_KEY, OLD_LOCK_KEY, Origin, Registered, SERVICES_KEY, Settled, Settlement,
};
use crate::route::ToolName;

/// Tools that are settled with one round trip: some milliseconds of Redis, for which a change waits.
const AT_ONCE: usize = 100;
/// More tools than these are told of in one line.
const BULK: usize = 100;
/// Why not everything is settled.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// It is not known what was done.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing was done: somebody else may write.
    #[error("this replica has not the lock any more, {LOCK_KEY} and {OLD_LOCK_KEY} say who has")]
    Refused,
}

/// The routes in Redis that are the cluster's, as far as they are known.
#[derive(Debug)]
pub struct Ledger {
    store: Store,
    lock: Lock,
    host: String,
    metrics: Metrics,
    guard: LoggedGuard,
    /// `None` when Redis may have anything.
    registered: Option<BTreeMap<ToolName, Vec<Registered>>>,
    /// Tools whose Services have changed, and since when that is known. They are settled first.
    changed: BTreeMap<ToolName, Instant>,
    /// Others whose routes may differ, and since when that is known.
    doubtful: BTreeMap<ToolName, Instant>,
    /// Routes that were written and not told of one by one, since there are many.
    bulk: Option<usize>,
    /// The cluster lacks them, and too many to be believed.
    held: BTreeSet<Registered>,
    /// Another source's route is younger.
    outdone: BTreeMap<ToolName, BTreeSet<Registered>>,
    /// Tools whose keys are none of ours, told of once.
    failing: BTreeSet<ToolName>,
}

impl Ledger {
    /// Knows nothing yet. `lock` is not held, `host` is where this runs.
    pub fn new(store: Store, lock: Lock, host: String, guard: LoggedGuard, metrics: Metrics) -> Self {
        Self {
            store,
            lock,
            host,
            metrics,
            guard,
            registered: None,
            changed: BTreeMap::new(),
            doubtful: BTreeMap::new(),
            bulk: None,
            held: BTreeSet::new(),
            outdone: BTreeMap::new(),
            failing: BTreeSet::new(),
        }
    }

    /// A tool's Services have changed.
    pub fn note_changed(&mut self, tool: ToolName) {
        self.changed.entry(tool).or_insert_with(Instant::now);
    }

    /// Somebody has written a tool's routes.
    pub fn note_written(&mut self, tool: ToolName) {
        self.doubtful.entry(tool).or_insert_with(Instant::now);
    }

    /// Redis may have anything.
    pub fn forget(&mut self) {
        self.registered = None;
    }

    /// Whether only a comparison can tell what is to do.
    pub fn is_unknown(&self) -> bool {
        self.registered.is_none()
    }

    /// Whether there is something to do.
    pub fn is_pending(&self) -> bool {
        self.registered.is_none() || !self.changed.is_empty() || !self.doubtful.is_empty()
    }

    /// Whether what is held need not be held any longer.
    pub fn is_hold_over(&mut self, now: Instant) -> bool {
        self.guard.is_over(now)
    }

    /// Routes that stay although the cluster lacks them.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Routes that another source has.
    pub fn outdone(&self) -> usize {
        self.outdone.values().map(BTreeSet::len).sum()
    }

    /// Tools whose keys are none of ours.
    pub fn failing(&self) -> usize {
        self.failing.len()
    }

    /// What the guard holds: see [`LoggedGuard`].
    pub fn guard(&mut self) -> &mut LoggedGuard {
        &mut self.guard
    }

    /// Reads what is registered, and finds what may differ: everything.
    ///
    /// # Errors
    /// The store's.
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
        // What is outdone and wanted no more is withdrawn with its tool, in so far as it still is there.
        for tool in self.outdone.keys() {
            self.doubtful.entry(tool.clone()).or_insert(now);
        }
        self.failing.retain(|tool| desired.has(tool));
        self.registered = Some(registered);
        Ok(())
    }

    /// Writes what differs, while the lock is held, of some tools: first of those whose Services have changed, then of others.
    /// More may be [pending](Self::is_pending) then.
    ///
    /// # Errors
    /// What is left to do stays so.
    pub async fn settle(&mut self, desired: &Desired) -> Result<(), LedgerError> {
        if self.changed.is_empty() && self.doubtful.is_empty() {
            return Ok(());
        }
        if !self.lock.prolong(&self.store).await? {
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
        let plan = |(tool, is_bulk)| (self.plan(tool, desired), is_bulk);
        let plans: Vec<(Plan, bool)> = changed.chain(others).take(AT_ONCE).map(plan).collect();
        let settlements: Vec<Settlement<'_>> = plans
            .iter()
            .map(|(plan, _)| Settlement { tool: &plan.tool, claims: &plan.claims, gone: &plan.gone })
            .collect();
        let replies = Reading::<_, Vec<RedisResult<Value>>>::new(registry::settle(&settlements, held));
        let mut replies = self.store.commit(&replies).await?.into_iter();
        // That of loading the script.
        replies.next().transpose().map_err(StoreError::from)?;
        for ((plan, is_bulk), reply) in plans.into_iter().zip(replies) {
            match reply.and_then(|reply| Ok(Settled::from_redis_value(reply)?)) {
                Ok(Settled::Refused) => return Err(LedgerError::Refused),
                Ok(Settled::Done(outcomes)) => self.note(plan, outcomes, is_bulk),
                // Its keys are none of ours, which is no other tool's trouble.
                Err(error) if is_wrong_type(&error) => self.note_failing(&plan.tool, &error),
                Err(error) => return Err(StoreError::from(error).into()),
            }
        }
        if self.changed.is_empty()
            && self.doubtful.is_empty()
            && let Some(routes @ 1..) = self.bulk.take()
        {
            info!(routes, "registered");
        }
        Ok(())
    }

    /// It is settled, or cannot be. Returns since when it was not.
    fn remove(&mut self, tool: &ToolName) -> Option<Instant> {
        [self.changed.remove(tool), self.doubtful.remove(tool)].into_iter().flatten().min()
    }

    fn plan(&self, tool: &ToolName, desired: &Desired) -> Plan {
        let routes = desired.routes_of(tool).routes;
        let registered = self.registered.as_ref().and_then(|registered| registered.get(tool));
        let outdone = self.outdone.get(tool).into_iter().flatten();
        let known: BTreeSet<&Registered> = registered.into_iter().flatten().chain(outdone).collect();
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
                // Strings and numbers always are JSON.
                origin: serde_json::to_string(&origin).unwrap_or_default(),
                owner,
                member: registered.to_string(),
                since: *since,
            }
        };
        let claims = routes.iter().map(claim).collect();
        Plan {
            tool: tool.clone(),
            members: routes.into_iter().map(|(registered, ..)| registered).collect(),
            claims,
            gone,
        }
    }

    fn note(&mut self, plan: Plan, outcomes: Vec<ClaimOutcome>, is_bulk: bool) {
        let heard = self.remove(&plan.tool);
        let tool = plan.tool.as_str();
        let registered = self.registered.get_or_insert_default().entry(plan.tool.clone()).or_default();
        let mut outdone = self.outdone.remove(&plan.tool).unwrap_or_default();
        for gone in &plan.gone {
            outdone.remove(gone);
            if take_from(registered, gone) {
                info!(tool, service = gone.owner(), pattern = gone.pattern, "withdrawn");
                self.metrics.withdrawn.inc();
            }
        }
        for ((member, claim), outcome) in plan.members.into_iter().zip(&plan.claims).zip(outcomes) {
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
                        debug!(tool, service, pattern, destination, "registered");
                    } else {
                        info!(tool, service, pattern, destination, "registered");
                    }
                    self.metrics.written.inc();
                    if let Some(heard) = heard {
                        self.metrics.writes.observe(heard.elapsed().as_secs_f64());
                    }
                }
                ClaimOutcome::Outdone => {
                    if outdone.insert(member.clone()) {
                        info!(tool, service, pattern, "not registered: another source's route is younger");
                    }
                    take_from(registered, &member);
                    continue;
                }
            }
            outdone.remove(&member);
            if !registered.contains(&member) {
                push_one(registered, member);
            }
        }
        if registered.is_empty() {
            self.registered.get_or_insert_default().remove(&plan.tool);
        }
        if !outdone.is_empty() {
            self.outdone.insert(plan.tool.clone(), outdone);
        }
        self.failing.remove(&plan.tool);
    }

    /// The next comparison tries again.
    fn note_failing(&mut self, tool: &ToolName, error: &redis::RedisError) {
        self.remove(tool);
        if self.failing.insert(tool.clone()) {
            warn!(tool = tool.as_str(), %error, "not registered");
        }
    }

    /// Looks after the lock. When it is taken, or taken again, nothing is known of Redis any more.
    ///
    /// # Errors
    /// The store's.
    pub async fn beat(&mut self, candidacy: Candidacy) -> Result<Beat, StoreError> {
        let beat = self.lock.beat(&self.store, candidacy).await;
        match &beat {
            Ok(Beat::Taken) => {
                self.forget();
                self.changed.clear();
                self.doubtful.clear();
                self.bulk = None;
                self.outdone.clear();
                self.guard.forget();
            }
            Ok(Beat::Same) => {}
            _ => self.forget(),
        }
        beat
    }

    /// Whether this replica may write, as far as it knows.
    pub fn has_lock(&self) -> bool {
        self.lock.held().is_some()
    }

    /// Whether another may.
    pub fn stands_by(&self) -> bool {
        self.lock.is_anothers()
    }

    /// Lets another write at once.
    ///
    /// # Errors
    /// The store's.
    pub async fn release(&mut self) -> Result<(), StoreError> {
        self.lock.release(&self.store).await
    }
}

/// Whether it was there.
fn take_from(registered: &mut Vec<Registered>, member: &Registered) -> bool {
    let index = registered.iter().position(|known| known == member);
    index.map(|index| registered.swap_remove(index)).is_some()
}

/// What is to be done about a tool.
struct Plan {
    tool: ToolName,
    /// Of each claim.
    members: Vec<Registered>,
    claims: Vec<Claim>,
    gone: Vec<Registered>,
}
