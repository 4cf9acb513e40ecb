//! Whether this replica may write: it takes the lock in Redis, prolongs it, and gives it up.

use std::time::Duration;

use tokio::time::Instant;

use crate::daemon::{Store, StoreError};
use crate::registry::{LockReply, beat_lock, release_lock};

/// Between two looks at the lock.
pub const BEAT: Duration = Duration::from_secs(1);
/// A lock that is not prolonged for so long is anybody's.
const TIME_TO_LIVE: Duration = Duration::from_secs(8);
/// A replica that stands by waits so long when it finds no lock at all: its holder takes it again at its next beat.
const PRECEDENCE: Duration = Duration::from_secs(2);
/// One that hears nothing of the cluster waits for one that does.
const DEAF_PRECEDENCE: Duration = Duration::from_secs(5);
/// A holder that hears nothing of the cluster for so long lets another have the lock, if there is one.
const DEAF_FOR: Duration = Duration::from_secs(15);
/// It does so again after this time.
const OFFER_AGAIN: Duration = Duration::from_secs(120);

/// Whether this replica could write, if it had the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Candidacy {
    /// It has no complete list.
    None,
    /// It has one, and follows the cluster.
    Following,
    /// It has one, and has not heard of the cluster since then.
    Deaf(Instant),
}

/// What a beat has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Beat {
    /// All is as it was.
    Same,
    /// The lock is this one's from now on.
    Taken,
    /// It is this one's again: it was gone, and so may be what was written.
    TakenAgain,
    /// It is another's now, who is this.
    Lost(String),
    /// Another has it, who is this: told once.
    StandingBy(String),
    /// Another, of an earlier version, writes: told once.
    StandingByOld(String),
    /// It was given up: another may follow the cluster better.
    Offered,
}

/// What this replica knows of the lock.
#[derive(Debug)]
pub struct Lock {
    identity: String,
    /// The value that is ours.
    held: Option<String>,
    /// Before this was asked for, it was ours.
    confirmed: Instant,
    /// Whose it was when last seen, if it was another's.
    holder: Option<String>,
    /// Since when it is nobody's.
    free_since: Option<Instant>,
    /// When it was taken.
    taken_at: Instant,
    offered_at: Option<Instant>,
}

impl Lock {
    /// Not held. `identity` must be nobody else's, not even that of the same program before.
    pub fn new(identity: String) -> Self {
        let now = Instant::now();
        Self { identity, held: None, confirmed: now, holder: None, free_since: None, taken_at: now, offered_at: None }
    }

    /// The value to write under; `None` while another may write, or nobody.
    pub fn held(&self) -> Option<&str> {
        self.held.as_deref()
    }

    /// Another has it.
    pub fn is_anothers(&self) -> bool {
        self.held.is_none() && self.holder.is_some()
    }

    /// Takes the lock, prolongs it, or finds out who has it.
    ///
    /// # Errors
    /// The store's. A lock that could not be prolonged in its time is held no more.
    pub async fn beat(&mut self, store: &Store, candidacy: Candidacy) -> Result<Beat, StoreError> {
        let now = Instant::now();
        if self.held.is_some() && self.is_offer_due(candidacy, now) {
            self.offered_at = Some(now);
            self.free_since = Some(now);
            self.release(store).await?;
            return Ok(Beat::Offered);
        }
        let may_take = self.may_take(candidacy, now);
        let mut reply = self.ask(store, may_take, now).await?;
        if reply == LockReply::Offered && !may_take && candidacy == Candidacy::Following {
            reply = self.ask(store, true, now).await?;
        }
        Ok(self.note(reply, now))
    }

    /// Prolongs a lock that is held, if that is due. False when it is lost.
    ///
    /// # Errors
    /// The store's.
    pub async fn prolong(&mut self, store: &Store) -> Result<bool, StoreError> {
        let now = Instant::now();
        if now.saturating_duration_since(self.confirmed) < BEAT {
            return Ok(true);
        }
        let is_kept = self.ask(store, false, now).await? == LockReply::Kept;
        if is_kept {
            self.confirmed = now;
        }
        Ok(is_kept)
    }

    /// Lets another have it at once.
    ///
    /// # Errors
    /// The store's.
    pub async fn release(&mut self, store: &Store) -> Result<(), StoreError> {
        match self.held.take() {
            Some(held) => store.commit(&release_lock(&held)).await.map(drop),
            None => Ok(()),
        }
    }

    async fn ask(&mut self, store: &Store, take: bool, now: Instant) -> Result<LockReply, StoreError> {
        let call = beat_lock(&self.identity, self.held(), take, milliseconds(TIME_TO_LIVE));
        let asked = store.commit(&call).await;
        if asked.is_err() && now.saturating_duration_since(self.confirmed) > TIME_TO_LIVE {
            self.held = None;
        }
        asked
    }

