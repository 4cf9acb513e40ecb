//! An event of nginx's loop: its timer, and its place in the queue of the next iteration.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;

use nginx_sys::{
    ngx_add_timer, ngx_del_timer, ngx_delete_posted_event, ngx_event_t, ngx_handle_write_event, ngx_post_event,
    ngx_posted_next_events,
};
use ngx::core::Status;

/// An event that stays in place for `'e`.
#[derive(Clone, Copy)]
pub(super) struct Event<'e> {
    raw: NonNull<ngx_event_t>,
    life: PhantomData<&'e ngx_event_t>,
}

impl Event<'_> {
    /// # Safety
    /// `raw` is an event that stays in place for `'e`, used on nginx's own thread.
    pub unsafe fn from_raw(raw: NonNull<ngx_event_t>) -> Self {
        Self { raw, life: PhantomData }
    }

    fn as_ref(&self) -> &ngx_event_t {
        // SAFETY: valid for the handle's lifetime; the reference ends before nginx or this module writes the event.
        unsafe { self.raw.as_ref() }
    }

    /// The event itself.
    pub fn as_raw(self) -> NonNull<ngx_event_t> {
        self.raw
    }

    /// Whether the timer has expired.
    pub fn has_expired(self) -> bool {
        self.as_ref().timedout() != 0
    }

    /// Whether `limit_rate` uses the timer.
    pub fn is_delayed(self) -> bool {
        self.as_ref().delayed() != 0
    }

    /// Starts or restarts the timer.
    pub fn start_timer(self, milliseconds: usize) {
        // SAFETY: an event that stays in place; its owner stops the timer first.
        unsafe { ngx_add_timer(self.raw.as_ptr(), milliseconds) };
    }

    /// Stops the timer, if it runs.
    pub fn stop_timer(self) {
        if self.as_ref().timer_set() != 0 {
            // SAFETY: its timer runs.
            unsafe { ngx_del_timer(self.raw.as_ptr()) };
        }
    }

    /// Posts the event to the next iteration, after nginx has polled for events.
    pub fn post_next(self) {
        let queue = &raw mut ngx_posted_next_events;
        // SAFETY: an event that stays in place; its owner withdraws it first.
        unsafe { ngx_post_event(self.raw.as_ptr(), queue) };
    }

    /// Withdraws the event, if it is posted.
    pub fn withdraw(self) {
        if self.as_ref().posted() != 0 {
            // SAFETY: it is posted.
            unsafe { ngx_delete_posted_event(self.raw.as_ptr()) };
        }
    }

    /// Waits until the event's connection is writable. `None` on an error.
    pub fn wait_until_writable(self, low_at: usize) -> Option<()> {
        // SAFETY: the write event of an open connection.
        let outcome = unsafe { ngx_handle_write_event(self.raw.as_ptr(), low_at) };
        (outcome == Status::NGX_OK.0).then_some(())
    }
}
