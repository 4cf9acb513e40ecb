//! An open connection to a backend: idle, or about to become idle.
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

/// An open upstream connection, used only through this handle. After a drop of the handle, the connection closes at its next
/// event.
pub(in crate::nginx) struct Connection {
    raw: NonNull<ngx_connection_t>,
}

/// A store of idle connections.
pub(in crate::nginx) trait ConnectionStore {
    /// Called at each event of the connection in this slot: the backend closed it or sent data, its idle timeout expired, or
    /// nginx needs the connection or exits.
    fn on_event(&self, slot: u32);
}

/// Names this module's [`ConnectionStore`] type.
pub(in crate::nginx) trait HasConnectionStore {
    /// The store of idle connections.
    type Store: ConnectionStore + 'static;
}

/// The slot of a connection that is in no store.
const NO_SLOT: u32 = u32::MAX;

type ModuleStore = <Module as HasConnectionStore>::Store;

/// Data of this module in the pool of a connection.
struct ConnectionData {
    text: AddrText,
    /// Slot in the store, or [`NO_SLOT`].
    slot: u32,
    store: Weak<ModuleStore>,
}

impl Connection {
    /// # Safety
    /// `raw` is null, or an open upstream connection with its own pool that nothing else uses.
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
        // SAFETY: an upstream connection has its own pool while it is open.
        unsafe { Pool::from_raw(pool) }
    }

    /// Number of requests served.
    #[inline(always)]
    pub fn requests(&self) -> usize {
        self.as_ref().requests
    }

    /// Milliseconds since the connection was opened.
    #[inline(always)]
    pub fn age(&self) -> u64 {
        now_milliseconds().wrapping_sub(self.as_ref().start_time as u64)
    }

    /// Whether nginx has seen an error, end of file or timeout.
    #[inline(always)]
    pub fn is_broken(&self) -> bool {
        let (read, write) = (self.read(), self.write());
        read.eof() | read.error() | read.timedout() | write.error() | write.timedout() != 0
    }

    /// Whether a timeout has expired.
    pub fn has_timed_out(&self) -> bool {
        self.read().timedout() | self.write().timedout() != 0
    }

    /// Whether the connection is open and the backend has sent nothing.
    pub fn is_silent(&self) -> bool {
        let mut byte = 0_u8;
        // SAFETY: the buffer is one local byte. nginx's sockets do not block.
        let received = unsafe { recv(self.as_ref().fd, (&raw mut byte).cast(), 1, MSG_PEEK as i32) };
        received == -1 && std::io::Error::last_os_error().raw_os_error() == Some(EAGAIN as i32)
    }

    /// Registers for read events. False on failure.
    #[inline(always)]
    pub fn watch(&mut self) -> bool {
        // SAFETY: an event of an open connection.
        unsafe { ngx_handle_read_event(self.read_mut(), 0) == Status::NGX_OK.0 }
    }

    /// Attaches the data that a store needs, with the address text: formatting it again would cost as much as finding a
    /// connection. False if out of memory.
    #[inline(always)]
    pub fn prepare(&mut self, text: Option<&AddrText>, store: &Weak<ModuleStore>) -> bool {
        self.data().is_some() || text.and_then(|text| self.attach_data(*text, store)).is_some()
    }

    #[cold]
    fn attach_data(&mut self, text: AddrText, store: &Weak<ModuleStore>) -> Option<()> {
        // SAFETY: the connection's own pool.
        let cleanup = unsafe { ngx_pool_cleanup_add(self.pool().as_ptr(), size_of::<ConnectionData>()) };
        // SAFETY: new, from the connection's pool.
        let cleanup = unsafe { cleanup.as_mut() }?;
        let data = cleanup.data.cast::<ConnectionData>();
        // SAFETY: new memory of this size; nginx aligns it for pointers.
        unsafe { data.write(ConnectionData { text, slot: NO_SLOT, store: store.clone() }) };
        cleanup.handler = Some(release);
        // nginx does not use this field of upstream connections.
        raw_field!(self.addr_text = ngx_str_t { len: 0, data: data.cast() });
        Some(())
    }

    /// The data that `prepare` has attached.
    #[inline(always)]
    fn data(&self) -> Option<&ConnectionData> {
        let data = raw_field!(self.addr_text.data).cast::<ConnectionData>();
        // SAFETY: attached by `prepare` and alive as long as the connection, or null.
        unsafe { data.as_ref() }
    }

    #[inline(always)]
    fn set_slot(&mut self, slot: u32) {
        let data = raw_field!(self.addr_text.data).cast::<ConnectionData>();
        // SAFETY: attached by `prepare`, or null; only the holder of the connection uses it.
        if let Some(data) = unsafe { data.as_mut() } {
            data.slot = slot;
        }
    }

    /// The address as text.
    #[inline(always)]
    pub fn text(&self) -> &AddrText {
        self.data().map_or(&AddrText::EMPTY, |data| &data.text)
    }

    /// Detaches the connection from its request: nginx's handlers would use its `data` as a request.
    #[inline(always)]
    pub(super) fn detach(&mut self) {
        self.set_slot(NO_SLOT);
        raw_field!(self.data = ptr::null_mut());
        self.read_mut().handler = Some(on_read);
        self.write_mut().handler = Some(on_write);
    }

    /// Makes the connection idle in a slot of its store, which gets its events. nginx may close it when it runs short of
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
            // SAFETY: a cycle is valid for its handle's lifetime.
            let log = unsafe { (*cycle.as_ptr()).log };
            self.set_log(log);
            self.mark_reusable(cycle);
        }
    }

    /// Whether nginx has seen a read event.
    #[inline(always)]
    pub fn is_ready(&self) -> bool {
        self.read().ready() != 0
    }

    /// Whether the connection may stay idle: nginx does not want it closed, and the backend has sent nothing.
    pub fn is_still_idle(&mut self) -> bool {
        if self.as_ref().close() != 0 || self.read().timedout() != 0 || !self.is_silent() {
            return false;
        }
        self.read_mut().set_ready(0);
        self.watch()
    }

    /// Returns an idle connection to nginx, for a request that logs to `log`.
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

    /// Closes the connection.
    pub fn close(mut self) {
        self.unmark_reusable();
        // SAFETY: an open connection that nothing else uses.
        unsafe { close(self.into_raw()) };
    }

    /// Redirects the log of the connection.
    #[inline(always)]
    fn set_log(&mut self, log: *mut ngx_log_t) {
        raw_field!(self.log = log);
        self.read_mut().log = log;
        self.write_mut().log = log;
        let pool = self.pool().as_ptr();
        // SAFETY: the connection's own pool.
        unsafe { (*pool).log = log };
    }

    /// Queues the connection for closing when nginx runs short of connections. Like `ngx_reusable_connection`, but
    /// `stub_status` does not count it as a waiting client.
    #[inline(always)]
    fn mark_reusable(&mut self, cycle: Cycle<'_>) {
        if self.as_ref().reusable() != 0 {
            return;
        }
        self.as_mut().set_reusable(1);
        let (cycle, raw) = (cycle.as_ptr(), self.raw.as_ptr());
        // SAFETY: owned by nginx and accessed on this thread only.
        let first = unsafe { &raw mut (*cycle).reusable_connections_queue };
        // SAFETY: an open connection.
        let own = unsafe { &raw mut (*raw).queue };
        // SAFETY: nginx's queue, and a connection that is in no queue.
        unsafe { ngx_queue_insert_after(first, own) };
        // SAFETY: owned by nginx and accessed on this thread only.
        let count = unsafe { &mut (*cycle).reusable_connections_n };
        *count = count.wrapping_add(1);
    }

    /// Removes the connection from that queue, before it is used or closed.
    #[inline(always)]
    fn unmark_reusable(&mut self) {
        let raw = self.as_mut();
        if raw.reusable() == 0 {
            return;
        }
        raw.set_reusable(0);
        // SAFETY: `mark_reusable` has put it into the queue.
        unsafe { ngx_queue_remove(&raw mut raw.queue) };
        let Some(cycle) = Cycle::running() else { return };
        // SAFETY: owned by nginx and accessed on this thread only.
        let count = unsafe { &mut (*cycle.as_ptr()).reusable_connections_n };
        *count = count.wrapping_sub(1);
    }
}

