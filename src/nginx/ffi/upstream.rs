//! A request's way to a backend, as nginx keeps it.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;

use nginx_sys::{ngx_http_upstream_conf_t, ngx_http_upstream_t};

use super::complex_value::ComplexValue;
use super::pool;

/// The upstream of a request. nginx has a reference to its peer during calls, so none is made to the whole.
#[derive(Clone, Copy)]
pub(in crate::nginx) struct Upstream<'r> {
    raw: NonNull<ngx_http_upstream_t>,
    life: PhantomData<&'r ngx_http_upstream_t>,
}

/// What a connection with TLS is opened with.
pub(in crate::nginx) struct TlsSettings<'r> {
    /// Stands for protocols, ciphers, authorities and a fixed certificate.
    pub context: usize,
    /// Whether the backend's certificate is verified.
    pub verifies: bool,
    /// Whether the backend gets the name.
    pub sends_name: bool,
    /// The name, if the configuration says one.
    pub name: Option<ComplexValue>,
    /// The name otherwise.
    pub default_name: &'r [u8],
    /// Certificate and key of the client, as far as they have variables.
    pub certificates: [Option<ComplexValue>; 2],
}

impl<'r> Upstream<'r> {
    /// # Safety
    /// `raw` is null, or the upstream of a request, for `'r`.
    #[inline(always)]
    pub(super) unsafe fn from_raw(raw: *mut ngx_http_upstream_t) -> Option<Self> {
        NonNull::new(raw).map(|raw| Self { raw, life: PhantomData })
    }

    #[inline(always)]
    pub(super) fn as_ptr(self) -> *mut ngx_http_upstream_t {
        self.raw.as_ptr()
    }

    #[inline(always)]
    fn conf(self) -> Option<&'r ngx_http_upstream_conf_t> {
        let conf = raw_field!(self.conf);
        // SAFETY: an upstream has the settings of the location that made it, for the configuration's life.
        unsafe { conf.as_ref() }
    }

    /// Whether nginx can speak TLS here.
    pub fn has_tls(self) -> bool {
        // SAFETY: the upstream is there for the handle's life.
        unsafe { ngx_http_upstream_t::ssl_raw(self.raw.as_ptr()) != 0 }
    }

    /// Has nginx speak to the backend with or without TLS, from the next connection on.
    #[inline(always)]
    pub fn set_tls(self, is_on: bool) {
        // SAFETY: the upstream is there for the handle's life.
        unsafe { ngx_http_upstream_t::set_ssl_raw(self.raw.as_ptr(), is_on.into()) };
        let schema = raw_field!(self.schema);
        // SAFETY: the configuration's text, or one of those below.
        if unsafe { pool::bytes(schema) }.starts_with(b"http") {
            // For the log.
            raw_field!(self.schema = pool::string(if is_on { b"https://" } else { b"http://" }));
        }
    }

    /// After which failures nginx asks another backend, bits `NGX_HTTP_UPSTREAM_FT_ERROR`...
    #[inline(always)]
    pub fn next_upstream(self) -> u32 {
        self.conf().map_or(0, |conf| conf.next_upstream as u32)
    }

    /// The module that speaks to the backend, as in `proxy_pass`.
    pub fn protocol(self) -> &'r [u8] {
        // SAFETY: the configuration's own string.
        self.conf().map_or(b"proxy", |conf| unsafe { pool::bytes(conf.module) })
    }

    /// Stands for the module that speaks to the backend: nginx has several, and from 1.29.4 two for `proxy_pass`.
    #[inline(always)]
    pub fn tag(self) -> u64 {
        raw_field!(self.output.tag).addr() as u64
    }

    /// The address that `proxy_bind` says.
    #[inline(always)]
    pub fn local_address(self) -> Option<&'r [u8]> {
        let local = raw_field!(self.peer.local);
        // SAFETY: an address of the request's or the configuration's, or null.
        let local = unsafe { local.as_ref() }?;
        // SAFETY: nginx has made the address, of this length.
        Some(unsafe { std::slice::from_raw_parts(local.sockaddr.cast::<u8>(), local.socklen as usize) })
    }

    /// What its connections with TLS are opened with, as nginx's `ngx_http_upstream_ssl_init_connection` finds it out.
    pub fn tls_settings(self) -> Option<TlsSettings<'r>> {
        let conf = self.conf()?;
        // SAFETY: texts of the configuration; they are used for this request only.
        let text = |raw| unsafe { ComplexValue::from_raw(raw) };
        let variable = |raw| text(raw).filter(ComplexValue::has_variables);
        let name = raw_field!(self.ssl_name);
        Some(TlsSettings {
            context: conf.ssl.addr(),
            verifies: conf.ssl_verify != 0,
            sends_name: conf.ssl_server_name != 0,
            name: text(conf.ssl_name),
            // SAFETY: the name of the upstream's block, or the request's.
            default_name: unsafe { pool::bytes(name) },
            certificates: [variable(conf.ssl_certificate), variable(conf.ssl_certificate_key)],
        })
    }

    /// Whether anything came back from the backend.
    pub fn has_answered(self) -> bool {
        let state = raw_field!(self.state);
        // SAFETY: nginx's own record of the attempt, or null.
        unsafe { state.as_ref() }.is_some_and(|state| state.bytes_received > 0)
    }

    /// Whether answer and request were both whole, and the backend lets the connection open.
    #[inline(always)]
    pub fn is_complete(self) -> bool {
        // SAFETY: the upstream is there for the handle's life.
        let keepalive = unsafe { ngx_http_upstream_t::keepalive_raw(self.raw.as_ptr()) };
        // SAFETY: the upstream is there for the handle's life.
        let request_body_sent = unsafe { ngx_http_upstream_t::request_body_sent_raw(self.raw.as_ptr()) };
        keepalive & request_body_sent != 0
    }
}
