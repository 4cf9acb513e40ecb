//! The shared memory zone of a table: one slab allocation, made once and kept across reloads.
#![allow(unsafe_code)]

use std::error::Error;
use std::ffi::c_void;
use std::hash::{BuildHasher, RandomState};
use std::ptr;
use std::rc::Rc;

use nginx_sys::{
    ngx_int_t, ngx_pagesize_shift, ngx_pool_cleanup_add, ngx_shared_memory_add, ngx_shm_zone_t, ngx_slab_alloc,
    ngx_slab_pool_t,
};
use ngx::core::Status;

use super::config_error::ConfigError;
use super::module::Module;
use super::panic_guard::catch_panic;
use super::parser::Parser;
use super::pool;
use crate::table::{LayoutError, PublishError, Table};

/// The table settings that own a zone.
pub(in crate::nginx) trait ZoneOwner: 'static {
    /// Called when nginx has mapped the zone, at every start, reload and `nginx -t`. `is_fresh` if the table was just created.
    /// An error refuses the configuration; the current one stays in force.
    fn on_mapped(&self, table: Table<'static>, is_fresh: bool) -> Result<(), PublishError>;

    /// Logs the error that refuses the configuration.
    fn log_error(&self, error: &dyn Error);
}

impl Parser<'_> {
    /// Requests a zone of this size. nginx logs an error itself.
    pub fn add_zone<O: ZoneOwner>(&mut self, name: &str, bytes: usize, owner: Rc<O>) -> Result<(), ConfigError> {
        self.try_add_zone(name, bytes, owner).ok_or(ConfigError::Logged)
    }

    fn try_add_zone<O: ZoneOwner>(&mut self, name: &str, bytes: usize, owner: Rc<O>) -> Option<()> {
        let name = self.pool().copy(name.as_bytes())?;
        let mut name = pool::string(name);
        // SAFETY: nginx's parser; the tag is only compared.
        let zone = unsafe { ngx_shared_memory_add(self.as_ptr(), &raw mut name, bytes, Module::tag()) };
        // SAFETY: nginx keeps the zone's description as long as the configuration.
        let zone = unsafe { zone.as_mut() }?;
        // SAFETY: the configuration's pool.
        let cleanup = unsafe { ngx_pool_cleanup_add(self.pool().as_ptr(), 0) };
        // SAFETY: new, from the same pool.
        let cleanup = unsafe { cleanup.as_mut() }?;
        // The owner lives as long as the configuration of the zone.
        let owner = Rc::into_raw(owner).cast_mut().cast();
        cleanup.handler = Some(release::<O>);
        cleanup.data = owner;
        zone.init = Some(init::<O>);
        zone.data = owner;
        Some(())
    }
}

unsafe extern "C" fn release<O>(owner: *mut c_void) {
    // SAFETY: created from an `Rc` by `add_zone`, released once.
    catch_panic((), || drop(unsafe { Rc::from_raw(owner.cast::<O>().cast_const()) }));
}

/// Idempotent; never clears an existing table.
unsafe extern "C" fn init<O: ZoneOwner>(zone: *mut ngx_shm_zone_t, _former: *mut c_void) -> ngx_int_t {
    catch_panic(Status::NGX_ERROR, || {
        // SAFETY: nginx passes the zone of `add_zone`, mapped.
        let zone = unsafe { &*zone };
        // SAFETY: set by `add_zone`, alive as long as the configuration.
        let owner = unsafe { &*zone.data.cast::<O>() };
        // SAFETY: nginx has created its slab pool at the start of the zone; nothing else accesses it now.
        let slab = unsafe { &mut *zone.shm.addr.cast::<ngx_slab_pool_t>() };
        // SAFETY: the pool of the zone of `add_zone`, mapped.
        let mapped = unsafe { map(slab) };
        let outcome = mapped.map_err(Box::<dyn Error>::from);
        let outcome = outcome.and_then(|(table, is_fresh)| Ok(owner.on_mapped(table, is_fresh)?));
        outcome.map_or_else(
            |error| {
                owner.log_error(&*error);
                Status::NGX_ERROR
            },
            |()| Status::NGX_OK,
        )
    })
    .0
}

/// Attaches to the table of a zone, or creates it; also returns whether it was created.
///
/// # Safety
/// `slab` is the pool of a mapped zone of this module. A worker keeps its mapping until it exits. Only a single process
/// (`master_process off`) unmaps the zone of an old configuration while it runs, and nginx does not support reloading
/// that: it can accept no connection afterwards.
unsafe fn map(slab: &mut ngx_slab_pool_t) -> Result<(Table<'static>, bool), LayoutError> {
    // SAFETY: nginx writes it at start.
    let page_bytes = 1usize << unsafe { ngx_pagesize_shift };
    let bytes_from = |block: *mut u8| (slab.end as usize).saturating_sub(block as usize);
    if !slab.data.is_null() {
        let block = slab.data.cast();
        // SAFETY: an earlier call of this function created the table there; it ends with the pool.
        return unsafe { Table::attach(block, bytes_from(block)) }.map(|table| (table, false));
    }
    let bytes = slab.pfree * page_bytes;
    // SAFETY: nginx's pool; whole pages are page-aligned, and a new mapping is zeroed.
    let block = unsafe { ngx_slab_alloc(ptr::from_mut(slab), bytes) }.cast::<u8>();
    if block.is_null() {
        return Err(LayoutError::TooSmall(bytes));
    }
    // SAFETY: the block belongs to this table only and is never freed.
    let table = unsafe { Table::format(block, bytes, hash_key()) }?;
    slab.data = block.cast();
    Ok((table, true))
}

/// A random hash key that tenants cannot guess.
fn hash_key() -> [u64; 2] {
    [0, 1].map(|half| RandomState::new().hash_one(half))
}
