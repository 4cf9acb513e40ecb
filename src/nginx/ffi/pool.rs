//! nginx's memory pools, arrays and strings.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;

use nginx_sys::{
    NGX_ALIGNMENT, ngx_array_push, ngx_array_t, ngx_palloc, ngx_pnalloc, ngx_pool_cleanup_t, ngx_pool_t, ngx_str_t,
};

/// A pool: its allocations live as long as the pool and are freed together.
#[derive(Clone, Copy)]
pub(in crate::nginx) struct Pool<'p> {
    raw: *mut ngx_pool_t,
    life: PhantomData<&'p ngx_pool_t>,
}

impl<'p> Pool<'p> {
    /// # Safety
    /// `raw` is a pool of nginx for `'p`, used on this thread only.
    #[inline(always)]
    pub(super) unsafe fn from_raw(raw: *mut ngx_pool_t) -> Self {
        Self { raw, life: PhantomData }
    }

    pub(super) fn as_ptr(self) -> *mut ngx_pool_t {
        self.raw
    }

    /// The head of the pool's cleanup list.
    #[inline(always)]
    pub(super) fn cleanups(self) -> *mut ngx_pool_cleanup_t {
        // SAFETY: a pool for `'p`.
        unsafe { (*self.raw).cleanup }
    }

    #[inline(always)]
    pub(super) fn set_cleanups(self, first: *mut ngx_pool_cleanup_t) {
        // SAFETY: a pool for `'p`, and nothing else accesses it now.
        unsafe { (*self.raw).cleanup = first };
    }

    /// Allocates a value in the pool. It is never dropped. `None` if out of memory.
    #[inline(always)]
    pub fn allocate<T>(self, value: impl FnOnce() -> T) -> Option<&'p mut T> {
        const { assert!(!std::mem::needs_drop::<T>()) };
        const { assert_aligned::<T>() };
        // SAFETY: a pool for `'p`.
        let memory = NonNull::new(unsafe { ngx_palloc(self.raw, size_of::<T>()) }.cast::<T>())?;
        // SAFETY: new memory of this size; `ngx_palloc` aligns it to `NGX_ALIGNMENT`, which is enough for `T`.
        unsafe { memory.write(value()) };
        // SAFETY: written just above, and nothing else refers to it.
        Some(unsafe { &mut *memory.as_ptr() })
    }

    /// Copies a slice into the pool. `None` if out of memory.
    pub fn copy<T: Copy>(self, values: &[T]) -> Option<&'p mut [T]> {
        const { assert_aligned::<T>() };
        let size = size_of_val(values);
        let memory: *mut c_void = if align_of::<T>() == 1 {
            // SAFETY: a pool for `'p`.
            unsafe { ngx_pnalloc(self.raw, size) }
        } else {
            // SAFETY: a pool for `'p`.
            unsafe { ngx_palloc(self.raw, size) }
        };
        let memory = NonNull::new(memory.cast::<T>())?;
        // SAFETY: new memory of this size, aligned for `T`: `ngx_palloc` aligns to `NGX_ALIGNMENT`, bytes need no alignment.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), memory.as_ptr(), values.len()) };
        // SAFETY: written just above, and nothing else refers to it.
        Some(unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), values.len()) })
    }

    /// Collects `count` values into a slice in the pool. `None` if a value is `None`, if there are fewer, or if out of memory.
    pub fn collect<T: Copy>(self, count: usize, values: impl Iterator<Item = Option<T>>) -> Option<&'p [T]> {
        const { assert_aligned::<T>() };
        // SAFETY: a pool for `'p`.
        let memory = unsafe { ngx_palloc(self.raw, size_of::<T>().checked_mul(count)?) };
        let memory = NonNull::new(memory.cast::<T>())?;
        let mut written = 0;
        for value in values.take(count) {
            // SAFETY: memory for `count` values, and `take` stops before that.
            let slot = unsafe { memory.add(written) };
            // SAFETY: new memory, aligned as in `copy`.
            unsafe { slot.write(value?) };
            written += 1;
        }
        // SAFETY: `count` values were written above.
        (written == count).then(|| unsafe { std::slice::from_raw_parts(memory.as_ptr(), count) })
    }
}

/// Compile-time check that a pool's memory is aligned for `T`.
const fn assert_aligned<T>() {
    assert!(align_of::<T>() <= NGX_ALIGNMENT, "nginx's pools align memory for pointers only");
}

/// Appends a value to an nginx array. `None` if out of memory.
///
/// # Safety
/// `array` is an array of `T`.
pub(super) unsafe fn push<T>(array: *mut ngx_array_t, value: T) -> Option<()> {
    const { assert_aligned::<T>() };
    // SAFETY: guaranteed by the caller.
    let slot = NonNull::new(unsafe { ngx_array_push(array) }.cast::<T>())?;
    // SAFETY: new memory for one `T`.
    unsafe { slot.write(value) };
    Some(())
}

/// The bytes of an nginx string.
///
/// # Safety
/// The string's memory is valid and not written for `'a`.
#[inline(always)]
pub(super) unsafe fn bytes<'a>(string: ngx_str_t) -> &'a [u8] {
    if string.data.is_null() {
        return &[];
    }
    // SAFETY: guaranteed by the caller.
    unsafe { std::slice::from_raw_parts(string.data, string.len) }
}

/// An nginx string over `bytes`. The caller keeps the bytes alive.
#[inline(always)]
pub(super) const fn string(bytes: &[u8]) -> ngx_str_t {
    ngx_str_t { len: bytes.len(), data: bytes.as_ptr().cast_mut() }
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use nginx_sys::ngx_http_upstream_server_t;

    use super::*;

    #[repr(align(16))]
    struct Wide;

    #[test]
    fn pool_memory_is_aligned_for_pointers_only() {
        assert_aligned::<ngx_http_upstream_server_t>();
        assert_aligned::<(u8, u64)>();
        assert!(catch_unwind(assert_aligned::<Wide>).is_err());
        assert!(catch_unwind(assert_aligned::<u128>).is_err());
    }
}
