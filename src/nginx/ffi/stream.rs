//! A response body that is sent while it is made: in one buffer that is reused, at the speed of the client, with other
//! requests served between two steps.
//!
//! ```text
//!          ┌─────────── more ◀──────────┐
//!  start ──▶ step ── chunk is full ──▶ send ── client is slow ──▶ wait for the client ──▶ send
//!             └── not yet: yield ─▶ step └── complete: finalize
//! ```
//!
//! The stream waits in one of two ways, as nginx's own responses do. For the client: nginx calls the request's
//! `write_event_handler`, or the timer `send_timeout` expires. For other requests: the stream's own event is posted to one of
//! nginx's next iterations, see [`super::turns`].
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_HTTP_INTERNAL_SERVER_ERROR, NGX_HTTP_REQUEST_TIME_OUT, NGX_LOG_INFO, ngx_buf_t, ngx_chain_t, ngx_connection_t,
    ngx_event_t, ngx_http_finalize_request, ngx_http_log_ctx_t, ngx_http_output_filter, ngx_http_request_empty_handler,
    ngx_http_request_t, ngx_http_run_posted_requests, ngx_http_test_reading, ngx_int_t, ngx_pool_cleanup_add,
};
use ngx::core::Status;
use ngx::http::{HttpModuleLocationConf, NgxHttpCoreModule};

use super::event::Event;
use super::panic_guard::catch_panic;
use super::request::Request;
use super::turns;
use crate::admin::page::{CHUNK_BYTES, Step};

/// A timer beside the posted event, far longer than an iteration: an exiting worker without any timer would exit.
const KEEP_WORKER_MILLISECONDS: usize = 60_000;

/// How often a waiting page is asked again.
const PAUSE_MILLISECONDS: usize = 10;

/// The origin of a body.
pub(in crate::nginx) trait Source {
    /// Appends the next part of the body, see [`crate::admin::page::Page::step`]. `None` if the body cannot be continued.
    fn step(&mut self, chunk: &mut Vec<u8>) -> Option<Step>;

    /// The length of the body in bytes, if known before the first step.
    fn known_length(&self) -> Option<usize>;
}

/// A response in progress. Freed with the request's pool.
#[repr(C)]
struct Stream {
    /// Posted while the stream yields to other requests. The first field, because nginx passes its address to `on_posted`.
    event: ngx_event_t,
    request: *mut ngx_http_request_t,
    /// `None` once the body is complete.
    source: Option<Box<dyn Source>>,
    /// The part of the body that is being made, or sent: then `buffer` points into it.
    chunk: Vec<u8>,
    buffer: ngx_buf_t,
    link: ngx_chain_t,
    is_header_sent: bool,
}

/// A stream whose request is alive. nginx uses parts of it too, so no reference to the whole lives across a call into nginx.
#[derive(Clone, Copy)]
struct Handle {
    raw: NonNull<Stream>,
}

/// What follows after a step.
enum Next {
    /// Continue after other requests.
    Yield,
    /// Continue after some milliseconds.
    Pause,
    /// Continue when the client has received more.
    Wait,
    /// End the request with this status for nginx.
    Finish(ngx_int_t),
}

impl Request<'_> {
    /// Sends the response: the header, set before, then the body. A body that is complete with its first chunk has a
    /// `Content-Length`, others only if `source` knows their length. Returns the status for nginx.
    pub fn stream(self, source: Box<dyn Source>) -> Status {
        let Some(stream) = Handle::create(self, source) else {
            return Status(NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t);
        };
        let r = self.as_ptr();
        // SAFETY: nginx is processing the request.
        let main = unsafe { (*r).main };
        // SAFETY: a request has a main request, perhaps itself, for its whole life.
        let main = unsafe { &mut *main };
        // Released when the stream finalizes the request; nginx releases the handler's own.
        main.set_count(main.count() + 1);
        if self.is_main() && main.discard_body() == 0 {
            // Ends the request when the client closes the connection.
            main.read_event_handler = Some(ngx_http_test_reading);
        }
        // SAFETY: nginx is processing the request.
        unsafe { (*r).write_event_handler = Some(ON_WRITABLE) };
        stream.advance(false);
        Status::NGX_DONE
    }
}

