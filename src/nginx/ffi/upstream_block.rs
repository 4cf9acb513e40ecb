//! An upstream block of the configuration.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr;

use nginx_sys::{
    nginx_version, ngx_array_t, ngx_conf_t, ngx_http_upstream_server_t, ngx_http_upstream_srv_conf_t, ngx_int_t,
};
use ngx::core::Status;
use ngx::ngx_string;

use super::directive::CONF_OK;
use super::guard::guarded;
use super::parser::Parser;
use super::peer::{Balancer, init_peer};
use super::pool;
use super::proxy::commands;

/// The first nginx that keeps connections unless `keepalive 0;` is said.
const KEEPALIVE_BY_DEFAULT: u32 = 1_029_007;

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

    fn as_ref(&self) -> &ngx_http_upstream_srv_conf_t {
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

    /// Whether no directive has taken the upstream over since [`UpstreamBlock::balance`].
    pub fn is_balanced_by<B: Balancer>(&self) -> bool {
        self.as_ref().peer.init_upstream.is_some_and(|init| ptr::fn_addr_eq(init, init_upstream::<B> as InitUpstream))
    }

    /// Has `B` choose the backends. `None` when memory has run out.
    pub fn balance<B: Balancer>(&mut self) -> Option<()> {
        // nginx wants a server in each upstream; this one stands for whatever the balancer knows.
        // SAFETY: all-zero is how nginx makes these itself.
        let server = unsafe { std::mem::zeroed::<ngx_http_upstream_server_t>() };
        // SAFETY: an upstream's servers are an array of this type.
        unsafe { pool::push(self.as_ref().servers, ngx_http_upstream_server_t { down: 1, ..server }) }?;
        // SAFETY: nginx's own, as long as the configuration, and nothing else is at it now.
        unsafe { (*self.raw).peer.init_upstream = Some(init_upstream::<B>) };
        Some(())
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

type InitUpstream = unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t;

unsafe extern "C" fn init_upstream<B: Balancer>(
    cf: *mut ngx_conf_t,
    upstream: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    guarded(Status::NGX_ERROR, || {
        // SAFETY: nginx passes its parser, once the http block is read.
        let parser = unsafe { Parser::from_raw(cf) };
        // SAFETY: nothing has a reference to it that could be written through, now that the block is read.
        let Some(main) = (unsafe { parser.main_conf() }) else { return Status::NGX_ERROR };
        // SAFETY: nginx passes the upstream whose block it has read.
        let block = unsafe { UpstreamBlock::from_raw(upstream) };
        match B::configure(main, &block) {
            Ok(conf) => {
                // SAFETY: nginx's own, and nothing else is at it now.
                let peer = unsafe { &mut (*upstream).peer };
                peer.init = Some(init_peer::<B>);
                peer.data = ptr::from_ref(conf).cast_mut().cast();
                Status::NGX_OK
            }
            Err(error) => {
                parser.refuse(&error);
                Status::NGX_ERROR
            }
        }
    })
    .0
}

impl Parser<'_> {
    /// Says `keepalive 0;` in the upstream that is being read, where nginx keeps connections unless told otherwise. False when
    /// the upstream has a `keepalive` already; one that follows is a duplicate for nginx.
    pub fn switch_keepalive_off(&mut self) -> bool {
        if nginx_version < KEEPALIVE_BY_DEFAULT {
            return true;
        }
        let module = self.cycle().and_then(|cycle| cycle.module(c"ngx_http_upstream_keepalive_module"));
        let Some(module) = module else { return true };
        // SAFETY: inside an upstream's block there is a level of each module.
        let level = unsafe { *self.context().srv_conf.wrapping_add(module.ctx_index) };
        let mut parser = *self.as_ref();
        let mut words = [ngx_string!("keepalive"), ngx_string!("0")];
        let mut args = ngx_array_t {
            elts: words.as_mut_ptr().cast(),
            nelts: words.len(),
            size: size_of_val(&words[0]),
            nalloc: words.len(),
            pool: parser.pool,
        };
        parser.args = &raw mut args;
        // SAFETY: the names of directives are static.
        let mut commands = commands(module).filter(|command| unsafe { pool::bytes(command.name) } == b"keepalive");
        let Some((command, set)) = commands.next().and_then(|command| Some((command, command.set?))) else {
            return true;
        };
        // SAFETY: called as nginx's parser does, with the level that belongs to the directive.
        let outcome = unsafe { set(&raw mut parser, ptr::from_ref(command).cast_mut(), level) };
        outcome == CONF_OK
    }
}
