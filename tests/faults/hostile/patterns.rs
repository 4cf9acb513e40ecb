//! Patterns that are legal and as heavy as they can be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::churn::Lag;
use crate::report::Report;
use crate::site::{Plan, Site};
use crate::support::nginx::try_get;
use crate::support::redis::RedisServer;

use super::{FEW, SOON, Times, comes_true, processor_time, register, under_attack, wait_in_step, while_busy};

/// As many as a tool may have.
const PATTERNS: usize = 32;
/// The automaton has about 2 to this power states; each further one would be refused, by itself, from the beginning.
const HEAVIEST: usize = 11;
/// How long the attack goes on.
const ATTACK: Duration = Duration::from_secs(8);

/// A pattern that makes an automaton of `2^weight` states and matches [`match_of`] the same number alone.
fn heavy(weight: usize, number: usize) -> String {
    format!("[ab]*a[ab]{{{weight}}}{}$", tail(number))
}

fn match_of(weight: usize, number: usize) -> String {
    format!("a{}{}", "b".repeat(weight), tail(number))
}

/// A number below 128 in letters that the rest of the pattern does not have, always as long.
fn tail(number: usize) -> String {
    format!("{number:07b}").replace('0', "c").replace('1', "d")
}

/// Four tools whose patterns no cache of a worker holds all of; then the heaviest four whose patterns are all in use. A request
/// may take of the processor what a search takes, and not what a compilation does.
pub fn in_requests() -> Report {
    const TOOLS: usize = 4;
    /// A compilation of such patterns takes fifty times as long, a search a hundredth.
    const MOST: Duration = Duration::from_millis(5);
    const ENOUGH: usize = 400;
    let site = Site::with(RedisServer::start(&[]), Plan { zone: "16m", ..Plan::default() });
    let tool = |weight: usize, number: usize| format!("heavy{weight}-{number}");
    let weights = [HEAVIEST, 8, 6, 4, 3, 2, 1];
    for (weight, number) in weights.iter().flat_map(|weight| (0..TOOLS).map(move |number| (*weight, number))) {
        let patterns: Vec<_> = (0..PATTERNS).map(|n| heavy(weight, number * PATTERNS + n)).collect();
        register(&site.redis, &tool(weight, number), &patterns, &site.other_url());
    }
    wait_in_step(&site);
    // A pattern that was set aside matches nothing.
    let in_use = |weight: &usize| {
        (0..TOOLS).all(|number| {
            let path = |n: usize| format!("/{}/{}", tool(*weight, number), match_of(*weight, number * PATTERNS + n));
            (0..PATTERNS).all(|n| site.nginx.get(&path(n)).status == 200)
        })
    };
    let heaviest = weights.iter().copied().find(in_use);

    let port = site.nginx.port;
    let mut problems = Vec::new();
    let mut notes = Vec::new();
    for weight in [Some(HEAVIEST), heaviest.filter(|it| *it != HEAVIEST)].into_iter().flatten() {
        let turn = Arc::new(AtomicUsize::new(0));
        let turns = Arc::clone(&turn);
        let work = move |_| {
            // Each request is for the next tool.
            let number = turns.fetch_add(1, SeqCst) % TOOLS;
            let _ = try_get(port, &format!("/{}/{}!", tool(weight, number), "ab".repeat(100)), SOON);
        };
        let attack = || {
            thread::sleep(ATTACK);
            // So many that the innocent requests' part does not count.
            comes_true(ATTACK, || turn.load(SeqCst) >= ENOUGH);
        };
        let before = processor_time(&site);
        let (((), asked), note) = under_attack(&site, || while_busy(0..2, work, attack));
        let asked: u64 = asked.iter().sum();
        // Some of it was for the innocent requests.
        let each = (processor_time(&site) - before) / u32::try_from(asked.max(1)).unwrap_or(u32::MAX);
        notes.push(format!(
            "[ab]{{{weight}}}: {asked} requests of {:.1} ms of processor; {note}",
            each.as_secs_f64() * 1e3
        ));
        if each > MOST {
            problems.push(format!("a request at [ab]{{{weight}}} takes {each:?} of the processor"));
        }
    }
    let recovered = site.recovers();
    let report = site.finish(recovered, SOON, FEW).note(notes.join("; "));
    let report = report.expect(heaviest.is_some(), "no tool's patterns are all in use, so nothing was measured");
    problems.into_iter().fold(report, |report, problem| report.expect(false, problem))
}

/// Twenty tools exchange one of their 32 heavy patterns twice a second, ten others one of theirs that are light enough for
/// whatever limit there is. The change of an honest tool is not behind theirs.
pub fn in_registrations() -> Report {
    const EVERY: Duration = Duration::from_millis(500);
    const TOOLS: usize = 30;
    const ROUNDS: usize = (ATTACK.as_millis() / EVERY.as_millis()) as usize;
    /// What is set aside is told once for each change.
    const LINES: usize = FEW + 2 * TOOLS * ROUNDS;
    let site = Site::with(RedisServer::start(&[]), Plan { zone: "16m", ..Plan::default() });
    let url = site.other_url();
    let tools: Vec<_> =
        (0..TOOLS).map(|number| (format!("heavy{number}"), if number < 20 { HEAVIEST } else { 1 })).collect();
    for (tool, weight) in &tools {
        let patterns: Vec<_> = (0..PATTERNS).map(|n| heavy(*weight, n)).collect();
        register(&site.redis, tool, &patterns, &url);
    }
    wait_in_step(&site);
    let idle = lags_during(&site, || thread::sleep(Duration::from_secs(2)));

    let client = redis::Client::open(site.redis.url()).expect("an address");
    let attack = move || {
        let mut connection = client.get_connection().expect("a connection");
        let mut pipe = redis::pipe();
        let exchange = |round: usize| {
            pipe.clear();
            for (tool, weight) in &tools {
                let key = format!("prefix:{tool}");
                pipe.hdel(&key, heavy(*weight, round)).ignore();
                pipe.hset(&key, heavy(*weight, round + PATTERNS), &url).ignore();
            }
            pipe.query::<()>(&mut connection).expect("a change");
            thread::sleep(EVERY);
        };
        (0..ROUNDS).for_each(exchange);
    };
    let (lags, note) = under_attack(&site, || lags_during(&site, attack));
    let (idle, attacked, longest) = (Times::of(&idle), Times::of(&lags), lags[lags.len() - 1]);
    let recovered = site.recovers();
    site.finish(recovered, SOON, LINES)
        .note(format!(
            "median, p99 of {} honest changes: {attacked}, longest {longest:.1?}, idle {idle}; {note}",
            lags.len()
        ))
        .expect(longest < SOON, format!("an honest change was served after {longest:?}"))
}

/// How long an honest tool's changes took until they were served, while `f` ran; the shortest first.
fn lags_during(site: &Site, f: impl FnOnce()) -> Vec<Duration> {
    let lag = Lag::start(site);
    f();
    lag.finish()
}
