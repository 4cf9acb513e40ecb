//! One service at all proxies of the active-proxy file, each on its own, as the file changes.

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

/// Tries to unregister from one proxy within the time there is for it.
const TRIES: usize = 5;
/// For unregistering from a proxy that has left the file.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Somebody may be writing the file: a proxy has left it when the next look, sooner than others, does not find it either.
const RECHECK_FACTOR: u32 = 10;

/// What is announced, and how.
#[derive(Clone, Debug)]
pub struct AnnouncementConfig {
    /// The file with the proxies, looked at again and again; without one nobody is to be task.
    pub file: Option<PathBuf>,
    /// What is registered.
    pub service: Service,
    /// With how much wait. A error ends something only where there is an end to it.
    pub wait: ListenWait,
    /// How often each proxy is told again, and the file is looked at.
    pub interval: Duration,
    /// Where it is written down what is registered.
    pub record: Arc<JobRecord>,
}

/// Who is told, and how far that is.
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

/// A proxy with a task of its own.
#[derive(Debug)]
struct ProxyTask {
    proxy: Proxy,
    stop: watch::Sender<Option<Instant>>,
    is_missing: bool,
}

/// What whoever runs the command has to know.
#[derive(Debug)]
pub enum Event {
    /// The service will never be had; why.
    Failed(RegistrationError),
    /// After [`Announcement::withdraw`]: everything that can be done is done.
    Unregistered,
}

impl Announcement {
    /// Begins telling the proxies, each as soon as a server of ours listens.
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

    /// Where the command listens.
    pub fn port(&self) -> u16 {
        self.config.service.port
    }

    fn start_task(&mut self, proxy: Proxy, wait: ListenWait) {
        let (stop, stopping) = watch::channel(None);
        // One that was told before: what is known of it still holds.
        let before = self.ended.iter().position(|registration| *registration.proxy() == proxy);
        let registration = match before {
            Some(index) => self.ended.swap_remove(index),
            None => ProxyRegistration::new(proxy.clone(), self.config.service, Arc::clone(&self.config.record)),
        };
        self.running.spawn(maintain(registration, wait, self.config.interval, stopping));
        self.tasks.push(ProxyTask { proxy, stop, is_missing: false });
    }

    /// Waits for something to know. With nobody to tell, that is for ever. May be given up and begun again.
    pub async fn next_event(&mut self) -> Event {
        loop {
            if self.is_ending && self.running.is_empty() {
                return Event::Unregistered;
            }
            tokio::select! {
                Some(ended) = self.running.join_next() => {
                    // A task that panicked has said so.
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

    /// Reads the file again: who is new in it is told, who has left it is told for the last time.
    fn reread_file(&mut self) {
        let pause = self.pause.next_delay();
        self.next_read = Instant::now() + pause;
        let Some(file) = &self.config.file else { return };
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
        for task in &mut self.tasks {
            let was_missing = std::mem::replace(&mut task.is_missing, !proxies.contains(&task.proxy));
            if was_missing && task.is_missing && task.stop.borrow().is_none() {
                info!("{} is no longer in {file:?}: unregistering", task.proxy);
                task.stop.send_replace(Some(Instant::now() + LEAVE_TIMEOUT));
            } else if task.is_missing && !was_missing {
                self.next_read = Instant::now() + pause / RECHECK_FACTOR;
            }
        }
        // One that has just left is told anew when it has been told of that.
        let is_known = |proxy: &Proxy| self.tasks.iter().any(|task| task.proxy == *proxy);
        let new: Vec<_> = proxies.into_iter().filter(|proxy| !is_known(proxy)).collect();
        for proxy in new {
            info!("{proxy} is new: registering");
            // The service is there already: nothing that this proxy says ends it.
            self.start_task(proxy, ListenWait { timeout: None, fail_on_foreign_server: false });
        }
    }

    /// Begins taking back what any proxy may know. The first time: once it has answered what it was last asked.
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

    /// Takes everything back, whatever was begun, and ends.
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

/// Registers, renews until the end, unregisters.
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
        Err(error) => error!("{error}: not registered there"),
    }
    stop_requested(&mut stop).await;
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
        let config = AnnouncementConfig {
            file: Some(file.path().to_owned()),
            // Nobody listens there: nothing is ever sent.
            service: Service { port: 0, canonical: false, uid: 0 },
            wait: ListenWait { timeout: None, fail_on_foreign_server: false },
            interval: hour,
            record: Arc::default(),
        };
        let proxies = active_proxy::parse_active_proxies(b"127.0.0.1:1\n127.0.0.1:2\n").unwrap();
        let mut announcement = Announcement::begin(config, proxies);
        let begun = Instant::now();
        let mut look = |content: &str| {
            fs::write(file.path(), content).unwrap();
            announcement.reread_file();
            let stopping = announcement.tasks.iter().filter(|task| task.stop.borrow().is_some()).count();
            (announcement.tasks.len(), stopping, announcement.next_read < begun + hour / 5)
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
