//! Request counters per tool. They are stored apart from the records, so that they survive a change of routes.

use super::atomic::{AtomicU64, Ordering::Relaxed};

/// The class in which an HTTP status is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// 100-199, including WebSocket upgrades.
    Informational = 0,
    /// 200-299.
    Success = 1,
    /// 300-399.
    Redirection = 2,
    /// 400-499.
    ClientError = 3,
    /// 500 and above.
    ServerError = 4,
}

impl StatusClass {
    /// The class of a status code.
    pub fn of(status: usize) -> Self {
        match status {
            0..200 => Self::Informational,
            200..300 => Self::Success,
            300..400 => Self::Redirection,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

/// One line per tool: workers count in it, the writer assigns it.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Counters {
    /// The keyed hash of the tool that has this line; 0 if it was never assigned.
    owner: AtomicU64,
    by_class: [AtomicU64; 5],
    bytes: AtomicU64,
    /// `series 16 | milliseconds 48`: the number of the tool's [`Series`](super::stats::Series) plus 1, or 0.
    time: AtomicU64,
}

const SERIES_SHIFT: u32 = 48;

/// The values of one tool's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests by status class, 1xx first.
    pub by_class: [u64; 5],
    /// Bytes sent to clients.
    pub bytes: u64,
    /// Sum of the request durations.
    pub milliseconds: u64,
}

impl Tally {
    /// Requests of all classes. A sum of damaged memory that is too large goes on from zero.
    pub fn requests(&self) -> u64 {
        self.by_class.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }
}

impl Counters {
    pub(super) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { owner: zero(), by_class: std::array::from_fn(|_| zero()), bytes: zero(), time: zero() }
    }

    pub(super) fn owner(&self) -> u64 {
        self.owner.load(Relaxed)
    }

    /// Assigns the line to another tool and resets it.
    pub(super) fn assign(&self, owner: u64) {
        self.owner.store(owner, Relaxed);
        self.by_class.iter().chain([&self.bytes, &self.time]).for_each(|w| w.store(0, Relaxed));
    }

    /// Counts one finished request. `owner` is the line's [`Self::ticket`] when the request was routed: a request that ends
    /// after the line was reassigned is not counted. Returns the number of the tool's series plus 1, or 0.
    #[inline]
    pub fn add(&self, owner: u64, status: StatusClass, bytes: u64, milliseconds: u64) -> u16 {
        if self.owner() != owner {
            return 0;
        }
        if let Some(count) = self.by_class.get(status as usize) {
            count.fetch_add(1, Relaxed);
        }
        self.bytes.fetch_add(bytes, Relaxed);
        (self.time.fetch_add(milliseconds, Relaxed) >> SERIES_SHIFT) as u16
    }

    /// Sets the number of the tool's series plus 1, or 0. Only for the one companion.
    pub(super) fn set_series(&self, number: u16) {
        let mut old = self.time.load(Relaxed);
        loop {
            let new = old & !(u64::MAX << SERIES_SHIFT) | u64::from(number) << SERIES_SHIFT;
            match self.time.compare_exchange(old, new, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(now) => old = now,
            }
        }
    }

    /// Continues from the values of the same tool in another table.
    pub(super) fn restore(&self, tally: &Tally) {
        self.by_class.iter().zip(tally.by_class).for_each(|(word, count)| word.store(count, Relaxed));
        self.bytes.store(tally.bytes, Relaxed);
        self.time.store(tally.milliseconds, Relaxed);
    }

    /// The current owner, for [`Self::add`].
    pub fn ticket(&self) -> u64 {
        self.owner()
    }

    /// All values, not read atomically as a whole.
    pub fn tally(&self) -> Tally {
        Tally {
            by_class: std::array::from_fn(|i| self.by_class.get(i).map_or(0, |w| w.load(Relaxed))),
            bytes: self.bytes.load(Relaxed),
            milliseconds: self.time.load(Relaxed) & !(u64::MAX << SERIES_SHIFT),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_status_belongs_to_the_class_of_its_hundred() {
        use StatusClass::{ClientError, Informational, Redirection, ServerError, Success};
        for (class, statuses) in [
            (Informational, [100, 199]),
            (Success, [200, 299]),
            (Redirection, [300, 399]),
            (ClientError, [400, 499]),
            (ServerError, [500, 999]),
        ] {
            assert_eq!(statuses.map(StatusClass::of), [class; 2]);
        }
    }

    #[test]
    fn requests_of_a_former_owner_are_not_counted() {
        let line = Counters::new();
        line.assign(7);
        let ticket = line.ticket();
        line.add(ticket, StatusClass::of(204), 10, 3);
        line.assign(8);
        line.add(ticket, StatusClass::of(500), 10, 3);
        assert_eq!(line.tally(), Tally::default());
        line.add(8, StatusClass::of(302), 5, 1);
        assert_eq!(line.tally(), Tally { by_class: [0, 0, 1, 0, 0], bytes: 5, milliseconds: 1 });
    }

    #[test]
    fn a_line_names_its_series_until_it_is_reassigned() {
        let line = Counters::new();
        line.assign(7);
        assert_eq!(line.add(7, StatusClass::Success, 1, 1 << 20), 0);
        line.set_series(1000);
        assert_eq!((line.add(7, StatusClass::Success, 1, 1), line.tally().milliseconds), (1000, (1 << 20) + 1));
        line.set_series(0);
        assert_eq!(line.add(7, StatusClass::Success, 1, 0), 0);
        line.set_series(u16::MAX);
        assert_eq!((line.add(8, StatusClass::Success, 1, 0), line.tally().milliseconds), (0, (1 << 20) + 1));
        line.assign(8);
        assert_eq!(line.add(8, StatusClass::Success, 1, 0), 0);
    }
}
