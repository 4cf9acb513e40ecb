//! All atomics of the table: those of `core`, or those of `loom` for the models.
//!
//! Each ordering is requested by the [`Edge`] of the proof that it serves. A model can leave one out, to show that it then
//! fails; outside of models these functions are the plain orderings and fences.

#[cfg(loom)]
pub(super) mod faulty;

#[cfg(not(loom))]
pub(super) use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(loom)]
pub(super) use {
    faulty::AtomicU64,
    loom::sync::atomic::{Ordering, fence},
};

/// An edge of the argument in `proof.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Edge {
    E1,
    E2,
    E3,
    E4,
    E5,
    E6,
    E7,
    E8,
}

/// A part of the protocol that a model can leave out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Release(Edge),
    Acquire(Edge),
    FenceRelease(Edge),
    FenceAcquire(Edge),
    StampRecheck,
    SlotRecheck,
}

/// The ordering of the store that an edge begins with.
#[inline(always)]
pub(super) fn release(edge: Edge) -> Ordering {
    if holds(Part::Release(edge)) { Ordering::Release } else { Ordering::Relaxed }
}

/// The ordering of the load that an edge ends with.
#[inline(always)]
pub(super) fn acquire(edge: Edge) -> Ordering {
    if holds(Part::Acquire(edge)) { Ordering::Acquire } else { Ordering::Relaxed }
}

/// The fence before the stores that an edge begins with.
#[inline(always)]
pub(super) fn fence_release(edge: Edge) {
    if holds(Part::FenceRelease(edge)) {
        fence(Ordering::Release);
    }
}

/// The fence after the loads that an edge ends with.
#[inline(always)]
pub(super) fn fence_acquire(edge: Edge) {
    if holds(Part::FenceAcquire(edge)) {
        fence(Ordering::Acquire);
    }
}

/// The recheck after an Acquire fence: whether a word still has its value.
#[inline(always)]
pub(super) fn is_still(value: u64, word: &AtomicU64, recheck: Part) -> bool {
    !holds(recheck) || word.load(Ordering::Relaxed) == value
}

#[cfg(not(loom))]
#[inline(always)]
const fn holds(_: Part) -> bool {
    true
}
#[cfg(loom)]
use faulty::holds;
