//! Request and response headers.
#![allow(unsafe_code)]

use nginx_sys::{ngx_hash_key, ngx_list_part_t, ngx_list_push, ngx_list_t, ngx_table_elt_t};

use super::pool;
use super::request::Request;

/// The header lines of a list.
///
/// # Safety
/// `list` is a list of header lines that is not written during `'a`.
unsafe fn lines<'a>(list: *const ngx_list_t) -> impl Iterator<Item = &'a ngx_table_elt_t> {
    // SAFETY: guaranteed by the caller, here and below.
    let first: *const ngx_list_part_t = unsafe { &raw const (*list).part };
    // SAFETY: the list's own parts.
    let parts = std::iter::successors(unsafe { first.as_ref() }, |part| unsafe { part.next.as_ref() });
    // An empty part may have a null pointer.
    parts.filter(|part| part.nelts > 0).flat_map(|part| {
        // SAFETY: a part has an array of `nelts` lines.
        unsafe { std::slice::from_raw_parts(part.elts.cast::<ngx_table_elt_t>(), part.nelts) }
    })
}

fn hash(text: &[u8]) -> usize {
    // SAFETY: reads `len` bytes of the slice.
    unsafe { ngx_hash_key(text.as_ptr().cast_mut(), text.len()) }
}

/// A header line. The caller keeps the texts alive.
fn line(name: &[u8], value: &[u8]) -> ngx_table_elt_t {
    // SAFETY: nginx itself initializes these to zero; all fields that are read are set below.
    let mut line: ngx_table_elt_t = unsafe { std::mem::zeroed() };
    line.hash = hash(name).max(1);
    line.key = pool::string(name);
    line.value = pool::string(value);
    line
}

impl<'r> Request<'r> {
    /// Whether the response has this header.
    pub fn has_header_out(self, name: &str) -> bool {
        // SAFETY: the header list lives as long as the request.
        let mut lines = unsafe { lines(self.list_out()) };
        // SAFETY: the line's own text, as long as the request.
        lines.any(|line| unsafe { pool::bytes(line.key) } == name.as_bytes())
    }

    /// Adds a response header. `None` if out of memory.
    pub fn add_header_out(self, name: &'static str, value: &'r [u8]) -> Option<()> {
        self.push_header_out(name, value).map(|_| ())
    }

    /// Sets the `Location` header, replacing an earlier one. `None` if out of memory.
    pub fn set_location(self, value: &'r [u8]) -> Option<()> {
        let added = self.push_header_out("Location", value)?;
        // SAFETY: the request's own pointer to this line.
        let location = unsafe { &mut (*self.as_ptr()).headers_out.location };
        // SAFETY: a line of nginx's list, or null.
        if let Some(old) = unsafe { location.as_mut() } {
            old.hash = 0;
        }
        *location = added;
        Some(())
    }

    /// Sets the `ETag` header of a new response. nginx answers a matching `If-None-Match` with 304. `None` if out of memory.
    pub fn set_etag(self, value: &'r [u8]) -> Option<()> {
        let added = self.push_header_out("ETag", value)?;
        // SAFETY: nginx is processing the request.
        unsafe { (*self.as_ptr()).headers_out.etag = added };
        Some(())
    }

    fn push_header_out(self, name: &'static str, value: &'r [u8]) -> Option<*mut ngx_table_elt_t> {
        // SAFETY: nginx is processing the request, and nothing else accesses its list now.
        let place = unsafe { ngx_list_push(self.list_out()) }.cast::<ngx_table_elt_t>();
        if place.is_null() {
            return None;
        }
        // SAFETY: new memory for one line.
        unsafe { place.write(line(name.as_bytes(), value)) };
        Some(place)
    }

    fn list_in(self) -> *mut ngx_list_t {
        // SAFETY: a request is valid for its handle's lifetime.
        unsafe { &raw mut (*self.as_ptr()).headers_in.headers }
    }

    fn list_out(self) -> *mut ngx_list_t {
        // SAFETY: a request is valid for its handle's lifetime.
        unsafe { &raw mut (*self.as_ptr()).headers_out.headers }
    }

    /// A copy of the request headers.
    pub fn headers_in(self) -> HeadersIn<'r> {
        // SAFETY: the header list lives as long as the request.
        let lines = unsafe { lines(self.list_in()) }.copied().collect();
        HeadersIn { lines, request: self }
    }
}

/// A copy of the request headers.
pub(in crate::nginx) struct HeadersIn<'r> {
    lines: Vec<ngx_table_elt_t>,
    request: Request<'r>,
}

impl<'r> HeadersIn<'r> {
    /// Names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&'r [u8], &'r [u8])> {
        // SAFETY: the lines' own texts, as long as the request.
        let text = |string| unsafe { pool::bytes(string) };
        self.lines.iter().map(move |line| (text(line.key), text(line.value)))
    }

    /// Replaces the request headers with this copy, with the header set at index `at` or appended. `None` if out of memory.
    pub fn set(mut self, at: Option<usize>, name: &'static [u8], value: &[u8]) -> Option<()> {
        let pool = self.request.pool();
        let lower_name = pool.copy(&name.to_ascii_lowercase())?;
        // nginx terminates request header values with a zero byte.
        let text = pool.copy(&[value, b"\0"].concat())?;
        let at = at.unwrap_or(self.lines.len());
        if at == self.lines.len() {
            self.lines.push(line(lower_name, b""));
        }
        let line = self.lines.get_mut(at)?;
        line.key = pool::string(name);
        line.value = pool::string(text.get(..value.len())?);
        line.lowcase_key = lower_name.as_mut_ptr();
        line.hash = hash(lower_name);
        // A new list: a subrequest shares its list with its parent and must not append to it.
        let lines = pool.copy(&self.lines)?;
        // SAFETY: nginx is processing the request, and nothing else accesses its list now.
        let list = unsafe { &mut *self.request.list_in() };
        list.part = ngx_list_part_t { elts: lines.as_mut_ptr().cast(), nelts: lines.len(), next: std::ptr::null_mut() };
        list.last = &raw mut list.part;
        list.nalloc = lines.len();
        Some(())
    }
}
