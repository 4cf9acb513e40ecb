//! A backend and its health.

use serde::Serialize;

use super::about::About;
use crate::table::{Availability, HealthKey, Table};

/// A backend of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendState {
    /// `scheme://host:port`.
    pub url: String,
    /// Whether requests go there.
    pub health: Health,
    /// When an unavailable backend gets its next request, in Unix seconds.
    pub until: Option<u64>,
}

/// The passive health of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Requests go there.
    Up,
    /// Too many requests have failed.
    Unavailable,
    /// The only backend of its route, or a name: failures are not counted.
    Untracked,
}

impl BackendState {
    /// The state of a backend. `key` identifies it, unless its failures are not counted.
    pub fn new(about: &About, table: &Table<'_>, url: String, key: Option<HealthKey>) -> Self {
        let Some(key) = key else { return Self { url, health: Health::Untracked, until: None } };
        match table.health().availability(key, about.health) {
            Availability::Up => Self { url, health: Health::Up, until: None },
            Availability::Unavailable { until } => {
                let wait = until.saturating_sub(about.health_seconds);
                Self { url, health: Health::Unavailable, until: Some(about.now / 1000 + u64::from(wait)) }
            }
        }
    }
}
