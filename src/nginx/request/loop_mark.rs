//! `CDN-Loop` (RFC 8586): a request that has been here before, and would go to a backend that may lead back here, ends.
//!
//! An address of this nginx's own is set aside when routes are read. A name can lead anywhere, an address that is another
//! machine's can lead to a proxy that leads back. So a request to a backend that is given by name carries this proxy's mark,
//! and one that comes with the mark already goes to none. The mark is the proxy's alone: a loop over others that
//! mark comes back here all the same, and no other site is taken for this one. A client that sends the mark harms
//! its own request.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nginx_sys::NGX_LOG_WARN;
use ngx::core::Status;

use super::endpoint::{Destination, Endpoint};
use super::route::RequestRoute;
use crate::nginx::conf::location::{LocationConf, LoopMark};
use crate::nginx::ffi::request::Request;
use crate::nginx::ffi::timer::now_milliseconds;

/// A request that goes round in circles; nginx has no name for this status.
const LOOP_DETECTED: Status = Status(508);
/// Static, so that a header with a key at this very place is known to be ours.
static NAME: [u8; 8] = *b"CDN-Loop";
/// How often a loop is logged, in milliseconds: each is a tenant's to make.
const LOG_INTERVAL: u64 = 1000;
/// When this worker has last logged one, and how many it has not logged since.
static LOGGED_AT: AtomicU64 = AtomicU64::new(0);
static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// Marks a request that has backends, or ends one that is marked.
#[inline(always)]
pub(super) fn check(request: Request<'_>, route: &RequestRoute<'_>, conf: &LocationConf) -> Status {
    let is_name = |endpoint: &Endpoint<'_>| matches!(endpoint.destination, Destination::Name(..));
    let needs_mark = match conf.loop_mark {
        None | Some(LoopMark::Named) => match route.endpoints() {
            // Nearly always there is one.
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

/// A cdn-id: a pseudonym of this proxy for as long as its zone lives.
fn cdn_id(route: &RequestRoute<'_>) -> String {
    format!("urlproxy-{:016x}", route.table.table.get().map_or(0, |table| table.pseudonym()))
}

/// Logs a loop, and at most one a second.
fn report(route: &RequestRoute<'_>, log: impl FnOnce(&str)) {
    let now = now_milliseconds();
    let last = LOGGED_AT.load(Relaxed);
    if last != 0 && now.saturating_sub(last) < LOG_INTERVAL {
        SUPPRESSED.fetch_add(1, Relaxed);
        return;
    }
    LOGGED_AT.store(now, Relaxed);
    let backend = route.endpoints().first().map_or_else(String::new, ToString::to_string);
    let (tool, suppressed) = (route.tool.escape_ascii(), SUPPRESSED.swap(0, Relaxed));
    log(&format!(
        "urlproxy: backend leads back to this proxy; answering 508, backend={backend} tool=\"{tool}\" suppressed={suppressed}"
    ));
}

/// What became of a request's mark.
#[derive(Debug, PartialEq, Eq)]
enum MarkOutcome {
    Added,
    /// It came with the mark.
    AlreadyPresent,
}

/// Adds the mark to a request's headers, behind the marks of others. `None` when memory has run out.
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
        if contains_id(value, id) {
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

/// Whether one of the entries of a `CDN-Loop` is this id, whatever its parameters.
fn contains_id(value: &[u8], id: &str) -> bool {
    value.split(|&byte| byte == b',').any(|entry| {
        let name = entry.split(|&byte| byte == b';').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(id.as_bytes())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_name_with_parameters() {
        for (value, want) in [
            ("urlproxy-1", true),
            ("Urlproxy-1", true),
            ("a, urlproxy-1", true),
            ("a;v=1 ,\turlproxy-1 ; x=y, b", true),
            ("urlproxy-12", false),
            ("xurlproxy-1", false),
            ("a; urlproxy-1", false),
            ("a urlproxy-1", false),
            ("", false),
        ] {
            assert_eq!(contains_id(value.as_bytes(), "urlproxy-1"), want, "{value}");
        }
    }
}
