//! The choice of a backend: what nginx calls for a request with an upstream of this module's.
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

/// Chooses the backends of an upstream's requests.
pub(in crate::nginx) trait Balancer: Sized + 'static {
    /// What the configuration has of an upstream.
    type Conf;
    /// One request's way through its backends. It owns nothing.
    type Peers<'r>;

    /// What the configuration has of a block, once all is read.
    ///
    /// # Errors
    /// The block says something else too.
    fn configure<'m>(main: &'m MainConf, block: &UpstreamBlock<'_>) -> Result<&'m Self::Conf, ConfigError>;

    /// Begins, and how many backends can be asked. `None` fails the request.
    fn init<'r>(request: Request<'r>, upstream: Upstream<'r>, conf: &'r Self::Conf)
    -> Option<(Self::Peers<'r>, usize)>;

    /// Says which backend is asked next: `NGX_OK`, `NGX_DONE` with a connection, `NGX_BUSY` without any backend.
    fn get<'r>(peers: &mut Self::Peers<'r>, connection: &mut PeerConnection<'r>) -> Status;

    /// The backend has answered, or failed.
    fn free<'r>(peers: &mut Self::Peers<'r>, connection: &mut PeerConnection<'r>, has_failed: bool);
}

/// What nginx keeps for a request.
struct PeerData<P> {
    peers: P,
    addresses: Addresses,
}

/// The addresses of a request's backends. nginx reads one again when it logs the request.
struct Addresses {
    pool: *mut ngx_pool_t,
    /// Where the first is kept: nearly always the only one.
    first: MaybeUninit<Address>,
    /// The one of the backend that is asked; null before any is.
    current: *const Address,
    /// Where the next is kept, once there is room for it.
    next: *mut Address,
}

struct Address {
    sockaddr: PeerAddress,
    text: AddrText,
    name: ngx_str_t,
}

/// A connection to a backend, as nginx makes it.
pub(in crate::nginx) struct PeerConnection<'r> {
    raw: NonNull<ngx_peer_connection_t>,
    addresses: NonNull<Addresses>,
    life: PhantomData<fn(&'r ()) -> &'r ()>,
}

impl UpstreamBlock<'_> {
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
        unsafe { (*self.as_ptr()).peer.init_upstream = Some(init_upstream::<B>) };
        Some(())
    }
}

type InitUpstream = unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_http_upstream_srv_conf_t) -> ngx_int_t;

unsafe extern "C" fn init_upstream<B: Balancer>(
    cf: *mut ngx_conf_t,
    upstream: *mut ngx_http_upstream_srv_conf_t,
) -> ngx_int_t {
    catch_panic(Status::NGX_ERROR, || {
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
        // SAFETY: nginx passes the request that it works on.
        let request = unsafe { Request::from_raw(r) };
        // SAFETY: nginx passes the upstream.
        let conf = unsafe { (*us).peer.data };
        // SAFETY: `init_upstream` has put it there, and the configuration lives longer than its requests.
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
        // SAFETY: the request's upstream, and nothing else is at its peer now.
        let peer = unsafe { &mut (*upstream.as_ptr()).peer };
        peer.data = ptr::from_mut(peer_data).cast();
        peer.tries = tries;
        peer.get = Some(get::<B>);
        peer.free = Some(free::<B>);
        // Round robin's own would take our data for its own.
        peer.set_session = Some(set_session);
        peer.save_session = Some(save_session);
        Status::NGX_OK
    })
    .0
}

/// Runs `f` with what `init_peer` has set.
///
/// # Safety
/// `pc` and `data` are what nginx passes to a function of `init_peer`'s.
#[inline(always)]
unsafe fn with<'r, P, T>(
    pc: *mut ngx_peer_connection_t,
    data: *mut c_void,
    f: impl FnOnce(&mut P, &mut PeerConnection<'r>) -> T,
) -> T {
    let peer_data = data.cast::<PeerData<P>>();
    // SAFETY: `init_peer` has made it in the request's pool, and nginx calls one function at a time.
    let peers = unsafe { &mut (*peer_data).peers };
    // SAFETY: another field of the same.
    let addresses = NonNull::from_mut(unsafe { &mut (*peer_data).addresses });
    // SAFETY: the caller's promise.
    let raw = unsafe { NonNull::new_unchecked(pc) };
    f(peers, &mut PeerConnection { raw, addresses, life: PhantomData })
}

