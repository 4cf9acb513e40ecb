//! Keeps Redis in step with the cluster: one task that takes in news, and writes while it leads.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until};
use tracing::{debug, info, warn};

use super::allowance::{Allowance, Spent};
use super::desired::{Desired, Seen, ServiceId};
use super::events::Notice;
use super::ledger::{Ledger, LedgerError};
use super::lock::{BEAT, Beat, Candidacy};
use super::metrics::Metrics;
use super::recheck::Rechecks;
use super::service::Rejection;
use super::watch::News;
use crate::backoff::Backoff;
use crate::daemon::{InvalidationListener, Readiness, StoreError};
use crate::registry::ROUTES_PREFIX;
use crate::route::ToolName;

/// Between two tries when Redis does not answer, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// At least so long, and five times as long as the last took, lies between two comparisons, whatever others do.
const REST: Duration = Duration::from_secs(1);
/// News that are taken in before it is written what they say.
const AT_ONCE: usize = 20_000;

/// What a follower is made of.
pub struct Parts {
    /// Where news come from, with the number of the selector that they are of.
    pub news: mpsc::Receiver<(usize, News)>,
    /// How many selectors there are.
    pub selectors: usize,
    /// Who hears what others write.
    pub invalidations: InvalidationListener,
    /// Where they go.
    pub ledger: Ledger,
    /// Everything is compared this often.
    pub resync_interval: Duration,
    /// Who tells maintainers.
    pub notices: mpsc::Sender<Notice>,
    /// Set while Redis answers and has what the first complete list said, or somebody else sees to it.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Metrics,
}

/// Follows the cluster until `shutdown`; then lets another write.
pub async fn follow(parts: Parts, shutdown: impl Future<Output = ()>) {
    let now = Instant::now();
    let mut follower = Follower {
        desired: Desired::new(parts.selectors),
        listing: (0..parts.selectors).map(|_| None).collect(),
        failing: vec![false; parts.selectors],
        deaf_since: now,
        rejected: BTreeMap::new(),
        allowance: Allowance::default(),
        store_failing: false,
        has_written: false,
        pause: Backoff::between(RETRY.0, RETRY.1),
        write_at: now,
        compare_at: now,
        compared: None,
        is_comparing: false,
        rechecks: Rechecks::new(now),
        is_beat_due: false,
        parts,
    };
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            () = follower.turn(&mut beats) => {}
        }
    }
    if let Err(error) = follower.parts.ledger.release().await {
        debug!(%error, "others may write only when the lock has expired");
    }
}

struct Follower {
    parts: Parts,
    /// Complete when there was a list by each selector.
    desired: Desired,
    /// By selector: a list that is not complete.
    listing: Vec<Option<Vec<(ServiceId, Seen)>>>,
    /// By selector: neither lists nor watches.
    failing: Vec<bool>,
    /// Since when one of them is.
    deaf_since: Instant,
    /// Services that are known to be rejected.
    rejected: BTreeMap<ServiceId, Rejected>,
    /// How much of that there may be.
    allowance: Allowance,
    store_failing: bool,
    has_written: bool,
    pause: Backoff,
    /// Not before this.
    write_at: Instant,
    /// All is compared then.
    compare_at: Instant,
    /// When the last comparison began, and when another may.
    compared: Option<(Instant, Instant)>,
    /// That comparison is not settled yet.
    is_comparing: bool,
    rechecks: Rechecks,
    /// The lock is to be looked at now.
    is_beat_due: bool,
}

/// Why a Service is no route.
struct Rejected {
    rejection: Rejection,
    /// The log and an Event say so.
    is_told: bool,
}

