//! `urlproxy_keepalive`: idle connections to the backends of an upstream, per worker.
//!
//! Conditions and steps are those of nginx's `ngx_http_upstream_keepalive_module`.

use std::cell::RefCell;
use std::net::IpAddr;
use std::ptr::{self, NonNull};
use std::time::Duration;

use ipnet::IpNet;
use nginx_sys::{
    EAGAIN, MSG_PEEK, NGX_AGAIN, NGX_HTTP_LOCK, NGX_HTTP_PATCH, NGX_HTTP_POST, NGX_HTTP_UPSTREAM_FT_ERROR,
    NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT, ngx_add_timer, ngx_close_connection, ngx_connection_t, ngx_current_msec,
    ngx_cycle, ngx_cycle_t, ngx_del_timer, ngx_destroy_pool, ngx_event_t, ngx_handle_read_event, ngx_http_request_t,
    ngx_http_upstream_t, ngx_log_t, ngx_peer_connection_t, ngx_queue_insert_after, ngx_queue_remove, ngx_ssl_shutdown,
    ngx_str_t, ngx_uint_t, recv,
};
use ngx::core::Status;

use super::addr_text::AddrText;
use super::directive::DirectiveError;
use super::guard::guarded;
use super::pool;
use super::process;
use super::units::parse_duration;
use crate::keepalive::{IdleConnections, Kept, Key, Limits, Ticket};

/// The most connections that a configuration may keep.
const MOST: u32 = 1_000_000;
/// A tool may have so many of all connections, unless `per_tool` says otherwise: one sixteenth.
const SHARES: u32 = 16;
/// Milliseconds after which a backend that closes behind its first answer has closed: a request that cannot be repeated
/// takes no connection with one answer that was kept later.
const SETTLED: u64 = 10;
/// `NGX_TIMER_LAZY_DELAY`: a timer that would change by fewer milliseconds stays as it is.
const LITTLE: u64 = 300;
/// Timers that run for longer are not due while a request is sent that has no body.
const SOON: Duration = Duration::from_secs(10);

/// What follows `urlproxy_keepalive`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Settings {
    limits: Limits,
    timeout: Duration,
    requests: usize,
    time: Duration,
    /// Networks whose plain connections any record may use.
    pub shared: Vec<IpNet>,
}

pub(super) fn parse_settings(args: &[&str]) -> Result<Settings, DirectiveError> {
    let (directive, example) = ("urlproxy_keepalive", "urlproxy_keepalive 4096 per_backend=16 timeout=60s;");
    let Some((number, parameters)) = args.split_first() else {
        return Err(DirectiveError::Arguments { directive, takes: "a number of connections", example });
    };
    let number_of = |text: &str| text.parse().ok().filter(|number| (1..=MOST).contains(number));
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
            ("shared", value) => shared.extend(parse_networks(value).ok_or_else(invalid)?),
            _ => return Err(invalid()),
        }
    }
    let per_owner = per_tool.unwrap_or((total / SHARES).max(per_backend));
    Ok(Settings { limits: Limits { total, per_backend, per_owner }, timeout, requests, time, shared })
}

/// `10.0.0.0/8,fd00::1`
pub(super) fn parse_networks(text: &str) -> Option<Vec<IpNet>> {
    let network = |text: &str| text.parse().or_else(|_| text.parse().map(|ip: IpAddr| ip.into())).ok();
    text.split(',').map(|text| network(text).map(|network: IpNet| network.trunc())).collect()
}

/// The idle connections of an upstream, in this worker.
pub(super) struct Keepalive {
    settings: Settings,
    idle: RefCell<IdleConnections<NonNull<ngx_connection_t>>>,
    /// What an idle connection's `data` points to, by its place.
    places: Box<[Place]>,
}

struct Place {
    keepalive: NonNull<Keepalive>,
    number: u32,
}

/// What decides about the connection that a request gets.
pub(super) struct Request {
    /// For a request that cannot be repeated.
    pub must_be_silent: bool,
    pub has_body: bool,
}

/// How a request on a connection has ended.
pub(super) struct Ending {
    pub upstream: *const ngx_http_upstream_t,
    pub has_failed: bool,
    /// The backend's address.
    pub text: *const AddrText,
}

/// A connection that was given to a request.
pub(super) struct Taken {
    /// For [`Keepalive::keep`].
    pub ticket: Ticket,
    /// The backend's address, as long as the connection is open.
    pub text: &'static AddrText,
}

impl Keepalive {
    /// In a box, because idle connections point to it.
    pub fn new(settings: Settings) -> Box<Self> {
        let total = settings.limits.total;
        let idle = RefCell::new(IdleConnections::new(settings.limits));
        let mut keepalive = Box::new(Self { settings, idle, places: Box::default() });
        let at = NonNull::from_mut(&mut *keepalive);
        keepalive.places = (0..total).map(|number| Place { keepalive: at, number }).collect();
        keepalive
    }

