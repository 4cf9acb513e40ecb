//! Tools that take as much of the table as they can.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::report::Report;
use crate::site::{Plan, Site};
use crate::support::redis::RedisServer;

use super::{FEW, SOON, becomes_true, register, under_attack, wait_in_step};

/// Most patterns of a tool, each of the greatest length. An escaped pattern takes its space twice: as written and as a literal.
fn largest_patterns(tool: usize) -> Vec<String> {
    let pattern = |number: usize| format!(r"^/\-{}{tool:04}{number:02}$", "x".repeat(1013));
    (0..32).map(pattern).collect()
}

/// Most log lines per hostile tool.
const LINES: usize = 40;

/// A table of the shipped size with the number of honest tools that it is meant for.
pub fn filled_by_tools_at_their_limits() -> Report {
    filled("16m", 190, 3000)
}

pub fn small_one_filled_by_tools_at_their_limits() -> Report {
    filled("1m", 40, 150)
}

/// The hostile tools register first. All honest tools after them are routed, also after changes, and a new one fits.
fn filled(zone: &'static str, hostile: usize, honest: usize) -> Report {
    let table = "resync_interval 1s;".to_owned();
    let site = Site::with(RedisServer::start(&[]), Plan { zone, table, ..Plan::default() });
    let url = site.other_url();
    let fill = format!(
        "for i = 0, {honest} - 1 do redis.call('HSET', string.format('prefix:honest%04d', i), '.*', ARGV[1]) end"
    );
    let write_all =
        |url: &str| assert_eq!(site.redis.cli(&["EVAL", &fill, "0", url]), "", "the routes are not written");
    let expected: BTreeSet<_> = (0..honest).map(|number| format!("honest{number:04}")).collect();
    let ((is_complete, missing, answers, is_moved, is_newcomer_routed), note) = under_attack(&site, || {
        for tool in 0..hostile {
            register(&site.redis, &format!("hostile{tool}"), &largest_patterns(tool), &url);
        }
        wait_in_step(&site);
        write_all(&url);
        let missing = || expected.difference(&site.listed()).count();
        let is_complete = becomes_true(SOON, || missing() == 0);
        // An unused address: a tool that still answers has its old route.
        let gone = format!("http://127.0.0.1:{}", crate::support::port::free_port());
        write_all(&gone);
        let statuses = || -> BTreeSet<_> {
            let each = expected.iter().step_by(honest / 50);
            each.map(|tool| site.nginx.get(&format!("/{tool}/")).status).collect()
        };
        let is_moved = becomes_true(SOON, || statuses() == BTreeSet::from([502]));
        let answers = statuses();
        site.redis.cli(&["HSET", "prefix:newcomer", ".*", &url]);
        let is_newcomer_routed = becomes_true(SOON, || site.nginx.get("/newcomer/").status == 200);
        (is_complete, missing(), answers, is_moved, is_newcomer_routed)
    });
    let routed = site.listed().iter().filter(|tool| tool.starts_with("hostile")).count();
    let recovered = if is_moved { site.recovers() } else { Duration::ZERO };
    site.finish(recovered, SOON, FEW + hostile * LINES)
        .note(format!("{hostile} hostile tools, {routed} of them routed; {note}"))
        .expect(is_complete, format!("{missing} of {honest} honest tools have no route"))
        .expect(is_moved, format!("honest tools after their change are answered {answers:?}"))
        .expect(is_newcomer_routed, "a new honest tool does not fit")
}
