//! What ThreadSanitizer must report, and what it must not: `controls NAME` runs one of them, `controls` prints their names.

use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Condvar, LazyLock, OnceLock};
use std::thread::{self, JoinHandle, spawn, yield_now};

use parking_lot::{Mutex, RwLock, RwLockWriteGuard};

/// Runs of a control: what std's locks do differs between a free and a contended lock.
const ROUNDS: usize = 200;
const CONTROLS: &[(&str, fn())] = &[
    ("fault-unordered-words", unordered_words),
    ("fault-relaxed-publication", || publication(false)),
    ("fault-order-of-mutexes", order_of_mutexes),
    ("fault-order-of-rwlock-and-mutex", order_of_rwlock_and_mutex),
    ("fault-data-behind-arc", data_behind_arc),
    ("fault-after-epoll", || epoll(false)),
    ("sound-publication", || publication(true)),
    ("sound-parking-lot", parking_lot),
    ("sound-std-locks", std_locks),
    ("sound-condvar", condvar),
    ("sound-once", once),
    ("sound-channels", channels),
    ("sound-scope", scope),
    ("sound-arc", arc),
    ("sound-epoll", || epoll(true)),
];

static FIRST: Mutex<u64> = Mutex::new(0);
static SECOND: Mutex<u64> = Mutex::new(0);
static SHARED: RwLock<u64> = RwLock::new(0);
static mut WORD: u64 = 0;

fn main() {
    let Some(name) = std::env::args().nth(1) else {
        return CONTROLS.iter().for_each(|(name, _)| println!("{name}"));
    };
    let (_, control) = CONTROLS.iter().find(|(known, _)| *known == name).expect("name of a control");
    control();
}

fn word() -> *mut u64 {
    black_box(&raw mut WORD)
}