impl Handle {
    /// A stream that the request's pool frees. `None` if out of memory.
    fn create(request: Request<'_>, source: Box<dyn Source>) -> Option<Self> {
        // SAFETY: a request has a pool for its whole life.
        let cleanup = NonNull::new(unsafe { ngx_pool_cleanup_add(request.pool().as_ptr(), 0) })?.as_ptr();
        let r = request.as_ptr();
        // SAFETY: a request has a connection for its whole life.
        let connection = unsafe { (*r).connection };
        // SAFETY: nginx itself initializes these to zero.
        let mut event = unsafe { std::mem::zeroed::<ngx_event_t>() };
        // SAFETY: as for `event`.
        let buffer = unsafe { std::mem::zeroed::<ngx_buf_t>() };
        event.handler = Some(on_posted);
        // nginx's debug log shows the descriptor of the event's connection.
        event.data = connection.cast::<c_void>();
        // SAFETY: a connection has a log for its whole life.
        event.log = unsafe { (*connection).log };
        let stream = Box::leak(Box::new(Stream {
            event,
            request: r,
            source: Some(source),
            chunk: Vec::with_capacity(CHUNK_BYTES),
            buffer,
            link: ngx_chain_t { buf: ptr::null_mut(), next: ptr::null_mut() },
            is_header_sent: false,
        }));
        let raw = NonNull::from(stream);
        // SAFETY: the new entry of the request's pool.
        let cleanup = unsafe { &mut *cleanup };
        cleanup.data = raw.as_ptr().cast::<c_void>();
        cleanup.handler = Some(FREE);
        Some(Self { raw })
    }

    /// The stream of a request.
    fn of(request: Request<'_>) -> Option<Self> {
        // SAFETY: the list lives as long as the pool.
        let mut cleanup = unsafe { request.pool().cleanups().as_ref() };
        while let Some(entry) = cleanup {
            if entry.handler.is_some_and(|handler| ptr::fn_addr_eq(handler, FREE))
                && let Some(raw) = NonNull::new(entry.data.cast::<Stream>())
            {
                let stream = Self { raw };
                // Subrequests share the pool.
                if ptr::eq(raw_field!(stream.request), request.as_ptr()) {
                    return Some(stream);
                }
            }
            // SAFETY: the pool's own list.
            cleanup = unsafe { entry.next.as_ref() };
        }
        None
    }