    /// How many connections each worker may keep.
    pub fn most(&self) -> usize {
        self.settings.limits.total as usize
    }

    /// Keeps no more than so many, in this worker.
    pub fn lower_limit(&self, most: usize) {
        if let Ok(mut idle) = self.idle.try_borrow_mut() {
            idle.lower_limit(u32::try_from(most).unwrap_or(u32::MAX));
        }
    }

    /// Gives `pc` an idle connection to the backend.
    #[inline(always)]
    pub fn take(&self, key: &Key, pc: &mut ngx_peer_connection_t, request: &Request) -> Option<Taken> {
        let mut idle = self.idle.try_borrow_mut().ok()?;
        let now = now();
        let mut since = now;
        let fits = |c: NonNull<ngx_connection_t>, kept_at| {
            since = kept_at;
            // SAFETY: what is kept is open.
            let c = unsafe { c.as_ref() };
            !request.must_be_silent || (c.requests > 1 || now.wrapping_sub(since) >= SETTLED) && is_silent(c)
        };
        let (mut c, ticket) = idle.take(key, fits)?;
        // SAFETY: from here on the connection is this request's alone.
        let c = unsafe { c.as_mut() };
        c.set_idle(0);
        c.sent = 0;
        c.data = ptr::null_mut();
        set_log(c, pc.log);
        withdraw(c);
        // SAFETY: an open connection has both events.
        let has_timer = unsafe { &*c.read }.timer_set() != 0;
        // nginx sets the timer anew as soon as the request is sent, at once if there is no body, and lets a timer be that
        // changes by so little.
        let lets_timer = !request.has_body && now.wrapping_sub(since) < LITTLE && self.settings.timeout > SOON;
        if has_timer && !lets_timer {
            // SAFETY: its timer is set.
            unsafe { ngx_del_timer(c.read) };
        }
        pc.connection = c;
        pc.set_cached(1);
        // SAFETY: `try_keep` has put it there, into the connection's pool.
        Some(Taken { ticket, text: unsafe { &*c.addr_text.data.cast() } })
    }

    /// Keeps the connection of a request that is done, if it can be used again. Then `pc` has none any more.
    #[inline(always)]
    pub fn keep(&self, key: &Key, ticket: Option<Ticket>, pc: &mut ngx_peer_connection_t, ending: &Ending) {
        let ticket = match self.try_keep(key, ticket, pc, ending) {
            Ok(()) => return,
            Err(ticket) => ticket,
        };
        if let (Some(ticket), Ok(mut idle)) = (ticket, self.idle.try_borrow_mut()) {
            idle.release(ticket);
        }
    }

    /// The same; the ticket comes back if it was not used.
    #[inline(always)]
    fn try_keep(
        &self,
        key: &Key,
        ticket: Option<Ticket>,
        pc: &mut ngx_peer_connection_t,
        ending: &Ending,
    ) -> Result<(), Option<Ticket>> {
        // SAFETY: nginx passes the connection of the request, or none.
        let Some(c) = (unsafe { pc.connection.as_mut() }) else { return Err(ticket) };
        // SAFETY: nginx's request of the upstream lives until the peer is free.
        if ending.has_failed || !self.is_reusable(c) || !unsafe { is_complete(ending.upstream) } {
            return Err(ticket);
        }
        // SAFETY: an open connection has its events.
        if unsafe { ngx_handle_read_event(c.read, 0) } != Status::NGX_OK.0 {
            return Err(ticket);
        }
        if c.addr_text.data.is_null() {
            // To be used again, as writing an address costs as much as finding a connection.
            // SAFETY: the request's text lives as long as its peers.
            let text = unsafe { *ending.text };
            // SAFETY: an upstream's connection has a pool of its own.
            let text = unsafe { pool::place(c.pool, || text) };
            let Some(text) = text else { return Err(ticket) };
            c.addr_text = ngx_str_t { len: 0, data: ptr::from_mut(text).cast() };
        }
        let Ok(mut idle) = self.idle.try_borrow_mut() else { return Err(ticket) };
        let Kept { place, given_up } = idle.keep(key, ticket, NonNull::from_mut(c), now());
        drop(idle);
        if let Some(mut given_up) = given_up {
            // SAFETY: an open connection that no one else has any more.
            withdraw(unsafe { given_up.as_mut() });
            // SAFETY: as above.
            unsafe { close(given_up.as_ptr()) };
        }
        let Some(place) = place.and_then(|place| self.places.get(place as usize)) else { return Ok(()) };
        pc.connection = ptr::null_mut();
        // SAFETY: an open connection has its events, and no one else is at them.
        let read = unsafe { &mut *c.read };
        // SAFETY: as above.
        let write = unsafe { &mut *c.write };
        read.set_delayed(0);
        // SAFETY: an event of an open connection.
        unsafe { ngx_add_timer(read, self.settings.timeout.as_millis() as usize) };
        if write.timer_set() != 0 {
            // SAFETY: its timer is set.
            unsafe { ngx_del_timer(write) };
        }
        write.handler = Some(on_write);
        read.handler = Some(on_read);
        c.data = ptr::from_ref(place).cast_mut().cast();
        c.set_idle(1);
        set_log(c, cycle().log);
        offer(c);
        if read.ready() != 0 {
            look(c);
        }
        Ok(())
    }

