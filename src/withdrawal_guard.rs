//! The withdrawal guard: holds back the sudden loss of many routes, as an emptied source looks the same as a mass deletion.
//!
//! The guard decides from the size of the loss and from time alone; its callers write the log and keep held routes in service.

mod accept_file;
mod settings;

use std::time::{Duration, Instant};

#[doc(hidden)]
pub use accept_file::parse as parse_accepted;
pub use accept_file::{AcceptError, AcceptFile, Accepted, Names};
pub use settings::{ACCEPT_DIRECTORY, GuardOption, GuardOptionError, GuardSettings};

/// The loss that a comparison finds: of `live` records, the source lacks `missing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Records that the source no longer has.
    pub missing: u64,
    /// Records before the loss.
    pub live: u64,
}

impl Loss {
    /// Whether more than `percent` of at least `floor` records are lost. The loss of all records exceeds any percentage.
    pub fn is_mass(self, percent: u8, floor: u64) -> bool {
        let Self { missing, live } = self;
        // The numbers may come from a damaged file.
        let (share, most) = (u128::from(missing) * 100, u128::from(live) * u128::from(percent));
        missing > 0 && live >= floor && (share > most || missing >= live)
    }
}

/// What to do with the records that the source no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Withdraw all.
    Withdraw,
    /// Keep all for now.
    Hold,
    /// Withdraw the records with these keys, keep all others for now.
    WithdrawOnly(Names),
}

impl Verdict {
    /// Whether to withdraw the record with this key, if the source lacks it.
    pub fn withdraws(&self, key: &[u8]) -> bool {
        match self {
            Self::Withdraw => true,
            Self::Hold => false,
            Self::WithdrawOnly(names) => names.contains(key),
        }
    }
}

/// An event that the caller logs for the operator.
#[derive(Debug)]
pub enum GuardEvent {
    /// A hold begins.
    Began,
    /// A hold ends without a withdrawal: the source has all records again.
    Recovered,
    /// A hold ends, and all missing records are withdrawn.
    Ended(HoldEnd),
    /// The accept file names records; those are withdrawn.
    Named {
        /// Missing records that are named.
        going: u64,
        /// Missing records that remain held.
        held: u64,
        /// Names of records that are not missing.
        others: Names,
    },
    /// The accept file was touched, but has no effect.
    NotAccepted(AcceptError),
}

/// Why a hold ends with a withdrawal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// The accept file accepts everything.
    Accepted,
    /// The hold time has passed without a pause.
    Lasted,
    /// Twice the hold time has passed since the hold first began, pauses included; carries the total time.
    LastedInAll(Duration),
}

/// A withdrawal that is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When the hold first began.
    pub first: Instant,
    /// Since when the source has answered without a pause; `None` while it does not answer.
    pub since: Option<Instant>,
}

/// Decides about losses. A hold ends by time or by the operator; its time runs only while the source answers.
#[derive(Debug)]
pub struct WithdrawalGuard {
    settings: Option<GuardSettings>,
    hold: Option<Hold>,
    /// Only changes after the hold began count.
    accept: Option<AcceptFile>,
}

impl WithdrawalGuard {
    /// A guard without a hold; with `None` it lets every withdrawal through.
    pub fn new(settings: Option<GuardSettings>) -> Self {
        let accept = settings.as_ref().map(|settings| AcceptFile::new(&settings.accept));
        Self { settings, hold: None, accept }
    }

    /// The guard's settings; `None` if it is off.
    pub fn settings(&self) -> Option<&GuardSettings> {
        self.settings.as_ref()
    }

    /// The current hold.
    pub fn hold(&self) -> Option<Hold> {
        self.hold
    }

    /// Replaces the current hold by one that the caller stores elsewhere, or by none.
    pub fn set_hold(&mut self, hold: Option<Hold>) {
        self.hold = hold;
    }

    /// Stops the clock of a hold: the source does not answer, or has changed.
    pub fn pause(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.since = None;
        }
    }

    /// Restarts the clock of a hold after a pause: the source has sent a complete list again.
    pub fn resume(&mut self, now: Instant) {
        if let Some(hold) = &mut self.hold {
            hold.since.get_or_insert(now);
        }
    }

    /// Decides about one comparison: the source lacks the records with the keys `missing`. A single mass withdrawal among `losses`
    /// holds back all of them, and during a hold even small losses are held.
    pub fn judge<K: AsRef<[u8]>>(
        &mut self,
        losses: &[Loss],
        missing: impl IntoIterator<Item = K>,
        now: Instant,
    ) -> (Verdict, Vec<GuardEvent>) {
        let Some(settings) = &self.settings else {
            self.hold = None;
            return (Verdict::Withdraw, Vec::new());
        };
        let is_mass = losses.iter().any(|loss| loss.is_mass(settings.percent, settings.floor));
        if losses.iter().all(|loss| loss.missing == 0) || self.hold.is_none() && !is_mass {
            let recovered = self.hold.take().map(|_| GuardEvent::Recovered);
            return (Verdict::Withdraw, recovered.into_iter().collect());
        }
        let mut events = Vec::new();
        let hold = *self.hold.get_or_insert_with(|| {
            self.accept = Some(AcceptFile::new(&settings.accept));
            events.push(GuardEvent::Began);
            Hold { first: now, since: Some(now) }
        });
        let end = match self.accept.as_mut().and_then(|file| file.take(now)) {
            Some(Ok(Accepted::All)) => HoldEnd::Accepted,
            accepted => match (settings.end_of(hold, now), accepted) {
                (Some(end), _) => end,
                (None, Some(Ok(Accepted::Only(names)))) => {
                    let keys: Vec<K> = missing.into_iter().collect();
                    let going = keys.iter().filter(|key| names.contains(key.as_ref())).count();
                    let (going, held) = (going as u64, (keys.len() - going) as u64);
                    events.push(GuardEvent::Named { going, held, others: names.except(keys.iter().map(K::as_ref)) });
                    if held == 0 {
                        self.hold = None;
                    }
                    return (Verdict::WithdrawOnly(names), events);
                }
                (None, accepted) => {
                    events.extend(accepted.and_then(Result::err).map(GuardEvent::NotAccepted));
                    return (Verdict::Hold, events);
                }
            },
        };
        events.push(GuardEvent::Ended(end));
        self.hold = None;
        (Verdict::Withdraw, events)
    }

    /// Whether a hold has ended, or the operator accepts some of it, so that the next comparison is due now.
    pub fn is_over(&mut self, now: Instant) -> bool {
        let (Some(settings), Some(hold)) = (&self.settings, self.hold) else { return false };
        settings.end_of(hold, now).is_some() || self.accept.as_mut().is_some_and(|file| file.is_ready(now))
    }
}

#[cfg(test)]
mod tests;
