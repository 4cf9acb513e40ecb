//! Registers one service with all proxies of the active-proxy file, independently, and follows changes of the file.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::active_proxy::{self, Proxy};
use super::job_record::JobRecord;
use super::registration::{ListenWait, ProxyRegistration, RegistrationError, Service, StopSignal, stop_requested};
use super::renewal;
use crate::backoff::Backoff;

/// Tries to unregister from one proxy before the deadline.
const TRIES: usize = 5;
/// Time to unregister from a proxy that was removed from the file.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// The file may be half written: a proxy counts as removed when a second read, this much sooner than usual, lacks it too.
const RECHECK_FACTOR: u32 = 10;

/// The service to announce, and how.
#[derive(Clone, Debug)]
pub struct AnnouncementConfig {
    /// The active-proxy file, reread at intervals; `None` to register nowhere.
    pub file: Option<PathBuf>,
    /// The service to register.
    pub service: Service,
    /// How long to wait for the server. Failures are reported as events only with a timeout.
    pub wait: ListenWait,
    /// Longest time between renewals, and between reads of the file.
    pub interval: Duration,
    /// Keeps the registrations for the epilog.
    pub record: Arc<JobRecord>,
}

/// The registrations of one service with all proxies.
#[derive(Debug)]
pub struct Announcement {
    config: AnnouncementConfig,
    tasks: Vec<ProxyTask>,
    running: JoinSet<(ProxyRegistration, Option<RegistrationError>)>,
    ended: Vec<ProxyRegistration>,
    is_ending: bool,
    pause: Backoff,
    next_read: Instant,
    unreadable: Option<String>,
}

/// A proxy, and the task that maintains its registration.
#[derive(Debug)]
struct ProxyTask {
    proxy: Proxy,
    stop: watch::Sender<Option<Instant>>,
    is_missing: bool,
}

/// An event for the supervisor of the command.
#[derive(Debug)]
pub enum Event {
    /// The service cannot be registered.
    Failed(RegistrationError),
    /// After [`Announcement::unregister_all`]: all attempts have ended.
    Unregistered,
}

impl Announcement {
    /// Starts to register with the proxies, as soon as the user's server listens.
    pub fn begin(config: AnnouncementConfig, proxies: Vec<Proxy>) -> Self {
        let mut pause = Backoff::between(config.interval, config.interval);
        let next_read = Instant::now() + pause.next_delay();
        let (running, tasks, ended) = (JoinSet::new(), Vec::new(), Vec::new());
        let mut this = Self { config, tasks, running, ended, is_ending: false, pause, next_read, unreadable: None };
        let wait = this.config.wait;
        for proxy in proxies {
            this.start_task(proxy, wait);
        }
        this
    }

    /// The service's port.
    pub fn port(&self) -> u16 {
        self.config.service.port
    }

    fn start_task(&mut self, proxy: Proxy, wait: ListenWait) {
        let (stop, stopping) = watch::channel(None);
        // A proxy that returns to the file keeps its earlier state.
        let before = self.ended.iter().position(|registration| *registration.proxy() == proxy);
        let registration = match before {
            Some(index) => self.ended.swap_remove(index),
            None => ProxyRegistration::new(proxy.clone(), self.config.service, Arc::clone(&self.config.record)),
        };
        self.running.spawn(maintain(registration, wait, self.config.interval, stopping));
        self.tasks.push(ProxyTask { proxy, stop, is_missing: false });
    }

    /// Waits for the next event; without a proxy, forever. Cancel safe.
    pub async fn next_event(&mut self) -> Event {
        loop {
            if self.is_ending && self.running.is_empty() {
                return Event::Unregistered;
            }
            tokio::select! {
                Some(ended) = self.running.join_next() => {
                    // The panic hook has logged a panic.
                    let Ok((registration, error)) = ended else { continue };
                    self.tasks.retain(|task| task.proxy != *registration.proxy());
                    self.ended.push(registration);
                    if let Some(error) = error {
                        return Event::Failed(error);
                    }
                }
                () = sleep_until(self.next_read), if !self.is_ending => self.reread_file(),
                else => std::future::pending().await,
            }
        }
    }

    /// Rereads the file: registers with added proxies, unregisters from removed ones.
    fn reread_file(&mut self) {
        let pause = self.pause.next_delay();
        self.next_read = Instant::now() + pause;
        let Some(file) = &self.config.file else { return };
        let proxies = match active_proxy::read(file) {
            Ok(proxies) => proxies,
            Err(error) => {
                if self.unreadable.is_none() {
                    warn!("{error}; keeping the previous proxies");
                }
                self.unreadable = Some(error.to_string());
                return;
            }
        };
        if self.unreadable.take().is_some() {
            info!("active-proxy file {file:?} is readable again");
        }
        for task in &mut self.tasks {
            let was_missing = std::mem::replace(&mut task.is_missing, !proxies.contains(&task.proxy));
            if was_missing && task.is_missing && task.stop.borrow().is_none() {
                info!("{} was removed from the active-proxy file; unregistering", task.proxy);
                task.stop.send_replace(Some(Instant::now() + LEAVE_TIMEOUT));
            } else if task.is_missing && !was_missing {
                self.next_read = Instant::now() + pause / RECHECK_FACTOR;
            }
        }
        // A removed proxy that returns waits until its task has unregistered.
        let is_known = |proxy: &Proxy| self.tasks.iter().any(|task| task.proxy == *proxy);
        let new: Vec<_> = proxies.into_iter().filter(|proxy| !is_known(proxy)).collect();
        for proxy in new {
            info!("{proxy} was added to the active-proxy file; registering");
            // The service runs already: a failure with this proxy does not end it.
            self.start_task(proxy, ListenWait { timeout: None, fail_on_foreign_server: false });
        }
    }

