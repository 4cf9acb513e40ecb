//! Keeps Redis in step with the cluster: one task that takes in events, and writes while it holds the lock.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until};
use tracing::{debug, info, warn};

use super::desired::{Desired, ObservedService, ServiceId};
use super::events::RejectionEvent;
use super::leader_lock::{Candidacy, HEARTBEAT_INTERVAL, Heartbeat};
use super::ledger::{Ledger, LedgerError};
use super::metrics::Metrics;
use super::notice_limiter::{NoticeLimiter, Quota};
use super::recheck_queue::RecheckQueue;
use super::service::ServiceRejection;
use super::watch::ClusterEvent;
use crate::backoff::Backoff;
use crate::daemon::{InvalidationListener, Readiness, StoreError};
use crate::registry::ROUTES_PREFIX;
use crate::route::ToolName;

/// The first and the longest delay between two attempts while Redis does not answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// The shortest time between two full comparisons, or five times as long as the last one took.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// Events that are taken in before the next write.
const MAX_EVENTS_PER_STEP: usize = 20_000;

/// What a [`Reconciler`] works with.
pub struct ReconcilerConfig {
    /// Events, each with the index of its selector.
    pub events: mpsc::Receiver<(usize, ClusterEvent)>,
    /// The number of selectors.
    pub selectors: usize,
    /// Reports keys that other writers changed.
    pub invalidations: InvalidationListener,
    /// The routes in Redis.
    pub ledger: Ledger,
    /// The time between full comparisons.
    pub resync_interval: Duration,
    /// Takes Events for maintainers.
    pub rejection_events: mpsc::Sender<RejectionEvent>,
    /// Set while Redis answers and the first complete lists are in it, or another replica leads.
    pub readiness: Readiness,
    pub metrics: Metrics,
}

/// Reconciles until `shutdown`, then releases the lock.
pub async fn reconcile(config: ReconcilerConfig, shutdown: impl Future<Output = ()>) {
    let now = Instant::now();
    let mut reconciler = Reconciler {
        desired: Desired::new(config.selectors),
        listing: (0..config.selectors).map(|_| None).collect(),
        failing: vec![false; config.selectors],
        disconnected_since: now,
        rejected: BTreeMap::new(),
        notice_limiter: NoticeLimiter::default(),
        store_failing: false,
        has_written: false,
        pause: Backoff::between(RETRY.0, RETRY.1),
        write_at: now,
        compare_at: now,
        compared: None,
        is_comparing: false,
        rechecks: RecheckQueue::new(now),
        is_heartbeat_due: false,
        config,
    };
    let mut heartbeats = tokio::time::interval(HEARTBEAT_INTERVAL);
    heartbeats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            () = reconciler.step(&mut heartbeats) => {}
        }
    }
    if let Err(error) = reconciler.config.ledger.release().await {
        debug!(%error, "lock not released; it expires by itself");
    }
}

struct Reconciler {
    config: ReconcilerConfig,
    desired: Desired,
    /// The incomplete list of each selector.
    listing: Vec<Option<Vec<(ServiceId, ObservedService)>>>,
    /// Whether the list or watch of each selector fails.
    failing: Vec<bool>,
    /// When the first of them began to fail.
    disconnected_since: Instant,
    /// Rejected Services.
    rejected: BTreeMap<ServiceId, Rejected>,
    notice_limiter: NoticeLimiter,
    store_failing: bool,
    has_written: bool,
    pause: Backoff,
    /// The earliest time of the next write.
    write_at: Instant,
    /// The time of the next full comparison.
    compare_at: Instant,
    /// When the last full comparison began, and when another may.
    compared: Option<(Instant, Instant)>,
    /// Updates found by the last comparison are still pending.
    is_comparing: bool,
    rechecks: RecheckQueue,
    /// Whether the next step checks the lock.
    is_heartbeat_due: bool,
}

/// A Service without a route.
struct Rejected {
    rejection: ServiceRejection,
    /// Whether it was logged and sent as an Event.
    is_reported: bool,
}

