//! Logs hosts outside `--allow-client`, within limits.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::warn;

use super::protocol::Reply;

/// Each host is logged once in this period, and at most this many hosts.
const LOGGED_EVERY: Duration = Duration::from_secs(3600);
const MAX_LOGGED: usize = 100;

/// Which hosts were logged.
pub struct DeniedClients(Mutex<Logged>);

#[derive(Debug)]
struct Logged {
    since: Instant,
    hosts: HashSet<IpAddr>,
}

#[derive(Debug, PartialEq, Eq)]
enum LogLine {
    Host,
    NoMoreHosts,
    None,
}

impl DeniedClients {
    pub fn new() -> Self {
        Self(Mutex::new(Logged { since: Instant::now(), hosts: HashSet::new() }))
    }

    /// Logs a denied host.
    pub fn log(&self, host: IpAddr) {
        let reply = Reply::Fail.as_str();
        match self.0.lock().line(host, Instant::now()) {
            LogLine::Host => {
                warn!(peer = %host, reply, "connection refused; host is not in --allow-client (logged once an hour)");
            }
            LogLine::NoMoreHosts => {
                warn!(
                    "{MAX_LOGGED} hosts outside --allow-client within an hour; further hosts are counted, not logged"
                );
            }
            LogLine::None => {}
        }
    }
}

impl Logged {
    fn line(&mut self, host: IpAddr, now: Instant) -> LogLine {
        if now.saturating_duration_since(self.since) >= LOGGED_EVERY {
            (self.since, self.hosts) = (now, HashSet::new());
        }
        if self.hosts.len() > MAX_LOGGED || !self.hosts.insert(host) {
            return LogLine::None;
        }
        if self.hosts.len() > MAX_LOGGED { LogLine::NoMoreHosts } else { LogLine::Host }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_host_is_logged_once_an_hour_up_to_a_limit() {
        let begun = Instant::now();
        let mut logged = Logged { since: begun, hosts: HashSet::new() };
        let host = |number: u32| IpAddr::V4(number.into());
        assert_eq!((logged.line(host(0), begun), logged.line(host(0), begun)), (LogLine::Host, LogLine::None));
        for number in 1..100 {
            assert_eq!(logged.line(host(number), begun), LogLine::Host, "{number}");
        }
        assert_eq!(logged.line(host(100), begun), LogLine::NoMoreHosts);
        for number in 0..1000 {
            assert_eq!(logged.line(host(number), begun), LogLine::None, "{number}");
        }
        assert_eq!(logged.hosts.len(), 101);
        assert_eq!(logged.line(host(0), begun + LOGGED_EVERY), LogLine::Host);
    }
}
