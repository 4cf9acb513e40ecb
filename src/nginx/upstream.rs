//! The directives of an upstream block: `urlproxy_peers` and `urlproxy_keepalive`.

use super::conf::main::MainConf;
use super::conf::networks::Networks;
use super::conf::upstream::UpstreamConf;
use super::ffi::config_error::ConfigError;
use super::ffi::directive::{Command, MainLevel};
use super::ffi::parser::Parser;
use super::keepalive::Keepalive;
use super::request::peers::{NO_OTHER_KEEPALIVE, RouteBalancer};
use crate::directive::DirectiveError;
use crate::directive::upstream::{parse_keepalive, parse_peers};

/// `urlproxy_peers [max_fails=N] [fail_timeout=TIME] [shared=CIDR,...];`
pub(super) struct UrlproxyPeers;

impl Command for UrlproxyPeers {
    const DIRECTIVE: &'static str = "urlproxy_peers";
    type Level = MainLevel;

    fn run(main: &mut MainConf, args: &[&str], parser: &mut Parser<'_>) -> Result<(), ConfigError> {
        let mut block = parser.upstream().ok_or("there is no upstream here")?;
        if block.is_balanced() {
            let text = "\"urlproxy_peers\" must come first in its upstream, before \"keepalive\", without another \
                        balancing method";
            return Err(text.into());
        }
        let (health, networks) = parse_peers(args)?;
        let mut shared = Networks::default();
        shared.add(&networks);
        main.add_upstream(UpstreamConf { id: block.id(), health, shared, keepalive: None });
        block.balance::<RouteBalancer>().ok_or(ConfigError::Logged)
    }
}

/// `urlproxy_keepalive NUMBER [per_backend=N] [per_tool=N] [timeout=TIME] [requests=N] [time=TIME] [shared=CIDR,...];`
pub(super) struct UrlproxyKeepalive;

impl Command for UrlproxyKeepalive {
    const DIRECTIVE: &'static str = "urlproxy_keepalive";
    type Level = MainLevel;

    fn run(main: &mut MainConf, args: &[&str], parser: &mut Parser<'_>) -> Result<(), ConfigError> {
        let block = parser.upstream().ok_or("there is no upstream here")?;
        let Some(upstream) = main.upstream_mut(block.id()) else {
            return Err("\"urlproxy_keepalive\" requires \"urlproxy_peers\" before it".into());
        };
        if upstream.keepalive.is_some() {
            return Err(DirectiveError::Duplicate(Self::DIRECTIVE).into());
        }
        let (settings, networks) = parse_keepalive(args)?;
        if !block.switch_keepalive_off(parser) || !block.is_balanced_by::<RouteBalancer>() {
            return Err(NO_OTHER_KEEPALIVE.into());
        }
        upstream.shared.add(&networks);
        upstream.keepalive = Some(Keepalive::new(settings));
        Ok(())
    }
}
