//! Memory of nginx's pools, and its strings.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;

use nginx_sys::{
    NGX_ALIGNMENT, ngx_array_push, ngx_array_t, ngx_palloc, ngx_pnalloc, ngx_pool_cleanup_t, ngx_pool_t, ngx_str_t,
};

/// A pool: all that it gives lives as long as it, and is freed at once.
#[derive(Clone, Copy)]
pub(in crate::nginx) struct Pool<'p> {
    raw: *mut ngx_pool_t,
    life: PhantomData<&'p ngx_pool_t>,
}

impl<'p> Pool<'p> {
    /// # Safety
    /// `raw` is one of nginx's pools for `'p`, and used on this thread alone.
    #[inline(always)]
    pub(super) unsafe fn from_raw(raw: *mut ngx_pool_t) -> Self {
        Self { raw, life: PhantomData }
    }

    pub(super) fn as_ptr(self) -> *mut ngx_pool_t {
        self.raw
    }

    /// The first of the things to do when the pool goes.
    #[inline(always)]
    pub(super) fn cleanups(self) -> *mut ngx_pool_cleanup_t {
        // SAFETY: a pool for `'p`.
        unsafe { (*self.raw).cleanup }
    }

    #[inline(always)]
    pub(super) fn set_cleanups(self, first: *mut ngx_pool_cleanup_t) {
        // SAFETY: a pool for `'p`, and nothing else is at it now.
        unsafe { (*self.raw).cleanup = first };
    }

    /// Makes a value in the pool. It is never dropped: `T` owns nothing. `None` when memory has run out.
    #[inline(always)]
    pub fn allocate<T>(self, value: impl FnOnce() -> T) -> Option<&'p mut T> {
        const { assert!(!std::mem::needs_drop::<T>()) };
        const { assert_aligned::<T>() };
        // SAFETY: a pool for `'p`.
        let memory = NonNull::new(unsafe { ngx_palloc(self.raw, size_of::<T>()) }.cast::<T>())?;
        // SAFETY: fresh memory of this size; `ngx_palloc` aligns it to `NGX_ALIGNMENT`, which is enough for `T`.
        unsafe { memory.write(value()) };
        // SAFETY: written just above, and nothing else refers to it.
        Some(unsafe { &mut *memory.as_ptr() })
    }

    /// Copies a slice into the pool. `None` when memory has run out.
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
        // SAFETY: fresh memory of this size, aligned for `T`: `ngx_palloc` aligns to `NGX_ALIGNMENT`, bytes need nothing.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), memory.as_ptr(), values.len()) };
        // SAFETY: written just above, and nothing else refers to it.
        Some(unsafe { std::slice::from_raw_parts_mut(memory.as_ptr(), values.len()) })
    }

    /// Makes a slice in the pool of the first `count` values. `None` when one of them is none, when there are fewer, or when
    /// memory has run out.
    pub fn collect<T: Copy>(self, count: usize, values: impl Iterator<Item = Option<T>>) -> Option<&'p [T]> {
        const { assert_aligned::<T>() };
        // SAFETY: a pool for `'p`.
        let memory = unsafe { ngx_palloc(self.raw, size_of::<T>().checked_mul(count)?) };
        let memory = NonNull::new(memory.cast::<T>())?;
        let mut written = 0;
        for value in values.take(count) {
            // SAFETY: there is room for `count`, and `take` ends before that.
            let place = unsafe { memory.add(written) };
            // SAFETY: fresh memory, aligned as in `copy`.
            unsafe { place.write(value?) };
            written += 1;
        }
        // SAFETY: so many were written just above.
        (written == count).then(|| unsafe { std::slice::from_raw_parts(memory.as_ptr(), count) })
    }
}

/// Fails for a type that wants more than the alignment of a pool's memory: evaluated as `const`, it stops the compilation.
const fn assert_aligned<T>() {
    assert!(align_of::<T>() <= NGX_ALIGNMENT, "the memory of nginx's pools is aligned for pointers, and nothing wider");
}

/// Appends a value to one of nginx's arrays. `None` when memory has run out.
///
/// # Safety
/// `array` is an array of `T`.
pub(super) unsafe fn push<T>(array: *mut ngx_array_t, value: T) -> Option<()> {
    const { assert_aligned::<T>() };
    // SAFETY: the caller's promise.
    let slot = NonNull::new(unsafe { ngx_array_push(array) }.cast::<T>())?;
    // SAFETY: fresh memory for one `T`.
    unsafe { slot.write(value) };
    Some(())
}

/// The bytes of one of nginx's strings.
///
/// # Safety
/// The string's memory is there, and not written, for `'a`.
#[inline(always)]
pub(super) unsafe fn bytes<'a>(string: ngx_str_t) -> &'a [u8] {
    if string.data.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(string.data, string.len) }
}

/// A string of nginx's over bytes that live long enough for what gets it.
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
    fn a_pool_is_aligned_for_pointers_and_nothing_wider() {
        assert_aligned::<ngx_http_upstream_server_t>();
        assert_aligned::<(u8, u64)>();
        assert!(catch_unwind(assert_aligned::<Wide>).is_err());
        assert!(catch_unwind(assert_aligned::<u128>).is_err());
    }
}
