//! The costliest valid patterns.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use crate::churn::Lag;
use crate::report::Report;
use crate::site::{Plan, Site};
use crate::support::nginx::try_get;
use crate::support::redis::RedisServer;

use super::{FEW, SOON, Times, becomes_true, cpu_time, register, under_attack, wait_in_step, while_busy};

/// Most patterns of a tool.
const PATTERNS: usize = 32;
/// The automaton has about 2 to this power states; a heavier pattern would be refused alone.
const HEAVIEST: usize = 11;
/// Duration of the attack.
const ATTACK: Duration = Duration::from_secs(8);

/// A pattern with an automaton of `2^weight` states that matches only [`match_of`] the same number.
fn heavy(weight: usize, number: usize) -> String {
    format!("[ab]*a[ab]{{{weight}}}{}$", tail(number))
}

fn match_of(weight: usize, number: usize) -> String {
    format!("a{}{}", "b".repeat(weight), tail(number))
}

/// A number below 128 in letters that the rest of the pattern does not have, with constant length.
fn tail(number: usize) -> String {
    format!("{number:07b}").replace('0', "c").replace('1', "d")
}

/// Four tools with more patterns than a worker could cache, then the four heaviest with all patterns in use. A request may take
/// the CPU time of a search, but not that of a compilation.
pub fn in_requests() -> Report {
    const TOOLS: usize = 4;
    /// Compiling such patterns takes fifty times as long, a search one hundredth.
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
    // A rejected pattern matches nothing.
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
            // Enough that innocent requests do not matter.
            becomes_true(ATTACK, || turn.load(SeqCst) >= ENOUGH);
        };
        let before = cpu_time(&site);
        let (((), asked), note) = under_attack(&site, || while_busy(0..2, work, attack));
        let asked: u64 = asked.iter().sum();
        // Includes some innocent requests.
        let each = (cpu_time(&site) - before) / u32::try_from(asked.max(1)).unwrap_or(u32::MAX);
        notes
            .push(format!("[ab]{{{weight}}}: {asked} requests of {:.1} ms CPU time; {note}", each.as_secs_f64() * 1e3));
        if each > MOST {
            problems.push(format!("a request at [ab]{{{weight}}} takes {each:?} of CPU time"));
        }
    }
    let recovered = site.recovers();
    let report = site.finish(recovered, SOON, FEW).note(notes.join("; "));
    let report = report.expect(heaviest.is_some(), "no tool has all its patterns in use, so nothing was measured");
    problems.into_iter().fold(report, |report, problem| report.expect(false, problem))
}

/// Twenty tools exchange one of their 32 heavy patterns twice a second, and ten others a light one within all limits. An honest
/// tool's change does not wait for these.
pub fn in_registrations() -> Report {
    const EVERY: Duration = Duration::from_millis(500);
    const TOOLS: usize = 30;
    const ROUNDS: usize = (ATTACK.as_millis() / EVERY.as_millis()) as usize;
    /// Rejections are logged once per change.
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

/// Delays of an honest tool's changes until they are served, during `f`; in ascending order.
fn lags_during(site: &Site, f: impl FnOnce()) -> Vec<Duration> {
    let lag = Lag::start(site);
    f();
    lag.finish()
}
