//! Rejects responses of backends that nginx would pass on in a form that clients do not take for one whole response.
//!
//! nginx passes an interim response (1xx, RFC 9110 section 15.2) on as the final one, and a response without a status line
//! (HTTP/0.9) without a header. To the client, what the backend sends next is then a response of its own. On a connection that
//! a load balancer shares among clients, a tool could so answer requests for other tools.

use nginx_sys::{NGX_HTTP_OK, NGX_HTTP_SWITCHING_PROTOCOLS, NGX_LOG_ERR};

use super::log_limit::LogLimit;
use super::peers::tool_field;
use crate::nginx::ffi::header_filter::HeaderFilter;
use crate::nginx::ffi::request::Request;
use crate::nginx::ffi::upstream::Upstream;

static LOG_LIMIT: LogLimit = LogLimit::new();

/// Accepts the final responses of backends, and upgrades that the client asked for.
pub(in crate::nginx) struct FinalResponses;

impl HeaderFilter for FinalResponses {
    #[inline(always)]
    fn accepts(request: Request<'_>) -> bool {
        match request.upstream() {
            Some(upstream) if upstream.response_status() < NGX_HTTP_OK as usize => accepts_unusual(request, upstream),
            _ => true,
        }
    }
}

#[cold]
fn accepts_unusual(request: Request<'_>, upstream: Upstream<'_>) -> bool {
    let status = upstream.response_status();
    let has_no_header = request.is_response_headerless();
    // Without a response there is no status, for example if the backend does not answer.
    if !has_no_header && !upstream.has_status_line() || !is_routed(request) {
        return true;
    }
    // nginx itself has rejected the response, after its status.
    if upstream.is_ended() {
        request.restore_version();
        return true;
    }
    if !has_no_header && is_requested_upgrade(request, upstream) {
        return true;
    }
    report(request, has_no_header, status);
    upstream.forget_response();
    request.restore_version();
    false
}

/// Whether a tool or domain answers the request.
fn is_routed(request: Request<'_>) -> bool {
    request.location_conf().is_some_and(|conf| conf.table().is_some()) || request.stored_context().is_some()
}

/// Whether nginx is about to tunnel the connection, and the client asked for that by RFC 9110 section 7.8. nginx itself looks
/// at the header `Upgrade` only: it would tunnel the bytes of an HTTP/2 connection too.
fn is_requested_upgrade(request: Request<'_>, upstream: Upstream<'_>) -> bool {
    let has_option = || {
        request.headers_in().iter().any(|(name, value)| {
            name.eq_ignore_ascii_case(b"connection")
                && value.split(|&byte| byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"))
        })
    };
    upstream.is_upgraded()
        && request.is_main()
        && request.status() == NGX_HTTP_SWITCHING_PROTOCOLS as usize
        && request.is_http_1_1()
        && has_option()
}

/// Logs a rejected response, unless the log is limited.
fn report(request: Request<'_>, has_no_header: bool, status: usize) {
    let Some(suppressed) = LOG_LIMIT.admit() else { return };
    let what = if has_no_header {
        "backend sent no HTTP header".into()
    } else {
        format!("backend sent unrequested status {status:03}")
    };
    let backend = request.stored_context().map_or_else(String::new, |route| {
        let backend = route.endpoints().get(route.chosen.get()).map_or_else(String::new, ToString::to_string);
        format!(" backend={backend}{}", tool_field(route))
    });
    let text = format!("urlproxy: {what}; answering 502,{backend} suppressed={suppressed}");
    request.log().write(NGX_LOG_ERR, &text);
}
