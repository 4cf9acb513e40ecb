//! An upstream block with `urlproxy_peers`.

use std::rc::Rc;

use super::networks::Networks;
use crate::nginx::ffi::upstream_block::UpstreamId;
use crate::nginx::keepalive::Keepalive;
use crate::table::HealthSettings;

/// The settings of an upstream with `urlproxy_peers`.
pub(in crate::nginx) struct UpstreamConf {
    /// The upstream block.
    pub id: UpstreamId,
    /// When a backend becomes unavailable.
    pub health: HealthSettings,
    /// Networks where all tools and domains share plain HTTP connections.
    pub shared: Networks,
    /// The pool of `urlproxy_keepalive`.
    pub keepalive: Option<Rc<Keepalive>>,
}
