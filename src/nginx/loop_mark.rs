//! `CDN-Loop` (RFC 8586): a request that has been here before, and would go to a backend that may lead back here, ends.
//!
//! An address of this nginx's own is set aside when routes are read. A name can lead anywhere, an address that is another
//! machine's can lead to a proxy that leads back. So a request to a backend that is given by name carries this proxy's mark,
//! and one that comes with the mark already goes to none. The mark is the proxy's alone: a loop over others that
//! mark comes back here all the same, and no other site is taken for this one. A client that sends the mark harms
//! its own request.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nginx_sys::{
    NGX_LOG_WARN, ngx_current_msec, ngx_hash_key, ngx_http_request_t, ngx_int_t, ngx_list_part_t, ngx_table_elt_t,
};
use ngx::core::Status;

use super::directive::{Directive, DirectiveError, set_once};
use super::endpoint::{Destination, Endpoint};
use super::location_conf::LocationConf;
use super::log;
use super::pool;
use super::request::RequestRoute;

/// The status of a request that goes round in circles; nginx has no name for it.
const LOOP_DETECTED: ngx_int_t = 508;
/// Static, so that a header with a key at this very place is known to be ours.
static NAME: [u8; 8] = *b"CDN-Loop";
static LOWER_NAME: [u8; 8] = *b"cdn-loop";
/// How often a loop is logged, in milliseconds: each is a tenant's to make.
const LOG_EVERY: u64 = 1000;
/// When this worker has last logged one, and how many it has not logged since.
static LOGGED_AT: AtomicU64 = AtomicU64::new(0);
static NOT_LOGGED: AtomicU64 = AtomicU64::new(0);

/// Which requests carry the mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopMark {
    /// Those for a tool or domain of which a backend is given by name: also where nothing is said.
    Named,
    All,
    Off,
}

/// `urlproxy_loop_mark named|on|off;`
pub(super) struct UrlproxyLoopMark;

impl Directive for UrlproxyLoopMark {
    const NAME: &'static str = "urlproxy_loop_mark";
    type Conf = LocationConf;

    fn apply(conf: &mut LocationConf, args: &[&str]) -> Result<(), DirectiveError> {
        let mark = match args {
            ["named"] => LoopMark::Named,
            ["on"] => LoopMark::All,
            ["off"] => LoopMark::Off,
            _ => {
                let (takes, example) = ("\"named\", \"on\" or \"off\"", "urlproxy_loop_mark named;");
                return Err(DirectiveError::Arguments { directive: Self::NAME, takes, example });
            }
        };
        set_once(&mut conf.loop_mark, Self::NAME, mark)
    }
}

/// Marks a request that has backends, or ends one that is marked.
///
/// # Safety
/// `r` is the request nginx is working on, and nobody else is at its headers now.
#[inline(always)]
pub(super) unsafe fn pass(r: *mut ngx_http_request_t, route: &RequestRoute, conf: &LocationConf) -> ngx_int_t {
    let is_name = |endpoint: &Endpoint| matches!(endpoint.destination, Destination::Name(..));
    let needs_mark = match conf.loop_mark {
        None | Some(LoopMark::Named) => match route.endpoints() {
            // Nearly always there is one.
            [single] => is_name(single),
            several => several.iter().any(is_name),
        },
        Some(LoopMark::All) => true,
        Some(LoopMark::Off) => false,
    };
    // SAFETY: the caller's promise.
    if needs_mark { unsafe { pass_marked(r, route) } } else { Status::NGX_DECLINED.0 }
}

/// # Safety
/// As for [`pass`].
#[cold]
unsafe fn pass_marked(r: *mut ngx_http_request_t, route: &RequestRoute) -> ngx_int_t {
    // SAFETY: the caller's promise.
    let request = unsafe { &mut *r };
    // SAFETY: the caller's promise.
    match unsafe { mark(request, &id(route)) } {
        Some(Marked::Now) => Status::NGX_DECLINED.0,
        Some(Marked::Before) => {
            // SAFETY: a request has a connection.
            let connection = unsafe { &*request.connection };
            report(route, |text| {
                // SAFETY: the connection's own log.
                unsafe { log::write(connection.log, NGX_LOG_WARN, text) };
            });
            LOOP_DETECTED
        }
        None => Status::NGX_ERROR.0,
    }
}

/// A cdn-id: a pseudonym of this proxy for as long as its zone lives.
fn id(route: &RequestRoute) -> String {
    format!("urlproxy-{:016x}", route.table.table.get().map_or(0, |table| table.pseudonym()))
}

