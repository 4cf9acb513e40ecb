//! A histogram of request durations.

use crate::table::StatusClass;
use crate::table::atomic::{AtomicU64, Ordering::Relaxed};

/// Upper bounds of the buckets, in milliseconds; one more bucket has no bound.
pub const DURATION_BOUNDS_MILLISECONDS: [u64; 10] = [5, 25, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000];
const BUCKETS: usize = DURATION_BOUNDS_MILLISECONDS.len() + 1;

/// Requests by status class, and their durations: 17 words.
#[repr(C)]
#[derive(Debug)]
pub(in crate::table) struct DurationWords {
    by_class: [AtomicU64; 5],
    buckets: [AtomicU64; BUCKETS],
    milliseconds: AtomicU64,
}

/// The values of a histogram, not read atomically as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DurationHistogram {
    /// Requests by status class, 1xx first.
    pub by_class: [u64; 5],
    /// Requests by duration, each in one bucket.
    pub buckets: [u64; BUCKETS],
    /// Sum of all durations.
    pub milliseconds: u64,
}

impl DurationWords {
    pub fn new() -> Self {
        let zero = |_| AtomicU64::new(0);
        Self {
            by_class: std::array::from_fn(zero),
            buckets: std::array::from_fn(zero),
            milliseconds: AtomicU64::new(0),
        }
    }

    #[inline]
    pub fn add(&self, class: StatusClass, milliseconds: u64) {
        let bucket = DURATION_BOUNDS_MILLISECONDS.iter().take_while(|&&bound| milliseconds > bound).count();
        if let (Some(class), Some(bucket)) = (self.by_class.get(class as usize), self.buckets.get(bucket)) {
            class.fetch_add(1, Relaxed);
            bucket.fetch_add(1, Relaxed);
            self.milliseconds.fetch_add(milliseconds, Relaxed);
        }
    }

    pub fn reset(&self) {
        self.by_class.iter().chain(&self.buckets).chain([&self.milliseconds]).for_each(|word| word.store(0, Relaxed));
    }

    pub fn read(&self) -> DurationHistogram {
        DurationHistogram {
            by_class: self.by_class.each_ref().map(|word| word.load(Relaxed)),
            buckets: self.buckets.each_ref().map(|word| word.load(Relaxed)),
            milliseconds: self.milliseconds.load(Relaxed),
        }
    }
}

impl DurationHistogram {
    /// Adds another histogram to this one.
    pub fn merge(&mut self, other: &Self) {
        self.by_class.iter_mut().zip(other.by_class).for_each(|(sum, count)| add(sum, count));
        self.buckets.iter_mut().zip(other.buckets).for_each(|(sum, count)| add(sum, count));
        add(&mut self.milliseconds, other.milliseconds);
    }
}

/// Adds a count of shared memory, which may be damaged: a sum that is too large goes on from zero.
pub(super) fn add(sum: &mut u64, count: u64) {
    *sum = sum.wrapping_add(count);
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_bound_belongs_to_its_bucket() {
        let words = DurationWords::new();
        for milliseconds in [0, 5, 6, 30_000, 30_001, u64::from(u32::MAX)] {
            words.add(StatusClass::Success, milliseconds);
        }
        let read = words.read();
        assert_eq!(read.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(read.by_class, [0, 6, 0, 0, 0]);
        assert_eq!(read.milliseconds, 5 + 6 + 60_001 + u64::from(u32::MAX));
        words.reset();
        assert_eq!(words.read(), DurationHistogram::default());
    }

    #[test]
    fn histograms_add_up() {
        let words = DurationWords::new();
        words.add(StatusClass::Success, 5);
        words.add(StatusClass::ServerError, 7);
        let mut sum = words.read();
        words.add(StatusClass::ServerError, 40_000);
        sum.merge(&words.read());
        assert_eq!((sum.by_class, sum.milliseconds), ([0, 2, 0, 0, 3], 40_024));
        assert_eq!(sum.buckets, [2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    }
}
