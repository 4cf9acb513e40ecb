//! Keeps Redis in step with the cluster: one task that takes in news, and writes while it leads.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, sleep_until};
use tracing::{debug, error, info, warn};

use super::desired::{Desired, ServiceId, id_of};
use super::events::Notice;
use super::lease::Leadership;
use super::ledger::{Beat, Ledger, LedgerError};
use super::metrics::Metrics;
use super::service::{NamespaceTemplate, Rejection};
use super::watch::{News, Watch};
use crate::backoff::Backoff;
use crate::daemon::{Readiness, StoreError};
use crate::route::ToolName;

/// Between two looks at Redis: whether this one still may write, and whether Redis has forgotten everything.
const BEAT: Duration = Duration::from_secs(1);
/// Between two tries when Redis does not answer, at first and at last.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// News that are taken in before it is written what they say.
const AT_ONCE: usize = 20_000;

/// What a follower is made of.
pub struct Parts {
    /// Where news come from.
    pub watch: Watch,
    /// Where they go.
    pub ledger: Ledger,
    /// Which namespaces are whose.
    pub templates: Vec<NamespaceTemplate>,
    /// Everything is compared this often.
    pub resync_interval: Duration,
    /// Whether this one may write.
    pub leadership: watch::Receiver<Leadership>,
    /// Who tells maintainers.
    pub notices: mpsc::Sender<Notice>,
    /// Set when Redis has what the first complete list said, or somebody else sees to it.
    pub readiness: Readiness,
    /// What is counted.
    pub metrics: Metrics,
}

/// Whether this one may write, as far as it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Another leads.
    Standby,
    /// It leads, but Redis does not know yet.
    Elected,
    /// Redis takes its writes.
    Writer,
    /// It leads, but Redis says that somebody else writes.
    Fenced,
}

/// Follows the cluster until `shutdown`.
pub async fn follow(parts: Parts, shutdown: impl Future<Output = ()>) {
    let now = Instant::now();
    let mut follower = Follower {
        role: Role::Standby,
        desired: None,
        listing: None,
        told: BTreeMap::new(),
        watch_failing: false,
        store_failing: false,
        has_written: false,
        pause: Backoff::between(RETRY.0, RETRY.1),
        write_at: now,
        compare_at: now,
        parts,
    };
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tokio::pin!(shutdown);
    follower.note_leadership();
    loop {
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            () = follower.turn(&mut beats) => {}
        }
    }
    if follower.role != Role::Standby
        && let Err(error) = follower.parts.ledger.step_down().await
    {
        debug!(%error, "others may write only later");
    }
}

struct Follower {
    parts: Parts,
    role: Role,
    /// `None` until the first list is complete.
    desired: Option<Desired>,
    /// A list that is not complete.
    listing: Option<Desired>,
    /// Services that are known to be rejected.
    told: BTreeMap<ServiceId, Rejection>,
    watch_failing: bool,
    store_failing: bool,
    has_written: bool,
    pause: Backoff,
    /// Not before this.
    write_at: Instant,
    /// All is compared then.
    compare_at: Instant,
}

impl Follower {
    /// Waits until there is something to do, and does it. Given up in the middle, it does not know what it has done.
    async fn turn(&mut self, beats: &mut Interval) {
        let is_waiting = self.may_write() && self.parts.ledger.is_pending() && self.desired.is_some();
        tokio::select! {
            news = self.parts.watch.next() => self.take_in(news),
            Ok(()) = self.parts.leadership.changed() => self.note_leadership(),
            _ = beats.tick() => self.beat().await,
            () = sleep_until(self.write_at), if is_waiting => {}
        }
        // A list comes one by one, and is written as a whole.
        for _ in 0..AT_ONCE {
            let Some(news) = self.parts.watch.next().now_or_never() else { break };
            self.take_in(news);
        }
        self.write().await;
    }

    fn take_in(&mut self, news: News) {
        let templates = &self.parts.templates;
        match news {
            News::ListBegins => self.listing = Some(Desired::default()),
            News::Listed(service) => {
                if let Some(listing) = &mut self.listing {
                    listing.apply(&service, templates, None);
                }
            }
            News::ListEnds => {
                let Some(mut listed) = self.listing.take() else { return };
                if let Some(before) = &self.desired {
                    listed.keep_claims_of(before);
                }
                let services = listed.services().count();
                if std::mem::take(&mut self.watch_failing) || self.desired.is_none() {
                    info!(services, "watching");
                }
                self.parts.metrics.listed();
                self.parts.metrics.heard();
                self.parts.metrics.watching.set(1);
                self.desired = Some(listed);
                self.compare_at = Instant::now();
                self.parts.ledger.guard().resume(self.compare_at);
                self.tell_all();
            }
            News::Applied(service) => {
                self.parts.metrics.heard();
                let Some(desired) = &mut self.desired else { return };
                let id = id_of(&service);
                let before = tool_of(desired, &id);
                desired.apply(&service, templates, Some(unix_seconds()));
                self.touch(&id, before);
            }
            News::Deleted(service) => {
                self.parts.metrics.heard();
                let Some(desired) = &mut self.desired else { return };
                let id = id_of(&service);
                let before = tool_of(desired, &id);
                desired.remove(&id);
                self.touch(&id, before);
            }
            News::Failed(error) => {
                self.parts.metrics.watch_failures.inc();
                self.parts.metrics.watching.set(0);
                self.parts.ledger.guard().pause();
                self.listing = None;
                if std::mem::replace(&mut self.watch_failing, true) {
                    debug!(%error, "not watching");
                } else {
                    warn!(%error, "not watching; the routes there are stay");
                }
            }
        }
    }

