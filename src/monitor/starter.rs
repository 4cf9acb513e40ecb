//! Restarts tools. Each restart is counted before its command runs, and uncounted if the tool's own command never began.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{info, warn};

use super::begin_marker;
use super::decision::Cause;
use super::environment::start_command;
use super::human_duration::human_duration;
use super::manifest::Manifest;
use super::metrics::Metrics;
use super::restart_history::RestartHistory;
use super::service_log::ServiceLogEntry;
use super::settings::Settings;
use super::start_outcome::StartOutcome;
use super::state_error::StateError;
use super::state_store::StateStore;
use crate::clock::unix_seconds;
use crate::subprocess::{CommandError, run_with_input};
use crate::tenant::Account;

/// The most of a start command's output, in bytes.
const MAX_START_BYTES: usize = 1024 * 1024;
/// An observation is valid for one round, and for this time at least.
const MIN_VALIDITY: Duration = Duration::from_secs(30);
/// The time for reading a manifest again.
const REREAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Exit statuses of a shell for a command that cannot be executed, or is not found.
const NOT_EXECUTED: [i32; 2] = [126, 127];

/// A tool to restart.
pub struct Restart<'a> {
    /// The name of the tool.
    pub tool: &'a str,
    /// The tool's user.
    pub account: &'a Account,
    /// The web service that the tool wants.
    pub manifest: &'a Manifest,
    /// Why the tool is restarted.
    pub cause: Cause,
}

/// Restarts the tools of one round.
pub struct Starter<'a> {
    pub settings: &'a Settings,
    pub metrics: &'a Metrics,
    /// Set when no more restarts may begin.
    pub stopping: &'a watch::Receiver<bool>,
    pub store: &'a StateStore,
    pub history: Mutex<RestartHistory>,
}

impl Starter<'_> {
    /// Restarts tools in this order, `--parallel` at a time, as long as the observation is valid: while some starts are slow,
    /// other tools come up by themselves. Tools left over keep their place in the order.
    pub async fn restart_all(&self, restarts: Vec<Restart<'_>>, observed_at: Instant) {
        let validity = self.settings.limits.interval.max(MIN_VALIDITY);
        let all = stream::iter(restarts).map(async |restart| {
            if *self.stopping.borrow() {
                info!(tool = restart.tool, "tool not restarted; the monitor is stopping");
            } else if observed_at.elapsed() > validity {
                info!(
                    tool = restart.tool,
                    "tool not restarted; other restarts took too long, the next round checks it again"
                );
            } else {
                self.restart(restart).await;
            }
        });
        all.buffer_unordered(self.settings.limits.parallel).collect().await
    }

    async fn restart(&self, restart: Restart<'_>) {
        let Restart { tool, account, manifest, cause } = restart;
        if !self.still_wants(tool, manifest).await {
            return info!(tool, "tool not restarted; its manifest has changed since the round began");
        }
        let at = unix_seconds();
        // Recorded before it is done: it counts even if this process dies.
        let number = match self.record(tool, at).await {
            Ok(number) => number,
            Err(error) => return warn!(tool, %error, "tool not restarted; the restart could not be recorded"),
        };
        let limits = self.settings.limits;
        let (most, window) = (limits.max_restarts, human_duration(limits.window));
        info!(tool, %cause, number, most, "restarting");
        let text = format!("The web service is {cause}: restarting it, {number} of {most} times within {window}.");
        self.append_to_service_log(account, tool, text).await;
        let begun = Instant::now();
        let (outcome, error) = self.start(tool, account, manifest).await;
        self.metrics.record_start(outcome);
        let has_begun = outcome != StartOutcome::NotBegun;
        match error {
            None if has_begun => info!(tool, took = ?begun.elapsed(), "restarted"),
            error => {
                let error =
                    error.map_or_else(|| "the login ended before the command began".into(), |error| error.to_string());
                let (message, text) = match has_begun {
                    true => ("restart failed; it counts", format!("Restarting the web service failed: {error}.")),
                    false => (
                        "restart failed before the tool's command began; it does not count",
                        format!(
                            "Restarting the web service failed before its command began, and does not count: {error}."
                        ),
                    ),
                };
                warn!(tool, error, "{message}");
                self.append_to_service_log(account, tool, text).await;
            }
        }
        self.record_begun(tool, at, has_begun).await;
    }

    /// Whether the tool's maintainer has neither stopped nor changed the web service since it was observed. A home that does not
    /// answer is left to the next round.
    async fn still_wants(&self, tool: &str, manifest: &Manifest) -> bool {
        let (scanner, tool, manifest) = (self.settings.scanner.clone(), tool.to_owned(), manifest.clone());
        let read = spawn_blocking(move || scanner.still_wants(&tool, &manifest));
        matches!(timeout(REREAD_TIMEOUT, read).await, Ok(Ok(true)))
    }

    /// Counts a restart. Returns the number of restarts within the window.
    async fn record(&self, tool: &str, at: u64) -> Result<usize, StateError> {
        let mut history = self.history.lock().await;
        history.record_start(tool, at);
        match self.store.save(&history).await {
            Ok(()) => Ok(history.starts_of(tool)),
            Err(error) => {
                history.record_begun(tool, at, false);
                Err(error)
            }
        }
    }

    /// Uncounts a restart that never began. If that cannot be saved, the next round saves it.
    async fn record_begun(&self, tool: &str, at: u64, has_begun: bool) {
        let mut history = self.history.lock().await;
        history.record_begun(tool, at, has_begun);
        if let Err(error) = self.store.save(&history).await {
            warn!(tool, %error, "restart outcome not saved; a later round saves it");
        }
    }

    async fn start(&self, tool: &str, account: &Account, manifest: &Manifest) -> (StartOutcome, Option<CommandError>) {
        let (template, limit) = &self.settings.start;
        let words = template.words(tool, account, manifest, self.settings.distribution.as_ref());
        let Some(command) = start_command(&words, &self.settings.start_environment) else {
            return (StartOutcome::NotBegun, None);
        };
        let mut printed = Vec::new();
        // Long output is not a failure.
        let error = match run_with_input(command, b"", *limit, MAX_START_BYTES, &mut printed).await {
            Ok(()) | Err(CommandError::TooLong { .. }) => None,
            Err(error) => Some(error),
        };
        let has_begun = match template.has_begin_marker() {
            // The unread rest may contain the marker; in doubt the restart counts.
            true => begin_marker::has_begun(&printed) || printed.len() > MAX_START_BYTES,
            false => may_have_begun(error.as_ref()),
        };
        let outcome = match &error {
            _ if !has_begun => StartOutcome::NotBegun,
            None => StartOutcome::Ok,
            Some(CommandError::TimedOut { .. }) => StartOutcome::TimedOut,
            Some(_) => StartOutcome::Failed,
        };
        (outcome, error)
    }

    async fn append_to_service_log(&self, account: &Account, tool: &str, text: String) {
        let home = self.settings.scanner.glob.home(tool);
        ServiceLogEntry { account, home: &home, text }.write().await;
    }
}

/// Whether a command without `{begin}` may have begun: not if it hung, and not if it was not executed.
fn may_have_begun(error: Option<&CommandError>) -> bool {
    match error {
        None | Some(CommandError::TooLong { .. }) => true,
        Some(CommandError::NotStarted { .. } | CommandError::TimedOut { .. }) => false,
        Some(CommandError::Failed { status, .. }) => status.code().is_none_or(|code| !NOT_EXECUTED.contains(&code)),
    }
}
