//! Paces full scans: when the server is busy, they give way to writers, to pushes and to each other.
//!
//! All proxies lose their connections when Redis restarts, and then all compare everything at once. Each page of such a scan waits in
//! the server's queue behind the pages of all others, and so does every write and every fetch of a pushed change. A scan knows nothing
//! of the others, but it sees how much longer a page takes than its quickest one, and then stays away for nine times as long. So a tenth of the
//! scans at most is in the queue, however many there are; a server that is not busy is not waited for.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::builder::cpu_time;

/// A delay that is not regarded as a queue.
const TOLERANCE: Duration = Duration::from_millis(2);
/// Pause per time in the queue.
const SHARE: u32 = 9;
/// Pages of 500 keys that a usual site has, and the longest pause after each. So its proxies pause for 1.6 s at most, whatever makes
/// the answers slow: changes are served within two seconds of a new master.
const USUAL_PAGES: u32 = 8;
const SHORT_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause after a later page.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause of a scan in total: after a new connection, only a complete scan proves that the routes are current, and a site
/// of a million tools would otherwise exceed `ready_max_age`.
const LONGEST_IN_TOTAL: Duration = Duration::from_mins(5);
/// Longest time between two pings during a scan: they notice a master that is none any more.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// The pace of one scan.
#[derive(Debug)]
pub(super) struct Pace {
    random: Rng,
    /// When the last page was asked for, and the processor time of this thread until then.
    asked: (Instant, Duration),
    /// The time that the last page took, without the processor time of this thread.
    waited: Duration,
    /// The least such time in this scan.
    quickest: Option<Duration>,
    pages: u32,
    /// What is left of [`LONGEST_IN_TOTAL`].
    left: Duration,
    pinged_at: Instant,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self::with_random(Rng::new())
    }

    fn with_random(random: Rng) -> Self {
        let now = Instant::now();
        let (asked, waited, left) = ((now, cpu_time()), Duration::ZERO, LONGEST_IN_TOTAL);
        Self { random, asked, waited, quickest: None, pages: 0, left, pinged_at: now }
    }

    /// A page is asked for.
    pub(super) fn ask(&mut self) {
        self.asked = (Instant::now(), cpu_time());
    }

    /// The page is received.
    pub(super) fn answered(&mut self) {
        let (begun, worked) = self.asked;
        self.waited = begun.elapsed().saturating_sub(cpu_time().saturating_sub(worked));
    }

    /// How long to stay away after the last page.
    pub(super) fn pause(&mut self) -> Duration {
        self.pause_after(self.waited)
    }

    /// Whether a ping is due, once in each interval.
    pub(super) fn is_ping_due(&mut self) -> bool {
        let is_due = self.pinged_at.elapsed() >= PING_INTERVAL;
        if is_due {
            self.pinged_at = Instant::now();
        }
        is_due
    }

    /// How long to stay away after a page that took so long.
    fn pause_after(&mut self, waited: Duration) -> Duration {
        let quickest = self.quickest.map_or(waited, |quickest| quickest.min(waited));
        self.quickest = Some(quickest);
        let queued = waited.saturating_sub(quickest + TOLERANCE);
        self.pages += 1;
        let longest = if self.pages <= USUAL_PAGES { SHORT_PAUSE } else { LONGEST_PAUSE };
        // Pauses of the same length would bring all scans back together.
        let pause = (queued * SHARE).mul_f64(0.5 + self.random.f64()).min(longest).min(self.left);
        self.left -= pause;
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    fn seeded(seed: u64) -> Pace {
        Pace::with_random(Rng::with_seed(seed))
    }

    const fn micros(time: u64) -> Duration {
        Duration::from_micros(time)
    }

    #[test]
    fn a_server_that_is_not_busy_is_not_waited_for() {
        // The network is slow, the server is not; answers differ by less than the tolerance.
        for quickest in [100, 20_000, 300_000] {
            let mut pace = seeded(1);
            let times = [1_900, 0, 500, 1_900, 30].map(|more| micros(quickest + more));
            assert_eq!(times.map(|waited| pace.pause_after(waited)), [Duration::ZERO; 5], "{quickest}");
        }
    }

    #[test]
    fn a_queue_is_given_way_to_in_proportion() {
        for seed in 0..1000 {
            let mut pace = seeded(seed);
            assert_eq!(pace.pause_after(micros(1_000)), Duration::ZERO);
            for queued in [1_000, 5_000, 10_000] {
                let pause = pace.pause_after(micros(1_000 + 2_000 + queued));
                let mean = micros(queued) * 9;
                assert!(mean / 2 <= pause && pause <= mean * 3 / 2, "{seed}: {pause:?} for {queued}");
            }
            assert_eq!(pace.pause_after(micros(3_000)), Duration::ZERO, "the queue is empty again");
        }
    }

    #[test]
    fn pauses_of_a_usual_site_are_bounded() {
        let mut pace = seeded(1);
        let mut pauses = [1, 60_000_000].into_iter().cycle().map(|waited| pace.pause_after(micros(waited)));
        let usual: Duration = pauses.by_ref().take(8).sum();
        assert!(usual <= Duration::from_secs(1), "{usual:?}");
        assert_eq!(pauses.nth(1), Some(LONGEST_PAUSE));
    }

    #[test]
    fn pauses_of_a_large_site_are_bounded() {
        let mut pace = seeded(1);
        let pauses = [1, 60_000_000].into_iter().cycle().map(|waited| pace.pause_after(micros(waited)));
        assert_eq!(pauses.take(20_000).sum::<Duration>(), LONGEST_IN_TOTAL);
    }

    /// The time of Redis for a page of 500 tools, as measured.
    const PAGE: Duration = micros(350);
    /// Time of the network, and of a companion to apply a page.
    const AWAY: Duration = micros(1_500);

    /// What scans of one server in turn take: until the last one is done, and how long a command waits, median and most.
    #[derive(Debug)]
    struct Outcome {
        last: Duration,
        median: Duration,
        most: Duration,
    }

    /// All scans begin within 50 ms. The server answers in order of arrival.
    fn simulate(scans: u64, pages: u64, is_paced: bool) -> Outcome {
        let mut random = Rng::with_seed(scans);
        let mut arrivals: BinaryHeap<_> =
            (0..scans).map(|scan| Reverse((micros(random.u64(..50_000)), scan))).collect();
        let mut states: Vec<_> = (0..scans).map(|scan| (seeded(scan), pages)).collect();
        // When the server has answered all that has arrived, and when a command next asks how long that is.
        let (mut free, mut last, mut probe) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let mut waits = Vec::new();
        while let Some(Reverse((now, scan))) = arrivals.pop() {
            while probe <= now {
                waits.push(free.saturating_sub(probe));
                probe += Duration::from_millis(2);
            }
            free = free.max(now) + PAGE;
            last = last.max(free);
            let (pace, left) = &mut states[scan as usize];
            *left -= 1;
            let pause = pace.pause_after(free - now);
            if *left > 0 {
                arrivals.push(Reverse((free + AWAY + if is_paced { pause } else { Duration::ZERO }, scan)));
            }
        }
        waits.sort_unstable();
        Outcome { last, median: waits[waits.len() / 2], most: waits[waits.len() - 1] }
    }

    #[test]
    fn many_scans_leave_the_server_to_others_and_take_hardly_longer() {
        for (scans, pages) in [(1, 6), (5, 6), (5, 200)] {
            let (paced, unpaced) = (simulate(scans, pages, true), simulate(scans, pages, false));
            assert_eq!(paced.last, unpaced.last, "a few are not delayed");
        }
        for (scans, pages) in [(100, 6), (100, 40), (100, 200), (1_000, 6), (1_000, 40), (1_000, 200)] {
            let (paced, unpaced) = (simulate(scans, pages, true), simulate(scans, pages, false));
            println!("{scans} scans of {pages} pages: {paced:?}, without a pace {unpaced:?}");
            // Short pauses leave some more of a thousand scans in the queue.
            let (least, most) = if pages == 6 { (3, 2) } else { (4, 1) };
            assert!(paced.median * least <= unpaced.median * most, "{scans}, {pages}: {paced:?}, {unpaced:?}");
            assert!(paced.most <= unpaced.most, "{scans}, {pages}: {paced:?}, {unpaced:?}");
            // The server is busy all the time until most are done; the last of few pages may pause while no other scan is left.
            let longer = if pages == 6 { LONGEST_PAUSE } else { unpaced.last / 20 };
            assert!(paced.last <= unpaced.last + longer, "{scans}, {pages}: {paced:?}, {unpaced:?}");
        }
    }
}
