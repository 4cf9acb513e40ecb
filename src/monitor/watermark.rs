//! How much there was, and whether so much less can be true: a list that lacks most looks the same as a site that is down.

use serde::{Deserialize, Serialize};

use crate::withdrawal_guard::Loss;

/// More than half may not go at once, and fewer than so many can all go.
const PERCENT: u8 = 50;
const FLOOR: u64 = 20;
/// For so many rounds after one that was too low, the same has to be seen.
const STABLE_ROUNDS: u32 = 3;

/// For so many rounds the most that was believed counts, so that nothing can fall step by step either.
const HIGH_ROUNDS: u32 = 30;

/// The most that was believed of late, and a number that is not believed yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watermark {
    believed: Option<u64>,
    /// Since it was as much.
    #[serde(default)]
    rounds: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    doubted: Option<Doubted>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Doubted {
    count: u64,
    rounds: u32,
}

impl Watermark {
    /// Judges what a round has counted: how many there were before, when it cannot be believed yet. Without a memory,
    /// `expected` stands for what there was.
    pub fn judge(&mut self, count: u64, expected: u64) -> Option<u64> {
        let before = self.believed.unwrap_or(expected);
        if (Loss { missing: before.saturating_sub(count), live: before }).is_mass(PERCENT, FLOOR) {
            let rounds = match self.doubted {
                // What still rises is being filled, and what still falls has not reached its end.
                Some(doubted) if doubted.count.abs_diff(count) * 10 <= doubted.count => doubted.rounds + 1,
                _ => 0,
            };
            if rounds < STABLE_ROUNDS {
                self.believed = Some(before);
                self.doubted = Some(Doubted { count, rounds });
                return Some(before);
            }
            self.accept(count);
        }
        self.doubted = None;
        if self.believed.is_none_or(|most| count >= most) || self.rounds >= HIGH_ROUNDS {
            self.accept(count);
        } else {
            self.rounds += 1;
        }
        None
    }

    /// From now on that is what there is.
    pub fn accept(&mut self, count: u64) {
        *self = Self { believed: Some(count), rounds: 0, doubted: None };
    }

    /// A round could not count: what was doubted has to be seen anew.
    pub fn interrupt(&mut self) {
        self.doubted = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(counts: &[u64]) -> Vec<bool> {
        let mut watermark = Watermark::default();
        counts.iter().map(|&count| watermark.judge(count, 0).is_none()).collect()
    }

    #[test]
    fn fewer_than_half_of_twenty_is_doubted() {
        for (counts, is_believed) in [
            ([20, 10], true),
            ([20, 9], false),
            ([19, 0], true),
            ([20, 0], false),
            ([3000, 1499], false),
            ([3000, 1500], true),
            ([10, 3000], true),
        ] {
            assert_eq!(after(&counts), [true, is_believed], "{counts:?}");
        }
    }

    #[test]
    fn a_drop_is_believed_after_three_more_rounds_of_it() {
        assert_eq!(after(&[100, 5, 5, 5, 5, 5]), [true, false, false, false, true, true]);
        assert_eq!(after(&[100, 40, 5, 5, 5, 5]), [true, false, false, false, false, true], "it fell on");
        assert_eq!(after(&[100, 5, 10, 20, 40, 60]), [true, false, false, false, false, true], "it is being filled");
        assert_eq!(after(&[100, 50, 49, 25]), [true, true, false, false], "step by step");
        assert_eq!(after(&[100, 5, 5, 100, 5, 5, 5, 5]), [true, false, false, true, false, false, false, true]);
    }

    #[test]
    fn a_round_that_could_not_count_does_not_count() {
        let mut watermark = Watermark::default();
        watermark.accept(100);
        for _ in 0..10 {
            assert_eq!(watermark.judge(5, 0), Some(100));
            assert_eq!(watermark.judge(5, 0), Some(100));
            watermark.interrupt();
        }
    }

    #[test]
    fn without_a_memory_what_is_wanted_stands_for_it() {
        let mut watermark = Watermark::default();
        let judged: Vec<_> = (0..4).map(|_| watermark.judge(9, 20).is_none()).collect();
        assert_eq!(judged, [false, false, false, true]);
        assert_eq!(Watermark::default().judge(9, 19), None);
    }
}
