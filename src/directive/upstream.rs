//! The parameters of `urlproxy_peers` and `urlproxy_keepalive`.

use std::time::Duration;

use ipnet::IpNet;

use super::DirectiveError;
use crate::route::parse_networks;
use crate::table::HealthSettings;
use crate::units::parse_duration;

/// Upper bound of all connection limits.
const MAX_CONNECTIONS: u32 = 1_000_000;
/// The default of `per_tool` is this fraction of all connections: one sixteenth.
const DEFAULT_TOOL_SHARE: u32 = 16;

/// Maximum numbers of kept connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In total.
    pub total: u32,
    /// Per backend and owner.
    pub per_backend: u32,
    /// Per owner.
    pub per_owner: u32,
}

/// The parameters of `urlproxy_keepalive`.
#[derive(Debug, PartialEq, Eq)]
pub struct KeepaliveSettings {
    /// Maximum numbers of kept connections.
    pub limits: Limits,
    /// Maximum idle time of a connection.
    pub timeout: Duration,
    /// Maximum number of requests per connection.
    pub requests: usize,
    /// Maximum age of a connection.
    pub time: Duration,
}

/// Parses the parameters of `urlproxy_peers`: those of nginx's `server`, and the shared networks.
///
/// # Errors
/// An unknown parameter, or an invalid value.
pub fn parse_peers(args: &[&str]) -> Result<(HealthSettings, Vec<IpNet>), DirectiveError> {
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
            ("shared", value) => shared.extend(parse_networks(value).map_err(|_| invalid())?),
            _ => return Err(invalid()),
        }
    }
    Ok((health, shared))
}

/// Parses the parameters of `urlproxy_keepalive` and the shared networks.
///
/// # Errors
/// No number, an unknown parameter, or an invalid value.
pub fn parse_keepalive(args: &[&str]) -> Result<(KeepaliveSettings, Vec<IpNet>), DirectiveError> {
    let (directive, example) = ("urlproxy_keepalive", "urlproxy_keepalive 4096 per_backend=16 timeout=60s;");
    let Some((number, parameters)) = args.split_first() else {
        return Err(DirectiveError::Arguments { directive, takes: "a number of connections", example });
    };
    let number_of = |text: &str| text.parse().ok().filter(|number| (1..=MAX_CONNECTIONS).contains(number));
    let total = number_of(number).ok_or_else(|| DirectiveError::Invalid {
        directive,
        what: "number of connections (1 to 1000000)",
        value: (*number).into(),
        example: "4096",
    })?;
    let (mut per_backend, mut per_tool) = (16, None);
    let (mut timeout, mut time) = (Duration::from_secs(60), Duration::from_secs(3600));
    let (mut requests, mut shared) = (1000, Vec::new());
    for arg in parameters {
        let invalid = || DirectiveError::Invalid {
            directive,
            what: "parameter",
            value: (*arg).into(),
            example: "per_backend=16 per_tool=256 timeout=60s requests=1000 time=1h shared=10.0.0.0/8",
        };
        let is_positive = |time: &Duration| !time.is_zero();
        match arg.split_once('=').ok_or_else(invalid)? {
            ("per_backend", value) => per_backend = number_of(value).ok_or_else(invalid)?,
            ("per_tool", value) => per_tool = Some(number_of(value).ok_or_else(invalid)?),
            ("timeout", value) => timeout = parse_duration(value).filter(is_positive).ok_or_else(invalid)?,
            ("time", value) => time = parse_duration(value).filter(is_positive).ok_or_else(invalid)?,
            ("requests", value) => requests = value.parse().ok().filter(|n| *n > 0).ok_or_else(invalid)?,
            ("shared", value) => shared.extend(parse_networks(value).map_err(|_| invalid())?),
            _ => return Err(invalid()),
        }
    }
    let per_owner = per_tool.unwrap_or((total / DEFAULT_TOOL_SHARE).max(per_backend));
    Ok((KeepaliveSettings { limits: Limits { total, per_backend, per_owner }, timeout, requests, time }, shared))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_accepts_server_parameters_and_networks() {
        let settings =
            |max_fails, seconds| (HealthSettings { max_fails, fail_timeout: Duration::from_secs(seconds) }, vec![]);
        assert_eq!(parse_peers(&[]), Ok(settings(1, 10)));
        assert_eq!(parse_peers(&["fail_timeout=1m", "max_fails=3"]), Ok(settings(3, 60)));
        assert_eq!(parse_peers(&["max_fails=0"]), Ok(settings(0, 10)));
        let networks = ["10.0.0.0/8", "fd00::/8", "192.0.2.1/32"].map(|network| network.parse().unwrap());
        assert_eq!(parse_peers(&["shared=10.1.0.0/8,fd00::/8", "shared=192.0.2.1"]).unwrap().1, networks);
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
            assert_eq!(parse_peers(&[wrong]).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn keepalive_defaults_match_nginx_with_a_sixteenth_per_tool() {
        let limits = |args: &[&str]| {
            let Limits { total, per_backend, per_owner } = parse_keepalive(args).unwrap().0.limits;
            (total, per_backend, per_owner)
        };
        assert_eq!(limits(&["4096"]), (4096, 16, 256));
        assert_eq!(limits(&["8"]), (8, 16, 16));
        assert_eq!(limits(&["4096", "per_backend=512"]), (4096, 512, 512));
        assert_eq!(limits(&["4096", "per_tool=1", "per_backend=2"]), (4096, 2, 1));
        let (KeepaliveSettings { timeout, requests, time, .. }, shared) = parse_keepalive(&["1"]).unwrap();
        assert_eq!((timeout.as_secs(), requests, time.as_secs(), shared), (60, 1000, 3600, vec![]));
        let args = ["1", "timeout=5s", "requests=7", "time=1m", "shared=10.1.2.3/8,::1"];
        let (KeepaliveSettings { timeout, requests, time, .. }, shared) = parse_keepalive(&args).unwrap();
        let networks = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
        assert_eq!((timeout.as_secs(), requests, time.as_secs(), shared), (5, 7, 60, networks.to_vec()));
    }

    #[test]
    fn error_names_the_wrong_parameter() {
        let error = |args: &[&str]| parse_keepalive(args).unwrap_err().to_string();
        let want = r#""urlproxy_keepalive" takes a number of connections, e.g. "urlproxy_keepalive 4096 per_backend=16 timeout=60s;""#;
        assert_eq!(error(&[]), want);
        for wrong in ["0", "-1", "1000001", "many", "per_backend=16"] {
            let want = format!(
                r#""urlproxy_keepalive" invalid number of connections (1 to 1000000) "{wrong}", expected e.g. "4096""#
            );
            assert_eq!(error(&[wrong]), want);
        }
        for wrong in [
            "64",
            "per_backend",
            "per_backend=0",
            "per_tool=-1",
            "timeout=0",
            "timeout=soon",
            "time=0s",
            "requests=0",
            "requests=x",
            "shared=",
            "shared=10.0.0.0/33",
            "max_fails=1",
        ] {
            let want = format!(r#""urlproxy_keepalive" invalid parameter "{wrong}", expected e.g. "per_backend=16 "#);
            assert!(error(&["64", wrong]).starts_with(&want), "{wrong}");
        }
    }
}
