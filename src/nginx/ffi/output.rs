//! A response body: a chain of buffers in the request's pool.
#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use nginx_sys::{ngx_buf_t, ngx_chain_t, ngx_create_temp_buf, ngx_http_output_filter};
use ngx::core::Status;

use super::request::Request;

/// Size of one buffer.
const CHUNK_BYTES: usize = 32 << 10;

/// A body that is being written.
pub(in crate::nginx) struct Body<'r> {
    request: Request<'r>,
    first: NonNull<ngx_chain_t>,
    last: NonNull<ngx_chain_t>,
    bytes: usize,
}

impl<'r> Body<'r> {
    /// An empty body. `None` if out of memory.
    pub fn new(request: Request<'r>) -> Option<Self> {
        let link = link(request)?;
        Some(Self { request, first: link, last: link, bytes: 0 })
    }

    /// Number of bytes written.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Appends bytes. `None` if out of memory.
    pub fn write(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let buffer = self.buffer();
            let room = (buffer.end as usize).saturating_sub(buffer.last as usize);
            if room == 0 {
                let next = link(self.request)?;
                // SAFETY: created by `link` in the request's pool; nginx does not have it yet.
                unsafe { (*self.last.as_ptr()).next = next.as_ptr() };
                self.last = next;
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            // SAFETY: `room` bytes are free after `last`.
            unsafe { ptr::copy_nonoverlapping(now.as_ptr(), buffer.last, now.len()) };
            // SAFETY: `now` fits between `last` and the buffer's end.
            buffer.last = unsafe { buffer.last.add(now.len()) };
            self.bytes += now.len();
            bytes = later;
        }
        Some(())
    }

    /// Sends the body after the header.
    pub fn send(mut self) -> Status {
        // The body of a subrequest does not end the response.
        let is_last = self.request.is_main();
        let buffer = self.buffer();
        buffer.set_last_buf(is_last.into());
        buffer.set_last_in_chain(1);
        // SAFETY: the chain is in the request's pool, and nginx is processing the request.
        Status(unsafe { ngx_http_output_filter(self.request.as_ptr(), self.first.as_ptr()) })
    }

    /// The buffer that is being filled.
    fn buffer(&mut self) -> &mut ngx_buf_t {
        // SAFETY: created by `link` in the request's pool.
        let last = unsafe { self.last.as_ref() };
        // SAFETY: `link` gave it a buffer; nginx does not have it yet.
        unsafe { &mut *last.buf }
    }
}

/// A link with an empty buffer.
fn link(request: Request<'_>) -> Option<NonNull<ngx_chain_t>> {
    let pool = request.pool();
    // SAFETY: the request's pool.
    let buf = NonNull::new(unsafe { ngx_create_temp_buf(pool.as_ptr(), CHUNK_BYTES) })?.as_ptr();
    pool.allocate(|| ngx_chain_t { buf, next: ptr::null_mut() }).map(NonNull::from_mut)
}
