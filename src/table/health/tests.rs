use super::*;
use proptest::prelude::*;

const SETTINGS: HealthSettings = HealthSettings { max_fails: 2, fail_timeout: Duration::from_secs(10) };
const ONCE: HealthSettings = HealthSettings { max_fails: 1, ..SETTINGS };
const OWNER: u64 = 0x1234_5678_9abc_def0;

fn key(owner: u64, port: u16) -> HealthKey {
    HealthKey::new(owner, Scheme::Http, SocketAddr::from(([10, 0, 0, 1], port)))
}

fn lines(count: usize) -> Vec<HealthLine> {
    std::iter::repeat_with(HealthLine::new).take(count).collect()
}

#[test]
fn an_unavailable_backend_gets_one_request_per_fail_timeout() {
    let lines = lines(1);
    let health = Health::new(&lines);
    assert!(!health.failed(key(OWNER, 1), 100, SETTINGS));
    assert!(health.admits(key(OWNER, 1), 100, SETTINGS));
    assert!(health.failed(key(OWNER, 1), 105, SETTINGS));
    let admitted: Vec<_> = (105..140).filter(|&now| health.admits(key(OWNER, 1), now, SETTINGS)).collect();
    assert_eq!(admitted, [116, 127, 138]);
    assert!(health.admits(key(OWNER, 2), 105, SETTINGS));
}

#[test]
fn availability_says_when_the_next_probe_is_due() {
    let lines = lines(1);
    let health = Health::new(&lines);
    let availability = |settings| health.availability(key(OWNER, 1), settings);
    assert_eq!(availability(SETTINGS), Availability::Up);
    health.failed(key(OWNER, 1), 100, SETTINGS);
    assert_eq!(availability(SETTINGS), Availability::Up, "one failure of two");
    health.failed(key(OWNER, 1), 105, SETTINGS);
    assert_eq!(availability(SETTINGS), Availability::Unavailable { until: 116 });
    assert!(!health.admits(key(OWNER, 1), 115, SETTINGS) && health.admits(key(OWNER, 1), 116, SETTINGS));
    assert_eq!(availability(SETTINGS), Availability::Unavailable { until: 127 }, "after the probe");
    health.answered(key(OWNER, 1));
    assert_eq!(availability(SETTINGS), Availability::Up);
}

#[test]
fn only_a_successful_probe_readmits() {
    let lines = lines(1);
    let health = Health::new(&lines);
    assert!(health.failed(key(OWNER, 1), 100, ONCE));
    health.answered(key(OWNER, 1));
    assert!(!health.admits(key(OWNER, 1), 101, ONCE), "an old request's answer");
    assert!(health.admits(key(OWNER, 1), 111, ONCE));
    assert!(!health.admits(key(OWNER, 1), 111, ONCE));
    health.answered(key(OWNER, 1));
    assert!(health.admits(key(OWNER, 1), 111, ONCE) && health.admits(key(OWNER, 1), 111, ONCE));
}

#[test]
fn records_and_schemes_are_independent() {
    let lines = lines(1);
    let health = Health::new(&lines);
    let addr = SocketAddr::from(([10, 0, 0, 1], 1));
    assert!(health.failed(HealthKey::new(OWNER, Scheme::Https, addr), 100, ONCE));
    assert!(health.admits(HealthKey::new(OWNER, Scheme::Http, addr), 100, ONCE));
    assert!(health.admits(HealthKey::new(OWNER + 1, Scheme::Https, addr), 100, ONCE));
    assert!(!health.admits(HealthKey::new(OWNER, Scheme::Https, addr), 100, ONCE));
}

#[test]
fn zero_max_fails_disables_the_check() {
    let lines = lines(1);
    let never = HealthSettings { max_fails: 0, ..SETTINGS };
    assert!(!Health::new(&lines).failed(key(1, 1), 1, never) && Health::new(&lines).admits(key(1, 1), 1, never));
}

#[test]
fn a_full_line_evicts_from_the_record_with_most_entries() {
    let lines = lines(1);
    let health = Health::new(&lines);
    assert!(health.failed(key(7, 1), 100, ONCE));
    for port in 1..=64 {
        assert!(health.failed(key(8, port), 100 + u32::from(port), ONCE));
    }
    assert!(!health.admits(key(7, 1), 105, ONCE), "the other record's entry is there");
    let kept = (1..=64).filter(|&port| {
        !health.admits(key(8, port), 164, HealthSettings { fail_timeout: Duration::from_secs(1000), ..ONCE })
    });
    assert_eq!(kept.collect::<Vec<_>>(), [62, 63, 64], "its own oldest were evicted");
}

#[test]
fn evictions_by_one_record_are_bounded_by_its_window() {
    let lines = lines(1024);
    let health = Health::new(&lines);
    let victims: Vec<_> = (0..500u64).map(|n| key(crate::route::key_hash(&n.to_le_bytes()), 1)).collect();
    assert!(victims.iter().all(|&victim| health.failed(victim, 100, ONCE)));
    // As many records as one project may have domains, each with the most backends.
    for record in 1000..1050u64 {
        let owner = crate::route::key_hash(&record.to_le_bytes());
        for port in 1..=crate::route::MAX_BACKENDS as u16 {
            health.failed(key(owner, port), 101, ONCE);
        }
    }
    let lost = victims.iter().filter(|&&victim| health.admits(victim, 102, ONCE)).count();
    assert!(lost <= 10, "{lost} of {}", victims.len());
}

