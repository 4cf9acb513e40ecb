//! Resolves host names of backends.
//!
//! Tenants control their DNS: lookups may be slow, and answers may change at any time. So a tenant has few lookups at a time, a lookup
//! only refuses plainly wrong backends, and a late lookup refuses nothing. Operators who do not trust tenants list networks, which
//! excludes host names.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, ToSocketAddrs};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::daemon::ConcurrencyLimiter;
use crate::redis_client::MAX_SENTINELS;
use crate::route::MAX_BACKENDS;

/// Host names and their addresses. Names without a known address may be missing.
pub type Resolved = HashMap<Box<str>, Vec<IpAddr>>;

/// The limit of active lookups, of the project or in all, is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooManyLookups;

/// Time that a request waits for all its lookups together.
const DEADLINE: Duration = Duration::from_secs(2);
/// Active lookups of one project: all backends of a domain, the Sentinels and Redis. Late lookups count until they end.
const LOOKUPS_PER_PROJECT: usize = MAX_BACKENDS + MAX_SENTINELS + 1;
/// Active lookups of all projects together.
const LOOKUPS_IN_ALL: usize = 256;
/// Active lookups of a command.
const COMMAND_LOOKUPS: usize = 64;

/// Resolves names for requests.
#[derive(Debug)]
pub(super) struct Resolver {
    deadline: Duration,
    all: Arc<Semaphore>,
    of_project: ConcurrencyLimiter<String>,
}

impl Resolver {
    pub(super) fn new() -> Self {
        Self::with_deadline(DEADLINE)
    }

    fn with_deadline(deadline: Duration) -> Self {
        Self { deadline, all: Arc::new(Semaphore::new(LOOKUPS_IN_ALL)), of_project: ConcurrencyLimiter::default() }
    }

    /// Resolves a request's names; omits those that are not resolved in time.
    ///
    /// # Errors
    /// Too many lookups are active.
    pub(super) async fn look_up(&self, project: &str, names: BTreeSet<Box<str>>) -> Result<Resolved, TooManyLookups> {
        let deadline = Instant::now() + self.deadline;
        let mut lookups = Vec::new();
        for name in names {
            let of_project =
                self.of_project.try_acquire(project.to_owned(), LOOKUPS_PER_PROJECT).ok_or(TooManyLookups)?;
            let of_all = timeout_at(deadline, Arc::clone(&self.all).acquire_owned()).await;
            let of_all = of_all.ok().and_then(Result::ok).ok_or(TooManyLookups)?;
            // The system's resolver cannot be interrupted.
            lookups.push(tokio::task::spawn_blocking(move || {
                let addresses = addresses_of(&name);
                drop((of_project, of_all));
                (name, addresses)
            }));
        }
        let mut resolved = Resolved::new();
        for lookup in lookups {
            if let Ok(Ok((name, addresses))) = timeout_at(deadline, lookup).await {
                resolved.insert(name, addresses);
            }
        }
        Ok(resolved)
    }
}

/// Resolves names for an operator's command, and waits for all of them.
pub(super) fn look_up_all(names: BTreeSet<Box<str>>) -> Resolved {
    let mut names = names.into_iter().peekable();
    let mut resolved = Resolved::new();
    while names.peek().is_some() {
        let some: Vec<Box<str>> = names.by_ref().take(COMMAND_LOOKUPS).collect();
        thread::scope(|scope| {
            let lookups: Vec<_> = some.iter().map(|name| (name, scope.spawn(|| addresses_of(name)))).collect();
            for (name, lookup) in lookups {
                resolved.insert(name.clone(), lookup.join().unwrap_or_default());
            }
        });
    }
    resolved
}

fn addresses_of(name: &str) -> Vec<IpAddr> {
    (name, 0).to_socket_addrs().map(|addresses| addresses.map(|address| address.ip()).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_are_resolved_within_a_limit_per_project() {
        let resolver = Resolver::with_deadline(Duration::from_secs(120));
        let names: BTreeSet<Box<str>> = ["localhost".into(), "no-such-name.invalid".into()].into();
        let resolved = resolver.look_up("tools", names.clone()).await.unwrap();
        assert!(resolved["localhost"].iter().any(IpAddr::is_loopback), "{resolved:?}");
        assert!(resolved.get("no-such-name.invalid").is_none_or(Vec::is_empty));
        let slow: Vec<_> = (0..LOOKUPS_PER_PROJECT)
            .map(|_| resolver.of_project.try_acquire("tools".to_owned(), LOOKUPS_PER_PROJECT).unwrap())
            .collect();
        assert!(matches!(resolver.look_up("tools", names.clone()).await, Err(TooManyLookups)));
        assert!(!resolver.look_up("other", names).await.unwrap().is_empty());
        drop(slow);
        assert!(resolver.of_project.is_idle());
    }

    #[tokio::test]
    async fn all_names_of_a_domain_are_resolved_at_once() {
        let resolver = Resolver::with_deadline(Duration::from_secs(120));
        let names = (1..=MAX_BACKENDS + MAX_SENTINELS + 1).map(|number| format!("127.0.0.{number}").into());
        assert_eq!(resolver.look_up("tools", names.collect()).await.unwrap().len(), MAX_BACKENDS + MAX_SENTINELS + 1);
    }

    #[test]
    fn commands_resolve_all_names() {
        let names = (0..100).map(|number| format!("no-{number}.invalid").into()).chain(["localhost".into()]).collect();
        let resolved = look_up_all(names);
        assert!(resolved.len() == 101 && !resolved["localhost"].is_empty());
    }
}
