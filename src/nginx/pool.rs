//! Memory of nginx's pools, and its strings.

use std::ffi::c_void;
use std::ptr::NonNull;

use nginx_sys::{NGX_ALIGNMENT, ngx_array_push, ngx_array_t, ngx_palloc, ngx_pnalloc, ngx_pool_t, ngx_str_t};

/// The bytes of one of nginx's strings.
///
/// # Safety
/// The string's memory is there, and not written, for `'a`.
pub(super) unsafe fn bytes<'a>(string: ngx_str_t) -> &'a [u8] {
    if string.data.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(string.data, string.len) }
}

/// Fails for a type that wants more than the alignment of a pool's memory: evaluated as `const`, it stops the compilation.
const fn assert_aligned<T>() {
    assert!(align_of::<T>() <= NGX_ALIGNMENT, "the memory of nginx's pools is aligned for pointers, and nothing wider");
}

/// Makes a value in a pool. It is never dropped: `T` owns nothing.
///
/// # Safety
/// The pool outlives `'a`.
#[inline(always)]
pub(super) unsafe fn place<'a, T>(pool: *mut ngx_pool_t, value: impl FnOnce() -> T) -> Option<&'a mut T> {
    const { assert!(!std::mem::needs_drop::<T>()) };
    const { assert_aligned::<T>() };
    // SAFETY: the caller passes a pool.
    let memory = NonNull::new(unsafe { ngx_palloc(pool, size_of::<T>()) }.cast::<T>())?;
    // SAFETY: fresh memory of this size; `ngx_palloc` aligns it to `NGX_ALIGNMENT`, which is enough for `T`.
    unsafe { memory.write(value()) };
    // SAFETY: written just above, and nobody else has it.
    Some(unsafe { &mut *memory.as_ptr() })
}

/// Copies a slice into a pool.
///
/// # Safety
/// The pool outlives `'a`.
pub(super) unsafe fn copy<'a, T: Copy>(pool: *mut ngx_pool_t, values: &[T]) -> Option<&'a [T]> {
    const { assert_aligned::<T>() };
    let size = size_of_val(values);
    let memory: *mut c_void = if align_of::<T>() == 1 {
        // SAFETY: the caller passes a pool.
        unsafe { ngx_pnalloc(pool, size) }
    } else {
        // SAFETY: the caller passes a pool.
        unsafe { ngx_palloc(pool, size) }
    };
    let memory = NonNull::new(memory.cast::<T>())?;
    // SAFETY: fresh memory of this size, aligned for `T` as above: `ngx_palloc` aligns to `NGX_ALIGNMENT`, bytes need none.
    unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), memory.as_ptr(), values.len()) };
    // SAFETY: written just above.
    Some(unsafe { std::slice::from_raw_parts(memory.as_ptr(), values.len()) })
}

/// Makes a slice in a pool of the first `count` values. `None` when one of them is none, when there are fewer, or when memory has
/// run out.
///
/// # Safety
/// The pool outlives `'a`.
pub(super) unsafe fn collect<'a, T: Copy>(
    pool: *mut ngx_pool_t,
    count: usize,
    values: impl Iterator<Item = Option<T>>,
) -> Option<&'a [T]> {
    const { assert_aligned::<T>() };
    // SAFETY: the caller passes a pool.
    let memory = NonNull::new(unsafe { ngx_palloc(pool, size_of::<T>().checked_mul(count)?) }.cast::<T>())?;
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

/// A string of nginx's over bytes that live long enough for whoever gets it.
pub(super) fn string(bytes: &[u8]) -> ngx_str_t {
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