/// Logs a loop, and at most one a second.
fn report(route: &RequestRoute, say: impl FnOnce(&str)) {
    // SAFETY: nginx writes it on this thread.
    let now = unsafe { ngx_current_msec } as u64;
    let last = LOGGED_AT.load(Relaxed);
    if last != 0 && now.saturating_sub(last) < LOG_EVERY {
        NOT_LOGGED.fetch_add(1, Relaxed);
        return;
    }
    LOGGED_AT.store(now, Relaxed);
    let backend = route.endpoints().first().map_or_else(String::new, |endpoint| format!(" {endpoint}"));
    let (tool, more) = (route.tool.escape_ascii(), NOT_LOGGED.swap(0, Relaxed));
    say(&format!(
        "urlproxy: the backend{backend} leads back to this proxy; the request ends here with 508, tool=\"{tool}\" unlogged={more}"
    ));
}

/// What became of a request's mark.
#[derive(Debug, PartialEq, Eq)]
enum Marked {
    Now,
    /// It came with the mark.
    Before,
}

/// Adds the mark to a request's headers, behind the marks of others. `None` when memory has run out.
///
/// # Safety
/// Nobody else has a reference to the request's list of headers.
unsafe fn mark(request: &mut ngx_http_request_t, id: &str) -> Option<Marked> {
    let list = &raw mut request.headers_in.headers;
    let (mut headers, mut loops) = (Vec::new(), None);
    // SAFETY: the request's own list.
    let mut part: *const ngx_list_part_t = unsafe { &raw const (*list).part };
    // SAFETY: the list's own parts; so in the two that follow.
    while let Some(here) = unsafe { part.as_ref() } {
        // A part may be empty, and then have no place.
        if here.nelts > 0 {
            // SAFETY: as above; the list is one of headers.
            let elements = unsafe { std::slice::from_raw_parts(here.elts.cast::<ngx_table_elt_t>(), here.nelts) };
            headers.extend_from_slice(elements);
        }
        part = here.next;
    }
    for (at, header) in headers.iter().enumerate() {
        // SAFETY: the header's own text, as long as the request.
        if !unsafe { pool::bytes(header.key) }.eq_ignore_ascii_case(&NAME) {
            continue;
        }
        if std::ptr::eq(header.key.data, NAME.as_ptr()) {
            return Some(Marked::Now);
        }
        // SAFETY: as above.
        if names(unsafe { pool::bytes(header.value) }, id) {
            return Some(Marked::Before);
        }
        loops = Some(at);
    }
    let mut text = Vec::new();
    match loops.and_then(|at| headers.get(at)) {
        Some(header) => {
            // SAFETY: as above.
            text.extend_from_slice(unsafe { pool::bytes(header.value) });
            text.extend_from_slice(b", ");
        }
        None => {
            // SAFETY: all-zero is how nginx makes these itself; every field that is read follows.
            headers.push(unsafe { std::mem::zeroed() });
        }
    }
    text.extend_from_slice(id.as_bytes());
    text.push(0);
    // SAFETY: the request's pool, as in the next.
    let value = unsafe { pool::copy(request.pool, &text) }?;
    let at = loops.unwrap_or(headers.len() - 1);
    let header = headers.get_mut(at)?;
    header.key = pool::string(&NAME);
    header.value = pool::string(value.get(..value.len() - 1)?);
    header.lowcase_key = LOWER_NAME.as_ptr().cast_mut();
    // SAFETY: the bytes are static, and only read.
    header.hash = unsafe { ngx_hash_key(LOWER_NAME.as_ptr().cast_mut(), LOWER_NAME.len()) };
    // A list of its own: a subrequest's shares its elements with its parent's, and must not be added to.
    // SAFETY: as above.
    let copied = unsafe { pool::copy(request.pool, &headers) }?;
    // SAFETY: the request's own list, which nobody reads now.
    let list = unsafe { &mut *list };
    list.part =
        ngx_list_part_t { elts: copied.as_ptr().cast_mut().cast(), nelts: copied.len(), next: std::ptr::null_mut() };
    list.last = &raw mut list.part;
    list.nalloc = copied.len();
    Some(Marked::Now)
}

/// Whether one of the entries of a `CDN-Loop` is this id, whatever its parameters.
fn names(value: &[u8], id: &str) -> bool {
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
            assert_eq!(names(value.as_bytes(), "urlproxy-1"), want, "{value}");
        }
    }

    #[test]
    fn the_mark_is_for_named_backends_for_all_or_for_none() {
        let mark = |args: &[&str]| {
            let mut conf = LocationConf::default();
            UrlproxyLoopMark::apply(&mut conf, args).map(|()| conf.loop_mark).map_err(|error| error.to_string())
        };
        assert_eq!(mark(&["named"]), Ok(Some(LoopMark::Named)));
        assert_eq!(mark(&["on"]), Ok(Some(LoopMark::All)));
        assert_eq!(mark(&["off"]), Ok(Some(LoopMark::Off)));
        let takes = r#""urlproxy_loop_mark" takes "named", "on" or "off", e.g. "urlproxy_loop_mark named;""#;
        assert_eq!(mark(&["yes"]), Err(takes.into()));
    }
}
