//! An upstream block of the configuration.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use nginx_sys::ngx_http_upstream_srv_conf_t;

/// An upstream block.
pub(in crate::nginx) struct UpstreamBlock<'c> {
    raw: *mut ngx_http_upstream_srv_conf_t,
    life: PhantomData<&'c ngx_http_upstream_srv_conf_t>,
}

/// Which upstream block it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::nginx) struct UpstreamId(*const ngx_http_upstream_srv_conf_t);

impl UpstreamId {
    /// The block that nginx refers to, if it does.
    pub(super) fn of(raw: *const ngx_http_upstream_srv_conf_t) -> Option<Self> {
        (!raw.is_null()).then_some(Self(raw))
    }
}

impl<'c> UpstreamBlock<'c> {
    /// # Safety
    /// `raw` is one of nginx's upstreams for `'c`, and nothing else writes it meanwhile.
    pub(super) unsafe fn from_raw(raw: *mut ngx_http_upstream_srv_conf_t) -> Self {
        Self { raw, life: PhantomData }
    }

    pub(super) fn as_ptr(&self) -> *mut ngx_http_upstream_srv_conf_t {
        self.raw
    }

    pub(super) fn as_ref(&self) -> &ngx_http_upstream_srv_conf_t {
        // SAFETY: nginx's own, as long as the configuration.
        unsafe { &*self.raw }
    }

    /// Which it is.
    pub fn id(&self) -> UpstreamId {
        UpstreamId(self.raw)
    }

    /// Whether a directive says already how servers are chosen.
    pub fn is_balanced(&self) -> bool {
        self.as_ref().peer.init_upstream.is_some()
    }

    /// Whether it has `server` lines.
    pub fn has_servers(&self) -> bool {
        // SAFETY: an upstream's servers are an array, or none; `balance` has put one there.
        unsafe { self.as_ref().servers.as_ref() }.is_some_and(|servers| servers.nelts > 1)
    }

    /// Whether it has a `zone` line.
    pub fn has_zone(&self) -> bool {
        !self.as_ref().shm_zone.is_null()
    }
}
