//! The lock in Redis that elects the replica that writes: acquires, renews and releases it.

use std::time::Duration;

use tokio::time::Instant;

use crate::daemon::{Store, StoreError};
use crate::registry::{LockReply, beat_lock, release_lock};

/// The time between two checks of the lock.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(1);
/// The lock expires this long after its last renewal.
const TIME_TO_LIVE: Duration = Duration::from_secs(8);
/// A standby that finds no lock waits this long: after a flush the previous holder reacquires it at its next heartbeat.
const PRECEDENCE: Duration = Duration::from_secs(2);
/// A standby without a connection to the cluster waits longer, so that a connected one goes first.
const DISCONNECTED_PRECEDENCE: Duration = Duration::from_secs(5);
/// A holder without a connection to the cluster offers the lock to other replicas after this time.
const STEP_DOWN_AFTER: Duration = Duration::from_secs(15);
/// The time between two such offers.
const STEP_DOWN_INTERVAL: Duration = Duration::from_secs(120);

/// How well this replica could serve as the leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidacy {
    /// Without a complete list it cannot write.
    Unready,
    /// It has a complete list and watches the cluster.
    Watching,
    /// It has a complete list, but its watches have failed since this time.
    Disconnected(Instant),
}

/// The outcome of a check of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// Nothing changed.
    Unchanged,
    /// This replica holds the lock from now on.
    Acquired,
    /// The lock had disappeared, perhaps with the routes; this replica holds it again.
    Reacquired,
    /// This other replica holds the lock now.
    Lost(String),
    /// This other replica holds the lock; reported once for each holder.
    StandingBy(String),
    /// This replica of an earlier version writes; reported once for each holder.
    StandingByLegacy(String),
    /// The lock is released, for a replica with a connection to the cluster.
    SteppedDown,
}

/// The lock as this replica knows it.
#[derive(Debug)]
pub struct LeaderLock {
    identity: String,
    /// The lock's value while this replica holds it.
    held: Option<String>,
    /// When the last successful renewal was sent.
    confirmed: Instant,
    /// The other replica that held the lock at the last check.
    holder: Option<String>,
    /// Since when no replica holds the lock.
    free_since: Option<Instant>,
    acquired_at: Instant,
    stepped_down_at: Option<Instant>,
}

impl LeaderLock {
    /// Not held. `identity` must be unique, also among earlier processes on this host.
    pub fn new(identity: String) -> Self {
        let now = Instant::now();
        Self {
            identity,
            held: None,
            confirmed: now,
            holder: None,
            free_since: None,
            acquired_at: now,
            stepped_down_at: None,
        }
    }

    /// The lock's value, which each write proves; `None` while this replica does not hold it.
    pub fn held(&self) -> Option<&str> {
        self.held.as_deref()
    }

    pub fn is_held_by_other(&self) -> bool {
        self.held.is_none() && self.holder.is_some()
    }

    /// Acquires or renews the lock, or learns its holder.
    ///
    /// # Errors
    /// Redis fails. A lock that could not be renewed in time is no longer held.
    pub async fn heartbeat(&mut self, store: &Store, candidacy: Candidacy) -> Result<Heartbeat, StoreError> {
        let now = Instant::now();
        if self.held.is_some() && self.is_step_down_due(candidacy, now) {
            self.stepped_down_at = Some(now);
            self.free_since = Some(now);
            self.release(store).await?;
            return Ok(Heartbeat::SteppedDown);
        }
        let may_acquire = self.may_acquire(candidacy, now);
        let mut reply = self.request(store, may_acquire, now).await?;
        if reply == LockReply::Offered && !may_acquire && candidacy == Candidacy::Watching {
            reply = self.request(store, true, now).await?;
        }
        Ok(self.note(reply, now))
    }

    /// Renews a held lock if that is due. False if it is lost.
    pub async fn renew(&mut self, store: &Store) -> Result<bool, StoreError> {
        let now = Instant::now();
        if now.saturating_duration_since(self.confirmed) < HEARTBEAT_INTERVAL {
            return Ok(true);
        }
        let is_kept = self.request(store, false, now).await? == LockReply::Kept;
        if is_kept {
            self.confirmed = now;
        }
        Ok(is_kept)
    }

    /// Releases the lock, so that another replica can acquire it at once.
    pub async fn release(&mut self, store: &Store) -> Result<(), StoreError> {
        match self.held.take() {
            Some(held) => store.commit(&release_lock(&held)).await.map(drop),
            None => Ok(()),
        }
    }

    async fn request(&mut self, store: &Store, take: bool, now: Instant) -> Result<LockReply, StoreError> {
        let call = beat_lock(&self.identity, self.held(), take, milliseconds(TIME_TO_LIVE));
        let reply = store.commit(&call).await;
        if reply.is_err() && now.saturating_duration_since(self.confirmed) > TIME_TO_LIVE {
            self.held = None;
        }
        reply
    }

