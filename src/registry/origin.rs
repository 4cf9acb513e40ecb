//! Who registered a route: kept beside it, for people and for the audit.

use serde::{Deserialize, Serialize};

/// The value of one field of `origin:<tool>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Which program wrote the route.
    pub source: String,
    /// On whose behalf.
    pub owner: String,
    /// From which machine.
    pub host: String,
    /// When, in Unix seconds.
    pub since: u64,
}