/// An idle connection writes nothing.
unsafe extern "C" fn on_write(_: *mut ngx_event_t) {}

unsafe extern "C" fn on_read(event: *mut ngx_event_t) {
    catch_panic((), || {
        // SAFETY: nginx passes the event of an open connection that was detached.
        let raw = unsafe { (*event).data }.cast();
        // SAFETY: no request uses it; its store, if any, handles the event below.
        let Some(connection) = (unsafe { Connection::from_raw(raw) }) else { return };
        let waits = connection.data().filter(|data| data.slot != NO_SLOT).map(|data| (data.store.upgrade(), data.slot));
        match waits {
            Some((Some(store), slot)) => store.on_event(slot),
            // The handle was dropped, or the store was freed with its configuration.
            _ => connection.close(),
        }
    });
}

/// Drops the data that `prepare` has attached.
unsafe extern "C" fn release(data: *mut c_void) {
    // SAFETY: written by `prepare`; nginx calls this once, when it frees the pool.
    catch_panic((), || unsafe { ptr::drop_in_place(data.cast::<ConnectionData>()) });
}

/// Closes a connection. With TLS, sends no close alert and waits for none.
///
/// # Safety
/// The connection is an open upstream connection that nothing else uses.
unsafe extern "C" fn close(c: *mut ngx_connection_t) {
    // SAFETY: guaranteed by the caller.
    let ssl = unsafe { (*c).ssl };
    // SAFETY: alive as long as the connection, or null.
    if let Some(settings) = unsafe { ssl.as_mut() } {
        settings.set_no_wait_shutdown(1);
        settings.set_no_send_shutdown(1);
        // SAFETY: a connection with TLS.
        if unsafe { ngx_ssl_shutdown(c) } == NGX_AGAIN as isize {
            // SAFETY: the connection is still open, so its TLS state is alive.
            unsafe { (*ssl).handler = Some(close) };
            return;
        }
    }
    // SAFETY: an upstream connection has its own pool.
    let pool = unsafe { (*c).pool };
    // SAFETY: nothing uses the contents of the pool any more, guaranteed by the caller.
    unsafe { ngx_destroy_pool(pool) };
    // SAFETY: guaranteed by the caller.
    unsafe { ngx_close_connection(c) };
}
