//! The streams that wait for their turn: all together make one step in each iteration of nginx's loop, so that many streams
//! delay other requests no more than one does.
#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ptr::NonNull;

use nginx_sys::ngx_event_t;

use super::event::Event;

thread_local! {
    /// The events of the streams that wait. Only the first one is posted.
    static WAITING: RefCell<VecDeque<NonNull<ngx_event_t>>> = const { RefCell::new(VecDeque::new()) };
}

/// Posts the event once it is the first one. Its owner calls [`leave`] before the event goes away.
pub(super) fn join(event: Event<'_>) {
    WAITING.with_borrow_mut(|waiting| {
        waiting.push_back(event.as_raw());
        if waiting.len() == 1 {
            event.post_next();
        }
    });
}

/// Gives the turn to the next event, or withdraws from the queue, if the event is in it.
pub(super) fn leave(event: Event<'_>) {
    event.withdraw();
    WAITING.with_borrow_mut(|waiting| {
        let Some(at) = waiting.iter().position(|&other| other == event.as_raw()) else { return };
        waiting.remove(at);
        if at == 0
            && let Some(&next) = waiting.front()
        {
            // SAFETY: an event leaves before it goes away, and all are nginx's own thread's.
            unsafe { Event::from_raw(next) }.post_next();
        }
    });
}
