//! `urlproxy_list`: every tool that has a route, as the old stack's `/list` gave it, and how old that is.

use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_HTTP_GET, NGX_HTTP_HEAD, NGX_HTTP_NOT_ALLOWED, NGX_HTTP_OK, NGX_HTTP_SERVICE_UNAVAILABLE, ngx_buf_t,
    ngx_chain_t, ngx_create_temp_buf, ngx_http_discard_request_body, ngx_http_output_filter, ngx_http_request_t,
    ngx_http_send_header, ngx_int_t, ngx_pool_t,
};
use ngx::core::Status;
use ngx::http::HttpModuleLocationConf;

use super::guard::guarded;
use super::module::Module;
use super::{phases, pool};
use crate::route::Kind;
use crate::table::Table;

/// Bytes of one buffer of the answer.
const CHUNK_BYTES: usize = 32 << 10;

pub(super) unsafe extern "C" fn list(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: nginx passes the request it is working on.
    guarded(Status::NGX_ERROR.0, || unsafe { answer(r) })
}

unsafe fn answer(r: *mut ngx_http_request_t) -> ngx_int_t {
    // SAFETY: the caller passes the request nginx is working on.
    let request = unsafe { &mut *r };
    if request.method & (NGX_HTTP_GET | NGX_HTTP_HEAD) as usize == 0 {
        return NGX_HTTP_NOT_ALLOWED as ngx_int_t;
    }
    // SAFETY: as above.
    let discarded = unsafe { ngx_http_discard_request_body(r) };
    if discarded != Status::NGX_OK.0 {
        return discarded;
    }
    let Some(conf) = Module::location_conf(request).and_then(|conf| conf.list) else { return Status::NGX_ERROR.0 };
    let Some(table) = conf.table.get().filter(|table| table.header().knows(Kind::Tool)) else {
        // SAFETY: the header was not sent.
        unsafe { phases::add_retry_after(r) };
        return NGX_HTTP_SERVICE_UNAVAILABLE as ngx_int_t;
    };
    // Before the table is read: what changes meanwhile makes it no older.
    let age = table.header().age_seconds(phases::unix_seconds());
    let Ok(mut worker) = conf.worker.try_borrow_mut() else { return Status::NGX_ERROR.0 };
    // SAFETY: the request's pool.
    let body = unsafe { Body::new(request.pool) }.and_then(|mut body| {
        write_list(table, &mut worker.scratch, |bytes| body.write(bytes))?;
        // In a page put together of several, this is not the end.
        Some(body.finish(std::ptr::eq(request, request.main)))
    });
    drop(worker);
    let Some((chain, bytes)) = body else { return Status::NGX_ERROR.0 };
    let content_type = b"application/json";
    request.headers_out.status = NGX_HTTP_OK as usize;
    request.headers_out.content_length_n = bytes as i64;
    request.headers_out.content_type = pool::string(content_type);
    request.headers_out.content_type_len = content_type.len();
    request.headers_out.content_type_lowcase = ptr::null_mut();
    if let Some(age) = age {
        // SAFETY: the header was not sent.
        let Some(()) = (unsafe { phases::add_age(r, age) }) else { return Status::NGX_ERROR.0 };
    }
    // SAFETY: as above.
    let sent = unsafe { ngx_http_send_header(r) };
    if sent != Status::NGX_OK.0 || request.header_only() != 0 {
        return sent;
    }
    // SAFETY: as above, and the chain is in the request's pool.
    unsafe { ngx_http_output_filter(r, chain) }
}

