//! What a tool's account owns, and how it is read safely: tenants write anything into their home.
//!
//! `account` finds accounts, `file` opens files without following links or waiting, `yaml` parses within a budget, `safe_word` checks
//! words for command lines, `manifest` reads and writes service.manifest.

mod account;
mod file;
mod manifest;
mod safe_word;
mod shorten;
mod yaml;
mod yaml_text;

pub use account::{Account, Accounts, MIN_UID, SystemAccounts};
pub use file::{FileProblem, TenantFile};
pub use manifest::{MAX_MANIFEST_BYTES, MONITOR_VARIABLE, Manifest};
pub use safe_word::SafeWord;
pub use shorten::shorten;
pub use yaml::{parse_yaml, replicas};