impl Follower {
    /// Waits until there is something to do, and does it. Given up in the middle, it does not know what it has done.
    async fn turn(&mut self, beats: &mut Interval) {
        let is_waiting = self.parts.ledger.has_lock() && self.parts.ledger.is_pending() && self.desired.is_complete();
        let recheck_at = self.rechecks.next_at();
        tokio::select! {
            Some((selector, news)) = self.parts.news.recv() => self.take_in(selector, news),
            _ = beats.tick() => self.is_beat_due = true,
            // A comparison looks at everything, and much of what is heard then is what it writes.
            () = self.parts.invalidations.changed(), if !self.is_comparing => self.hear(),
            () = sleep_until(recheck_at.unwrap_or(self.write_at)), if recheck_at.is_some() => {}
            () = sleep_until(self.write_at), if is_waiting => {}
        }
        // A list comes one by one, and is written as a whole.
        for _ in 0..AT_ONCE {
            let Some(Some((selector, news))) = self.parts.news.recv().now_or_never() else { break };
            self.take_in(selector, news);
        }
        let due = self.rechecks.take(Instant::now());
        due.changed.into_iter().for_each(|tool| self.parts.ledger.note_changed(tool));
        due.written.into_iter().for_each(|tool| self.parts.ledger.note_written(tool));
        if std::mem::take(&mut self.is_beat_due) {
            self.beat().await;
        }
        self.write().await;
    }

    fn take_in(&mut self, selector: usize, news: News) {
        let (Some(listing), Some(failing)) = (self.listing.get_mut(selector), self.failing.get_mut(selector)) else {
            return;
        };
        match news {
            News::ListBegins => *listing = Some(Vec::new()),
            News::Listed(id, seen) => {
                if let Some(listing) = listing {
                    listing.push((id, seen));
                }
            }
            News::ListEnds => {
                let Some(listed) = listing.take() else { return };
                let was_failing = std::mem::take(failing);
                let was_complete = self.desired.is_complete();
                self.desired.replace(selector, listed);
                self.parts.metrics.listed();
                self.parts.metrics.heard();
                if self.failing.contains(&true) || !self.desired.is_complete() {
                    return;
                }
                if was_failing || !was_complete {
                    info!(services = self.desired.services().count(), "watching");
                }
                self.parts.metrics.watching.set(1);
                self.compare_at = Instant::now();
                self.parts.ledger.guard().resume(self.compare_at);
                self.is_beat_due |= !self.parts.ledger.has_lock();
                self.tell_all();
            }
            News::Applied(id, seen) => {
                self.parts.metrics.heard();
                let before = self.desired.tools_beside(&id);
                self.desired.put(selector, id.clone(), seen);
                self.touch(&id, before);
            }
            News::Deleted(id) => {
                self.parts.metrics.heard();
                let before = self.desired.tools_beside(&id);
                self.desired.remove(selector, &id);
                self.touch(&id, before);
            }
            News::Failed(error) => {
                *listing = None;
                let is_new = !std::mem::replace(failing, true);
                if is_new && self.failing.iter().filter(|failing| **failing).count() == 1 {
                    self.deaf_since = Instant::now();
                    warn!(%error, "not watching; the routes there are stay");
                } else {
                    debug!(%error, selector, "not watching");
                }
                self.parts.metrics.watch_failures.inc();
                self.parts.metrics.watching.set(0);
                self.parts.ledger.guard().pause();
            }
        }
    }

    /// A Service has changed; `before` that these tools depended on it.
    fn touch(&mut self, id: &ServiceId, before: Vec<ToolName>) {
        if !self.desired.is_complete() {
            return;
        }
        let tools: Vec<ToolName> = before.into_iter().chain(self.desired.tools_beside(id)).collect();
        let now = Instant::now();
        for tool in &tools {
            self.rechecks.note_changed(tool.clone(), now);
        }
        self.tell(vec![id.clone()], tools);
    }

