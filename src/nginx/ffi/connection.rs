//! An open connection to a backend, idle or about to be.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::rc::Weak;

use nginx_sys::{
    EAGAIN, MSG_PEEK, NGX_AGAIN, ngx_add_timer, ngx_close_connection, ngx_connection_t, ngx_del_timer,
    ngx_destroy_pool, ngx_event_t, ngx_handle_read_event, ngx_log_t, ngx_pool_cleanup_add, ngx_queue_insert_after,
    ngx_queue_remove, ngx_ssl_shutdown, ngx_str_t, recv,
};
use ngx::core::Status;

use super::addr_text::AddrText;
use super::cycle::Cycle;
use super::module::Module;
use super::panic_guard::catch_panic;
use super::pool::Pool;
use super::timer::now_milliseconds;

/// An open connection of an upstream, which only the holder of this uses. One that is taken from nginx and dropped is closed
/// when something happens to it.
pub(in crate::nginx) struct Connection {
    raw: NonNull<ngx_connection_t>,
}

/// What keeps idle connections.
pub(in crate::nginx) trait ConnectionStore {
    /// Something happened to the connection at this slot: the backend closes it or says something, it was idle for too long,
    /// or nginx needs it or ends.
    fn on_event(&self, slot: u32);
}

/// The type of this module's [`ConnectionStore`].
pub(in crate::nginx) trait HasConnectionStore {
    /// What keeps idle connections.
    type Store: ConnectionStore + 'static;
}

/// The slot of a connection that no store has.
const NO_SLOT: u32 = u32::MAX;

type ModuleStore = <Module as HasConnectionStore>::Store;

/// What an open connection has in its own pool.
struct ConnectionData {
    text: AddrText,
    /// Where it waits, or [`NO_SLOT`].
    slot: u32,
    store: Weak<ModuleStore>,
}

