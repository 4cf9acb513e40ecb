//! `urlproxy_keepalive`: idle connections to the backends of an upstream, per worker.
//!
//! Follows the conditions and steps of nginx's `ngx_http_upstream_keepalive_module`.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use nginx_sys::{
    NGX_HTTP_LOCK, NGX_HTTP_PATCH, NGX_HTTP_POST, NGX_HTTP_UPSTREAM_FT_ERROR, NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT,
};

use super::ffi::addr_text::AddrText;
use super::ffi::connection::{Connection, ConnectionStore, HasConnectionStore};
use super::ffi::module::Module;
use super::ffi::peer::PeerConnection;
use super::ffi::process::is_exiting;
use super::ffi::request::Request;
use super::ffi::timer::now_milliseconds;
use super::ffi::upstream::Upstream;
use crate::directive::upstream::KeepaliveSettings;
use crate::keepalive::{BackendHandle, IdleConnections, KeepOutcome, Key, Usage};

/// Milliseconds after which a backend that closes after each response has closed. A request that nginx cannot repeat takes no
/// connection that has served only one response and has been idle for less.
const SETTLE_MILLISECONDS: u64 = 10;
/// nginx's `NGX_TIMER_LAZY_DELAY`: a timer that would change by fewer milliseconds is not reset.
const TIMER_LAZY_DELAY: u64 = 300;
/// A timer longer than this cannot expire while nginx sends a request without a body.
const MIN_LAZY_TIMEOUT: Duration = Duration::from_secs(10);

/// The idle connections of an upstream, in this worker.
pub(super) struct Keepalive {
    settings: KeepaliveSettings,
    idle: RefCell<IdleConnections<Connection>>,
    /// A reference to itself, which connections store.
    this: Weak<Self>,
}

impl HasConnectionStore for Module {
    type Store = Keepalive;
}

/// What a request requires of a kept connection.
struct Requirements {
    /// The connection must be verified as open: nginx cannot repeat the request.
    must_be_silent: bool,
    has_body: bool,
}

impl Requirements {
    /// Decides as `ngx_http_upstream_next` does whether nginx repeats the request when a kept connection turns out to be
    /// closed.
    #[inline(always)]
    fn of(request: Request<'_>, upstream: Upstream<'_>) -> Self {
        let changes_state = request.method() & (NGX_HTTP_POST | NGX_HTTP_LOCK | NGX_HTTP_PATCH) != 0;
        let next_upstream = upstream.next_upstream();
        let allows = |condition: u32| next_upstream & condition != 0;
        let must_be_silent = request.streams_body()
            || !allows(NGX_HTTP_UPSTREAM_FT_ERROR)
            || changes_state && !allows(NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT);
        Self { must_be_silent, has_body: request.has_body() }
    }
}

impl Keepalive {
    /// An empty pool.
    pub fn new(settings: KeepaliveSettings) -> Rc<Self> {
        Rc::new_cyclic(|this| {
            let idle = RefCell::new(IdleConnections::new(settings.limits));
            Self { settings, idle, this: this.clone() }
        })
    }

    /// Maximum number of connections that each worker keeps.
    pub fn max_connections(&self) -> usize {
        self.settings.limits.total as usize
    }

    /// Lowers the limit of this worker.
    pub fn lower_limit(&self, limit: usize) {
        if let Ok(mut idle) = self.idle.try_borrow_mut() {
            idle.lower_limit(u32::try_from(limit).unwrap_or(u32::MAX));
        }
    }

    /// Number of idle connections in this worker, and the usage since the last call; `None` during a change.
    pub fn take_usage(&self) -> Option<(usize, Usage)> {
        let mut idle = self.idle.try_borrow_mut().ok()?;
        Some((idle.len(), idle.take_usage()))
    }

    /// Takes an idle connection to the backend: the connection, the handle for [`Keepalive::keep`], and whether its timer may
    /// keep running.
    #[inline(always)]
    pub fn take(
        &self,
        key: &Key,
        request: Request<'_>,
        upstream: Upstream<'_>,
    ) -> Option<(Connection, BackendHandle, bool)> {
        let mut idle = self.idle.try_borrow_mut().ok()?;
        let requirements = Requirements::of(request, upstream);
        let now = now_milliseconds();
        let mut since = now;
        let fits = |connection: &Connection, kept_at| {
            since = kept_at;
            let is_settled = || connection.requests() > 1 || now.wrapping_sub(kept_at) >= SETTLE_MILLISECONDS;
            !requirements.must_be_silent || is_settled() && connection.is_silent()
        };
        let (connection, handle) = idle.take(key, fits)?;
        // nginx resets the timer once the request is sent, immediately if there is no body, and skips changes this small.
        let keeps_timer = !requirements.has_body
            && now.wrapping_sub(since) < TIMER_LAZY_DELAY
            && self.settings.timeout > MIN_LAZY_TIMEOUT;
        Some((connection, handle, keeps_timer))
    }

    /// Keeps the connection of a finished request if it is reusable, and removes it from `peer`.
    #[inline(always)]
    pub fn keep(
        &self,
        key: &Key,
        handle: Option<BackendHandle>,
        peer: &mut PeerConnection<'_>,
        upstream: Upstream<'_>,
        has_failed: bool,
    ) {
        let fits = |connection: &mut Connection, text: Option<&AddrText>| {
            self.is_reusable(connection) && connection.watch() && connection.prepare(text, &self.this)
        };
        let is_kept = !has_failed && upstream.is_complete() && peer.check_connection(fits);
        let Ok(mut idle) = self.idle.try_borrow_mut() else { return };
        let Some(connection) = is_kept.then(|| peer.take_connection()).flatten() else {
            return handle.into_iter().for_each(|handle| idle.release(handle));
        };
        let (slot, is_ready, evicted) = match idle.keep(key, handle, connection, now_milliseconds()) {
            KeepOutcome::Kept { slot, connection, evicted } => {
                connection.park(slot, self.settings.timeout.as_millis() as usize);
                (slot, connection.is_ready(), evicted)
            }
            KeepOutcome::Rejected(connection) => return connection.close(),
        };
        drop(idle);
        if let Some(evicted) = evicted {
            evicted.close();
        }
        if is_ready {
            self.on_event(slot);
        }
    }

    /// Whether the connection is open and within its limits.
    #[inline(always)]
    fn is_reusable(&self, connection: &Connection) -> bool {
        !connection.is_broken()
            && connection.requests() < self.settings.requests
            && connection.age() <= self.settings.time.as_millis() as u64
            && !is_exiting()
    }
}

impl ConnectionStore for Keepalive {
    /// Closes an idle connection unless it is still open and silent.
    fn on_event(&self, slot: u32) {
        let Ok(mut idle) = self.idle.try_borrow_mut() else { return };
        if idle.get_mut(slot).is_none_or(Connection::is_still_idle) {
            return;
        }
        let closed = idle.remove(slot);
        drop(idle);
        if let Some(closed) = closed {
            closed.close();
        }
    }
}