    /// Others have written routes. Only those of tools that have Services matter.
    fn hear(&mut self) {
        let heard = self.parts.invalidations.take();
        if !self.parts.ledger.has_lock() {
            // Everything is compared by whoever takes the lock.
            return;
        }
        if let Some(at) = heard.everything {
            // A flush takes the lock too, which the beat finds out.
            self.is_beat_due = true;
            if let Some((begun, rested)) = self.compared.filter(|(begun, _)| *begun < at) {
                debug!(since = ?begun.elapsed(), "anything may have been written");
                self.compare_at = self.compare_at.min(rested.max(Instant::now()));
            }
        }
        let now = Instant::now();
        let names = heard.keys.iter().filter_map(|key| key.strip_prefix(ROUTES_PREFIX.as_bytes()));
        for tool in names.filter_map(|name| ToolName::try_new(name).ok()).filter(|tool| self.desired.has(tool)) {
            self.rechecks.note_written(tool, now);
        }
    }

    fn tell_all(&mut self) {
        let desired = &self.desired;
        let ids = desired.services().map(|(id, _)| id.clone()).chain(self.rejected.keys().cloned()).collect();
        let tools = desired.tools().cloned().collect();
        self.tell(ids, tools);
    }

    /// Says of these Services, and of all of these tools, which are no routes, if that is new.
    fn tell(&mut self, ids: Vec<ServiceId>, tools: Vec<ToolName>) {
        if !self.parts.ledger.has_lock() || !self.desired.is_complete() {
            return;
        }
        let desired = &self.desired;
        let mut rejections: BTreeMap<ServiceId, Option<Rejection>> = ids
            .into_iter()
            .map(|id| {
                let rejection = desired.get(&id).and_then(|seen| seen.meaning.as_ref().err().cloned());
                (id, rejection)
            })
            .collect();
        for tool in tools {
            let found = desired.routes_of(&tool);
            let served = found.routes.into_iter().map(|(registered, ..)| (registered.namespace, registered.name));
            rejections.extend(served.map(|id| (id, None)));
            rejections.extend(found.outdone.into_iter().map(|(id, rejection)| (id, Some(rejection))));
        }
        for (id, rejection) in rejections {
            let Some(rejection) = rejection else {
                self.rejected.remove(&id);
                continue;
            };
            if self.rejected.get(&id).is_some_and(|known| known.is_told && known.rejection == rejection) {
                continue;
            }
            let (namespace, service) = (&*id.0, &*id.1);
            let spent = self.allowance.spend(namespace, Instant::now());
            let is_told = spent == Spent::Yes;
            self.rejected.insert(id.clone(), Rejected { rejection: rejection.clone(), is_told });
            if spent == Spent::JustOver {
                warn!(
                    namespace,
                    "not routed: many Services of one namespace; why others are not is told after a later list"
                );
            }
            if !is_told {
                continue;
            }
            warn!(namespace, service, reason = rejection.reason(), why = %rejection, "not routed");
            let uid = desired.get(&id).map(|seen| seen.uid.clone()).unwrap_or_default();
            if self.parts.notices.try_send(Notice { id, uid, rejection }).is_err() {
                debug!("no Event: too many are waiting");
            }
        }
    }

    fn candidacy(&self) -> Candidacy {
        match (self.desired.is_complete(), self.failing.contains(&true)) {
            (false, _) => Candidacy::None,
            (true, false) => Candidacy::Following,
            (true, true) => Candidacy::Deaf(self.deaf_since),
        }
    }

    fn note_readiness(&self) {
        let is_ready = if self.store_failing {
            false
        } else if self.parts.ledger.has_lock() {
            self.has_written
        } else {
            self.desired.is_complete() && (self.has_written || self.parts.ledger.stands_by())
        };
        self.parts.readiness.set(is_ready);
    }

