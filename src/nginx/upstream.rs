//! `urlproxy_peers` and `urlproxy_keepalive`: the directives of an upstream.

use std::ffi::{c_char, c_void};
use std::ptr;
use std::time::Duration;

use ipnet::IpNet;
use nginx_sys::{ngx_command_t, ngx_conf_t, ngx_http_upstream_server_t, ngx_http_upstream_srv_conf_t, ngx_int_t};
use ngx::core::Status;
use ngx::http::{HttpModuleMainConf, HttpModuleServerConf, NgxHttpUpstreamModule};

use super::default_keepalive;
use super::directive::{self, CONF_ERROR, CONF_OK, DirectiveError};
use super::guard::guarded;
use super::keepalive::{self, Keepalive, parse_networks};
use super::kept::Networks;
use super::module::Module;
use super::peers::{Upstream, init_peer};
use super::pool;
use super::units::parse_duration;
use crate::table::HealthSettings;

/// What follows `urlproxy_peers`: as nginx's `server` takes it, and the networks.
fn parse_settings(args: &[&str]) -> Result<(HealthSettings, Vec<IpNet>), DirectiveError> {
    let (mut health, mut shared) = (HealthSettings::default(), Vec::new());
    for arg in args {
        let invalid = || DirectiveError::Invalid {
            directive: "urlproxy_peers",
            what: "parameter",
            value: (*arg).into(),
            example: "max_fails=1 fail_timeout=10s shared=10.0.0.0/8,fd00::/8",
        };
        match arg.split_once('=').ok_or_else(invalid)? {
            ("max_fails", value) => health.max_fails = value.parse().map_err(|_| invalid())?,
            ("fail_timeout", value) => {
                let is_whole = |time: &Duration| time.as_secs() > 0 && time.subsec_nanos() == 0;
                health.fail_timeout = parse_duration(value).filter(is_whole).ok_or_else(invalid)?;
            }
            ("shared", value) => shared.extend(parse_networks(value).ok_or_else(invalid)?),
            _ => return Err(invalid()),
        }
    }
    Ok((health, shared))
}

/// `urlproxy_peers [max_fails=N] [fail_timeout=TIME] [shared=CIDR,...];`
pub(super) unsafe extern "C" fn urlproxy_peers(
    cf: *mut ngx_conf_t,
    _: *mut ngx_command_t,
    _: *mut c_void,
) -> *mut c_char {
    guarded(CONF_ERROR, || {
        // SAFETY: nginx passes its parser, inside an upstream block.
        let parser = unsafe { &*cf };
        let Some(upstream) = NgxHttpUpstreamModule::server_conf_mut(parser) else { return CONF_ERROR };
        let take = |args: &[&str]| {
            if upstream.peer.init_upstream.is_some() {
                return Err(DirectiveError::Other(
                    "\"urlproxy_peers\" must be the first in its upstream, before \"keepalive\" and instead of other methods"
                        .into(),
                ));
            }
            let (health, shared) = parse_settings(args)?;
            if let Some(main) = Module::main_conf_mut(parser) {
                let mut networks = Networks::default();
                networks.add(&shared);
                main.add_upstream(Upstream { conf: upstream, health, shared: networks, keepalive: None });
            }
            upstream.peer.init_upstream = Some(init_upstream);
            Ok(())
        };
        // SAFETY: as above.
        if unsafe { directive::apply(cf, take) } != CONF_OK {
            return CONF_ERROR;
        }
        // nginx wants a server in each upstream; this one stands for whatever the table says.
        // SAFETY: all-zero is how nginx makes these itself.
        let server = unsafe { std::mem::zeroed::<ngx_http_upstream_server_t>() };
        // SAFETY: the upstream's servers are an array of this type.
        let pushed = unsafe { pool::push(upstream.servers, ngx_http_upstream_server_t { down: 1, ..server }) };
        if pushed.is_some() { CONF_OK } else { CONF_ERROR }
    })
}

/// Why `urlproxy_keepalive` is refused, or what stands beside it.
const NO_OTHER_KEEPALIVE: &str = "\"keepalive\" and \"urlproxy_keepalive\" exclude each other, \
     expected \"urlproxy_peers\" and then one of them";

/// Whether no directive has taken the upstream over since `urlproxy_peers`.
fn is_balanced_by_us(upstream: &ngx_http_upstream_srv_conf_t) -> bool {
    upstream.peer.init_upstream.is_some_and(|init| ptr::fn_addr_eq(init, init_upstream as InitUpstream))
}

