//! Parses URIs as nginx parses those of requests.
#![allow(unsafe_code)]

use std::mem;

use nginx_sys::{ngx_http_parse_complex_uri, ngx_http_parse_uri, ngx_http_request_t, ngx_uint_t};
use ngx::core::Status;

use super::pool;
use super::request::Request;

/// A parsed URI. Its parts live as long as the request in whose pool they are.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::nginx) struct Uri<'r> {
    /// Decoded and normalized, as [`Request::path`].
    pub path: &'r [u8],
    /// The query, without the question mark, as [`Request::args`].
    pub args: &'r [u8],
}

impl<'r> Request<'r> {
    /// Parses a URI other than the request's own: path and query. `None` if nginx answers a request for it with 400, or if out of
    /// memory.
    pub fn parse_uri(self, uri: &[u8], merge_slashes: bool) -> Option<Uri<'r>> {
        if uri.is_empty() {
            return None;
        }
        // The parser reads one byte after the end: the line feed of a request line.
        let text: &'r [u8] = self.pool().copy(&[uri, b"\n"].concat())?;
        let bounds = text.get(..uri.len())?.as_ptr_range();
        // SAFETY: nginx itself initializes requests to zero.
        let mut parsed = unsafe { mem::zeroed::<ngx_http_request_t>() };
        // SAFETY: a request has a connection for its whole life; a debug build of nginx logs each step to it.
        parsed.connection = unsafe { (*self.as_ptr()).connection };
        parsed.uri_start = bounds.start.cast_mut();
        parsed.uri_end = bounds.end.cast_mut();
        // SAFETY: reads the text between the two pointers, and sets only fields of `parsed`.
        if unsafe { ngx_http_parse_uri(&raw mut parsed) } != Status::NGX_OK.0 {
            return None;
        }
        // The steps of `ngx_http_process_request_uri`, which ends the request on an error.
        let query = text.get(offset(&parsed, parsed.args_start)..uri.len());
        let path_len = query.map_or(uri.len(), |query| uri.len() - query.len() - 1);
        let path = text.get(..path_len)?;
        if parsed.complex_uri() == 0 && parsed.quoted_uri() == 0 {
            return Some(Uri { path, args: query.unwrap_or_default() });
        }
        // A decoded path is never longer than the path as written.
        let decoded = self.pool().copy(path)?;
        (parsed.uri.data, parsed.uri.len) = (decoded.as_mut_ptr(), decoded.len());
        // SAFETY: reads the text up to one byte after its end, and writes at most `path_len` bytes to `decoded`.
        let status = unsafe { ngx_http_parse_complex_uri(&raw mut parsed, ngx_uint_t::from(merge_slashes)) };
        if status != Status::NGX_OK.0 {
            return None;
        }
        // SAFETY: the parser has shortened it to the bytes written.
        let path = unsafe { pool::bytes(parsed.uri) };
        // The parser sets `args` only if a fragment follows the query.
        let args = match parsed.args.len {
            0 => text.get(offset(&parsed, parsed.args_start)..uri.len()).unwrap_or_default(),
            // SAFETY: a part of the text.
            _ => unsafe { pool::bytes(parsed.args) },
        };
        Some(Uri { path, args })
    }
}

/// The offset of a pointer into the URI; beyond its end if null.
fn offset(parsed: &ngx_http_request_t, at: *const u8) -> usize {
    at.addr().checked_sub(parsed.uri_start.addr()).unwrap_or(usize::MAX)
}
