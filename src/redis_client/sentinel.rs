//! Asks Sentinels for the master's address, before connecting and regularly afterwards.
//!
//! <https://redis.io/docs/latest/develop/reference/sentinel-clients/>

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use redis::cmd;

use super::error::{ConnectionError, ServerError};
use super::exchange::{Exchange, Timeouts, unexpected};
use super::resp::Reply;
use super::url::{Address, Sentinels};
use super::waiter::Waiter;

/// How often to check with [`moved_master`]. After a failover with the old master alive, the Sentinels name the new one at once, but
/// may take ten seconds to demote the old one.
pub const MASTER_CHECK_INTERVAL: Duration = Duration::from_millis(400);
/// Timeout of such a check, for all Sentinels together.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest reply of a Sentinel, in bytes.
const MAX_REPLY_BYTES: usize = 64 << 10;
/// The longest name of a host in the DNS.
const MAX_HOST_BYTES: usize = 253;

/// The master's address according to the Sentinels; blocks until `deadline` at the latest.
///
/// # Errors
/// [`ConnectionError::NoMaster`] with the error of each Sentinel.
pub fn master_of(sentinels: &Sentinels, deadline: Instant) -> Result<Address, ConnectionError> {
    find_master(sentinels, Waiter::new(&|| false), deadline)
}

/// The address of the master if it is not `current` any more; blocks for a second at most, and ends early once `stop` returns true.
///
/// A failover takes a majority of all Sentinels, so less than half of them change nothing: one that is cut off from the others
/// still names a former master. Sentinels that do not answer change nothing either.
pub fn moved_master(sentinels: &Sentinels, current: &Address, stop: &dyn Fn() -> bool) -> Option<Address> {
    let answer = count_votes(sentinels, Waiter::new(stop), Instant::now() + CHECK_TIMEOUT);
    let (named, votes) = answer.ok()?;
    (named != *current && votes * 2 >= sentinels.addresses.len()).then_some(named)
}

/// Like [`master_of`], with a stop check.
///
/// Asks the Sentinels in turn, each within its share of the time, until more than half of them agree: an isolated Sentinel may
/// still name an old master. Without a majority the most frequent answer wins, and the first among equals, but never the master
/// that an earlier majority has replaced.
///
/// # Errors
/// [`ConnectionError::NoMaster`] with the error of each Sentinel, [`ConnectionError::Stopped`].
pub(super) fn find_master(
    sentinels: &Sentinels,
    waiter: Waiter<'_>,
    deadline: Instant,
) -> Result<Address, ConnectionError> {
    count_votes(sentinels, waiter, deadline).map(|(master, _)| master)
}

fn count_votes(
    sentinels: &Sentinels,
    waiter: Waiter<'_>,
    deadline: Instant,
) -> Result<(Address, usize), ConnectionError> {
    let total = sentinels.addresses.len();
    let mut answers: Vec<(Address, usize)> = Vec::new();
    let mut reasons = Vec::new();
    for (asked, sentinel) in sentinels.addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let share = left / u32::try_from(total - asked).unwrap_or(u32::MAX);
        let master = match ask(sentinels, sentinel, waiter, share) {
            Ok(master) => master,
            Err(ConnectionError::Stopped) => return Err(ConnectionError::Stopped),
            Err(error) => {
                reasons.push(format!("{sentinel}: {error}"));
                continue;
            }
        };
        let votes = match answers.iter_mut().find(|(other, _)| *other == master) {
            Some((_, votes)) => {
                *votes += 1;
                *votes
            }
            None => {
                answers.push((master.clone(), 1));
                1
            }
        };
        if votes * 2 > total {
            sentinels.note_master(&master);
            return Ok((master, votes));
        }
    }
    // What the former master still accepts is lost when it learns that it was replaced.
    answers.retain(|(master, _)| {
        let is_former = sentinels.is_former(master);
        if is_former {
            reasons.push(format!("{master} is the former master, according to an earlier majority"));
        }
        !is_former
    });
    // Reversed, because max_by_key returns the last of equals.
    let most = answers.into_iter().rev().max_by_key(|(_, votes)| *votes);
    most.ok_or_else(|| ConnectionError::NoMaster { master: sentinels.master.clone(), reasons: reasons.join("; ") })
}

