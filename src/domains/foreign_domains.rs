//! Domains in a Redis that a new database has never had: somebody else's, or the old API's that are yet to be imported.

use std::path::PathBuf;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::daemon::log_accept_error;
use crate::withdrawal_guard::{AcceptFile, Accepted};

/// Lets foreign stay until the operator says otherwise.
#[derive(Debug)]
pub(super) struct ForeignDomains {
    file: Option<PathBuf>,
    /// While there are some.
    acceptance: Option<AcceptFile>,
    is_logged: bool,
}

impl ForeignDomains {
    /// The operator touches `file` to have them removed.
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self { file, acceptance: None, is_logged: false }
    }

    /// Whether the database may have this Redis for its own: there are none of them, or the operator has said so.
    pub(super) fn judge(&mut self, foreign: usize, now: Instant) -> bool {
        if foreign == 0 {
            self.clear();
            return true;
        }
        let accepted = self.take_accepted(now);
        if let Some(Accepted::Only(_)) = accepted {
            warn!(
                foreign,
                "the file has names in it; domains that this database never had go all or none: empty the file"
            );
        }
        if accepted == Some(Accepted::All) {
            warn!(foreign, "removing domains that this database never had: accepted by the operator");
            self.clear();
            return true;
        }
        if std::mem::replace(&mut self.is_logged, true) {
            debug!(foreign, "domains that this database never had still stay");
        } else {
            self.acceptance = self.file.as_deref().map(AcceptFile::new);
            let accept = self.file.as_ref().map_or("none".into(), |file| file.display().to_string());
            warn!(
                foreign,
                accept,
                "Redis has domains that this database never had; they stay: import the old database, or touch that file to have them removed"
            );
        }
        false
    }

    /// The operator has said so since they were logged.
    pub(super) fn are_accepted(&mut self, now: Instant) -> bool {
        self.acceptance.as_mut().is_some_and(|acceptance| acceptance.is_ready(now.into_std()))
    }

    /// What the operator has said since, if anything; a file that accepts nothing is logged.
    fn take_accepted(&mut self, now: Instant) -> Option<Accepted> {
        let file = self.acceptance.as_mut()?;
        let accepted = file.take(now.into_std())?;
        accepted.inspect_err(|error| log_accept_error(file.path(), error)).ok()
    }

    /// There are some.
    pub(super) fn are_present(&self) -> bool {
        self.is_logged
    }

    /// There are none.
    pub(super) fn clear(&mut self) {
        if std::mem::take(&mut self.is_logged) {
            info!("Redis has no domains any more that this database never had");
        }
        self.acceptance = None;
    }
}
