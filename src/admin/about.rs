//! What the pages know about a table besides its content.

use std::path::PathBuf;
use std::time::Duration;

use super::readiness::{Readiness, ReadyLimits};
use crate::table::{Header, HealthSettings};

/// A table of the configuration, and the moment of the request.
#[derive(Clone, Debug)]
pub struct About {
    /// Its name.
    pub table: String,
    /// The Redis that it follows, without password.
    pub source: String,
    /// Where its snapshot is, if it has one.
    pub snapshot: Option<PathBuf>,
    /// Its withdrawal guard, if it has one.
    pub guard: Option<Guard>,
    /// What makes the proxy unready.
    pub ready_limits: ReadyLimits,
    /// When a backend is unavailable.
    pub health: HealthSettings,
    /// The program that runs.
    pub build: Build,
    /// Unix time in milliseconds.
    pub now: u64,
    /// Seconds of the monotonic clock, as holds count them.
    pub monotonic_seconds: u64,
    /// Seconds of nginx's clock, as backends' health counts them.
    pub health_seconds: u32,
}

/// A withdrawal guard.
#[derive(Clone, Debug)]
pub struct Guard {
    /// How long a removal is held back.
    pub hold: Duration,
    /// The longest time in all.
    pub longest: Duration,
    /// The file that accepts it.
    pub accept_file: PathBuf,
}

/// Versions.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    /// Of urlproxy.
    pub version: &'static str,
    /// Identifies the build.
    pub id: &'static str,
    /// Of nginx.
    pub nginx: &'static str,
}

impl About {
    /// Unix time in seconds, with a fraction.
    pub fn now_seconds(&self) -> f64 {
        seconds(self.now)
    }

    /// Whether the proxy should get requests now.
    pub fn readiness(&self, header: &Header) -> Readiness {
        Readiness::of(&self.ready_limits, header, self.now)
    }
}

/// Milliseconds as seconds.
pub fn seconds(milliseconds: u64) -> f64 {
    milliseconds as f64 / 1000.0
}
