//! An open connection to a backend that no request has.
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
use super::guard::guarded;
use super::module::Module;
use super::pool::Pool;
use super::timer::now_milliseconds;

/// An open connection of an upstream, which only the holder of this uses. Dropped, it stays open until its backend or nginx
/// ends it.
pub(in crate::nginx) struct Connection(NonNull<ngx_connection_t>);

/// What keeps idle connections.
pub(in crate::nginx) trait Store {
    /// Something happened to the connection at this place: the backend closes it or says something, it was idle for too long,
    /// or nginx needs it or ends.
    fn wake(&self, place: u32);
}

/// The type of this module's [`Store`].
pub(in crate::nginx) trait KeepsConnections {
    /// What keeps idle connections.
    type Store: Store + 'static;
}

type ModuleStore = <Module as KeepsConnections>::Store;

/// What an open connection has in its own pool.
struct Keep {
    text: AddrText,
    place: u32,
    store: Weak<ModuleStore>,
}

/// A field of the connection.
macro_rules! field {
    ($connection:ident . $($field:tt)+) => {
        // SAFETY: an open connection is there until it is closed, and only the holder uses it.
        unsafe { (*$connection.0.as_ptr()).$($field)+ }
    };
}

impl Connection {
    /// # Safety
    /// `raw` is null, or an open connection of an upstream, with a pool of its own; nothing else uses it.
    #[inline(always)]
    pub(super) unsafe fn from_raw(raw: *mut ngx_connection_t) -> Option<Self> {
        NonNull::new(raw).map(Self)
    }

    /// Looks at a connection that nginx has.
    ///
    /// # Safety
    /// As for `from_raw`, but nginx uses it once the reference has ended.
    pub(super) unsafe fn borrow(raw: &*mut ngx_connection_t) -> Option<&Self> {
        // SAFETY: a pointer that is not null and a connection are the same word.
        (!raw.is_null()).then(|| unsafe { &*ptr::from_ref(raw).cast() })
    }

    #[inline(always)]
    pub(super) fn into_raw(self) -> *mut ngx_connection_t {
        self.0.as_ptr()
    }

    #[inline(always)]
    fn as_ref(&self) -> &ngx_connection_t {
        // SAFETY: as in `field`.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn as_mut(&mut self) -> &mut ngx_connection_t {
        // SAFETY: as in `field`.
        unsafe { self.0.as_mut() }
    }

    #[inline(always)]
    fn read(&self) -> &ngx_event_t {
        let event = field!(self.read);
        // SAFETY: an open connection has both events.
        unsafe { &*event }
    }

    #[inline(always)]
    fn write(&self) -> &ngx_event_t {
        let event = field!(self.write);
        // SAFETY: an open connection has both events.
        unsafe { &*event }
    }

    #[inline(always)]
    fn read_mut(&mut self) -> &mut ngx_event_t {
        let event = field!(self.read);
        // SAFETY: an open connection has both events, and only the holder uses them.
        unsafe { &mut *event }
    }

    #[inline(always)]
    fn write_mut(&mut self) -> &mut ngx_event_t {
        let event = field!(self.write);
        // SAFETY: an open connection has both events, and only the holder uses them.
        unsafe { &mut *event }
    }

    fn pool(&self) -> Pool<'_> {
        let pool = field!(self.pool);
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
    /// a connection. `None` when memory has run out.
    #[inline(always)]
    pub fn prepare(&mut self, text: Option<&AddrText>, store: &Weak<ModuleStore>) -> Option<()> {
        if field!(self.addr_text.data).is_null() { self.prepare_new(*text?, store) } else { Some(()) }
    }

    #[cold]
    fn prepare_new(&mut self, text: AddrText, store: &Weak<ModuleStore>) -> Option<()> {
        // SAFETY: the connection's own pool.
        let cleanup = unsafe { ngx_pool_cleanup_add(self.pool().as_ptr(), size_of::<Keep>()) };
        // SAFETY: fresh, of the connection's pool.
        let cleanup = unsafe { cleanup.as_mut() }?;
        let keep = cleanup.data.cast::<Keep>();
        // SAFETY: fresh memory of this size; nginx aligns it for pointers.
        unsafe { keep.write(Keep { text, place: 0, store: store.clone() }) };
        cleanup.handler = Some(forget);
        // nginx has no use for this field of a connection to a backend.
        field!(self.addr_text = ngx_str_t { len: 0, data: keep.cast() });
        Some(())
    }

    /// What `prepare` has put into the connection's pool.
    #[inline(always)]
    fn keep(&self) -> Option<&Keep> {
        let keep = field!(self.addr_text.data).cast::<Keep>();
        // SAFETY: `prepare` has put it there, as long as the connection is open; or it is null.
        unsafe { keep.as_ref() }
    }

    /// The text of its address.
    #[inline(always)]
    pub fn text(&self) -> AddrText {
        self.keep().map_or(AddrText::EMPTY, |keep| keep.text)
    }