impl Connection {
    /// # Safety
    /// `raw` is null, or an open connection of an upstream, with a pool of its own; nothing else uses it.
    #[inline(always)]
    pub(super) unsafe fn from_raw(raw: *mut ngx_connection_t) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw })
    }

    #[inline(always)]
    fn into_raw(self) -> *mut ngx_connection_t {
        self.raw.as_ptr()
    }

    #[inline(always)]
    fn as_ref(&self) -> &ngx_connection_t {
        // SAFETY: as in `raw_field`.
        unsafe { self.raw.as_ref() }
    }

    #[inline(always)]
    fn as_mut(&mut self) -> &mut ngx_connection_t {
        // SAFETY: as in `raw_field`.
        unsafe { self.raw.as_mut() }
    }

    #[inline(always)]
    fn read(&self) -> &ngx_event_t {
        let event = raw_field!(self.read);
        // SAFETY: an open connection has both events.
        unsafe { &*event }
    }

    #[inline(always)]
    fn write(&self) -> &ngx_event_t {
        let event = raw_field!(self.write);
        // SAFETY: an open connection has both events.
        unsafe { &*event }
    }

    #[inline(always)]
    fn read_mut(&mut self) -> &mut ngx_event_t {
        let event = raw_field!(self.read);
        // SAFETY: an open connection has both events, and only the holder uses them.
        unsafe { &mut *event }
    }

    #[inline(always)]
    fn write_mut(&mut self) -> &mut ngx_event_t {
        let event = raw_field!(self.write);
        // SAFETY: an open connection has both events, and only the holder uses them.
        unsafe { &mut *event }
    }

    fn pool(&self) -> Pool<'_> {
        let pool = raw_field!(self.pool);
        // SAFETY: an upstream's connection has a pool of its own, as long as it is open.
        unsafe { Pool::from_raw(pool) }
    }

    /// How many requests it has served.
    #[inline(always)]
    pub fn requests(&self) -> usize {
        self.as_ref().requests
    }

    /// Milliseconds since it was opened.
    #[inline(always)]
    pub fn age(&self) -> u64 {
        now_milliseconds().wrapping_sub(self.as_ref().start_time as u64)
    }

    /// Whether nginx has seen an error or an end of it, or has waited for too long.
    #[inline(always)]
    pub fn is_broken(&self) -> bool {
        let (read, write) = (self.read(), self.write());
        read.eof() | read.error() | read.timedout() | write.error() | write.timedout() != 0
    }

    /// Whether nginx has waited for too long.
    pub fn has_timed_out(&self) -> bool {
        self.read().timedout() | self.write().timedout() != 0
    }

    /// Whether it is open, and the backend has sent nothing.
    pub fn is_silent(&self) -> bool {
        let mut byte = 0_u8;
        // SAFETY: one byte of this function's own. nginx's sockets do not block.
        let received = unsafe { recv(self.as_ref().fd, (&raw mut byte).cast(), 1, MSG_PEEK as i32) };
        received == -1 && std::io::Error::last_os_error().raw_os_error() == Some(EAGAIN as i32)
    }

    /// Has nginx look out for what comes from the backend. False when it cannot.
    #[inline(always)]
    pub fn watch(&mut self) -> bool {
        // SAFETY: an event of an open connection.
        unsafe { ngx_handle_read_event(self.read_mut(), 0) == Status::NGX_OK.0 }
    }

    /// Prepares it for a store, with the text of its address: to be used again, as writing an address costs as much as finding
    /// a connection. False when memory has run out.
    #[inline(always)]
    pub fn prepare(&mut self, text: Option<&AddrText>, store: &Weak<ModuleStore>) -> bool {
        self.data().is_some() || text.and_then(|text| self.attach_data(*text, store)).is_some()
    }

    #[cold]
    fn attach_data(&mut self, text: AddrText, store: &Weak<ModuleStore>) -> Option<()> {
        // SAFETY: the connection's own pool.
        let cleanup = unsafe { ngx_pool_cleanup_add(self.pool().as_ptr(), size_of::<ConnectionData>()) };
        // SAFETY: fresh, of the connection's pool.
        let cleanup = unsafe { cleanup.as_mut() }?;
        let data = cleanup.data.cast::<ConnectionData>();
        // SAFETY: fresh memory of this size; nginx aligns it for pointers.
        unsafe { data.write(ConnectionData { text, slot: NO_SLOT, store: store.clone() }) };
        cleanup.handler = Some(release);
        // nginx has no use for this field of a connection to a backend.
        raw_field!(self.addr_text = ngx_str_t { len: 0, data: data.cast() });
        Some(())
    }

    /// What `prepare` has put into the connection's pool.
    #[inline(always)]
    fn data(&self) -> Option<&ConnectionData> {
        let data = raw_field!(self.addr_text.data).cast::<ConnectionData>();
        // SAFETY: `prepare` has put it there, as long as the connection is open; or it is null.
        unsafe { data.as_ref() }
    }

    #[inline(always)]
    fn set_slot(&mut self, slot: u32) {
        let data = raw_field!(self.addr_text.data).cast::<ConnectionData>();
        // SAFETY: `prepare` has put it there, or it is null; the connection's holder alone uses it.
        if let Some(data) = unsafe { data.as_mut() } {
            data.slot = slot;
        }
    }

    /// The text of its address.
    #[inline(always)]
    pub fn text(&self) -> &AddrText {
        self.data().map_or(&AddrText::EMPTY, |data| &data.text)
    }

    /// No request has it any more. nginx's own handlers would take its `data` for one.
    #[inline(always)]
    pub(super) fn detach(&mut self) {
        self.set_slot(NO_SLOT);
        raw_field!(self.data = ptr::null_mut());
        self.read_mut().handler = Some(on_read);
        self.write_mut().handler = Some(on_write);
    }

    /// Has it wait at a slot of its store, which is woken when something happens to it. nginx closes it when it needs
    /// connections.
    #[inline(always)]
    pub fn park(&mut self, slot: u32, timeout_milliseconds: usize) {
        self.set_slot(slot);
        let read = self.read_mut();
        read.set_delayed(0);
        // SAFETY: an event of an open connection.
        unsafe { ngx_add_timer(read, timeout_milliseconds) };
        let write = self.write_mut();
        if write.timer_set() != 0 {
            // SAFETY: its timer is set.
            unsafe { ngx_del_timer(write) };
        }
        self.as_mut().set_idle(1);
        if let Some(cycle) = Cycle::running() {
            // SAFETY: a cycle is there for its handle's life.
            let log = unsafe { (*cycle.as_ptr()).log };
            self.set_log(log);
            self.mark_reusable(cycle);
        }
    }

    /// Whether nginx knows that something has come from the backend.
    #[inline(always)]
    pub fn is_ready(&self) -> bool {
        self.read().ready() != 0
    }

    /// Whether it may go on waiting: nobody wants it closed, and the backend has sent nothing.
    pub fn is_still_idle(&mut self) -> bool {
        if self.as_ref().close() != 0 || self.read().timedout() != 0 || !self.is_silent() {
            return false;
        }
        self.read_mut().set_ready(0);
        self.watch()
    }

    /// Ends its wait: a request gets it, which logs to `log`.
    #[inline(always)]
    pub(super) fn resume(mut self, log: *mut ngx_log_t, keeps_timer: bool) -> *mut ngx_connection_t {
        let raw = self.as_mut();
        raw.set_idle(0);
        raw.sent = 0;
        self.set_log(log);
        self.unmark_reusable();
        if !keeps_timer && self.read().timer_set() != 0 {
            // SAFETY: its timer is set.
            unsafe { ngx_del_timer(self.read_mut()) };
        }
        self.into_raw()
    }

    /// Closes it.
    pub fn close(mut self) {
        self.unmark_reusable();
        // SAFETY: an open connection that no one else has.
        unsafe { close(self.into_raw()) };
    }

    /// Has the connection log to `log` from now on.
    #[inline(always)]
    fn set_log(&mut self, log: *mut ngx_log_t) {
        raw_field!(self.log = log);
        self.read_mut().log = log;
        self.write_mut().log = log;
        let pool = self.pool().as_ptr();
        // SAFETY: the connection's own pool.
        unsafe { (*pool).log = log };
    }

    /// Puts it at the end of those that nginx closes when it needs others: as `ngx_reusable_connection`, but `stub_status` does
    /// not count it as a waiting client's.
    #[inline(always)]
    fn mark_reusable(&mut self, cycle: Cycle<'_>) {
        if self.as_ref().reusable() != 0 {
            return;
        }
        self.as_mut().set_reusable(1);
        let (cycle, raw) = (cycle.as_ptr(), self.raw.as_ptr());
        // SAFETY: nginx's own, on this thread.
        let first = unsafe { &raw mut (*cycle).reusable_connections_queue };
        // SAFETY: an open connection.
        let own = unsafe { &raw mut (*raw).queue };
        // SAFETY: nginx's list, and a connection that is in none.
        unsafe { ngx_queue_insert_after(first, own) };
        // SAFETY: nginx's own, on this thread.
        let count = unsafe { &mut (*cycle).reusable_connections_n };
        *count = count.wrapping_add(1);
    }

    /// Takes it out again, before it is used or closed.
    #[inline(always)]
    fn unmark_reusable(&mut self) {
        let raw = self.as_mut();
        if raw.reusable() == 0 {
            return;
        }
        raw.set_reusable(0);
        // SAFETY: `mark_reusable` has put it into the list.
        unsafe { ngx_queue_remove(&raw mut raw.queue) };
        let Some(cycle) = Cycle::running() else { return };
        // SAFETY: nginx's own, on this thread; nobody else is at it meanwhile.
        let count = unsafe { &mut (*cycle.as_ptr()).reusable_connections_n };
        *count = count.wrapping_sub(1);
    }
}

