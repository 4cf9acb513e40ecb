//! The loop mark, `CDN-Loop` (RFC 8586): stops a request that returns to this proxy.
//!
//! Routes to nginx's own sockets are rejected when they are read. But a name can resolve to this proxy, and another
//! machine can forward back to it. So a request to a backend given by name carries the mark, and a request that arrives with
//! the mark is answered with 508 instead. The mark identifies this proxy only: a loop through other marking proxies still
//! returns here, and no other site is mistaken for this one. A client that sends the mark harms only its own request.

use std::ptr;

use nginx_sys::NGX_LOG_WARN;
use ngx::core::Status;

use super::endpoint::{Destination, Endpoint};
use super::log_limit::LogLimit;
use super::route::RequestRoute;
use crate::directive::location::LoopMark;
use crate::nginx::conf::location::LocationConf;
use crate::nginx::ffi::request::Request;
use crate::route::has_loop_mark;

/// Loop Detected (RFC 5842); nginx has no constant for it.
const LOOP_DETECTED: Status = Status(508);
/// Static: a header whose key points here was added by this module.
static NAME: [u8; 8] = *b"CDN-Loop";
static LOG_LIMIT: LogLimit = LogLimit::new();

/// Adds the loop mark if required, or answers a request that already has it with 508.
#[inline(always)]
pub(super) fn check(request: Request<'_>, route: &RequestRoute<'_>, conf: &LocationConf) -> Status {
    let is_name = |endpoint: &Endpoint<'_>| matches!(endpoint.destination, Destination::Name(..));
    let needs_mark = match conf.options.loop_mark {
        None | Some(LoopMark::Named) => match route.endpoints() {
            // The usual case.
            [single] => is_name(single),
            several => several.iter().any(is_name),
        },
        Some(LoopMark::All) => true,
        Some(LoopMark::Off) => false,
    };
    if needs_mark { mark_or_reject(request, route) } else { Status::NGX_DECLINED }
}

#[cold]
fn mark_or_reject(request: Request<'_>, route: &RequestRoute<'_>) -> Status {
    match mark(request, &cdn_id(route)) {
        Some(MarkOutcome::Added) => Status::NGX_DECLINED,
        Some(MarkOutcome::AlreadyPresent) => {
            report(route, |text| request.log().write(NGX_LOG_WARN, text));
            LOOP_DETECTED
        }
        None => Status::NGX_ERROR,
    }
}

/// The `cdn-id` of this proxy: a pseudonym for the lifetime of its zone.
fn cdn_id(route: &RequestRoute<'_>) -> String {
    format!("urlproxy-{:016x}", route.table.table.get().map_or(0, |table| table.pseudonym()))
}

/// Logs a loop, unless the log is limited.
fn report(route: &RequestRoute<'_>, log: impl FnOnce(&str)) {
    let Some(suppressed) = LOG_LIMIT.admit() else { return };
    let backend = route.endpoints().first().map_or_else(String::new, ToString::to_string);
    let tool = route.tool.escape_ascii();
    log(&format!(
        "urlproxy: backend leads back to this proxy; answering 508, backend={backend} tool=\"{tool}\" suppressed={suppressed}"
    ));
}

/// The result of [`mark`].
#[derive(Debug, PartialEq, Eq)]
enum MarkOutcome {
    Added,
    /// The request arrived with the mark.
    AlreadyPresent,
}

/// Adds the mark to the request headers, after the marks of other proxies. `None` if out of memory.
fn mark(request: Request<'_>, id: &str) -> Option<MarkOutcome> {
    let headers = request.headers_in();
    let mut others: Option<(usize, &[u8])> = None;
    for (at, (name, value)) in headers.iter().enumerate() {
        if !name.eq_ignore_ascii_case(&NAME) {
            continue;
        }
        if ptr::eq(name.as_ptr(), NAME.as_ptr()) {
            return Some(MarkOutcome::Added);
        }
        if has_loop_mark(value, id) {
            return Some(MarkOutcome::AlreadyPresent);
        }
        others = Some((at, value));
    }
    let value = match others {
        Some((_, value)) => [value, b", ", id.as_bytes()].concat(),
        None => id.as_bytes().to_vec(),
    };
    headers.set(others.map(|(at, _)| at), &NAME, &value)?;
    Some(MarkOutcome::Added)
}
