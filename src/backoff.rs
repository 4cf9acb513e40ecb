//! Exponential backoff with jitter.

use std::time::Duration;

use fastrand::Rng;

/// The delays between retries.
///
/// Each delay is uniformly distributed over the upper half of a span; the span doubles from `first` to `longest`. So a fleet that
/// lost its Redis does not reconnect all at once, and delays within the fleet differ by a factor of two at most.
#[derive(Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    span: Duration,
    random: Rng,
}

impl Backoff {
    /// A backoff seeded by the system: the first delay is at most `first`, no delay exceeds `longest`.
    pub fn between(first: Duration, longest: Duration) -> Self {
        Self::with_random(first, longest, Rng::new())
    }

    fn with_random(first: Duration, longest: Duration, random: Rng) -> Self {
        Self { first, longest, span: first, random }
    }

    /// The next delay, between half of the span and all of it; doubles the span.
    pub fn next_delay(&mut self) -> Duration {
        let half = self.span / 2;
        let delay = half + half.mul_f64(self.random.f64());
        self.span = (self.span * 2).min(self.longest);
        delay
    }

    /// Starts over after a success.
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
    fn spans_double_up_to_the_longest() {
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
    fn equal_seeds_give_equal_delays() {
        let delays = |seed| {
            let mut backoff = seeded(seed);
            [(); 8].map(|()| backoff.next_delay())
        };
        assert_eq!(delays(42), delays(42));
        assert_ne!(delays(42), delays(44));
    }

    #[test]
    fn delays_fill_the_upper_half_of_the_span() {
        let delays: Vec<_> = (0..1000).map(|seed| seeded(seed).next_delay()).collect();
        assert!(delays.iter().min() < Some(&Duration::from_millis(30)));
        assert!(delays.iter().max() > Some(&Duration::from_millis(45)));
    }
}
