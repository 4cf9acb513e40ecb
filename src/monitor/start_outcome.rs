//! How a start ended.

/// By its command's exit status, and by how far the command came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    /// With status 0.
    Ok,
    /// With another status.
    Failed,
    /// It was killed.
    TimedOut,
    /// In any way, but before the tool's own command.
    NotBegun,
}

impl StartOutcome {
    /// All there are, for a metric that names each.
    pub const ALL: [Self; 4] = [Self::Ok, Self::Failed, Self::TimedOut, Self::NotBegun];

    /// For a metric.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::TimedOut => "timed_out",
            Self::NotBegun => "not_begun",
        }
    }
}
