//! An upstream block of the configuration.
#![allow(unsafe_code)]

use std::marker::PhantomData;

use nginx_sys::ngx_http_upstream_srv_conf_t;

/// An `upstream` block.
pub(in crate::nginx) struct UpstreamBlock<'c> {
    raw: *mut ngx_http_upstream_srv_conf_t,
    life: PhantomData<&'c ngx_http_upstream_srv_conf_t>,
}

/// The identity of an upstream block.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::nginx) struct UpstreamId(*const ngx_http_upstream_srv_conf_t);

impl UpstreamId {
    /// `None` if `raw` is null.
    pub(super) fn of(raw: *const ngx_http_upstream_srv_conf_t) -> Option<Self> {
        (!raw.is_null()).then_some(Self(raw))
    }
}

impl<'c> UpstreamBlock<'c> {
    /// # Safety
    /// `raw` is an upstream block of nginx for `'c`, and nothing else writes it meanwhile.
    pub(super) unsafe fn from_raw(raw: *mut ngx_http_upstream_srv_conf_t) -> Self {
        Self { raw, life: PhantomData }
    }

    pub(super) fn as_ptr(&self) -> *mut ngx_http_upstream_srv_conf_t {
        self.raw
    }

    pub(super) fn as_ref(&self) -> &ngx_http_upstream_srv_conf_t {
        // SAFETY: owned by nginx, alive as long as the configuration.
        unsafe { &*self.raw }
    }

    /// The identity of the block.
    pub fn id(&self) -> UpstreamId {
        UpstreamId(self.raw)
    }

    /// Whether a directive has already set a balancer.
    pub fn is_balanced(&self) -> bool {
        self.as_ref().peer.init_upstream.is_some()
    }

    /// Whether it has `server` lines.
    pub fn has_servers(&self) -> bool {
        // SAFETY: the servers of an upstream are an array, or null; one is the placeholder of `balance`.
        unsafe { self.as_ref().servers.as_ref() }.is_some_and(|servers| servers.nelts > 1)
    }

    /// Whether it has a `zone` line.
    pub fn has_zone(&self) -> bool {
        !self.as_ref().shm_zone.is_null()
    }
}