    /// A Service has changed that was `before`'s.
    fn touch(&mut self, id: &ServiceId, before: Option<ToolName>) {
        let Some(desired) = &self.desired else { return };
        let tools = [before, tool_of(desired, id)];
        for tool in tools.iter().flatten() {
            self.parts.ledger.touch(tool);
        }
        self.tell(std::iter::once(id.clone()).collect(), tools.into_iter().flatten().collect());
    }

    fn tell_all(&mut self) {
        let Some(desired) = &self.desired else { return };
        let ids = desired.services().map(|(id, _)| id.clone()).chain(self.told.keys().cloned()).collect();
        let tools = desired.tools().cloned().collect();
        self.tell(ids, tools);
    }

    /// Says of these Services, and of all of these tools, which are no routes, if that is new.
    fn tell(&mut self, ids: Vec<ServiceId>, tools: Vec<ToolName>) {
        let Some(desired) = self.desired.as_ref().filter(|_| self.role != Role::Standby) else { return };
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
            let outdone = found.outdone.into_iter().map(|(id, older)| (id, Some(Rejection::AlreadyClaimed(older))));
            rejections.extend(outdone);
        }
        for (id, rejection) in rejections {
            let Some(rejection) = rejection else {
                self.told.remove(&id);
                continue;
            };
            if self.told.insert(id.clone(), rejection.clone()).as_ref() == Some(&rejection) {
                continue;
            }
            let (namespace, service) = (&*id.0, &*id.1);
            warn!(namespace, service, reason = rejection.reason(), why = %rejection, "not routed");
            let uid = desired.get(&id).map(|seen| seen.uid.clone()).unwrap_or_default();
            if self.parts.notices.try_send(Notice { id, uid, rejection }).is_err() {
                debug!("no Event: too many are waiting");
            }
        }
    }

    fn note_leadership(&mut self) {
        let leads = self.is_leading();
        self.parts.metrics.leading.set(i64::from(leads));
        match (leads, self.role) {
            (true, Role::Standby) => {
                info!("leading");
                self.role = Role::Elected;
                self.tell_all();
            }
            (false, Role::Elected | Role::Writer | Role::Fenced) => {
                warn!("no longer leading");
                self.role = Role::Standby;
                self.parts.ledger.forget();
            }
            _ => {}
        }
        self.note_readiness();
    }

    fn is_leading(&self) -> bool {
        leads(&self.parts.leadership)
    }

    fn may_write(&self) -> bool {
        matches!(self.role, Role::Elected | Role::Writer)
    }

    fn note_readiness(&self) {
        let is_ready = match self.role {
            Role::Standby => self.desired.is_some(),
            Role::Elected | Role::Writer => self.has_written,
            Role::Fenced => false,
        };
        self.parts.readiness.set(is_ready);
    }

    /// Asks Redis whether this one may write, and looks after what has no moment of its own.
    async fn beat(&mut self) {
        // The lease may have run out without a word.
        self.note_leadership();
        let now = Instant::now();
        if self.parts.ledger.is_hold_over(now) {
            self.compare_at = now;
        }
        if matches!(self.role, Role::Writer | Role::Fenced) {
            match self.parts.ledger.beat().await {
                Ok(Beat::Mine) if self.role == Role::Writer => {}
                Ok(Beat::Mine | Beat::Forgotten) => {
                    if self.role == Role::Fenced {
                        info!("nobody else writes any more");
                    } else {
                        warn!("Redis has been emptied, or is another: writing all routes");
                    }
                    self.role = Role::Writer;
                    self.parts.ledger.forget();
                }
                Ok(Beat::Anothers) => self.note_refused(),
                Err(error) => self.note_failed(&error),
            }
        }
        self.report();
    }

    async fn write(&mut self) {
        let now = Instant::now();
        let Some(desired) = self.desired.as_ref().filter(|_| self.may_write() && now >= self.write_at) else {
            self.note_readiness();
            return;
        };
        let leadership = self.parts.leadership.clone();
        let may_write = || leads(&leadership);
        let ledger = &mut self.parts.ledger;
        let outcome = async {
            if !may_write() {
                return Err(LedgerError::NoLongerLeading);
            }
            if self.role == Role::Elected {
                ledger.take_over().await?;
                self.role = Role::Writer;
            }
            if now >= self.compare_at || ledger.is_unknown() {
                ledger.compare(desired, now).await?;
                self.compare_at = now + self.parts.resync_interval;
            }
            ledger.settle(desired, may_write).await
        };
        match outcome.await {
            Ok(()) => {
                self.pause.reset();
                self.has_written = true;
                if std::mem::take(&mut self.store_failing) {
                    info!("Redis is written again");
                }
            }
            Err(LedgerError::Store(error)) => self.note_failed(&error),
            Err(LedgerError::Refused) => self.note_refused(),
            Err(LedgerError::NoLongerLeading) => self.note_leadership(),
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

    fn note_refused(&mut self) {
        if self.role != Role::Fenced {
            error!(error = %LedgerError::Refused, "not written");
        }
        self.role = Role::Fenced;
        self.parts.ledger.forget();
        self.note_readiness();
    }

    fn report(&self) {
        let Some(desired) = &self.desired else { return };
        let metrics = &self.parts.metrics;
        let rejected = desired.services().filter_map(|(_, seen)| seen.meaning.as_ref().err());
        let outdone = self.told.values().filter(|rejection| matches!(rejection, Rejection::AlreadyClaimed(_)));
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

fn leads(leadership: &watch::Receiver<Leadership>) -> bool {
    matches!(*leadership.borrow(), Leadership::Leading { until } if until > Instant::now())
}

fn tool_of(desired: &Desired, id: &ServiceId) -> Option<ToolName> {
    desired.get(id)?.meaning.as_ref().ok().map(|route| route.tool.clone())
}

fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}
