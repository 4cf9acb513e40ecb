//! The shared zone of a table: one slab allocation, taken once, kept across reloads.
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

/// What a zone is for.
pub(in crate::nginx) trait ZoneOwner: 'static {
    /// The zone is mapped; `is_fresh` when its table was made just now. Runs at every start and reload, and for `nginx -t`.
    ///
    /// # Errors
    /// Refuses the configuration; the one in force stays.
    fn on_mapped(&self, table: Table<'static>, is_fresh: bool) -> Result<(), PublishError>;

    /// Logs why the configuration is refused.
    fn log_error(&self, error: &dyn Error);
}

impl Parser<'_> {
    /// Asks nginx for a zone of so many bytes.
    ///
    /// # Errors
    /// nginx refuses, which it logs.
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
        // SAFETY: fresh, of the same pool.
        let cleanup = unsafe { cleanup.as_mut() }?;
        // The owner stays as long as the configuration that has the zone.
        let owner = Rc::into_raw(owner).cast_mut().cast();
        cleanup.handler = Some(release::<O>);
        cleanup.data = owner;
        zone.init = Some(init::<O>);
        zone.data = owner;
        Some(())
    }
}

unsafe extern "C" fn release<O>(owner: *mut c_void) {
    // SAFETY: `add_zone` has taken it from an `Rc`, once.
    catch_panic((), || drop(unsafe { Rc::from_raw(owner.cast::<O>().cast_const()) }));
}

/// Idempotent, and never clears.
unsafe extern "C" fn init<O: ZoneOwner>(zone: *mut ngx_shm_zone_t, _former: *mut c_void) -> ngx_int_t {
    catch_panic(Status::NGX_ERROR, || {
        // SAFETY: nginx passes the zone that `add_zone` has described, mapped.
        let zone = unsafe { &*zone };
        // SAFETY: `add_zone` put it there, for the life of the configuration.
        let owner = unsafe { &*zone.data.cast::<O>() };
        // SAFETY: nginx has put its slab pool at the start of the zone, and lets nobody else at it now.
        let slab = unsafe { &mut *zone.shm.addr.cast::<ngx_slab_pool_t>() };
        // SAFETY: the pool of the zone that `add_zone` has asked for, mapped.
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

/// The table in a zone, and whether it was made just now.
///
/// # Safety
/// `slab` is the pool of a mapped zone that is ours. A worker keeps its mapping until it exits. Only a single process
/// (`master_process off`) unmaps the zone of a former configuration while it runs, and nginx does not support reloading
/// that: it can accept no connection afterwards.
unsafe fn map(slab: &mut ngx_slab_pool_t) -> Result<(Table<'static>, bool), LayoutError> {
    // SAFETY: nginx writes it at its start.
    let page_bytes = 1usize << unsafe { ngx_pagesize_shift };
    let bytes_from = |block: *mut u8| (slab.end as usize).saturating_sub(block as usize);
    if !slab.data.is_null() {
        let block = slab.data.cast();
        // SAFETY: an earlier run of this function put the table there; it ends with the pool.
        return unsafe { Table::attach(block, bytes_from(block)) }.map(|table| (table, false));
    }
    let bytes = slab.pfree * page_bytes;
    // SAFETY: the pool is nginx's; whole pages come aligned to pages, and a fresh mapping is zero.
    let block = unsafe { ngx_slab_alloc(ptr::from_mut(slab), bytes) }.cast::<u8>();
    if block.is_null() {
        return Err(LayoutError::TooSmall(bytes));
    }
    // SAFETY: the block is this table's alone, and stays: it is never freed.
    let table = unsafe { Table::format(block, bytes, hash_key()) }?;
    slab.data = block.cast();
    Ok((table, true))
}

/// A key that tenants can't guess.
fn hash_key() -> [u64; 2] {
    [0, 1].map(|half| RandomState::new().hash_one(half))
}
