//! The names of parking_lot, as POSIX locks: ThreadSanitizer knows these, and reports two that threads take in different orders.

use std::cell::UnsafeCell;
use std::time::{Duration, Instant};

use libc::{PTHREAD_MUTEX_INITIALIZER, PTHREAD_RWLOCK_INITIALIZER, c_int, pthread_mutex_t, pthread_rwlock_t};
use lock_api::{GuardNoSend, RawMutex as _};

pub type Mutex<T> = lock_api::Mutex<RawMutex, T>;
pub type MutexGuard<'a, T> = lock_api::MutexGuard<'a, RawMutex, T>;
pub type MappedMutexGuard<'a, T> = lock_api::MappedMutexGuard<'a, RawMutex, T>;
pub type RwLock<T> = lock_api::RwLock<RawRwLock, T>;
pub type RwLockReadGuard<'a, T> = lock_api::RwLockReadGuard<'a, RawRwLock, T>;
pub type RwLockWriteGuard<'a, T> = lock_api::RwLockWriteGuard<'a, RawRwLock, T>;
pub type MappedRwLockReadGuard<'a, T> = lock_api::MappedRwLockReadGuard<'a, RawRwLock, T>;
pub use std::sync::Once;

pub const fn const_mutex<T>(value: T) -> Mutex<T> {
    Mutex::const_new(RawMutex::INIT, value)
}

pub struct RawMutex(UnsafeCell<pthread_mutex_t>);

// SAFETY: POSIX mutexes are made for several threads. They may be moved while they are not locked: glibc keeps no pointer to them.
unsafe impl Sync for RawMutex {}
// SAFETY: as above; guards, which unlock, stay in their thread.
unsafe impl Send for RawMutex {}

// SAFETY: a default mutex of POSIX has one owner at a time.
unsafe impl lock_api::RawMutex for RawMutex {
    #[allow(clippy::declare_interior_mutable_const)] // lock_api's way of making locks
    const INIT: Self = Self(UnsafeCell::new(PTHREAD_MUTEX_INITIALIZER));
    type GuardMarker = GuardNoSend;

    fn lock(&self) {
        // SAFETY: the mutex is initialized, and borrowed until the function returns.
        succeed(unsafe { libc::pthread_mutex_lock(self.0.get()) });
    }

    fn try_lock(&self) -> bool {
        // SAFETY: as in `lock`.
        is_free(unsafe { libc::pthread_mutex_trylock(self.0.get()) })
    }

    unsafe fn unlock(&self) {
        // SAFETY: lock_api unlocks in the thread that has the lock.
        succeed(unsafe { libc::pthread_mutex_unlock(self.0.get()) });
    }
}

// SAFETY: as above.
unsafe impl lock_api::RawMutexTimed for RawMutex {
    type Duration = Duration;
    type Instant = Instant;

    fn try_lock_for(&self, timeout: Duration) -> bool {
        self.try_lock_until(Instant::now() + timeout)
    }

    fn try_lock_until(&self, deadline: Instant) -> bool {
        loop {
            if self.try_lock() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for RawMutex {
    fn drop(&mut self) {
        // SAFETY: nothing borrows the mutex any more. A locked one, whose guard was forgotten, stays as it is.
        unsafe { libc::pthread_mutex_destroy(self.0.get()) };
    }
}

/// Locks of POSIX have no step from writer to reader. Writers hold `writing` too, so that none comes in between.
pub struct RawRwLock {
    writing: RawMutex,
    lock: UnsafeCell<pthread_rwlock_t>,
}

// SAFETY: as for the mutex.
unsafe impl Sync for RawRwLock {}
// SAFETY: as for the mutex.
unsafe impl Send for RawRwLock {}

// SAFETY: a lock of POSIX has one writer or several readers at a time.
unsafe impl lock_api::RawRwLock for RawRwLock {
    #[allow(clippy::declare_interior_mutable_const)] // lock_api's way of making locks
    const INIT: Self = Self { writing: RawMutex::INIT, lock: UnsafeCell::new(PTHREAD_RWLOCK_INITIALIZER) };
    type GuardMarker = GuardNoSend;

    fn lock_shared(&self) {
        // SAFETY: the lock is initialized, and borrowed until the function returns.
        succeed(unsafe { libc::pthread_rwlock_rdlock(self.lock.get()) });
    }

    fn try_lock_shared(&self) -> bool {
        // SAFETY: as in `lock_shared`.
        is_free(unsafe { libc::pthread_rwlock_tryrdlock(self.lock.get()) })
    }

    unsafe fn unlock_shared(&self) {
        // SAFETY: lock_api unlocks in the thread that has the lock.
        succeed(unsafe { libc::pthread_rwlock_unlock(self.lock.get()) });
    }

    fn lock_exclusive(&self) {
        self.writing.lock();
        // SAFETY: as in `lock_shared`.
        succeed(unsafe { libc::pthread_rwlock_wrlock(self.lock.get()) });
    }

    fn try_lock_exclusive(&self) -> bool {
        if !self.writing.try_lock() {
            return false;
        }
        // SAFETY: as in `lock_shared`.
        let is_locked = is_free(unsafe { libc::pthread_rwlock_trywrlock(self.lock.get()) });
        if !is_locked {
            // SAFETY: locked just above.
            unsafe { self.writing.unlock() };
        }
        is_locked
    }

    unsafe fn unlock_exclusive(&self) {
        // SAFETY: as in `unlock_shared`.
        succeed(unsafe { libc::pthread_rwlock_unlock(self.lock.get()) });
        // SAFETY: the writer has this lock too.
        unsafe { self.writing.unlock() };
    }
}

// SAFETY: no other writer comes in between.
unsafe impl lock_api::RawRwLockDowngrade for RawRwLock {
    unsafe fn downgrade(&self) {
        // SAFETY: as in `unlock_shared`.
        succeed(unsafe { libc::pthread_rwlock_unlock(self.lock.get()) });
        lock_api::RawRwLock::lock_shared(self);
        // SAFETY: the writer has this lock too.
        unsafe { self.writing.unlock() };
    }
}

impl Drop for RawRwLock {
    fn drop(&mut self) {
        // SAFETY: as for the mutex.
        unsafe { libc::pthread_rwlock_destroy(self.lock.get()) };
    }
}

fn succeed(error: c_int) {
    assert_eq!(error, 0, "a lock of POSIX failed");
}

fn is_free(error: c_int) -> bool {
    assert!(matches!(error, 0 | libc::EBUSY | libc::EAGAIN), "a lock of POSIX failed: {error}");
    error == 0
}