impl Reconciler {
    /// Waits until there is work, and does it. Not cancel safe: a canceled write may have happened.
    async fn step(&mut self, heartbeats: &mut Interval) {
        let is_waiting = self.config.ledger.has_lock() && self.config.ledger.is_pending() && self.desired.is_complete();
        let recheck_at = self.rechecks.next_at();
        tokio::select! {
            Some((selector, event)) = self.config.events.recv() => self.apply_event(selector, event),
            _ = heartbeats.tick() => self.is_heartbeat_due = true,
            // A comparison covers everything, and most invalidations meanwhile come from its own writes.
            () = self.config.invalidations.changed(), if !self.is_comparing => self.take_invalidations(),
            () = sleep_until(recheck_at.unwrap_or(self.write_at)), if recheck_at.is_some() => {}
            () = sleep_until(self.write_at), if is_waiting => {}
        }
        // A list arrives Service by Service; take in all of it before writing.
        for _ in 0..MAX_EVENTS_PER_STEP {
            let Some(Some((selector, event))) = self.config.events.recv().now_or_never() else { break };
            self.apply_event(selector, event);
        }
        let due = self.rechecks.take(Instant::now());
        due.changed.into_iter().for_each(|tool| self.config.ledger.note_changed(tool));
        due.written.into_iter().for_each(|tool| self.config.ledger.note_written(tool));
        if std::mem::take(&mut self.is_heartbeat_due) {
            self.heartbeat().await;
        }
        self.write().await;
    }

    fn apply_event(&mut self, selector: usize, event: ClusterEvent) {
        let (Some(listing), Some(failing)) = (self.listing.get_mut(selector), self.failing.get_mut(selector)) else {
            return;
        };
        match event {
            ClusterEvent::ListBegins => *listing = Some(Vec::new()),
            ClusterEvent::Listed(id, observed) => {
                if let Some(listing) = listing {
                    listing.push((id, observed));
                }
            }
            ClusterEvent::ListEnds => {
                let Some(listed) = listing.take() else { return };
                let was_failing = std::mem::take(failing);
                let was_complete = self.desired.is_complete();
                self.desired.replace(selector, listed);
                self.config.metrics.record_list();
                self.config.metrics.record_event();
                if self.failing.contains(&true) || !self.desired.is_complete() {
                    return;
                }
                if was_failing || !was_complete {
                    info!(services = self.desired.services().count(), "list complete; watching Services");
                }
                self.config.metrics.watching.set(1);
                self.compare_at = Instant::now();
                self.config.ledger.guard().resume(self.compare_at);
                self.is_heartbeat_due |= !self.config.ledger.has_lock();
                self.report_all_rejections();
            }
            ClusterEvent::Applied(id, observed) => {
                self.config.metrics.record_event();
                let before = self.desired.affected_tools(&id);
                self.desired.put(selector, id.clone(), observed);
                self.note_service_change(&id, before);
            }
            ClusterEvent::Deleted(id) => {
                self.config.metrics.record_event();
                let before = self.desired.affected_tools(&id);
                self.desired.remove(selector, &id);
                self.note_service_change(&id, before);
            }
            ClusterEvent::Failed(error) => {
                *listing = None;
                let is_new = !std::mem::replace(failing, true);
                if is_new && self.failing.iter().filter(|failing| **failing).count() == 1 {
                    self.disconnected_since = Instant::now();
                    warn!(%error, "watch failed; keeping existing routes");
                } else {
                    debug!(%error, selector, "watch still failing");
                }
                self.config.metrics.watch_failures.inc();
                self.config.metrics.watching.set(0);
                self.config.ledger.guard().pause();
            }
        }
    }

    /// Queues the tools affected by a changed Service: those from `before` the change, and those after it.
    fn note_service_change(&mut self, id: &ServiceId, before: Vec<ToolName>) {
        if !self.desired.is_complete() {
            return;
        }
        let tools: Vec<ToolName> = before.into_iter().chain(self.desired.affected_tools(id)).collect();
        let now = Instant::now();
        for tool in &tools {
            self.rechecks.note_changed(tool.clone(), now);
        }
        self.report_rejections(vec![id.clone()], tools);
    }

