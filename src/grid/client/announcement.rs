//! One service at all proxies of the active-proxy file, each on its own, as the file changes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::active_proxy::{self, Proxy};
use super::record::Record;
use super::registration::{Patience, Refusal, Registration, Service, Stop, stopped};
use super::renewal;
use crate::backoff::Backoff;

/// Tries to unregister from one proxy within the time there is for it.
const TRIES: usize = 5;
/// For unregistering from a proxy that has left the file.
const LEAVING: Duration = Duration::from_secs(10);
/// Somebody may be writing the file: a proxy has left it when the next look, sooner than others, does not find it either.
const LOOK_CLOSER: u32 = 10;

/// What is announced, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The file with the proxies, looked at again and again; without one nobody is to be told.
    pub file: Option<PathBuf>,
    /// What is registered.
    pub service: Service,
    /// With how much patience. A refusal ends something only where there is an end to it.
    pub patience: Patience,
    /// How often each proxy is told again, and the file is looked at.
    pub interval: Duration,
    /// Where it is written down what is registered.
    pub record: Arc<Record>,
}

/// Who is told, and how far that is.
#[derive(Debug)]
pub struct Announcement {
    plan: Plan,
    told: Vec<Told>,
    running: JoinSet<(Registration, Option<Refusal>)>,
    ended: Vec<Registration>,
    is_over: bool,
    pause: Backoff,
    next_look: Instant,
    unreadable: Option<String>,
}

/// A proxy with a task of its own.
#[derive(Debug)]
struct Told {
    proxy: Proxy,
    stop: watch::Sender<Option<Instant>>,
    is_missed: bool,
}

/// What whoever runs the command has to know.
#[derive(Debug)]
pub enum News {
    /// The service will never be had; why.
    Refused(Refusal),
    /// After [`Announcement::withdraw`]: everything that can be done is done.
    Withdrawn,
}

impl Announcement {
    /// Begins telling the proxies, each as soon as a server of ours listens.
    pub fn begin(plan: Plan, proxies: Vec<Proxy>) -> Self {
        let mut pause = Backoff::between(plan.interval, plan.interval);
        let next_look = Instant::now() + pause.next_delay();
        let (running, told, ended) = (JoinSet::new(), Vec::new(), Vec::new());
        let mut this = Self { plan, told, running, ended, is_over: false, pause, next_look, unreadable: None };
        let patience = this.plan.patience;
        for proxy in proxies {
            this.tell(proxy, patience);
        }
        this
    }

    /// Where the command listens.
    pub fn port(&self) -> u16 {
        self.plan.service.port
    }

    fn tell(&mut self, proxy: Proxy, patience: Patience) {
        let (stop, stopping) = watch::channel(None);
        // One that was told before: what is known of it still holds.
        let before = self.ended.iter().position(|registration| *registration.proxy() == proxy);
        let registration = match before {
            Some(index) => self.ended.swap_remove(index),
            None => Registration::new(proxy.clone(), self.plan.service, Arc::clone(&self.plan.record)),
        };
        self.running.spawn(attend(registration, patience, self.plan.interval, stopping));
        self.told.push(Told { proxy, stop, is_missed: false });
    }

    /// Waits for something to know. With nobody to tell, that is for ever. May be given up and begun again.
    pub async fn news(&mut self) -> News {
        loop {
            if self.is_over && self.running.is_empty() {
                return News::Withdrawn;
            }
            tokio::select! {
                Some(ended) = self.running.join_next() => {
                    // A task that panicked has said so.
                    let Ok((registration, refusal)) = ended else { continue };
                    self.told.retain(|told| told.proxy != *registration.proxy());
                    self.ended.push(registration);
                    if let Some(refusal) = refusal {
                        return News::Refused(refusal);
                    }
                }
                () = sleep_until(self.next_look), if !self.is_over => self.look(),
                else => std::future::pending().await,
            }
        }
    }

    /// Reads the file again: who is new in it is told, who has left it is told for the last time.
    fn look(&mut self) {
        let pause = self.pause.next_delay();
        self.next_look = Instant::now() + pause;
        let Some(file) = &self.plan.file else { return };
        let proxies = match active_proxy::read(file) {
            Ok(proxies) => proxies,
            Err(error) => {
                if self.unreadable.is_none() {
                    warn!("{error}: keeping the proxies read before");
                }
                self.unreadable = Some(error.to_string());
                return;
            }
        };
        if self.unreadable.take().is_some() {
            info!("{file:?} is read again");
        }
        for told in &mut self.told {
            let was_missed = std::mem::replace(&mut told.is_missed, !proxies.contains(&told.proxy));
            if was_missed && told.is_missed && told.stop.borrow().is_none() {
                info!("{} is no longer in {file:?}: unregistering", told.proxy);
                told.stop.send_replace(Some(Instant::now() + LEAVING));
            } else if told.is_missed && !was_missed {
                self.next_look = Instant::now() + pause / LOOK_CLOSER;
            }
        }
        // One that has just left is told anew when it has been told of that.
        let is_told = |proxy: &Proxy| self.told.iter().any(|told| told.proxy == *proxy);
        let new: Vec<_> = proxies.into_iter().filter(|proxy| !is_told(proxy)).collect();
        for proxy in new {
            info!("{proxy} is new: registering");
            // The service is there already: nothing that this proxy says ends it.
            self.tell(proxy, Patience { within: None, leaves_others_port: false });
        }
    }

