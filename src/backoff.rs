//! How long to wait before the next attempt: doubling, bounded, and never in step with others that wait too.

use std::time::Duration;

use fastrand::Rng;

/// The waits between attempts at one thing.
///
/// Each is drawn evenly from the upper half of a span that doubles from the first to the longest: a fleet that lost the
/// same Redis does not come back to it in one instant, and no single one waits much less or more than the others.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    span: Duration,
    random: Rng,
}

impl Backoff {
    /// A back-off at its beginning, seeded by the system: the first wait is at most `first`, none longer than `longest`.
    pub fn between(first: Duration, longest: Duration) -> Self {
        Self::with_random(first, longest, Rng::new())
    }

    fn with_random(first: Duration, longest: Duration, random: Rng) -> Self {
        Self { first, longest, span: first, random }
    }

    /// How long to wait now: between half of the span and all of it. The next span is twice as long.
    pub fn next_delay(&mut self) -> Duration {
        let half = self.span / 2;
        let delay = half + half.mul_f64(self.random.f64());
        self.span = (self.span * 2).min(self.longest);
        delay
    }

    /// Starts over: the attempt succeeded.
    pub fn reset(&mut self) {
        self.span = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeded(seed: u64) -> Backoff {
        Backoff::with_random(Duration::from_millis(50), Duration::from_secs(1), Rng::with_seed(seed))
    }

    #[test]
    fn delays_double_within_their_half_up_to_the_longest() {
        for seed in 0..1000 {
            let mut backoff = seeded(seed);
            for span in [50, 100, 200, 400, 800, 1000, 1000, 1000] {
                let (delay, span) = (backoff.next_delay(), Duration::from_millis(span));
                assert!(span / 2 <= delay && delay <= span, "seed {seed}: {delay:?} of {span:?}");
            }
        }
    }

    #[test]
    fn reset_starts_over() {
        let mut backoff = seeded(7);
        for _ in 0..10 {
            backoff.next_delay();
        }
        backoff.reset();
        assert!(backoff.next_delay() <= Duration::from_millis(50));
    }

    #[test]
    fn the_seed_decides_the_delays() {
        let delays = |seed| {
            let mut backoff = seeded(seed);
            [(); 8].map(|()| backoff.next_delay())
        };
        assert_eq!(delays(42), delays(42));
        assert_ne!(delays(42), delays(44));
    }

    #[test]
    fn delays_fill_their_half() {
        let delays: Vec<_> = (0..1000).map(|seed| seeded(seed).next_delay()).collect();
        assert!(delays.iter().min() < Some(&Duration::from_millis(30)));
        assert!(delays.iter().max() > Some(&Duration::from_millis(45)));
    }
}