/// Asks one Sentinel, without HELLO and SELECT, which Sentinels need not know.
fn ask(
    sentinels: &Sentinels,
    sentinel: &Address,
    waiter: Waiter<'_>,
    share: Duration,
) -> Result<Address, ConnectionError> {
    let endpoint = sentinels.endpoint(sentinel);
    // Half of the time for the connection, a quarter for each of two replies.
    let timeouts = Timeouts { connect: share / 2, silence: share / 4, reply: share / 4 };
    let mut exchange = Exchange::open(&endpoint, timeouts, waiter)?;
    exchange.limit_replies(MAX_REPLY_BYTES);
    let mut packed = Vec::new();
    let credentials = sentinels.credentials();
    if let Some((user, password)) = &credentials {
        let mut auth = cmd("AUTH");
        // Sentinels before version 6 have no users.
        if user != "default" {
            auth.arg(user);
        }
        auth.arg(password).write_packed_command(&mut packed);
    }
    cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(&sentinels.master).write_packed_command(&mut packed);
    exchange.send(&packed)?;
    if let Some((_, password)) = &credentials {
        exchange.reply(|reply| match reply {
            Reply::Error(text) => Err(ServerError::without(text, password.as_bytes())),
            _ => Ok(()),
        })??;
    }
    exchange.reply(|reply| match &reply {
        Reply::Null => Err(ConnectionError::UnknownMaster),
        Reply::Error(text) => Err(ServerError::new(text).into()),
        _ => address(&reply),
    })?
}

/// The master's address in a reply.
pub fn address(reply: &Reply<'_>) -> Result<Address, ConnectionError> {
    let Reply::Array(parts) = reply else { return Err(unexpected(reply)) };
    let [Reply::Text(host), Reply::Text(port)] = parts.as_slice() else { return Err(unexpected(reply)) };
    let host_name = str::from_utf8(host).ok().filter(|host| is_host(host)).map(str::to_owned);
    let port_number = str::from_utf8(port).ok().and_then(|port| port.parse().ok()).filter(|port| *port != 0);
    match (host_name, port_number) {
        (Some(host), Some(port)) => Ok(Address { host, port }),
        _ => Err(ConnectionError::InvalidMaster { host: ServerError::new(host), port: ServerError::new(port) }),
    }
}

/// Whether one server can have this name or address. It is shown in logs.
fn is_host(text: &str) -> bool {
    match text.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => match address.to_ipv4_mapped() {
            Some(address) => is_unicast(address),
            None => !address.is_unspecified() && !address.is_multicast(),
        },
        Ok(IpAddr::V4(address)) => is_unicast(address),
        Err(_) => {
            let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (1..=MAX_HOST_BYTES).contains(&text.len()) && text.bytes().all(is_valid)
        }
    }
}

/// A connection to the unspecified address would reach this host.
fn is_unicast(address: Ipv4Addr) -> bool {
    !address.is_unspecified() && !address.is_multicast() && !address.is_broadcast()
}

/// Checks regularly that the Sentinels still name the same master, on a separate thread, so that slow Sentinels delay nothing.
pub(super) struct MasterWatch {
    sentinels: Sentinels,
    master: Address,
    check_at: Instant,
    running: Option<MasterCheck>,
}

impl MasterWatch {
    pub(super) fn new(sentinels: Sentinels, master: Address) -> Self {
        Self { sentinels, master, check_at: Instant::now() + MASTER_CHECK_INTERVAL, running: None }
    }

    /// The master's address and name.
    pub(super) fn master(&self) -> (&Address, &str) {
        (&self.master, &self.sentinels.master)
    }

    /// Processes an answer, and begins a check if one is due. Never blocks. Sentinels that do not answer change nothing: ROLE
    /// still confirms the master.
    ///
    /// # Errors
    /// [`ConnectionError::MasterMoved`] if the Sentinels name another master.
    pub(super) fn check(&mut self) -> Result<(), ConnectionError> {
        if let Some(running) = &self.running {
            match running.answer.try_recv() {
                Ok(Some(to)) => {
                    let (from, to) = (self.master.to_string(), to.to_string());
                    return Err(ConnectionError::MasterMoved { from, to });
                }
                Ok(None) | Err(TryRecvError::Disconnected) => self.running = None,
                Err(TryRecvError::Empty) => return Ok(()),
            }
        }
        if Instant::now() >= self.check_at {
            self.check_at = Instant::now() + MASTER_CHECK_INTERVAL;
            self.running = MasterCheck::begin(self.sentinels.clone(), self.master.clone());
        }
        Ok(())
    }
}

