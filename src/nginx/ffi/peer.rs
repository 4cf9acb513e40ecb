//! Upstream peers: the functions that nginx calls for a request with an upstream of this module.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_PEER_FAILED, ngx_conf_t, ngx_http_request_t, ngx_http_upstream_server_t, ngx_http_upstream_srv_conf_t,
    ngx_int_t, ngx_peer_connection_t, ngx_pool_t, ngx_str_t, ngx_uint_t,
};
use ngx::core::Status;

use super::addr_text::AddrText;
use super::config_error::ConfigError;
use super::connection::Connection;
use super::log::Log;
use super::module::MainConf;
use super::panic_guard::catch_panic;
use super::parser::Parser;
use super::pool::{self, Pool};
use super::request::Request;
use super::sockaddr::PeerAddress;
use super::upstream::Upstream;
use super::upstream_block::UpstreamBlock;

/// Selects backends for the requests of an upstream.
pub(in crate::nginx) trait Balancer: Sized + 'static {
    /// The settings of an upstream.
    type Conf;
    /// The state of one request. It must not need a drop.
    type Peers<'r>;

    /// Returns the settings of a block after the configuration is read, or an error if the block has conflicting directives.
    fn configure<'m>(main: &'m MainConf, block: &UpstreamBlock<'_>) -> Result<&'m Self::Conf, ConfigError>;

    /// Starts a request; returns the number of usable backends too. `None` fails the request.
    fn init<'r>(request: Request<'r>, upstream: Upstream<'r>, conf: &'r Self::Conf)
    -> Option<(Self::Peers<'r>, usize)>;

    /// Selects the next backend: `NGX_OK`, `NGX_DONE` with a kept connection, `NGX_BUSY` without a backend.
    fn get<'r>(peers: &mut Self::Peers<'r>, connection: &mut PeerConnection<'r>) -> Status;

    /// Ends an attempt: the backend has responded or failed.
    fn free<'r>(peers: &mut Self::Peers<'r>, connection: &mut PeerConnection<'r>, has_failed: bool);
}

/// The peer data of a request.
struct PeerData<P> {
    peers: P,
    addresses: Addresses,
}

/// The addresses of a request's backends. nginx reads the current one again when it logs the request.
struct Addresses {
    pool: *mut ngx_pool_t,
    /// Memory for the first address, usually the only one.
    first: MaybeUninit<Address>,
    /// The address of the current backend; null before the first attempt.
    current: *const Address,
    /// Memory for the next address, once it is reserved.
    next: *mut Address,
}

struct Address {
    sockaddr: PeerAddress,
    text: AddrText,
    name: ngx_str_t,
}

/// nginx's peer connection: the current attempt of a request.
pub(in crate::nginx) struct PeerConnection<'r> {
    raw: NonNull<ngx_peer_connection_t>,
    addresses: NonNull<Addresses>,
    life: PhantomData<fn(&'r ()) -> &'r ()>,
}

impl UpstreamBlock<'_> {
    /// Whether no later directive has replaced the balancer set by [`UpstreamBlock::balance`].
    pub fn is_balanced_by<B: Balancer>(&self) -> bool {
        self.as_ref().peer.init_upstream.is_some_and(|init| ptr::fn_addr_eq(init, init_upstream::<B> as InitUpstream))
    }

    /// Makes `B` the balancer of the upstream. `None` if out of memory.
    pub fn balance<B: Balancer>(&mut self) -> Option<()> {
        // nginx requires a server in each upstream: this is a placeholder.
        // SAFETY: nginx itself initializes these to zero.
        let server = unsafe { std::mem::zeroed::<ngx_http_upstream_server_t>() };
        // SAFETY: an upstream's servers are an array of this type.
        unsafe { pool::push(self.as_ref().servers, ngx_http_upstream_server_t { down: 1, ..server }) }?;
        // SAFETY: owned by nginx and alive as long as the configuration; nothing else accesses it now.
        unsafe { (*self.as_ptr()).peer.init_upstream = Some(init_upstream::<B>) };
        Some(())
    }
}

type InitUpstream = unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t;