    /// Queues the tools with Services that other writers changed.
    fn take_invalidations(&mut self) {
        let invalidations = self.config.invalidations.take();
        if !self.config.ledger.has_lock() {
            // The next holder of the lock compares everything.
            return;
        }
        if let Some(at) = invalidations.everything {
            // A flush also removes the lock; the heartbeat detects that.
            self.is_heartbeat_due = true;
            if let Some((begun, may_repeat_at)) = self.compared.filter(|(begun, _)| *begun < at) {
                debug!(since = ?begun.elapsed(), "any key may have changed; comparing everything");
                self.compare_at = self.compare_at.min(may_repeat_at.max(Instant::now()));
            }
        }
        let now = Instant::now();
        let names = invalidations.keys.iter().filter_map(|key| key.strip_prefix(ROUTES_PREFIX.as_bytes()));
        for tool in names.filter_map(|name| ToolName::try_new(name).ok()).filter(|tool| self.desired.has(tool)) {
            self.rechecks.note_written(tool, now);
        }
    }

    fn report_all_rejections(&mut self) {
        let desired = &self.desired;
        let ids = desired.services().map(|(id, _)| id.clone()).chain(self.rejected.keys().cloned()).collect();
        let tools = desired.tools().cloned().collect();
        self.report_rejections(ids, tools);
    }

    /// Reports newly rejected Services among these and all Services of these tools.
    fn report_rejections(&mut self, ids: Vec<ServiceId>, tools: Vec<ToolName>) {
        if !self.config.ledger.has_lock() || !self.desired.is_complete() {
            return;
        }
        let desired = &self.desired;
        let mut rejections: BTreeMap<ServiceId, Option<ServiceRejection>> = ids
            .into_iter()
            .map(|id| {
                let rejection = desired.get(&id).and_then(|observed| observed.route.as_ref().err().cloned());
                (id, rejection)
            })
            .collect();
        for tool in tools {
            let found = desired.routes_of(&tool);
            let served = found.routes.into_iter().map(|(registered, ..)| (registered.namespace, registered.name));
            rejections.extend(served.map(|id| (id, None)));
            rejections.extend(found.superseded.into_iter().map(|(id, rejection)| (id, Some(rejection))));
        }
        for (id, rejection) in rejections {
            let Some(rejection) = rejection else {
                self.rejected.remove(&id);
                continue;
            };
            if self.rejected.get(&id).is_some_and(|known| known.is_reported && known.rejection == rejection) {
                continue;
            }
            let (namespace, service) = (&*id.0, &*id.1);
            let quota = self.notice_limiter.acquire(namespace, Instant::now());
            let is_reported = quota == Quota::Available;
            self.rejected.insert(id.clone(), Rejected { rejection: rejection.clone(), is_reported });
            if quota == Quota::JustExhausted {
                warn!(namespace, "many Services of one namespace not routed; the rest is logged after the next lists");
            }
            if !is_reported {
                continue;
            }
            warn!(namespace, service, reason = rejection.reason(), why = %rejection, "Service not routed");
            let uid = desired.get(&id).map(|observed| observed.uid.clone()).unwrap_or_default();
            if self.config.rejection_events.try_send(RejectionEvent { id, uid, rejection }).is_err() {
                debug!("Event dropped; the queue is full");
            }
        }
    }

    fn candidacy(&self) -> Candidacy {
        match (self.desired.is_complete(), self.failing.contains(&true)) {
            (false, _) => Candidacy::Unready,
            (true, false) => Candidacy::Watching,
            (true, true) => Candidacy::Disconnected(self.disconnected_since),
        }
    }

    fn note_readiness(&self) {
        let is_ready = if self.store_failing {
            false
        } else if self.config.ledger.has_lock() {
            self.has_written
        } else {
            self.desired.is_complete() && (self.has_written || self.config.ledger.is_standby())
        };
        self.config.readiness.set(is_ready);
    }

