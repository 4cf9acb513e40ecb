//! Asking Sentinels where the master is: before connecting to it, and from then on whether it is still there.
//!
//! <https://redis.io/docs/latest/develop/reference/sentinel-clients/>

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use redis::cmd;

use super::error::{ConnectionError, ServerError};
use super::exchange::{Exchange, Timeouts, unexpected};
use super::patience::Patience;
use super::resp::Reply;
use super::url::{Address, Endpoint, Sentinels};

/// Between two questions whether the master is still the same. After a failover that left the old master alive, the Sentinels
/// tell of the new one at once, but may take ten seconds to demote the old one.
const INTERVAL: Duration = Duration::from_secs(1);
/// All Sentinels together may take so long to answer that question.
const INQUIRY: Duration = Duration::from_secs(2);

/// Where the Sentinels say the master is; blocks until `deadline` at the latest.
///
/// # Errors
/// [`ConnectionError::NoMaster`] with the reason of each Sentinel.
pub fn master_of(sentinels: &Sentinels, deadline: Instant) -> Result<Address, ConnectionError> {
    find_master(sentinels, Patience::new(&|| false), deadline)
}

/// The same, broken off when `patience` says so.
///
/// They are asked in turn, each in its share of the time, until more than half of them agree: one that was cut off from the
/// others may still tell of an old master. When no address gets so far, the one told most often is taken, of equals the first.
///
/// # Errors
/// [`ConnectionError::NoMaster`] with the reason of each Sentinel, [`ConnectionError::Stopped`].
pub(super) fn find_master(
    sentinels: &Sentinels,
    patience: Patience<'_>,
    deadline: Instant,
) -> Result<Address, ConnectionError> {
    let total = sentinels.addresses.len();
    let mut told: Vec<(Address, usize)> = Vec::new();
    let mut reasons = Vec::new();
    for (asked, sentinel) in sentinels.addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(total - asked).unwrap_or(u32::MAX);
        let master = match ask(sentinels, sentinel, patience, share) {
            Ok(master) => master,
            Err(ConnectionError::Stopped) => return Err(ConnectionError::Stopped),
            Err(error) => {
                reasons.push(format!("{sentinel}: {error}"));
                continue;
            }
        };
        let votes = match told.iter_mut().find(|(other, _)| *other == master) {
            Some((_, votes)) => {
                *votes += 1;
                *votes
            }
            None => {
                told.push((master.clone(), 1));
                1
            }
        };
        if votes * 2 > total {
            return Ok(master);
        }
    }
    // The last of equals is what max_by_key takes.
    let most = told.into_iter().rev().max_by_key(|(_, votes)| *votes);
    most.map(|(master, _)| master)
        .ok_or_else(|| ConnectionError::NoMaster { master: sentinels.master.clone(), reasons: reasons.join("; ") })
}

/// Asks one Sentinel, which need know neither HELLO nor SELECT.
fn ask(
    sentinels: &Sentinels,
    sentinel: &Address,
    patience: Patience<'_>,
    share: Duration,
) -> Result<Address, ConnectionError> {
    let endpoint = Endpoint::Tcp { host: sentinel.host.clone(), port: sentinel.port };
    // Half of the time for the connection, a quarter for each of two replies.
    let timeouts = Timeouts { connect: share / 2, silence: share / 4, reply: share / 4 };
    let mut exchange = Exchange::open(&endpoint, timeouts, patience)?;
    let mut packed = Vec::new();
    let credentials = sentinels.login.credentials();
    if let Some((user, password)) = credentials {
        let mut auth = cmd("AUTH");
        // Sentinels before version 6 know no users.
        if user != "default" {
            auth.arg(user);
        }
        auth.arg(password).write_packed_command(&mut packed);
    }
    cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&sentinels.master).write_packed_command(&mut packed);
    exchange.send(&packed)?;
    if let Some((_, password)) = credentials {
        exchange.reply(|reply| match reply {
            Reply::Error(text) => Err(ServerError::without(text, password.as_bytes())),
            _ => Ok(()),
        })??;
    }
    exchange.reply(|reply| match &reply {
        Reply::Null => Err(ConnectionError::UnknownMaster),
        Reply::Error(text) => Err(ServerError::new(text).into()),
        _ => address(&reply).ok_or_else(|| unexpected(&reply)),
    })?
}

fn address(reply: &Reply<'_>) -> Option<Address> {
    let Reply::Array(parts) = reply else { return None };
    let [Reply::Text(host), Reply::Text(port)] = parts.as_slice() else { return None };
    let host = str::from_utf8(host).ok().filter(|host| !host.is_empty())?.to_owned();
    let port = str::from_utf8(port).ok()?.parse().ok().filter(|port| *port != 0)?;
    Some(Address { host, port })
}

/// Asks from time to time whether the master is still where it was.
///
/// On a thread of its own, so that a Sentinel that is slow or gone delays nothing.
pub(super) struct Watch {
    sentinels: Sentinels,
    master: Address,
    ask_at: Instant,
    inquiry: Option<Inquiry>,
}

impl Watch {
    pub(super) fn new(sentinels: Sentinels, master: Address) -> Self {
        Self { sentinels, master, ask_at: Instant::now() + INTERVAL, inquiry: None }
    }

    /// Where the master was, and its name.
    pub(super) fn master(&self) -> (&Address, &str) {
        (&self.master, &self.sentinels.master)
    }

    /// Looks whether an answer has come, and asks when it is time. Never waits. Sentinels that do not answer are no news: the
    /// master still says of itself what it is.
    ///
    /// # Errors
    /// [`ConnectionError::Moved`] when the master is elsewhere.
    pub(super) fn check(&mut self) -> Result<(), ConnectionError> {
        let answer = match &self.inquiry {
            Some(inquiry) => inquiry.answer.try_recv(),
            None if Instant::now() >= self.ask_at => {
                self.inquiry = Inquiry::begin(self.sentinels.clone());
                Err(TryRecvError::Empty)
            }
            None => return Ok(()),
        };
        match answer {
            Ok(now) if now != self.master => {
                Err(ConnectionError::Moved { from: self.master.to_string(), to: now.to_string() })
            }
            Err(TryRecvError::Empty) if self.inquiry.is_some() => Ok(()),
            _ => {
                self.inquiry = None;
                self.ask_at = Instant::now() + INTERVAL;
                Ok(())
            }
        }
    }
}

/// A question under way. It is broken off when this is dropped.
struct Inquiry {
    answer: Receiver<Address>,
    broken_off: Arc<AtomicBool>,
}

impl Inquiry {
    /// Begins to ask; `None` when there is no thread to be had.
    fn begin(sentinels: Sentinels) -> Option<Self> {
        let (answer, answered) = sync_channel(1);
        let broken_off = Arc::new(AtomicBool::new(false));
        let inquiry = Self { answer: answered, broken_off: Arc::clone(&broken_off) };
        let inquire = move || {
            let stop = || broken_off.load(Relaxed);
            if let Ok(master) = find_master(&sentinels, Patience::new(&stop), Instant::now() + INQUIRY) {
                // Nobody waits any more when the connection is gone.
                let _ = answer.send(master);
            }
        };
        thread::Builder::new().name("urlproxy-watch".into()).spawn(inquire).ok().map(|_| inquiry)
    }
}

impl Drop for Inquiry {
    fn drop(&mut self) {
        self.broken_off.store(true, Relaxed);
    }
}
