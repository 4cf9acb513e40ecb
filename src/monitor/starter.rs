//! Restarts tools: each counted before its command is begun, and no more if that never came as far as the tool's own command.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex, watch};
use tracing::{info, warn};

use super::account::Account;
use super::begin;
use super::clock::words_of;
use super::command::{CommandError, converse};
use super::decision::Cause;
use super::environment::start_command;
use super::keeper::Keeper;
use super::keeper_error::KeeperError;
use super::manifest::Manifest;
use super::memory::Memory;
use super::metrics::Metrics;
use super::service_log::Note;
use super::settings::Settings;
use super::start_outcome::StartOutcome;
use crate::clock::unix_seconds;

/// What is read of a start command, in bytes.
const MAX_START_BYTES: usize = 1024 * 1024;
/// So long a picture is good for, however often it is looked.
const SHORTEST_BELIEF: Duration = Duration::from_secs(30);
/// What a shell ends with when a command cannot be executed, or is not there.
const NOT_EXECUTED: [i32; 2] = [126, 127];

/// A tool that is to be restarted.
pub struct Restart<'a> {
    /// Which.
    pub tool: &'a str,
    /// Its user.
    pub account: &'a Account,
    /// What it wants.
    pub manifest: &'a Manifest,
    /// Why.
    pub cause: Cause,
}

/// Restarts the tools of one round.
pub struct Starter<'a> {
    /// How.
    pub settings: &'a Settings,
    /// What counts starts by outcome.
    pub metrics: &'a Metrics,
    /// Says when no more are begun.
    pub stopping: &'a watch::Receiver<bool>,
    /// Where the restarts are kept.
    pub keeper: &'a Keeper,
    /// The restarts.
    pub memory: Mutex<Memory>,
}

impl Starter<'_> {
    /// Restarts them in this order, `--parallel` at a time. What was seen at `seen` is not acted upon for ever: while some starts
    /// are slow, other tools come up by themselves. Those left over keep their turn.
    pub async fn restart_all(&self, restarts: Vec<Restart<'_>>, seen: Instant) {
        let good_for = self.settings.pace.interval.max(SHORTEST_BELIEF);
        let all = stream::iter(restarts).map(async |restart| {
            if *self.stopping.borrow() {
                info!(tool = restart.tool, "not restarted: ending");
            } else if seen.elapsed() > good_for {
                info!(tool = restart.tool, "not restarted: others took so long that it has to be looked at again");
            } else {
                self.restart(restart).await;
            }
        });
        all.buffer_unordered(self.settings.pace.parallel).collect().await
    }

    async fn restart(&self, restart: Restart<'_>) {
        let Restart { tool, account, manifest, cause } = restart;
        let at = unix_seconds();
        // First remembered, then done: it counts, whatever becomes of this process.
        let number = match self.remember(tool, at).await {
            Ok(number) => number,
            Err(error) => return warn!(tool, %error, "not restarted: the restart could not be written down before it"),
        };
        let pace = self.settings.pace;
        let (most, window) = (pace.max_restarts, words_of(pace.window));
        info!(tool, %cause, number, most, "restarting");
        let text = format!("The web service is {cause}: restarting it, {number} of {most} times within {window}.");
        self.note(account, tool, text).await;
        let begun = Instant::now();
        let (outcome, error) = self.start(tool, account, manifest).await;
        self.metrics.started(outcome);
        let has_begun = outcome != StartOutcome::NotBegun;
        match error {
            None if has_begun => info!(tool, took = ?begun.elapsed(), "restarted"),
            error => {
                let error =
                    error.map_or_else(|| "the login ended before the command began".into(), |error| error.to_string());
                let (what, text) = match has_begun {
                    true => ("not restarted", format!("Restarting the web service failed: {error}.")),
                    false => (
                        "not restarted: its command never began, which does not count",
                        format!("Restarting the web service never began, which does not count: {error}."),
                    ),
                };
                warn!(tool, error, "{what}");
                self.note(account, tool, text).await;
            }
        }
        self.settle(tool, at, has_begun).await;
    }

    /// Counts a restart; how many it makes within the window.
    async fn remember(&self, tool: &str, at: u64) -> Result<usize, KeeperError> {
        let mut memory = self.memory.lock().await;
        memory.note_start(tool, at);
        match self.keeper.save(&memory).await {
            Ok(()) => Ok(memory.starts_of(tool)),
            Err(error) => {
                memory.note_begun(tool, at, false);
                Err(error)
            }
        }
    }

    /// Does not count one any more that never began. If that cannot be written, the next round does it.
    async fn settle(&self, tool: &str, at: u64, has_begun: bool) {
        let mut memory = self.memory.lock().await;
        memory.note_begun(tool, at, has_begun);
        if let Err(error) = self.keeper.save(&memory).await {
            warn!(tool, %error, "how its restart ended could not be written down yet");
        }
    }

    async fn start(&self, tool: &str, account: &Account, manifest: &Manifest) -> (StartOutcome, Option<CommandError>) {
        let (template, limit) = &self.settings.start;
        let words = template.words(tool, account, manifest, self.settings.distribution.as_ref());
        let Some(command) = start_command(&words, &self.settings.start_environment) else {
            return (StartOutcome::NotBegun, None);
        };
        let mut printed = Vec::new();
        // That it says much is no failure.
        let error = match converse(command, b"", *limit, MAX_START_BYTES, &mut printed).await {
            Ok(()) | Err(CommandError::TooLong { .. }) => None,
            Err(error) => Some(error),
        };
        let has_begun = match template.tells_begin() {
            // What was not read may have had the mark: in doubt it counts.
            true => begin::has_begun(&printed) || printed.len() > MAX_START_BYTES,
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

    async fn note(&self, account: &Account, tool: &str, text: String) {
        let home = self.settings.surveyor.places.home(tool);
        Note { account, home: &home, text }.write().await;
    }
}

/// What is taken for begun where the command does not tell: nothing that hung, and nothing that was not executed.
fn may_have_begun(error: Option<&CommandError>) -> bool {
    match error {
        None | Some(CommandError::TooLong { .. }) => true,
        Some(CommandError::NotStarted { .. } | CommandError::TimedOut { .. }) => false,
        Some(CommandError::Failed { status, .. }) => status.code().is_none_or(|code| !NOT_EXECUTED.contains(&code)),
    }
}
