//! The accepted number of something, and whether a lower one is plausible: a truncated list looks the same as a site that is down.

use serde::{Deserialize, Serialize};

use crate::withdrawal_guard::Loss;

/// A drop by more than this share is suspect, from an accepted number of at least `FLOOR`.
const PERCENT: u8 = 50;
const FLOOR: u64 = 20;
/// A suspect number is accepted after this many more rounds with the same.
const STABLE_ROUNDS: u32 = 3;

/// The highest accepted number counts for this many rounds, so that a fall in small steps is suspect too.
const HIGH_ROUNDS: u32 = 30;

/// The highest number accepted recently, and a suspect one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Baseline {
    #[serde(rename = "believed")]
    accepted: Option<u64>,
    /// Rounds since the number was as high.
    #[serde(default)]
    rounds: u32,
    #[serde(rename = "doubted", default, skip_serializing_if = "Option::is_none")]
    suspect: Option<Suspect>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Suspect {
    count: u64,
    rounds: u32,
}

impl Baseline {
    /// Judges a round's number. Returns the accepted number if this one is suspect. Without a history, `expected` is the
    /// accepted number.
    pub fn judge(&mut self, count: u64, expected: u64) -> Option<u64> {
        let before = self.accepted.unwrap_or(expected);
        if (Loss { missing: before.saturating_sub(count), live: before }).is_mass(PERCENT, FLOOR) {
            let rounds = match self.suspect {
                // A number that still rises or falls has not settled.
                Some(suspect) if suspect.count.abs_diff(count) <= suspect.count / 10 => {
                    suspect.rounds.saturating_add(1)
                }
                _ => 0,
            };
            if rounds < STABLE_ROUNDS {
                self.accepted = Some(before);
                self.suspect = Some(Suspect { count, rounds });
                return Some(before);
            }
            self.accept(count);
        }
        self.suspect = None;
        if self.accepted.is_none_or(|most| count >= most) || self.rounds >= HIGH_ROUNDS {
            self.accept(count);
        } else {
            self.rounds += 1;
        }
        None
    }

    /// Accepts a number, however low.
    pub fn accept(&mut self, count: u64) {
        *self = Self { accepted: Some(count), rounds: 0, suspect: None };
    }

    /// A round had no number: a suspect one must be seen again from the start.
    pub fn interrupt(&mut self) {
        self.suspect = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(counts: &[u64]) -> Vec<bool> {
        let mut baseline = Baseline::default();
        counts.iter().map(|&count| baseline.judge(count, 0).is_none()).collect()
    }

    #[test]
    fn loss_of_more_than_half_of_twenty_is_suspect() {
        for (counts, is_accepted) in [
            ([20, 10], true),
            ([20, 9], false),
            ([19, 0], true),
            ([20, 0], false),
            ([3000, 1499], false),
            ([3000, 1500], true),
            ([10, 3000], true),
        ] {
            assert_eq!(after(&counts), [true, is_accepted], "{counts:?}");
        }
    }

    #[test]
    fn drop_is_accepted_after_three_more_rounds() {
        assert_eq!(after(&[100, 5, 5, 5, 5, 5]), [true, false, false, false, true, true]);
        assert_eq!(after(&[100, 40, 5, 5, 5, 5]), [true, false, false, false, false, true], "it still falls");
        assert_eq!(after(&[100, 5, 10, 20, 40, 60]), [true, false, false, false, false, true], "it still rises");
        assert_eq!(after(&[100, 50, 49, 25]), [true, true, false, false], "step by step");
        assert_eq!(after(&[100, 5, 5, 100, 5, 5, 5, 5]), [true, false, false, true, false, false, false, true]);
    }

    #[test]
    fn round_without_a_number_starts_over() {
        let mut baseline = Baseline::default();
        baseline.accept(100);
        for _ in 0..10 {
            assert_eq!(baseline.judge(5, 0), Some(100));
            assert_eq!(baseline.judge(5, 0), Some(100));
            baseline.interrupt();
        }
    }

    #[test]
    fn numbers_of_a_damaged_history_do_not_overflow() {
        let (most, rounds) = (u64::MAX, u32::MAX);
        let stored = format!(r#"{{"believed":{most},"rounds":{rounds},"doubted":{{"count":19,"rounds":{rounds}}}}}"#);
        for (count, is_accepted) in [(0, false), (19, true), (most / 2, false), (most / 2 + 1, true), (most, true)] {
            let mut baseline: Baseline = serde_json::from_str(&stored).unwrap();
            assert_eq!(baseline.judge(count, 0).is_none(), is_accepted, "{count}");
        }
    }

    #[test]
    fn expected_number_replaces_a_missing_history() {
        let mut baseline = Baseline::default();
        let judged: Vec<_> = (0..4).map(|_| baseline.judge(9, 20).is_none()).collect();
        assert_eq!(judged, [false, false, false, true]);
        assert_eq!(Baseline::default().judge(9, 19), None);
    }
}
