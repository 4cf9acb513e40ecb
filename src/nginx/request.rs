//! Request processing. `resolve` and `search` find the route once; phase handlers (`access`, `redirect`, `loop_mark`,
//! `counters`), `variables`, backend selection (`peers`, `reuse_key`) and the filter of responses (`final_response`) read it.

pub(super) mod access;
pub(super) mod admin;
pub(super) mod body;
pub(super) mod counters;
pub(super) mod endpoint;
pub(super) mod explain;
pub(super) mod final_response;
pub(super) mod list;
mod log_limit;
pub(super) mod loop_mark;
pub(super) mod peers;
pub(super) mod redirect;
pub(super) mod resolve;
pub(super) mod response;
pub(super) mod reuse_key;
pub(super) mod route;
pub(super) mod search;
pub(super) mod variables;