/// `{"<tool>":{"status":"active"},...}`
fn write_list(
    table: &Table<'_>,
    scratch: &mut crate::table::Scratch,
    mut write: impl FnMut(&[u8]) -> Option<()>,
) -> Option<()> {
    let mut outcome = write(b"{");
    let mut separator: &[u8] = b"";
    table.for_each(scratch, |record| {
        if Kind::of(record.key()) != Kind::Tool {
            return;
        }
        let name = serde_json::to_string(&String::from_utf8_lossy(record.key()));
        outcome = outcome.and_then(|()| {
            write(separator)?;
            write(name.ok()?.as_bytes())?;
            write(br#":{"status":"active"}"#)
        });
        separator = b",";
    });
    outcome?;
    write(b"}")
}

/// A chain of buffers in a request's pool.
struct Body {
    pool: *mut ngx_pool_t,
    first: *mut ngx_chain_t,
    last: *mut ngx_chain_t,
    bytes: usize,
}

impl Body {
    /// # Safety
    /// The pool outlives the body.
    unsafe fn new(pool: *mut ngx_pool_t) -> Option<Self> {
        // SAFETY: the caller's promise.
        let link = unsafe { link(pool) }?;
        Some(Self { pool, first: link, last: link, bytes: 0 })
    }

    fn write(&mut self, mut bytes: &[u8]) -> Option<()> {
        while !bytes.is_empty() {
            let buffer = self.buffer();
            let room = (buffer.end as usize).saturating_sub(buffer.last as usize);
            if room == 0 {
                // SAFETY: the pool outlives the body.
                let next = unsafe { link(self.pool) }?;
                // SAFETY: as above.
                unsafe { (*self.last).next = next };
                self.last = next;
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            // SAFETY: `room` bytes are free behind `last`.
            unsafe { ptr::copy_nonoverlapping(now.as_ptr(), buffer.last, now.len()) };
            // SAFETY: as above.
            buffer.last = unsafe { buffer.last.add(now.len()) };
            self.bytes += now.len();
            bytes = later;
        }
        Some(())
    }

    /// The buffer that is being filled.
    fn buffer(&mut self) -> &mut ngx_buf_t {
        // SAFETY: `link` made it.
        let last = unsafe { &*self.last };
        // SAFETY: and gave it a buffer.
        unsafe { &mut *last.buf }
    }

    fn finish(mut self, is_last: bool) -> (*mut ngx_chain_t, usize) {
        let buffer = self.buffer();
        buffer.set_last_buf(is_last.into());
        buffer.set_last_in_chain(1);
        (self.first, self.bytes)
    }
}

/// A link with an empty buffer.
unsafe fn link(pool: *mut ngx_pool_t) -> Option<*mut ngx_chain_t> {
    // SAFETY: the caller passes a pool.
    let buffer = NonNull::new(unsafe { ngx_create_temp_buf(pool, CHUNK_BYTES) })?.as_ptr();
    // SAFETY: as above.
    let link = unsafe { pool::place(pool, || ngx_chain_t { buf: buffer, next: ptr::null_mut() }) }?;
    Some(link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::{Pattern, Route, RouteKey};
    use crate::table::{Capacity, OwnedTable, Scratch, Writer};

    fn listed(names: &[&str]) -> String {
        let owned = OwnedTable::new(Capacity { buckets: 4, cells: 40, tools: 24, health: 1 });
        let (mut writer, _) = Writer::attach(owned.table());
        let route = Route { pattern: Pattern::any(), backends: vec!["http://10.0.0.1:1".parse().unwrap()] };
        for name in names {
            writer
                .publish(&RouteKey::try_new(Kind::Tool, name.as_bytes()).unwrap(), std::slice::from_ref(&route))
                .unwrap();
        }
        let mut text = Vec::new();
        write_list(&owned.table(), &mut Scratch::default(), |bytes| {
            text.extend_from_slice(bytes);
            Some(())
        })
        .unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn the_shape_is_the_old_one() {
        assert_eq!(listed(&[]), "{}");
        assert_eq!(listed(&["hello"]), r#"{"hello":{"status":"active"}}"#);
        assert_eq!(listed(&["a\"b\\"]), r#"{"a\"b\\":{"status":"active"}}"#);
        let two = listed(&["a", "b"]);
        assert!(
            two == r#"{"a":{"status":"active"},"b":{"status":"active"}}"#
                || two == r#"{"b":{"status":"active"},"a":{"status":"active"}}"#
        );
    }
}
