//! Foreign domains: domains in Redis that the database never had, e.g. those of the old API before their import.

use std::path::PathBuf;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::daemon::log_accept_error;
use crate::withdrawal_guard::{AcceptFile, Accepted};

/// Keeps foreign domains in Redis until the operator accepts their removal.
#[derive(Debug)]
pub(super) struct ForeignDomains {
    file: Option<PathBuf>,
    /// Set while there are foreign domains.
    acceptance: Option<AcceptFile>,
    is_logged: bool,
}

impl ForeignDomains {
    /// The operator touches `file` to accept the removal.
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self { file, acceptance: None, is_logged: false }
    }

    /// Whether the database may take ownership of this Redis: it has no foreign domains, or the operator accepts their removal.
    pub(super) fn may_remove(&mut self, foreign: usize, now: Instant) -> bool {
        if foreign == 0 {
            self.clear();
            return true;
        }
        let accepted = self.take_accepted(now);
        if let Some(Accepted::Only(_)) = accepted {
            warn!(
                foreign,
                "accept file has names; foreign domains are kept, as only an empty file accepts their removal"
            );
        }
        if accepted == Some(Accepted::All) {
            warn!(foreign, "accept file touched; removing from Redis the domains that this database never had");
            self.clear();
            return true;
        }
        if std::mem::replace(&mut self.is_logged, true) {
            debug!(foreign, "domains that this database never had are still kept");
        } else {
            self.acceptance = self.file.as_deref().map(AcceptFile::new);
            let accept = self.file.as_ref().map_or("none".into(), |file| file.display().to_string());
            warn!(
                foreign,
                accept,
                "Redis has domains that this database never had; keeping them, import the old database to adopt them or touch the accept file to remove them"
            );
        }
        false
    }

    /// Whether the operator has touched the accept file since the domains were logged.
    pub(super) fn are_accepted(&mut self, now: Instant) -> bool {
        self.acceptance.as_mut().is_some_and(|acceptance| acceptance.is_ready(now.into_std()))
    }

    /// Takes what the accept file accepts, if it was touched; logs an invalid file.
    fn take_accepted(&mut self, now: Instant) -> Option<Accepted> {
        let file = self.acceptance.as_mut()?;
        let accepted = file.take(now.into_std())?;
        accepted.inspect_err(|error| log_accept_error(file.path(), error)).ok()
    }

    /// Whether the last resync found foreign domains.
    pub(super) fn are_present(&self) -> bool {
        self.is_logged
    }

    /// Records that there are no foreign domains.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_logged) {
            info!("Redis no longer has domains that this database never had");
        }
        self.acceptance = None;
    }
}