    /// Has it wait at a place of its store, which is woken when something happens to it. nginx closes it when it needs
    /// connections.
    #[inline(always)]
    pub fn park(&mut self, place: u32, timeout_milliseconds: usize) {
        let keep = field!(self.addr_text.data).cast::<Keep>();
        // SAFETY: `prepare` has put it there, and nothing else refers to it.
        if let Some(keep) = unsafe { keep.as_mut() } {
            keep.place = place;
        }
        let read = self.read_mut();
        read.set_delayed(0);
        read.handler = Some(on_read);
        // SAFETY: an event of an open connection.
        unsafe { ngx_add_timer(read, timeout_milliseconds) };
        let write = self.write_mut();
        if write.timer_set() != 0 {
            // SAFETY: its timer is set.
            unsafe { ngx_del_timer(write) };
        }
        write.handler = Some(on_write);
        let raw = self.as_mut();
        raw.data = ptr::null_mut();
        raw.set_idle(1);
        if let Some(cycle) = Cycle::running() {
            // SAFETY: a cycle is there for its handle's life.
            let log = unsafe { (*cycle.as_ptr()).log };
            self.set_log(log);
            self.offer(cycle);
        }
    }

    /// Whether nginx knows that something has come from the backend.
    #[inline(always)]
    pub fn is_ready(&self) -> bool {
        self.read().ready() != 0
    }

    /// Whether it may go on waiting: nobody wants it closed, and the backend has sent nothing.
    pub fn rests(&mut self) -> bool {
        if self.as_ref().close() != 0 || self.read().timedout() != 0 || !self.is_silent() {
            return false;
        }
        self.read_mut().set_ready(0);
        self.watch()
    }

    /// Ends its wait: a request gets it, which logs to `log`.
    #[inline(always)]
    pub(super) fn hand_out(mut self, log: *mut ngx_log_t, lets_timer: bool) -> *mut ngx_connection_t {
        let raw = self.as_mut();
        raw.set_idle(0);
        raw.sent = 0;
        self.set_log(log);
        self.withdraw();
        if !lets_timer && self.read().timer_set() != 0 {
            // SAFETY: its timer is set.
            unsafe { ngx_del_timer(self.read_mut()) };
        }
        self.into_raw()
    }

    /// Closes it.
    pub fn close(mut self) {
        self.withdraw();
        // SAFETY: an open connection that no one else has.
        unsafe { close(self.into_raw()) };
    }

    /// Has the connection log to `log` from now on.
    #[inline(always)]
    fn set_log(&mut self, log: *mut ngx_log_t) {
        field!(self.log = log);
        self.read_mut().log = log;
        self.write_mut().log = log;
        let pool = self.pool().as_ptr();
        // SAFETY: the connection's own pool.
        unsafe { (*pool).log = log };
    }

    /// Puts it at the end of those that nginx closes when it needs others: as `ngx_reusable_connection`, but `stub_status` does
    /// not count it as a waiting client's.
    #[inline(always)]
    fn offer(&mut self, cycle: Cycle<'_>) {
        // SAFETY: nginx's own, on this thread; nobody else is at what is read and written here meanwhile.
        let cycle = unsafe { &mut *cycle.as_ptr() };
        let raw = self.as_mut();
        // SAFETY: nginx's list, and a connection that is in none.
        unsafe { ngx_queue_insert_after(&raw mut cycle.reusable_connections_queue, &raw mut raw.queue) };
        cycle.reusable_connections_n = cycle.reusable_connections_n.wrapping_add(1);
        raw.set_reusable(1);
    }

    /// Takes it out again, before it is used or closed.
    #[inline(always)]
    fn withdraw(&mut self) {
        let raw = self.as_mut();
        if raw.reusable() == 0 {
            return;
        }
        raw.set_reusable(0);
        // SAFETY: `offer` has put it into the list.
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
    guarded((), || {
        // SAFETY: nginx passes the event of a connection that `park` has parked.
        let raw = unsafe { (*event).data }.cast::<ngx_connection_t>();
        // SAFETY: the store has the connection; what is read here was written when it was parked.
        let keep = unsafe { (*raw).addr_text.data }.cast::<Keep>();
        // SAFETY: `prepare` has put it there.
        let keep = unsafe { &*keep };
        let place = keep.place;
        match keep.store.upgrade() {
            Some(store) => store.wake(place),
            // Its store is gone with the configuration.
            // SAFETY: so no one else has the connection.
            None => unsafe { Connection::from_raw(raw) }.into_iter().for_each(Connection::close),
        }
    });
}

/// Releases what `prepare` has put into a connection's pool.
unsafe extern "C" fn forget(keep: *mut c_void) {
    // SAFETY: `prepare` has written it; nginx calls this once, as it frees the pool.
    guarded((), || unsafe { ptr::drop_in_place(keep.cast::<Keep>()) });
}

/// Closes a connection; one with TLS says nothing and waits for nothing.
///
/// # Safety
/// The connection is open, an upstream's, and no one else has it.
unsafe extern "C" fn close(c: *mut ngx_connection_t) {
    // SAFETY: the caller's promise.
    let ssl = unsafe { (*c).ssl };
    // SAFETY: nginx keeps it as long as the connection, or it is null.
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
    // SAFETY: nothing uses what is in the pool any more: the caller's promise.
    unsafe { ngx_destroy_pool(pool) };
    // SAFETY: the caller's promise.
    unsafe { ngx_close_connection(c) };
}