    /// Whether the connection is open, and not used up.
    #[inline(always)]
    fn is_reusable(&self, c: &ngx_connection_t) -> bool {
        // SAFETY: an open connection has its events.
        let read = unsafe { &*c.read };
        // SAFETY: as above.
        let write = unsafe { &*c.write };
        let is_broken = read.eof() | read.error() | read.timedout() | write.error() | write.timedout() != 0;
        let age = now().wrapping_sub(c.start_time as u64);
        !is_broken
            && c.requests < self.settings.requests
            && age <= self.settings.time.as_millis() as u64
            && !process::is_exiting()
    }
}

/// Whether answer and request were both whole, and the backend lets the connection open.
///
/// # Safety
/// `upstream` is a request's.
#[inline(always)]
unsafe fn is_complete(upstream: *const ngx_http_upstream_t) -> bool {
    // nginx has a reference to the upstream's peer, so none is made to the whole.
    // SAFETY: the caller's promise.
    let keepalive = unsafe { ngx_http_upstream_t::keepalive_raw(upstream) };
    // SAFETY: the caller's promise.
    let request_body_sent = unsafe { ngx_http_upstream_t::request_body_sent_raw(upstream) };
    keepalive & request_body_sent != 0
}

impl Request {
    /// Whether nginx sends this request again when a kept connection turns out to be closed: as `ngx_http_upstream_next`
    /// decides it.
    #[inline(always)]
    pub fn of(request: &ngx_http_request_t, next_upstream: ngx_uint_t) -> Self {
        let is_unsafe = request.method & (NGX_HTTP_POST | NGX_HTTP_LOCK | NGX_HTTP_PATCH) as ngx_uint_t != 0;
        let allows = |condition: u32| next_upstream & condition as ngx_uint_t != 0;
        let is_streamed = request.request_body_no_buffering() != 0;
        let must_be_silent = is_streamed
            || !allows(NGX_HTTP_UPSTREAM_FT_ERROR)
            || is_unsafe && !allows(NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT);
        // In HTTP/2 the length of a body that is streamed need not be known.
        let has_body = is_streamed || request.headers_in.content_length_n > 0 || request.headers_in.chunked() != 0;
        Self { must_be_silent, has_body }
    }
}

/// Whether the connection is open, and the backend has sent nothing.
fn is_silent(c: &ngx_connection_t) -> bool {
    let mut byte = 0_u8;
    // SAFETY: one byte of our own. nginx's sockets do not block.
    let received = unsafe { recv(c.fd, (&raw mut byte).cast(), 1, MSG_PEEK as i32) };
    received == -1 && std::io::Error::last_os_error().raw_os_error() == Some(EAGAIN as i32)
}

/// Idle connections write nothing.
unsafe extern "C" fn on_write(_: *mut ngx_event_t) {}

/// The backend closes or says something, the connection is idle for too long, or nginx needs it or ends.
unsafe extern "C" fn on_read(event: *mut ngx_event_t) {
    guarded((), || {
        // SAFETY: nginx passes the event of a connection that `keep` has kept.
        let c = unsafe { (*event).data };
        // SAFETY: as above.
        look(unsafe { &mut *c.cast::<ngx_connection_t>() });
    });
}

/// Closes an idle connection unless the backend lets it open and is silent.
fn look(c: &mut ngx_connection_t) {
    // SAFETY: an open connection has its events.
    let read = unsafe { &mut *c.read };
    if c.close() == 0 && read.timedout() == 0 && is_silent(c) {
        read.set_ready(0);
        // SAFETY: an event of an open connection.
        if unsafe { ngx_handle_read_event(read, 0) } == Status::NGX_OK.0 {
            return;
        }
    }
    // SAFETY: `keep` made it point to a place of the configuration that the connection was kept by; nginx keeps that as long
    // as connections of its time are open.
    let place = unsafe { &*c.data.cast::<Place>() };
    // SAFETY: the places are the pool's own.
    let keepalive = unsafe { place.keepalive.as_ref() };
    if let Ok(mut idle) = keepalive.idle.try_borrow_mut() {
        idle.remove(place.number);
    }
    withdraw(c);
    // SAFETY: an open connection that no one has any more.
    unsafe { close(c) };
}

