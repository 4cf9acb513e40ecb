//! The upstream of a request.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::NonNull;

use nginx_sys::{ngx_http_upstream_conf_t, ngx_http_upstream_t, ngx_str_t};

use super::complex_value::ComplexValue;
use super::pool;

/// The upstream of a request. During calls, nginx holds a reference to its peer, so no reference to the whole is created.
#[derive(Clone, Copy)]
pub(in crate::nginx) struct Upstream<'r> {
    raw: NonNull<ngx_http_upstream_t>,
    life: PhantomData<&'r ngx_http_upstream_t>,
}

/// The settings of a TLS connection to a backend.
pub(in crate::nginx) struct TlsSettings<'r> {
    /// Identifies protocols, ciphers, certificate authorities and a fixed client certificate.
    pub context: usize,
    /// Whether the backend's certificate is verified.
    pub verifies: bool,
    /// Whether the name is sent to the backend (SNI).
    pub sends_name: bool,
    /// `proxy_ssl_name`.
    pub name: Option<ComplexValue>,
    /// The name without `proxy_ssl_name`.
    pub default_name: &'r [u8],
    /// Client certificate and key, if they contain variables.
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
        // SAFETY: the settings of the location, alive as long as the configuration.
        unsafe { conf.as_ref() }
    }

    /// Whether the location can use TLS.
    pub fn has_tls(self) -> bool {
        // SAFETY: the upstream is valid for the handle's lifetime.
        unsafe { ngx_http_upstream_t::ssl_raw(self.raw.as_ptr()) != 0 }
    }

    /// Turns TLS on or off for the next connection.
    #[inline(always)]
    pub fn set_tls(self, is_on: bool) {
        // SAFETY: the upstream is valid for the handle's lifetime.
        unsafe { ngx_http_upstream_t::set_ssl_raw(self.raw.as_ptr(), is_on.into()) };
        let schema = raw_field!(self.schema);
        // SAFETY: a string of the configuration, or a literal below.
        if unsafe { pool::bytes(schema) }.starts_with(b"http") {
            // For the log.
            raw_field!(self.schema = pool::string(if is_on { b"https://" } else { b"http://" }));
        }
    }

    /// Failures after which nginx tries the next backend, as bits `NGX_HTTP_UPSTREAM_FT_ERROR`...
    #[inline(always)]
    pub fn next_upstream(self) -> u32 {
        self.conf().map_or(0, |conf| conf.next_upstream as u32)
    }

    /// The protocol module, for example `proxy` of `proxy_pass`.
    pub fn protocol(self) -> &'r [u8] {
        // SAFETY: a string of the configuration.
        self.conf().map_or(b"proxy", |conf| unsafe { pool::bytes(conf.module) })
    }

    /// Identifies the protocol module. From nginx 1.29.4 on, `proxy_pass` has two.
    #[inline(always)]
    pub fn tag(self) -> u64 {
        raw_field!(self.output.tag).addr() as u64
    }

    /// The address of `proxy_bind`.
    #[inline(always)]
    pub fn local_address(self) -> Option<&'r [u8]> {
        let local = raw_field!(self.peer.local);
        // SAFETY: an address of the request or the configuration, or null.
        let local = unsafe { local.as_ref() }?;
        // SAFETY: nginx sets the address and its length.
        Some(unsafe { std::slice::from_raw_parts(local.sockaddr.cast::<u8>(), local.socklen as usize) })
    }

    /// The TLS settings, as nginx's `ngx_http_upstream_ssl_init_connection` determines them.
    pub fn tls_settings(self) -> Option<TlsSettings<'r>> {
        let conf = self.conf()?;
        // SAFETY: values of the configuration, used for this request only.
        let text = |raw| unsafe { ComplexValue::from_raw(raw) };
        let variable = |raw| text(raw).filter(ComplexValue::has_variables);
        let name = raw_field!(self.ssl_name);
        Some(TlsSettings {
            context: conf.ssl.addr(),
            verifies: conf.ssl_verify != 0,
            sends_name: conf.ssl_server_name != 0,
            name: text(conf.ssl_name),
            // SAFETY: a string of the upstream block or the request.
            default_name: unsafe { pool::bytes(name) },
            certificates: [variable(conf.ssl_certificate), variable(conf.ssl_certificate_key)],
        })
    }

    /// Whether the backend has sent any byte.
    pub fn has_answered(self) -> bool {
        let state = raw_field!(self.state);
        // SAFETY: nginx's state of the attempt, or null.
        unsafe { state.as_ref() }.is_some_and(|state| state.bytes_received > 0)
    }

    /// The status of the backend's response; 0 without a response, and for one without a header.
    #[inline(always)]
    pub fn response_status(self) -> usize {
        raw_field!(self.headers_in.status_n)
    }

    /// Whether the backend has sent a status.
    pub fn has_status_line(self) -> bool {
        raw_field!(self.headers_in.status_line.len) > 0
    }

    /// Whether nginx has ended the exchange with the backend. What the client then gets is another response, such as an error page.
    pub fn is_ended(self) -> bool {
        raw_field!(self.cleanup).is_null()
    }

    /// Whether nginx will tunnel the connection: the backend accepts an upgrade.
    pub fn is_upgraded(self) -> bool {
        // SAFETY: the upstream is valid for the handle's lifetime.
        unsafe { ngx_http_upstream_t::upgrade_raw(self.raw.as_ptr()) != 0 }
    }

    /// Makes nginx close the connection to the backend, and serve an error page as without a response.
    pub fn forget_response(self) {
        raw_field!(self.headers_in.status_n = 0);
        raw_field!(self.headers_in.status_line = ngx_str_t::empty());
        // SAFETY: the upstream is valid for the handle's lifetime.
        unsafe { ngx_http_upstream_t::set_upgrade_raw(self.raw.as_ptr(), 0) };
        // SAFETY: the upstream is valid for the handle's lifetime.
        unsafe { ngx_http_upstream_t::set_keepalive_raw(self.raw.as_ptr(), 0) };
    }

    /// Whether request and response are complete and the backend keeps the connection open.
    #[inline(always)]
    pub fn is_complete(self) -> bool {
        // SAFETY: the upstream is valid for the handle's lifetime.
        let keepalive = unsafe { ngx_http_upstream_t::keepalive_raw(self.raw.as_ptr()) };
        // SAFETY: the upstream is valid for the handle's lifetime.
        let request_body_sent = unsafe { ngx_http_upstream_t::request_body_sent_raw(self.raw.as_ptr()) };
        keepalive & request_body_sent != 0
    }
}