    /// Starts to unregister from all proxies. A task first awaits the reply to its last command.
    pub fn unregister_all(&mut self, by: Instant) {
        self.is_ending = true;
        for task in &self.tasks {
            task.stop.send_replace(Some(by));
        }
        for mut registration in self.ended.drain(..).filter(ProxyRegistration::may_be_registered) {
            self.running.spawn(async move {
                let _ = registration.unregister(by, TRIES).await;
                (registration, None)
            });
        }
    }

    /// Unregisters from all proxies, tries those that fail once more, and ends.
    pub async fn end(mut self, by: Instant) {
        self.is_ending = true;
        for task in &self.tasks {
            task.stop.send_replace(Some(by));
        }
        while !matches!(self.next_event().await, Event::Unregistered) {}
        self.unregister_all(by);
        while !matches!(self.next_event().await, Event::Unregistered) {}
    }
}

/// Registers with one proxy, renews until the stop signal, unregisters.
async fn maintain(
    mut registration: ProxyRegistration,
    wait: ListenWait,
    interval: Duration,
    mut stop: StopSignal,
) -> (ProxyRegistration, Option<RegistrationError>) {
    let mut stop_waiting = stop.clone();
    let outcome = tokio::select! {
        outcome = registration.wait_until_listening(wait) => outcome,
        () = stop_requested(&mut stop_waiting) => Err(RegistrationError::Stopped),
    };
    let mut outcome = outcome;
    if outcome.is_ok() {
        outcome = registration.register(&mut stop).await;
        if outcome.is_ok() {
            outcome = renewal::renew_until_stopped(&mut registration, interval, &mut stop).await;
        }
    }
    match outcome {
        Ok(()) | Err(RegistrationError::Stopped) => {}
        Err(error) if wait.timeout.is_some() => return (registration, Some(error)),
        Err(error) => error!("{error}; not registered there"),
    }
    stop_requested(&mut stop).await;
    let by = stop.borrow().unwrap_or_else(Instant::now);
    // The error is logged, and `end` tries again.
    let _ = registration.unregister(by, TRIES).await;
    (registration, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn proxy_is_removed_after_two_reads_without_it() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let hour = Duration::from_secs(3600);
        let config = AnnouncementConfig {
            file: Some(file.path().to_owned()),
            // Nothing listens there: nothing is ever sent.
            service: Service { port: 0, canonical: false, uid: 0 },
            wait: ListenWait { timeout: None, fail_on_foreign_server: false },
            interval: hour,
            record: Arc::default(),
        };
        let proxies = active_proxy::parse_active_proxies(b"127.0.0.1:1\n127.0.0.1:2\n").unwrap();
        let mut announcement = Announcement::begin(config, proxies);
        let begun = Instant::now();
        let mut reread = |content: &str| {
            fs::write(file.path(), content).unwrap();
            announcement.reread_file();
            let stopping = announcement.tasks.iter().filter(|task| task.stop.borrow().is_some()).count();
            (announcement.tasks.len(), stopping, announcement.next_read < begun + hour / 5)
        };
        let (one, both) = ("127.0.0.1:2\n", "127.0.0.1:1\n127.0.0.1:2\n");
        // Empty, or half written; each time the next read is soon.
        for (content, want) in [
            ("", (2, 0, true)),
            (both, (2, 0, false)),
            (one, (2, 0, true)),
            (both, (2, 0, false)),
            ("wrong line\n", (2, 0, false)),
            (one, (2, 0, true)),
            (one, (2, 1, false)),
            // It is registered again once it has been unregistered.
            (both, (2, 1, false)),
        ] {
            assert_eq!(reread(content), want, "{content:?}");
        }
        let deadline = Instant::now() + Duration::from_secs(60);
        while announcement.tasks.len() > 1 {
            tokio::select! {
                event = announcement.next_event() => panic!("{event:?}"),
                () = tokio::time::sleep(Duration::from_millis(10)) => assert!(Instant::now() < deadline, "it stays"),
            }
        }
        announcement.reread_file();
        let proxies: Vec<_> = announcement.tasks.iter().map(|task| task.proxy.to_string()).collect();
        assert_eq!(proxies, ["127.0.0.1:2", "127.0.0.1:1"]);
        assert!(announcement.tasks.iter().all(|task| task.stop.borrow().is_none()));
    }
}
