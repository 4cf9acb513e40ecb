//! What a scan does while it stays away from a busy server: it follows changes.

use std::time::Instant;

use super::pace::Pace;
use super::scan::{Reconciler, ScanError};
use super::stop::STOP_CHECK_INTERVAL;
use crate::redis_client::Connection;

impl Reconciler<'_> {
    /// Stays away from the server as long as the pace asks for; follows pushes meanwhile. `false` if one reports a flush.
    ///
    /// A first load does not wait: it has a deadline, and without routes the proxy is of no use.
    pub(super) fn give_way(&mut self, connection: &mut Connection<'_>, pace: &mut Pace) -> Result<bool, ScanError> {
        let until = Instant::now() + pace.pause();
        let mut is_complete = true;
        while !self.change_log.is_silent && Instant::now() < until {
            connection.wait_push(until.min(Instant::now() + STOP_CHECK_INTERVAL))?;
            self.pushed_at = Instant::now();
            is_complete &= self.catch_up(connection)?;
            self.change_log.flush(&mut self.writer);
            self.answer_questions(connection)?;
        }
        if pace.is_ping_due() {
            connection.ping()?;
        }
        Ok(is_complete)
    }
}