// Compared by address: not inlined, so that it has one.
#[inline(never)]
unsafe extern "C" fn init_upstream<B: Balancer>(
    cf: *mut ngx_conf_t,
    upstream: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    catch_panic(Status::NGX_ERROR, || {
        // SAFETY: nginx passes its parser, after the http block is read.
        let parser = unsafe { Parser::from_raw(cf) };
        // SAFETY: no mutable reference to it exists after the block is read.
        let Some(main) = (unsafe { parser.main_conf() }) else { return Status::NGX_ERROR };
        // SAFETY: nginx passes an upstream block that it has read.
        let block = unsafe { UpstreamBlock::from_raw(upstream) };
        match B::configure(main, &block) {
            Ok(conf) => {
                // SAFETY: owned by nginx; nothing else accesses it now.
                let peer = unsafe { &mut (*upstream).peer };
                peer.init = Some(init_peer::<B>);
                peer.data = ptr::from_ref(conf).cast_mut().cast();
                Status::NGX_OK
            }
            Err(error) => {
                parser.log_error(&error);
                Status::NGX_ERROR
            }
        }
    })
    .0
}

unsafe extern "C" fn init_peer<B: Balancer>(
    r: *mut ngx_http_request_t,
    us: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    catch_panic(Status::NGX_ERROR, || {
        // SAFETY: nginx passes the current request.
        let request = unsafe { Request::from_raw(r) };
        // SAFETY: nginx passes the upstream.
        let conf = unsafe { (*us).peer.data };
        // SAFETY: set by `init_upstream`; the configuration outlives its requests.
        let conf = unsafe { &*conf.cast::<B::Conf>() };
        let Some(upstream) = request.upstream() else { return Status::NGX_ERROR };
        let Some((peers, tries)) = B::init(request, upstream, conf) else { return Status::NGX_ERROR };
        let pool = request.pool();
        let peer_data = || {
            let addresses = Addresses {
                pool: pool.as_ptr(),
                first: MaybeUninit::uninit(),
                current: ptr::null(),
                next: ptr::null_mut(),
            };
            PeerData { peers, addresses }
        };
        let Some(peer_data) = pool.allocate(peer_data) else { return Status::NGX_ERROR };
        // SAFETY: the request's upstream, and nothing else accesses its peer now.
        let peer = unsafe { &mut (*upstream.as_ptr()).peer };
        peer.data = ptr::from_mut(peer_data).cast();
        peer.tries = tries;
        peer.get = Some(get::<B>);
        peer.free = Some(free::<B>);
        // The round-robin functions would misread our data.
        peer.set_session = Some(set_session);
        peer.save_session = Some(save_session);
        Status::NGX_OK
    })
    .0
}

/// Runs `f` with the data set by `init_peer`.
///
/// # Safety
/// `pc` and `data` are the arguments that nginx passes to a function set by `init_peer`.
#[inline(always)]
unsafe fn with<'r, P, T>(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
    f: impl FnOnce(&mut P, &mut PeerConnection<'r>) -> T,
) -> T {
    let peer_data = data.cast::<PeerData<P>>();
    // SAFETY: created by `init_peer` in the request's pool; nginx calls one function at a time.
    let peers = unsafe { &mut (*peer_data).peers };
    // SAFETY: another field of the same value.
    let addresses = NonNull::from_mut(unsafe { &mut (*peer_data).addresses });
    // SAFETY: guaranteed by the caller.
    let raw = unsafe { NonNull::new_unchecked(pc) };
    f(peers, &mut PeerConnection { raw, addresses, life: PhantomData })
}

unsafe extern "C" fn get<B: Balancer>(pc: *mut ngx_peer_connection_t, data: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes the current connection and the data set by `init_peer`.
    catch_panic(Status::NGX_ERROR, || unsafe { with(pc, data, B::get) }).0
}

unsafe extern "C" fn free<B: Balancer>(pc: *mut ngx_peer_connection_t, data: *mut c_void, state: ngx_uint_t) {
    let has_failed = state & NGX_PEER_FAILED as ngx_uint_t != 0;
    catch_panic((), || {
        // SAFETY: nginx passes the current connection and the data set by `init_peer`.
        unsafe {
            with(pc, data, |peers, connection| {
                connection.spend_try();
                B::free(peers, connection, has_failed);
            })
        }
    });
}

/// TLS sessions are not cached: backends of different tools must not share them.
unsafe extern "C" fn set_session(_: *mut ngx_peer_connection_t, _: *mut c_void) -> ngx_int_t {
    Status::NGX_OK.0
}

unsafe extern "C" fn save_session(_: *mut ngx_peer_connection_t, _: *mut c_void) {}