    fn may_acquire(&self, candidacy: Candidacy, now: Instant) -> bool {
        let is_free_for = |time| self.free_since.is_some_and(|since| now.saturating_duration_since(since) >= time);
        match candidacy {
            _ if self.held.is_some() => true,
            Candidacy::Unready => false,
            Candidacy::Watching => self.holder.is_none() || is_free_for(PRECEDENCE),
            Candidacy::Disconnected(_) => is_free_for(DISCONNECTED_PRECEDENCE),
        }
    }

    fn is_step_down_due(&self, candidacy: Candidacy, now: Instant) -> bool {
        let Candidacy::Disconnected(since) = candidacy else { return false };
        let is_long_ago = |at: Instant, time| now.saturating_duration_since(at) >= time;
        is_long_ago(since.max(self.acquired_at), STEP_DOWN_AFTER)
            && self.stepped_down_at.is_none_or(|at| is_long_ago(at, STEP_DOWN_INTERVAL))
    }

    fn note(&mut self, reply: LockReply, now: Instant) -> Heartbeat {
        match reply {
            LockReply::Kept => {
                self.confirmed = now;
                Heartbeat::Unchanged
            }
            LockReply::Taken(value) => {
                self.confirmed = now;
                (self.holder, self.free_since) = (None, None);
                match self.held.replace(value) {
                    Some(_) => Heartbeat::Reacquired,
                    None => {
                        self.acquired_at = now;
                        Heartbeat::Acquired
                    }
                }
            }
            LockReply::Held(holder) => self.note_holder(&holder, Heartbeat::StandingBy),
            LockReply::HeldByOld(holder) => self.note_holder(&holder, Heartbeat::StandingByLegacy),
            LockReply::Offered | LockReply::Absent => {
                self.free_since.get_or_insert(now);
                Heartbeat::Unchanged
            }
        }
    }

    fn note_holder(&mut self, holder: &str, standing_by: impl FnOnce(String) -> Heartbeat) -> Heartbeat {
        self.free_since = None;
        let is_known = self.holder.replace(holder.to_owned()).as_deref() == Some(holder);
        match self.held.take() {
            Some(_) => Heartbeat::Lost(holder.to_owned()),
            None if is_known => Heartbeat::Unchanged,
            None => standing_by(holder.to_owned()),
        }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> LeaderLock {
        LeaderLock::new("me".into())
    }

    fn held(lock: &mut LeaderLock, now: Instant) {
        assert!(matches!(lock.note(LockReply::Taken("1 me".into()), now), Heartbeat::Acquired | Heartbeat::Reacquired));
    }

    #[test]
    fn first_replica_acquires_at_once_and_standby_yields_to_the_holder() {
        let now = Instant::now();
        let mut lock = lock();
        assert!(lock.may_acquire(Candidacy::Watching, now) && !lock.may_acquire(Candidacy::Unready, now));
        assert_eq!(lock.note(LockReply::Held("1 other".into()), now), Heartbeat::StandingBy("1 other".into()));
        assert_eq!(lock.note(LockReply::Held("1 other".into()), now), Heartbeat::Unchanged, "reported once");
        assert!(!lock.may_acquire(Candidacy::Watching, now + TIME_TO_LIVE * 9), "the other holds it");
        lock.note(LockReply::Absent, now);
        assert!(!lock.may_acquire(Candidacy::Watching, now) && lock.may_acquire(Candidacy::Watching, now + PRECEDENCE));
        let disconnected = Candidacy::Disconnected(now);
        assert!(
            !lock.may_acquire(disconnected, now + PRECEDENCE)
                && lock.may_acquire(disconnected, now + DISCONNECTED_PRECEDENCE)
        );
        lock.note(LockReply::Held("2 other".into()), now);
        assert!(!lock.may_acquire(Candidacy::Watching, now + PRECEDENCE), "another replica was faster");
    }

    #[test]
    fn holder_reacquires_and_reports_it() {
        let now = Instant::now();
        let mut lock = lock();
        held(&mut lock, now);
        assert!(lock.may_acquire(Candidacy::Disconnected(now), now) && lock.may_acquire(Candidacy::Unready, now));
        assert_eq!(lock.note(LockReply::Taken("2 me".into()), now), Heartbeat::Reacquired);
        assert_eq!(lock.held(), Some("2 me"));
        assert_eq!(lock.note(LockReply::Held("3 other".into()), now), Heartbeat::Lost("3 other".into()));
        assert!(lock.held().is_none() && lock.is_held_by_other());
    }

    #[test]
    fn disconnected_holder_steps_down_at_intervals() {
        let now = Instant::now();
        let mut lock = lock();
        held(&mut lock, now);
        let (disconnected, later) = (Candidacy::Disconnected(now), now + STEP_DOWN_AFTER);
        assert!(!lock.is_step_down_due(Candidacy::Watching, later) && !lock.is_step_down_due(disconnected, now));
        assert!(lock.is_step_down_due(disconnected, later));
        lock.stepped_down_at = Some(later);
        assert!(
            !lock.is_step_down_due(disconnected, later + STEP_DOWN_AFTER)
                && lock.is_step_down_due(disconnected, later + STEP_DOWN_INTERVAL)
        );
    }
}
