//! SIGHUP: what may change while it serves is read again.

use std::sync::Arc;

use tokio::signal::unix::Signal;
use tracing::{info, warn};

use super::registrar::Registrar;
use super::settings::Settings;

/// At each signal reads the command line's files again, and exchanges the policy in force. What is wrong in them is told and
/// changes nothing, and what only a restart can change is told too. `settings` are those it serves with. Never ends.
pub async fn reload_on_hangup(mut signals: Signal, settings: Settings, registrar: Arc<Registrar>) {
    while signals.recv().await.is_some() {
        match settings.reload() {
            Ok(read) => {
                for option in settings.changes_needing_restart(&read) {
                    warn!(option, "takes a restart to change");
                }
                let changed = *registrar.live.load_full() != read.policy;
                read.policy.raise_fd_limit();
                read.policy.warn_if_open();
                registrar.live.store(Arc::new(read.policy));
                registrar.reloaded.notify_waiters();
                info!(changed, "settings reloaded");
            }
            Err(error) => warn!(error, "reload failed; keeping current settings"),
        }
    }
}