    /// Begins taking back what any proxy may know. The first time: once it has answered what it was last asked.
    pub fn withdraw(&mut self, by: Instant) {
        self.is_over = true;
        for told in &self.told {
            told.stop.send_replace(Some(by));
        }
        for mut registration in self.ended.drain(..).filter(Registration::may_be_known) {
            self.running.spawn(async move {
                let _ = registration.unregister(by, TRIES).await;
                (registration, None)
            });
        }
    }

    /// Takes everything back, whatever was begun, and ends.
    pub async fn end(mut self, by: Instant) {
        self.is_over = true;
        for told in &self.told {
            told.stop.send_replace(Some(by));
        }
        while !matches!(self.news().await, News::Withdrawn) {}
        self.withdraw(by);
        while !matches!(self.news().await, News::Withdrawn) {}
    }
}

/// Registers, renews until the end, unregisters.
async fn attend(
    mut registration: Registration,
    patience: Patience,
    interval: Duration,
    mut stop: Stop,
) -> (Registration, Option<Refusal>) {
    let mut stop_waiting = stop.clone();
    let served = tokio::select! {
        served = registration.served(patience) => served,
        () = stopped(&mut stop_waiting) => Err(Refusal::Stopped),
    };
    let mut outcome = served;
    if outcome.is_ok() {
        outcome = registration.register(&mut stop).await;
        if outcome.is_ok() {
            outcome = renewal::keep(&mut registration, interval, &mut stop).await;
        }
    }
    match outcome {
        Ok(()) | Err(Refusal::Stopped) => {}
        Err(refusal) if patience.within.is_some() => return (registration, Some(refusal)),
        Err(refusal) => error!("{refusal}: not registered there"),
    }
    stopped(&mut stop).await;
    let by = stop.borrow().unwrap_or_else(Instant::now);
    // Told in the log; tried again at the end.
    let _ = registration.unregister(by, TRIES).await;
    (registration, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn a_proxy_has_left_the_file_when_two_looks_say_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hour = Duration::from_secs(3600);
        let plan = Plan {
            file: Some(file.path().to_owned()),
            // Nobody listens there: nothing is ever sent.
            service: Service { port: 0, canonical: false, uid: 0 },
            patience: Patience { within: None, leaves_others_port: false },
            interval: hour,
            record: Arc::default(),
        };
        let proxies = active_proxy::parse_active_proxies(b"127.0.0.1:1\n127.0.0.1:2\n").unwrap();
        let mut announcement = Announcement::begin(plan, proxies);
        let begun = Instant::now();
        let mut look = |content: &str| {
            fs::write(file.path(), content).unwrap();
            announcement.look();
            let stopped = announcement.told.iter().filter(|told| told.stop.borrow().is_some()).count();
            (announcement.told.len(), stopped, announcement.next_look < begun + hour / 5)
        };
        let (one, both) = ("127.0.0.1:2\n", "127.0.0.1:1\n127.0.0.1:2\n");
        // Empty, or half written; each time the next look is soon.
        for (content, want) in [
            ("", (2, 0, true)),
            (both, (2, 0, false)),
            (one, (2, 0, true)),
            (both, (2, 0, false)),
            ("wrong line\n", (2, 0, false)),
            (one, (2, 0, true)),
            (one, (2, 1, false)),
            // It is told anew when it has been told of its end.
            (both, (2, 1, false)),
        ] {
            assert_eq!(look(content), want, "{content:?}");
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while announcement.told.len() > 1 {
            tokio::select! {
                news = announcement.news() => panic!("{news:?}"),
                () = tokio::time::sleep(Duration::from_millis(10)) => assert!(Instant::now() < deadline, "it stays"),
            }
        }
        announcement.look();
        let told: Vec<_> = announcement.told.iter().map(|told| told.proxy.to_string()).collect();
        assert_eq!(told, ["127.0.0.1:2", "127.0.0.1:1"]);
        assert!(announcement.told.iter().all(|told| told.stop.borrow().is_none()));
    }
}