fn join(threads: Vec<JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn unordered_words() {
    // SAFETY: none, this is the fault.
    join((0..2).map(|_| spawn(|| unsafe { *word() += 1 })).collect());
}

fn publication(is_sound: bool) {
    static IS_READY: AtomicBool = AtomicBool::new(false);
    let (store, load) = if is_sound { (Release, Acquire) } else { (Relaxed, Relaxed) };
    let reader = spawn(move || {
        while !IS_READY.load(load) {
            yield_now();
        }
        // SAFETY: written before it was published; without an order, this is the fault.
        assert_eq!(unsafe { *word() }, 7);
    });
    // SAFETY: the reader waits until it is published.
    unsafe { *word() = 7 };
    IS_READY.store(true, store);
    join(vec![reader]);
}

fn order_of_mutexes() {
    join(vec![spawn(|| {
        let mut first = FIRST.lock();
        *first += *SECOND.lock();
    })]);
    let mut second = SECOND.lock();
    *second += *FIRST.lock();
}

fn order_of_rwlock_and_mutex() {
    join(vec![spawn(|| {
        let first = FIRST.lock();
        *SHARED.write() += *first;
    })]);
    let shared = SHARED.read();
    *FIRST.lock() += *shared;
}

fn data_behind_arc() {
    let shared = Arc::new(word() as usize);
    let other = Arc::clone(&shared);
    // SAFETY: none, this is the fault.
    let thread = spawn(move || unsafe { *(*other as *mut u64) += 1 });
    // SAFETY: none, this is the fault.
    unsafe { *(*shared as *mut u64) += 1 };
    join(vec![thread]);
}

fn parking_lot() {
    let work = || {
        for _ in 0..ROUNDS {
            *FIRST.lock() += 1;
            let seen = *SHARED.read();
            let mut writing = SHARED.write();
            *writing += 1;
            assert!(*RwLockWriteGuard::downgrade(writing) > seen);
        }
    };
    join((0..3).map(|_| spawn(work)).collect());
    assert_eq!((*FIRST.lock(), *SHARED.read()), (3 * ROUNDS as u64, 3 * ROUNDS as u64));
}

fn std_locks() {
    let locks = Arc::new((std::sync::Mutex::new(0), std::sync::RwLock::new(0)));
    let work = |locks: Arc<(std::sync::Mutex<usize>, std::sync::RwLock<usize>)>| {
        for _ in 0..ROUNDS {
            *locks.0.lock().unwrap() += 1;
            assert!(*locks.1.read().unwrap() <= 3 * ROUNDS);
            *locks.1.write().unwrap() += 1;
        }
    };
    join((0..3).map(|_| Arc::clone(&locks)).map(|locks| spawn(move || work(locks))).collect());
    assert_eq!((*locks.0.lock().unwrap(), *locks.1.read().unwrap()), (3 * ROUNDS, 3 * ROUNDS));
}

fn condvar() {
    let shared = Arc::new((std::sync::Mutex::new(0), Condvar::new()));
    let waiting = Arc::clone(&shared);
    let waiter = spawn(move || {
        let mut count = waiting.0.lock().unwrap();
        while *count < ROUNDS {
            count = waiting.1.wait(count).unwrap();
        }
    });
    for _ in 0..ROUNDS {
        *shared.0.lock().unwrap() += 1;
        shared.1.notify_all();
    }
    join(vec![waiter]);
}

fn once() {
    static LAZY: LazyLock<Vec<u64>> = LazyLock::new(|| vec![1, 2, 3]);
    join((0..3).map(|_| spawn(|| assert_eq!(LAZY[1], 2))).collect());
    for _ in 0..ROUNDS {
        let cell: Arc<OnceLock<Vec<u64>>> = Arc::default();
        let work = |cell: Arc<OnceLock<Vec<u64>>>| assert_eq!(cell.get_or_init(|| vec![1, 2, 3])[1], 2);
        join((0..3).map(|_| Arc::clone(&cell)).map(|cell| spawn(move || work(cell))).collect());
    }
}

fn channels() {
    let (bounded, received) = sync_channel::<Box<usize>>(1);
    let (unbounded, also_received) = channel::<Box<usize>>();
    let reader = spawn(move || {
        let sum = received.iter().chain(also_received.iter()).map(|value| *value).sum::<usize>();
        assert_eq!(sum, ROUNDS * (ROUNDS - 1));
    });
    for value in 0..ROUNDS {
        unbounded.send(Box::new(value)).unwrap();
        bounded.send(Box::new(value)).unwrap();
    }
    drop((bounded, unbounded));
    join(vec![reader]);
}

fn scope() {
    for _ in 0..ROUNDS {
        let mut words = [0; 64];
        thread::scope(|scope| {
            for part in words.chunks_mut(16) {
                scope.spawn(|| part.iter_mut().for_each(|word| *word += 1));
            }
        });
        assert_eq!(words.iter().sum::<usize>(), 64);
    }
}

fn arc() {
    for _ in 0..ROUNDS {
        let shared = Arc::new(vec![1; 32]);
        let work = |shared: Arc<Vec<usize>>| assert_eq!(shared.iter().sum::<usize>(), 32);
        let threads = (0..2).map(|_| Arc::clone(&shared)).map(|shared| spawn(move || work(shared))).collect();
        drop(shared);
        join(threads);
    }
}

/// A descriptor is added with a duplicate of the descriptor that waits, as by tokio. Unsound is what the adding thread does afterwards.
fn epoll(is_sound: bool) {
    // SAFETY: descriptors of its own, and an event that outlives the calls. The word is the fault, if it is one.
    unsafe {
        let waiting = libc::epoll_create1(0);
        let adding = libc::dup(waiting);
        let waiter = spawn(move || {
            let mut event = libc::epoll_event { events: 0, u64: 0 };
            assert_eq!(libc::epoll_wait(waiting, &raw mut event, 1, -1), 1);
            *word() += 1;
        });
        let ready = libc::eventfd(1, 0);
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: 4096 };
        if is_sound {
            *word() += 1;
        }
        assert_eq!(libc::epoll_ctl(adding, libc::EPOLL_CTL_ADD, ready, &raw mut event), 0);
        if !is_sound {
            *word() += 1;
        }
        join(vec![waiter]);
        [waiting, adding, ready].map(|descriptor| libc::close(descriptor));
    }
}
