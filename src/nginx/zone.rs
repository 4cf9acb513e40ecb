//! The shared zone of a table: one slab allocation, taken once, kept across reloads.

use std::ffi::c_void;

use nginx_sys::{
    ngx_conf_t, ngx_int_t, ngx_pagesize_shift, ngx_shared_memory_add, ngx_shm_zone_t, ngx_slab_alloc, ngx_slab_pool_t,
};
use ngx::core::Status;
use ngx::http::HttpModule;

use super::guard::guarded;
use super::log;
use super::module::{Module, zone_name};
use super::table_conf::{Origin, TableConf};
use crate::table::{PublishError, Table, carry_over};

/// Asks nginx for the zone of a table.
///
/// # Safety
/// `cf` is nginx's parser, and `table` stays where it is as long as the configuration.
pub(super) unsafe fn request(cf: *mut ngx_conf_t, table: &TableConf) -> Option<()> {
    // SAFETY: the caller's promise.
    let mut name = zone_name(unsafe { &*cf }, &table.name)?;
    let tag: *const _ = Module::module();
    // SAFETY: the caller's promise; the tag is only compared.
    let zone = unsafe { ngx_shared_memory_add(cf, &raw mut name, table.zone_bytes, tag.cast_mut().cast()) };
    // SAFETY: nginx keeps the zone's description as long as the configuration.
    let zone = unsafe { zone.as_mut() }?;
    zone.init = Some(init);
    zone.data = (&raw const *table).cast_mut().cast();
    Some(())
}

/// Runs at every start and reload, and for `nginx -t`: idempotent, and never clears.
unsafe extern "C" fn init(zone: *mut ngx_shm_zone_t, _former: *mut c_void) -> ngx_int_t {
    guarded(Status::NGX_ERROR.0, || {
        // SAFETY: nginx passes the zone that `request` described, mapped.
        let zone = unsafe { &*zone };
        // SAFETY: `request` put it there.
        let conf = unsafe { &*zone.data.cast::<TableConf>() };
        // SAFETY: nginx has put its slab pool at the start of the zone.
        let slab = unsafe { &mut *zone.shm.addr.cast::<ngx_slab_pool_t>() };
        // SAFETY: as above.
        match unsafe { map(slab) } {
            Ok((table, is_fresh)) => {
                let _ = conf.table.set(table);
                if !is_fresh {
                    conf.origin.set(Origin::Kept);
                    return Status::NGX_OK.0;
                }
                match go_on(conf, table) {
                    Ok(origin) => conf.origin.set(origin),
                    // Refuses the configuration; the one in force stays.
                    Err(error) => return refuse(conf, &error),
                }
                Status::NGX_OK.0
            }
            Err(error) => refuse(conf, &error),
        }
    })
}

fn refuse(conf: &TableConf, error: &dyn std::error::Error) -> ngx_int_t {
    log::cycle(nginx_sys::NGX_LOG_EMERG, &format!("urlproxy_table {}: {error}", conf.name));
    Status::NGX_ERROR.0
}

/// Gives a fresh table what the one before it holds. That is still mapped, and written to, as long as this
/// configuration is not in force.
fn go_on(conf: &TableConf, table: Table<'static>) -> Result<Origin, PublishError> {
    match conf.predecessor.get().filter(|former| former.header().is_loaded()) {
        Some(former) => carry_over(former, table).map(|tools| Origin::Carried { tools }),
        None => Ok(Origin::Fresh),
    }
}

/// The table in a zone, and whether it was made just now.
///
/// # Safety
/// `slab` is the pool of a mapped zone that is ours. A worker keeps its mapping until it exits. Only a single process
/// (`master_process off`) unmaps the zone of a former configuration while it runs, and nginx does not support reloading
/// that: it can accept no connection afterwards.
unsafe fn map(slab: &mut ngx_slab_pool_t) -> Result<(Table<'static>, bool), crate::table::LayoutError> {
    // SAFETY: written by nginx at its start.
    let page_bytes = 1usize << unsafe { ngx_pagesize_shift };
    // SAFETY: the pool's own end.
    let bytes_from = |block: *mut u8| (slab.end as usize).saturating_sub(block as usize);
    if !slab.data.is_null() {
        let block = slab.data.cast();
        // SAFETY: an earlier run of this function put the table there.
        return unsafe { Table::attach(block, bytes_from(block)) }.map(|table| (table, false));
    }
    let bytes = slab.pfree * page_bytes;
    // SAFETY: the pool is nginx's; whole pages come aligned to pages, and a fresh mapping is zero.
    let block = unsafe { ngx_slab_alloc(&raw mut *slab, bytes) }.cast::<u8>();
    if block.is_null() {
        return Err(crate::table::LayoutError::TooSmall(bytes));
    }
    // SAFETY: the block is ours alone, and stays: it is never freed.
    let table = unsafe { Table::format(block, bytes, hash_key()) }?;
    slab.data = block.cast();
    Ok((table, true))
}

/// A key that tenants can't guess.
fn hash_key() -> [u64; 2] {
    use std::hash::{BuildHasher, RandomState};
    [0, 1].map(|half| RandomState::new().hash_one(half))
}