/// A check in progress; dropping it cancels the check, and waits for the end of its thread, at most some 100 ms. nginx's master forks
/// after its first load: a lock that another thread holds then stays locked in the workers.
struct MasterCheck {
    /// The new master, if there is one.
    answer: Receiver<Option<Address>>,
    is_cancelled: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MasterCheck {
    /// Begins a check; `None` if no thread can be started.
    fn begin(sentinels: Sentinels, current: Address) -> Option<Self> {
        let (answer, answered) = sync_channel(1);
        let is_cancelled = Arc::new(AtomicBool::new(false));
        let mut running = Self { answer: answered, is_cancelled: Arc::clone(&is_cancelled), thread: None };
        let check = move || {
            let moved = moved_master(&sentinels, &current, &|| is_cancelled.load(Relaxed));
            // Fails if the connection is gone.
            let _ = answer.send(moved);
        };
        running.thread = Some(thread::Builder::new().name("urlproxy-watch".into()).spawn(check).ok()?);
        Some(running)
    }
}

impl Drop for MasterCheck {
    fn drop(&mut self) {
        self.is_cancelled.store(true, Relaxed);
        // An error is a panic, which the thread has reported.
        self.thread.take().map(JoinHandle::join);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::TcpListener;

    use super::super::url::{Reach, RedisUrl};
    use super::*;

    #[test]
    fn dropped_watch_leaves_no_thread() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        silent.set_nonblocking(true).unwrap();
        let url: RedisUrl = format!("sentinel://{}/m", silent.local_addr().unwrap()).parse().unwrap();
        let Reach::Sentinels(sentinels) = url.reach() else { panic!("{url}") };
        let mut watch = MasterWatch::new(sentinels.clone(), Address { host: "h".into(), port: 1 });
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut asked = loop {
            assert!(watch.check().is_ok() && Instant::now() < deadline);
            match silent.accept() {
                Ok((stream, _)) => break stream,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            thread::sleep(Duration::from_millis(1));
        };
        drop(watch);
        asked.set_nonblocking(true).unwrap();
        let end = asked.read_to_end(&mut Vec::new());
        assert!(end.is_ok(), "the thread still waits: {end:?}");
    }

    #[test]
    fn masters_have_one_address() {
        let named = |host: &[u8], port: &[u8]| {
            let address = address(&Reply::Array(vec![Reply::Text(host), Reply::Text(port)]));
            address.map_or_else(|error| error.to_string(), |address| address.to_string())
        };
        for (host, want) in [
            ("10.0.0.1", "10.0.0.1:6379"),
            ("127.0.0.1", "127.0.0.1:6379"),
            ("2001:db8::7", "[2001:db8::7]:6379"),
            ("redis_1.Example.org", "redis_1.Example.org:6379"),
        ] {
            assert_eq!(named(host.as_bytes(), b"6379"), want);
        }
        let long = "h".repeat(MAX_HOST_BYTES + 1);
        for host in
            ["", "0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1", "::ffff:0.0.0.0", "a b", "a/b", &long]
        {
            let text = named(host.as_bytes(), b"6379");
            let shown = &host[..host.len().min(ServerError::MAX_BYTES)];
            let want =
                format!("invalid address of the master: host \"{shown}\", port \"6379\", expected e.g. \"10.0.0.1\"");
            assert!(text.starts_with(&want), "{text}");
        }
        for port in ["", "0", "-1", "65536", "6379x"] {
            assert!(named(b"h", port.as_bytes()).contains(&format!("port \"{port}\"")), "{port}");
        }
        let odd = named(b"h\n[error] all is lost\xff", b"6379");
        assert!(odd.contains(r#"host "h\n[error] all is lost\xff""#), "{odd}");
        for reply in
            [Reply::Integer(1), Reply::Array(vec![Reply::Text(b"h")]), Reply::Array(vec![Reply::Null, Reply::Null])]
        {
            assert!(address(&reply).unwrap_err().to_string().starts_with("unexpected reply "), "{reply:?}");
        }
    }
}
