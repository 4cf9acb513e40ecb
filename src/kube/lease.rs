//! Which of several replicas leads: whoever holds the one Lease, an object of the cluster that the leader renews.
//!
//! At no instant do two hold it, as long as their clocks run at about one speed; what the clocks show does not matter. A
//! leader counts from before it asked to be let hold it, and stops after [`Timing::give_up`]. Another takes the Lease only
//! when it has seen it unchanged for the whole of its duration, which is longer; the clock that both look at is their own,
//! and monotonic. Each write names the version that was read: of two that write at the same time the API server refuses
//! one. (The clock stands still while a machine sleeps, and whoever deletes the Lease frees it: what is led has to look
//! after itself as well.)

mod client;
mod name;
mod record;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::backoff::Backoff;

use client::{LeaseClient, LeaseError};
pub use name::{InvalidLeaseName, LeaseName};
use record::{Record, freed, held_by, holder_of};

/// Whether this one leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Somebody else leads, or nobody is known to.
    Standby,
    /// We lead, and may write until then; renewed again and again.
    Leading {
        /// Not at this instant any more, nor after it.
        until: Instant,
    },
}

/// What leading goes by: `renew < give_up < duration`, each with room for a few slow answers.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// A Lease that is not renewed for so long is anybody's. In whole seconds, as the Lease says it to others.
    pub duration: Duration,
    /// A leader renews this often; the others look about as often.
    pub renew: Duration,
    /// A leader that could not renew for so long leads no more.
    pub give_up: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { duration: Duration::from_secs(15), renew: Duration::from_secs(3), give_up: Duration::from_secs(10) }
    }
}

impl Timing {
    /// For one answer. A leader asks a second time before it gives up, and a third.
    fn deadline(&self) -> Duration {
        self.give_up / 3
    }
}

/// Takes part until `stop` is true; then gives the lease back, so that another takes it at once.
///
/// `identity` must be nobody else's, not even that of the same program before. `client_of` is asked for a client at the
/// beginning and after each failure. Errors are logged, and tried again; whoever looks at `leadership` must look at its
/// `until`, too: it may pass unrenewed.
pub async fn take_part(
    client_of: impl Fn() -> kube::Result<Client>,
    name: LeaseName,
    identity: String,
    timing: Timing,
    leadership: watch::Sender<Leadership>,
    mut stop: watch::Receiver<bool>,
) {
    let mut candidate = Candidate {
        client: LeaseClient::new(client_of, name.clone(), timing.deadline()),
        name,
        identity,
        timing,
        leadership,
        held: None,
        seen: None,
        may_hold: false,
        failing: false,
        again: Backoff::between(timing.renew / 4, timing.renew),
        look: Backoff::between(timing.renew, timing.renew),
    };
    tokio::select! {
        biased;
        // An error means that whoever would stop this is gone.
        _ = stop.wait_for(|stop| *stop) => {}
        () = candidate.run_for_it() => {}
    }
    candidate.resign().await;
}

struct Candidate<F> {
    client: LeaseClient<F>,
    name: LeaseName,
    identity: String,
    timing: Timing,
    leadership: watch::Sender<Leadership>,
    /// The Lease as we wrote it last, if nothing speaks against its being so still.
    held: Option<Lease>,
    seen: Option<Seen>,
    /// Whether something was sent that may have made the Lease ours.
    may_hold: bool,
    failing: bool,
    again: Backoff,
    look: Backoff,
}

/// What was there when we last looked.
struct Seen {
    /// `None`: no Lease.
    record: Option<Record>,
    /// When we first saw exactly this.
    since: Instant,
    /// How long it has to stay so until it is anybody's.
    silence: Duration,
}

impl<F: Fn() -> kube::Result<Client>> Candidate<F> {
    async fn run_for_it(&mut self) {
        loop {
            // Each answer has its deadline; together they must not carry us over our end.
            let end = self.until_at_most(Instant::now() + self.timing.give_up);
            let outcome = timeout_at(end, self.attempt()).await;
            let pause = match outcome.unwrap_or(Err(LeaseError::Over)) {
                Ok(pause) => {
                    self.note_success();
                    pause
                }
                Err(error) => self.note_failure(&error),
            };
            sleep_until(self.until_at_most(Instant::now() + pause)).await;
            self.stand_by_if_over();
        }
    }