    /// Looks after the lock, and after what has no moment of its own.
    async fn beat(&mut self) {
        let now = Instant::now();
        if self.parts.ledger.is_hold_over(now) {
            self.compare_at = now;
        }
        let had_lock = self.parts.ledger.has_lock();
        let candidacy = self.candidacy();
        let beat = self.parts.ledger.beat(candidacy).await;
        let has_lock = self.parts.ledger.has_lock();
        self.parts.metrics.leading.set(i64::from(has_lock));
        let is_answered = beat.is_ok();
        match beat {
            Ok(Beat::Same) => {}
            Ok(Beat::Taken) => {
                info!("leading");
                self.tell_all();
            }
            Ok(Beat::TakenAgain) => warn!("Redis has been emptied, or is another: writing all routes"),
            Ok(Beat::Lost(holder)) => warn!(holder, "no longer leading: another kube2proxy writes to this Redis"),
            Ok(Beat::StandingBy(holder)) => info!(holder, "standing by: another kube2proxy writes to this Redis"),
            Ok(Beat::StandingByOld(holder)) => {
                warn!(holder, "standing by: a kube2proxy of an earlier version writes to this Redis");
            }
            Ok(Beat::Offered) => warn!("the cluster is not heard of: letting another replica lead, if there is one"),
            Err(error) => {
                self.note_failed(&error);
                if had_lock && !has_lock {
                    warn!("no longer leading: Redis does not answer");
                }
            }
        }
        // One that stands by writes nothing that would tell.
        if is_answered && !has_lock && std::mem::take(&mut self.store_failing) {
            info!("Redis answers again");
        }
        self.note_readiness();
        self.report();
    }

    /// Settles some of what is pending. The next turn goes on, so that what happens meanwhile need not wait for all of it.
    async fn write(&mut self) {
        let now = Instant::now();
        let ledger = &mut self.parts.ledger;
        if !self.desired.is_complete() || !ledger.has_lock() || now < self.write_at {
            return;
        }
        let desired = &self.desired;
        let is_due = ledger.is_unknown() || now >= self.compare_at && !self.is_comparing;
        let outcome = async {
            if is_due {
                ledger.compare(desired, now).await?;
            }
            ledger.settle(desired).await
        };
        match outcome.await {
            Ok(()) => {
                self.pause.reset();
                if is_due {
                    self.rechecks.clear();
                    self.compare_at = now + self.parts.resync_interval;
                    self.compared = Some((now, now + REST));
                    self.is_comparing = true;
                }
                if !self.parts.ledger.is_pending() {
                    self.has_written = true;
                    let finished = self.compared.as_mut().filter(|_| std::mem::take(&mut self.is_comparing));
                    if let Some((begun, rested)) = finished {
                        *rested = Instant::now() + REST.max(begun.elapsed() * 5);
                    }
                }
                if std::mem::take(&mut self.store_failing) {
                    info!("Redis is written again");
                }
            }
            Err(LedgerError::Store(error)) => self.note_failed(&error),
            Err(LedgerError::Refused) => {
                debug!(error = %LedgerError::Refused, "not written");
                self.parts.ledger.forget();
                self.write_at = Instant::now() + self.pause.next_delay();
                self.is_beat_due = true;
            }
        }
        self.note_readiness();
    }

    /// What was being written may have been, or not.
    fn note_failed(&mut self, error: &StoreError) {
        self.parts.ledger.forget();
        self.write_at = Instant::now() + self.pause.next_delay();
        if std::mem::replace(&mut self.store_failing, true) {
            debug!(%error, "not written");
        } else {
            warn!(%error, "not written, trying again");
        }
    }

    fn report(&self) {
        if !self.desired.is_complete() {
            return;
        }
        let desired = &self.desired;
        let metrics = &self.parts.metrics;
        let rejected = desired.services().filter_map(|(_, seen)| seen.meaning.as_ref().err());
        let outdone =
            self.rejected.values().map(|known| &known.rejection).filter(|rejection| rejection.is_by_another());
        let reasons: Vec<_> = rejected.chain(outdone).map(Rejection::reason).collect();
        let (elsewhere, failing) = (self.parts.ledger.outdone(), self.parts.ledger.failing());
        metrics.set_services("rejected", reasons.len());
        metrics.set_services("outdone", elsewhere);
        metrics.set_services("failing", failing);
        metrics.set_services("held", self.parts.ledger.held());
        metrics.set_services("routed", desired.services().count().saturating_sub(reasons.len() + elsewhere + failing));
        metrics.set_rejected(reasons.into_iter());
    }
}
