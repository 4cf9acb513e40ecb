//! Time is tokio's, and stands still but for who waits for it.

mod server;
mod weather;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use axum::http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::*;
use server::{Fault, Server, Way};

const SECOND: Duration = Duration::from_secs(1);
/// Long enough for anything that is meant to happen.
const LONG: Duration = Duration::from_secs(3600);

/// One that takes part.
struct Part {
    leadership: watch::Receiver<Leadership>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Part {
    fn with_timing(
        server: &Server,
        identity: &str,
        timing: Timing,
        way: impl FnMut(&Method) -> Way + Clone + Send + Sync + 'static,
    ) -> Self {
        let (leader, leadership) = watch::channel(Leadership::Standby);
        let (stop, stopping) = watch::channel(false);
        let server = server.clone();
        let client_of = move || Ok(server.client(way.clone()));
        let name = "urlproxy/kube2proxy".parse().unwrap();
        let task = tokio::spawn(take_part(client_of, name, identity.to_owned(), timing, leader, stopping));
        Self { leadership, stop, task }
    }

    fn new(server: &Server, identity: &str, way: impl FnMut(&Method) -> Way + Clone + Send + Sync + 'static) -> Self {
        Self::with_timing(server, identity, Timing::default(), way)
    }

    /// One whose requests are all answered at once.
    fn start(server: &Server, identity: &str) -> Self {
        Self::new(server, identity, |_| Way::default())
    }

    fn leads(&self) -> bool {
        matches!(*self.leadership.borrow(), Leadership::Leading { until } if until > Instant::now())
    }

    /// Waits until it leads, and returns how long.
    async fn wait_to_lead(&mut self) -> Duration {
        let begun = Instant::now();
        let leads = self.leadership.wait_for(|leadership| *leadership != Leadership::Standby);
        timeout(LONG, leads).await.expect("it leads some time").unwrap();
        begun.elapsed()
    }

    /// Waits until it leads no more, and returns how long.
    async fn wait_to_stand_by(&mut self) -> Duration {
        let begun = Instant::now();
        let stands_by = self.leadership.wait_for(|leadership| *leadership == Leadership::Standby);
        timeout(LONG, stands_by).await.expect("it stands by some time").unwrap();
        begun.elapsed()
    }

    async fn stop(self) -> Duration {
        let begun = Instant::now();
        self.stop.send(true).unwrap();
        timeout(LONG, self.task).await.expect("it ends").unwrap();
        begun.elapsed()
    }
}

fn lease(holder: &str, duration: i32, renewed: &str) -> Value {
    json!({"metadata": {}, "spec": {
        "holderIdentity": holder,
        "leaseDurationSeconds": duration,
        "leaseTransitions": 7,
        "acquireTime": "2001-02-03T04:05:06.000000Z",
        "renewTime": renewed,
    }})
}

/// Of another machine, whose clock may be wrong.
fn anothers() -> Value {
    lease("another", 15, "2001-02-03T04:05:06.000000Z")
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_created_and_renewed() {
    let server = Server::default();
    let mut part = Part::start(&server, "one");
    let begun = Instant::now();
    part.wait_to_lead().await;
    assert_eq!(*part.leadership.borrow(), Leadership::Leading { until: begun + 10 * SECOND });
    assert_eq!((server.holder().as_str(), server.spec("leaseDurationSeconds")), ("one", json!(15)));
    assert_eq!(server.spec("leaseTransitions"), 0);
    let (acquired, renewed) = (server.spec("acquireTime"), server.spec("renewTime"));
    assert_eq!(acquired, renewed);
    sleep(61 * SECOND).await;
    assert!(part.leads());
    assert_eq!(server.count(&Method::PUT, 200), 20, "one renewal in 3 s");
    assert_eq!((server.count(&Method::GET, 404), server.count(&Method::GET, 200)), (1, 0));
    assert_eq!(server.spec("acquireTime"), acquired);
    assert_ne!(server.spec("renewTime"), renewed);
    assert_eq!(server.spec("leaseTransitions"), 0);
}

#[tokio::test(start_paused = true)]
async fn anothers_is_taken_only_after_its_silence_whatever_clocks_show() {
    for renewed in ["1970-01-01T00:00:00.000000Z", "2001-02-03T04:05:06.000000Z", "2999-12-31T23:59:59.999999Z"] {
        let server = Server::with(lease("another", 15, renewed));
        let mut part = Part::start(&server, "one");
        for _ in 0..100 {
            sleep(3 * SECOND).await;
            assert!(!part.leads(), "it is alive");
            server.put(lease("another", 15, renewed));
        }
        let waited = part.wait_to_lead().await;
        assert!((15 * SECOND..19 * SECOND).contains(&waited), "{waited:?}");
        assert_eq!((server.holder().as_str(), server.spec("leaseTransitions")), ("one", json!(8)));
        assert_ne!(server.spec("acquireTime"), "2001-02-03T04:05:06.000000Z");
    }
}

#[tokio::test(start_paused = true)]
async fn each_lease_says_its_own_duration() {
    for (duration, seconds) in [(1, 1), (40, 40), (3000, 3000), (0, 15), (-1, 15), (i32::MIN, 15)] {
        let server = Server::with(lease("another", duration, "2001-02-03T04:05:06.000000Z"));
        let waited = Part::start(&server, "one").wait_to_lead().await;
        assert!((seconds * SECOND..(seconds + 1) * SECOND).contains(&waited), "{duration}: {waited:?}");
        assert_eq!(server.spec("leaseDurationSeconds"), 15);
    }
    let server = Server::with(lease("another", i32::MAX, "2001-02-03T04:05:06.000000Z"));
    let part = Part::start(&server, "one");
    sleep(LONG).await;
    assert!(!part.leads());
}

#[tokio::test(start_paused = true)]
async fn a_lease_without_a_holder_is_free_at_once() {
    for free in [json!({}), json!({"spec": null}), json!({"spec": {}}), lease("", 15, "2001-02-03T04:05:06.000000Z")] {
        let server = Server::with(free.clone());
        assert_eq!(Part::start(&server, "one").wait_to_lead().await, Duration::ZERO, "{free}");
    }
}

#[tokio::test(start_paused = true)]
async fn strange_leases_are_waited_for_or_replaced() {
    for (strange, transitions) in [
        (json!({"spec": {"holderIdentity": "\u{1b}[2J\n\0\u{202e}"}}), 1),
        (json!({"spec": {"holderIdentity": "x".repeat(100_000), "leaseTransitions": -5}}), 1),
        (json!({"spec": {"holderIdentity": "x", "leaseTransitions": i32::MAX}}), i32::MAX),
        (json!({"spec": {"holderIdentity": "x", "strategy": "?", "preferredHolder": "y", "more": [1]}}), 1),
    ] {
        let server = Server::with(strange);
        let waited = Part::start(&server, "one").wait_to_lead().await;
        assert!((15 * SECOND..16 * SECOND).contains(&waited), "{waited:?}");
        assert_eq!(server.spec("leaseTransitions"), transitions);
    }
    for wrong in [
        json!({"metadata": {"resourceVersion": ""}, "spec": {}}),
        json!({"spec": {"holderIdentity": 5}}),
        json!({"spec": {"renewTime": "soon"}}),
        json!({"spec": {"leaseDurationSeconds": 99_999_999_999_u64}}),
        json!({"spec": []}),
    ] {
        let server = Server::with(wrong.clone());
        let mut part = Part::start(&server, "one");
        sleep(60 * SECOND).await;
        assert!(!part.leads() && !part.task.is_finished(), "{wrong}");
        assert_eq!(server.count(&Method::PUT, 200), 0, "{wrong}");
        server.put(json!({}));
        part.wait_to_lead().await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_was_slower_stands_by() {
    // Free when it is read; somebody else's when it is to be taken.
    for free in [None, Some(json!({}))] {
        let server = free.map_or_else(Server::default, Server::with);
        let others = server.clone();
        let part = Part::new(&server, "one", move |method| {
            if [Method::PUT, Method::POST].contains(method) {
                others.put(anothers());
            }
            Way::default()
        });
        sleep(10 * SECOND).await;
        assert!(!part.leads());
        assert_eq!(server.holder(), "another");
        assert_eq!(server.count(&Method::PUT, 409) + server.count(&Method::POST, 409), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_keeps_what_others_only_touch_and_leaves_what_they_take() {
    let server = Server::default();
    let mut part = Part::start(&server, "one");
    part.wait_to_lead().await;
    // As `kubectl label` does.
    server.put(lease("one", 15, "2001-02-03T04:05:06.000000Z"));
    sleep(4 * SECOND).await;
    assert!(part.leads());
    assert_eq!((server.count(&Method::PUT, 409), server.spec("leaseTransitions")), (1, json!(7)));

    server.delete();
    sleep(4 * SECOND).await;
    assert!(part.leads());
    assert_eq!(server.holder(), "one");

    server.put(anothers());
    let led = part.wait_to_stand_by().await;
    assert!(led <= 3 * SECOND, "noticed at the next renewal: {led:?}");
    assert!(part.wait_to_lead().await >= 15 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn who_held_what_was_deleted_is_given_its_time() {
    let server = Server::with(anothers());
    let mut part = Part::start(&server, "one");
    sleep(4 * SECOND).await;
    server.delete();
    let waited = part.wait_to_lead().await;
    assert!(waited >= 15 * SECOND, "{waited:?}");
    assert_eq!(server.count(&Method::POST, 201), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_has_stopped_when_another_takes_over() {
    for fault in [Fault::Hang, Fault::Refused, Fault::Status(500), Fault::Status(401), Fault::Status(429)] {
        let server = Server::default();
        let cut_off = Arc::new(AtomicBool::new(false));
        let is_cut_off = Arc::clone(&cut_off);
        let mut one =
            Part::new(&server, "one", move |_| if is_cut_off.load(Relaxed) { fault.into() } else { Way::default() });
        one.wait_to_lead().await;
        let mut two = Part::start(&server, "two");
        sleep(10 * SECOND).await;
        cut_off.store(true, Relaxed);
        let began = Instant::now();
        let led = one.wait_to_stand_by().await;
        assert!((7 * SECOND..=10 * SECOND).contains(&led), "{fault:?}: {led:?}");
        assert!(!two.leads());
        two.wait_to_lead().await;
        let passed = began.elapsed();
        assert!((12 * SECOND..19 * SECOND).contains(&passed), "{fault:?}: {passed:?}");
        assert_eq!((server.holder().as_str(), server.spec("leaseTransitions")), ("two", json!(1)));

        cut_off.store(false, Relaxed);
        sleep(60 * SECOND).await;
        assert!(two.leads() && !one.leads());
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_survives_a_few_lost_answers() {
    let server = Server::default();
    let requests = Arc::new(AtomicUsize::new(0));
    let lossy = move |_: &Method| {
        let is_lost = requests.fetch_add(1, Relaxed) % 3 == 2;
        Way { back: SECOND / 10, fault: is_lost.then_some(Fault::Lost), ..Way::default() }
    };
    let mut part = Part::new(&server, "one", lossy);
    part.wait_to_lead().await;
    let mut led_on = part.leadership.clone();
    let standby = led_on.wait_for(|leadership| *leadership == Leadership::Standby);
    assert!(timeout(600 * SECOND, standby).await.is_err(), "it leads on");
    assert_eq!(server.spec("leaseTransitions"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_end_of_what_is_led_counts_from_before_the_request() {
    let server = Server::default();
    let slow = |_: &Method| Way { there: SECOND, back: 2 * SECOND, fault: None };
    let mut part = Part::new(&server, "one", slow);
    let begun = Instant::now();
    part.wait_to_lead().await;
    // Read within 3 s, created within 3 s more.
    assert_eq!(begun.elapsed(), 6 * SECOND);
    assert_eq!(*part.leadership.borrow(), Leadership::Leading { until: begun + 3 * SECOND + 10 * SECOND });
    sleep(60 * SECOND).await;
    assert!(part.leads(), "slow is no reason");
}

#[tokio::test(start_paused = true)]
async fn who_stops_gives_the_lease_back() {
    let server = Server::default();
    let mut one = Part::start(&server, "one");
    one.wait_to_lead().await;
    let mut two = Part::start(&server, "two");
    sleep(20 * SECOND).await;
    assert!(one.leads() && !two.leads());
    let leadership = one.leadership.clone();
    assert_eq!(one.stop().await, Duration::ZERO);
    assert_eq!(*leadership.borrow(), Leadership::Standby);
    assert_eq!(server.holder(), "");
    let waited = two.wait_to_lead().await;
    assert!(waited <= 3 * SECOND, "{waited:?}");
    assert_eq!(server.spec("leaseTransitions"), 1);

    // What is another's is not touched, nor asked for.
    let three = Part::start(&server, "three");
    sleep(20 * SECOND).await;
    three.stop().await;
    assert_eq!(server.holder(), "two");
}

#[tokio::test(start_paused = true)]
async fn what_may_have_been_taken_unheard_is_given_back_too() {
    let server = Server::default();
    let lost = |method: &Method| if *method == Method::POST { Fault::Lost.into() } else { Way::default() };
    let one = Part::new(&server, "one", lost);
    sleep(SECOND).await;
    assert_eq!((server.holder().as_str(), one.leads()), ("one", false));
    one.stop().await;
    assert_eq!(server.holder(), "");
}

#[tokio::test(start_paused = true)]
async fn the_end_comes_also_when_nobody_answers() {
    let server = Server::default();
    let cut_off = Arc::new(AtomicBool::new(false));
    let is_cut_off = Arc::clone(&cut_off);
    let way = move |_: &Method| if is_cut_off.load(Relaxed) { Fault::Hang.into() } else { Way::default() };
    let mut one = Part::new(&server, "one", way.clone());
    one.wait_to_lead().await;
    cut_off.store(true, Relaxed);
    assert!(one.stop().await < 4 * SECOND);
    assert_eq!(Part::new(&server, "two", way).stop().await, Duration::ZERO);
}
