//! Holds back the loss of a large part of all routes: a source that was emptied looks the same as a large change.
//!
//! The judge decides, from what is lost and from the time; whoever asks it writes the log and keeps the routes that are held.

mod accept_file;
mod settings;

use std::time::{Duration, Instant};

pub use accept_file::{AcceptError, AcceptFile, Accepted, Names};
pub use settings::{GuardOption, GuardOptionError, GuardSettings};

/// What a comparison would take away: of `live` records the source lacks `missing`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// Records that the source no longer has.
    pub missing: u64,
    /// Records there were before.
    pub live: u64,
}

impl Loss {
    /// Whether it is more than `percent` of at least `floor` records. The loss of all is always more than any share.
    pub fn is_mass(self, percent: u8, floor: u64) -> bool {
        let Self { missing, live } = self;
        missing > 0 && live >= floor && (missing * 100 > live * u64::from(percent) || missing >= live)
    }
}

/// What is to be done with what the source no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Withdraw,
    /// It stays for now.
    Hold,
    /// The records under these keys of the store go, all others stay for now.
    WithdrawOnly(Names),
}

impl Verdict {
    /// Whether the record under this key of the store goes, if the source lacks it.
    pub fn withdraws(&self, key: &[u8]) -> bool {
        match self {
            Self::Withdraw => true,
            Self::Hold => false,
            Self::WithdrawOnly(names) => names.contains(key),
        }
    }
}

/// What an operator should read in the log.
#[derive(Debug)]
pub enum GuardEvent {
    /// A hold begins.
    Began,
    /// The source has everything again; nothing was withdrawn.
    Recovered,
    /// The hold is over, and everything that is missing goes.
    Ended(HoldEnd),
    /// The operator's file names records that go.
    Named {
        /// So many of those that are missing are named.
        going: u64,
        /// So many are held on.
        held: u64,
        /// Names of what is not missing.
        others: Names,
    },
    /// The operator's file was touched, and accepts nothing.
    NotAccepted(AcceptError),
}

/// Why a hold is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldEnd {
    /// The operator's file accepts everything.
    Accepted,
    /// Its time has passed without a pause.
    Lasted,
    /// It has lasted this long since it first began, pauses included: twice its time.
    LastedInAll(Duration),
}

/// A withdrawal that is held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it first began.
    pub first: Instant,
    /// Since when the source has said without a break that it is so; `None` while the source does not answer.
    pub since: Option<Instant>,
}

/// Judges losses. Only time or the operator ends a hold, and time passes only while the source answers.
#[derive(Debug)]
pub struct WithdrawalGuard {
    settings: Option<GuardSettings>,
    hold: Option<Hold>,
    /// Its state before the hold began accepts nothing.
    accept: Option<AcceptFile>,
}

impl WithdrawalGuard {
    /// A guard that holds nothing yet; without settings it lets everything through.
    pub fn new(settings: Option<GuardSettings>) -> Self {
        let accept = settings.as_ref().map(|settings| AcceptFile::new(&settings.accept));
        Self { settings, hold: None, accept }
    }

    /// What it was made with.
    pub fn settings(&self) -> Option<&GuardSettings> {
        self.settings.as_ref()
    }

    /// What it holds.
    pub fn hold(&self) -> Option<Hold> {
        self.hold
    }

    /// Goes on with a hold that is kept elsewhere, or with none.
    pub fn set_hold(&mut self, hold: Option<Hold>) {
        self.hold = hold;
    }

    /// The source does not answer, or is another: what it said before counts no more.
    pub fn pause(&mut self) {
        if let Some(hold) = &mut self.hold {
            hold.since = None;
        }
    }

    /// The source has said again what it has, completely: after a pause the time begins anew.
    pub fn resume(&mut self, now: Instant) {
        if let Some(hold) = &mut self.hold {
            hold.since.get_or_insert(now);
        }
    }

    /// Judges the outcome of one comparison: the source lacks the records under the keys `missing`. One loss that is a mass
    /// withdrawal holds back everything, and what is left of a hold is held however little it is.
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

    /// Whether a hold has come to its end, or the operator accepts some of it, so that a comparison should not wait.
    pub fn is_over(&mut self, now: Instant) -> bool {
        let (Some(settings), Some(hold)) = (&self.settings, self.hold) else { return false };
        settings.end_of(hold, now).is_some() || self.accept.as_mut().is_some_and(|file| file.is_ready(now))
    }
}

#[cfg(test)]
mod tests;