    fn request(&self) -> Request<'_> {
        let r = raw_field!(self.request);
        // SAFETY: the request frees the stream, and nginx processes it during each call of a stream.
        unsafe { Request::from_raw(r) }
    }

    fn connection(self) -> *mut ngx_connection_t {
        let r = raw_field!(self.request);
        // SAFETY: a request has a connection for its whole life.
        unsafe { (*r).connection }
    }

    /// The write event of the connection, which nginx shares among all requests of the connection.
    fn write_event(&self) -> Option<Event<'_>> {
        // SAFETY: a request has a connection for its whole life.
        let write = NonNull::new(unsafe { (*self.connection()).write })?;
        // SAFETY: nginx keeps the events of a connection in place.
        Some(unsafe { Event::from_raw(write) })
    }

    /// The stream's own event.
    fn event(&self) -> Event<'_> {
        // SAFETY: the first field of the stream, which stays in place until it is freed.
        unsafe { Event::from_raw(self.raw.cast()) }
    }

    /// Whether the output of the request goes to the client now: not before earlier subrequests are complete.
    fn is_active(self) -> bool {
        // SAFETY: a request has a connection for its whole life.
        let active = unsafe { (*self.connection()).data };
        ptr::eq(active.cast(), raw_field!(self.request))
    }

    /// Whether the client's `limit_rate` forbids to send now.
    fn is_delayed(self) -> bool {
        self.is_active() && self.write_event().is_some_and(Event::is_delayed)
    }

    /// Makes or sends a part of the body, and arranges what follows. The stream may be freed afterwards. Without a turn, a part
    /// that takes long is not made yet: many clients may send requests, or become writable, in the same iteration.
    fn advance(self, has_turn: bool) {
        self.cancel_event();
        match catch_panic(Next::Finish(Status::NGX_ERROR.0), || self.run(has_turn)) {
            Next::Yield => self.yield_to_others(),
            Next::Pause => self.pause(),
            Next::Wait => self.wait_for_client(),
            Next::Finish(status) => self.finish(status),
        }
    }

    /// Makes or sends a part of the body.
    fn run(self, has_turn: bool) -> Next {
        if self.is_active() && self.write_event().is_some_and(Event::has_expired) && !self.is_delayed() {
            // SAFETY: a request has a connection for its whole life.
            unsafe { &mut *self.connection() }.set_timedout(1);
            self.request().log().write(NGX_LOG_INFO, "client timed out");
            return Next::Finish(NGX_HTTP_REQUEST_TIME_OUT as ngx_int_t);
        }
        if self.is_delayed() {
            return Next::Wait;
        }
        if self.is_sending()
            && let Some(next) = self.send(ptr::null_mut())
        {
            return next;
        }
        if has_turn || self.is_made() { self.make() } else { Next::Yield }
    }

    /// Whether the whole body exists already.
    fn is_made(self) -> bool {
        // SAFETY: nginx does not use it.
        let Stream { source, .. } = unsafe { &*self.raw.as_ptr() };
        source.as_ref().is_none_or(|source| source.known_length().is_some())
    }

    /// Runs one step of the source, and sends the chunk if it is full or the last.
    fn make(self) -> Next {
        // SAFETY: nginx uses neither, as nothing is being sent.
        let Stream { source, chunk, is_header_sent, .. } = unsafe { &mut *self.raw.as_ptr() };
        let failed = if *is_header_sent { Status::NGX_ERROR.0 } else { NGX_HTTP_INTERNAL_SERVER_ERROR as ngx_int_t };
        let Some(body) = source else { return Next::Finish(failed) };
        let known_length = body.known_length();
        match body.step(chunk) {
            None => return Next::Finish(failed),
            Some(Step::Pause) => return Next::Pause,
            Some(Step::More) if chunk.len() < CHUNK_BYTES => return Next::Yield,
            Some(Step::More) => {}
            Some(Step::Done) => *source = None,
        }
        let is_last = source.is_none();
        if !std::mem::replace(is_header_sent, true) {
            let length = known_length.or(is_last.then_some(chunk.len()));
            if let Some(finish) = self.send_header(length) {
                return finish;
            }
        }
        let chain = self.fill_buffer(is_last);
        self.send(chain).unwrap_or(Next::Yield)
    }

    /// Sends the header. `Some` if no body follows.
    fn send_header(self, length: Option<usize>) -> Option<Next> {
        let request = self.request();
        request.set_content_length(length);
        let sent = request.send_header();
        // Background subrequests have no receiver.
        let is_complete = sent == Status::NGX_ERROR || sent.0 > Status::NGX_OK.0 || request.header_only();
        (is_complete || request.is_background()).then_some(Next::Finish(sent.0))
    }

    /// Makes a chain of the chunk.
    fn fill_buffer(self, is_last: bool) -> *mut ngx_chain_t {
        let is_main = self.request().is_main();
        // SAFETY: nginx uses none of it, as nothing is being sent.
        let Stream { chunk, buffer, link, .. } = unsafe { &mut *self.raw.as_ptr() };
        let range = chunk.as_mut_ptr_range();
        (buffer.start, buffer.pos) = (range.start, range.start);
        (buffer.end, buffer.last) = (range.end, range.end);
        let has_data = !chunk.is_empty();
        buffer.set_temporary(has_data.into());
        // nginx sends such a buffer at once, also below `postpone_output`.
        buffer.set_recycled(has_data.into());
        // The body of a subrequest does not end the response.
        buffer.set_last_buf((is_last && is_main).into());
        buffer.set_last_in_chain(is_last.into());
        buffer.set_sync((!has_data && !is_main).into());
        buffer.tag = FREE as *mut c_void;
        *link = ngx_chain_t { buf: buffer, next: ptr::null_mut() };
        link
    }

    /// Whether nginx still holds a part of the buffer.
    fn is_sending(self) -> bool {
        !ptr::eq(raw_field!(self.buffer.pos), raw_field!(self.buffer.last))
    }

    /// Sends the chain, or continues to send. `None` if the next chunk can be made.
    fn send(self, chain: *mut ngx_chain_t) -> Option<Next> {
        let r = raw_field!(self.request);
        // SAFETY: nginx is processing the request; the chain is null, or lives as long as the stream.
        let status = unsafe { ngx_http_output_filter(r, chain) };
        // SAFETY: nginx uses neither.
        let Stream { source, chunk, .. } = unsafe { &mut *self.raw.as_ptr() };
        if status == Status::NGX_ERROR.0 || source.is_none() {
            // nginx sends the rest of a complete body.
            return Some(Next::Finish(status));
        }
        if self.is_sending() {
            return Some(Next::Wait);
        }
        chunk.clear();
        None
    }

    /// Continues in one of nginx's next iterations, when it is this stream's turn, after nginx has polled for events.
    fn yield_to_others(self) {
        self.stop_client_timer();
        turns::join(self.event());
        self.event().start_timer(KEEP_WORKER_MILLISECONDS);
    }

    /// Continues after [`PAUSE_MILLISECONDS`].
    fn pause(self) {
        self.stop_client_timer();
        self.event().start_timer(PAUSE_MILLISECONDS);
    }

    /// Continues when the client has received more, as `ngx_http_writer` does. A subrequest that is not active continues when
    /// nginx activates it.
    fn wait_for_client(self) {
        if self.is_active() && self.try_wait_for_client().is_none() {
            self.finish(Status::NGX_ERROR.0);
        }
    }

    fn try_wait_for_client(self) -> Option<()> {
        let r = raw_field!(self.request);
        // SAFETY: nginx is processing the request.
        let main = unsafe { (*r).main };
        // SAFETY: a request has a main request, perhaps itself, for its whole life.
        let main = unsafe { &*main };
        let conf = NgxHttpCoreModule::location_conf(main)?;
        let write = self.write_event()?;
        if !write.is_delayed() {
            write.start_timer(conf.send_timeout);
        }
        write.wait_until_writable(conf.send_lowat)
    }

    /// Finalizes the request. nginx sends what it still holds.
    fn finish(self, status: ngx_int_t) {
        self.stop_client_timer();
        let r = raw_field!(self.request);
        // SAFETY: nginx is processing the request.
        unsafe { (*r).write_event_handler = Some(ngx_http_request_empty_handler) };
        // SAFETY: releases the count of `Request::stream`. Frees the stream, perhaps.
        unsafe { ngx_http_finalize_request(r, status) };
    }

    /// Stops the timer of [`Self::wait_for_client`]: what follows is not a matter of the client.
    fn stop_client_timer(self) {
        if let Some(write) = self.write_event()
            && self.is_active()
            && !write.is_delayed()
        {
            write.stop_timer();
        }
    }

    fn cancel_event(self) {
        turns::leave(self.event());
        self.event().stop_timer();
    }
}