/// Closes a connection; one with TLS says nothing and waits for nothing.
///
/// # Safety
/// The connection is open and in no pool.
unsafe extern "C" fn close(c: *mut ngx_connection_t) {
    // SAFETY: the caller's promise.
    let ssl = unsafe { (*c).ssl };
    // SAFETY: nginx keeps it as long as the connection.
    if let Some(ssl) = unsafe { ssl.as_mut() } {
        ssl.set_no_wait_shutdown(1);
        ssl.set_no_send_shutdown(1);
        // SAFETY: a connection with TLS.
        if unsafe { ngx_ssl_shutdown(c) } == NGX_AGAIN as isize {
            ssl.handler = Some(close);
            return;
        }
    }
    // SAFETY: an upstream's connection has a pool of its own.
    let pool = unsafe { (*c).pool };
    // SAFETY: the caller's promise: no one uses what is in the pool any more.
    unsafe { ngx_destroy_pool(pool) };
    // SAFETY: the caller's promise.
    unsafe { ngx_close_connection(c) };
}

/// Has the connection log to `log` from now on.
#[inline(always)]
fn set_log(c: &mut ngx_connection_t, log: *mut ngx_log_t) {
    c.log = log;
    // SAFETY: an open connection has its events.
    unsafe { (*c.read).log = log };
    // SAFETY: as above.
    unsafe { (*c.write).log = log };
    // SAFETY: an upstream's connection has a pool of its own.
    unsafe { (*c.pool).log = log };
}

/// What nginx runs by.
#[inline(always)]
fn cycle<'a>() -> &'a mut ngx_cycle_t {
    // SAFETY: nginx has a cycle while it runs, and writes this on this thread.
    let cycle = unsafe { ngx_cycle };
    // SAFETY: as above; nobody else is at what is read and written here meanwhile.
    unsafe { &mut *cycle }
}

/// Puts an idle connection at the end of those that nginx closes when it needs others: as `ngx_reusable_connection`, but
/// `stub_status` does not count it as a waiting client's.
#[inline(always)]
fn offer(c: &mut ngx_connection_t) {
    let cycle = cycle();
    // SAFETY: nginx's list, and a connection that is in none.
    unsafe { ngx_queue_insert_after(&raw mut cycle.reusable_connections_queue, &raw mut c.queue) };
    cycle.reusable_connections_n = cycle.reusable_connections_n.wrapping_add(1);
    c.set_reusable(1);
}

/// Takes a connection out again, before it is used or closed.
#[inline(always)]
fn withdraw(c: &mut ngx_connection_t) {
    if c.reusable() == 0 {
        return;
    }
    // SAFETY: `offer` has put it into the list.
    unsafe { ngx_queue_remove(&raw mut c.queue) };
    let cycle = cycle();
    cycle.reusable_connections_n = cycle.reusable_connections_n.wrapping_sub(1);
    c.set_reusable(0);
}

/// Milliseconds of the clock that nginx's timers go by.
#[inline(always)]
fn now() -> u64 {
    // SAFETY: nginx writes it on this thread.
    unsafe { ngx_current_msec as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_nginx_and_a_sixteenth_for_each_tool() {
        let limits = |args: &[&str]| {
            let Limits { total, per_backend, per_owner } = parse_settings(args).unwrap().limits;
            (total, per_backend, per_owner)
        };
        assert_eq!(limits(&["4096"]), (4096, 16, 256));
        assert_eq!(limits(&["8"]), (8, 16, 16));
        assert_eq!(limits(&["4096", "per_backend=512"]), (4096, 512, 512));
        assert_eq!(limits(&["4096", "per_tool=1", "per_backend=2"]), (4096, 2, 1));
        let settings = parse_settings(&["1"]).unwrap();
        let Settings { timeout, requests, time, shared, .. } = settings;
        assert_eq!((timeout.as_secs(), requests, time.as_secs(), shared), (60, 1000, 3600, vec![]));
        let settings = parse_settings(&["1", "timeout=5s", "requests=7", "time=1m", "shared=10.1.2.3/8,::1"]).unwrap();
        let Settings { timeout, requests, time, shared, .. } = settings;
        let networks = ["10.0.0.0/8", "::1/128"].map(|network| network.parse().unwrap());
        assert_eq!((timeout.as_secs(), requests, time.as_secs(), shared), (5, 7, 60, networks.to_vec()));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |args: &[&str]| parse_settings(args).unwrap_err().to_string();
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