type InitUpstream = unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t;

/// `urlproxy_keepalive NUMBER [per_backend=N] [per_tool=N] [timeout=TIME] [requests=N] [time=TIME] [shared=CIDR,...];`
pub(super) unsafe extern "C" fn urlproxy_keepalive(
    cf: *mut ngx_conf_t,
    _: *mut ngx_command_t,
    _: *mut c_void,
) -> *mut c_char {
    guarded(CONF_ERROR, || {
        // SAFETY: nginx passes its parser, and nobody else is at it during the call.
        let parser = unsafe { &*cf };
        let take = |args: &[&str]| {
            let main = Module::main_conf_mut(parser);
            let upstream = NgxHttpUpstreamModule::server_conf(parser);
            let Some((upstream, conf)) =
                main.zip(upstream).and_then(|(main, conf)| Some((main.upstream_mut(conf)?, conf)))
            else {
                return Err(DirectiveError::Other(
                    "\"urlproxy_keepalive\" keeps connections for \"urlproxy_peers\", and goes after it".into(),
                ));
            };
            if upstream.keepalive.is_some() {
                return Err(DirectiveError::Duplicate("urlproxy_keepalive"));
            }
            let settings = keepalive::parse_settings(args)?;
            // SAFETY: nginx's parser, inside this upstream's block.
            let is_alone = unsafe { default_keepalive::switch_off(cf) };
            if !is_alone || !is_balanced_by_us(conf) {
                return Err(DirectiveError::Other(NO_OTHER_KEEPALIVE.into()));
            }
            upstream.shared.add(&settings.shared);
            upstream.keepalive = Some(Keepalive::new(settings));
            Ok(())
        };
        // SAFETY: nginx's parser, in the middle of this directive.
        unsafe { directive::apply(cf, take) }
    })
}

unsafe extern "C" fn init_upstream(cf: *mut ngx_conf_t, upstream: *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t {
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx passes its parser, once the http block is read.
        let main = Module::main_conf(unsafe { &*cf });
        let Some(own) = main.and_then(|main| main.upstream(upstream)) else { return Status::NGX_ERROR.0 };
        // SAFETY: nginx passes the upstream whose block it has read.
        let upstream = unsafe { &mut *upstream };
        // SAFETY: the upstream's servers are an array.
        let servers = unsafe { upstream.servers.as_ref() }.map_or(0, |servers| servers.nelts);
        let wrong = if servers > 1 {
            Some("\"urlproxy_peers\" takes its servers from the table, remove the \"server\" lines")
        } else if !upstream.shm_zone.is_null() {
            Some("\"urlproxy_peers\" keeps its state in the table, remove the \"zone\" line")
        } else if own.keepalive.is_some() && !is_balanced_by_us(upstream) {
            Some(NO_OTHER_KEEPALIVE)
        } else {
            None
        };
        if let Some(text) = wrong {
            // SAFETY: nginx passes its parser.
            unsafe { directive::refuse(cf, &DirectiveError::Other(text.into())) };
            return Status::NGX_ERROR.0;
        }
        upstream.peer.init = Some(init_peer);
        upstream.peer.data = ptr::from_ref(own).cast_mut().cast();
        Status::NGX_OK.0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_those_of_a_server_of_nginx_and_networks() {
        let settings =
            |max_fails, seconds| (HealthSettings { max_fails, fail_timeout: Duration::from_secs(seconds) }, vec![]);
        assert_eq!(parse_settings(&[]), Ok(settings(1, 10)));
        assert_eq!(parse_settings(&["fail_timeout=1m", "max_fails=3"]), Ok(settings(3, 60)));
        assert_eq!(parse_settings(&["max_fails=0"]), Ok(settings(0, 10)));
        let networks = ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"].map(|network| network.parse().unwrap());
        assert_eq!(parse_settings(&["shared=10.1.0.0/8,fd00::/8", "shared=192.0.2.1"]).unwrap().1, networks);
        for wrong in [
            "max_fails",
            "max_fails=-1",
            "max_fails=65536",
            "fail_timeout=500ms",
            "fail_timeout=0",
            "weight=2",
            "shared=",
            "shared=10.0.0.0/33",
            "shared=10.0.0.1,",
        ] {
            let want = format!(
                r#""urlproxy_peers" invalid parameter "{wrong}", expected e.g. "max_fails=1 fail_timeout=10s shared=10.0.0.0/8,fd00::/8""#
            );
            assert_eq!(parse_settings(&[wrong]).unwrap_err().to_string(), want);
        }
    }
}
