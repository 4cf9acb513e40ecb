//! Faults of the routes: too many, or too many changes.

use std::thread;
use std::time::Duration;

use crate::churn::{Churn, Lag};
use crate::report::Report;
use crate::site::{Plan, Site};
use crate::support::redis::RedisServer;
use crate::traffic::{TOOLS, name};

const SOON: Duration = Duration::from_secs(2);
/// Most log lines: a start, and a few about routes.
const FEW: usize = 40;

pub fn a_thousand_changes_per_second() -> Report {
    let site = Site::start(&[]);
    let (churn, lag) = (Churn::start(&site), Lag::start(&site));
    thread::sleep(Duration::from_secs(60));
    let lags = lag.finish();
    let changes = churn.finish();
    let recovered = site.recovers();
    let of = |share: f64| lags[((lags.len() - 1) as f64 * share) as usize];
    let (half, most, longest) = (of(0.5), of(0.99), of(1.0));
    site.finish(recovered, SOON, FEW)
        .note(format!("{changes} changes; served after: median {half:.1?}, p99 {most:.1?}, longest {longest:.1?}"))
        .expect(changes > 50_000, format!("only {changes} changes in a minute"))
        .expect(most < Duration::from_millis(250), format!("1% of changes took {most:?} or longer"))
}

/// A site that resyncs every second, and so finds rejected routes again and again.
fn with_frequent_resyncs(zone: &'static str) -> Site {
    let table = "resync_interval 1s;".to_owned();
    Site::with(RedisServer::start(&[]), Plan { zone, table, ..Plan::default() })
}

/// The smallest zone is filled to its last tool.
pub fn full_and_one_more() -> Report {
    let site = with_frequent_resyncs("256k");
    let fill = "for i = 0, 8999 do redis.call('HSET', string.format('prefix:a%04d', i), '.*', ARGV[1]) end";
    site.redis.cli(&["EVAL", fill, "0", &site.other_url()]);
    site.wait_log("the table is full");
    // These changes come later, so all others are published or refused by then.
    site.recovers();
    let full = site.listed();
    let refused = "for i = 0, 8999 do local tool = string.format('a%04d', i) \
                   if not string.find(ARGV[1], tool, 1, true) then redis.call('DEL', 'prefix:' .. tool) end end";
    site.redis.cli(&["EVAL", refused, "0", &full.iter().map(String::as_str).collect::<Vec<_>>().join(" ")]);
    site.recovers();
    let is_exact = site.listed() == full;
    let kept = site.redis.cli(&["DBSIZE"]);

    site.redis.cli(&["HSET", "prefix:a9999", ".*", &site.other_url()]);
    site.wait_log("tool=\"a9999\"");
    site.serves_on(500);
    let recovered = site.recovers();
    let logged = site.logged("tool=\"a9999\"");
    let is_unchanged = site.listed() == full && (0..TOOLS).all(|tool| full.contains(&name(tool)));
    let answer = site.nginx.get("/a9999/").status;
    // After a removal the refused tool fits.
    site.redis.cli(&["DEL", "prefix:a0000"]);
    site.nginx.wait_for_status("/a0000/", 503);
    site.nginx.wait_for_status("/a9999/", 200);
    site.finish(recovered, SOON, FEW)
        .note(format!("{} tools fit", full.len()))
        .expect(full.len() > 500 && full.len() < 9000, format!("{} tools fit", full.len()))
        .expect(
            is_exact && kept == full.len().to_string(),
            format!("{kept} tools in Redis, {} in the table", full.len()),
        )
        .expect(logged == 1, format!("the refusal of the surplus tool is logged {logged} times"))
        .expect(is_unchanged, "the surplus tool changed the table")
        .expect(answer == 503, format!("the surplus tool was answered {answer}"))
}

pub fn one_route_too_many() -> Report {
    let site = with_frequent_resyncs("1m");
    let url = site.other_url();
    let patterns: Vec<_> = (0..33).map(|n| format!("^/p{n:02}$")).collect();
    let mut command = vec!["HSET", "prefix:many"];
    command.extend(patterns.iter().flat_map(|pattern| [pattern.as_str(), url.as_str()]));
    site.redis.cli(&command);
    site.wait_log("tool=\"many\"");
    site.serves_on(500);
    let recovered = site.recovers();
    let answers: Vec<_> = (0..33).map(|n| site.nginx.get(&format!("/many/p{n:02}")).status).collect();
    let served = answers.iter().filter(|status| **status == 200).count();
    let missed = answers.iter().filter(|status| **status == 503).count();
    let logged = site.logged("tool=\"many\"");
    site.finish(recovered, SOON, FEW)
        .note(format!("{served} of 33 served"))
        .expect((served, missed) == (32, 1), format!("{answers:?}"))
        .expect(logged == 1, format!("logged {logged} times"))
}
