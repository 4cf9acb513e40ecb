//! The guard of a daemon's routes: what [`WithdrawalGuard`] finds, in the log and in the daemon's messages.

use std::path::Path;

use tokio::time::Instant;
use tracing::{info, warn};

use super::usage::is_in_range;
use crate::withdrawal_guard::{
    AcceptError, GuardEvent, GuardOption, GuardOptionError, GuardSettings, HoldEnd, Loss, Verdict, WithdrawalGuard,
};

/// Reads the option `--withdrawal-guard` of a daemon.
///
/// # Errors
/// The word that is wrong, beside an example of a right option. As every time of a command line, a hold is not zero and at most a
/// year.
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

/// A daemon's messages for what its guard does.
#[derive(Debug)]
pub struct GuardMessages {
    /// The source lacks what Redis has.
    pub lacks: &'static str,
    /// It does no more.
    pub has_all: &'static str,
    /// What it lacks goes.
    pub withdrawing: &'static str,
}

/// Judges a daemon's comparisons, and logs.
#[derive(Debug)]
pub struct LoggedGuard {
    judge: WithdrawalGuard,
    messages: &'static GuardMessages,
}

impl LoggedGuard {
    /// A guard with these settings; without any it lets everything through.
    pub fn new(settings: Option<GuardSettings>, messages: &'static GuardMessages) -> Self {
        Self { judge: WithdrawalGuard::new(settings), messages }
    }

    /// What it was made with.
    pub fn settings(&self) -> Option<&GuardSettings> {
        self.judge.settings()
    }

    /// Judges one comparison: of the `live` routes that are registered, the source lacks those under the keys `lacking`, which
    /// are so many as there are routes.
    pub fn judge(&mut self, lacking: &[Vec<u8>], live: usize, now: Instant) -> Verdict {
        let loss = Loss { missing: lacking.len() as u64, live: live as u64 };
        let (verdict, events) = self.judge.judge(&[loss], lacking, now.into_std());
        events.iter().for_each(|event| self.log(event, loss));
        verdict
    }

    /// The source does not answer.
    pub fn pause(&mut self) {
        self.judge.pause();
    }

    /// The source has said again what it has, completely.
    pub fn resume(&mut self, now: Instant) {
        self.judge.resume(now.into_std());
    }

    /// Another writer has decided meanwhile: what was held counts no more.
    pub fn forget(&mut self) {
        self.judge.set_hold(None);
    }

    /// Whether a hold has come to its end, so that a comparison should not wait.
    pub fn is_over(&mut self, now: Instant) -> bool {
        self.judge.is_over(now.into_std())
    }

    fn log(&self, event: &GuardEvent, Loss { missing, live }: Loss) {
        let Some(settings) = self.judge.settings() else { return };
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

/// Says that an operator's file was touched and accepts nothing.
pub fn log_accept_error(file: &Path, error: &AcceptError) {
    warn!(accept = %file.display(), %error, "accept file rejected; nothing is removed");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_option_is_shown_beside_a_right_one() {
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
