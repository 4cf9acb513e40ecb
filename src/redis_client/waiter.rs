//! Waits for a socket, until a deadline or a stop request.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::error::ConnectionError;

/// Longest time between two checks of `stop`.
pub(super) const SLICE: Duration = Duration::from_millis(100);

/// Waits in slices, and checks `stop` before each.
#[derive(Clone, Copy)]
pub(super) struct Waiter<'s> {
    stop: &'s dyn Fn() -> bool,
}

impl<'s> Waiter<'s> {
    pub(super) fn new(stop: &'s dyn Fn() -> bool) -> Self {
        Self { stop }
    }

    /// The length of the next slice; `None` at the deadline.
    ///
    /// # Errors
    /// [`ConnectionError::Stopped`].
    pub(super) fn slice(self, deadline: Instant) -> Result<Option<Duration>, ConnectionError> {
        if (self.stop)() {
            return Err(ConnectionError::Stopped);
        }
        let left = deadline.saturating_duration_since(Instant::now()).min(SLICE);
        Ok(Some(left).filter(|left| !left.is_zero()))
    }

    /// Waits until `socket` is ready for one of `events` or has failed; false if the deadline passes first.
    ///
    /// # Errors
    /// [`ConnectionError::Stopped`], and those of poll(2).
    pub(super) fn ready(
        self,
        socket: BorrowedFd<'_>,
        events: PollFlags,
        deadline: Instant,
    ) -> Result<bool, ConnectionError> {
        while let Some(slice) = self.slice(deadline)? {
            let timeout = Timespec { tv_sec: 0, tv_nsec: slice.subsec_nanos().into() };
            match poll(&mut [PollFd::from_borrowed_fd(socket, events)], Some(&timeout)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(true),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }
}
