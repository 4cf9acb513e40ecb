//! What a request goes through: its route is found once (`resolve`, `search`), and read by phases (`access`, `redirect`,
//! `loop_mark`, `count`), variables and the choice of a backend (`peers`, `kept`).

pub(super) mod access;
pub(super) mod counters;
pub(super) mod endpoint;
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
