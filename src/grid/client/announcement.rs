//! One service at all proxies, each on its own.

use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::active_proxy::Proxy;
use super::registration::{Refusal, Registration, Service, Stop, stopped};

/// Tries to unregister from one proxy within the time there is for it.
const TRIES: usize = 5;

/// Who is told, and how far that is.
#[derive(Debug)]
pub struct Announcement {
    stop: watch::Sender<Option<Instant>>,
    running: JoinSet<(Registration, Option<Refusal>)>,
    ended: Vec<Registration>,
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
    /// Begins telling the proxies, each as soon as a server of `uid` listens, for which they wait so long.
    pub fn begin(proxies: Vec<Proxy>, port: u16, canonical: bool, uid: u32, patience: Duration) -> Self {
        let (stop, stopping) = watch::channel(None);
        let mut running = JoinSet::new();
        for proxy in proxies {
            let service = Service { port, canonical, server_of: Some(uid) };
            running.spawn(announce(Registration::new(proxy, service), uid, patience, stopping.clone()));
        }
        Self { stop, running, ended: Vec::new() }
    }

    /// Waits for something to know. With nobody to tell, that is for ever.
    pub async fn news(&mut self) -> News {
        while let Some(ended) = self.running.join_next().await {
            // A task that panicked has said so.
            let Ok((registration, refusal)) = ended else { continue };
            self.ended.push(registration);
            if let Some(refusal) = refusal {
                return News::Refused(refusal);
            }
        }
        if self.stop.borrow().is_none() {
            std::future::pending::<()>().await;
        }
        News::Withdrawn
    }

    /// Begins taking back what any proxy may know. The first time: once it has answered what it was last asked.
    pub fn withdraw(&mut self, by: Instant) {
        self.stop.send_replace(Some(by));
        for mut registration in self.ended.drain(..).filter(Registration::may_be_known) {
            self.running.spawn(async move {
                let _ = registration.unregister(by, TRIES).await;
                (registration, None)
            });
        }
    }

    /// Takes everything back, whatever was begun, and ends.
    pub async fn end(mut self, by: Instant) {
        self.stop.send_replace(Some(by));
        while !matches!(self.news().await, News::Withdrawn) {}
        self.withdraw(by);
        while !matches!(self.news().await, News::Withdrawn) {}
    }
}

/// Registers, waits for the end, unregisters.
async fn announce(
    mut registration: Registration,
    uid: u32,
    patience: Duration,
    mut stop: Stop,
) -> (Registration, Option<Refusal>) {
    let mut stop_waiting = stop.clone();
    let served = tokio::select! {
        served = registration.served(uid, patience) => served,
        () = stopped(&mut stop_waiting) => Err(Refusal::Stopped),
    };
    let refusal = match served {
        Ok(()) => registration.register(&mut stop).await.err(),
        Err(refusal) => Some(refusal),
    };
    let refusal = refusal.filter(|refusal| !matches!(refusal, Refusal::Stopped));
    if refusal.is_none() {
        stopped(&mut stop).await;
        let by = stop.borrow().unwrap_or_else(Instant::now);
        // Told in the log; tried again at the end.
        let _ = registration.unregister(by, TRIES).await;
    }
    (registration, refusal)
}
