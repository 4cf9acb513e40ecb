//! The models' atomics: those of `loom`, with fault injection: killed writers and protocol parts left out.
//!
//! All threads of a model run on one operating system thread, so the faults are thread-local. Readers store nothing: all
//! stores are the writer's.

#![allow(unsafe_code)]
#![cfg_attr(not(test), allow(dead_code))]

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::{Ordering, Part};

/// An atomic of `loom` with stores that obey the faults.
#[derive(Debug)]
pub struct AtomicU64(loom::sync::atomic::AtomicU64);

#[derive(Default)]
struct Faults {
    left_out: Option<Part>,
    /// Stores until the writer is killed.
    lives: Option<usize>,
    skipped: Option<*const AtomicU64>,
    late: Option<Late>,
}

/// A store that is delayed until after another one.
struct Late {
    word: *const AtomicU64,
    past: *const AtomicU64,
    held: Option<(u64, Ordering)>,
}

thread_local! {
    static FAULTS: RefCell<Faults> = const { RefCell::new(Faults { left_out: None, lives: None, skipped: None, late: None }) };
}

struct Killed;

pub(in crate::table) fn holds(part: Part) -> bool {
    FAULTS.with_borrow(|faults| faults.left_out != Some(part))
}

/// Leaves out a part of the protocol, or nothing, until the next call.
pub(in crate::table) fn leave_out(part: Option<Part>) {
    FAULTS.set(Faults { left_out: part, ..Faults::default() });
}

/// Drops the next store to this word.
pub(in crate::table) fn skip(word: &AtomicU64) {
    FAULTS.with_borrow_mut(|faults| faults.skipped = Some(word));
}

/// Delays the next store to `word` until after one to `past`. Both must outlive that.
pub(in crate::table) fn delay(word: &AtomicU64, past: &AtomicU64) {
    FAULTS.with_borrow_mut(|faults| faults.late = Some(Late { word, past, held: None }));
}

/// Clears skipped and delayed words and kills, at the start of each execution.
pub(in crate::table) fn mend() {
    FAULTS.with_borrow_mut(|faults| (faults.skipped, faults.late, faults.lives) = (None, None, None));
}

/// Runs a writer and kills it after `stores` stores; `None` if it was killed.
pub(in crate::table) fn killed_after<T>(stores: usize, writer: impl FnOnce() -> T) -> Option<T> {
    let set = |lives| FAULTS.with_borrow_mut(|faults| faults.lives = lives);
    set(Some(stores));
    let outcome = catch_unwind(AssertUnwindSafe(writer));
    set(None);
    match outcome {
        Ok(value) => Some(value),
        Err(payload) if payload.is::<Killed>() => None,
        Err(payload) => resume_unwind(payload),
    }
}

impl AtomicU64 {
    pub fn new(value: u64) -> Self {
        Self(loom::sync::atomic::AtomicU64::new(value))
    }

    pub fn load(&self, order: Ordering) -> u64 {
        self.0.load(order)
    }

    pub fn store(&self, value: u64, order: Ordering) {
        let stored = FAULTS.with_borrow_mut(|faults| {
            match &mut faults.lives {
                Some(0) => return None,
                Some(lives) => *lives -= 1,
                None => {}
            }
            match &mut faults.late {
                Some(late) if std::ptr::eq(late.word, self) && late.held.is_none() => {
                    late.held = Some((value, order));
                    return Some(false);
                }
                _ => {}
            }
            let is_skipped = faults.skipped.is_some_and(|word| std::ptr::eq(word, self));
            if is_skipped {
                faults.skipped = None;
            }
            Some(!is_skipped)
        });
        match stored {
            None => resume_unwind(Box::new(Killed)),
            Some(true) => self.0.store(value, order),
            Some(false) => {}
        }
        let late = FAULTS.with_borrow_mut(|faults| {
            let due = faults.late.as_ref().is_some_and(|l| std::ptr::eq(l.past, self) && l.held.is_some());
            if due { faults.late.take() } else { None }
        });
        if let Some(Late { word, held: Some((value, order)), .. }) = late {
            // SAFETY: the model that asked for the delay keeps its table until its writer is done.
            unsafe { &*word }.0.store(value, order);
        }
    }

    pub fn fetch_add(&self, value: u64, order: Ordering) -> u64 {
        self.0.fetch_add(value, order)
    }

    pub fn compare_exchange(&self, old: u64, new: u64, ok: Ordering, failed: Ordering) -> Result<u64, u64> {
        self.0.compare_exchange(old, new, ok, failed)
    }
}