unsafe extern "C" fn get<B: Balancer>(pc: *mut ngx_peer_connection_t, data: *mut c_void) -> ngx_int_t {
    // SAFETY: nginx passes the connection it is working on, and what `init_peer` has set.
    catch_panic(Status::NGX_ERROR, || unsafe { with(pc, data, B::get) }).0
}

unsafe extern "C" fn free<B: Balancer>(pc: *mut ngx_peer_connection_t, data: *mut c_void, state: ngx_uint_t) {
    let has_failed = state & NGX_PEER_FAILED as ngx_uint_t != 0;
    catch_panic((), || {
        // SAFETY: nginx passes the connection it is working on, and what `init_peer` has set.
        unsafe {
            with(pc, data, |peers, connection| {
                connection.spend_try();
                B::free(peers, connection, has_failed);
            })
        }
    });
}

/// TLS sessions are not kept: backends of different tools share nothing.
unsafe extern "C" fn set_session(_: *mut ngx_peer_connection_t, _: *mut c_void) -> ngx_int_t {
    Status::NGX_OK.0
}

unsafe extern "C" fn save_session(_: *mut ngx_peer_connection_t, _: *mut c_void) {}

impl<'r> PeerConnection<'r> {
    /// Where nginx logs.
    pub fn log(&self) -> Log<'r> {
        let log = raw_field!(self.log);
        // SAFETY: the log of the request's connection.
        unsafe { Log::from_raw(log) }
    }

    fn spend_try(&mut self) {
        let tries = raw_field!(self.tries);
        raw_field!(self.tries = tries.saturating_sub(1));
    }

    /// Whether it is one that was kept for another request.
    pub fn is_kept(&self) -> bool {
        // SAFETY: as in `raw_field`.
        unsafe { self.raw.as_ref() }.cached() != 0
    }

    #[inline(always)]
    fn set_kept(&mut self, is_kept: bool) {
        // SAFETY: as in `raw_field`.
        unsafe { self.raw.as_mut() }.set_cached(is_kept.into());
    }

    /// Whether nginx has waited for the backend for too long.
    pub fn has_timed_out(&mut self) -> bool {
        self.check_connection(|connection, _| connection.has_timed_out())
    }

    /// Whether there is a connection that fits; `f` gets the text of the backend's address too.
    #[inline(always)]
    pub fn check_connection(&mut self, f: impl FnOnce(&mut Connection, Option<&AddrText>) -> bool) -> bool {
        let raw = raw_field!(self.connection);
        // SAFETY: nginx passes the connection of the request, or none, and uses it only after this.
        let connection = unsafe { Connection::from_raw(raw) };
        connection.is_some_and(|mut connection| f(&mut connection, self.text()))
    }

    /// Has nginx open a connection.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.set_kept(false);
        raw_field!(self.connection = ptr::null_mut());
    }

    /// Has nginx use an open connection; `keeps_timer` if the timer that runs for it may go on.
    #[inline(always)]
    pub fn set_connection(&mut self, connection: Connection, keeps_timer: bool) {
        let connection = connection.resume(raw_field!(self.log), keeps_timer);
        raw_field!(self.connection = connection);
        self.set_kept(true);
    }

    /// Takes the connection: nginx has none then.
    #[inline(always)]
    pub fn take_connection(&mut self) -> Option<Connection> {
        let raw = raw_field!(self.connection);
        raw_field!(self.connection = ptr::null_mut());
        // SAFETY: nginx passes the connection of the request, or none; from here on it does not have it.
        let mut connection = unsafe { Connection::from_raw(raw) }?;
        connection.detach();
        Some(connection)
    }

    /// Makes room for the next address. `None` when memory has run out.
    #[inline(always)]
    pub fn reserve_address(&mut self) -> Option<()> {
        // SAFETY: `init_peer` has made them in the request's pool, and nothing else is at them now.
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

    /// Says whom nginx connects to, once there is room for it. `reuse_suffix` makes it another address for nginx's `keepalive`.
    #[inline(always)]
    pub fn set_address(&mut self, addr: &SocketAddr, reuse_suffix: [u64; 2], text: &AddrText) {
        // SAFETY: `init_peer` has made them in the request's pool, and nothing else is at them now.
        let addresses = unsafe { self.addresses.as_mut() };
        let Some(place) = NonNull::new(std::mem::replace(&mut addresses.next, ptr::null_mut())) else { return };
        // SAFETY: room for one, in the request's pool.
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
        // SAFETY: `init_peer` has made them in the request's pool.
        let addresses = unsafe { self.addresses.as_ref() };
        // SAFETY: `set_address` has written it, or it is null.
        unsafe { addresses.current.as_ref() }.map(|address| &address.text)
    }
}