    /// Checks the lock and the withdrawal guard, and updates readiness and metrics.
    async fn heartbeat(&mut self) {
        let now = Instant::now();
        if self.config.ledger.is_hold_over(now) {
            self.compare_at = now;
        }
        let had_lock = self.config.ledger.has_lock();
        let candidacy = self.candidacy();
        let outcome = self.config.ledger.heartbeat(candidacy).await;
        let has_lock = self.config.ledger.has_lock();
        self.config.metrics.leading.set(i64::from(has_lock));
        let is_answered = outcome.is_ok();
        match outcome {
            Ok(Heartbeat::Unchanged) => {}
            Ok(Heartbeat::Acquired) => {
                info!("lock acquired; this replica writes routes");
                self.report_all_rejections();
            }
            Ok(Heartbeat::Reacquired) => warn!("lock missing in Redis, as after a flush; rewriting all routes"),
            Ok(Heartbeat::Lost(holder)) => warn!(holder, "lock lost; another kube2proxy writes to this Redis"),
            Ok(Heartbeat::StandingBy(holder)) => info!(holder, "standing by; another kube2proxy writes to this Redis"),
            Ok(Heartbeat::StandingByLegacy(holder)) => {
                warn!(holder, "standing by; a kube2proxy of an earlier version writes to this Redis");
            }
            Ok(Heartbeat::SteppedDown) => warn!("watch still failing; releasing the lock for another replica"),
            Err(error) => {
                self.note_failed(&error);
                if had_lock && !has_lock {
                    warn!("lock lost; Redis has not renewed it");
                }
            }
        }
        // A standby has no write that would report this.
        if is_answered && !has_lock && std::mem::take(&mut self.store_failing) {
            info!("Redis answers again");
        }
        self.note_readiness();
        self.report();
    }

    /// Writes a batch of the pending updates. The next step continues, so new events do not wait for all of them.
    async fn write(&mut self) {
        let now = Instant::now();
        let ledger = &mut self.config.ledger;
        if !self.desired.is_complete() || !ledger.has_lock() || now < self.write_at {
            return;
        }
        let desired = &self.desired;
        let is_due = ledger.is_unknown() || now >= self.compare_at && !self.is_comparing;
        let outcome = async {
            if is_due {
                ledger.compare(desired, now).await?;
            }
            ledger.apply(desired).await
        };
        match outcome.await {
            Ok(()) => {
                self.pause.reset();
                if is_due {
                    self.rechecks.clear();
                    self.compare_at = now + self.config.resync_interval;
                    self.compared = Some((now, now + MIN_INTERVAL));
                    self.is_comparing = true;
                }
                if !self.config.ledger.is_pending() {
                    self.has_written = true;
                    let finished = self.compared.as_mut().filter(|_| std::mem::take(&mut self.is_comparing));
                    if let Some((begun, may_repeat_at)) = finished {
                        *may_repeat_at = Instant::now() + MIN_INTERVAL.max(begun.elapsed() * 5);
                    }
                }
                if std::mem::take(&mut self.store_failing) {
                    info!("Redis writes succeed again");
                }
            }
            Err(LedgerError::Store(error)) => self.note_failed(&error),
            Err(LedgerError::Refused) => {
                debug!(error = %LedgerError::Refused, "write refused; checking the lock");
                self.config.ledger.forget();
                self.write_at = Instant::now() + self.pause.next_delay();
                self.is_heartbeat_due = true;
            }
        }
        self.note_readiness();
    }

    /// After a failed request it is unknown whether Redis has the write.
    fn note_failed(&mut self, error: &StoreError) {
        self.config.ledger.forget();
        self.write_at = Instant::now() + self.pause.next_delay();
        if std::mem::replace(&mut self.store_failing, true) {
            debug!(%error, "Redis request failed again");
        } else {
            warn!(%error, "Redis request failed; retrying");
        }
    }

    fn report(&self) {
        if !self.desired.is_complete() {
            return;
        }
        let desired = &self.desired;
        let metrics = &self.config.metrics;
        let rejected = desired.services().filter_map(|(_, observed)| observed.route.as_ref().err());
        let superseded =
            self.rejected.values().map(|known| &known.rejection).filter(|rejection| rejection.is_superseded());
        let reasons: Vec<_> = rejected.chain(superseded).map(ServiceRejection::reason).collect();
        let (overridden, failing) = (self.config.ledger.overridden(), self.config.ledger.failing());
        metrics.set_services("rejected", reasons.len());
        metrics.set_services("outdone", overridden);
        metrics.set_services("failing", failing);
        metrics.set_services("held", self.config.ledger.held());
        metrics.set_services("routed", desired.services().count().saturating_sub(reasons.len() + overridden + failing));
        metrics.set_rejected(reasons.into_iter());
    }
}