    /// Renews the Lease, or takes it if it is anybody's. Returns when to try again. May be given up at any time.
    async fn attempt(&mut self) -> Result<Duration, LeaseError> {
        if let Some(held) = self.held.take()
            && self.take(Some(held)).await?
        {
            return Ok(self.timing.renew);
        }
        let found = self.client.read().await?;
        let now = Instant::now();
        let free_at = self.look_at(found.as_ref(), now);
        if free_at > now {
            // Not all at the same instant: only one would have it.
            let free = free_at - now + self.look.next_delay() / 8;
            return Ok(self.look.next_delay().min(free));
        }
        let taken = self.take(found).await?;
        Ok(if taken { self.timing.renew } else { self.look.next_delay() })
    }

    /// Notes what there is, and returns when it is anybody's.
    fn look_at(&mut self, found: Option<&Lease>, now: Instant) -> Instant {
        let record = found.map(Record::of);
        if let Some(seen) = self.seen.as_ref().filter(|seen| seen.record == record) {
            return seen.since + seen.silence;
        }
        let silence = match &record {
            // Whoever held what was deleted may not know yet.
            None => self.seen.as_ref().map_or(Duration::ZERO, |seen| seen.silence),
            Some(record) if record.holder.is_empty() || record.holder == self.identity => Duration::ZERO,
            Some(record) => {
                let before = self.seen.as_ref().and_then(|seen| seen.record.as_ref());
                if before.is_none_or(|before| before.holder != record.holder) {
                    info!(lease = %self.name, holder = record.holder, "somebody else holds the lease");
                }
                self.may_hold = false;
                self.leadership.send_if_modified(|leadership| {
                    std::mem::replace(leadership, Leadership::Standby) != Leadership::Standby
                });
                record.duration.unwrap_or(self.timing.duration)
            }
        };
        self.seen = Some(Seen { record, since: now, silence });
        now + silence
    }

    /// Makes the Lease ours, in the place of `found`. False when somebody was faster.
    async fn take(&mut self, found: Option<Lease>) -> Result<bool, LeaseError> {
        let before = found.as_ref().map(|lease| holder_of(lease).to_owned());
        let replaces = found.is_some();
        let lease = held_by(found, &self.name, &self.identity, self.timing.duration, Timestamp::now());
        self.may_hold = true;
        let asked = Instant::now();
        let written = if replaces { self.client.replace(&lease).await } else { self.client.create(&lease).await };
        let Some(lease) = written? else { return Ok(false) };
        if before.as_ref() != Some(&self.identity) {
            info!(lease = %self.name, before, "lease taken");
        }
        self.seen = Some(Seen { record: Some(Record::of(&lease)), since: asked, silence: Duration::ZERO });
        self.held = Some(lease);
        self.leadership.send_replace(Leadership::Leading { until: asked + self.timing.give_up });
        Ok(true)
    }

    fn note_success(&mut self) {
        self.again.reset();
        if std::mem::take(&mut self.failing) {
            info!(lease = %self.name, "the lease is seen again");
        }
    }

    /// Returns how long to wait.
    fn note_failure(&mut self, error: &LeaseError) -> Duration {
        self.client.forget();
        if std::mem::replace(&mut self.failing, true) {
            debug!(lease = %self.name, %error, "not leading by it");
        } else {
            warn!(lease = %self.name, %error, "trying again");
        }
        self.again.next_delay()
    }

    /// While we lead, nothing else is waited for beyond its end.
    fn until_at_most(&self, at: Instant) -> Instant {
        match *self.leadership.borrow() {
            Leadership::Leading { until } => until.min(at),
            Leadership::Standby => at,
        }
    }

    fn stand_by_if_over(&self) {
        let now = Instant::now();
        self.leadership.send_if_modified(|leadership| {
            let is_over = matches!(*leadership, Leadership::Leading { until } if until <= now);
            if is_over {
                *leadership = Leadership::Standby;
            }
            is_over
        });
    }

    /// Lets others have the Lease, if it may be ours.
    async fn resign(mut self) {
        self.leadership.send_replace(Leadership::Standby);
        if !self.may_hold {
            return;
        }
        let within = self.timing.deadline();
        let given_back = async {
            loop {
                match self.give_back().await {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(error) => sleep(self.note_failure(&error)).await,
                }
            }
        };
        let outcome = timeout(within, given_back).await;
        match outcome {
            Ok(()) => info!(lease = %self.name, "lease given back"),
            Err(_) => warn!(lease = %self.name, "lease not given back: others wait until it runs out"),
        }
    }

    /// False when it has changed meanwhile.
    async fn give_back(&mut self) -> Result<bool, LeaseError> {
        let Some(lease) = self.client.read().await?.filter(|lease| holder_of(lease) == self.identity) else {
            return Ok(true);
        };
        Ok(self.client.replace(&freed(lease, Timestamp::now())).await?.is_some())
    }
}
