//! SIGHUP: reloads the options that may change at run time.

use std::sync::Arc;

use tokio::signal::unix::Signal;
use tracing::{info, warn};

use super::registrar::Registrar;
use super::settings::Settings;

/// At each signal rereads the files of the command line, and replaces the current policy. Logs errors, which change nothing, and
/// options that need a restart. `settings` are those of the start. Never ends.
pub async fn reload_on_hangup(mut signals: Signal, settings: Settings, registrar: Arc<Registrar>) {
    while signals.recv().await.is_some() {
        match settings.reload() {
            Ok(read) => {
                for option in settings.changes_needing_restart(&read) {
                    warn!(option, "option changed; restart to apply it");
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
