//! A daemon's withdrawal guard: [`WithdrawalGuard`] decides, and its events are logged with the daemon's messages.

use std::path::Path;

use tokio::time::Instant;
use tracing::{info, warn};

use super::usage::is_in_range;
use crate::withdrawal_guard::{
    AcceptError, GuardEvent, GuardOption, GuardOptionError, GuardSettings, HoldEnd, Loss, Verdict, WithdrawalGuard,
};

/// Parses a daemon's option `--withdrawal-guard`. As for all durations of a command line, `hold` is more than zero and at most a
/// year.
///
/// # Errors
/// The invalid word, with an example of a valid option.
pub fn parse_guard(text: &str, daemon: &str) -> Result<GuardOption, String> {
    let wrong = |what: &str, value: &str| {
        format!(
            "invalid {what} {value:?}, expected e.g. \"50% floor=20 hold=120s accept=/run/urlproxy/{daemon}.accept\", \
             or \"off\""
        )
    };
    match text.parse() {
        Ok(GuardOption::On { hold, .. }) if !is_in_range(hold) => {
            let word = text.split_whitespace().rfind(|word| word.starts_with("hold="));
            Err(wrong("parameter", word.unwrap_or_default()))
        }
        Ok(option) => Ok(option),
        Err(GuardOptionError { what, value, .. }) => Err(wrong(what, &value)),
    }
}

/// A daemon's log messages for the events of its guard.
#[derive(Debug)]
pub struct GuardMessages {
    /// A hold begins: the source lacks routes that Redis has.
    pub lacks: &'static str,
    /// A hold ends without a withdrawal: the source has all routes again.
    pub has_all: &'static str,
    /// A hold ends: the routes that the source lacks are withdrawn.
    pub withdrawing: &'static str,
}

/// Decides which missing routes a daemon withdraws, and logs the decisions.
#[derive(Debug)]
pub struct LoggedGuard {
    guard: WithdrawalGuard,
    messages: &'static GuardMessages,
}

impl LoggedGuard {
    /// A guard with these settings; with `None` it lets every withdrawal through.
    pub fn new(settings: Option<GuardSettings>, messages: &'static GuardMessages) -> Self {
        Self { guard: WithdrawalGuard::new(settings), messages }
    }

    /// The guard's settings; `None` if it is off.
    pub fn settings(&self) -> Option<&GuardSettings> {
        self.guard.settings()
    }

    /// Judges one comparison: of `live` registered routes, the source lacks those with the keys `missing`, one key a route.
    pub fn judge(&mut self, missing: &[Vec<u8>], live: usize, now: Instant) -> Verdict {
        let loss = Loss { missing: missing.len() as u64, live: live as u64 };
        let (verdict, events) = self.guard.judge(&[loss], missing, now.into_std());
        events.iter().for_each(|event| self.log(event, loss));
        verdict
    }

    /// Stops the clock of a hold: the source does not answer.
    pub fn pause(&mut self) {
        self.guard.pause();
    }

    /// Restarts the clock of a hold after a pause: the source has sent a complete list again.
    pub fn resume(&mut self, now: Instant) {
        self.guard.resume(now.into_std());
    }

    /// Drops a hold: another writer has decided in the meantime.
    pub fn forget(&mut self) {
        self.guard.set_hold(None);
    }

    /// Whether a hold has ended, so that the next comparison is due now.
    pub fn is_over(&mut self, now: Instant) -> bool {
        self.guard.is_over(now.into_std())
    }

    fn log(&self, event: &GuardEvent, Loss { missing, live }: Loss) {
        let Some(settings) = self.guard.settings() else { return };
        let accept = settings.accept.display();
        match event {
            GuardEvent::Recovered => info!("{}", self.messages.has_all),
            GuardEvent::Began => {
                let (hold, at_most) = (settings.hold, settings.longest_hold());
                warn!(missing, live, ?hold, ?at_most, %accept, "{}", self.messages.lacks);
            }
            GuardEvent::Named { going, held, others } => {
                if !others.is_empty() {
                    warn!(%accept, names = %others, "accept file names entries that are not held; those names are ignored");
                }
                if *going > 0 {
                    warn!(
                        missing = going,
                        live,
                        outcome = "named in the accept file",
                        held,
                        "{}",
                        self.messages.withdrawing
                    );
                }
            }
            GuardEvent::NotAccepted(error) => log_accept_error(&settings.accept, error),
            GuardEvent::Ended(end) => {
                let outcome = match end {
                    HoldEnd::Accepted => "accepted by the operator",
                    HoldEnd::Lasted => "hold expired",
                    HoldEnd::LastedInAll(_) => "longest hold expired, source outages included",
                };
                warn!(missing, live, outcome, "{}", self.messages.withdrawing);
            }
        }
    }
}

/// Logs that the operator touched an accept file that has no effect.
pub fn log_accept_error(file: &Path, error: &AcceptError) {
    warn!(accept = %file.display(), %error, "accept file invalid; nothing is withdrawn");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn option_errors_show_the_value_and_an_example() {
        assert_eq!(parse_guard("off", "a"), Ok(GuardOption::Off));
        assert!(parse_guard("50% hold=365d", "a").is_ok());
        assert_eq!(
            parse_guard("50% floor=x", "a").unwrap_err(),
            "invalid parameter \"floor=x\", expected e.g. \"50% floor=20 hold=120s accept=/run/urlproxy/a.accept\", or \"off\""
        );
        for hold in ["0", "0s", "365d1s", "106751991167300d"] {
            let error = parse_guard(&format!("50% hold={hold}"), "a").unwrap_err();
            assert!(error.starts_with(&format!("invalid parameter \"hold={hold}\", expected e.g.")), "{error}");
        }
    }
}
