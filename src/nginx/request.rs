//! Request processing. `resolve` and `search` find the route once; phase handlers (`access`, `redirect`, `loop_mark`,
//! `counters`), `variables` and backend selection (`peers`, `reuse_key`) read it.

pub(super) mod access;
pub(super) mod admin;
pub(super) mod body;
pub(super) mod counters;
pub(super) mod endpoint;
pub(super) mod explain;
pub(super) mod list;
pub(super) mod loop_mark;
pub(super) mod peers;
pub(super) mod redirect;
pub(super) mod resolve;
pub(super) mod response;
pub(super) mod reuse_key;
pub(super) mod route;
pub(super) mod search;
pub(super) mod variables;