    fn may_take(&self, candidacy: Candidacy, now: Instant) -> bool {
        let is_free_for = |time| self.free_since.is_some_and(|since| now.saturating_duration_since(since) >= time);
        match candidacy {
            _ if self.held.is_some() => true,
            Candidacy::None => false,
            Candidacy::Following => self.holder.is_none() || is_free_for(PRECEDENCE),
            Candidacy::Deaf(_) => is_free_for(DEAF_PRECEDENCE),
        }
    }

    fn is_offer_due(&self, candidacy: Candidacy, now: Instant) -> bool {
        let Candidacy::Deaf(since) = candidacy else { return false };
        let is_long_ago = |at: Instant, time| now.saturating_duration_since(at) >= time;
        is_long_ago(since.max(self.taken_at), DEAF_FOR) && self.offered_at.is_none_or(|at| is_long_ago(at, OFFER_AGAIN))
    }

    fn note(&mut self, reply: LockReply, now: Instant) -> Beat {
        match reply {
            LockReply::Kept => {
                self.confirmed = now;
                Beat::Same
            }
            LockReply::Taken(value) => {
                self.confirmed = now;
                (self.holder, self.free_since) = (None, None);
                match self.held.replace(value) {
                    Some(_) => Beat::TakenAgain,
                    None => {
                        self.taken_at = now;
                        Beat::Taken
                    }
                }
            }
            LockReply::Held(holder) => self.note_holder(&holder, Beat::StandingBy),
            LockReply::HeldByOld(holder) => self.note_holder(&holder, Beat::StandingByOld),
            LockReply::Offered | LockReply::Absent => {
                self.free_since.get_or_insert(now);
                Beat::Same
            }
        }
    }

    fn note_holder(&mut self, holder: &str, standing_by: impl FnOnce(String) -> Beat) -> Beat {
        self.free_since = None;
        let is_known = self.holder.replace(holder.to_owned()).as_deref() == Some(holder);
        match self.held.take() {
            Some(_) => Beat::Lost(holder.to_owned()),
            None if is_known => Beat::Same,
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

    fn lock() -> Lock {
        Lock::new("me".into())
    }

    fn held(lock: &mut Lock, now: Instant) {
        assert!(matches!(lock.note(LockReply::Taken("1 me".into()), now), Beat::Taken | Beat::TakenAgain));
    }

    #[test]
    fn the_first_takes_it_at_once_and_one_that_stands_by_lets_the_holder_go_first() {
        let now = Instant::now();
        let mut lock = lock();
        assert!(lock.may_take(Candidacy::Following, now) && !lock.may_take(Candidacy::None, now));
        assert_eq!(lock.note(LockReply::Held("1 other".into()), now), Beat::StandingBy("1 other".into()));
        assert_eq!(lock.note(LockReply::Held("1 other".into()), now), Beat::Same, "told once");
        assert!(!lock.may_take(Candidacy::Following, now + TIME_TO_LIVE * 9), "it is another's");
        lock.note(LockReply::Absent, now);
        assert!(!lock.may_take(Candidacy::Following, now) && lock.may_take(Candidacy::Following, now + PRECEDENCE));
        let deaf = Candidacy::Deaf(now);
        assert!(!lock.may_take(deaf, now + PRECEDENCE) && lock.may_take(deaf, now + DEAF_PRECEDENCE));
        lock.note(LockReply::Held("2 other".into()), now);
        assert!(!lock.may_take(Candidacy::Following, now + PRECEDENCE), "somebody was faster");
    }

    #[test]
    fn a_holder_takes_it_again_and_says_so() {
        let now = Instant::now();
        let mut lock = lock();
        held(&mut lock, now);
        assert!(lock.may_take(Candidacy::Deaf(now), now) && lock.may_take(Candidacy::None, now));
        assert_eq!(lock.note(LockReply::Taken("2 me".into()), now), Beat::TakenAgain);
        assert_eq!(lock.held(), Some("2 me"));
        assert_eq!(lock.note(LockReply::Held("3 other".into()), now), Beat::Lost("3 other".into()));
        assert!(lock.held().is_none() && lock.is_anothers());
    }

    #[test]
    fn a_deaf_holder_offers_it_now_and_then() {
        let now = Instant::now();
        let mut lock = lock();
        held(&mut lock, now);
        let (deaf, later) = (Candidacy::Deaf(now), now + DEAF_FOR);
        assert!(!lock.is_offer_due(Candidacy::Following, later) && !lock.is_offer_due(deaf, now));
        assert!(lock.is_offer_due(deaf, later));
        lock.offered_at = Some(later);
        assert!(!lock.is_offer_due(deaf, later + DEAF_FOR) && lock.is_offer_due(deaf, later + OFFER_AGAIN));
    }
}