/// A parked connection writes nothing.
unsafe extern "C" fn on_write(_: *mut ngx_event_t) {}

unsafe extern "C" fn on_read(event: *mut ngx_event_t) {
    catch_panic((), || {
        // SAFETY: nginx passes the event of a connection that was detached, and is open.
        let raw = unsafe { (*event).data }.cast();
        // SAFETY: no request has it; its store, if any, is asked below.
        let Some(connection) = (unsafe { Connection::from_raw(raw) }) else { return };
        let waits = connection.data().filter(|data| data.slot != NO_SLOT).map(|data| (data.store.upgrade(), data.slot));
        match waits {
            Some((Some(store), slot)) => store.on_event(slot),
            // It was dropped, or its store is gone with the configuration.
            _ => connection.close(),
        }
    });
}

/// Releases what `prepare` has put into a connection's pool.
unsafe extern "C" fn release(data: *mut c_void) {
    // SAFETY: `prepare` has written it; nginx calls this once, as it frees the pool.
    catch_panic((), || unsafe { ptr::drop_in_place(data.cast::<ConnectionData>()) });
}

/// Closes a connection; one with TLS says nothing and waits for nothing.
///
/// # Safety
/// The connection is open, an upstream's, and no one else has it.
unsafe extern "C" fn close(c: *mut ngx_connection_t) {
    // SAFETY: the caller's promise.
    let ssl = unsafe { (*c).ssl };
    // SAFETY: nginx keeps it as long as the connection, or it is null.
    if let Some(settings) = unsafe { ssl.as_mut() } {
        settings.set_no_wait_shutdown(1);
        settings.set_no_send_shutdown(1);
        // SAFETY: a connection with TLS.
        if unsafe { ngx_ssl_shutdown(c) } == NGX_AGAIN as isize {
            // SAFETY: the connection is still open, and so it has this.
            unsafe { (*ssl).handler = Some(close) };
            return;
        }
    }
    // SAFETY: an upstream's connection has a pool of its own.
    let pool = unsafe { (*c).pool };
    // SAFETY: nothing uses what is in the pool any more: the caller's promise.
    unsafe { ngx_destroy_pool(pool) };
    // SAFETY: the caller's promise.
    unsafe { ngx_close_connection(c) };
}