/// Functions that are compared by address are static: each use of a constant may have another copy of the function.
static ON_WRITABLE: unsafe extern "C" fn(*mut ngx_http_request_t) = on_writable;

/// Called when the client has received more, when its timer expires, or when nginx activates a subrequest.
unsafe extern "C" fn on_writable(r: *mut ngx_http_request_t) {
    // SAFETY: nginx passes the request and processes it during the call.
    if let Some(stream) = Handle::of(unsafe { Request::from_raw(r) }) {
        stream.advance(false);
    }
}

/// Called at the stream's turn, after [`Handle::yield_to_others`].
unsafe extern "C" fn on_posted(event: *mut ngx_event_t) {
    let Some(raw) = NonNull::new(event.cast::<Stream>()) else { return };
    let stream = Handle { raw };
    let (r, connection) = (raw_field!(stream.request), stream.connection());
    // SAFETY: a stream's request is alive.
    let handler = unsafe { (*r).write_event_handler };
    if !handler.is_some_and(|handler| ptr::fn_addr_eq(handler, ON_WRITABLE)) {
        // nginx is about to terminate the request.
        return stream.cancel_event();
    }
    // SAFETY: a request has a connection for its whole life.
    let log = unsafe { (*connection).log };
    // SAFETY: a connection has a log for its whole life.
    let log = unsafe { (*log).data }.cast::<ngx_http_log_ctx_t>();
    // SAFETY: the log of a client connection has the context of nginx's http module.
    unsafe { (*log).current_request = r };
    stream.advance(true);
    // SAFETY: nginx keeps the memory of a connection, also of a closed one.
    unsafe { ngx_http_run_posted_requests(connection) };
}

static FREE: unsafe extern "C" fn(*mut c_void) = free;

/// Frees a stream, with the request's pool.
unsafe extern "C" fn free(data: *mut c_void) {
    let Some(raw) = NonNull::new(data.cast::<Stream>()) else { return };
    Handle { raw }.cancel_event();
    // SAFETY: `Handle::create` has leaked it, and nothing refers to it any more.
    catch_panic((), || drop(unsafe { Box::from_raw(raw.as_ptr()) }));
}