impl<'r> PeerConnection<'r> {
    /// The log of the request's connection.
    pub fn log(&self) -> Log<'r> {
        let log = raw_field!(self.log);
        // SAFETY: the log of the request's connection.
        unsafe { Log::from_raw(log) }
    }

    fn spend_try(&mut self) {
        let tries = raw_field!(self.tries);
        raw_field!(self.tries = tries.saturating_sub(1));
    }

    /// Whether this is a kept connection.
    pub fn is_kept(&self) -> bool {
        // SAFETY: as in `raw_field`.
        unsafe { self.raw.as_ref() }.cached() != 0
    }

    #[inline(always)]
    fn set_kept(&mut self, is_kept: bool) {
        // SAFETY: as in `raw_field`.
        unsafe { self.raw.as_mut() }.set_cached(is_kept.into());
    }

    /// Whether a timeout of the backend has expired.
    pub fn has_timed_out(&mut self) -> bool {
        self.check_connection(|connection, _| connection.has_timed_out())
    }

    /// Whether there is a connection and `f` accepts it. `f` gets the text of the backend's address too.
    #[inline(always)]
    pub fn check_connection(&mut self, f: impl FnOnce(&mut Connection, Option<&AddrText>) -> bool) -> bool {
        let raw = raw_field!(self.connection);
        // SAFETY: the connection of the request, or null; nginx uses it only after this call.
        let connection = unsafe { Connection::from_raw(raw) };
        connection.is_some_and(|mut connection| f(&mut connection, self.text()))
    }

    /// Makes nginx open a new connection.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.set_kept(false);
        raw_field!(self.connection = ptr::null_mut());
    }

    /// Makes nginx use an open connection. With `keeps_timer`, its timer keeps running.
    #[inline(always)]
    pub fn set_connection(&mut self, connection: Connection, keeps_timer: bool) {
        let connection = connection.resume(raw_field!(self.log), keeps_timer);
        raw_field!(self.connection = connection);
        self.set_kept(true);
    }

    /// Takes the connection away from nginx.
    #[inline(always)]
    pub fn take_connection(&mut self) -> Option<Connection> {
        let raw = raw_field!(self.connection);
        raw_field!(self.connection = ptr::null_mut());
        // SAFETY: the connection of the request, or null; nginx no longer has it.
        let mut connection = unsafe { Connection::from_raw(raw) }?;
        connection.detach();
        Some(connection)
    }

    /// Reserves memory for the next address. `None` if out of memory.
    #[inline(always)]
    pub fn reserve_address(&mut self) -> Option<()> {
        // SAFETY: created by `init_peer` in the request's pool, and nothing else accesses them now.
        let addresses = unsafe { self.addresses.as_mut() };
        addresses.next = if addresses.current.is_null() {
            addresses.first.as_mut_ptr()
        } else {
            // SAFETY: the request's pool.
            let pool: Pool<'r> = unsafe { Pool::from_raw(addresses.pool) };
            pool.allocate(MaybeUninit::uninit)?.as_mut_ptr()
        };
        Some(())
    }

    /// Sets the address that nginx connects to, in the reserved memory. `reuse_suffix` makes it distinct for nginx's
    /// `keepalive`.
    #[inline(always)]
    pub fn set_address(&mut self, addr: &SocketAddr, reuse_suffix: [u64; 2], text: &AddrText) {
        // SAFETY: created by `init_peer` in the request's pool, and nothing else accesses them now.
        let addresses = unsafe { self.addresses.as_mut() };
        let Some(place) = NonNull::new(std::mem::replace(&mut addresses.next, ptr::null_mut())) else { return };
        // SAFETY: memory for one address, in the request's pool.
        unsafe {
            place.write(Address {
                sockaddr: PeerAddress::new(addr, reuse_suffix),
                text: *text,
                name: ngx_str_t::empty(),
            })
        };
        addresses.current = place.as_ptr();
        // SAFETY: written just above; from here on nginx reads it.
        let address = unsafe { &mut *place.as_ptr() };
        address.name = pool::string(address.text.as_bytes());
        let bytes = address.sockaddr.bytes_mut();
        raw_field!(self.socklen = bytes.len() as u32);
        raw_field!(self.sockaddr = bytes.as_mut_ptr().cast());
        raw_field!(self.name = &raw mut address.name);
    }

    /// The text of the backend's address.
    #[inline(always)]
    pub fn text(&self) -> Option<&AddrText> {
        // SAFETY: created by `init_peer` in the request's pool.
        let addresses = unsafe { self.addresses.as_ref() };
        // SAFETY: written by `set_address`, or null.
        unsafe { addresses.current.as_ref() }.map(|address| &address.text)
    }
}
