/* Tells ThreadSanitizer about the locks, scoped threads and reference counts of Rust's std, which is shipped without instrumentation, and
 * about epoll and signals.
 *
 * The quick paths of std's locks are inlined into our code, where the sanitizer sees them. Their slow paths are functions inside
 * std: a thread that gets a lock there would seem to use the data without it. The linker's --wrap puts the functions below in
 * between. The names of std's functions are those of this std; the script beside this file finds them. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

void __tsan_acquire(void *address);
void __tsan_release(void *address);

#define REAL(name) __asm__("__real_" name)
#define WRAP(name) __asm__("__wrap_" name)

/* Mutex::lock_contended, RwLock::write_contended, RwLock::read_contended (&self) */
#define LOCK(function, symbol) \
    void real_##function(void *lock) REAL(symbol); \
    void function(void *lock) WRAP(symbol); \
    void function(void *lock) { real_##function(lock); __tsan_acquire(lock); }
LOCK(mutex_lock, MUTEX_LOCK_CONTENDED)
LOCK(rwlock_write, RWLOCK_WRITE_CONTENDED)
LOCK(rwlock_read, RWLOCK_READ_CONTENDED)

/* Condvar::wait(&self, &Mutex): unlocks the mutex and locks it again. */
void real_condvar_wait(void *condvar, void *mutex) REAL(CONDVAR_WAIT);
void condvar_wait(void *condvar, void *mutex) WRAP(CONDVAR_WAIT);
void condvar_wait(void *condvar, void *mutex) {
    __tsan_release(mutex);
    real_condvar_wait(condvar, mutex);
    __tsan_acquire(mutex);
}

/* Condvar::wait_timeout(&self, &Mutex, Duration) -> bool */
bool real_condvar_wait_timeout(void *, void *, uint64_t, uint32_t) REAL(CONDVAR_WAIT_TIMEOUT);
bool condvar_wait_timeout(void *, void *, uint64_t, uint32_t) WRAP(CONDVAR_WAIT_TIMEOUT);
bool condvar_wait_timeout(void *condvar, void *mutex, uint64_t seconds, uint32_t nanoseconds) {
    __tsan_release(mutex);
    bool notified = real_condvar_wait_timeout(condvar, mutex, seconds, nanoseconds);
    __tsan_acquire(mutex);
    return notified;
}

/* Once::call(&self, ignore_poisoning: bool, f: &mut dyn FnMut(&OnceState)): std publishes the end of f, so the end is told before
 * that, by an f of our own. A vtable is: drop, size, align, FnOnce::call_once, FnMut::call_mut. */
typedef void call_mut(void *self, void *state);
struct told {
    void *once, *data;
    void **vtable;
};
static void call_and_tell(void *self, void *state) {
    struct told *told = self;
    ((call_mut *)told->vtable[4])(told->data, state);
    __tsan_release(told->once);
}
static void *const telling[] = {0, (void *)sizeof(struct told), (void *)_Alignof(struct told), 0, (void *)call_and_tell};

void real_once_call(void *, bool, void *, const void *) REAL(ONCE_CALL);
void once_call(void *, bool, void *, void **) WRAP(ONCE_CALL);
void once_call(void *once, bool ignore_poisoning, void *data, void **vtable) {
    struct told told = {once, data, vtable};
    real_once_call(once, ignore_poisoning, &told, telling);
    __tsan_acquire(once);
}

/* ScopeData::decrement_num_running_threads(&self, bool): ends a thread. Whoever began the scope waits until one of its words is zero,
 * in our code; which of its first two is for rustc to choose. */
void real_scope_end(void *scope, bool panicked) REAL(SCOPE_END);
void scope_end(void *scope, bool panicked) WRAP(SCOPE_END);
void scope_end(void *scope, bool panicked) {
    __tsan_release(scope);
    __tsan_release((uint64_t *)scope + 1);
    real_scope_end(scope, panicked);
}

/* Arc frees its value after a fetch_sub(Release) to zero and a fence(Acquire), in our code. The sanitizer knows no fences, so the
 * subtraction acquires too. */
enum { RELEASE = 3, ACQUIRE_RELEASE = 4 };
uint64_t real_fetch_sub(volatile uint64_t *, uint64_t, int) REAL("__tsan_atomic64_fetch_sub");
uint64_t fetch_sub(volatile uint64_t *, uint64_t, int) WRAP("__tsan_atomic64_fetch_sub");
uint64_t fetch_sub(volatile uint64_t *word, uint64_t less, int order) {
    return real_fetch_sub(word, less, order == RELEASE ? ACQUIRE_RELEASE : order);
}

/* What a thread has done before it adds a descriptor to epoll is done for the thread that gets the descriptor's event. The sanitizer
 * knows that by the number of the epoll descriptor, but tokio adds with one number and waits with a duplicate of it. Here it is known
 * by the word that comes back with the event. */
static char orders[1 << 12];
static char *of_word(const struct epoll_event *event) { return &orders[event->data.u64 / 16 % sizeof orders]; }
int __interceptor_epoll_ctl(int, int, int, struct epoll_event *);
int epoll_ctl(int epoll, int operation, int descriptor, struct epoll_event *event) {
    if (operation != EPOLL_CTL_DEL) __tsan_release(of_word(event));
    return __interceptor_epoll_ctl(epoll, operation, descriptor, event);
}
int __interceptor_epoll_wait(int, struct epoll_event *, int, int);
int epoll_wait(int epoll, struct epoll_event *events, int size, int timeout) {
    int number = __interceptor_epoll_wait(epoll, events, size, timeout);
    for (int i = 0; i < number; i++) __tsan_acquire(of_word(&events[i]));
    return number;
}

/* The sanitizer keeps a signal back until its thread calls a function that it knows. std's locks wait in syscall(), which it does not
 * know, so a main thread that waits there would never end a program. Each such wait is cut into slices. */
enum { SLICE_MS = 50 };
long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real) real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long words[6]; /* more than a caller may have passed, as in libc's own */
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++) words[i] = va_arg(rest, long);
    va_end(rest);
    bool is_endless = number == SYS_futex && (words[1] & ~FUTEX_PRIVATE_FLAG) == FUTEX_WAIT_BITSET && !words[3];
    struct timespec end;
    if (is_endless) {
        clock_gettime(CLOCK_MONOTONIC, &end);
        end.tv_nsec += SLICE_MS * 1000000;
        end.tv_sec += end.tv_nsec / 1000000000;
        end.tv_nsec %= 1000000000;
        words[3] = (long)&end;
    }
    long result = real(number, words[0], words[1], words[2], words[3], words[4], words[5]);
    if (is_endless && result == -1 && errno == ETIMEDOUT) {
        usleep(0);
        errno = EINTR; /* std waits again */
    }
    return result;
}
