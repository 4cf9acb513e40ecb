//! The outcome of a start.

/// The outcome of a start command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    /// It exited with status 0.
    Ok,
    /// It exited with another status.
    Failed,
    /// It was killed at `--start-timeout`.
    TimedOut,
    /// It ended in any way before the tool's own command began.
    NotBegun,
}

impl StartOutcome {
    /// All outcomes.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::TimedOut, Self::NotBegun];

    /// The metric's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::NotBegun => "not_begun",
        }
    }
}