#[test]
fn a_records_window_is_a_32nd_of_the_table_and_at_most_16_lines() {
    for (count, window) in [(1, 1), (63, 1), (64, 2), (128, 4), (512, 16), (4096, 16)] {
        let lines = lines(count);
        (1..=200).for_each(|port| assert!(Health::new(&lines).failed(key(OWNER, port), 100, ONCE)));
        let is_used = |line: &&HealthLine| line.0.iter().any(|entry| entry.key.load(Relaxed) != 0);
        assert_eq!(lines.iter().filter(is_used).count(), window, "{count}");
    }
}

#[test]
fn failures_of_an_evicted_backend_do_not_count_for_its_successor() {
    let lines = lines(1);
    let health = Health::new(&lines);
    let (former, successor) = (key(OWNER, 1), key(OWNER + 1, 2));
    assert!(!health.failed(former, 100, SETTINGS) && health.failed(former, 101, SETTINGS));
    // Another worker has just given the entry to the successor, and not counted its failure yet.
    let entry = health.find(former).unwrap();
    entry.key.store(successor.word(), Relaxed);
    assert!(health.admits(successor, 102, SETTINGS));
    assert_eq!(health.availability(successor, SETTINGS), Availability::Up);
    // Nor is the former backend's probe the successor's.
    let probe = State { probed: true, ..State::of(entry.state.load(Relaxed)) };
    entry.state.store(probe.word(), Relaxed);
    health.answered(successor);
    assert_eq!(State::of(entry.state.load(Relaxed)), probe);
    assert!(!health.failed(successor, 103, SETTINGS), "its first failure");
    assert!(health.failed(successor, 104, SETTINGS));
}

#[test]
fn eight_backends_per_record_are_all_remembered() {
    let lines = lines(1024);
    for owner in (0..100u64).map(|n| crate::route::key_hash(&n.to_le_bytes())) {
        let health = Health::new(&lines);
        (1..=8).for_each(|port| assert!(health.failed(key(owner, port), 100, ONCE)));
        assert!((1..=8).all(|port| !health.admits(key(owner, port), 101, ONCE)), "{owner:x}");
    }
}

#[test]
fn only_one_worker_gets_the_probe() {
    let lines = lines(1);
    let health = Health::new(&lines);
    for round in 1..200 {
        assert!(health.failed(key(OWNER, 1), round * 100, ONCE));
        let admitted = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let admitted_here = health.admits(key(OWNER, 1), round * 100 + 50, ONCE);
                    admitted.fetch_add(admitted_here.into(), Relaxed)
                });
            }
        });
        assert_eq!(admitted.into_inner(), 1);
    }
}

#[test]
fn states_round_trip() {
    let state = State { checked: u32::MAX - 1, tag: 0x7abc, probed: true, fails: 0xfedc };
    assert_eq!(State::of(state.word()), state);
    let state = State { checked: 1, tag: 0x1543, probed: false, fails: 1 };
    assert_eq!(State::of(state.word()), state);
}

/// `ngx_http_upstream_rr_peer_t` and its use by the round robin of nginx 1.22 to 1.28.
#[derive(Default)]
struct NginxPeer {
    fails: u32,
    accessed: u32,
    checked: u32,
}

impl NginxPeer {
    fn admits(&mut self, now: u32, settings: HealthSettings) -> bool {
        let (max_fails, fail_timeout) = (u32::from(settings.max_fails), settings.fail_timeout.as_secs() as u32);
        if max_fails > 0 && self.fails >= max_fails && now - self.checked <= fail_timeout {
            return false;
        }
        if now - self.checked > fail_timeout {
            self.checked = now;
        }
        true
    }

    fn free(&mut self, now: u32, is_failure: bool) {
        if is_failure {
            self.fails += 1;
            (self.accessed, self.checked) = (now, now);
        } else if self.accessed < self.checked {
            self.fails = 0;
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Wait(u32),
    Ask,
    Fail,
    Answer,
}

proptest! {
    #[test]
    fn it_admits_when_nginx_does(
        max_fails in 0..4u16,
        seconds in 1..4u64,
        events in proptest::collection::vec(
            prop_oneof![(0..6u32).prop_map(Event::Wait), Just(Event::Ask), Just(Event::Fail), Just(Event::Answer)], 0..200,
        ),
    ) {
        let settings = HealthSettings { max_fails, fail_timeout: Duration::from_secs(seconds) };
        let lines = lines(1);
        let (health, mut nginx) = (Health::new(&lines), NginxPeer::default());
        let (mut now, mut open) = (1000, 0);
        for event in events {
            match event {
                Event::Wait(seconds) => now += seconds,
                Event::Ask => {
                    let admits = nginx.admits(now, settings);
                    prop_assert_eq!(health.admits(key(OWNER, 1), now, settings), admits);
                    open += u32::from(admits);
                }
                // Requests end in any order: any open request may be the one that ends.
                Event::Fail if open > 0 => {
                    nginx.free(now, true);
                    health.failed(key(OWNER, 1), now, settings);
                    open -= 1;
                }
                Event::Answer if open > 0 => {
                    nginx.free(now, false);
                    health.answered(key(OWNER, 1));
                    open -= 1;
                }
                Event::Fail | Event::Answer => {}
            }
        }
    }
}
